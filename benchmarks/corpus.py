"""Batches of questions against loops: videos per hour, memory, and time to resume.

    python -m benchmarks.corpus [--clips 24] [--questions 240] [--workers 1 2 3 4] [--rounds 3] [--parts throughput …]

Parts:

- *throughput*: with the embedded selector, on generated clips and pieces of the film of `examples/`:
  *naive* calls `select_frames` for every row; *per video* encodes each video once and asks all its questions;
  *batch* is `select_batch`, with so many videos at a time. Each runs in a process of its own, one after the other, in
  every round; medians. The frames must be the same everywhere, or the benchmark fails.
- *memory*: peak of the process for a hundred, a thousand and ten thousand rows about two hundred videos, by the
  selector that looks at nothing: what is left is the bookkeeping.
- *resume*: time of a run of ten thousand rows of which about a tenth is left, against one that starts from nothing.

Writes benchmarks/results/corpus.md and .json. CPU seconds are of the process; on a machine that does other work they
say more than the wall clock does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from ._videos import Clip, default_folder, make

ROOT = Path(__file__).resolve().parent.parent
FILM = ROOT / "examples" / "film" / "big_buck_bunny.mp4"
THINGS = ("bird", "dog", "car", "tree", "boat", "lamp", "book", "ball", "hat", "horse", "fish", "cup", "chair", "clock")
NUM_FRAMES = 8
RESULTS = ROOT / "benchmarks" / "results" / "corpus.json"


# -- material -------------------------------------------------------------------------------------


def collection(folder: Path, count: int) -> list[Path]:
    """Clips of 8 to 20 seconds, every fourth from the film, the others generated; kept between runs."""
    folder.mkdir(parents=True, exist_ok=True)
    generated = [make(Clip(360, gop, 1)) for gop in (12, 30, 250)]
    clips = []
    for number in range(count):
        source = FILM if number % 4 == 3 else generated[number % 3]
        path = folder / f"clip{number:04d}.mp4"
        if not path.exists():
            part = path.with_suffix(".part.mp4")
            cut(source, part, start=(7 * number) % 40, seconds=8 + (5 * number) % 13)
            part.rename(path)
        clips.append(path)
    return clips


def cut(source: Path, path: Path, *, start: float, seconds: float) -> None:
    """Copy the packets from the keyframe before `start` on."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        given.seek(int(start / stream.time_base), stream=stream)
        first = None
        for packet in given.demux(stream):
            if not packet.size:
                continue
            first = packet.dts if first is None else first
            if (packet.dts - first) * stream.time_base > seconds:
                break
            packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
            output.mux(packet)


def table(path: Path, videos: list[Path], count: int) -> Path:
    """Questions that walk through the videos again and again: those of a video lie far apart."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            thing = THINGS[(5 * i + i // len(videos)) % len(THINGS)]
            row = {"id": i, "video": str(videos[i % len(videos)]), "question": f"Where is the {thing}, and when?"}
            file.write(json.dumps(row) + "\n")
    return path


# -- what is measured, each in its own process ------------------------------------------------------


def run(way: str, questions: Path, out: Path, workers: int) -> dict[str, Any]:
    """One way of answering a table; its figures, without imports and loading."""
    from refocus_select import FrameSelector, select_frames
    from refocus_select.corpus import read_results, select_batch
    from refocus_select.questions import read_questions

    rows = read_questions(questions)[0] if way in ("naive", "per video") else []
    selector = FrameSelector.from_pretrained("uniform" if way == "bookkeeping" else "mini")
    wall, cpu = time.perf_counter(), time.process_time()
    frames: list[list[int]] = []
    if way == "naive":
        frames = [select_frames(q.video, q.question, NUM_FRAMES, selector=selector).indices.tolist() for q in rows]
    elif way == "per video":
        by_id: dict[str, list[int]] = {}
        for video in dict.fromkeys(q.video for q in rows):
            encoding = selector.encode(video)
            asked = [q for q in rows if q.video == video]
            chosen = selector.select(encoding, [q.question for q in asked], num_frames=NUM_FRAMES)
            by_id |= {q.id: s.indices.tolist() for q, s in zip(asked, chosen, strict=True)}
        frames = [by_id[q.id] for q in rows]
    else:
        select_batch(questions, out, selector=selector, num_frames=NUM_FRAMES, workers=workers, resume=True)
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if way == "batch":
        frames = [row["indices"] for row in read_results(out)]
    return {**figures, "frames": frames}


def child(way: str, questions: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    """`run` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.corpus", "--one", way, str(questions), str(out), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def throughput(clips: int, questions: int, workers: list[int], rounds: int, work: Path) -> list[dict[str, Any]]:
    """Rows of the first table."""
    videos = collection(default_folder() / "corpus", clips)
    asked = table(work / "questions.jsonl", videos, questions)
    ways = [("naive", 1), ("per video", 1), *(("batch", count) for count in workers)]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, count in ways:
            out = work / f"{way}-{count}-{number}.jsonl"
            figures = child(way, asked, out, count)
            found[way, count].append(figures)
            print(f"{way} {count}: {figures['wall_s']:.1f} s, {figures['cpu_s']:.1f} CPU s", flush=True)
            expected = found["naive", 1][0]["frames"]
            different = sum(a != b for a, b in zip(figures["frames"], expected, strict=True))
            if different:
                raise SystemExit(f"{way} chose other frames than the loop for {different} of {questions} questions")
    rows = []
    for (way, count), runs in found.items():
        wall = statistics.median(r["wall_s"] for r in runs)
        ratios = [base["wall_s"] / r["wall_s"] for base, r in zip(found["naive", 1], runs, strict=True)]
        fair = [base["wall_s"] / r["wall_s"] for base, r in zip(found["per video", 1], runs, strict=True)]
        rows.append(
            {
                "way": way if way != "batch" else f"batch, {count} at a time",
                "videos_per_hour": 3600 * clips / wall,
                "wall_s": wall,
                "cpu_s": statistics.median(r["cpu_s"] for r in runs),
                "against_naive": statistics.median(ratios),
                "against_per_video": statistics.median(fair),
                "peak_mib": max(r["peak_mib"] for r in runs),
            }
        )
    return rows


