"""A token budget instead of a number of frames: how many frames, and at which size. Pure functions, nothing is read.

The rule, in this order:

1. A question *needs* as many frames as the selector's learned stop says (`Selection.enough`), or else the fewest frames
   that cover half of its relevance (`frames_needed`).
2. As many frames again are wanted as context, so twice the need; a question about something written or small is
   content with the need alone (`wants_detail`).
3. Of all pairs (number, size) that use the budget up, the one whose number is nearest to what is wanted is taken: at
   few tokens the frames become small down to `min_side` before they become fewer, at many tokens they become large up
   to their own size before they become more.

Twice is a choice: `docs/budget.md` says what was measured and what was not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .selection import Selection

Size = tuple[int, int]
"""Height and width in pixels."""

OF = ("video", "prompt")
PREFER = ("auto", "frames", "size")

MOST_NEEDED = 32  # frames: what needs more is no matter of single frames
COVERED = 0.5  # share of the relevance that the needed frames cover
REACH = 1.0  # seconds to each side that a frame stands for
CONTEXT = 2.0  # wanted frames over needed ones
USED = 0.88  # share of the budget that is sought: above 85 % when times come out shorter than thought
_SPREAD = 8  # frames needed where the scores say nothing


@dataclass(frozen=True)
class TokenBudget:
    """What a video may cost.

    Attributes:
        tokens: at most so many.
        of: "video" (what the videos add to the prompt: pictures, times, separators) or "prompt" (the whole of it).
        min_frames: at least so many frames per video.
        max_frames: at most so many frames per video.
        min_side: frames are not made smaller than this on the longer side, in pixels.
        max_side: nor larger than this; None for the size of the video. Frames are never enlarged.
        prefer: "auto" (by the question), "frames" (more of them), or "size" (larger ones).
    """

    tokens: int
    of: str = "video"
    min_frames: int = 1
    max_frames: int = 128
    min_side: int = 224
    max_side: int | None = None
    prefer: str = "auto"

    def __post_init__(self) -> None:
        for name in ("tokens", "min_frames", "max_frames", "min_side", "max_side"):
            value = getattr(self, name)
            if name == "max_side" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                said = "token_budget" if name == "tokens" else f"{name} of the token budget"
                raise InputError(f"{said} must be a whole number of at least 1, not {value!r}")
        if self.of not in OF:
            raise InputError(f"budget_of must be one of {', '.join(OF)}, not {self.of!r}")
        if self.prefer not in PREFER:
            raise InputError(f"prefer must be one of {', '.join(PREFER)}, not {self.prefer!r}")
        if self.min_frames > self.max_frames:
            raise InputError(f"min_frames={self.min_frames} of the token budget is above max_frames={self.max_frames}")
        if self.max_side is not None and self.min_side > self.max_side:
            raise InputError(f"min_side={self.min_side} of the token budget is above max_side={self.max_side}")

    @classmethod
    def of_value(cls, value: Any) -> TokenBudget | None:
        """A budget from what a caller gave: None, a number of video tokens, or a budget.

        Raises:
            InputError: if it is none of these.
        """
        if value is None or isinstance(value, cls):
            return value
        return cls(value)


@dataclass(frozen=True)
class FramePlan:
    """What was decided for one video under a budget, and what it costs. Of a selection it is the attribute `plan`.

    Attributes:
        budget: tokens that this video could cost.
        tokens: what it does cost, measured with the processor.
        num_frames: K.
        sizes: (height, width) of the frames in pixels: one for all, or one for each.
        frame_tokens: of a frame of the first size that shares nothing, its time included.
        needed: how many frames the question needs.
        why: the decision in words.
    """

    budget: int
    tokens: int
    num_frames: int
    sizes: tuple[Size, ...]
    frame_tokens: float
    needed: int
    why: str

    def size_of(self, position: int) -> Size:
        """Of one chosen frame."""
        return self.sizes[position if len(self.sizes) > 1 else 0]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "budget": self.budget, "tokens": self.tokens, "num_frames": self.num_frames,
            "sizes": [list(size) for size in self.sizes], "frame_tokens": round(self.frame_tokens, 2),
            "needed": self.needed, "why": self.why,
        }  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What frames of one size cost: `fixed + frames * each` tokens."""

    fixed: float
    each: float


# -- what a question needs ----------------------------------------------------------------------------

_DETAIL = re.compile(
    r"\b(text|titles?|headlines?|captions?|subtitles?|written|writes?|writing|reads?|spell(s|ed|ing)?|letters?|words?|"
    r"signs?|label(s|led)?|logos?|brands?|numbers?|numerals?|digits?|license plates?|plates?|scoreboards?|"
    r"(the|final) score|prices?|date|menus?|screens?|displays?|tickers?|jersey|small|tiny|little|details?|"
    r"engraved|printed|inscri\w+|clock|watch face|phone number|url|website|email)\b",
    re.IGNORECASE,
)


def wants_detail(question: str) -> bool:
    """Whether a question asks about something written or small, so that size tells more than further frames."""
    return _DETAIL.search(question) is not None


def relevance(scores: np.ndarray) -> np.ndarray:
    """How far each candidate stands out from the usual one, from 0 to 1, float64 [F]; zeros if none does."""
    finite = np.isfinite(scores)
    found = np.zeros(len(scores))
    if not finite.any():
        return found
    usual, best = float(np.median(scores[finite])), float(scores[finite].max())
    if best - usual > 1e-9:
        found[finite] = np.clip((scores[finite] - usual) / (best - usual), 0.0, 1.0)
    return found


