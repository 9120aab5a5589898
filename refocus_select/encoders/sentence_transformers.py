"""`SentenceTransformersEncoder`: multimodal embedding models of sentence-transformers, CLIP-like or vision-language.

They need the extra `st`: `pip install "refocus-select[st]"`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EncoderError, InputError, MissingDependencyError, SelectorLoadError
from ..hub import MODULES_FILE, HubOptions, hub_errors, is_hub_id
from ..plain_text import parse_json
from .common import (
    add_weights,
    checked_frames,
    choose_device,
    choose_dtype,
    fixed_size,
    languages_of,
    preprocessing,
    smaller_size,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PREFIX = "st:"
_NAMESPACE = "sentence_transformers."
_CARRIED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]  # no code, no pickles
_ELSEWHERE = ["onnx/*", "openvino/*"]
_MOST_TOKENS = 100_000  # tokenizers write a huge number where no limit is set


class SentenceTransformersEncoder:
    """Vectors of frames and of text of a multimodal model, of unit length.

    Questions get the model's prompt for queries, and frames that for documents, if it has them.

    Attributes:
        name: the folder or Hub id.
        frame_size: (height, width) that every picture is brought to, or None.
        dimensions: length D of the vectors.
        fingerprint: identity of weights, preprocessing and prompts.
        languages: codes of the languages that the card of the model names; None where it does not.
        max_text_tokens: longer texts are cut; None without a limit.
    """

    def __init__(
        self, model: SentenceTransformer, *, name: str, batch: int = 16, languages: Sequence[str] | None = None
    ) -> None:
        """Wrap a model.

        Args:
            model: a `SentenceTransformer` that takes texts and pictures.
            name: for people.
            batch: how many frames go through the model at once.
            languages: codes of the languages that it reads, if that is known.

        Raises:
            EncoderError: if the model takes no pictures, or no texts.
        """
        lacking = [kind for kind in ("text", "image") if not model.supports(kind)]
        if lacking:
            takes = ", ".join(map(str, getattr(model, "modalities", ["text"])))
            raise EncoderError(
                f"{name} takes {takes} and no {' and no '.join(lacking)}: give a multimodal model such as "
                "'sentence-transformers/clip-ViT-B-32' or 'Qwen/Qwen3-VL-Embedding-2B'"
            )
        self.name = name
        self.model = model.requires_grad_(False).eval()
        self.batch = batch
        self.languages = None if languages is None else tuple(languages)
        limit = model.max_seq_length if getattr(model, "tokenizer", None) is not None else None
        self.max_text_tokens = limit if limit and limit < _MOST_TOKENS else None
        self._image_processor = getattr(getattr(model, "processor", None), "image_processor", None)
        self.frame_size = fixed_size(self._image_processor)
        self.fingerprint = _fingerprint(model, self._image_processor)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch: int = 16,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> SentenceTransformersEncoder:
        """Load a model. Only safetensors are read, and no code of the repository is run.

        Args:
            name_or_path: a Hub id such as "Qwen/Qwen3-VL-Embedding-2B", or a folder; "st:" may stand in front.
            device: "cpu", "cuda", …; by default the GPU if there is one.
            dtype: by default float16 on a GPU and float32 elsewhere.
            batch: how many frames go through the model at once.
            revision, token, cache_dir, local_files_only: as in huggingface_hub.

        Raises:
            MissingDependencyError: without sentence-transformers of version 5.4 or later.
            SelectorLoadError: if the model is missing, gated, damaged, wants to run code of its own, or has no
                safetensors weights.
            EncoderError: if it takes no pictures, or no texts.
        """
        from safetensors import SafetensorError

        library = _library()
        name = os.fspath(name_or_path).removeprefix(PREFIX)
        options = HubOptions(revision, token, Path(cache_dir) if cache_dir is not None else None, local_files_only)
        folder = _folder(name, options)
        _check_modules(name, folder)
        chosen = choose_device(device)
        try:
            with _watched(name):
                model = library.SentenceTransformer(
                    str(folder),
                    device=str(chosen),
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": choose_dtype(dtype, chosen), "use_safetensors": True},
                )
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
            raise SelectorLoadError(f"cannot load the encoder {name}: {error}") from error
        return cls(model, name=name, batch=batch, languages=languages_of(folder))

    @cached_property
    def dimensions(self) -> int:
        """Length D of the vectors."""
        return int(self.encode_text(["a"]).shape[1])

    def decode_size(self, height: int, width: int) -> tuple[int, int] | None:
        """The size at which frames of a video of this height and width are best decoded, None for their own."""
        return smaller_size(self._image_processor, height, width)

    def encode_frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frame vectors: those of documents.

        Args:
            frames: uint8 RGB `[N, H, W, 3]`.

        Returns:
            float32 `[N, D]` on the CPU, unit length.

        Raises:
            InputError: if `frames` has another type or shape.
        """
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in checked_frames(frames)]
        return self._vectors(self.model.encode_document, pictures)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text vectors: those of queries, float32 `[len(texts), D]` on the CPU, unit length."""
        return self._vectors(self.model.encode_query, list(texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has together with the prompt of queries."""
        prompt = self.model.prompts.get("query") or ""
        asked = [prompt + text for text in texts]
        return [len(ids) for ids in self.model.tokenizer(asked, truncation=False, verbose=False)["input_ids"]]

    def _vectors(self, encode: Any, inputs: list[Any]) -> Tensor:
        if not inputs:
            return torch.zeros(0, self.dimensions)
        vectors = encode(inputs, batch_size=self.batch, convert_to_tensor=True, show_progress_bar=False)
        # `encode` runs in inference mode, whose tensors cannot be used in training.
        return F.normalize(vectors.detach().float().cpu(), dim=-1).clone()


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(
            "models of sentence-transformers need it: pip install 'refocus-select[st]'"
        ) from error
    if not hasattr(sentence_transformers.SentenceTransformer, "supports"):
        raise MissingDependencyError(
            f"sentence-transformers {sentence_transformers.__version__} knows texts only: "
            "pip install 'sentence-transformers>=5.4'"
        )
    return sentence_transformers


