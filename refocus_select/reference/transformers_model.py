"""`TransformersReference`: image-text-to-text and video chat models of transformers as reference models."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, RefocusError, SelectorLoadError
from ..hub import HubOptions, find_checkpoint
from .base import ReferenceModel, Request
from .clips import Clip
from .identity import fingerprint
from .layouts import LAYOUTS, Features, Layout
from .prompt import PROMPT_VERSION, Prompter, View
from .visual_cache import VisualCache

logger = logging.getLogger(__name__)

_MASKS = ("attention_mask",)  # rows are filled up at the right, where a causal model needs none
_SHAPES_KEPT = 256
_DECODED = 32  # frames that are decoded in one go
# What reading visual tokens ends in when a version of transformers names or shapes them in another way.
_UNKNOWN_SHAPE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class TransformersReference(ReferenceModel):
    """A frozen video chat model that is asked for the letter of the right option.

    The prompt is the chat of the model's own template: frames with their true times as `refocus_select.adapters` gives
    them, then `refocus_select.questions.multiple_choice`. The logits are those of the option letters as the first word
    of the answer.

    Where the architecture lets every frame stand alone (see `layouts`), a candidate goes through the vision tower once
    and its tokens serve every subset and every question on the clip; the language model reads all subsets of a
    request in as few passes as the token budget allows. Other models see each subset from pixels to answer.

    Attributes:
        name: the folder, Hub id, or class of the model.
        fingerprint: identity of weights, processor and prompt.
        cached: visual tokens are computed once per candidate.
        cache: those tokens.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str | None = None,
        max_tokens: int = 65_536,
        cache_bytes: int = 4 * 2**30,
        vision_batch: int | None = None,
        size: tuple[int, int] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        reuse: bool = True,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: an `…ForConditionalGeneration` of transformers, on its device.
            processor: the one that belongs to it.
            name: for people.
            max_tokens: how many tokens the language model reads in one pass at most, over all subsets of the pass; one
                subset is always read whole. 65,536 tokens are eight subsets of 32 frames of InternVL3.
            cache_bytes: how much memory of the model's device visual tokens may take. InternVL3-2B needs 0.75 MiB per
                frame in bfloat16.
            vision_batch: how many frames go through the vision tower at once; by default 1 on the CPU, where results
                are then the same to the last bit whatever was cached before, and 32 elsewhere.
            size: (height, width) at which frames are decoded; the video's own by default.
            template_kwargs: arguments of the chat template, such as `enable_thinking=False`.
            reuse: False computes everything anew for every subset.

        Raises:
            InputError: if the model cannot be asked about frames.
        """
        self.name = name or type(model).__name__
        parameters = inspect.signature(model.forward).parameters
        config = getattr(model, "config", None)
        if config is None or getattr(config, "is_encoder_decoder", False) or "input_ids" not in parameters:
            raise InputError(
                f"{self.name} ({type(model).__name__}) does not continue a text word by word, so options cannot be "
                "scored; a reference model must be an image-text-to-text or video chat model of transformers"
            )
        self.prompter = Prompter(processor, name=self.name, template_kwargs=template_kwargs)
        if not {"pixel_values", "pixel_values_videos"} & set(parameters):
            raise InputError(f"{self.name} ({type(model).__name__}) takes no pictures; give a video chat model")
        if max_tokens < 1 or cache_bytes < 0 or (vision_batch is not None and vision_batch < 1):
            raise InputError(
                f"max_tokens={max_tokens}, cache_bytes={cache_bytes} and vision_batch={vision_batch} must be positive"
            )
        self.model: Any = model.requires_grad_(False).eval()
        self.processor = processor
        self.max_tokens = max_tokens
        self.cache = VisualCache(cache_bytes)
        self.vision_batch = vision_batch or (1 if self.device.type == "cpu" else 32)
        self.size = size
        self._keeps_logits = "logits_to_keep" in parameters
        self._layout = self._find_layout(parameters) if reuse else None
        self._shapes: OrderedDict[Hashable, tuple[dict[str, Any], tuple[int, int]]] = OrderedDict()
        self.fingerprint = fingerprint(model, self._settings(template_kwargs))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        attn_implementation: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> TransformersReference:
        """Load model and processor. Only safetensors are read, and no code of the repository is run.

        Args:
            name_or_path: a Hub id such as "OpenGVLab/InternVL3-2B-hf", or a folder.
            device: "cpu", "cuda:1", …, independent of the policy's; by default the GPU if there is one.
            dtype: "bfloat16", "float16" or "float32"; by default bfloat16 on a GPU and float32 elsewhere.
            revision, token, cache_dir, local_files_only: as in huggingface_hub.
            attn_implementation: as in transformers.
            device_map: in the place of `device`, spread the model over devices as transformers does ("auto", or a map);
                needs accelerate.
            **kwargs: see the class.

        Raises:
            SelectorLoadError: if the model is missing, gated, damaged, or has no safetensors weights.
            InputError: if it is not a model that can be asked about frames.
        """
        name = os.fspath(name_or_path)
        if device is not None and device_map is not None:
            raise InputError("device and device_map exclude each other; give one of them")
        chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
        number = _dtype(dtype, chosen)
        unknown = sorted(set(kwargs) - set(inspect.signature(cls.__init__).parameters))
        if unknown:
            raise InputError(f"{cls.__name__} has no setting {', '.join(unknown)}; see its documentation")
        options = HubOptions(revision, token, Path(cache_dir) if cache_dir is not None else None, local_files_only)
        find_checkpoint(name_or_path, options)  # downloads the weights, or says what stands in the way
        shared: dict[str, Any] = {
            "revision": revision or "main",
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only or Path(name).is_dir(),
            "trust_remote_code": False,
        }
        more = {"attn_implementation": attn_implementation, "device_map": device_map}
        model, processor = _load(name, shared, number, {key: value for key, value in more.items() if value is not None})
        return cls(model if device_map is not None else model.to(chosen), processor, name=name, **kwargs)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def cached(self) -> bool:
        """Whether visual tokens are computed once per candidate."""
        return self._layout is not None

    @torch.no_grad()  # not inference_mode: its tensors cannot take part in the training that follows
    def option_logits(self, requests: Sequence[Request]) -> list[Tensor]:
        results = []
        for request in requests:
            _check(request)
            chat = self.prompter.chat(request.question, request.subsets.shape[1])
            letters = self.prompter.letters(chat, len(request.question.options))
            if not len(request.subsets):
                results.append(torch.zeros(0, len(letters)))
                continue
            distinct, back = np.unique(request.subsets.cpu().numpy(), axis=0, return_inverse=True)
            results.append(self._score(request.clip, distinct, chat, letters).float().cpu()[back.reshape(-1)])
        return results

    def _score(self, clip: Clip, subsets: np.ndarray, chat: str, letters: list[int]) -> Tensor:
        """Logits of some tokens behind every subset, [N, letters]: from visual tokens if this model gives them."""
        if self._layout is not None:
            try:
                return self._from_tokens(clip, subsets, chat, letters)
            except (
                RefocusError,
                torch.cuda.OutOfMemoryError,
            ):  # of the video or the device, which a full pass meets too
                raise
            except _UNKNOWN_SHAPE as error:
                self._layout = None
                self.cache.clear()
                logger.warning(
                    "%s: every subset is read from pixels to answer, since this version of transformers (%s) gives or "
                    "takes visual tokens in an unknown form (%s: %s)",
                    self.name,
                    version("transformers"),
                    type(error).__name__,
                    error,
                )
        return self._full(clip, subsets, chat, letters)

    # -- from visual tokens ---------------------------------------------------------------------------

    def _from_tokens(self, clip: Clip, subsets: np.ndarray, chat: str, letters: list[int]) -> Tensor:
        """Logits of some tokens behind every subset, [N, letters]."""
        shape, size = self._shape(clip, subsets.shape[1], chat)
        features = self._features(clip, np.unique(subsets), chat, shape, size, subsets.shape[1])
        inputs = [
            self.prompter.words_only(
                chat, self.prompter.view(clip, row, np.zeros((len(row), 1, 1, 3), np.uint8), size), shape
            )
            for row in subsets
        ]
        longest = max(row["input_ids"].shape[1] for row in inputs)
        count = max(1, self.max_tokens // longest)
        frames = [[features[p] for p in row] for row in subsets]
        parts = [slice(at, at + count) for at in range(0, len(subsets), count)]
        return torch.cat([self._read(inputs[part], frames[part])[:, letters] for part in parts])

    def _read(self, inputs: Sequence[Mapping[str, Any]], frames: Sequence[Sequence[Features]]) -> Tensor:
        """One pass of the language model over several subsets, [n, V]."""
        layout = self._layout
        assert layout is not None
        batch, ends = _joined(inputs, self._padding, without=(*layout.pixel_names, *_MASKS))
        kept = torch.unique(ends)
        logits = self.model(
            **_placed(batch, self.device, self.model.dtype),
            mm_encoder_outputs={layout.modality: layout.outputs(self.model, frames)},
            **self._economies(kept.to(self.device)),
        ).logits
        columns = torch.searchsorted(kept, ends) if self._keeps_logits else ends
        found: Tensor = logits[torch.arange(len(ends), device=logits.device), columns.to(logits.device)]
        return found

    def _shape(self, clip: Clip, length: int, chat: str) -> tuple[dict[str, Any], tuple[int, int]]:
        """What `length` of the clip's frames come to, and the size of its pictures."""
        assert self._layout is not None
        key = (clip.key, length)
        if key not in self._shapes:
            picture = clip.pictures(np.zeros(1, np.int64), size=self.size)  # all frames are of one size
            size = (int(picture.shape[1]), int(picture.shape[2]))
            view = self.prompter.view(clip, np.zeros(length, np.int64), picture.repeat(length, axis=0), size)
            self._shapes[key] = (self.prompter.picture_shape(chat, view, light=self._layout.light), size)
            while len(self._shapes) > _SHAPES_KEPT:
                self._shapes.popitem(last=False)
        self._shapes.move_to_end(key)
        return self._shapes[key]

    def _features(
        self,
        clip: Clip,
        positions: np.ndarray,
        chat: str,
        shape: Mapping[str, Any],
        size: tuple[int, int],
        length: int,
    ) -> dict[int, Features]:
        """Visual tokens of candidates, from the cache as far as they are there.

        Args:
            clip: whose.
            positions: which, [n].
            chat: any prompt with placeholders for `length` frames.
            shape: what `length` frames come to.
            size: of the clip's pictures.
            length: frames per subset. Families with one budget of pixels for the whole video show frames smaller the
                more there are, so that tokens are computed and kept for each such size.
        """
        grid = _frame_size(shape)
        found: dict[int, Features] = {}
        missing = []
        for position in positions.tolist():
            features = self.cache.get((clip.key, grid, position))
            if features is None:
                missing.append(position)
            else:
                found[position] = features
        step = max(length, _DECODED)
        for at in range(0, len(missing), step):
            chosen = missing[at : at + step]
            for position, features in zip(chosen, self._encoded(clip, chosen, length, chat, size), strict=True):
                found[position] = features
                self.cache.put((clip.key, grid, position), features)
        return found

    def _encoded(
        self, clip: Clip, positions: list[int], length: int, chat: str, size: tuple[int, int]
    ) -> list[Features]:
        """Run the vision tower on some candidates."""
        layout = self._layout
        assert layout is not None
        pictures = clip.pictures(np.asarray(positions), size=self.size)
        pixels: list[Tensor] = []
        inputs: dict[str, Any] = {}
        for at in range(0, len(positions), length):
            # Always `length` frames, so that the processor makes them as large as in a subset.
            rows = np.minimum(np.arange(at, at + length), len(positions) - 1)
            view = self.prompter.view(clip, np.asarray(positions)[rows], pictures[rows], size)
            inputs = self.prompter.inputs(chat, [view])
            pixels += layout.pixels(inputs, length)[: len(positions) - at]
        features: list[Features] = []
        for at in range(0, len(pixels), self.vision_batch):
            batch = torch.stack(pixels[at : at + self.vision_batch]).to(self.device, self.model.dtype)
            # Cloned, so that a kept frame does not hold the memory of the others.
            features += [tuple(part.clone() for part in f) for f in layout.encode(self.model, batch, inputs)]
        return features

    # -- from pixels ----------------------------------------------------------------------------------

    def _full(self, clip: Clip, subsets: np.ndarray, chat: str, letters: list[int]) -> Tensor:
        """Logits of some tokens behind every subset by passes of the whole model, [N, letters].

        Subsets whose prompts come out equally long share a pass.
        """
        logits: dict[int, Tensor] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for k, row in enumerate(subsets):  # times with equally many digits make prompts of equal length
            groups.setdefault(tuple(len(str(int(t))) for t in clip.timestamps[row]), []).append(k)
        count = 1
        for group in groups.values():
            waiting = list(group)
            while waiting:
                rows, waiting = waiting[:count], waiting[count:]
                inputs = self._whole(clip, subsets[rows], chat)
                if len(rows) > 1 and not _equally_long(inputs):
                    answers = torch.cat([self._pass(self._whole(clip, subsets[[k]], chat)) for k in rows])
                else:
                    answers = self._pass(inputs)
                logits |= dict(zip(rows, answers[:, letters], strict=True))
                if self.prompter.batches:
                    count = max(1, self.max_tokens // inputs["input_ids"].shape[1])
        return torch.stack([logits[k] for k in range(len(subsets))])

    def _whole(self, clip: Clip, subsets: np.ndarray, chat: str) -> dict[str, Any]:
        """Inputs of some subsets, pictures and all."""
        views: list[View] = []
        for row in subsets:
            pictures = clip.pictures(row, size=self.size)
            views.append(self.prompter.view(clip, row, pictures, (int(pictures.shape[1]), int(pictures.shape[2]))))
        return self.prompter.inputs(chat, views)

    def _pass(self, inputs: Mapping[str, Any]) -> Tensor:
        """One pass over prompts of equal length, [n, V]."""
        logits: Tensor = self.model(**_placed(inputs, self.device, self.model.dtype), **self._economies(1)).logits
        return logits[:, -1]

    def _economies(self, kept: int | Tensor) -> dict[str, Any]:
        """Arguments that spare what is not asked for: logits at other places, and the states of a later word."""
        return {"use_cache": False, **({"logits_to_keep": kept} if self._keeps_logits else {})}

    # -- what the model is ----------------------------------------------------------------------------

    def _find_layout(self, parameters: Mapping[str, Any]) -> Layout | None:
        kind = str(self.model.config.model_type)
        layout = LAYOUTS.get(kind)
        if layout is None:
            reason = f"it is not known that frames stand alone in models of type {kind!r}"
        elif "mm_encoder_outputs" not in parameters:
            reason = "this version of transformers takes no visual tokens (mm_encoder_outputs); a newer one does"
        else:
            return layout
        logger.warning("%s: every subset is read from pixels to answer, since %s", self.name, reason)
        return None

    @property
    def _padding(self) -> int:
        token = self.processor.tokenizer.pad_token_id
        return 0 if token is None else int(token)

    def _settings(self, template_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Everything beside the weights that decides the answers."""
        processor = self.processor
        parts = (getattr(processor, f"{part}_processor", None) for part in ("image", "video"))
        return {
            "prompt": PROMPT_VERSION,
            "chat_template": processor.chat_template,
            "template_kwargs": dict(template_kwargs or {}),
            "processors": [json.loads(part.to_json_string()) for part in parts if part is not None],
            "tokenizer": len(processor.tokenizer),
            "config": json.loads(self.model.config.to_json_string(use_diff=False)),
            "size": self.size,
        }


def _check(request: Request) -> None:
    question, subsets = request.question, request.subsets
    if len(question.options) < 2:
        raise InputError(f"question {question.id} has {len(question.options)} options; at least two are needed")
    if subsets.ndim != 2 or subsets.shape[1] < 1 or subsets.is_floating_point():
        raise InputError(f"subsets must be int64 [N, K] with K >= 1, not {subsets.dtype} {list(subsets.shape)}")
    if subsets.numel() and not 0 <= int(subsets.min()) <= int(subsets.max()) < len(request.clip):
        raise InputError(
            f"subsets of question {question.id} name candidates {int(subsets.min())} to {int(subsets.max())}, "
            f"but the clip has {len(request.clip)}"
        )


def _joined(
    inputs: Sequence[Mapping[str, Any]], padding: int, *, without: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs of several prompts as one batch, filled up at the right, and where each prompt ends [n]."""
    ends = torch.tensor([row["input_ids"].shape[1] - 1 for row in inputs])
    longest = int(ends.max()) + 1
    batch = {}
    for key in inputs[0]:
        if key in without:
            continue
        values = [torch.as_tensor(row[key]) for row in inputs]
        if values[0].shape == inputs[0]["input_ids"].shape:  # one entry per token
            filler = padding if key == "input_ids" else 0
            values = [torch.nn.functional.pad(v, (0, longest - v.shape[1]), value=filler) for v in values]
        batch[key] = torch.cat(values)
    return batch, ends


def _placed(inputs: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Inputs on the model's device, pixels in its dtype; times and grids keep their own."""
    return {
        key: value.to(device, dtype if key.startswith("pixel_values") and value.is_floating_point() else None)
        if isinstance(value, Tensor)
        else value
        for key, value in inputs.items()
    }


def _frame_size(shape: Mapping[str, Any]) -> tuple[int, ...]:
    """The size that frames are brought to: rows and columns of patches, or of pixels."""
    for key, value in shape.items():
        if key.endswith("grid_thw"):
            return tuple(int(n) for n in value[0, 1:])
    return ()  # one size, whatever their number


def _equally_long(inputs: Mapping[str, Any]) -> bool:
    mask = inputs.get("attention_mask")
    return mask is None or bool(mask.all())


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype must be 'float32', 'float16' or 'bfloat16', not {dtype!r}")
    return found


def _load(name: str, shared: dict[str, Any], dtype: torch.dtype, more: dict[str, Any]) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    try:
        config = AutoConfig.from_pretrained(name, **shared)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise InputError(
                f"{name} is of type {config.model_type!r}, which transformers does not count among its "
                "image-text-to-text models; give a video chat model such as 'OpenGVLab/InternVL3-2B-hf'"
            )
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            name, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True, **shared, **more
        )
        model, report = loaded
        processor = AutoProcessor.from_pretrained(name, **shared)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise SelectorLoadError(f"cannot load the reference model {name}: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise SelectorLoadError(
            f"the weights of {name} lack {len(missing)} tensors, first {missing[0]}; they would be random: "
            "download the checkpoint again, or give another"
        )
    return model, processor
