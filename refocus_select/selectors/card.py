"""The model card of a saved policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from ..models.portable import PortablePolicy
from ..models.refocus import RefocusModel
from ..plain_text import markdown_text, printable

_CARD = """---
{metadata}---

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


def model_card(
    model: RefocusModel | PortablePolicy,
    name: str,
    *,
    training: str = _UNKNOWN,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with the metadata block of the Hugging Face Hub.

    Args:
        model: tells its sizes.
        name: of the repository.
        training: the sections about training, evaluation and licence.
        facts: for the metadata: "license", "base_model", "datasets", and "results" with "dataset" and "metrics".
    """
    sizes = _portable(model) if isinstance(model, PortablePolicy) else _pictures(model)
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
        metadata=_metadata(name, facts or {}),
        **sizes,
    )


def _metadata(name: str, facts: Mapping[str, Any]) -> str:
    """The block at the head of the card, as the Hub reads it (huggingface.co/docs/hub/model-cards)."""
    content: dict[str, Any] = {
        "library_name": "refocus-select",
        "pipeline_tag": "video-text-to-text",
        "license": facts.get("license", "unknown"),  # only whoever publishes the weights can say
        "language": ["en"],
        "tags": ["frame-selection", "video", "mamba2", "refocus"],
        **{key: facts[key] for key in ("base_model", "datasets") if key in facts},
    }
    if "results" in facts:
        results = facts["results"]
        dataset = printable(" ".join(results["dataset"].split()))
        metrics = [
            {"type": "accuracy", "name": told, "value": round(float(value), 4)}
            for told, value in results["metrics"].items()
        ]
        content["model-index"] = [
            {
                "name": printable(name),
                "results": [
                    {
                        "task": {"type": "video-text-to-text", "name": "question answering from the chosen frames"},
                        "dataset": {"type": "custom", "name": dataset},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _portable(model: PortablePolicy) -> dict[str, object]:
    c = model.config
    return {
        "kind": "cues of any dual encoder, one token per frame",
        "eye": "vectors of any dual encoder; sentences by the embedded sentence encoder",
        "recurrence": f"Mamba-2, state {c.d_state}, from either end",
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
        "picks": c.query_frames,
        "rank": "yes" if c.use_rank_head else "no",
    }
