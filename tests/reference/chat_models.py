"""Tiny chat models with random weights, beyond those of `tests.adapters`, and weights that make frames matter."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

from tests.adapters import models, tiny


def llava_processor() -> Any:
    """Images only, as LLaVA 1.5 and LLaVA-Interleave."""
    side = {"height": 28, "width": 28}
    return t.LlavaProcessor(
        image_processor=t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=side),
        tokenizer=tiny.tokenizer("<image>"),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tiny.template("<video>", "<image>\n"),
    )


def llava(processor: Any) -> Any:
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**models._clip(image_size=28, patch_size=7)),
        text_config=t.Qwen2Config(**models._text(processor)),
        image_token_index=models._token(processor, "<image>"),
        image_seq_length=16,
    )
    return t.LlavaForConditionalGeneration(config)


def _qwen3_vision() -> dict[str, Any]:
    return {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
    }


def qwen3_vl_moe(processor: Any) -> Any:
    text = models._text(
        processor,
        head_dim=16,
        **models._MROPE,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=2,
    )
    vision = {**_qwen3_vision(), "deepstack_visual_indexes": [0]}
    return t.Qwen3VLMoeForConditionalGeneration(
        t.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **models._qwen_ids(processor))
    )


def qwen3_5(processor: Any) -> Any:
    text = models._text(
        processor,
        head_dim=16,
        **models._rope([2, 3, 3], partial=1.0),
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    )
    return t.Qwen3_5ForConditionalGeneration(
        t.Qwen3_5Config(text_config=text, vision_config=_qwen3_vision(), **models._qwen_ids(processor))
    )


def qwen3_5_moe(processor: Any) -> Any:
    text = models._text(
        processor,
        head_dim=16,
        **models._rope([2, 3, 3], partial=1.0),
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
    )
    return t.Qwen3_5MoeForConditionalGeneration(
        t.Qwen3_5MoeConfig(text_config=text, vision_config=_qwen3_vision(), **models._qwen_ids(processor))
    )


def glm46v(processor: Any) -> Any:
    stock = models.glm4v(processor).config
    config = t.Glm46VConfig(**{k: v for k, v in stock.to_dict().items() if k not in ("model_type", "architectures")})
    return t.Glm46VForConditionalGeneration(config)


PROCESSORS = {**tiny.BUILDERS, "llava": llava_processor, "qwen3_vl_moe": tiny.qwen3_vl, "qwen3_5": tiny.qwen3_vl}
PROCESSORS["qwen3_5_moe"] = tiny.qwen3_vl
MODELS = {**models.MODELS, **{f.__name__: f for f in (llava, qwen3_vl_moe, qwen3_5, qwen3_5_moe, glm46v)}}


def build(model_type: str) -> tuple[Any, Any]:
    """Model and processor of a family; the model's weights are large enough for frames to change its answers."""
    models.check(model_type)
    torch.manual_seed(0)
    processor = PROCESSORS[model_type]()
    model = MODELS[model_type](processor).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "norm" not in name:
                fan_in = weight[0].numel()
                spread = 1.0 if "embed_tokens" in name else 1.5 / fan_in**0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    return model, processor
