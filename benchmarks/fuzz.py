"""Damaged files: does reading them crash, hang, raise a foreign error, or hand over a wrong picture as a good one?

    python -m benchmarks.fuzz                    # 18 kinds of files, damaged in 13 ways, one seed: about 5 minutes
    python -m benchmarks.fuzz --seeds 5          # the same with five seeds
    python -m benchmarks.fuzz --kinds h264.mkv raw.h264 --damages hole flips

Protocol. Every damaged file is read in a process of its own with a limit of time and memory: it is opened, all frames
are read in one call, some alone in random order, some with several threads. Then the same damaged file is decoded from
front to back with PyAV. A frame counts as *different* if it was called valid and the sequential decode shows another
picture at its time (where it shows none: if the undamaged film has no such picture), or if two of our own readings of
it disagree. Files with ambiguous times (none at all, a clock that jumps) are counted apart; `Video.warnings` says so.

The last column is for information: frames called valid that do not look like the undamaged film at that place. Codecs
without checksums cannot notice every flipped bit, and neither can a sequential decode.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Not this folder: a file in it could shadow a module of the standard library (select.py does).
sys.path[:] = [str(ROOT), *(p for p in sys.path if p and Path(p).resolve() != ROOT / "benchmarks")]

import argparse  # noqa: E402
import faulthandler  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import zlib  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

KINDS = (
    "gop12.mp4", "front.mp4", "open_gop.mp4", "hevc.mp4", "fragmented.mp4", "h264.mkv", "hevc_10bit.mkv", "vp8.webm",
    "vp9.webm", "av1.webm", "h264.ts", "mpeg2.ts", "mpeg2.mpg", "h264.flv", "mpeg4.avi", "h264.avi", "raw.h264",
    "gif.gif",
)  # fmt: skip
TIME_LIMIT = 300  # seconds for one damaged file, on a machine that may be busy
MEMORY_LIMIT = 6 * 2**30  # bytes
NEAR = 3.0  # mean difference of pixels up to which two pictures are the same
Damage = Callable[[bytes, np.random.Generator], bytes]


def _hole(data: bytes, rng: np.random.Generator, share: float, fill: bool) -> bytes:
    size = max(1, int(len(data) * share))
    place = int(rng.integers(len(data) // 10, max(len(data) - size, len(data) // 10 + 1)))
    return data[:place] + (rng.bytes(size) if fill else bytes(size)) + data[place + size :]


def _flips(data: bytes, rng: np.random.Generator, count: int, start: float, end: float) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(int(start * len(data)), max(int(end * len(data)), 1), count):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data: bytes, rng: np.random.Generator, share: float) -> bytes:
    size = max(1, int(len(data) * share))
    place = int(rng.integers(len(data) // 10, max(len(data) - size, len(data) // 10 + 1)))
    return data[:place] + data[place + size :]


def _swapped(data: bytes, rng: np.random.Generator) -> bytes:
    size = len(data) // 12
    a, b = sorted(rng.choice(10, 2, replace=False))
    a, b = (a + 1) * size, (b + 1) * size
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def _repeated(data: bytes, rng: np.random.Generator) -> bytes:
    size = len(data) // 20
    place = int(rng.integers(len(data) // 10, len(data) - size))
    return data[: place + size] + data[place:]


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in (*rng.integers(0, min(len(data), 1500), 8), *rng.integers(max(0, len(data) - 3000), len(data), 8)):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


DAMAGES: dict[str, Damage] = {
    "cut at 60 %": lambda data, rng: data[: len(data) * 6 // 10],
    "cut at the end": lambda data, rng: data[: -int(rng.integers(1, len(data) // 20))],
    "beginning lost": lambda data, rng: data[int(rng.integers(1, len(data) // 20)) :],
    "hole": lambda data, rng: _hole(data, rng, 0.1, False),
    "small hole": lambda data, rng: _hole(data, rng, 200 / len(data), False),
    "noise": lambda data, rng: _hole(data, rng, 0.1, True),
    "6 flips": lambda data, rng: _flips(data, rng, 6, 0.1, 1),
    "60 flips": lambda data, rng: _flips(data, rng, 60, 0, 1),
    "byte lost": lambda data, rng: _cut(data, rng, 1 / len(data)),
    "block lost": lambda data, rng: _cut(data, rng, 0.05),
    "block repeated": _repeated,
    "blocks swapped": _swapped,
    "header": _header,
}


# -- one file, in a process of its own -------------------------------------------------------------------------------


def examine(path: str, whole: str) -> dict[str, Any]:
    """Reads a damaged file in several ways and says what came of it."""
    from refocus_select.errors import RefocusError
    from refocus_select.video import open_video

    logging.disable(logging.CRITICAL)
    try:
        with open_video(path) as video:
            count = len(video)
            every = video.get_frames(np.arange(count), workers=1)
            different = _against_sequential(path, whole, every, video)
            again = _disagreements(video, every)
            said = " ".join(video.warnings)
            ambiguous = any(word in said for word in ("carries no times", "clock", "repeat or step back", "missing"))
            return {
                "outcome": "frames",
                "frames": count,
                "flagged": int((~every.valid).sum()),
                "different": different,
                "again": again,
                "ambiguous": ambiguous,
                "silent": _unlike_the_film(whole, every, video.metadata.start_time),
                "warnings": list(video.warnings),
            }
    except RefocusError as error:
        return {"outcome": "refused", "error": str(error)}
    except Exception as error:  # a foreign one: what this benchmark looks for
        return {"outcome": "foreign", "error": f"{type(error).__name__}: {error}"}


def _sequential(path: str) -> list[tuple[float, NDArray[np.uint8]]]:
    """Times and pictures of a plain decode from front to back; what raises is left out."""
    import av

    from refocus_select.video.container import demuxed, open_container

    pictures: list[tuple[float, Any]] = []
    container, stream = open_container(path, path)
    with container:
        stream.thread_type = "NONE"
        try:
            for packet in demuxed(container, stream, end=True):
                try:
                    pictures += [
                        (frame.time if frame.pts is not None else -1.0, frame.to_ndarray(format="rgb24"))
                        for frame in packet.decode()
                    ]
                except (av.error.FFmpegError, EOFError):
                    continue
        except av.error.FFmpegError:
            pass
    return pictures


def _unlike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return a.shape != b.shape or float(np.abs(a.astype(np.int16) - b).mean()) > NEAR


def _against_sequential(path: str, whole: str, frames: Any, video: Any) -> list[int]:
    """Valid frames unlike the sequential decode of the same file at their time.

    Where that shows nothing (FFmpeg's AV1 decoder does not go on behind an error, for one), they must be as in the
    undamaged film. Files whose packets carry no times of presentation (AVI, raw streams) are compared with every
    picture, because FFmpeg's times of them are out of order.
    """
    pictures, film = _sequential(path), _sequential(whole)
    wrong = []
    for row in np.flatnonzero(frames.valid):
        time = frames.timestamps[row] + video.metadata.start_time
        candidates = [picture for at, picture in pictures if video.index.counted or abs(at - time) < 0.002]
        if all(_unlike(frames.data[row], picture) for picture in candidates or [picture for _, picture in film]):
            wrong.append(int(row))
    return wrong


def _disagreements(video: Any, every: Any) -> list[int]:
    """Frames that are valid in two readings of the same file and look different."""
    rng = np.random.default_rng(5)
    count = len(every)
    wrong = []
    for asked, workers in (
        *((np.array([number]), 1) for number in rng.integers(0, count, 6)),
        (np.arange(0, count, 5), 3),
    ):
        frames = video.get_frames(asked, workers=workers)
        both = frames.valid & every.valid[asked]
        wrong += [int(n) for n, a in zip(asked[both], frames.data[both], strict=True) if _unlike(a, every.data[n])]
    return wrong


def _unlike_the_film(whole: str, frames: Any, start: float) -> int:
    """Valid frames whose picture the undamaged film does not hold anywhere near."""
    film = [picture for _, picture in _sequential(whole)]
    from tests.video.clips import read

    return sum(
        not 0 <= (number := read(frames.data[row])) < len(film) or _unlike(frames.data[row], film[number])
        for row in np.flatnonzero(frames.valid)
    )


# -- all files -------------------------------------------------------------------------------------------------------


def run_one(path: Path, whole: Path) -> dict[str, Any]:
    """`examine` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--examine", str(path), str(whole)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT, cwd=ROOT, preexec_fn=_limited, check=False
        )
    except subprocess.TimeoutExpired:
        return {"outcome": "hang"}
    if "Timeout (" in done.stderr:
        return {"outcome": "hang", "error": done.stderr[-2000:]}
    if done.returncode != 0:
        return {"outcome": "crash", "error": f"exit {done.returncode}: {done.stderr[-300:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _limited() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.nice(5)


def make_film(kind: str, folder: Path) -> Path:
    from tests.video.clips import encode
    from tests.video.kinds import make

    if kind == "front.mp4":
        path = folder / kind
        options = {"g": "25", "bf": "3"}
        return (
            path if path.exists() else encode(path, 150, options=options, container_options={"movflags": "faststart"})
        )
    return make(kind, folder)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| file | damaged files | refused | frames | flagged | crashes | hangs | foreign errors | valid but different "
        "| the same, times ambiguous | valid, not as in the film |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sums: Counter[str] = Counter()
    for kind, rows in results.items():
        counts = Counter(row["outcome"] for row in rows)
        for row in rows:
            wrong = len(set(row.get("different", [])) | set(row.get("again", [])))
            counts["ambiguous" if row.get("ambiguous") else "different"] += wrong
            for name in ("frames", "flagged", "silent"):
                counts[f"n_{name}"] += row.get(name, 0)
        counts["files"] = len(rows)
        sums += counts
        lines.append(_line(kind, counts))
    lines.append(_line("all", sums))
    return "\n".join(lines)


def _line(name: str, counts: Counter[str]) -> str:
    columns = (
        "files", "refused", "n_frames", "n_flagged", "crash", "hang", "foreign", "different", "ambiguous", "n_silent",
    )  # fmt: skip
    return f"| {name} | " + " | ".join(str(counts[column]) for column in columns) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--damages", nargs="*", default=tuple(DAMAGES), choices=tuple(DAMAGES))
    parser.add_argument("--seeds", type=int, default=1, help="how often each file is damaged in each way")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the table here, as Markdown")
    parser.add_argument("--keep", type=Path, help="keep files that gave a fault in this folder")
    parser.add_argument("--examine", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.examine:
        faulthandler.dump_traceback_later(TIME_LIMIT - 10, exit=True)  # says where it hangs
        print(json.dumps(examine(*arguments.examine)))
        return
    os.environ.setdefault("SVT_LOG", "1")
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in arguments.kinds:
            whole = make_film(kind, folder)
            for damage in arguments.damages:
                for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                    rng = np.random.default_rng([seed, zlib.crc32(f"{kind} {damage}".encode())])
                    path = folder / f"{seed}-{damage.replace(' ', '-').replace('%', '')}-{kind}"
                    path.write_bytes(DAMAGES[damage](whole.read_bytes(), rng))
                    row = run_one(path, whole)
                    results.setdefault(kind, []).append(row)
                    if row["outcome"] in ("crash", "hang", "foreign") or row.get("different") or row.get("again"):
                        print(f"{path.name}: {json.dumps(row)[:600]}", flush=True)
                        if arguments.keep:
                            arguments.keep.mkdir(parents=True, exist_ok=True)
                            (arguments.keep / path.name).write_bytes(path.read_bytes())
                    path.unlink()
    text = table(results)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
