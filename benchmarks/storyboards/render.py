"""Draws storyboards as videos: the same layouts as the features, picture by picture.

    python -m benchmarks.storyboards.render benchmarks/storyboards/bank MATERIALS OUT --split test --count 20

Writes `OUT/N.mp4`, and `OUT/questions.jsonl` for `refocus-select evaluate`. Each candidate frame of the layout is
shown until the next one, so that a selector with that many candidates sees the pictures that the features are of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from refocus_select.train_selector.storyboards import Bank, Layout, Storyboards

from .views import background_frames, draw_series

SIZE = 256


def frames(bank: Bank, layout: Layout, root: Path, *, size: int = SIZE) -> Iterator[np.ndarray]:
    """The picture of each candidate, uint8 [size, size, 3].

    Args:
        bank: that the layout was made from.
        root: folder of materials.
        size: side in pixels.
    """
    backgrounds = [dict(clip) for clip in bank.backgrounds]
    starts = bank.background_starts
    drawn: tuple[int, np.ndarray] = (-1, np.zeros(0))
    for number, step in zip(layout.series.tolist(), layout.step.tolist(), strict=True):
        if number >= 0:
            if drawn[0] != number:
                drawn = number, draw_series(root, dict(bank.series[number]), backgrounds, size)
            yield drawn[1][step]
        else:
            clip = int(np.searchsorted(starts, step, side="right")) - 1
            record = bank.backgrounds[clip]
            shown = background_frames(root, (record["source"], record["path"], tuple(record["frames"])), size)
            yield shown[step - starts[clip]]


def render(bank: Bank, layout: Layout, root: Path, out: Path, *, size: int = SIZE, repeat: int = 1) -> Path:
    """Write a layout as an H.264 video.

    Args:
        bank: that the layout was made from.
        layout: of a `Storyboards` item.
        root: folder of materials.
        out: the file to write, under a temporary name first.
        size: side of the square video in pixels.
        repeat: frames of the video for each candidate; 1 makes them the same.
    """
    import av

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}")
    rate = Fraction(repeat / float(layout.timestamps[1])).limit_denominator(1000)
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "veryfast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in frames(bank, layout, root, size=size):
            for _ in range(repeat):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("materials", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--size", type=int, default=SIZE, help="pixels")
    parser.add_argument("--repeat", type=int, default=1, help="frames of the video for each candidate")
    arguments = parser.parse_args()
    bank = Bank.load(arguments.bank)
    boards = Storyboards(
        bank, arguments.split, seed=arguments.seed, num_questions=arguments.count, num_candidates=arguments.candidates
    )
    lines = []
    for index in range(len(boards)):
        question, layout = boards.item(index)
        name = f"{index}.mp4"
        render(bank, layout, arguments.materials, arguments.out / name, size=arguments.size, repeat=arguments.repeat)
        row = {
            "id": question.id, "video": name, "question": question.question, "options": question.options,
            "answer": question.answer, "evidence": question.evidence, "category": question.category,
        }  # fmt: skip
        lines.append(json.dumps(row, ensure_ascii=False))
        print(f"{arguments.out / name}: {question.question}", flush=True)
    (arguments.out / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