def frames_needed(selection: Selection) -> int:
    """How many frames a question needs: what the selector has learned, or what covers half of the relevance.

    A frame stands for a second to each side of it, so that many near candidates of one scene count as one.
    """
    if selection.enough is not None:
        return max(1, selection.enough)
    if selection.strategy != "selected":
        return _SPREAD
    left = relevance(selection.scores)
    times, total = selection.candidate_timestamps, float(left.sum())
    if total <= 0:
        return _SPREAD
    covered, count = 0.0, 0
    while covered < COVERED * total and count < MOST_NEEDED:
        near = np.abs(times - times[int(left.argmax())]) <= REACH
        covered += float(left[near].sum())
        left = np.where(near, 0.0, left)
        count += 1
    return max(1, count)


def shares(tokens: int, weights: Sequence[float]) -> list[int]:
    """A budget divided among the videos of a prompt in proportion to their relevance.

    None gets less than a fourth of an equal share.
    """
    total = float(sum(weights))
    even = 1.0 / len(weights)
    parts = [even if total <= 0 else 0.25 * even + 0.75 * w / total for w in weights]
    return [int(tokens * part) for part in parts]


# -- sizes --------------------------------------------------------------------------------------------


def size_ladder(native: Size, *, min_side: int, max_side: int | None, grid: int | None = None) -> list[Size]:
    """The sizes that frames of a video may have, smallest first, in its shape.

    Args:
        native: (height, width) of the video.
        min_side: of the longer side.
        max_side: of the longer side; None for the video's own.
        grid: both sides are multiples of it, as processors round them; None if it is not known.

    Returns:
        At least one size; the largest is that of the video, or has `max_side`.
    """
    height, width = native
    longest = max(height, width)
    most = longest if max_side is None else min(longest, max_side)
    step = grid or 28
    sides = [*range(-(-min(min_side, most) // step) * step, most, step), most]
    found: list[Size] = []
    for side in sides:
        size = (_rounded(height * side / longest, grid), _rounded(width * side / longest, grid))
        if not found or size[0] * size[1] > found[-1][0] * found[-1][1]:
            found.append(size)
    return found


def _rounded(pixels: float, grid: int | None) -> int:
    return max(1, round(pixels)) if grid is None else max(grid, round(pixels / grid) * grid)


# -- the plan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Number and size of frames.

    Attributes:
        num_frames: K.
        size: (height, width) of the frames, or of the important ones.
        context_size: of the frames beyond the needed ones.
        tokens: what they are thought to cost.
        why: in words.
    """

    num_frames: int
    size: Size
    context_size: Size
    tokens: float
    why: str


def plan_frames(
    tokens: int,
    ladder: Sequence[Size],
    cost: Callable[[Size], Cost],
    *,
    needed: int,
    least: int = 1,
    most: int = 128,
    wanted: float = CONTEXT,
    graded: bool = False,
) -> Choice | None:
    """Number and size of frames for one video: the rule that stands at the top of this module.

    Args:
        tokens: at most so many.
        ladder: the sizes that are allowed, smallest first.
        cost: of frames of one size; larger ones never cost less.
        needed: how many frames the question needs.
        least: frames at least.
        most: frames at most.
        wanted: frames that are wanted, as a multiple of the needed ones.
        graded: frames beyond the needed ones may be half as long and wide.

    Returns:
        None if `least` frames of the smallest size cost too much.
    """

    def context_of(step: int) -> int:
        """The size that is half as long and wide, or a larger one at the same price."""
        area = ladder[step][0] * ladder[step][1] / 4
        found = max((k for k in range(step + 1) if ladder[k][0] * ladder[k][1] <= area), default=0)
        while found < step and cost(ladder[found + 1]).each <= cost(ladder[found]).each:
            found += 1
        return found

    def total(count: int, step: int) -> float:
        large, small = cost(ladder[step]), cost(ladder[context_of(step) if graded else step])
        important = min(count, needed)
        return large.fixed + important * large.each + (count - important) * small.each

    def largest(count: int) -> int | None:
        """The largest size at which so many frames fit, by bisection."""
        if total(count, 0) > tokens:
            return None
        low, high = 0, len(ladder) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if total(count, middle) <= tokens else (low, middle - 1)
        return low

    least, most = min(least, most), most
    target = min(max(wanted * needed, least), most)
    best: tuple[float, int, int] | None = None
    for count in sorted(range(least, most + 1), key=lambda n: abs(math.log(n / target))):
        step = largest(count)
        if step is None:
            continue
        spent = total(count, step)
        if best is None or spent > best[0]:
            best = (spent, count, step)
        if spent >= USED * tokens:
            break
    if best is None:
        return None
    spent, count, step = best
    context = context_of(step) if graded and count > needed else step
    return Choice(count, ladder[step], ladder[context], spent, _why(count, step, len(ladder), needed, most))


def _why(count: int, step: int, steps: int, needed: int, most: int) -> str:
    number = f"the question needs {needed} frames"
    if count >= most and step == steps - 1:
        return f"{number}; all {count} that there can be are shown at the largest size"
    if count < needed:
        return f"{number}, but only {count} of the smallest size fit" if step == 0 else f"{number}; {count} are shown"
    return f"{number}; {count - needed} more show what is around them" if count > needed else number


def with_tokens(plan: FramePlan, tokens: int) -> FramePlan:
    """The same plan with another measured cost."""
    return replace(plan, tokens=tokens)
