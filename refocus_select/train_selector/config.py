"""`TrainConfig`: every setting of a training run, its default and where that comes from.

Sources: [P] the ReFoCUS poster and [W] project page, [C] the authors' released code; [S] our own study of
small policies (benchmarks/storyboards/runs); "ours" where nothing is published and nothing was compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError
from .settings import setting

Method = Literal["reinforce", "similarity", "evidence"]


def _at_least(least: float, name: str, value: float) -> None:
    if not value >= least:
        raise InputError(f"{name} must be at least {least:g}, not {value!r}")


@dataclass(frozen=True)
class DataConfig:
    """Which questions about which videos."""

    train: str | None = setting(
        None, "questions to learn from: .jsonl, .parquet, .csv, saved dataset, module:attribute"
    )
    validation: str | None = setting(None, "held-out questions, never learned from")
    format: Literal[
        "refocus", "nextqa", "star", "perception_test", "llava_video", "video_r1", "activitynet_qa", "clevrer"
    ] = setting("refocus", "layout of train and validation: tables as of refocus_select.questions, or a published set")
    distractors: int = setting(
        0, "wrong options that an open question gets from the answers to others of its kind; 0 leaves open ones out"
    )
    clips: str | None = setting(None, "module:attribute that gives the videos of question files (default: the disk)")
    arguments: dict[str, Any] = setting(dict, "keyword arguments of every module:attribute here, beside split")
    root: str | None = setting(None, "folder of relative video paths (default: beside the file)")
    fps: float = setting(4.0, "candidate frames per second at most", "C")
    max_frames: int = setting(512, "candidate frames at most", "P")
    method: Literal["time", "paper"] = setting("paper", "how candidates are placed", "C")
    cache: str | None = setting(None, "folder of frame features (default: <output>/features)")
    cache_size: str = setting("100GB", "limit of that folder")
    options_to_policy: bool = setting(
        False, "show the policy the answer options (the paper does; a user may have none)"
    )
    check_videos: bool = setting(True, "open every video before anything starts")
    workers: int | None = setting(
        None, "threads that decode and encode the next steps' videos (default: 4 for files, 0 for made videos)"
    )


@dataclass(frozen=True)
class PolicyConfig:
    """The policy that is trained."""

    init: str | None = setting(
        None,
        "folder or Hub id to start from: a policy, or a network of that architecture without the heads of one, such "
        "as Video-Ma2mba; else a network is built from the rest",
    )
    network: Literal["portable", "refocus"] = setting(
        "portable", "what is built: a small one over an encoder's vectors, or that of the paper"
    )
    vision: str = setting("google/siglip-so400m-patch14-384", "refocus: folder or Hub id of its SigLIP tower", "C")
    tokenizer: str | None = setting(None, "refocus: tokenizer.json or its folder (default: GPT-NeoX)", "C")
    encoder: str = setting("mini", "dual encoder whose vectors are learned from: mini, a folder, or a Hub id")
    d_model: int = setting(64, "width", "S")
    n_layer: int = setting(1, "Mamba-2 layers; portable: from either end")
    d_state: int = setting(16, "state size of a head")
    headdim: int = setting(32, "channels of a head")
    entities: int = setting(3, "things that a question names which are looked for; further ones are not read")
    attention_heads: int = setting(4, "of the attention between frames; 0: none")
    max_picks: int = setting(16, "it picks so many frames at most when it is used")
    random_eyes: bool = setting(False, "while learning, every video is seen as another encoder might see it")
    sentence_noise: float = setting(
        0.0, "random part of a question's sentence while learning, in lengths of its vector at most"
    )
    sentence_dropout: float = setting(0.0, "share of questions whose sentence is not told while learning")
    reinitialise: Literal["paper", "heads", "none"] = setting(
        "none", "of `init`: the last block and the heads as the authors do before RL, the heads only, or nothing", "C"
    )
    train_vision: bool = setting(False, "train the vision tower too; otherwise its features are kept on disk")
    gradient_checkpointing: bool = setting(
        True, "read long prompts again in the backward pass, a layer of a segment at a time"
    )
    segment_tokens: int = setting(8192, "visual tokens of a segment")
    readings_kept: int | None = setting(
        16, "prompts of a step and process whose graph waits for its rewards; further ones are read twice"
    )
    feature_dtype: Literal["bfloat16", "float32"] = setting("bfloat16", "of the kept features of the vision tower")


@dataclass(frozen=True)
class ReferenceConfig:
    """The frozen model that answers."""

    model: str = setting("", "Hub id or folder of a video model or reader, or module:attribute; [P] used InternVL3-2B")
    arguments: dict[str, Any] = setting(dict, "its keyword arguments: device, dtype, revision, …")
    also: tuple[str, ...] = setting((), "further models; rewards are averaged over all of them", "S")
    url: tuple[str, ...] | str | None = setting(
        None, "addresses of servers that run the model, instead of running it in this process"
    )
    engine: Literal["refocus-select", "openai"] = setting(
        "refocus-select", "of these servers: `refocus-select serve-reference`, or vLLM and others for OpenAI's API"
    )


@dataclass(frozen=True)
class StageConfig:
    """A part of the run; the stages follow each other."""

    num_frames: tuple[int, ...] = setting((8,), "K; of several, each step draws one")
    steps: int = setting(300, "optimiser steps at most")
    method: Method = setting("reinforce", "reinforce, or a warm start: distil similarity, or imitate evidence spans")
    categories: tuple[str, ...] | None = setting(None, "only questions of these categories")
    rollouts: int = setting(8, "subsets N per question")
    entropy_bonus: float = setting(1e-3, "beta at the start of the stage", "P")
    entropy_bonus_end: float | None = setting(None, "beta at its end, approached linearly (default: as at the start)")
    lr: float | None = setting(None, "learning rate of the stage (default: optimiser.lr)")
    min_steps: int = setting(0, "no early switch before this many steps")
    plateau: int | None = setting(None, "go on to the next stage after so many steps without a better mean reward")
    plateau_gain: float = setting(0.005, "what counts as better, in mean reward over 20 steps")
    reward_above: float | None = setting(None, "go on when the mean reward over 20 steps exceeds this")
    temperature: float = setting(0.03, "similarity: of the teacher's softmax over cosines", "RL-FrameSel")

    def __post_init__(self) -> None:
        if not self.num_frames or min(self.num_frames) < 1:
            raise InputError(f"num_frames must be at least 1, not {list(self.num_frames)}")
        for name in ("steps", "rollouts"):
            _at_least(1, name, getattr(self, name))
        if self.method == "reinforce" and self.rollouts < 2:
            raise InputError("rollouts must be at least 2: advantages compare the subsets of a question")
        _at_least(0, "entropy_bonus", self.entropy_bonus)


@dataclass(frozen=True)
class ObjectiveConfig:
    """From answers to the gradient."""

    reward: str = setting(
        "tanh_margin",
        "tanh_margin, tanh(m / 2) of the margin in logits; probability_margin, p(right) - max p(wrong); probability, "
        "p(right); or correct, 1 if right",
        "W",
    )
    advantage: str = setting(
        "group",
        "group, batch or none: reward minus the question's mean, over the deviation of the question, of the batch, or "
        "over nothing",
        "P",
    )
    credit: str = setting(
        "subset",
        "subset or prefix, what a pick is praised for: the reward of its subset, or that minus the reward of the picks "
        "before it with the frames beside them (K - 1 more scorings)",
        "P",
    )
    credit_decay: float = setting(
        1.0, "prefix credit: weight of what the next pick adds, and so on; below 1 less noise, but biased"
    )
    clip: float | None = setting(None, "PPO clipping of the probability ratio of each pick; needed for passes above 1")
    passes: int = setting(1, "gradient steps per batch of rollouts")
    temperature: float = setting(1.0, "of the rollouts", "C")

    def __post_init__(self) -> None:
        from .objective import ADVANTAGES, CREDITS
        from .reward import REWARDS

        for name, known in (("reward", REWARDS), ("advantage", ADVANTAGES), ("credit", CREDITS)):
            if getattr(self, name) not in known:
                raise InputError(f"objective.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        _at_least(1, "objective.passes", self.passes)
        if self.passes > 1 and self.clip is None:
            raise InputError("objective.passes above 1 needs objective.clip, e.g. 0.2: later passes are off-policy")
        if not self.temperature > 0:
            raise InputError(f"objective.temperature must be above 0, not {self.temperature}")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW and its schedule."""

    lr: float = setting(5e-4, "learning rate", "S")
    weight_decay: float = setting(0.01, "not on scales, biases, norms, dt_bias, A_log and D", "S, C")
    warmup_steps: int = setting(20, "linear, once at the start of the run", "S")
    decay_from: float = setting(0.6, "share of the run after which the rate falls linearly", "S")
    final: float = setting(0.1, "share of the rate at the end", "S")
    gradient_norm: float = setting(1.0, "clipping of the gradient", "S")
    batch: int = setting(16, "questions per step over all processes", "S")
    micro_batch: int = setting(16, "questions that go through the policy at once")
    mixed_precision: Literal["no", "bf16"] = setting("no", "autocast of the policy")

    def __post_init__(self) -> None:
        for name in ("batch", "micro_batch"):
            _at_least(1, f"optimiser.{name}", getattr(self, name))
        if not self.lr > 0:
            raise InputError(f"optimiser.lr must be above 0, not {self.lr}")


