"""The model card of a saved policy."""

from __future__ import annotations

import json

from ..models.portable import PortablePolicy
from ..models.refocus import RefocusModel
from ..plain_text import markdown_text

_CARD = """---
library_name: refocus-select
pipeline_tag: video-text-to-text
tags:
- frame-selection
- video
- {tag}
- refocus
---

# {title}

A frame selection policy: it reads up to {max_frames} candidate frames of a video (at most {fps:g} per second) and a
question, and picks the few frames that answer it. The frames are read once per video; further questions are cheap.

```python
from refocus_select import FrameSelector

selector = FrameSelector.from_pretrained({name})
encoding = selector.encode("video.mp4")
selection = selector.select(encoding, "What happens first?", num_frames=8)
print(selection.timestamps)
```

| | |
|---|---|
| architecture | ReFoCUS: {kind}, autoregressive pointer over frames |
| parameters | {parameters:,} |
| frames | {eye} |
| backbone | {layers} layers of width {width}: {recurrence} |
| picks per run | {picks} |
| rank head | {rank} |
| stored type | {dtype} |

{training}
"""


_UNKNOWN = """## Training data, evaluation, licence

Not recorded in this file. Whoever publishes the weights should add what they were trained on, how they compare with
uniform sampling at the same number of frames, and under which licence they may be used."""


def model_card(model: RefocusModel | PortablePolicy, name: str, *, training: str = _UNKNOWN) -> str:
    """Markdown with the metadata block of the Hugging Face Hub.

    Args:
        model: tells its sizes.
        name: of the repository.
        training: the sections about training, evaluation and licence.
    """
    facts = _portable(model) if isinstance(model, PortablePolicy) else _pictures(model)
    return _CARD.format(
        title=markdown_text(name),
        name=json.dumps(name, ensure_ascii=False),
        max_frames=model.config.max_num_frames,
        fps=model.config.max_fps,
        parameters=sum(p.numel() for p in model.parameters()),
        training=training,
        layers=model.config.n_layer,
        width=model.config.d_model,
        dtype=str(model.backbone.embedding.weight.dtype).removeprefix("torch."),
        **facts,
    )


def _portable(model: PortablePolicy) -> dict[str, object]:
    c = model.config
    return {
        "kind": "cues of any dual encoder, one token per frame",
        "eye": "vectors of any dual encoder; sentences by the embedded sentence encoder",
        "recurrence": f"Mamba-2, state {c.d_state}, from either end",
        "tag": "mamba2",
        "picks": f"at most {c.max_picks}; it stops when the evidence is complete",
        "rank": "no",
    }


def _pictures(model: RefocusModel) -> dict[str, object]:
    c = model.config
    return {
        "kind": "SigLIP frames",
        "eye": f"{c.vision.num_hidden_layers} blocks of width {c.vision.hidden_size}, {c.vision.image_size} px, pooled "
        f"`{c.mm_spatial_pool_mode}`",
        "recurrence": f"Mamba-2, state {c.ssm.d_state}",
        "tag": "mamba2",
        "picks": c.query_frames,
        "rank": "yes" if c.use_rank_head else "no",
    }
