"""Time of each selection algorithm alone, scores and embeddings given.

    python -m benchmarks.algorithms --frames 3600 --num-frames 64 --width 768

Scores are cosines of a random question with slowly changing random frames (neighbours alike, as in a video). Each
algorithm runs once unmeasured, then `--repeats` times; the median and the spread of wall-clock time are printed.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time

import numpy as np

from refocus_select.selectors.algorithms import SCORED


def main() -> None:
    """Print one line per algorithm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3600, help="candidates T")
    parser.add_argument("--num-frames", type=int, default=64, help="picks K")
    parser.add_argument("--width", type=int, default=768, help="size of an embedding D")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    inputs = synthetic_video(arguments.frames, arguments.width)
    print(f"T={arguments.frames} K={arguments.num_frames} D={arguments.width} numpy {np.__version__}")
    for name, algorithm in SCORED.items():
        known = inspect.signature(algorithm).parameters
        used = {key: value for key, value in inputs.items() if key in known and key != "scores"}
        seconds = []
        for _ in range(arguments.repeats + 1):
            begin = time.perf_counter()
            algorithm(inputs["scores"], arguments.num_frames, **used)
            seconds.append(time.perf_counter() - begin)
        measured = seconds[1:]
        print(f"{name:>10}  {statistics.median(measured):8.4f} s  ({min(measured):.4f} to {max(measured):.4f})")


def synthetic_video(frames: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Timestamps [T], embeddings [T, D] that drift, and their cosines with a question [T]."""
    generator = np.random.default_rng(seed)
    embeddings = np.empty((frames, width), dtype=np.float32)
    state = generator.normal(size=width)
    for frame in range(frames):
        state = 0.95 * state + 0.3 * generator.normal(size=width)
        embeddings[frame] = state / np.linalg.norm(state)
    question = generator.normal(size=width) + 3 * embeddings[frames // 3]
    scores = embeddings @ (question / np.linalg.norm(question))
    return {"timestamps": np.arange(frames, dtype=np.float64), "embeddings": embeddings, "scores": scores}


if __name__ == "__main__":
    main()
