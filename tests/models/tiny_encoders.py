"""Real CLIP and SigLIP models of a few thousand weights, saved as their repositories are, with words as tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

WORDS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    *["a", "b", "c", "d", "e", "f", "g", "light", "dark", "who", "scores", "first"],
]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SMALL, "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def words_tokenizer(folder: Path, *, length: int, begin: bool) -> None:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>" if begin else "$A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=length,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    ).save_pretrained(folder)


def tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """CLIP: short edge 16, centre crop, 12 tokens, attention mask."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**TEXT, "max_position_embeddings": 12},
        vision_config={**SMALL, "image_size": 16, "patch_size": 4},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    words_tokenizer(folder, length=12, begin=True)
    return folder


def tiny_siglip(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP: squeezed to 16 x 16, 9 tokens, filled up to full length."""
    torch.manual_seed(seed)
    config = SiglipConfig(
        text_config={**TEXT, "max_position_embeddings": 9, "projection_size": 16},
        vision_config={**SMALL, "image_size": 16, "patch_size": 4},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    words_tokenizer(folder, length=9, begin=False)
    return folder


def tiny_naflex(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP 2 with native aspect ratio: at most 16 patches of 4 x 4."""
    torch.manual_seed(seed)
    config = Siglip2Config(
        text_config={**TEXT, "max_position_embeddings": 9, "projection_size": 16},
        vision_config={**SMALL, "num_patches": 16, "patch_size": 4},
    )
    Siglip2Model(config).save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=4, max_num_patches=16).save_pretrained(folder)
    words_tokenizer(folder, length=9, begin=False)
    return folder


TINY = {"clip": tiny_clip, "siglip": tiny_siglip, "naflex": tiny_naflex}
