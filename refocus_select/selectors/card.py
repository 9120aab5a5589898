"""The model card of a saved policy."""

from __future__ import annotations

import json

from ..models.refocus import RefocusModel
from ..plain_text import markdown_code, markdown_text

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
| architecture | ReFoCUS: {kind}, {recurrence} backbone, autoregressive pointer over frames |
| parameters | {parameters:,} |
| frames | {eye} |
| backbone | {layers} {recurrence} layers of width {width}{state} |
| picks per run | {picks} |
| rank head | {rank} |
| stored type | {dtype} |

{training}
"""


_UNKNOWN = """## Training data, evaluation, licence

Not recorded in this file. Whoever publishes the weights should add what they were trained on, how they compare with
uniform sampling at the same number of frames, and under which licence they may be used."""


def model_card(model: RefocusModel, name: str, *, training: str = _UNKNOWN) -> str:
    """Markdown with the metadata block of the Hugging Face Hub.

    Args:
        model: tells its sizes.
        name: of the repository.
        training: the sections about training, evaluation and licence.
    """
    c = model.config
    if c.frame_encoder == "none":
        eye = (
            f"vectors of {markdown_code(c.feature_encoder or 'an encoder of your own')}, {c.mm_hidden_size} dimensions"
        )
        kind = "vectors of a dual encoder, one token per frame"
    else:
        eye = (
            f"{c.vision.num_hidden_layers} blocks of width {c.vision.hidden_size}, {c.vision.image_size} px, pooled "
            f"`{c.mm_spatial_pool_mode}`"
        )
        kind = "SigLIP frames"
    return _CARD.format(
        title=markdown_text(name),
        name=json.dumps(name, ensure_ascii=False),
        max_frames=c.max_num_frames,
        fps=c.max_fps,
        parameters=sum(p.numel() for p in model.parameters()),
        kind=kind,
        training=training,
        eye=eye,
        layers=c.n_layer,
        width=c.d_model,
        tag=c.backbone,
        recurrence="Mamba-2" if c.backbone == "mamba2" else "GRU",
        state=f", state {c.ssm.d_state}" if c.backbone == "mamba2" else "",
        picks=c.query_frames,
        rank="yes" if c.use_rank_head else "no",
        dtype=str(model.dtype).removeprefix("torch."),
    )
