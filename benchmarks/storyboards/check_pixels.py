"""Do readers answer from rendered videos as they do from the bank's features?

    python -m benchmarks.storyboards.render benchmarks/storyboards/bank MATERIALS OUT --split test --count 40 --seed 5
    python -m benchmarks.storyboards.check_pixels benchmarks/storyboards/bank OUT --split test --count 40 --seed 5

Prints, for each reader, accuracy from features and from the decoded video, and how often the two answers are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from refocus_select.models.mini import MiniEncoder
from refocus_select.reference import Request
from refocus_select.reference.clips import VideoClip
from refocus_select.reference.reader import ReaderReference
from refocus_select.train_selector.storyboards import Bank, Storyboards
from refocus_select.video import CandidateRule
from refocus_select.weights import resolve

from .subsets import subset
from .train_readers import READERS, similarity

EVERY_FRAME = CandidateRule(fps=4.0, max_frames=4096)
KINDS = ("oracle", "uniform", "similar", "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("videos", type=Path, help="folder that render.py wrote, with the same split, count and seed")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--num-frames", type=int, default=8)
    arguments = parser.parse_args()
    boards = Storyboards(Bank.load(arguments.bank), arguments.split, seed=arguments.seed, num_questions=arguments.count)
    encoder = MiniEncoder.from_pretrained(resolve("mini"))
    readers = [ReaderReference.from_pretrained(folder, encoder=encoder) for folder in sorted(READERS.glob("*/"))]
    right = np.zeros((len(readers), 2, len(KINDS)))
    same = np.zeros(len(readers))
    for index in range(len(boards)):
        question, layout = boards.item(index)
        drawn = VideoClip(str(arguments.videos / f"{index}.mp4"), EVERY_FRAME)
        stored = boards(question.video)
        encoded = drawn.encoding(readers[0].selector)  # once for all readers
        rng = np.random.default_rng(index)
        scores = similarity(readers[0], stored, question.question)
        rows = [subset(kind, rng, question, layout, arguments.num_frames, scores) for kind in KINDS]
        subsets = torch.from_numpy(np.stack(rows))
        for i, reader in enumerate(readers):
            answers = [
                reader.option_logits([Request(question, clip, subsets)])[0].argmax(1).numpy()
                for clip in (stored, type(stored)(encoded))
            ]
            right[i] += np.stack(answers) == question.answer
            same[i] += (answers[0] == answers[1]).mean()
    for reader, accuracy, agreement in zip(readers, right / len(boards), same / len(boards), strict=True):
        told = {kind: accuracy[:, i].round(3).tolist() for i, kind in enumerate(KINDS)}
        print(f"{reader.name}: features, pixels {told}; same answer {agreement:.3f}")


if __name__ == "__main__":
    main()
