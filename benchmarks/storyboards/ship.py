"""Puts a trained policy into the package: `python -m benchmarks.storyboards.ship RUN/selector`.

Writes `weights/mini-policy`: the weights in float16, and the configuration with the candidate rule of the embedded
selector and the threshold below which nothing is recognised. The model card there is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path

import torch

from refocus_select import FrameSelector
from refocus_select.models.refocus import RefocusModel
from refocus_select.selectors.similarity import SimilaritySelector
from refocus_select.selectors.vector_policy import VectorPolicySelector

TARGET = Path(__file__).parents[2] / "weights/mini-policy"

RECOGNISED = 1.3
"""Peak similarity from which something counts as seen: on validation videos of 64 (256) candidates 3 % (4 %) of the
things that are there lie below, and 29 % (20 %) of those that are not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selector", type=Path, help="what `refocus-select train` wrote")
    arguments = parser.parse_args()
    trained = FrameSelector.from_pretrained(str(arguments.selector))
    if not isinstance(trained, VectorPolicySelector):
        raise SystemExit(f"{arguments.selector} is no policy over vectors")
    rule = SimilaritySelector.rule
    config = dataclasses.replace(
        trained.model.config,
        max_fps=rule.fps,
        max_num_frames=rule.max_frames,
        candidate_method=rule.method,
        spread_below=RECOGNISED,
    )
    model = RefocusModel(config)
    model.load_state_dict(trained.model.state_dict())
    TARGET.mkdir(exist_ok=True)
    if not (TARGET / "README.md").exists():
        (TARGET / "README.md").write_text("", encoding="utf-8")  # the card is ours to write
    VectorPolicySelector(model.to(torch.float16), trained.encoder, name="mini-policy").save_pretrained(TARGET)
    for file in sorted(TARGET.iterdir()):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")


if __name__ == "__main__":
    main()
