"""How fast, how exact and how large: reading candidate frames with this package and with others.

    python benchmarks/decode.py            # about 12 minutes on two cores, plus making the files at the first run
    python benchmarks/decode.py --quick    # about 3 minutes
    python benchmarks/decode.py --full     # every file, every number of candidates, every method: hours
    python benchmarks/decode.py --video film.mp4 --candidates 128   # a file of yours instead (exactness is not checked)

Protocol. Every measurement is a process of its own. The file is in the page cache. Imports, and starting the pool's
processes, are not timed; opening the file is. All methods return the same N evenly spaced frames as 224 x 224 RGB.
CPU is user plus system time of the process and its children; peak memory is the sum over them and includes imported
libraries (torch for `load_video`). "Exact" counts the frames whose burnt-in number is the one asked for.

Methods
    ours            get_frames(indices, size=(224, 224))
    ours, snapped   the same with exact=False: frames may move to keyframes, and say so
    decord, scaled  VideoReader(width=224, height=224).get_batch(indices)
    decord + cv2    VideoReader().get_batch(indices), then cv2.resize (INTER_AREA)
    process pool    the indices split evenly over one process per core, each with decord and cv2.resize: how the
                    evaluation code of ReFoCUS loads videos
    load_video      transformers.video_utils.load_video (its default backend, PyAV), then cv2.resize
    OpenCV          VideoCapture: grab() forward, retrieve() the wanted frames, then cv2.resize

The decode bound is the CPU time of libavcodec for the pictures that exactly these frames need (from the last keyframe
to the frame, without unreferenced pictures in between), decoded by a bare loop without scaling; it is measured on an
evenly spaced part of the groups and scaled up by the number of pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Not this folder: a file in it could shadow a module of the standard library (select.py does).
sys.path[:] = [str(ROOT), *(p for p in sys.path if p and Path(p).resolve() != ROOT / "benchmarks")]

import argparse  # noqa: E402
import datetime  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks._videos import FPS, Clip, default_folder, make, read_number  # noqa: E402

SIDE = 224  # pixels
BOUND_PICTURES = 1200  # decoded for measuring the bound
TIME_LIMIT = 1800  # seconds for one measurement

BASE = ("ours", "decord, scaled", "process pool")
MORE = ("ours, snapped", "decord + cv2", "load_video", "OpenCV")


@dataclass(frozen=True)
class Case:
    """One row group of the table: a file, a number of candidates, and the methods to compare."""

    clip: Clip
    candidates: int
    methods: tuple[str, ...] = BASE


def cases_quick() -> list[Case]:
    return [
        Case(Clip(360, 30, 1), 32, BASE + MORE),
        Case(Clip(360, 12, 10), 512),
        Case(Clip(360, 30, 10), 128),
        Case(Clip(360, 30, 10), 512, (*BASE, "ours, snapped")),
        Case(Clip(360, 250, 10), 512),
        Case(Clip(1080, 30, 1), 32),
        Case(Clip(1080, 30, 1), 128),
    ]


def cases_default() -> list[Case]:
    cases = [Case(Clip(360, gop, 1), n) for gop in (30, 250) for n in (32, 512)]
    cases += [Case(Clip(360, gop, 10), n) for gop in (12, 30, 250) for n in (32, 128)]
    cases += [Case(Clip(360, gop, 10), 512, (*BASE, "ours, snapped")) for gop in (12, 250)]
    cases += [Case(Clip(360, 30, 10), 512, BASE + MORE)]
    cases += [Case(Clip(360, 30, 60), 512, (*BASE, "ours, snapped")), Case(Clip(360, 250, 60), 32)]
    cases += [Case(Clip(1080, 30, 1), n) for n in (32, 128)]
    cases += [Case(Clip(1080, 30, 1), 512, (*BASE, "decord + cv2", "load_video"))]
    cases += [Case(Clip(1080, 250, 1), 128), Case(Clip(1080, 12, 10), 512), Case(Clip(1080, 30, 10), 512)]
    return cases


def cases_full() -> list[Case]:
    return [
        Case(Clip(height, gop, minutes), n, BASE + MORE)
        for height in (360, 1080)
        for minutes in (1, 10, 60)
        for gop in (12, 30, 250)
        for n in (32, 128, 512)
    ]


# -- methods: each takes (path, indices) after `prepare` has imported what it needs ---------------------------------


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _ours(path: str, indices: NDArray[np.int64], exact: bool = True) -> tuple[Any, Any]:
    from refocus_select.video import open_video

    with open_video(path) as video:
        frames = video.get_frames(indices, size=(SIDE, SIDE), exact=exact)
    return frames.data, frames.indices


def _snapped(path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
    return _ours(path, indices, exact=False)


def _decord_scaled(path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
    import decord

    return decord.VideoReader(path, width=SIDE, height=SIDE).get_batch(indices).asnumpy(), indices


def _decord_cv2(path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
    import decord

    pictures = decord.VideoReader(path).get_batch(indices).asnumpy()
    return np.stack([_shrink(picture) for picture in pictures]), indices


def _pool_worker(task: tuple[str, list[int]]) -> NDArray[np.uint8]:
    import decord

    path, indices = task
    pictures = decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()
    return np.stack([_shrink(picture) for picture in pictures])


def _pool_usage(_: int) -> tuple[int, float, int]:
    time.sleep(0.05)  # so that every process answers
    return os.getpid(), time.process_time(), _peak_memory()


class _Pool:
    """One process per core, started and with decord imported before the clock starts."""

    def __init__(self) -> None:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        self.count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.pool = ProcessPoolExecutor(self.count, mp_context=get_context("spawn"), initializer=_prepare_decord)
        self.before = self.usage()

    def usage(self) -> dict[int, tuple[float, int]]:
        answers = list(self.pool.map(_pool_usage, range(4 * self.count)))
        return {pid: (cpu, peak) for pid, cpu, peak in answers}

    def __call__(self, path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
        tasks = [(path, part.tolist()) for part in np.array_split(indices, self.count)]
        return np.concatenate(list(self.pool.map(_pool_worker, tasks))), indices

    def spent(self) -> tuple[float, int]:
        """CPU seconds of the processes since they were ready, and their peak memory together."""
        after = self.usage()
        self.pool.shutdown()
        return sum(c - self.before.get(p, (0, 0))[0] for p, (c, _) in after.items()), sum(m for _, m in after.values())


def _load_video(path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
    from transformers.video_utils import load_video

    pictures, _ = load_video(path, backend="pyav", sample_indices_fn=lambda metadata, **more: indices)
    return np.stack([_shrink(np.asarray(picture)) for picture in pictures]), indices


def _opencv(path: str, indices: NDArray[np.int64]) -> tuple[Any, Any]:
    import cv2

    capture = cv2.VideoCapture(path)
    pictures, position = [], 0
    for index in indices:
        while position <= index:
            if not capture.grab():
                raise RuntimeError(f"OpenCV cannot read frame {position}")
            position += 1
        good, picture = capture.retrieve()
        if not good:
            raise RuntimeError(f"OpenCV cannot decode frame {index}")
        pictures.append(_shrink(picture)[:, :, ::-1])
    return np.stack(pictures), indices


def _prepare_decord() -> None:
    import cv2
    import decord

    cv2.setNumThreads(1)
    decord.logging.set_level(decord.logging.QUIET)


def _prepare(method: str) -> Callable[[str, NDArray[np.int64]], tuple[Any, Any]]:
    """Imports what a method needs and returns it."""
    if method.startswith("ours"):
        return _snapped if "snapped" in method else _ours
    if method == "process pool":
        return _Pool()
    import cv2  # noqa: F401

    if method.startswith("decord"):
        _prepare_decord()
        return _decord_scaled if "scaled" in method else _decord_cv2
    if method == "load_video":
        import av  # noqa: F401
        import transformers.video_utils  # noqa: F401

        return _load_video
    return _opencv


# -- one measurement, in a process of its own -----------------------------------------------------------------------


def _peak_memory() -> int:
    """Bytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: `getrusage` would count the memory of the parent before it started this program
        lines = [line.split() for line in status.read_text().splitlines()]
        return next(int(words[1]) * 1024 for words in lines if words[:1] == ["VmHWM:"])
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(method: str, path: str, indices: NDArray[np.int64], period: int | None) -> dict[str, Any]:
    """Wall and CPU seconds, peak bytes, and the share of exact frames of one method on one file."""
    run = _prepare(method)
    before, start = time.process_time(), time.perf_counter()
    pictures, shown = run(path, indices)
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    memory = _peak_memory()
    if isinstance(run, _Pool):
        more, peak = run.spent()
        cpu, memory = cpu + more, memory + peak
    result: dict[str, Any] = {"wall": wall, "cpu": cpu, "memory": memory}
    if period is not None:
        right = [read_number(p) == i % period for p, i in zip(pictures, shown, strict=True)]
        result["exact"] = float(np.mean(right))
    if "snapped" in method:
        result["moved"] = float(np.mean(np.asarray(shown) != indices))
    return result


