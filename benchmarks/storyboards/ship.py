"""Puts a trained policy into the package: `python -m benchmarks.storyboards.ship RUN/selector [--output FOLDER]`.

Writes `weights/mini-policy`, or FOLDER: the weights in float16, and the configuration with what is decided after
training: the candidate rule of the embedded selector, when a thing counts as seen, how many frames the policy picks at
most, and when it has seen enough. The model card in `weights/mini-policy` is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path

import torch

from refocus_select import FrameSelector
from refocus_select.models.portable import PortablePolicy
from refocus_select.selectors.similarity import SimilaritySelector
from refocus_select.selectors.vector_policy import VectorPolicySelector

TARGET = Path(__file__).parents[2] / "weights/mini-policy"

CHOSEN = {"min_rank": 0.25, "min_gain": 0.04, "max_picks": 8}
"""Chosen on validation, see runs/README.md."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selector", type=Path, help="what `refocus-select train` wrote")
    parser.add_argument("--output", type=Path, default=TARGET, help="default: weights/mini-policy")
    arguments = parser.parse_args()
    output: Path = arguments.output
    trained = FrameSelector.from_pretrained(str(arguments.selector))
    if not isinstance(trained, VectorPolicySelector):
        raise SystemExit(f"{arguments.selector} is not a policy over vectors")
    rule = SimilaritySelector.rule
    config = dataclasses.replace(
        trained.model.config,
        max_fps=rule.fps,
        max_num_frames=rule.max_frames,
        candidate_method=rule.method,
        **CHOSEN,
    )
    model = PortablePolicy(config)
    model.load_state_dict(trained.model.state_dict())
    output.mkdir(exist_ok=True, parents=True)
    if output == TARGET and not (TARGET / "README.md").exists():
        (TARGET / "README.md").write_text("", encoding="utf-8")  # the card is ours to write
    VectorPolicySelector(model.to(torch.float16), trained.encoder, name="mini-policy").save_pretrained(output)
    for file in sorted(output.iterdir()):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")


if __name__ == "__main__":
    main()