@dataclass(frozen=True)
class ValidationConfig:
    """Evaluation during training, and what happens when it gets worse."""

    every: int = setting(50, "steps between evaluations on held-out questions")
    questions: int = setting(256, "held-out questions of such an evaluation")
    num_frames: tuple[int, ...] | None = setting(None, "K of the evaluations (default: those of the stages)")
    released: bool = setting(
        False,
        "also by the protocol of the released evaluation: frames drawn at temperature 1 (its first K of 64 picks), "
        "evenly spaced ones up to 128 candidates",
        "C",
    )
    max_drop: float | None = setting(0.05, "held-out reward this far below the best is drift")
    max_kl: float | None = setting(None, "so is this KL from the policy at the start of RL, in nats per first pick")
    patience: int = setting(2, "evaluations in drift before the best policy is restored", "RL-FrameSel")
    lr_factor: float = setting(0.5, "of the learning rate after that")
    max_rollbacks: int = setting(3, "then the run stops")
    min_entropy: float = setting(0.01, "nats per pick; below it, with no gain in reward, the policy has collapsed")
    collapse_steps: int = setting(30, "so many steps in a row")

    def __post_init__(self) -> None:
        for name in ("every", "questions", "patience"):
            _at_least(1, f"validation.{name}", getattr(self, name))