def measure_bound(path: str, indices: NDArray[np.int64]) -> dict[str, Any]:
    """CPU seconds of decoding alone for the pictures that `indices` need."""
    import av

    from refocus_select.video import open_video
    from refocus_select.video._pyav import PyAVVideo

    video = open_video(path)
    assert isinstance(video, PyAVVideo)
    targets = np.unique(indices)
    groups = [group for span in video._plan(targets, 1).spans for group in span.work]
    lengths = [
        int(video.index.positions[targets[g.stop - 1]] - video.index.key_positions[g.anchor]) + 1 for g in groups
    ]
    step = max(1, round(sum(lengths) / BOUND_PICTURES))
    container = av.open(path)
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    context = stream.codec_context
    spent, done = 0.0, 0
    for place in range(0, len(groups), step):
        group = groups[place]
        wanted = set(video.index.pts[targets[group.start : group.stop]].tolist())
        container.seek(int(video.index.key_pts[group.anchor]), stream=stream)
        start = time.process_time()
        left = len(wanted)
        for packet in container.demux(stream):
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            left -= packet.pts in wanted
            context.decode(packet)
            if not left:
                break
        spent += time.process_time() - start
        done += lengths[place]
    return {"bound": spent / done * sum(lengths), "pictures": sum(lengths)}


