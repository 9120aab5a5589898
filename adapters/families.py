"""What each video chat family of transformers understands of time, and what is done about it.

`python -m refocus_select.adapters.families` prints the table as Markdown. The facts are those of transformers 5.24;
a test walks the installed `VIDEO_PROCESSOR_MAPPING_NAMES` and fails when a model type is missing here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

ROUTES = {
    "metadata": "the processor writes the time of every frame from the metadata",
    "pairs": "the processor writes one time per group of merged frames from the metadata",
    "drawn": "the processor draws the time on the pictures from the metadata",
    "constant": "the model assumes constant spacing",
    "none": "nothing tells the model the times",
}


@dataclass(frozen=True)
class Family:
    """How time reaches one family of models, and how selected frames are handed to it.

    Attributes:
        name: for people.
        model_types: `config.model_type` values.
        processors: names of processor classes.
        route: how time reaches the model, a key of `ROUTES`.
        sees: what the model is told about a frame at 3.367 s.
        text: True if a sentence with the times is added to the prompt by default.
        merge: frames that the vision encoder merges into one grid, unless the video processor says otherwise.
        numbered: the prompt numbers the frames ("Frame1:"), and so does the added sentence.
        equal_frames: all videos of a batch need the same number of frames.
        fixed_frames: the only number of frames that the model accepts.
        one_video: at most one video per call or prompt.
        metadata_object: metadata is handed over as one object instead of a list.
        return_metadata: metadata is asked back, since some processors write times (or work at all) only then.
        spacing_from_fps: the spacing is computed from the `fps` argument (Omni; Qwen2.5-VL in transformers 4).
        takes_metadata: False for processors that take neither `video_metadata` nor `do_sample_frames`.
        note: what a user should know.
    """

    name: str
    model_types: tuple[str, ...]
    processors: tuple[str, ...]
    route: str
    sees: str
    text: bool = False
    merge: int = 1
    numbered: bool = False
    equal_frames: bool = False
    fixed_frames: int | None = None
    one_video: bool = False
    metadata_object: bool = False
    return_metadata: bool = False
    spacing_from_fps: bool = False
    takes_metadata: bool = True
    note: str = ""

    @property
    def action(self) -> str:
        """What the adapters do by default, in words."""
        steps = ["times added as text"] if self.text else []
        if self.route in ("metadata", "pairs", "drawn"):
            steps.append("millisecond metadata")
        if self.merge > 1:
            steps.append(f"frames within a second share a group, all others are given {self.merge} times")
        if self.spacing_from_fps:
            steps.append("mean spacing")
        if self.equal_frames:
            steps.append("equal K in a batch")
        return "; ".join(steps)


# What chat templates write around a video token; added text belongs outside.
WRAPPERS = (
    ("<|vision_start|>", "<|vision_end|>"),
    ("<|vision_bos|>", "<|vision_eos|>"),
    ("<|VISION_START|>", "<|VISION_END|>"),
    ("<|begin_of_video|>", "<|end_of_video|>"),
    ("<|VIDEO_START|>", "<|VIDEO_END|>"),
    ("<vision>", "</vision>"),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        "Qwen3-VL, Qwen3.5, Qwen4",
        ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp"),
        ("Qwen3VLProcessor",),
        "pairs",
        "<3.4 seconds>",
        merge=2,
        note="exact to 0.1 s with duplication; undoubled pairs get their mean time; one frame alone is refused by the "
        "stock processor and works here",
    ),
    Family(
        "LFM3-VL",
        ("lfm3_vl",),
        ("Lfm3VlProcessor",),
        "pairs",
        "<3.4 seconds>",
        merge=2,
        note="as Qwen3-VL",
    ),
    Family(
        "Cohere Compass",
        ("cohere_compass",),
        ("CohereCompassProcessor",),
        "pairs",
        "<3.4 seconds>",
        merge=2,
        note="as Qwen3-VL",
    ),
    Family(
        "Cosmos 3 Edge",
        ("cosmos3_edge",),
        ("Cosmos3EdgeProcessor",),
        "metadata",
        "<3.4 seconds>",
        return_metadata=True,
        note="the stock processor fails without return_metadata=True",
    ),
    Family(
        "Cosmos 3 Omni",
        ("cosmos3_omni",),
        (),
        "pairs",
        "<3.4 seconds>",
        merge=2,
        note="transformers maps no processor of its own to it; checkpoints that name Qwen3VLProcessor are handled as "
        "Qwen3-VL",
    ),
    Family(
        "Gemma 4",
        ("gemma4", "gemma4_unified"),
        ("Gemma4Processor", "Gemma4UnifiedProcessor"),
        "metadata",
        "00:03",
        note="exact to 1 s",
    ),
    Family(
        "EmbeddingGemma 2",
        ("embedding_gemma2",),
        ("EmbeddingGemma2Processor",),
        "metadata",
        "00:03",
        note="an embedding model: times are written only if its video processor has add_timestamps=True",
    ),
    Family(
        "Molmo 2",
        ("molmo2",),
        ("Molmo2Processor",),
        "metadata",
        "3.4",
        one_video=True,
        note="one video per prompt",
    ),
    Family(
        "VideoLLaMA 3",
        ("video_llama_3",),
        ("VideoLlama3Processor",),
        "metadata",
        "Time 3.4s:",
        note="exact to 0.1 s, frames are not merged",
    ),
    Family(
        "SmolVLM 2",
        ("smolvlm",),
        ("SmolVLMProcessor",),
        "metadata",
        "Frame from 00:03:",
        equal_frames=True,
        note="exact to 1 s; needs num2words",
    ),
    Family(
        "GLM-4V",
        ("glm4v",),
        ("Glm4vProcessor",),
        "pairs",
        "3",
        merge=2,
        note="exact to 1 s with duplication; else the first frame of each pair",
    ),
    Family(
        "GLM-4.6V, GLM-5",
        ("glm46v", "glm5_next"),
        ("Glm46VProcessor", "Glm5NextProcessor"),
        "pairs",
        "3.4 seconds",
        merge=2,
        note="exact to 0.1 s with duplication",
    ),
    Family(
        "GLM-GA",
        ("glmga",),
        (),
        "pairs",
        "3.4 seconds",
        merge=2,
        note="transformers maps no processor of its own to it; checkpoints that name Glm46VProcessor are handled as "
        "GLM-4.6V",
    ),
    Family(
        "MiniMax-M3-VL",
        ("minimax_m3_vl",),
        ("MiniMaxM3VLProcessor",),
        "pairs",
        "]<]3.4 seconds[>[",
        merge=2,
        note="exact to 0.1 s with duplication; as with the stock processor, frames that do not fit its 28-pixel grid "
        "need do_resize=True",
    ),
    Family(
        "Muse Glimmer, Muse Spark",
        ("muse_glimmer", "muse_spark"),
        ("MuseGlimmerProcessor", "MuseSparkProcessor"),
        "pairs",
        "Time: 3.4s",
        merge=2,
        return_metadata=True,
        note="the stock processor fails without return_metadata=True",
    ),
    Family(
        "Kimi K2.5",
        ("kimi_k25",),
        ("Kimi_K25Processor",),
        "pairs",
        "00:00:03.366",
        merge=4,
        note="one time per 4 frames",
    ),
    Family(
        "ERNIE 4.5 VL",
        ("ernie4_5_vl_moe",),
        ("Ernie4_5_VLMoeProcessor",),
        "drawn",
        "drawn on the frame",
        merge=2,
        note="needs the font file that comes with the checkpoint",
    ),
    Family(
        "Nemotron Omni",
        ("nemotron_h_omni",),
        ("NemotronH_Omni_Reasoning_V3Processor",),
        "metadata",
        "Frame 3 sampled at 3.37 seconds",
        merge=2,
        one_video=True,
        metadata_object=True,
        note="one video per call",
    ),
    Family(
        "Qwen2.5-VL",
        ("qwen2_5_vl",),
        ("Qwen2_5_VLProcessor",),
        "constant",
        "second_per_grid_ts, the mean",
        text=True,
        merge=2,
        spacing_from_fps=True,
        note="positions know only the mean spacing; exact positions: qwen2_5_vl_position_ids; one mini-video per "
        'frame: timestamps="interleave"',
    ),
    Family(
        "Qwen2.5-Omni, Qwen3-Omni",
        ("qwen2_5_omni", "qwen3_omni_moe"),
        ("Qwen2_5OmniProcessor", "Qwen3OmniMoeProcessor"),
        "constant",
        "video_second_per_grid, the mean",
        text=True,
        merge=2,
        spacing_from_fps=True,
        note="with load_audio_from_video the sound of the whole video is interleaved at the mean spacing",
    ),
    Family("Qwen2-VL", ("qwen2_vl",), ("Qwen2VLProcessor",), "none", "", text=True, merge=2),
    Family(
        "EXAONE 4.5",
        ("exaone4_5",),
        ("Exaone4_5_Processor",),
        "none",
        "",
        text=True,
        merge=2,
    ),
    Family("Hunyuan V4 VL", ("hy_v4_vl",), ("HYV4VLProcessor",), "none", "", text=True),
    Family("dots3 note", ("dots3_note",), ("Dots3NoteProcessor",), "none", "", text=True, merge=2),
    Family(
        "HyperCLOVA X Vision v2",
        ("hyperclovax_vision_v2",),
        ("HyperCLOVAXVisionV2Processor",),
        "none",
        "",
        text=True,
        merge=2,
        note="the stock prompt has the duration only",
    ),
    Family(
        "LLaVA-OneVision",
        ("llava_onevision",),
        ("LlavaOnevisionProcessor",),
        "none",
        "",
        text=True,
        equal_frames=True,
        note="also checkpoints of LLaVA-Video that were converted to it",
    ),
    Family(
        "LLaVA-NeXT-Video",
        ("llava_next_video",),
        ("LlavaNextVideoProcessor",),
        "none",
        "",
        text=True,
        equal_frames=True,
    ),
    Family(
        "Video-LLaVA",
        ("video_llava",),
        ("VideoLlavaProcessor",),
        "none",
        "",
        text=True,
        equal_frames=True,
        note="trained with 8 frames",
    ),
    Family(
        "InternVL",
        ("internvl",),
        ("InternVLProcessor",),
        "none",
        "Frame3:",
        text=True,
        numbered=True,
        equal_frames=True,
    ),
    Family("PerceptionLM", ("perception_lm",), ("PerceptionLMProcessor",), "none", "", text=True, equal_frames=True),
    Family(
        "MiniCPM-V 4.6, 4.7, MiniCPM-OCR",
        ("minicpmv4_6", "minicpmv4_7", "minicpm_ocr"),
        ("MiniCPMV4_6Processor", "MiniCPMV4_7Processor", "MiniCPMOcrProcessor"),
        "none",
        "",
        text=True,
    ),
    Family(
        "InstructBLIP-Video",
        ("instructblipvideo",),
        ("InstructBlipVideoProcessor",),
        "none",
        "",
        text=True,
        equal_frames=True,
        fixed_frames=4,
        takes_metadata=False,
        note="exactly 4 frames, given as images=",
    ),
)

# Model types that transformers maps to a video processor, but that are not video chat models.
NOT_CHAT: dict[str, str] = {
    "instructblip": "reads images (InstructBlipProcessor)",
    "pe_audio_video": "embeds sound and video",
    "pe_video": "embeds video",
    "sam2_video": "segments",
    "timesformer": "classifies",
    "videomae": "classifies",
    "videomt": "segments",
    "videoprism": "embeds video and text",
    "vivit": "classifies",
    "vjepa2": "embeds video",
}

UNKNOWN = Family(
    "unknown",
    (),
    (),
    "none",
    "",
    text=True,
    return_metadata=True,
    note="times are added as text, and as metadata where the processor takes it",
)

_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}
_BY_PROCESSOR = {name: family for family in FAMILIES for name in family.processors}
_warned: set[str] = set()


def family_of(model: Any) -> Family:
    """The family of a processor, a processor class, or a model type; `UNKNOWN` with one warning if there is none.

    Args:
        model: an instance or class of a processor, or a `config.model_type` such as "qwen2_5_vl".
    """
    if isinstance(model, Family):
        return model
    if isinstance(model, str):
        found, name = _BY_TYPE.get(model) or _BY_PROCESSOR.get(model), model
    else:
        cls = model if isinstance(model, type) else type(model)
        found, name = (
            next((_BY_PROCESSOR[c.__name__] for c in cls.__mro__ if c.__name__ in _BY_PROCESSOR), None),
            cls.__name__,
        )
    if found is not None:
        return found
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "%s is not in the table of video families: the times of the frames are added to the prompt as text "
            "(python -m refocus_select.adapters.families prints the table)",
            name,
        )
    return UNKNOWN


def merge_size(processor: Any, family: Family) -> int:
    """How many frames this processor's model merges into one grid."""
    video_processor = getattr(processor, "video_processor", None)
    for owner, name in ((processor, "video_temporal_patch_dim"), (video_processor, "temporal_patch_size")):
        size = getattr(owner, name, None)
        if isinstance(size, int) and size >= 1:
            return size
    return family.merge


def table(families: Iterable[Family] = FAMILIES) -> str:
    """The families as a Markdown table."""
    lines = [
        "| family | model types | how time arrives | a frame at 3.367 s | what we do | note |",
        "|---|---|---|---|---|---|",
    ]
    for f in families:
        types = ", ".join(f"`{t}`" for t in f.model_types)
        sees = f"`{f.sees}`" if f.sees else "–"
        lines.append(f"| {f.name} | {types} | {ROUTES[f.route]} | {sees} | {f.action} | {f.note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
