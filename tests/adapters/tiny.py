"""Real processor classes from small configurations, with byte-level tokenizers made by hand: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: every byte is a token, every special word is one.

    Args:
        *special: special words.
        **named: special words that become attributes, e.g. `image_token="<image>"` gives `.image_token_id` too.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    words = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", *special, *named.values()]
    core.add_special_tokens(list(dict.fromkeys(words)))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named or None,
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
        image_seq_len=4,
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
        tokenizer=tokenizer("<image>", "<video>"),
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
        image_processor=t.PerceptionLMImageProcessorFast(tile_size=28, max_num_tiles=1),
        video_processor=t.PerceptionLMVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer(image_token="<|image|>", video_token="<|video|>"),
        patch_size=7,
        chat_template=template("<|video|>", "<|image|>"),
    )


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
    )
}