def many_videos(work: Path) -> list[Path]:
    """Two thousand names of forty clips."""
    clips = collection(default_folder() / "corpus", 40)
    folder = work / "videos"
    folder.mkdir(exist_ok=True)
    names = []
    for number in range(2000):
        name = folder / f"{number}.mp4"
        if not name.exists():
            name.symlink_to(clips[number % len(clips)])
        names.append(name)
    return names


def memory(work: Path) -> list[dict[str, Any]]:
    """Peak memory by number of rows."""
    videos, rows = many_videos(work), []
    for count in (100, 1000, 10_000):
        asked = table(work / f"rows{count}.jsonl", videos[:200], count)
        figures = child("bookkeeping", asked, work / f"memory{count}.jsonl", 2)
        rows.append({"rows": count, **{k: figures[k] for k in ("peak_mib", "wall_s", "cpu_s")}})
        print(f"{count} rows: {figures['peak_mib']:.0f} MiB, {figures['wall_s']:.1f} s", flush=True)
    return rows


def resuming(work: Path) -> dict[str, Any]:
    """A run that is broken off before its last video, and the run that ends it."""
    asked = table(work / "resume.jsonl", many_videos(work), 10_000)
    out = work / "resume-out.jsonl"
    whole = child("bookkeeping", asked, work / "resume-whole.jsonl", 2)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.corpus", "--one", "bookkeeping", str(asked), str(out), "2"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    part = work / "resume-out.jsonl.parts" / "part-00000-of-00001.jsonl"
    while process.poll() is None and (not part.exists() or sum(1 for _ in part.open("rb")) < 9000):
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = sum(1 for _ in part.open("rb"))
    rest = child("bookkeeping", asked, out, 2)
    if out.read_bytes() != (work / "resume-whole.jsonl").read_bytes():
        raise SystemExit("the resumed run wrote another result")
    return {"rows": 10_000, "kept": kept, "whole_s": whole["wall_s"], "resumed_s": rest["wall_s"]}


# -- report ---------------------------------------------------------------------------------------


def before() -> dict[str, Any]:
    """Earlier figures: parts that are not measured again keep theirs."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def report(results: dict[str, Any]) -> Iterator[str]:
    """The figures as Markdown."""
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    yield f"`python -m benchmarks.corpus` on {machine}; medians."
    yield ""
    if "throughput" in results:
        yield f"{results['clips']} clips, {results['questions']} questions, {NUM_FRAMES} frames each, the same frames:"
        yield ""
        yield "| way | videos per hour | wall, s | CPU, s | against naive | against per video | peak MiB |"
        yield "|---|---|---|---|---|---|---|"
        for r in results["throughput"]:
            yield (
                f"| {r['way']} | {r['videos_per_hour']:.0f} | {r['wall_s']:.1f} | {r['cpu_s']:.1f} "
                f"| {r['against_naive']:.2f}x | {r['against_per_video']:.2f}x | {r['peak_mib']:.0f} |"
            )
        yield ""
    if "memory" in results:
        yield "| rows | peak MiB | wall, s |"
        yield "|---|---|---|"
        for r in results["memory"]:
            yield f"| {r['rows']} | {r['peak_mib']:.0f} | {r['wall_s']:.1f} |"
        yield ""
    if "resume" in results:
        r = results["resume"]
        yield (
            f"Killed after {r['kept']} of {r['rows']} rows, resumed: {r['resumed_s']:.1f} s (the whole: "
            f"{r['whole_s']:.1f} s), the same result."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--questions", type=int, default=240)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parts = ("throughput", "memory", "resume")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, questions, out, workers = arguments.one
        print(json.dumps(run(way, Path(questions), Path(out), int(workers))))
        return
    work = Path(tempfile.mkdtemp(prefix="refocus-corpus-"))
    try:
        results = before()
        if "throughput" in arguments.parts:
            results |= {"clips": arguments.clips, "questions": arguments.questions}
            results["throughput"] = throughput(
                arguments.clips, arguments.questions, arguments.workers, arguments.rounds, work
            )
        if "memory" in arguments.parts:
            results["memory"] = memory(work)
        if "resume" in arguments.parts:
            results["resume"] = resuming(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = "\n".join(report(results)) + "\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1))
    RESULTS.with_suffix(".md").write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
