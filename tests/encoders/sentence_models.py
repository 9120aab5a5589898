"""Tiny models of sentence-transformers, saved as their repositories are: a CLIP, and one like Qwen3-VL-Embedding."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor

from tests.adapters.models import build
from tests.adapters.tiny import qwen3_vl
from tests.models.tiny_encoders import tiny_clip


def st_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP, whose text and pictures come from methods of their own."""
    inner = tiny_clip(folder / "inner", seed=seed)
    CLIPProcessor(CLIPImageProcessor.from_pretrained(inner), AutoTokenizer.from_pretrained(inner)).save_pretrained(
        inner
    )
    return _saved(SentenceTransformer(modules=[Transformer(str(inner))], device="cpu"), folder / "clip")


def st_qwen(folder: Path, *, seed: int = 0) -> Path:
    """A vision-language model that reads chats, pooled at the last token, with prompts."""
    torch.manual_seed(seed)
    processor = qwen3_vl()
    inner = folder / "inner"
    build("qwen3_vl", processor).save_pretrained(inner)
    processor.save_pretrained(inner)
    reader = Transformer(str(inner))
    modules = [reader, Pooling(reader.get_embedding_dimension(), pooling_mode="lasttoken"), Normalize()]
    return _saved(SentenceTransformer(modules=modules, device="cpu"), folder / "qwen")


def _saved(model: SentenceTransformer, folder: Path) -> Path:
    model.save_pretrained(str(folder))
    return folder


def set_prompts(folder: Path, **prompts: str) -> None:
    """Write the prompts of a saved model."""
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": prompts}))