@dataclass(frozen=True)
class FilterConfig:
    """The variance filter."""

    threshold: float = setting(
        0.21, "sample variance of the 16 bounded margins, tanh(m / 2), above which a question is kept", "P"
    )
    num_frames: int = setting(16, "frames of a probe, evenly spaced within its windows")
    out: str = setting("filtered", "folder of the result, inside the output folder")

    def __post_init__(self) -> None:
        _at_least(1, "filter.num_frames", self.num_frames)
        if not 0 <= self.threshold < 16 / 15:
            raise InputError(
                f"filter.threshold must be at least 0 and below 16/15, the most that 16 bounded margins can vary, not "
                f"{self.threshold}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    The defaults leave open what is learned from: `data.train`, `data.validation` and `reference.model` are needed, or
    the objects themselves, given to `train_selector`.
    """

    output: str = setting("runs/selector", "folder of checkpoints, logs and the result")
    seed: int = setting(0, "decides everything that is random")
    device: str | None = setting(None, "of the policy (default: the GPU if there is one)")
    data: DataConfig = setting(DataConfig, "")
    policy: PolicyConfig = setting(PolicyConfig, "")
    reference: ReferenceConfig = setting(ReferenceConfig, "")
    objective: ObjectiveConfig = setting(ObjectiveConfig, "")
    stages: tuple[StageConfig, ...] = setting(
        (
            StageConfig(num_frames=(4,), steps=225),
            StageConfig(num_frames=(8,), steps=225),
            StageConfig(num_frames=(16,), steps=225),
            StageConfig(num_frames=(32,), steps=225),
        ),
        "the curriculum; [P] 4, 8, 16, 32 frames and about 900 steps in all, the switch points are not published",
        "P",
    )
    optimiser: OptimiserConfig = setting(OptimiserConfig, "")
    validation: ValidationConfig = setting(ValidationConfig, "")
    filter: FilterConfig = setting(FilterConfig, "")
    checkpoint_every: int = setting(50, "steps")
    keep_checkpoints: int = setting(2, "the last ones; the best on held-out questions is kept besides")
    test_questions: int = setting(2000, "held-out questions of the final comparison at most")
    trackers: tuple[str, ...] = setting(
        ("tensorboard",), "where numbers are shown besides log.jsonl: tensorboard, wandb"
    )
    formats: tuple[Literal["refocus-select", "authors"], ...] = setting(
        ("refocus-select",),
        "of the result; that of the authors goes into `selector-authors`, for the network of the paper",
    )
    push_to_hub: str | None = setting(None, "repository to upload the result to")

    def __post_init__(self) -> None:
        from .metrics import TRACKERS

        if not self.stages:
            raise InputError("stages is empty; a run needs at least one")
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            raise InputError(f"trackers must be of {', '.join(TRACKERS)}, not {unknown[0]!r}")
        for name in ("checkpoint_every", "keep_checkpoints", "test_questions"):
            _at_least(1, name, getattr(self, name))

    @property
    def total_steps(self) -> int:
        """Optimiser steps if no stage ends early."""
        return sum(stage.steps for stage in self.stages)

    @classmethod
    def load(
        cls, path: str | None = None, overrides: tuple[str, ...] | list[str] = (), *, preset: str | None = None
    ) -> TrainConfig:
        """From a preset, a YAML file that goes beyond it, and `key=value` words.

        Raises:
            InputError: naming the setting that is unknown or wrong, or the presets that there are.
        """
        from .presets import read_preset
        from .settings import read_settings

        return read_settings(cls, path, overrides, base=read_preset(preset) if preset else {})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainConfig:
        """From plain values; the inverse of `to_dict`."""
        from .settings import from_mapping

        return from_mapping(cls, content)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        from .settings import to_mapping

        return to_mapping(self)
