"""Who answers questions from selected frames: video models of transformers, reference models, or your own."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..budget import TokenBudget
from ..errors import InputError
from ..questions import Question
from ..selection import Selection
from .answers import parse_choice, prompt_of

if TYPE_CHECKING:
    from ..reference.base import ReferenceModel
    from ..reference.clips import ChosenClip

SCORINGS = ("generate", "logits")


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        choice: position of the option; None if the answer could not be understood, which counts as wrong.
        text: what was generated.
        scores: a number for each option, larger is likelier; empty if there are none.
        tokens: length of the prompt, pictures included; None if unknown.
    """

    choice: int | None
    text: str = ""
    scores: tuple[float, ...] = ()
    tokens: int | None = None


@runtime_checkable
class Answerer(Protocol):
    """Anything that answers a multiple-choice question from selected frames.

    An object may also have `prepare(selections)`, which is called with all selections of a video before its questions
    are asked, and `frames_to_choose(num_frames)`, which says how many frames selectors are asked for.

    Attributes:
        name: for tables.
        fingerprint: identity of everything that decides the answers.
    """

    name: str
    fingerprint: str

    def answer(self, question: Question, selection: Selection) -> Answer:
        """Answer a question.

        Args:
            question: with its options.
            selection: the frames: `selection.frames` are pictures, `selection.timestamps` their times in seconds.
        """


