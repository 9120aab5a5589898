"""The main job on a real film: questions in, frames out, beside uniform sampling. Run by `make demo`.

    python examples/demo.py [--out out] [--num-frames 8]

The film and the marked moments are described in examples/film/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from refocus_select import FrameSelector
from refocus_select.pictures import clock
from refocus_select.selectors.algorithms import uniform

FILM = Path(__file__).parent / "film" / "big_buck_bunny.mp4"
QUESTIONS = json.loads((FILM.parent / "questions.json").read_text("utf-8"))


def hits(timestamps: np.ndarray, moments: list[list[float]]) -> int:
    """How many times lie inside the marked moments ([start, end] in seconds)."""
    return sum(any(start <= t <= end for start, end in moments) for t in timestamps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures (default: out)")
    parser.add_argument("--num-frames", type=int, default=8)
    arguments = parser.parse_args()

    selector = FrameSelector.from_pretrained()
    began = time.perf_counter()
    encoding = selector.encode(FILM)
    read = time.perf_counter() - began
    print(f"{FILM.name}: {encoding.video.duration:.0f} s, {len(encoding)} candidate frames read in {read:.1f} s\n")
    for number, entry in enumerate(QUESTIONS["demo"], start=1):
        began = time.perf_counter()
        selection = selector.select(encoding, entry["question"], num_frames=arguments.num_frames)
        took = 1000 * (time.perf_counter() - began)
        even = encoding.timestamps[uniform(encoding.timestamps, arguments.num_frames)]
        picture = selection.plot(arguments.out / f"demo-{number}.png")
        print(f"{entry['question']}   ({took:.0f} ms)")
        print(f"  chosen    {'  '.join(clock(t) for t in selection.timestamps)}")
        if entry["moments"]:
            print(
                f"  in the marked moments ({entry['shows']}): {hits(selection.timestamps, entry['moments'])} of"
                f" {len(selection)} frames; uniform sampling: {hits(even, entry['moments'])}"
            )
        for warning in selection.warnings:
            print(f"  note: {warning}")
        print(f"  picture   {picture}\n")


if __name__ == "__main__":
    main()
