"""What a run would do and cost, found out without keeping anything: `refocus-select train --dry-run`.

Small policies do one step of every stage. Of the network of the paper pieces are measured (see `estimate`), so that
the plan needs neither its weights nor a device that it fits on; if it is small enough, steps are measured too.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

import torch

from ..errors import InputError, RefocusError
from ..hub import CONFIG_FILE, VISION_CONFIG_FILE, read_json
from ..models.author_format import with_vocabulary
from ..models.config import MODEL_TYPE, RefocusConfig, VisionConfig
from ..reference import ReferenceModel, Request
from .config import TrainConfig
from .data import QuestionSet, load_questions
from .estimate import Pieces, measure, memory, parameters, question_seconds
from .features import feature_budget
from .initialise import refocus_config
from .process_group import ProcessGroup
from .run_setup import RunSetup, load_references, prepare_run
from .trainer import Trainer

_GPT_NEOX = 50277  # entries of the tokenizer of the paper's network
_SHORT = 60.0  # seconds of a step up to which it is measured whole


def plan(config: TrainConfig, processes: ProcessGroup) -> str:
    """The plan as text.

    Raises:
        InputError: for everything that would keep the run from starting.
    """
    network = _network(config)
    if network is None:
        return _measured(prepare_run(config, processes), processes)
    if not config.data.train or not config.data.validation:
        raise InputError("a plan needs data.train and data.validation")
    cache = Path(config.output) / "features"
    train, held_out = (
        load_questions(spec, split, config.data, cache)
        for spec, split in ((config.data.train, "train"), (config.data.validation, "validation"))
    )
    pieces = measure(network, config, train, processes.device)
    text = _estimated(network, config, train, held_out, pieces, processes)
    if sum(question_seconds(network, config, pieces).values()) * config.optimiser.batch > _SHORT:
        return text
    try:
        setup = prepare_run(config, processes)
    except RefocusError as error:
        return f"{text}\n\nno step was tried: {error}"
    return f"{text}\n\nmeasured in whole steps:\n\n{_measured(setup, processes)}"


def _network(config: TrainConfig) -> RefocusConfig | None:
    """Sizes of the network if it is that of the paper; of a folder only `config.json` is read."""
    folder = Path(config.policy.init or "")
    if config.policy.init is not None and (folder / CONFIG_FILE).is_file():
        raw = read_json(folder / CONFIG_FILE)
        if "d_model" not in raw or "ssm_cfg" not in raw:
            return None
        if raw.get("model_type") == MODEL_TYPE:
            return RefocusConfig.from_dict(raw)
        vision = VisionConfig()
        if (folder / VISION_CONFIG_FILE).is_file():
            sizes = read_json(folder / VISION_CONFIG_FILE)
            vision = VisionConfig.from_dict({**sizes, "num_hidden_layers": sizes["num_hidden_layers"] - 1})
        rows = int(raw["vocab_size"])
        raw = {"frame_generation_method": "autoregressive", **raw}
        raw["start_of_frame_token_id"] = raw.get("start_of_frame_token_id") or 0
        return with_vocabulary(RefocusConfig.from_dict(raw, vision=vision), rows)
    if config.policy.init is None and config.policy.network != "refocus":
        return None
    return refocus_config(config.policy, config.data, _GPT_NEOX, VisionConfig())  # a Hub id: the sizes of the settings


def _estimated(
    network: RefocusConfig, config: TrainConfig, train: QuestionSet, held_out: QuestionSet, pieces: Pieces,
    processes: ProcessGroup,
) -> str:  # fmt: skip
    policy, tower = parameters(network)
    each = math.ceil(config.optimiser.batch / processes.size)
    scored, how = _reference_seconds(config, train)
    seconds = question_seconds(network, config, pieces)
    step = each * (sum(seconds.values()) - seconds["decoding"] - seconds["vision tower"] + scored)
    fed = each * (seconds["decoding"] + seconds["vision tower"]) / max(1, config.data.workers or 4)
    steps = config.total_steps
    looks = 1 + steps // config.validation.every
    questions = min(len(held_out), config.validation.questions) / processes.size
    look = questions * (seconds["reading"] + seconds["picking"] + 3 * scored / max(1, _rollouts(config)))
    parts = memory(network, config, pieces, each)
    budget = feature_budget(network, config, train, held_out)
    checkpoint = 12 * policy + 4 * tower
    lines = [
        f"questions      {len(train)} to learn from ({train.name}), {len(held_out)} held out ({held_out.name})",
        f"policy         {policy + tower:,} parameters, {tower:,} of them in the frozen vision tower; "
        f"{network.n_layer} blocks of width {network.d_model}; from {config.policy.init or 'random weights'}",
        f"reference      {config.reference.url or config.reference.model}; {how}",
        f"processes      {processes.size} on {processes.device.type}, {each} questions each per step",
        f"videos         {pieces.candidates:.0f} candidates on average of those looked at, prompts of "
        f"{pieces.candidates * network.tokens_per_frame:,.0f} tokens; at most "
        f"{config.data.max_frames * network.tokens_per_frame:,}",
        "",
        f"memory of each policy device at its peak, from one block measured here ({pieces.saved / 1024:.0f} KiB per "
        "token and layer):",
        *(f"  {size / 2**30:7.2f} GiB  {name}" for name, size in parts.items()),
        f"  {sum(parts.values()) / 2**30:7.2f} GiB  in all, at {config.data.max_frames} candidates",
        "",
        "disk:",
        f"  {checkpoint / 1e9:7.2f} GB   a checkpoint; {config.keep_checkpoints} and the best are kept",
        f"  {min(budget.limit, (budget.share * budget.videos + budget.held_out) * budget.each) / 1e9:7.2f} GB   "
        f"features: {budget.told()}",
        "",
        "seconds of one question on this device, from pieces measured here"
        + ("" if pieces.decode is not None else " (no video was decoded)") + ":",
        *(f"  {value:9.3f}  {name}" for name, value in {**seconds, "reference": scored}.items()),
        f"decode share   {seconds['decoding'] / max(1e-9, sum(seconds.values()) + scored):.0%} of a question's time, "
        f"{pieces.read} videos decoded for this; decoding and the tower run beside the step before "
        f"({config.data.workers or 4} threads)",
        "",
        "stage  frames      steps  rollouts  entropy bonus",
        *(
            f"{number:>5}  {', '.join(map(str, s.num_frames)):<10}  {s.steps:>5}  {s.rollouts:>8}  "
            f"{s.entropy_bonus:g} to {s.entropy_bonus if s.entropy_bonus_end is None else s.entropy_bonus_end:g}"
            for number, s in enumerate(config.stages)
        ),
        "",
        f"a step         {max(step, fed):,.1f} s, decided by "
        f"{'decoding and the tower' if fed > step else 'the policy and its reference'}",
        f"in all         {steps} steps and {looks} evaluations, about "
        f"{(steps * max(step, fed) + looks * look) / 3600:,.1f} hours with {processes.size} such processes, if no "
        "stage ends early",
    ]  # fmt: skip
    return "\n".join(lines)


def _rollouts(config: TrainConfig) -> int:
    return max(stage.rollouts for stage in config.stages)


def _reference_seconds(config: TrainConfig, train: QuestionSet) -> tuple[float, str]:
    """Seconds for the rollouts of a question, and how they are known."""
    most = max(config.stages, key=lambda stage: stage.rollouts * max(stage.num_frames))
    try:
        (reference, *_) = load_references(config.reference)
        return _ask(reference, train, most.rollouts, max(most.num_frames)), "measured"
    except (RefocusError, ImportError) as error:
        told = str(error).split("\n")[0]
        return 0.0, f"not here, so its time is NOT counted ({told[:140]})"


def _ask(reference: ReferenceModel, train: QuestionSet, rollouts: int, frames: int) -> float:
    question = train.questions[0]
    clip = train.clips(question.video)
    count = min(frames, len(clip))
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(clip), generator=generator)[:count].sort().values for _ in range(rollouts)]
    request = Request(question, clip, torch.stack(rows))
    reference.option_logits([request])  # fills its cache, as later visits to a video find it
    started = time.perf_counter()
    reference.option_logits([request])
    return time.perf_counter() - started


def _measured(setup: RunSetup, processes: ProcessGroup) -> str:
    """The plan from one step of every stage. Changes the weights in memory, so train with freshly loaded ones."""
    config, policy = setup.config, setup.policy
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    total = sum(p.numel() for p in policy.parameters())
    lines = [
        f"questions      {len(setup.train)} to learn from ({setup.train.name}), "
        f"{len(setup.validation)} for validation, "
        f"{len(setup.test)} for the report",
        f"policy         {total:,} parameters, {trained:,} trained; {policy.model.config.n_layer} blocks of width "
        f"{policy.model.config.d_model}; on {processes.device}",
        f"reference      {', '.join(r.name for r in setup.reward_model.references)}; reward {setup.reward_model.kind}",
        f"output         {config.output}",
        "",
        "stage  method      frames      steps  rollouts  entropy bonus   s/step     hours",
    ]
    hours = 0.0
    if processes.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(processes.device)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            config, policy, setup.reward_model, setup.train, setup.validation, processes=processes, folder=Path(scratch)
        )
        for number, stage in enumerate(config.stages):
            trainer.progress.stage, trainer.progress.stage_step = number, 0
            trainer.step()  # the first one fills caches
            trainer.progress.stage_step = 1
            started = time.perf_counter()
            trainer.step()
            seconds = time.perf_counter() - started
            hours += seconds * stage.steps / 3600
            frames = ", ".join(map(str, stage.num_frames))
            end = stage.entropy_bonus if stage.entropy_bonus_end is None else stage.entropy_bonus_end
            bonus = f"{stage.entropy_bonus:g} to {end:g}"
            lines.append(
                f"{number:>5}  {stage.method:<10}  {frames:<10}  {stage.steps:>5}  {stage.rollouts:>8}  {bonus:<13}  "
                f"{seconds:7.3f}  {seconds * stage.steps / 3600:8.2f}"
            )
        shares = trainer.progress.seconds
        times = 1 + config.total_steps // config.validation.every
        started = time.perf_counter()
        trainer.evaluate(None)
        seconds = time.perf_counter() - started
    hours += seconds * times / 3600
    scored = sum(s.steps * s.rollouts for s in config.stages if s.method == "reinforce") * config.optimiser.batch
    spent = sum(shares.values()) or 1.0
    lines += [
        f"       held-out    {times} times {seconds:.1f} s",
        "",
        "of a step      " + ", ".join(f"{name} {part / spent:.0%}" for name, part in shares.items()),
        f"in all         {config.total_steps} steps, {scored:,} rollouts, about {hours:.2f} hours if no stage ends "
        f"early and features are cached as in this trial, with {processes.size} such processes",
    ]
    if processes.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(processes.device)
        lines.append(f"memory         {peak / 2**30:.1f} GiB at the peak, measured")
    return "\n".join(lines)
