"""`ReaderReference`: small frozen answerers that see frames through the features of the embedded encoder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, SelectorLoadError
from ..files import write_bytes
from ..models.mini import MiniEncoder
from ..parsing import MAX_ENTITIES, option_number, option_parts, parse_question
from ..plain_text import parse_json
from ..questions import Question
from ..selectors.dual_encoder import DualEncoderSelector
from .base import ReferenceModel, Request
from .clips import REFERENCE_VIEW
from .reader_net import Batch, ReaderConfig, ReaderNet, make_net

MODEL_TYPE = "refocus-select-reader"
_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"


class ReaderReference(ReferenceModel):
    """Answers multiple-choice questions from the features of the frames of a subset, and from their times.

        reader = ReaderReference.from_pretrained("benchmarks/storyboards/readers/transformer")
        logits, = reader.option_logits([Request(question, clip, subsets)])

    It sees the chosen frames only, how far apart they are, and where in the video they lie. Frames are compared with
    the things that the question names and with the options; vectors of texts are kept.
    """

    def __init__(self, net: ReaderNet, encoder: MiniEncoder, *, name: str = "reader") -> None:
        self.net = net.eval()
        self.encoder = encoder
        self.name = name
        self.selector = DualEncoderSelector(encoder)
        self._things: dict[str, Tensor] = {}
        self._sentences: dict[str, Tensor] = {}
        self.fingerprint = _fingerprint(net, encoder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        encoder: MiniEncoder | None = None,
        device: str | torch.device | None = None,
    ) -> ReaderReference:
        """Load a reader.

        Args:
            folder: with config.json and model.safetensors, as `save_pretrained` writes it.
            encoder: None for the encoder that the package ships.
            device: of the reader's network; the encoder stays where it is.

        Raises:
            SelectorLoadError: if a file is missing or damaged, or the reader was trained with another encoder.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        config = _read_config(folder)
        encoder = encoder or _embedded_encoder()
        if config["encoder"] not in (encoder.fingerprint, *getattr(encoder, "earlier", ())):
            raise SelectorLoadError(
                f"{folder} was trained with the encoder {config['encoder']}, not {encoder.fingerprint}; "
                "give that encoder"
            )
        try:
            net = make_net(ReaderConfig(**config["net"]))
            net.load_state_dict({name: t.float() for name, t in load_file(folder / _WEIGHTS).items()})
        except (OSError, SafetensorError, RuntimeError, TypeError, InputError) as error:
            raise SelectorLoadError(f"the reader in {folder} cannot be loaded: {error}") from error
        return cls(net.requires_grad_(False).to(device or "cpu"), encoder, name=config["name"])

    def save_pretrained(self, folder: str | os.PathLike[str], *, training: dict[str, Any] | None = None) -> None:
        """Write config.json and model.safetensors, each under a temporary name first.

        Args:
            folder: made if it is missing.
            training: how the reader was trained; kept in config.json.
        """
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "model_type": MODEL_TYPE,
            "name": self.name,
            "encoder": self.encoder.fingerprint,
            "net": self.net.config.to_dict(),
            "training": training or {},
        }
        weights = save({name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()})
        for name, content in ((_WEIGHTS, weights), (_CONFIG, (json.dumps(config, indent=2) + "\n").encode())):
            write_bytes(folder / name, content)

    @torch.inference_mode()
    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        """Logits of the options for each subset (see `ReferenceModel.option_logits`).

        Raises:
            InputError: if a question has fewer than two options, or a subset is empty or outside the video.
            EncodingError: if only features of another encoder are known of a video.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        for i, request in enumerate(requests):
            _check(request)
            alike.setdefault((request.subsets.shape[1], len(request.question.options)), []).append(i)
        found: dict[int, Tensor] = {}
        for rows in alike.values():
            group = [requests[i] for i in rows]
            logits = self.net(self.batch(group)).float().cpu()
            found.update(zip(rows, logits.split([len(request.subsets) for request in group]), strict=True))
        return [found[i] for i in range(len(requests))]

    def batch(self, requests: Sequence[Request]) -> Batch:
        """Everything that the network reads, for subsets of one size and questions with equally many options."""
        self._learn_texts([request.question for request in requests])
        device = next(self.net.parameters()).device
        rows = [self._row(request) for request in requests]
        return Batch(*(torch.cat(parts).to(device) for parts in zip(*rows, strict=True)))

    def _row(self, request: Request) -> tuple[Tensor, ...]:
        question, clip, subsets = request.question, request.clip, request.subsets
        n, options = len(subsets), question.options
        tensors = clip.encoding(self.selector).tensors
        frames = tensors.get(REFERENCE_VIEW, tensors["embeddings"])[subsets].float()  # [N, K, D]
        times = torch.from_numpy(clip.timestamps).float()
        length = times[-1].clamp_min(1e-6)
        parsed = parse_question(_asked(question))
        mentions, named = self._stacked(parsed.entities)
        parts = [self._stacked(option_parts(option)) for option in options]
        numbers = [option_number(option) for option in options]
        alone = (
            mentions,
            self._sentences[parsed.template],
            torch.stack([vectors for vectors, _ in parts]),
            named,
            torch.stack([there for _, there in parts]),
            torch.tensor([-1 if number is None else number for number in numbers]),
        )
        return (
            frames,
            times[subsets] / length,
            subsets.float(),
            *(part.expand(n, *part.shape) for part in alone),
        )

    def _stacked(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Vectors of at most `MAX_ENTITIES` things, zero-padded [M, D], and which there are [M]."""
        vectors = torch.zeros(MAX_ENTITIES, self.net.config.dimensions)
        there = torch.zeros(MAX_ENTITIES)
        for i, text in enumerate(texts[:MAX_ENTITIES]):
            vectors[i], there[i] = self._things[text], 1.0
        return vectors, there

    def thing_vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors of names of things, kept for later, float32 [len(texts), D]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._things]
        if new:
            self._things.update(zip(new, self.encoder.encode_text(new).float().cpu(), strict=True))
        return torch.stack([self._things[text] for text in texts])

    def _learn_texts(self, questions: Sequence[Question]) -> None:
        """Encode the texts that are new, all at once."""
        things: dict[str, None] = {}
        sentences: dict[str, None] = {}
        for question in questions:
            parsed = parse_question(_asked(question))
            things.update(dict.fromkeys(parsed.entities[:MAX_ENTITIES]))
            things.update(
                dict.fromkeys(part for option in question.options for part in option_parts(option)[:MAX_ENTITIES])
            )
            sentences[parsed.template] = None
        if things:
            self.thing_vectors(list(things))
        new = [text for text in sentences if text not in self._sentences]
        if new:
            self._sentences.update(zip(new, self.encoder.text.encode(new).float().cpu(), strict=True))


