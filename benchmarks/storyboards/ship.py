"""Puts a trained policy into the package: `python -m benchmarks.storyboards.ship RUN/selector [--output FOLDER]`.

Writes `weights/mini-policy`, or FOLDER: the weights in float16, and the configuration with what is decided after
training: the candidate rule of the embedded selector, the threshold below which nothing is recognised, and the number
of frames after which coverage chooses. The model card in `weights/mini-policy` is written by hand.
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
"""Peak similarity from which something counts as seen: on validation videos of 64 (256) candidates 2 % (1 %) of the
things that are there are overlooked, and 19 % (12 %) of those that are not are noticed."""

COVER_AFTER = 6
"""Frames that the policy chooses; further ones cover what else there is. Chosen on validation, see runs/README.md."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selector", type=Path, help="what `refocus-select train` wrote")
    parser.add_argument("--output", type=Path, default=TARGET, help="default: weights/mini-policy")
    arguments = parser.parse_args()
    output: Path = arguments.output
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
        cover_after=COVER_AFTER,
    )
    model = RefocusModel(config)
    model.load_state_dict(trained.model.state_dict())
    output.mkdir(exist_ok=True, parents=True)
    if output == TARGET and not (TARGET / "README.md").exists():
        (TARGET / "README.md").write_text("", encoding="utf-8")  # the card is ours to write
    VectorPolicySelector(model.to(torch.float16), trained.encoder, name="mini-policy").save_pretrained(output)
    for file in sorted(output.iterdir()):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")


if __name__ == "__main__":
    main()