def in_a_process(task: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in a fresh process; an error is a result too."""
    command = [sys.executable, str(Path(__file__).resolve()), "--task", json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIME_LIMIT} s"}
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or ["crashed"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    indices = np.linspace(0, task["frames"] - 1, task["candidates"]).astype(np.int64)
    if task["method"] == "bound":
        return measure_bound(task["path"], indices)
    return measure(task["method"], task["path"], indices, task["period"])


# -- the table -----------------------------------------------------------------------------------------------------


def run_case(path: Path, frames: int, candidates: int, methods: tuple[str, ...], period: int | None, repeat: int):
    """All methods on one file; the median (by wall time) of `repeat` runs each."""
    with path.open("rb") as file:  # into the page cache
        while file.read(2**24):
            pass
    task = {"path": str(path), "frames": frames, "candidates": candidates, "period": period}
    bound = in_a_process({**task, "method": "bound"})
    results = {}
    for method in methods:
        runs = [in_a_process({**task, "method": method}) for _ in range(repeat)]
        good = sorted((run for run in runs if "error" not in run), key=lambda run: run["wall"])
        results[method] = good[len(good) // 2] if good else runs[0]
        print(f"  {method:15s} {_short(results[method])}", flush=True)
    return {"file": path.name, "candidates": candidates, **bound, "methods": results}


def _short(result: dict[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    return f"{result['wall']:7.2f} s wall {result['cpu']:7.2f} s CPU {result['memory'] / 2**20:6.0f} MiB"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per file, number of candidates and method."""
    lines = [
        "| file | N | method | wall s | CPU s | ours is faster (wall) | CPU / bound | peak MiB | exact |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row["methods"].get("ours", {})
        for method, result in row["methods"].items():
            head = f"| {row['file']} | {row['candidates']} | {method} |"
            if "error" in result:
                lines.append(f"{head} {result['error']} | | | | | |")
                continue
            faster = f"{result['wall'] / ours['wall']:.2f}x" if "wall" in ours and method != "ours" else ""
            bound = f"{result['cpu'] / row['bound']:.2f}" if "bound" in row else ""
            exact = f"{result['exact']:.1%}" if "exact" in result else "not checked"
            if "moved" in result:
                exact += f" ({result['moved']:.0%} moved)"
            lines.append(
                f"{head} {result['wall']:.2f} | {result['cpu']:.2f} | {faster} | {bound} "
                f"| {result['memory'] / 2**20:.0f} | {exact} |"
            )
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """The worst and the median of what matters most."""

    def ratios(method: str, large: bool = False) -> list[float]:
        found = []
        for row in rows:
            ours, other = row["methods"].get("ours", {}), row["methods"].get(method, {})
            is_large = row["candidates"] == 512 and "_1min" not in row["file"]
            if "wall" in ours and "wall" in other and (is_large or not large):
                found.append(other["wall"] / ours["wall"])
        return found

    def line(text: str, values: list[float], most: bool = False) -> str:
        if not values:
            return f"- {text}: not in this run"
        worst = max(values) if most else min(values)
        return f"- {text}: worst {worst:.2f}, median {float(np.median(values)):.2f}"

    ours = [row["methods"]["ours"] for row in rows if "wall" in row["methods"].get("ours", {})]
    bounds = [
        row["methods"]["ours"]["cpu"] / row["bound"] for row in rows if "bound" in row and "ours" in row["methods"]
    ]
    every = [r for method in (*BASE[1:], "decord + cv2", "load_video", "OpenCV") for r in ratios(method)]
    return "\n".join(
        (
            line(
                "times faster than the process pool, 512 candidates of 10 minutes or more",
                ratios("process pool", True),
            ),
            line(
                "times faster than decord with scaling, 512 candidates of 10 minutes or more",
                ratios("decord, scaled", True),
            ),
            line("times faster than any other method anywhere", every),
            line("CPU over the decode bound", bounds, most=True),
            line("peak memory in GB", [r["memory"] / 1e9 for r in ours], most=True),
            line("share of exact frames", [r["exact"] for r in ours if "exact" in r]),
        )
    )


def environment() -> dict[str, str]:
    from importlib.metadata import version

    packages = {}
    for name in ("av", "decord", "opencv-python-headless", "transformers", "numpy"):
        try:
            packages[name] = version(name)
        except Exception:
            packages[name] = "missing"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"date": datetime.date.today().isoformat(), "cores": str(cores), "machine": platform.machine(),
            "python": platform.python_version(), **packages}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--full", action="store_true")
    parser.add_argument("--video", type=Path, help="measure this file instead of the generated ones")
    parser.add_argument("--candidates", type=int, default=128, help="for --video")
    parser.add_argument("--methods", help="comma-separated, instead of those of the case")
    parser.add_argument("--repeat", type=int, default=1, help="runs per measurement; the median counts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(run_task(json.loads(arguments.task))))
        return

    label = "quick" if arguments.quick else "full" if arguments.full else "default"
    chosen = tuple(arguments.methods.split(",")) if arguments.methods else None
    rows: list[dict[str, Any]] = []
    if arguments.video:
        from refocus_select.video import open_video

        label = arguments.video.stem
        with open_video(arguments.video) as video:
            count = len(video)
        print(f"{arguments.video.name}, {arguments.candidates} candidates", flush=True)
        methods = chosen or BASE + MORE
        rows.append(run_case(arguments.video, count, arguments.candidates, methods, None, arguments.repeat))
    else:
        cases = {"quick": cases_quick, "full": cases_full, "default": cases_default}[label]()
        print(f"making files in {default_folder()} where they are missing", flush=True)
        paths = {case.clip: make(case.clip) for case in cases}
        started = time.perf_counter()
        for case in cases:
            print(f"{case.clip.name}, {case.candidates} candidates", flush=True)
            methods = chosen or case.methods
            rows.append(
                run_case(paths[case.clip], case.clip.frames, case.candidates, methods, 60 * FPS, arguments.repeat)
            )
        print(f"took {time.perf_counter() - started:.0f} s")

    about = environment()
    command = ["python benchmarks/decode.py"]
    command += [f"--{label}"] if label in ("quick", "full") else []
    command += [f"--video {arguments.video.name} --candidates {arguments.candidates}"] if arguments.video else []
    command += [f'--methods "{arguments.methods}"'] if arguments.methods else []
    command += [f"--repeat {arguments.repeat}"] if arguments.repeat > 1 else []
    report = "\n\n".join(
        (
            f"`{' '.join(command)}`",
            ", ".join(f"{key} {value}" for key, value in about.items()),
            summary(rows),
            table(rows),
        )
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"decode-{label}.md").write_text(f"# Reading frames\n\n{report}\n")
    (arguments.out / f"decode-{label}.json").write_text(
        json.dumps(
            {"environment": about, "cases": [asdict(c) for c in cases] if not arguments.video else [], "rows": rows},
            indent=1,
        )
    )
    print(report)


if __name__ == "__main__":
    main()