def _asked(question: Question) -> str:
    """What a reader is asked: the same in words that it knows, where the question has such a wording."""
    return str(question.extra.get("reference_question", question.question))


def _check(request: Request) -> None:
    question, subsets = request.question, request.subsets
    if len(question.options) < 2:
        raise InputError(
            f"question {question.id} has {len(question.options)} options; a reader chooses among at least two"
        )
    if subsets.ndim != 2 or not subsets.numel():
        raise InputError(f"question {question.id}: subsets must be [N, K] with K > 0, not {list(subsets.shape)}")
    if int(subsets.min()) < 0 or int(subsets.max()) >= len(request.clip):
        raise InputError(
            f"question {question.id}: subsets name frames {int(subsets.min())} to {int(subsets.max())}, "
            f"but {question.video} has {len(request.clip)} candidates"
        )


def _fingerprint(net: ReaderNet, encoder: MiniEncoder) -> str:
    digest = hashlib.sha256(json.dumps([net.config.to_dict(), encoder.fingerprint]).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"reader-{digest.hexdigest()[:32]}"


def _embedded_encoder() -> MiniEncoder:
    from ..weights import resolve

    return MiniEncoder.from_pretrained(resolve("mini"))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        config = parse_json(path.read_bytes())
    except OSError as error:
        raise SelectorLoadError(f"no reader in {folder} ({error.strerror}: {path.name})") from error
    except ValueError as error:
        raise SelectorLoadError(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        raise SelectorLoadError(f"{path} does not describe a reader (model_type {MODEL_TYPE!r})")
    return config
