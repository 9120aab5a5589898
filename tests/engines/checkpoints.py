"""Tiny random checkpoints with tokenizers made by hand, which engines load as they load real ones.

`python -m tests.engines.checkpoints FOLDER` writes one of each type.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.adapters import models, tiny

TYPES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm")


def write_checkpoint(model_type: str, folder: Path) -> str:
    """Write a model and its processor to `folder/model_type`.

    Returns:
        The folder, as engines take it.
    """
    place = folder / model_type
    processor = tiny.BUILDERS[model_type]()
    processor.save_pretrained(place)
    models.build(model_type, processor).save_pretrained(place)
    return str(place)


if __name__ == "__main__":
    for name in TYPES:
        print(write_checkpoint(name, Path(sys.argv[1])))
