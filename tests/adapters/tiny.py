"""Real processor classes from small configurations, with byte-level tokenizers made by hand: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.installed import VERSION_5, has_type, needs

SIDE = 56  # pixels, the side of test pictures

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}"
    "{% if block['type'] == 'image' %}IMAGE{% elif block['type'] == 'video' %}VIDEO"
    "{% elif block['type'] == 'text' %}{{ block['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def template(video: str, image: str = "<image>") -> str:
    """A chat template in the style of ChatML with these placeholders."""
    return CHATML.replace("VIDEO", video).replace("IMAGE", image)


def tokenizer(*special: str, like: str = "Qwen2", **named: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: every byte is a token, every special word is one.

    Args:
        *special: special words.
        like: whose class it is of before transformers 5, where processors took those of their own models only.
        **named: special words that become attributes, e.g. `image_token="<image>"` gives `.image_token_id` too.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    words = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", *special, *named.values()]
    core.add_special_tokens(list(dict.fromkeys(words)))
    cls = PreTrainedTokenizerFast if VERSION_5 else getattr(transformers, f"{like}TokenizerFast")
    return cls(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        **({"extra_special_tokens": named} if named else {}),
    )


_QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _pixels(cls: Any, low: int, high: int, **more: Any) -> Any:
    return cls(size={"shortest_edge": low, "longest_edge": high}, **more)


def qwen2_vl(name: str = "Qwen2VLProcessor") -> Any:
    t = transformers
    return getattr(t, name)(
        image_processor=_pixels(t.Qwen2VLImageProcessor, 28 * 28, SIDE * SIDE),
        tokenizer=tokenizer(*_QWEN),
        video_processor=_pixels(t.Qwen2VLVideoProcessor, 28 * 28, SIDE * SIDE * 64),
        chat_template=template(_QWEN_VIDEO, _QWEN_IMAGE),
    )


def qwen2_5_vl() -> Any:
    return qwen2_vl("Qwen2_5_VLProcessor")


def qwen3_vl() -> Any:
    t = transformers
    return t.Qwen3VLProcessor(
        image_processor=_pixels(t.Qwen2VLImageProcessor, 32 * 32, 64 * 64, patch_size=16),
        tokenizer=tokenizer(*_QWEN),
        video_processor=_pixels(t.Qwen3VLVideoProcessor, 32 * 32, 64 * 64 * 64),
        chat_template=template(_QWEN_VIDEO, _QWEN_IMAGE),
    )


def lfm3_vl() -> Any:
    from transformers.models.lfm3_vl import Lfm3VlProcessor

    stock = qwen3_vl()
    return Lfm3VlProcessor(
        stock.image_processor, stock.tokenizer, stock.video_processor, chat_template=stock.chat_template
    )


def cohere_compass() -> Any:
    from transformers.models.cohere_compass import CohereCompassProcessor, CohereCompassVideoProcessor

    t = transformers
    words = ("<|IMAGE_PAD|>", "<|VIDEO_PAD|>", "<|VISION_START|>", "<|VISION_END|>")
    return CohereCompassProcessor(
        image_processor=_pixels(t.Qwen2VLImageProcessor, 32 * 32, 64 * 64, patch_size=16),
        tokenizer=tokenizer(*words),
        video_processor=_pixels(CohereCompassVideoProcessor, 32 * 32, 64 * 64 * 64),
        chat_template=template("<|VISION_START|><|VIDEO_PAD|><|VISION_END|>"),
    )


def cosmos3_edge() -> Any:
    from transformers.models.cosmos3_edge import Cosmos3EdgeProcessor, Cosmos3EdgeVideoProcessor

    stock = qwen3_vl()
    return Cosmos3EdgeProcessor(
        stock.image_processor,
        stock.tokenizer,
        _pixels(Cosmos3EdgeVideoProcessor, 32 * 32, 64 * 64 * 64),
        chat_template=stock.chat_template,
    )


def video_llama_3() -> Any:
    t = transformers
    return t.VideoLlama3Processor(
        image_processor=_pixels(t.VideoLlama3ImageProcessor, 28 * 28, SIDE * SIDE),
        tokenizer=tokenizer("<|image_pad|>", "<|video_pad|>"),
        video_processor=_pixels(t.VideoLlama3VideoProcessor, 28 * 28, SIDE * SIDE * 64),
        chat_template=template("<|video_pad|>", "<|image_pad|>"),
    )


def _glm(processor: str, images: str, videos: str) -> Any:
    words = (
        "<|image|>",
        "<|video|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
    )
    t = transformers
    return getattr(t, processor)(
        image_processor=_pixels(getattr(t, images), 28 * 28, SIDE * SIDE * 4),
        tokenizer=tokenizer(*words),
        video_processor=_pixels(getattr(t, videos), 28 * 28, SIDE * SIDE * 64),
        chat_template=template(
            "<|begin_of_video|><|video|><|end_of_video|>", "<|begin_of_image|><|image|><|end_of_image|>"
        ),
    )


def glm4v() -> Any:
    return _glm("Glm4vProcessor", "Glm4vImageProcessor", "Glm4vVideoProcessor")


def glm46v() -> Any:
    return _glm("Glm46VProcessor", "Glm46VImageProcessor", "Glm46VVideoProcessor")


def glm5_next() -> Any:
    return _glm("Glm5NextProcessor", "Glm5NextImageProcessor", "Glm5NextVideoProcessor")


def smolvlm() -> Any:
    t = transformers
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
    }
    words = ("<video>", "<end_of_utterance>", *[f"<row_{r}_col_{c}>" for r in range(1, 3) for c in range(1, 3)])
    return t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, do_image_splitting=False
        ),
        tokenizer=tokenizer(*words, **named),
        video_processor=t.SmolVLMVideoProcessor(
            size={"longest_edge": 64},
            max_image_size={"longest_edge": 64},
            num_frames=64,
            fps=1,
            video_sampling={"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 64}},
        ),
        image_seq_len=16,
        chat_template=template("<video>"),
    )


def internvl() -> Any:
    t = transformers
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    return t.InternVLProcessor(
        image_processor=t.GotOcr2ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer(**named),
        video_processor=t.InternVLVideoProcessor(size={"height": 28, "width": 28}),
        image_seq_length=4,
        chat_template=template("<video>\n", "<IMG_CONTEXT>\n"),
    )


def llava_onevision() -> Any:
    t = transformers
    side = {"height": 28, "width": 28}
    return t.LlavaOnevisionProcessor(
        image_processor=t.LlavaOnevisionImageProcessor(size=side, image_grid_pinpoints=[[28, 28], [56, 56]]),
        tokenizer=tokenizer("<image>", "<video>"),
        video_processor=t.LlavaOnevisionVideoProcessor(size=side),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template("<video>\n", "<image>\n"),
    )


def llava_next_video() -> Any:
    t = transformers
    side = {"shortest_edge": 28}
    crop = {"height": 28, "width": 28}
    return t.LlavaNextVideoProcessor(
        image_processor=t.LlavaNextImageProcessor(size=side, crop_size=crop, image_grid_pinpoints=[[28, 28], [56, 56]]),
        video_processor=t.LlavaNextVideoVideoProcessor(size=side, crop_size=crop),
        tokenizer=tokenizer("<image>", "<video>", like="Llama"),
        patch_size=7,
        vision_feature_select_strategy="default",
        chat_template=template("<video>\n", "<image>\n"),
    )


def video_llava() -> Any:
    t = transformers
    side = {"shortest_edge": 28}
    crop = {"height": 28, "width": 28}
    return t.VideoLlavaProcessor(
        image_processor=t.VideoLlavaImageProcessor(size=side, crop_size=crop),
        video_processor=t.VideoLlavaVideoProcessor(size=side, crop_size=crop),
        tokenizer=tokenizer("<image>", "<video>"),
        patch_size=14,
        chat_template=template("<video>\n", "<image>\n"),
    )


_GEMMA = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def gemma4() -> Any:
    t = transformers
    return t.Gemma4Processor(
        feature_extractor=t.Gemma4AudioFeatureExtractor(),
        image_processor=t.Gemma4ImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70),
        tokenizer=tokenizer("<|video|>", **_GEMMA),
        video_processor=t.Gemma4VideoProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70),
        chat_template=template("<|video|>", "<|image|>"),
    )


def perception_lm() -> Any:
    t = transformers
    return t.PerceptionLMProcessor(
        image_processor=getattr(t, f"PerceptionLMImageProcessor{'' if VERSION_5 else 'Fast'}")(
            tile_size=28, max_num_tiles=1
        ),
        video_processor=t.PerceptionLMVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer(image_token="<|image|>", video_token="<|video|>"),
        patch_size=7,
        chat_template=template("<|video|>", "<|image|>"),
    )


def gemma4_unified() -> Any:
    from transformers.models.gemma4_unified import (
        Gemma4UnifiedAudioFeatureExtractor,
        Gemma4UnifiedImageProcessor,
        Gemma4UnifiedProcessor,
        Gemma4UnifiedVideoProcessor,
    )

    return Gemma4UnifiedProcessor(
        feature_extractor=Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=Gemma4UnifiedImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70),
        tokenizer=tokenizer("<|video|>", **_GEMMA),
        video_processor=Gemma4UnifiedVideoProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70),
        chat_template=template("<|video|>", "<|image|>"),
    )


def embedding_gemma2() -> Any:
    from transformers.models.embedding_gemma2 import EmbeddingGemma2Processor, EmbeddingGemma2VideoProcessor

    stock = gemma4()
    return EmbeddingGemma2Processor(
        feature_extractor=stock.feature_extractor,
        image_processor=stock.image_processor,
        tokenizer=stock.tokenizer,
        video_processor=EmbeddingGemma2VideoProcessor(
            patch_size=4, pooling_kernel_size=2, max_soft_tokens=70, add_timestamps=True
        ),
        chat_template=stock.chat_template,
    )


def molmo2() -> Any:
    from transformers.models.molmo2 import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

    words = ("<|image|>", "<|video|>", "<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>")
    side = {"height": 42, "width": 42}
    return Molmo2Processor(
        image_processor=Molmo2ImageProcessor(size=side, max_crops=1),
        video_processor=Molmo2VideoProcessor(size=side),
        tokenizer=tokenizer(*words, "<im_end>", "<frame_end>", "<im_low>"),
        chat_template=template("<|video|>", "<|image|>"),
    )


def minimax_m3_vl() -> Any:
    from transformers.models.minimax_m3_vl import (
        MiniMaxM3VLImageProcessor,
        MiniMaxM3VLProcessor,
        MiniMaxM3VLVideoProcessor,
    )

    words = ("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
    return MiniMaxM3VLProcessor(
        image_processor=MiniMaxM3VLImageProcessor(),
        tokenizer=tokenizer(*words),
        video_processor=MiniMaxM3VLVideoProcessor(),
        chat_template=template("]<]video[>[", "]<]image[>["),
    )


_MUSE = (
    "<|patch|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|video|>",
    "<|vid_frame_separator|>",
    "<|vid_start|>",
    "<|vid_end|>",
)


def muse_glimmer() -> Any:
    from transformers.models.muse_glimmer import (
        MuseGlimmerImageProcessor,
        MuseGlimmerProcessor,
        MuseGlimmerVideoProcessor,
    )

    return MuseGlimmerProcessor(
        image_processor=MuseGlimmerImageProcessor(),
        video_processor=MuseGlimmerVideoProcessor(max_video_frame_tokens=4),
        tokenizer=tokenizer(*_MUSE),
        chat_template=template("<|video|>", "<|patch|>"),
    )


def muse_spark() -> Any:
    from transformers.models.muse_spark import MuseSparkProcessor

    stock = muse_glimmer()
    words = ("<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>")
    return MuseSparkProcessor(
        image_processor=stock.image_processor,
        video_processor=stock.video_processor,
        tokenizer=tokenizer(*_MUSE, *words),
        feature_extractor=transformers.WhisperFeatureExtractor(),
        chat_template=stock.chat_template,
    )


def kimi_k25() -> Any:
    from transformers.models.kimi_k25 import Kimi_K25ImageProcessor, Kimi_K25Processor, Kimi_K25VideoProcessor

    words = ("<|media_pad|>", "<|kimi_k25_video_placeholder|>", "<|media_begin|>", "<|media_content|>", "<|media_end|>")
    return Kimi_K25Processor(
        image_processor=Kimi_K25ImageProcessor(),
        tokenizer=tokenizer(*words),
        video_processor=Kimi_K25VideoProcessor(),
        chat_template=template("<|kimi_k25_video_placeholder|>", "<|media_pad|>"),
    )


def ernie4_5_vl_moe() -> Any:
    from transformers.models.ernie4_5_vl_moe import (
        Ernie4_5_VLMoeImageProcessor,
        Ernie4_5_VLMoeProcessor,
        Ernie4_5_VLMoeVideoProcessor,
    )

    named = {
        "image_token": "<|IMAGE_PLACEHOLDER|>",
        "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>",
        "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>",
        "video_end_token": "<|VIDEO_END|>",
    }
    return Ernie4_5_VLMoeProcessor(
        image_processor=_pixels(Ernie4_5_VLMoeImageProcessor, 28 * 28, SIDE * SIDE),
        tokenizer=tokenizer(**named),
        video_processor=_pixels(Ernie4_5_VLMoeVideoProcessor, SIDE * SIDE, 4 * SIDE * SIDE, font=_font()),
        chat_template=template("<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>"),
    )


def _font() -> str:
    """The path of a font; matplotlib brings one."""
    from matplotlib import font_manager

    return font_manager.findfont("DejaVu Sans")


def exaone4_5() -> Any:
    from transformers.models.exaone4_5 import Exaone4_5_Processor

    stock = qwen2_vl()
    return Exaone4_5_Processor(
        stock.image_processor, stock.tokenizer, stock.video_processor, chat_template=stock.chat_template
    )


def hy_v4_vl() -> Any:
    from transformers.models.hy_v4_vl import HYV4VLImageProcessor, HYV4VLProcessor, HYV4VLVideoProcessor

    return HYV4VLProcessor(
        image_processor=_pixels(HYV4VLImageProcessor, 32 * 32, 64 * 64),
        tokenizer=tokenizer(*_QWEN),
        video_processor=_pixels(HYV4VLVideoProcessor, 32 * 32, 64 * 64 * 64),
        chat_template=template(_QWEN_VIDEO, _QWEN_IMAGE),
    )


def dots3_note() -> Any:
    from transformers.models.dots3_note import Dots3NoteFeatureExtractor, Dots3NoteProcessor

    stock = qwen3_vl()
    return Dots3NoteProcessor(
        image_processor=stock.image_processor,
        tokenizer=tokenizer("<|imgpad|>", "<|video_pad|>", "<|audio_comp_pad|>"),
        video_processor=stock.video_processor,
        feature_extractor=Dots3NoteFeatureExtractor(),
        chat_template=template("<|video_pad|>", "<|imgpad|>"),
    )


def hyperclovax_vision_v2() -> Any:
    from transformers.models.hyperclovax_vision_v2 import HyperCLOVAXVisionV2Processor

    stock = qwen2_vl()
    return HyperCLOVAXVisionV2Processor(
        stock.image_processor, stock.tokenizer, stock.video_processor, chat_template=stock.chat_template
    )


_MINICPM = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpm(model_type: str, processor: str, prefix: str) -> Any:
    from importlib import import_module

    room = import_module(f"transformers.models.{model_type}")
    home = import_module(f"transformers.models.{'minicpmv4_6' if model_type == 'minicpmv4_7' else model_type}")
    small = {"scale_resolution": 56, "max_slice_nums": 1, "slice_mode": False}
    return getattr(room, processor)(
        image_processor=getattr(home, f"{prefix}ImageProcessor")(**small),
        video_processor=getattr(home, f"{prefix}VideoProcessor")(**small),
        tokenizer=tokenizer(**_MINICPM),
        chat_template=template("<|video_pad|>\n", "<|image_pad|>\n"),
    )


def minicpmv4_6() -> Any:
    return _minicpm("minicpmv4_6", "MiniCPMV4_6Processor", "MiniCPMV4_6")


def minicpmv4_7() -> Any:
    return _minicpm("minicpmv4_7", "MiniCPMV4_7Processor", "MiniCPMV4_6")


def minicpm_ocr() -> Any:
    return _minicpm("minicpm_ocr", "MiniCPMOcrProcessor", "MiniCPMOcr")


def nemotron_h_omni() -> Any:
    from transformers.models.nemotron_h_omni import (
        NemotronH_Omni_Reasoning_V3ImageProcessor,
        NemotronH_Omni_Reasoning_V3Processor,
        NemotronH_Omni_Reasoning_V3VideoProcessor,
    )

    norm = {"norm_mean": [0.5] * 3, "norm_std": [0.5] * 3}
    return NemotronH_Omni_Reasoning_V3Processor(
        image_processor=NemotronH_Omni_Reasoning_V3ImageProcessor(**norm),
        video_processor=NemotronH_Omni_Reasoning_V3VideoProcessor(video_target_num_patches=16, **norm),
        tokenizer=tokenizer("<image>", "<video>", "<so_embedding>", "<so_start>", "<so_end>", "<img>", "</img>"),
        feature_extractor=transformers.WhisperFeatureExtractor(),  # hears nothing here; Parakeet's may need librosa
        chat_template=template("<video>", "<image>"),
    )


_OMNI = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def _omni(name: str) -> Any:
    stock = qwen2_vl()
    return getattr(transformers, name)(
        image_processor=stock.image_processor,
        video_processor=stock.video_processor,
        feature_extractor=transformers.WhisperFeatureExtractor(chunk_length=30),
        tokenizer=tokenizer(**_OMNI),
        chat_template=template("<|vision_bos|><|VIDEO|><|vision_eos|>", "<|vision_bos|><|IMAGE|><|vision_eos|>"),
    )


def qwen2_5_omni() -> Any:
    return _omni("Qwen2_5OmniProcessor")


def qwen3_omni_moe() -> Any:
    return _omni("Qwen3OmniMoeProcessor")


def instructblipvideo() -> Any:
    t = transformers
    return t.InstructBlipVideoProcessor(
        video_processor=t.InstructBlipVideoVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer("<video>"),
        qformer_tokenizer=tokenizer(),
        num_query_tokens=4,
    )


# Those that the installed transformers has.
BUILDERS: dict[str, Callable[[], Any]] = {
    f.__name__: f
    for f in (
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        lfm3_vl,
        cohere_compass,
        cosmos3_edge,
        video_llama_3,
        glm4v,
        glm46v,
        glm5_next,
        smolvlm,
        internvl,
        llava_onevision,
        llava_next_video,
        video_llava,
        gemma4,
        perception_lm,
        gemma4_unified,
        embedding_gemma2,
        molmo2,
        minimax_m3_vl,
        muse_glimmer,
        muse_spark,
        kimi_k25,
        ernie4_5_vl_moe,
        exaone4_5,
        hy_v4_vl,
        dots3_note,
        hyperclovax_vision_v2,
        minicpmv4_6,
        minicpmv4_7,
        minicpm_ocr,
        nemotron_h_omni,
        qwen2_5_omni,
        qwen3_omni_moe,
        instructblipvideo,
    )
    if has_type(f.__name__)
}


def build(model_type: str) -> Any:
    """The processor of a model type."""
    needs(has_type(model_type), f"has no {model_type}")
    needs(VERSION_5 or model_type != "video_llava", "takes no chats for Video-LLaVA")
    return BUILDERS[model_type]()