class VideoModelAnswerer:
    """A video model of transformers. Frames and times reach its processor as `with_frame_selection` passes them on."""

    def __init__(
        self,
        pretrained: str,
        *,
        scoring: str = "generate",
        max_new_tokens: int = 16,
        preamble: str = "",
        instruction: str | None = None,
        timestamps: str = "auto",
        temporal_merge: str = "auto",
        words_in_prompt: str | None = None,
        system_prompt: str | None = None,
        token_budget: int | TokenBudget | None = None,
        device: str | None = None,
        dtype: str | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            pretrained: Hub id or folder.
            scoring: "generate" (greedy, the letter is read from the text) or "logits" (the option letter with the
                largest logit at the first place of the answer).
            max_new_tokens: of a generated answer.
            preamble: text before the question.
            instruction: text after the options (default: the request for a letter).
            timestamps: see `refocus_select.adapters.with_frame_selection`.
            temporal_merge: see there.
            words_in_prompt: see there.
            system_prompt: if the model is to have one.
            token_budget: the K frames get the size at which they cost so many video tokens at most, so that selectors
                and numbers of frames are compared at equal tokens (default: their own size).
            device: "cuda", "cpu", or "auto" to spread the model over GPUs.
            dtype: of the weights (default: bfloat16 on a GPU, float32 elsewhere).
            attn_implementation: e.g. "flash_attention_2".

        Raises:
            InputError: for an unknown scoring, or a model without videos.
        """
        import torch

        from refocus_select.adapters.lmms_eval import VideoModel

        if scoring not in SCORINGS:
            raise InputError(f"scoring must be one of {', '.join(SCORINGS)}, not {scoring!r}")
        on_gpu = torch.cuda.is_available() and device != "cpu"
        dtype = dtype or ("bfloat16" if on_gpu else "float32")
        loaded = VideoModel(
            pretrained,
            selector="uniform",
            options=False,
            timestamps=timestamps,
            temporal_merge=temporal_merge,
            words_in_prompt=words_in_prompt or False,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )
        self.model, self.processor = loaded.model, loaded.processor
        self._budget = TokenBudget.of_value(token_budget)
        self._meter: Any = None
        self.name = pretrained
        self.settings: dict[str, Any] = {
            "model": pretrained,
            "revision": getattr(self.model.config, "_commit_hash", None),
            "scoring": scoring,
            "max_new_tokens": max_new_tokens if scoring == "generate" else 1,
            "preamble": preamble,
            "instruction": instruction,
            "timestamps": timestamps,
            "temporal_merge": temporal_merge,
            "system_prompt": system_prompt,
            "dtype": dtype,
            **({"words_in_prompt": words_in_prompt} if words_in_prompt else {}),
            **({} if self._budget is None else {"token_budget": asdict(self._budget)}),
        }
        self.fingerprint = _digest(self.settings)
        self._letters = _letter_tokens(self.processor.tokenizer) if scoring == "logits" else []

    def frames_to_choose(self, num_frames: int) -> int:
        """How many frames a selector chooses so that the model gets K: fewer if it is given pairs of frames.

        Raises:
            InputError: if the model accepts another number only.
        """
        input_format: Any = self.processor.__dict__["_refocus"].input_format
        return int(input_format.frames_to_choose(num_frames))

    def answer(self, question: Question, selection: Selection) -> Answer:
        """See `Answerer`."""
        import torch

        from refocus_select.adapters import pinned_selection

        settings = self.settings
        text = prompt_of(question, preamble=settings["preamble"], instruction=settings["instruction"])
        video, selection = selection.video.source, self._sized(selection)
        chat = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": text}]}]
        if settings["system_prompt"]:
            chat.insert(0, {"role": "system", "content": [{"type": "text", "text": settings["system_prompt"]}]})
        with pinned_selection(self.processor, selection):
            inputs = self.processor.apply_chat_template(
                [chat], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
            )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        begin = int(inputs["input_ids"].shape[1])
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                max_new_tokens=settings["max_new_tokens"],
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self.processor.tokenizer.pad_token_id,
                return_dict_in_generate=True,
                output_logits=True,
            )
        text = self.processor.batch_decode(output.sequences[:, begin:], skip_special_tokens=True)[0].strip()
        if settings["scoring"] == "generate":
            return Answer(parse_choice(text, question.options), text, tokens=begin)
        first = output.logits[0][0].float()
        scores = [float(first[self._letters[place]].max()) for place in range(len(question.options))]
        return Answer(int(np.argmax(scores)), text, tuple(scores), begin)

    def _sized(self, selection: Selection) -> Selection:
        """The same frames, at the size that the budget allows."""
        if self._budget is None:
            return selection
        from refocus_select.adapters.budget import fit_selection
        from refocus_select.adapters.tokens import Meter

        input_format: Any = self.processor.__dict__["_refocus"].input_format
        self._meter = self._meter or Meter(self.processor, input_format)
        shown = len(selection) * (input_format.merge if input_format.temporal_merge == "pairs" else 1)
        return fit_selection(
            lambda _: selection, self._budget.tokens, self._budget, self._meter, num_frames=shown, probe=selection
        )


def _letter_tokens(tokenizer: Any) -> list[list[int]]:
    """For each letter the tokens that may begin an answer with it: "A" and " A", where they are single tokens."""
    found = []
    for letter in ascii_uppercase:
        tokens = [tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
        single = {ids[0] for ids in tokens if len(ids) == 1}
        if not single:
            raise InputError(f"the tokenizer has no token for the letter {letter}; use scoring='generate'")
        found.append(sorted(single))
    return found


class ReferenceAnswerer:
    """A reference model of the trainer: the option with the largest logit."""

    def __init__(self, model: ReferenceModel) -> None:
        self.model = model
        self.name = model.name
        self.fingerprint = model.fingerprint
        self.settings = {"model": model.name, "scoring": "option logits"}
        self._clips: dict[str, ChosenClip] = {}

    def prepare(self, selections: Sequence[Selection]) -> None:
        """Gather the frames that anybody chose of a video, so that the model sees each of them once."""
        from ..reference.clips import ChosenClip

        names = {selection.video_fingerprint for selection in selections}
        self._clips = {name: ChosenClip([s for s in selections if s.video_fingerprint == name]) for name in names}

    def answer(self, question: Question, selection: Selection) -> Answer:
        """See `Answerer`."""
        import torch

        from ..reference.base import Request
        from ..reference.clips import ChosenClip

        clip = self._clips.get(selection.video_fingerprint)
        if clip is None or not np.isin(selection.indices, clip.indices).all():
            clip = ChosenClip([selection])
        subset = torch.from_numpy(np.searchsorted(clip.indices, selection.indices))[None]
        (logits,) = self.model.option_logits([Request(question, clip, subset)])
        scores = [float(value) for value in logits[0]]
        return Answer(int(np.argmax(scores)), scores=tuple(scores))


def load_answerer(spec: str, **settings: Any) -> Answerer:
    """Load an answerer.

    Args:
        spec: "reference:NAME" for a reference model of the trainer (see `reference.load_reference`),
            "module:attribute" for your own (an object with `answer`, or something to call without arguments that gives
            one), or else the folder or Hub id of a video model.
        **settings: of `VideoModelAnswerer`, or of `load_reference`.

    Raises:
        InputError: if there is no such thing, or it cannot answer.
    """
    if spec.startswith("reference:"):
        from ..reference import load_reference

        known = {name: value for name, value in settings.items() if name in ("device", "dtype") and value is not None}
        return ReferenceAnswerer(load_reference(spec.removeprefix("reference:"), **known))
    module, colon, attribute = spec.partition(":")
    if colon and module.replace(".", "").replace("_", "").isalnum() and "/" not in attribute:
        return _own_answerer(module, attribute)
    return VideoModelAnswerer(spec, **{name: value for name, value in settings.items() if value is not None})


def _own_answerer(module: str, attribute: str) -> Answerer:
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the answerer {module}:{attribute} cannot be loaded ({error}); is it on the path?") from error
    if _is_reference(found):
        return ReferenceAnswerer(found)
    if isinstance(found, type) or not hasattr(found, "answer"):
        if not callable(found):
            raise InputError(f"{module}:{attribute} has no method answer(question, selection); see Answerer")
        found = found()
    if _is_reference(found):
        return ReferenceAnswerer(found)
    for name in ("answer", "name", "fingerprint"):
        if not hasattr(found, name):
            raise InputError(f"{module}:{attribute} has no {name}; an answerer has answer, name and fingerprint")
    return found


def _is_reference(found: Any) -> bool:
    return not isinstance(found, type) and callable(getattr(found, "option_logits", None))


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
