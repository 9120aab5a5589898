"""Selections within a token budget: the plan of `refocus_select.budget`, carried out and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refocus_select.arguments import ENCODE_ARGUMENTS
from refocus_select.budget import (
    CONTEXT,
    USED,
    Choice,
    Cost,
    FramePlan,
    Size,
    TokenBudget,
    frames_needed,
    plan_frames,
    relevance,
    shares,
    size_ladder,
    wants_detail,
)
from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError
from refocus_select.selection import Selection

from .choose import Request, located, video_key
from .input_format import InputFormat
from .questions import Question
from .tokens import Meter

DEFAULT_FRAMES = 8  # where neither a number nor a budget is given

_PROBE = 8  # frames that are chosen to learn how many are needed
_LIMITED = 0.7  # of the tokens that its frames would cost apart: below it the processor itself has a budget
_ROUNDS = 6  # of choosing and measuring, until the budget is used


def frames_or_budget(num_frames: Any, token_budget: Any) -> tuple[Any, TokenBudget | None]:
    """Number of frames and budget from what a caller gave; the number is None where the budget decides.

    Raises:
        InputError: if one of them is not usable.
    """
    budget = TokenBudget.of_value(token_budget)
    if num_frames is None:
        return (DEFAULT_FRAMES if budget is None else None), budget
    if isinstance(num_frames, str) and num_frames == "auto" and budget is not None:
        return num_frames, budget
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer) or num_frames < 1:
        hint = '; "auto" needs a token_budget here' if num_frames == "auto" else ""
        raise InputError(f"num_frames must be a whole number of at least 1, not {num_frames!r}{hint}")
    return int(num_frames), budget


def select_within(
    video: Any,
    questions: Sequence[str],
    processor: Any,
    selector: Any,
    token_budget: int | TokenBudget,
    *,
    num_frames: Any = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    **select_kwargs: Any,
) -> list[Selection]:
    """The frames of one video for several questions, each within a number of video tokens of a model.

    Args:
        video: anything that `FrameSelector.select` takes.
        questions: what is asked.
        processor: of the model that will read the frames.
        selector: a `FrameSelector`.
        token_budget: for each question.
        num_frames: see `with_frame_selection`.
        timestamps: see `with_frame_selection`.
        temporal_merge: see `with_frame_selection`.
        **select_kwargs: more arguments of `FrameSelector.select`.

    Raises:
        InputError: if the budget is below one frame, or of the whole prompt, which is not known here.
    """
    number, budget = frames_or_budget(num_frames, token_budget)
    if budget is None or budget.of != "video":
        raise InputError("a budget of the whole prompt needs the prompt: use with_frame_selection or select_messages")
    meter = Meter(processor, InputFormat.of(processor, timestamps, temporal_merge))
    requests = [
        Request(video, Question(text), number, f"question {k + 1}", select_kwargs, conversation=k)
        for k, text in enumerate(questions)
    ]
    return choose_within(selector, requests, budget, meter, {})


def choose_within(
    selector: Any, requests: Sequence[Request], budget: TokenBudget, meter: Meter, beside: Mapping[int, int]
) -> list[Selection]:
    """The selection for each request, with its `plan`; the videos of a conversation share its budget by relevance.

    Args:
        selector: a `FrameSelector`.
        requests: in order.
        budget: of each conversation.
        meter: of the processor that will read the frames.
        beside: tokens of each conversation without its videos, for a budget of the whole prompt.

    Raises:
        InputError: if a budget is below one frame of a video.
        RefocusError: of the kind that the selector raised; the message begins with the place and the video.
    """
    asked = [_Asked(selector, request, budget, meter) for request in _encoded(selector, requests, budget)]
    for conversation in dict.fromkeys(r.conversation for r in requests):
        own = [a for a in asked if a.request.conversation == conversation]
        left = budget.tokens
        if budget.of == "prompt":
            left -= beside.get(conversation, 0)
            if left < 1:
                raise InputError(
                    f"token_budget={budget.tokens} is used up by the {beside[conversation]} tokens of the prompt "
                    "beside its videos; raise it, or give a budget of video tokens"
                )
        parts = shares(left, _weights(selector, own))
        for part, item in sorted(zip(parts, own, strict=True), key=lambda pair: pair[0]):
            remaining = sum(p for p, a in zip(parts, own, strict=True) if a.selection is None) - part
            item.fit(max(part, left - remaining))  # what a video before could not use
            left -= item.plan.tokens
    _equalise(asked, meter)
    return [item.chosen for item in asked]


def fit_selection(
    select: Callable[[int], Selection],
    tokens: int,
    budget: TokenBudget,
    meter: Meter,
    *,
    num_frames: Any = None,
    probe: Selection | None = None,
) -> Selection:
    """One selection within a number of tokens.

    Args:
        select: chooses so many frames.
        tokens: at most so many are added to the prompt.
        budget: limits of number and size.
        meter: of the processor.
        num_frames: None if the budget decides, "auto" if the question does within it, or exactly so many.
        probe: a selection of any number of frames of that question, if there is one.

    Returns:
        The selection with its `plan`.

    Raises:
        InputError: if the fewest frames at the smallest size cost more.
    """
    probe = probe or select(_PROBE if num_frames in (None, "auto") else int(num_frames))
    setting = _Setting.of(probe, budget, meter, num_frames)
    best: tuple[Selection, FramePlan] | None = None
    factor = 1.0  # what frames cost in truth, over what was thought
    for _ in range(_ROUNDS):
        choice = setting.plan(tokens, factor)
        if choice is None:
            break
        selection = select(choice.num_frames)
        plan = setting.measured(selection, choice, tokens)
        if plan.tokens <= tokens and (best is None or plan.tokens > best[1].tokens):
            best = selection, plan
        if setting.limited(selection, plan):
            break  # larger frames, or more of them, would be made smaller still
        if setting.stops or (choice.num_frames == setting.most and choice.size == setting.ladder[-1]):
            done = plan.tokens <= tokens
        else:
            done = USED * tokens <= plan.tokens <= tokens
        if done:
            break
        fixed = meter.cost(choice.size, setting.duration).fixed
        factor *= max(plan.tokens - fixed, 1.0) / max(choice.tokens - fixed, 1.0)
        if plan.tokens > tokens:
            factor *= 1.01
    if best is None:
        best = _smallest(select, setting, tokens, budget)
    return replace(best[0], plan=best[1])


def _smallest(
    select: Callable[[int], Selection], setting: _Setting, tokens: int, budget: TokenBudget
) -> tuple[Selection, FramePlan]:
    """The fewest frames at the smallest size, or the error that they cost too much."""
    selection = select(setting.least)
    size = setting.ladder[0]
    plan = setting.measured(selection, Choice(setting.least, size, size, 0.0, "the least that is allowed"), tokens)
    if plan.tokens > tokens:
        what = "one frame" if setting.least == 1 else f"{setting.least} frames"
        side = f" of {size[0]} x {size[1]} pixels" if len(setting.ladder) > 1 else ""
        raise InputError(
            f"{tokens} tokens are below {what}: {what}{side} cost {plan.tokens} tokens with this processor; raise "
            f"token_budget (now {budget.tokens})"
            + (", or lower min_side" if len(setting.ladder) > 1 else "")
            + (", or lower min_frames" if setting.least > 1 else "")
        )
    return selection, plan


@dataclass(frozen=True)
class _Setting:
    """What is fixed while number and size are sought."""

    meter: Meter
    ladder: tuple[Size, ...]
    duration: float
    needed: int
    least: int
    most: int
    wanted: float
    graded: bool
    stops: bool  # the question ends the selection, not the budget

    @classmethod
    def of(cls, probe: Selection, budget: TokenBudget, meter: Meter, num_frames: Any) -> _Setting:
        format = meter.input_format
        available = len(probe.candidate_indices)
        exact = format.family.fixed_frames if num_frames in (None, "auto") else format.frames_to_choose(int(num_frames))
        least, most = format.moments(budget.min_frames), format.moments(budget.max_frames)
        if exact is not None:
            least = most = exact
        least, most = min(least, available), min(most, available)
        native = (probe.video.height, probe.video.width)
        limits = {"min_side": budget.min_side, "max_side": budget.max_side}
        ladder = tuple(size_ladder(native, grid=meter.grid, **limits))  # type: ignore[arg-type]
        ends = [meter.cost(size, probe.duration) for size in (ladder[0], ladder[-1])]
        if ends[0] == ends[1]:  # the processor gives all frames one size
            ladder = ladder[-1:]
        prefer = budget.prefer
        if prefer == "auto":
            prefer = "size" if wants_detail(probe.question) else "auto"
        return cls(
            meter, ladder, probe.duration, min(frames_needed(probe), most), least, most,
            {"auto": CONTEXT, "size": 1.0, "frames": float(most)}[prefer],
            graded=meter.graded and len(ladder) > 1, stops=num_frames == "auto",
        )  # fmt: skip

    def plan(self, tokens: int, factor: float) -> Choice | None:
        def cost(size: Size) -> Cost:
            measured = self.meter.cost(size, self.duration)
            return Cost(measured.fixed, measured.each * factor)

        found = plan_frames(
            tokens, self.ladder, cost, needed=self.needed, least=self.least, most=self.most, wanted=self.wanted,
            graded=self.graded,
        )  # fmt: skip
        if found is None or not self.stops or found.num_frames <= max(self.least, self.needed):
            return found
        return replace(
            found, num_frames=max(self.least, self.needed), why=f"the question needs {self.needed} frames, and no more"
        )

    def limited(self, selection: Selection, plan: FramePlan) -> bool:
        """Whether the processor makes these frames smaller than it would make few of them."""
        if len(plan.sizes) > 1:
            return False
        cost, format = self.meter.cost(plan.sizes[0], self.duration), self.meter.input_format
        units = len(selection) if format.temporal_merge == "ignore" else len(format.groups(selection.timestamps))
        return plan.tokens < _LIMITED * (cost.fixed + units * cost.each)

    def measured(self, selection: Selection, choice: Choice, tokens: int) -> FramePlan:
        """The plan of a selection, with what it costs in truth."""
        sizes: tuple[Size, ...] = (choice.size,)
        if choice.context_size != choice.size:
            ranks = np.argsort(np.argsort(-selection.scores[selection.picks], kind="stable"), kind="stable")
            sizes = tuple(choice.size if rank < self.needed else choice.context_size for rank in ranks)
        spent = self.meter.count(selection.timestamps.tolist(), self.duration, sizes, words=selection)
        each = self.meter.cost(choice.size, self.duration).each
        return FramePlan(tokens, spent, len(selection), sizes, each, self.needed, choice.why)


class _Asked:
    """One request on its way to a selection."""

    def __init__(self, selector: Any, request: Request, budget: TokenBudget, meter: Meter) -> None:
        self.selector, self.request, self.budget, self.meter = selector, request, budget, meter
        self.selection: Selection | None = None
        exact = request.num_frames not in (None, "auto")
        self.probe = self.select(meter.input_format.frames_to_choose(int(request.num_frames)) if exact else _PROBE)

    def select(self, num_frames: int) -> Selection:
        request, options = self.request, self.request.question.options
        kwargs = dict(request.arguments) if options is None else {**request.arguments, "options": list(options)}
        with located(request.where, request.video):
            found = self.selector.select(request.video, request.question.text, num_frames=num_frames, **kwargs)
        return found

    def fit(self, tokens: int, num_frames: Any = None) -> None:
        number = self.request.num_frames if num_frames is None else num_frames
        with located(self.request.where, self.request.video):
            self.selection = fit_selection(
                self.select, tokens, self.budget, self.meter, num_frames=number, probe=self.probe
            )

    @property
    def chosen(self) -> Selection:
        assert self.selection is not None
        return self.selection

    @property
    def plan(self) -> FramePlan:
        assert self.chosen.plan is not None
        return self.chosen.plan


def _encoded(selector: Any, requests: Sequence[Request], budget: TokenBudget) -> list[Request]:
    """The requests with encodings in the place of videos: several numbers of frames are tried."""
    if not callable(getattr(selector, "encode", None)):
        return list(requests)
    known: dict[Any, VideoEncoding] = {}
    found = []
    for request in requests:
        if isinstance(request.video, VideoEncoding):
            found.append(request)
            continue
        reading = {k: v for k, v in request.arguments.items() if k in ENCODE_ARGUMENTS}
        number = request.num_frames if isinstance(request.num_frames, int) else budget.min_frames
        least = reading.get("min_frames") or getattr(selector.rule, "min_frames", 1)
        reading["min_frames"] = max(int(number or 1), int(least or 1))
        key = (video_key(request.video), tuple(sorted(reading.items(), key=str)))
        if key not in known:
            with located(request.where, request.video):
                known[key] = selector.encode(request.video, **reading)
        choice = {k: v for k, v in request.arguments.items() if k not in ENCODE_ARGUMENTS}
        found.append(replace(request, video=known[key], arguments=choice))
    return found


def _weights(selector: Any, asked: Sequence[_Asked]) -> list[float]:
    """How relevant the videos of a conversation are: how far their best frames stand out among all frames of all.

    Where the selector's scores cannot be compared between videos, those count half in which nothing was found.
    """
    if len(asked) == 1:
        return [1.0]
    similarity = getattr(selector, "similarity", None)
    if callable(similarity) and all(isinstance(a.request.video, VideoEncoding) for a in asked):
        rows = [np.asarray(similarity(a.request.video, [a.request.question.text]))[0] for a in asked]
        joint = np.split(relevance(np.concatenate(rows)), np.cumsum([len(row) for row in rows])[:-1])
        return [float(np.sort(part)[-_PROBE:].sum()) for part in joint]
    return [1.0 if a.probe.strategy == "selected" else 0.5 for a in asked]


def _equalise(asked: Sequence[_Asked], meter: Meter) -> None:
    """One number of frames for all videos of a call, where the processor needs that: the least of them."""
    if not meter.input_format.family.equal_frames or len(asked) < 2:
        return
    least = min(len(item.chosen) for item in asked)
    for item in asked:
        if len(item.chosen) > least:
            item.fit(item.plan.budget, least)
