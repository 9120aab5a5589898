"""Tiny models with random weights that fit the processors of `tiny`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as t
from packaging.version import Version

from tests.installed import TRANSFORMERS, VERSION_5, has_type, needs


def _text(processor: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,  # a head of 32 is the smallest that vLLM's attention on a CPU knows
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "pad_token_id": processor.tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }


def _token(processor: Any, word: str) -> int:
    return int(processor.tokenizer.convert_tokens_to_ids(word))


def _qwen_ids(processor: Any) -> dict[str, int]:
    return {
        "image_token_id": _token(processor, "<|image_pad|>"),
        "video_token_id": _token(processor, "<|video_pad|>"),
        "vision_start_token_id": _token(processor, "<|vision_start|>"),
        "vision_end_token_id": _token(processor, "<|vision_end|>"),
    }


def _rope(section: list[int], partial: float | None = None) -> dict[str, Any]:
    """Positions in three dimensions, as the installed transformers writes them."""
    how = {"rope_type": "default", "mrope_section": section}
    more = {"rope_theta": 10000.0, **({} if partial is None else {"partial_rotary_factor": partial})}
    return {"rope_parameters": {**how, **more}} if VERSION_5 else {"rope_scaling": how, **more}


_MROPE = _rope([4, 6, 6])


def qwen2_vl(processor: Any) -> Any:
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    text = _text(processor, **_MROPE)
    return t.Qwen2VLForConditionalGeneration(
        t.Qwen2VLConfig(text_config=text, vision_config=vision, **_qwen_ids(processor))
    )


def qwen2_5_vl(processor: Any) -> Any:
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
        "tokens_per_second": 2,
        "window_size": 56,
    }
    text = _text(processor, **_MROPE)
    return t.Qwen2_5_VLForConditionalGeneration(
        t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_qwen_ids(processor))
    )


def qwen3_vl(processor: Any) -> Any:
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    text = _text(processor, head_dim=32, **_MROPE)
    return t.Qwen3VLForConditionalGeneration(
        t.Qwen3VLConfig(text_config=text, vision_config=vision, **_qwen_ids(processor))
    )


def _clip(**more: Any) -> Any:
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def llava_onevision(processor: Any) -> Any:
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**_clip(image_size=28, patch_size=14, vision_use_head=False)),
        text_config=t.Qwen2Config(**_text(processor)),
        image_token_index=_token(processor, "<image>"),
        video_token_index=_token(processor, "<video>"),
        image_grid_pinpoints=[[28, 28], [56, 56]],
        vision_feature_select_strategy="full",
    )
    return t.LlavaOnevisionForConditionalGeneration(config)


def llava_next_video(processor: Any) -> Any:
    config = t.LlavaNextVideoConfig(
        vision_config=t.CLIPVisionConfig(**_clip(image_size=28, patch_size=7)),
        text_config=t.LlamaConfig(**_text(processor)),
        image_token_index=_token(processor, "<image>"),
        video_token_index=_token(processor, "<video>"),
        image_grid_pinpoints=[[28, 28], [56, 56]],
        image_seq_length=16,
    )
    return t.LlavaNextVideoForConditionalGeneration(config)


def internvl(processor: Any) -> Any:
    config = t.InternVLConfig(
        vision_config=_clip(image_size=[28, 28], patch_size=[7, 7]),
        text_config=t.Qwen2Config(**_text(processor)),
        image_token_id=_token(processor, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return t.InternVLForConditionalGeneration(config)


def video_llama_3(processor: Any) -> Any:
    config = t.VideoLlama3Config(
        vision_config=_clip(patch_size=14),
        text_config=t.Qwen2Config(**_text(processor)),
        image_token_id=_token(processor, "<|image_pad|>"),
        video_token_id=_token(processor, "<|video_pad|>"),
    )
    return t.VideoLlama3ForConditionalGeneration(config)


def smolvlm(processor: Any) -> Any:
    config = t.SmolVLMConfig(
        vision_config=_clip(image_size=64, patch_size=8),
        text_config=t.LlamaConfig(**_text(processor)),
        image_token_id=_token(processor, "<image>"),
        scale_factor=2,
    )
    return t.SmolVLMForConditionalGeneration(config)


def gemma4(processor: Any) -> Any:
    ids = {
        "image_token_id": _token(processor, "<|image|>"),
        "video_token_id": _token(processor, "<|video|>"),
        "audio_token_id": _token(processor, "<|audio|>"),
        "boi_token_id": _token(processor, "<|image>"),
        "eoi_token_id": _token(processor, "<image|>"),
    }
    vision = {**_clip(), "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 2}
    text = _text(
        processor,
        head_dim=32,
        global_head_dim=32,
        layer_types=["full_attention"],
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=len(processor.tokenizer),
        num_kv_shared_layers=0,
        num_global_key_value_heads=1,
    )
    return t.Gemma4ForConditionalGeneration(
        t.Gemma4Config(text_config=text, vision_config=vision, audio_config=None, **ids)
    )


def glm4v(processor: Any) -> Any:
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "image_size": 56,
    }
    ids = {
        "image_token_id": _token(processor, "<|image|>"),
        "video_token_id": _token(processor, "<|video|>"),
        "image_start_token_id": _token(processor, "<|begin_of_image|>"),
        "image_end_token_id": _token(processor, "<|end_of_image|>"),
        "video_start_token_id": _token(processor, "<|begin_of_video|>"),
        "video_end_token_id": _token(processor, "<|end_of_video|>"),
    }
    text = _text(processor, **_rope([8, 4, 4], partial=1.0))
    return t.Glm4vForConditionalGeneration(t.Glm4vConfig(text_config=text, vision_config=vision, **ids))


MODELS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        llava_onevision,
        llava_next_video,
        internvl,
        video_llama_3,
        smolvlm,
        gemma4,
        glm4v,
    )
}


def check(model_type: str) -> None:
    """Skip the test if the installed transformers has no such model that can be shown a video."""
    needs(has_type(model_type), f"has no {model_type}")
    needs(model_type != "gemma4" or Version("5.21") <= TRANSFORMERS, "fails at any video for Gemma 4")


def build(model_type: str, processor: Any) -> Any:
    """A model in evaluation mode, the same one each time."""
    check(model_type)
    torch.manual_seed(0)
    return MODELS[model_type](processor).eval()
