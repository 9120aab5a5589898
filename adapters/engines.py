"""Which engine takes selected frames of which model, by which route, and how the times arrive.

`python -m refocus_select.adapters.engines` prints the table of docs/engines.md. vLLM processes videos with code of its
own, so what its models are told may differ from transformers: the facts are those of its source, version 0.32.
`make test-engines` proves some of them in a running engine.
"""

from __future__ import annotations

from typing import Any

from refocus_select.errors import InputError

from .families import FAMILIES, Family, family_of
from .input_format import InputFormat

# How times reach a model that vLLM gives a video.
METADATA, WORDS, PICTURES = "metadata", "words", "pictures"

VLLM: dict[str, str] = {
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "cosmos3_edge"), METADATA),
    **dict.fromkeys(("gemma4", "gemma4_unified", "embedding_gemma2", "molmo2"), METADATA),
    **dict.fromkeys(("glm4v", "glm46v", "glm5_next", "glmga", "minimax_m3_vl", "nemotron_h_omni"), METADATA),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_omni_moe", "exaone4_5"), WORDS),
    **dict.fromkeys(("hyperclovax_vision_v2", "llava_onevision", "llava_next_video", "internvl"), WORDS),
    **dict.fromkeys(("minicpmv4_6", "minicpmv4_7", "dots3_note"), WORDS),
    "muse_glimmer": WORDS,  # it writes times of a constant rate
    "ernie4_5_vl_moe": WORDS,  # it draws times only where the processor says that it reads metadata
    # These read pictures there, but no video; Kimi wants "vision_chunk", which no request can name.
    **dict.fromkeys(("smolvlm", "cohere_compass", "kimi_k25"), PICTURES),
}


def vllm_route(family: Family) -> str | None:
    """How times reach this family in vLLM: `METADATA`, `WORDS` or `PICTURES`; None if vLLM has no model of it."""
    return next((VLLM[t] for t in family.model_types if t in VLLM), None)


def vllm_timestamps(model: Any, timestamps: str = "auto") -> str:
    """The `timestamps` setting for a model behind vLLM.

    Args:
        model: a processor, or a model type such as "qwen3_vl".
        timestamps: as the user set it.

    Raises:
        InputError: if vLLM gives this model no video.
    """
    family = family_of(model)
    route = vllm_route(family)
    if route == PICTURES:
        raise InputError(
            f"vLLM gives {family.name} no video; send pictures with their times: "
            "refocus_select.adapters.openai.image_messages(...)"
        )
    return "text" if timestamps == "auto" and route != METADATA else timestamps


def vllm_loader_format(model: str | None, timestamps: str = "auto", temporal_merge: str = "auto") -> InputFormat:
    """What a video loader of vLLM gives a model: it cannot write words into the prompt.

    Args:
        model: a model type such as "qwen3_vl".
        timestamps: "metadata" to do without words.
        temporal_merge: see `select_messages`.

    Raises:
        InputError: if no model is named, or its times would not arrive.
    """
    if not model:
        raise InputError(
            "the video loader must know the model, or distant frames would be merged and have a mean time: put "
            '"model": "qwen3_vl" (`model_type` in config.json) into the "video" of media_io_kwargs, in the request or '
            "in --media-io-kwargs of the server"
        )
    wanted = vllm_timestamps(model, timestamps)
    if wanted != METADATA and timestamps != "auto":
        raise InputError(f'timestamps={timestamps!r} cannot be done by a video loader; only "metadata" can')
    if wanted == "text":
        raise InputError(
            f"{family_of(model).name} is told the times of frames in words, which a video loader cannot write: build "
            "the request with refocus_select.adapters.openai.video_request or image_messages, or do without times by "
            '"timestamps": "metadata" in media_io_kwargs'
        )
    return InputFormat.of(model, METADATA, temporal_merge)


# -- the table ----------------------------------------------------------------------------------------

COLUMNS = (
    "model",
    "transformers, lmms-eval, VLMEvalKit: `with_frame_selection`",
    "vLLM offline: `vllm.generate_inputs`; vLLM server: `openai.video_request`",
    "vLLM server: loader `refocus_select`",
    "SGLang and any server: `openai.image_messages`",
)
_BY_METADATA, _BY_SENTENCE = "video, times by metadata", "video, times in a sentence"


def row(family: Family) -> tuple[str, ...]:
    """What arrives of a video for one family, by route: in the order of `COLUMNS`."""
    transformers = _BY_SENTENCE if family.text else _BY_METADATA
    route = vllm_route(family)
    vllm = {METADATA: _BY_METADATA, WORDS: _BY_SENTENCE, PICTURES: "refused: pictures only"}.get(
        str(route), "no model there"
    )
    loader = {METADATA: _BY_METADATA, WORDS: "refused: times are words", PICTURES: "refused: pictures only"}.get(
        str(route), "no model there"
    )
    return family.name, transformers, vllm, loader, "pictures, a time before each"


def table() -> str:
    """All families as a Markdown table."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(row(f) for f in FAMILIES)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    print(table())
