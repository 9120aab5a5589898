"""What went wrong in a step and what to do about it, and what is different when a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import TrainingError
from .config import TrainConfig
from .curriculum import Progress, reopen

if TYPE_CHECKING:
    from .trainer import Trainer


def changes(config: TrainConfig, now: Progress, validation: str, processes: int) -> list[str]:
    """Fit the progress of a checkpoint to settings that have changed since, and tell what that means."""
    told = []
    if reopen(config, now):
        told.append(
            f"stage {now.stage} goes on from its step {now.stage_step}: it has {config.stages[now.stage].steps} steps "
            "now. The learning rate follows the new length, so that this is not what one longer run would have given"
        )
    if now.validation and now.validation != validation:
        now.best_reward, now.drifting = None, 0
        told.append("validation is another than before: the best policy is chosen anew, from here on")
    if now.processes and now.processes != processes:
        told.append(
            f"{processes} processes go on where {now.processes} were: the questions of every step stay the same, but "
            "subsets are drawn from other random numbers and gradients are added in another order"
        )
    return told


def not_finite(trainer: Trainer, what: str, *, gradient: bool = False) -> TrainingError:
    """The error for numbers that are infinite or not a number; `gradient` names the weights that are concerned."""
    if gradient:
        found = ((name, p.grad) for name, p in trainer.policy.named_parameters() if p.grad is not None)
        bad = [name for name, gradient in found if not gradient.isfinite().all()]
        what += f" (first in {', '.join(bad[:3])})"
    return TrainingError(
        f"step {trainer.progress.step}: {what}; the last good checkpoint is in {trainer.checkpoints}. Lower "
        "optimiser.lr, or train without mixed precision"
    )


def out_of_memory(trainer: Trainer, num_frames: int, told: str) -> TrainingError:
    """The error for a full device, with the settings that take the most memory in the order of trying."""
    config, stage = trainer.config, trainer.stage
    remedies = [f"optimiser.micro_batch={max(1, config.optimiser.micro_batch // 2)}"]
    if hasattr(trainer.policy.model, "projector"):  # the network of the paper
        remedies = [
            f"policy.segment_tokens={max(256, config.policy.segment_tokens // 2)}",
            f"policy.readings_kept={max(0, (config.policy.readings_kept or config.optimiser.batch) // 2)}",
        ]
        if not config.policy.gradient_checkpointing:
            remedies.insert(0, "policy.gradient_checkpointing=true")
        if config.optimiser.mixed_precision == "no":
            remedies.append("optimiser.mixed_precision=bf16")
    remedies.append("another device for the reference model (reference.arguments.device), or reference.url")
    return TrainingError(
        f"step {trainer.progress.step}: the memory of {trainer.processes.device} is full at {num_frames} frames and "
        f"{stage.rollouts} rollouts. Try, in this order, {'; '.join(remedies)}; all but the last leave the objective "
        f"as it is. `--dry-run` shows what takes how much. The run resumes from its last checkpoint. ({told})"
    )
