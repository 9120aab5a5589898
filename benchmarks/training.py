"""Speed of reinforcement learning: `python -m benchmarks.training`; for scorings see `benchmarks.training_reference`.

a. Rollouts per second, gradient included. One question, N subsets of K frames are drawn and their log-probabilities
   differentiated, two ways in one run on the same random network, float32:
   - plain: every subset has a pass of its own: the prompt (frames and question) is read, K frames are picked one after
     another, and the whole sequence is run again with gradient;
   - ours (`Policy.forward`): the prompt is read once for all subsets, picks are steps from its state, and one
     teacher-forced pass over the picks sends the gradient through the state into the prompt.
   Both differentiate the same subsets, and the gradients are compared in the run.
b. Where the time of a small run goes (vectors of 64 candidates, 16 questions of 8 subsets a step, a reader of the size
   of those in benchmarks/storyboards): seconds per part of a step.

Times are medians over interleaved runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refocus_select.models.config import RefocusConfig, SSMConfig
from refocus_select.models.refocus import Reading, RefocusModel
from refocus_select.train_selector.initialise import reinitialise
from refocus_select.train_selector.picture_policy import PicturePolicy
from refocus_select.train_selector.policy import Policy, PolicyInputs

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


class TokenPolicy(Policy):
    """The network of the paper in small, behind its frozen tower: features of T tokens per frame, questions as text."""

    def __init__(self, d: int, layers: int, tokens: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = RefocusModel(
            RefocusConfig(
                d_model=d, n_layer=layers, vocab_size=512, ssm=SSMConfig(d_state=64, headdim=64), mm_hidden_size=d,
                frame_encoder="none", mm_spatial_pool_mode="none", answer_options=True,
            )
        )  # fmt: skip
        reinitialise(self.model, "heads")

    def inputs(self, *_: Any) -> PolicyInputs:
        raise TypeError("the benchmark makes its own inputs")

    def group(self, inputs: PolicyInputs) -> int:
        return id(inputs)

    def read(self, batch: Any) -> Reading:
        inputs = batch[0]
        keys, values, state = self.model.read_frames(
            self.model.embed_frames(inputs.frames), self.model.start(torch.arange(8))
        )
        return Reading(keys[None], values[None], self.model.read_text(inputs.question[None], state))

    pick, score = PicturePolicy.pick, PicturePolicy.score

    def selector(self, name: str) -> Any:
        raise TypeError("the benchmark exports nothing")


def ours(policy: TokenPolicy, inputs: PolicyInputs, picks: Tensor, seed: int) -> None:
    """Draw N subsets (for the time of it), then differentiate the given ones, from one reading."""
    reading = policy.read([inputs])
    still = reading.detached()
    generator = torch.Generator().manual_seed(seed)
    rows, steps = picks.shape[1:]
    policy.model.decode(
        still.keys,
        still.values,
        still.state,
        steps=steps,
        num_samples=rows,
        sample=True,
        generator=generator,
        rank=False,
    )
    scored = policy.model.score(reading.keys, reading.values, reading.state, picks)
    scored.pick_log_probs.sum(-1).mean().backward()


def plain(policy: TokenPolicy, inputs: PolicyInputs, picks: Tensor, seed: int) -> None:
    """The same, subset by subset."""
    rows, steps = picks.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    for j in range(rows):
        with torch.no_grad():
            reading = policy.read([inputs])
            policy.model.decode(
                reading.keys, reading.values, reading.state, steps=steps, sample=True, generator=generator, rank=False
            )
        reading = policy.read([inputs])
        scored = policy.model.score(reading.keys, reading.values, reading.state, picks[:, j : j + 1])
        (scored.pick_log_probs.sum() / rows).backward()


def rollouts(frames: int, tokens: int, count: int, steps: int, runs: int, d: int = 256, layers: int = 4) -> Row:
    """Compare both ways on one question."""
    policy = TokenPolicy(d, layers, tokens)
    generator = torch.Generator().manual_seed(1)
    inputs = PolicyInputs(
        torch.randn(frames, tokens, d, generator=generator),
        torch.arange(frames, dtype=torch.float32),
        torch.randint(8, 512, (24,), generator=generator),
    )
    picks = torch.stack([torch.randperm(frames, generator=generator)[:steps] for _ in range(count)])[None]
    gradients = []
    for way in (ours, plain):
        policy.zero_grad(set_to_none=True)
        way(policy, inputs, picks, 0)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    apart = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    if apart > 1e-3:
        raise SystemExit(f"the two ways differ: relative distance of the gradients {apart:.2e}")
    times = medians(runs, ours=lambda: ours(policy, inputs, picks, 2), plain=lambda: plain(policy, inputs, picks, 2))
    return {
        "frames": frames, "tokens": tokens, "rollouts": count, "picks": steps, "ours": count / times["ours"],
        "plain": count / times["plain"], "ratio": times["plain"] / times["ours"], "gradients_apart": apart,
    }  # fmt: skip


def medians(runs: int, **tasks: Callable[[], Any]) -> dict[str, float]:
    """Median seconds; tasks take turns, after one warm-up each."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for run in range(runs + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if run:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def parts(bank: Path, reader: Path, steps: int) -> Row:
    """Milliseconds per step of a run on storyboards, by part."""
    from refocus_select.train_selector import TrainConfig
    from refocus_select.train_selector.process_group import ProcessGroup
    from refocus_select.train_selector.run_setup import prepare_run
    from refocus_select.train_selector.trainer import Trainer

    config = TrainConfig.from_dict(
        {
            "device": "cpu",
            "data": {
                "train": "refocus_select.train_selector.storyboards:storyboards",
                "validation": "refocus_select.train_selector.storyboards:storyboards",
                "arguments": {"bank": str(bank)},
            },
            "reference": {"model": str(reader)},
            "stages": [{"num_frames": [8], "steps": steps, "rollouts": 8}],
        }
    )
    processes = ProcessGroup("cpu")
    setup = prepare_run(config, processes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            config,
            setup.policy,
            setup.reward_model,
            setup.train,
            setup.validation,
            processes=processes,
            folder=Path(folder),
        )
        trainer.step()  # fills caches
        trainer.progress.seconds.clear()
        started = time.perf_counter()
        for _ in range(steps):
            trainer.progress.stage_step += 1
            trainer.step()
        total = time.perf_counter() - started
    per = {name: 1000 * seconds / steps for name, seconds in trainer.progress.seconds.items()}
    return {"step": 1000 * total / steps, **per, "rollouts_per_second": 16 * 8 * steps / total}


