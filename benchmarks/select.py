"""Question to frames, end to end, against decoding alone.

    python -m benchmarks.select [VIDEO …] [--repeats 5] [--selector mini-policy]

For each video, in a fresh process and in turn (decode, encode, decode, encode, …), after one warm-up of each:

- *decode*: read the candidate frames of the embedded selector, at the size it asks for, and throw them away;
- *first question*: open the video, read and encode the candidates, choose 8 frames;
- *further question*: choose 8 frames for another question on the same encoding (median over 14 questions); the same by
  the other embedded selector;
- *start*: a new process up to the loaded selector (imports included), and the peak memory of the whole.

Without VIDEO: the film of `examples/` and generated videos (see benchmarks/_videos.py). Writes
benchmarks/results/select.md and .json.
"""

from __future__ import annotations

import sys

if sys.path[0].endswith("benchmarks"):  # run as a script: this file must not stand for Python's own `select`
    sys.path[0] = sys.path[0][: -len("benchmarks")] or "."

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILM = ROOT / "examples" / "film" / "big_buck_bunny.mp4"
THINGS = ("bird", "dog", "car", "tree", "boat", "lamp", "book", "ball", "hat", "horse", "fish", "cup", "chair", "clock")
QUESTIONS = [f"Where is the {thing}?" for thing in THINGS]


def measure(video: str, repeats: int, name: str) -> dict[str, Any]:
    """The figures of one video, measured in this process."""
    import resource

    from refocus_select import FrameSelector, open_video, sample_candidates
    from refocus_select.weights import EMBEDDED

    selector = FrameSelector.from_pretrained(name)
    started = time.clock_gettime(time.CLOCK_MONOTONIC) - float(os.environ["BENCH_BEGAN"])

    def decode() -> int:
        with open_video(video) as source:
            plan = sample_candidates(source, selector.rule)
            return sum(len(f) for f in source.iter_frames(plan.indices, size=selector.frame_size, ordered=False))

    walls: dict[str, list[float]] = {"decode": [], "first": []}
    cpus: dict[str, list[float]] = {"decode": [], "first": []}
    frames, encoding = decode(), selector.encode(video, progress=False)
    for _ in range(repeats):
        for part in walls:
            wall, cpu = time.perf_counter(), time.process_time()
            if part == "decode":
                decode()
            else:
                encoding = selector.encode(video, progress=False)
                selector.select(encoding, QUESTIONS[0])
            walls[part].append(time.perf_counter() - wall)
            cpus[part].append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = {f"{part}_s": statistics.median(times) for part, times in walls.items()}
    further: dict[str, list[float]] = {}
    for other in (name, *(x for x in EMBEDDED if x != name)):
        if other != name:
            selector = FrameSelector.from_pretrained(other)
            encoding = selector.encode(video, progress=False)
            selector.select(encoding, QUESTIONS[0])
        for question in QUESTIONS:
            wall = time.perf_counter()
            selector.select(encoding, question)
            further.setdefault(other, []).append(time.perf_counter() - wall)
    return {
        "video": Path(video).name,
        "candidates": frames,
        **rows,
        **{f"{part}_cpu_s": statistics.median(times) for part, times in cpus.items()},
        "ratio": statistics.median(b / a for a, b in zip(walls["decode"], walls["first"], strict=True)),
        "further_ms": {other: 1000 * statistics.median(times) for other, times in further.items()},
        "start_s": started,
        "peak_mib": peak,
    }


def table(rows: list[dict[str, Any]], command: str) -> str:
    """The figures as Markdown."""
    names = list(rows[0]["further_ms"])
    lines = [
        f"`{command}` on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}; medians.",
        "",
        "| video | candidates | decode, s | first question, s | ratio | "
        + "".join(f"further, ms: {name} | " for name in names)
        + "start, s | peak MiB |",
        "|---" * (7 + len(names)) + "|",
    ]
    lines += [
        f"| {r['video']} | {r['candidates']} | {r['decode_s']:.2f} | {r['first_s']:.2f} | {r['ratio']:.2f} "
        + "".join(f"| {r['further_ms'][name]:.1f} " for name in names)
        + f"| {r['start_s']:.1f} | {r['peak_mib']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--selector", choices=("mini-policy", "mini"), default="mini-policy")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.videos[0], arguments.repeats, arguments.selector)))
        return
    rows = []
    for video in arguments.videos or [str(FILM), *generated()]:
        command = [sys.executable, "-m", "benchmarks.select", "--one", "--repeats", str(arguments.repeats),
                   "--selector", arguments.selector, video]  # fmt: skip
        environment = {**os.environ, "BENCH_BEGAN": str(time.clock_gettime(time.CLOCK_MONOTONIC))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(table(rows[-1:], "").splitlines()[-1], flush=True)
    text = table(rows, "python -m benchmarks.select" + (" VIDEO …" if arguments.videos else ""))
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "select.json").write_text(json.dumps(rows, indent=1))
    (results / "select.md").write_text(text)
    print("\n" + text)


def generated() -> list[str]:
    """Generated videos of the decode benchmark: 10 minutes at two sizes and keyframe distances."""
    from ._videos import Clip, make

    return [str(make(Clip(height, gop, 10))) for height, gop in ((360, 30), (360, 250), (1080, 30), (1080, 250))]


if __name__ == "__main__":
    main()
