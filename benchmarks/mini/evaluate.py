"""How well the embedded selector matches pictures and text.

    python -m benchmarks.mini.evaluate MATERIALS [--weights weights/mini] [--out benchmarks/mini/results.json]

Three tasks, none of whose pictures was trained on:

- *stamps*: Tux Paint captions to stamps on white, 90 at a time, recall at 1 and 10, mean over 40 draws. One half (dev)
  guided choices, the other (test) did not.
- *clips*: nine mixed real clips as one video of 108 frames; of the 8 most similar frames, how many are of the clip that
  the question is about (uniform: 1/9).
- *film*: Big Buck Bunny (examples/film), the selector as it ships, 8 frames for a question; how many lie in the moments
  marked by eye in questions.json, beside uniform sampling. Dev and test questions.

Intervals: 95 %, bootstrap over captions or questions. The questions were written by people who had seen the videos.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from refocus_select.models.mini import MiniEncoder
from refocus_select.selectors.algorithms import uniform
from refocus_select.selectors.similarity import SimilaritySelector

from .materials import compose, load_rgba, tux_paint

FILM = Path(__file__).parents[2] / "examples/film/big_buck_bunny.mp4"
CLIPS = {
    "bikes": "bikes.mp4", "carphone": "carphone_pristine.mp4", "bunny": "bigbuckbunny.mp4", "city": "cityCC0.mpg",
    "world": "world.mp4", "rocket": "oa4_launch.webm", "vtest": "vtest.avi", "tree": "tree.avi",
    "traffic": "traffic_sequence.mp4",
}  # fmt: skip
ABSENT = (
    "Who plays the violin?", "When is the chess match?", "Where is the submarine?", "Which keyboard is typed on?",
    "When does the surgeon operate?", "What is the price of the stock?", "Where is the giraffe?", "Who eats the sushi?",
    "When is the goal scored?", "Where is the washing machine?",
)  # fmt: skip


def interval(values: np.ndarray, seed: int = 0) -> list[float]:
    """Mean and 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    return [round(float(x), 3) for x in (values.mean(), *np.quantile(means, (0.025, 0.975)))]


def stamps(encoder: MiniEncoder, root: Path) -> dict[str, object]:
    size = encoder.frame_size[0]
    pairs = list({pair.texts: pair for pair in reversed(list(tux_paint(root)))}.values())
    order = np.random.default_rng(1).permutation(len(pairs))
    half = len(order) // 2
    results: dict[str, object] = {"captions": len(pairs)}
    for split, rows in (("dev", order[:half]), ("test", order[half:])):
        pictures = [compose(load_rgba(pairs[i]), size, (255, 255, 255), (0.08, 0.08, 0.84, 0.84)) for i in rows]
        text = encoder.encode_text([pairs[i].texts[0] for i in rows])
        similarity = (text @ encoder.encode_frames(np.stack(pictures)).T).numpy()
        rng = np.random.default_rng(0)
        hits: dict[int, list[list[float]]] = {1: [[] for _ in rows], 10: [[] for _ in rows]}
        for _ in range(40):
            drawn = rng.permutation(len(rows))[:90]
            part = similarity[np.ix_(drawn, drawn)]
            rank = (part > np.diag(part)[:, None]).sum(1)
            for k, found in hits.items():
                for row, place in zip(drawn, rank, strict=True):
                    found[row].append(float(place < k))
        for k, found in hits.items():
            results[f"{split} R@{k} of 90"] = interval(np.array([np.mean(f) for f in found if f]))
    return results


def clips(encoder: MiniEncoder, root: Path, questions: list[dict[str, str]]) -> dict[str, object]:
    import av

    names, rows = [], []
    height, width = encoder.frame_size
    for name, file in CLIPS.items():
        with av.open(str(next(root.rglob(file)))) as container:
            frames = [f.to_ndarray(format="rgb24", width=width, height=height) for f in container.decode(video=0)]
        rows.append(encoder.encode_frames(np.stack([frames[int((i + 0.5) * len(frames) / 12)] for i in range(12)])))
        names += [name] * 12
    similarity = (encoder.encode_text([q["question"] for q in questions]) @ torch.cat(rows).T).numpy()
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :8]
    right = np.array([[names[i] == q["clip"] for i in row] for row, q in zip(top, questions, strict=True)]).mean(1)
    each = {q["question"]: float(r) for q, r in zip(questions, right, strict=True)}
    return {"questions": len(questions), "P@8": interval(right), "uniform": round(1 / 9, 3), "each": each}


def film(selector: SimilaritySelector, questions: list[dict[str, object]]) -> dict[str, object]:
    encoding = selector.encode(FILM, progress=False)
    even = encoding.timestamps[uniform(encoding.timestamps, 8)]

    def inside(times: np.ndarray, moments: object) -> float:
        return float(np.mean([any(start <= t <= end for start, end in moments) for t in times]))  # type: ignore[attr-defined]

    results: dict[str, object] = {}
    for split in ("dev", "test"):
        asked = [q for q in questions if q["split"] == split]
        chosen = [selector.select(encoding, str(q["question"]), num_frames=8) for q in asked]
        hits = np.array([inside(c.timestamps, q["moments"]) for c, q in zip(chosen, asked, strict=True)])
        results[f"{split} P@8"] = interval(hits)
        results[f"{split} uniform"] = interval(np.array([inside(even, q["moments"]) for q in asked]))
        results[f"{split} each"] = {
            str(q["question"]): [h, c.strategy, round(_peak(c.scores), 4)]
            for q, h, c in zip(asked, hits.tolist(), chosen, strict=True)
        }
    absent = [selector.select(encoding, question, num_frames=8) for question in ABSENT]
    results["absent"] = {c.question: [c.strategy, round(_peak(c.scores), 4)] for c in absent}
    return results


def _peak(scores: np.ndarray) -> float:
    return float(np.sort(scores)[-8:].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parents[2] / "weights/mini")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    questions = json.loads((Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    selector = SimilaritySelector.from_pretrained(arguments.weights, device=arguments.device)
    results = {
        "fingerprint": selector.fingerprint,
        "arithmetic": str(selector.encoder.image.stem.weight.dtype),
        "film": film(selector, questions["film"]),
        "clips": clips(selector.encoder, arguments.materials, questions["clips"]),
        "stamps": stamps(selector.encoder, arguments.materials),
    }
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