def main() -> int:
    """Run everything, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    here = Path(__file__).parent / "storyboards"
    parser.add_argument("--bank", type=Path, default=here / "bank.safetensors")
    parser.add_argument("--reader", type=Path, default=here / "readers" / "transformer")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = [
        rollouts(frames, tokens, count, steps, arguments.runs)
        for frames, tokens, count, steps in ((64, 4, 8, 8), (64, 16, 8, 8), (64, 16, 16, 32), (256, 16, 8, 8))
    ]
    time_of = parts(arguments.bank, arguments.reader, 40)
    lines = [
        "## Reinforcement learning of a selector",
        "",
        f"`python -m benchmarks.training` on {platform.processor() or platform.machine()}, {arguments.threads} threads,"
        f" torch {torch.__version__}",
        "",
        "### Rollouts with their gradient (d 256, 4 layers, float32)",
        "",
        "| frames | tokens each | rollouts | picks | ours, per s | one pass each, per s | ratio | gradients apart |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['frames']} | {r['tokens']} | {r['rollouts']} | {r['picks']} | {r['ours']:.1f} | {r['plain']:.1f} | "
            f"{r['ratio']:.1f}x | {r['gradients_apart']:.0e} |"
            for r in table
        ),
        "",
        "### Where the time of a small run goes (64 candidates, 16 questions, 8 rollouts of 8 picks)",
        "",
        f"{time_of['step']:.0f} ms a step, {time_of['rollouts_per_second']:.0f} rollouts per second: "
        + ", ".join(f"{name} {time_of[name]:.0f} ms" for name in ("inputs", "rollouts", "reference", "gradient")),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training.md").write_text(text, encoding="utf-8")
    (RESULTS / "training.json").write_text(
        json.dumps({"rollouts": table, "parts": time_of}, indent=1), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