def _folder(name: str, options: HubOptions) -> Path:
    """The folder of a model; of a repository only what is read: no code, no pickles."""
    if os.path.isdir(name):
        return Path(name)
    if not is_hub_id(name):
        raise SelectorLoadError(f"there is no folder {name}; check the path, or give a Hub id 'owner/name'")
    from huggingface_hub import snapshot_download

    with hub_errors(name, options):
        return Path(
            snapshot_download(
                name,
                revision=options.revision,
                token=options.token,
                cache_dir=options.cache_dir,
                local_files_only=options.local_files_only,
                allow_patterns=_CARRIED,
                ignore_patterns=_ELSEWHERE,
            )
        )


def _check_modules(name: str, folder: Path) -> None:
    """Refuse what is not a model of the library, what runs code of its own, and pickled weights."""
    modules = _read(name, folder / MODULES_FILE)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise SelectorLoadError(f"{name}: {MODULES_FILE} is not a list of modules; download the model again")
    kinds = [str(module.get("type")) for module in modules]
    for router in sorted(folder.rglob("router_config.json")):
        types = _read(name, router).get("types", {})
        kinds += [str(kind) for kind in types.values()] if isinstance(types, Mapping) else [str(types)]
    own = sorted({kind for kind in kinds if not kind.startswith(_NAMESPACE)})
    if own:
        raise SelectorLoadError(
            f"{name} wants to run code of its own ({', '.join(own)}), which is not done; load the model in a program "
            "that trusts it, and pass encoder= an object with encode_frames, encode_text and a fingerprint"
        )
    for module in modules:
        place = folder / str(module.get("path", ""))
        if not place.resolve().is_relative_to(folder.resolve()):
            raise SelectorLoadError(f"{name}: {MODULES_FILE} names {module['path']!r}, which lies outside the model")
        if any(place.glob("pytorch_model*.bin")) and not any(place.glob("*.safetensors")):
            raise SelectorLoadError(
                f"{name} holds only pickle weights (in {place.name}), which can run code when loaded and are refused; "
                "convert them to safetensors first"
            )


def _read(name: str, path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise SelectorLoadError(
            f"{name} has no {path.name}, so it is not a model of sentence-transformers; check the name, or "
            "leave 'st:' out"
        ) from error
    except (OSError, ValueError) as error:
        raise SelectorLoadError(f"{path} is unreadable or damaged ({error}); download it again") from error


class _Reports(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.missing: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().splitlines()
        # A table of transformers 5, or the one line of transformers 4.
        self.missing += [line for line in lines if "| MISSING" in line or line.startswith("Some weights of")]


@contextmanager
def _watched(name: str) -> Iterator[None]:
    """Refuse a model whose weights are not all there: transformers makes up what is missing and only says so."""
    reports, log = _Reports(), logging.getLogger("transformers")
    log.addHandler(reports)
    try:
        yield
    finally:
        log.removeHandler(reports)
    missing = [line for line in reports.missing if "position_ids" not in line and "not used" not in line]
    if missing:
        first = missing[0].split("|")[0].strip()
        raise SelectorLoadError(
            f"the weights of {name} lack {len(missing)} tensors, first {first}; they would be random: download the "
            "model again, or give another"
        )


def _fingerprint(model: SentenceTransformer, image_processor: Any) -> str:
    """Identity of what decides the vectors: weights, preprocessing, prompts and the order of the modules."""
    facts = {
        "prompts": model.prompts,
        "default": model.default_prompt_name,
        "modules": [type(module).__name__ for module in model],
        "pictures": None if image_processor is None else preprocessing(image_processor),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    add_weights(digest, model)
    return f"st-{digest.hexdigest()[:32]}"
