"""A quick look at real clips:  python -m benchmarks.clips MATERIALS [SELECTOR …] [--split validation]

Prints hits and the share of right frames at K = 4 and 8 for selectors (names or folders; default mini-policy), beside
uniform sampling and a few training-free methods as published. `python -m benchmarks.quality` has tuned ones,
intervals and the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from refocus_select import FrameSelector

from ..quality.contenders import Picker, Scores, algorithm, blind, policy
from ..quality.real_clips import GROUPS, SIZES, alarms, load_videos, measure


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("materials", type=Path)
    parser.add_argument("selectors", nargs="*", default=["mini-policy"])
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: FrameSelector.from_pretrained(name) for name in arguments.selectors}
    scores = Scores(next(iter(chosen.values())).encoder)
    videos = load_videos(scores.encoder, arguments.materials, arguments.split)
    pickers: dict[str, Picker] = {"uniform": blind(scores)["uniform"]}
    pickers |= {name: algorithm(name, scores, scores="dot") for name in ("topk", "mmr", "mdp3", "gift")}
    pickers |= {name: policy(selector) for name, selector in chosen.items()}
    found = measure(videos, pickers, SIZES)
    kinds = np.array([video.row["kind"] for video in videos if video.row["answer"]])
    for group, members in GROUPS.items():
        mask = np.isin(kinds, members)
        print(f"{group}, {mask.sum()} questions: hits at K = {SIZES}, share of right frames at K = {SIZES}")
        for name in pickers:
            values = [f"{found[name, size][mask, i].mean():.3f}" for i in (0, 1) for size in SIZES]
            print(f"  {name:24s}", *values)
    for name, selector in chosen.items():
        print(name, alarms(videos, selector))
    return 0


if __name__ == "__main__":
    sys.exit(main())
