"""How well the reference model answers from a policy's frames, from uniform ones, and from the most similar ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..encoders import load_encoder
from ..errors import EncodingError, VideoError
from ..questions import Question
from ..reference import Request
from ..reference.clips import Clip
from ..selectors.algorithms import topk, uniform
from ..selectors.dual_encoder import VECTORS, DualEncoderSelector
from ..selectors.protocol import released_frames, uses_policy
from .config import TrainConfig
from .data import QuestionSet, seeded
from .policy import Policy, PolicyInputs
from .process_group import ProcessGroup
from .reward import Reward, RewardModel

READ_ERRORS = (VideoError, EncodingError)
"""Errors of a single bad video; its questions are left out. Any other error ends the run."""

PREFIXES = {"policy": "", "released": "released_", "uniform": "uniform_", "top-k": "topk_"}
"""Beginnings of the names in the log of what each method reaches on held-out questions."""

_CHUNK = 64  # questions that are scored at once


@dataclass(frozen=True)
class Item:
    """A question with its candidates and what the policy reads of it."""

    question: Question
    clip: Clip
    inputs: PolicyInputs


@dataclass(frozen=True)
class Outcome:
    """One question answered from the frames of several methods.

    Attributes:
        id: of the question.
        video: for intervals, which resample videos.
        category: of the question.
        reward: by method.
        correct: by method, 0 to 1.
    """

    id: str
    video: str
    category: str
    reward: dict[str, float]
    correct: dict[str, float]


@dataclass(frozen=True)
class Picked:
    """What a policy picks for a question.

    Attributes:
        best: its best frames in the order of picking, int64 [K].
        first: log-probabilities of its first pick, [F].
        drawn: frames drawn from it at temperature 1, int64 [K]; None unless asked for.
        frames: candidates F.
    """

    best: Tensor
    first: Tensor
    drawn: Tensor | None
    frames: int

    def subset(self, method: str, num_frames: int) -> Tensor:
        """The positions that are answered from, sorted, [1, K]; see `selectors.protocol` for "released"."""
        if method == "policy":
            picks = self.best[:num_frames]
        elif uses_policy(self.frames):
            assert self.drawn is not None
            picks = self.drawn[:num_frames]
        else:
            picks = torch.from_numpy(np.unique(released_frames(np.arange(self.frames), None, num_frames=num_frames)))
        return picks[None].sort(-1).values


class Comparison:
    """Held-out questions and the methods they are answered with."""

    def __init__(
        self,
        policy: Policy,
        reward_model: RewardModel,
        questions: QuestionSet,
        processes: ProcessGroup,
        *,
        batch: int = 16,
        released: int | None = None,
    ) -> None:
        """Compare on `questions`.

        Args:
            policy, reward_model, questions, processes: of the run.
            batch: questions that the policy reads at once.
            released: a seed, to answer from frames by the protocol of the released evaluation too: drawn from the
                policy, or evenly spaced for short videos.
        """
        self._released = released
        self._policy, self._reward_model, self._questions = policy, reward_model, questions
        self._processes, self._batch = processes, batch
        self._baselines: dict[int, dict[str, Outcome]] = {}
        self.identity = ""  # of the questions and numbers of frames, for those who compare results
        self.first_picks: dict[str, Tensor] = {}
        self.unreadable: dict[str, str] = {}  # why a question was left out, by its id

    def __len__(self) -> int:
        return len(self._questions)

    def outcomes(self, num_frames: Sequence[int]) -> dict[int, list[Outcome]]:
        """Answers from the policy's best frames, uniform and top-k ones, for each K, without unreadable videos.

        Each question is read once: picks follow one another, so the first K of the most are those of every K. Uniform
        and top-k depend on no trained weights and are scored once. All processes get all outcomes.

        Besides, `first_picks` afterwards holds log-probabilities of the first pick for each question of this process.
        """
        mine: dict[int, list[Outcome]] = {k: [] for k in num_frames}
        self.first_picks = {}
        for items in self._chunks():
            picked = self.picks(items, max(num_frames))
            decoded = {item.question.id: one for item, one in zip(items, picked, strict=True)}
            self.first_picks |= {name: one.first for name, one in decoded.items()}
            for k in num_frames:
                known = self._baselines.setdefault(k, {})
                known.update(self._baseline_outcomes([item for item in items if item.question.id not in known], k))
                scored = [item for item in items if item.question.id in known]
                answered = {item.question.id: known[item.question.id] for item in scored}
                for method in ("policy",) if self._released is None else ("policy", "released"):
                    requests = [
                        Request(item.question, item.clip, decoded[item.question.id].subset(method, k))
                        for item in scored
                    ]
                    for item, reward in self._readable(scored, requests):
                        answered[item.question.id] = _with(answered[item.question.id], method, reward)
                mine[k] += [outcome for outcome in answered.values() if "policy" in outcome.reward]
        gathered = self._processes.gather(mine)
        return {k: [outcome for part in gathered for outcome in part[k]] for k in num_frames}

    def picks(self, items: Sequence[Item], num_frames: int) -> list[Picked]:
        """What the policy picks for each item, on the CPU."""
        found: list[Picked | None] = [None] * len(items)
        for rows in grouped(self._policy, [item.inputs for item in items], self._batch):
            generator = None
            if self._released is not None:
                seed = seeded(self._released, 7, int.from_bytes(items[rows[0]].question.id.encode()[-6:], "big"))
                generator = torch.Generator(self._policy.device).manual_seed(seed)
            best, first, drawn = self._policy.best([items[row].inputs for row in rows], num_frames, generator)
            for place, row in enumerate(rows):
                found[row] = Picked(
                    best[place].cpu(), first[place].cpu(), None if drawn is None else drawn[place].cpu(),
                    len(items[row].clip),
                )  # fmt: skip
        return [one for one in found if one is not None]

    def _chunks(self) -> Iterator[list[Item]]:
        mine = range(self._processes.rank, len(self._questions), self._processes.size)
        for start in range(0, len(mine), _CHUNK):
            items = []
            for place in mine[start : start + _CHUNK]:
                item = load_item(self._policy, self._questions, place)
                if isinstance(item, UnreadableItem):
                    self.unreadable[item.id] = item.reason
                else:
                    items.append(item)
            yield items

    def _readable(self, items: Sequence[Item], requests: Sequence[Request]) -> Iterator[tuple[Item, Reward]]:
        """Items with their rewards, without those whose video cannot be read any more."""
        for item, reward in zip(items, score_readable(self._reward_model, requests), strict=True):
            if isinstance(reward, UnreadableItem):
                self.unreadable[reward.id] = reward.reason
            else:
                yield item, reward

    def _baseline_outcomes(self, items: Sequence[Item], num_frames: int) -> dict[str, Outcome]:
        requests = []
        for item in items:
            picks = [uniform(item.clip.timestamps, num_frames), self._most_similar(item, num_frames)]
            requests.append(Request(item.question, item.clip, torch.from_numpy(np.stack(picks)).sort(-1).values))
        outcomes = {}
        for item, reward in self._readable(items, requests):
            q = item.question
            outcome = Outcome(q.id, q.video, q.category, {}, {})
            for row, method in enumerate(("uniform", "top-k")):
                outcome = _with(outcome, method, reward, row)
            outcomes[q.id] = outcome
        return outcomes

    def _most_similar(self, item: Item, num_frames: int) -> np.ndarray:
        similar = cosines(self._matcher, item.question, item.clip).double().numpy()
        return topk(similar, num_frames, timestamps=item.clip.timestamps)

    @cached_property
    def _matcher(self) -> DualEncoderSelector:
        return matcher_of(self._policy)


def compared(
    config: TrainConfig, policy: Policy, reward_model: RewardModel, questions: QuestionSet, processes: ProcessGroup
) -> Comparison:
    """A `Comparison` as the settings of a run say."""
    released = config.seed if config.validation.released else None
    size = config.optimiser.micro_batch
    made = Comparison(policy, reward_model, questions, processes, batch=size, released=released)
    made.identity = f"{questions.fingerprint} {list(validation_frames(config))}"
    return made


def validation_frames(config: TrainConfig) -> list[int]:
    """K of the evaluations on held-out questions."""
    return sorted(set(config.validation.num_frames or (k for stage in config.stages for k in stage.num_frames)))


@dataclass(frozen=True)
class UnreadableItem:
    """A question whose video cannot be read.

    Attributes:
        id: of the question.
        reason: the error.
    """

    id: str
    reason: str


def load_item(policy: Policy, questions: QuestionSet, place: int) -> Item | UnreadableItem:
    """A question with its candidates, or why it has none."""
    question = questions.questions[place]
    try:
        clip = questions.clips(question.video)
        inputs = policy.inputs(question, clip)
    except READ_ERRORS as error:
        return UnreadableItem(question.id, str(error))
    if not bool(inputs.frames.sum().isfinite()):
        return UnreadableItem(question.id, f"the features of {question.video} are not finite")
    return Item(question, clip, inputs)


def score_readable(reward_model: RewardModel, requests: Sequence[Request]) -> list[Reward | UnreadableItem]:
    """Score each request; a video that cannot be read costs only its own questions."""
    try:
        return list(reward_model(requests))
    except READ_ERRORS as error:
        if len(requests) == 1:
            return [UnreadableItem(requests[0].question.id, str(error))]
        return [one for request in requests for one in score_readable(reward_model, [request])]


def grouped(policy: Policy, inputs: Sequence[PolicyInputs], size: int) -> list[list[int]]:
    """Rows that the policy can read together, at most `size` at once, in order of first appearance."""
    groups: dict[object, list[int]] = {}
    for row, one in enumerate(inputs):
        groups.setdefault(policy.group(one), []).append(row)
    return [rows[i : i + size] for rows in groups.values() for i in range(0, len(rows), size)]


def matcher_of(policy: Policy) -> DualEncoderSelector:
    """Who compares frames with questions: the policy's own encoder, or the embedded one."""
    return policy.reader if isinstance(policy.reader, DualEncoderSelector) else _embedded()


@lru_cache(maxsize=1)
def _embedded() -> DualEncoderSelector:
    return DualEncoderSelector(load_encoder("mini"))


def cosines(matcher: DualEncoderSelector, question: Question, clip: Clip) -> Tensor:
    """Cosine of each candidate with the question, float32 [F]."""
    frames = torch.nn.functional.normalize(clip.encoding(matcher).tensors[VECTORS].float(), dim=-1)
    text = torch.nn.functional.normalize(matcher.encoder.encode_text([question.question])[0].float(), dim=-1)
    return frames @ text


def _with(outcome: Outcome, method: str, answered: Reward, row: int = 0) -> Outcome:
    reward, correct = float(answered.value[row]), float(answered.correct[row])
    return Outcome(
        outcome.id,
        outcome.video,
        outcome.category,
        {**outcome.reward, method: reward},
        {**outcome.correct, method: correct},
    )
