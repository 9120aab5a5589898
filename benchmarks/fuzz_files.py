"""Damaged files that we write ourselves: encodings, indexes, results, selections.

    python -m benchmarks.fuzz_files              # 7 kinds of files, damaged in 13 ways with 2 seeds

Protocol. One small file of each kind is made, damaged as in `benchmarks.fuzz`, and read in every way there is; all of a
kind in a process of its own with a limit of time and memory, so that a crash or a hang is counted. An outcome is
*refused* (an error of ours), *read*, or *foreign* (any other exception). *Different* counts what was read and says
something else than the undamaged file: for kinds with a checksum that must not happen. The others have
none, so a changed digit in them is a changed digit; their column is a dash.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(p for p in sys.path if p and Path(p).resolve() != ROOT / "benchmarks")]

import argparse  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import zlib  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.fuzz import DAMAGES, MEMORY_LIMIT  # noqa: E402

TIME_LIMIT = 600  # seconds for all files of one kind, on a machine that may be busy
_QUESTION = "What happens at the end?"


def _film(folder: Path) -> Path:
    from tests.video.clips import encode

    path = folder / "film.mp4"
    return path if path.exists() else encode(path, 50, options={"g": "12"})


def _encoding(folder: Path) -> Path:
    from refocus_select import FrameSelector

    return (
        FrameSelector.from_pretrained("mini").encode(str(_film(folder)), progress=False).save(folder / "e.safetensors")
    )


def _index(folder: Path) -> Path:
    from refocus_select.corpus import Index

    return Index.build([_film(folder)], folder / "index", progress=False).folder


def _results(folder: Path, ending: str) -> Path:
    from refocus_select.corpus import select_batch

    rows = [{"id": str(n), "video": str(_film(folder)), "question": _QUESTION} for n in range(6)]
    return select_batch(rows, folder / f"results{ending}", selector="uniform", num_frames=4, progress=False).path


def _selections(folder: Path) -> Path:
    from refocus_select.evaluation.selections import StoredSelection, write_selections

    stored = [StoredSelection(str(n), 3, (1, 5, 9), (0.1, 0.5, 0.9), "uniform") for n in range(6)]
    return write_selections(folder / "selections.jsonl", stored)


def _read_encoding(path: Path) -> str:
    from refocus_select import VideoEncoding

    encoding = VideoEncoding.load(path)
    numbers = [encoding.indices.tobytes(), encoding.timestamps.tobytes()]
    numbers += [encoding.tensors[name].numpy().tobytes() for name in sorted(encoding.tensors)]
    return f"{zlib.crc32(b''.join(numbers))} {encoding.video} {encoding.encoder}"


def _read_index(path: Path) -> str:
    from refocus_select.corpus import Index

    index = Index(path)
    index.check()
    said = []
    for video in index.videos:
        selection = index.select(_QUESTION, video=video, num_frames=3)
        said.append((video, selection.indices.tolist(), selection.timestamps.tolist()))
    hits = [hit.to_dict() for hit in index.search(_QUESTION, 3)]
    return repr((said, hits))


def _read_results(path: Path) -> str:
    from refocus_select.corpus import read_results

    return repr(list(read_results(path)))


def _read_selections(path: Path) -> str:
    from refocus_select.evaluation.selections import read_selections
    from refocus_select.questions import Question

    return repr(read_selections(path, [Question(str(n), "film.mp4", _QUESTION) for n in range(6)]))


# What it is called: how it is made, which file of it is damaged, how it is read, whether it has a checksum.
KINDS: dict[str, tuple[Callable[[Path], Path], str, Callable[[Path], str], bool]] = {
    "encoding": (_encoding, "", _read_encoding, True),
    "index: settings": (_index, "index.json", _read_index, False),
    "index: table": (_index, "videos.parquet", _read_index, False),
    "index: encoding": (_index, "encodings", _read_index, True),
    "results .jsonl": (lambda folder: _results(folder, ".jsonl"), "", _read_results, False),
    "results .parquet": (lambda folder: _results(folder, ".parquet"), "", _read_results, False),
    "selections .jsonl": (_selections, "", _read_selections, False),
}


def examine(kind: str, seeds: int) -> dict[str, Any]:
    """Damages and reads files of one kind."""
    from refocus_select.errors import RefocusError

    logging.disable(logging.CRITICAL)
    make, inner, read, _ = KINDS[kind]
    counts: Counter[str] = Counter()
    foreign = []
    with tempfile.TemporaryDirectory() as name:
        whole = make(Path(name))
        damaged = whole / inner if inner else whole
        if damaged.is_dir():
            damaged = next(damaged.iterdir())
        good, content = read(whole), damaged.read_bytes()
        for damage, apply in DAMAGES.items():
            for seed in range(seeds):
                rng = np.random.default_rng([seed, zlib.crc32(f"{kind} {damage}".encode())])
                damaged.write_bytes(apply(content, rng))
                try:
                    counts["read"] += 1
                    counts["different"] += read(whole) != good
                except RefocusError:
                    counts.update({"refused": 1, "read": -1})
                except Exception as error:  # a foreign one: what this benchmark looks for
                    counts.update({"foreign": 1, "read": -1})
                    foreign.append(f"{kind}, {damage}, seed {seed}: {type(error).__name__}: {str(error)[:200]}")
        shutil.rmtree(whole, ignore_errors=True)
    return {"counts": counts, "foreign": foreign}


def run_one(kind: str, seeds: int) -> dict[str, Any]:
    """`examine` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fuzz_files", "--examine", kind, "--seeds", str(seeds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT, cwd=ROOT, preexec_fn=_limited, check=False
        )
    except subprocess.TimeoutExpired:
        return {"counts": {"hang": 1}, "foreign": []}
    if done.returncode != 0:
        return {"counts": {"crash": 1}, "foreign": [f"{kind}: exit {done.returncode}: {done.stderr[-500:]}"]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _limited() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY_LIMIT, 2 * MEMORY_LIMIT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=tuple(KINDS), choices=tuple(KINDS))
    parser.add_argument("--seeds", type=int, default=2, help="how often each file is damaged in each way")
    parser.add_argument("--examine", choices=tuple(KINDS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.examine:
        print(json.dumps(examine(arguments.examine, arguments.seeds)))
        return
    print("| file | damaged files | refused | read | different | foreign errors | crashes | hangs |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in arguments.kinds:
        found = run_one(kind, arguments.seeds)
        counts = Counter(found["counts"])
        different = counts["different"] if KINDS[kind][3] else "-"
        columns = (counts["refused"], counts["read"], different, counts["foreign"], counts["crash"], counts["hang"])
        print(f"| {kind} | {arguments.seeds * len(DAMAGES)} | " + " | ".join(map(str, columns)) + " |", flush=True)
        for line in found["foreign"]:
            print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
