"""Who chooses frames in an evaluation: selectors, and selections that others made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..cache import EncodingCache
from ..encoding import VideoEncoding
from ..errors import InputError
from ..questions import Question, words_of
from ..selection import Selection
from ..selectors import FrameSelector
from ..selectors.algorithms import SCORED
from ..selectors.registry import takes_encoder
from ..video import open_video
from .selections import StoredSelection

if TYPE_CHECKING:
    from ..arguments import LoadArguments


class Chooser(Protocol):
    """What an evaluation asks for frames.

    It may have `sizes`, the only numbers of frames that it can choose, and `settings` for the record.

    Attributes:
        name: for tables.
        fingerprint: identity of weights and settings.
    """

    name: str
    fingerprint: str

    def choose(self, video: str, questions: Sequence[Question], num_frames: int) -> list[Selection | None]:
        """Choose frames of one video for several questions; None where there is no selection for K frames.

        Raises:
            RefocusError: if the video cannot be read.
        """


@dataclass
class Encodings:
    """Encodings of the video at hand, shared by all selectors with the same encoder; on disk if there is a cache.

    Attributes:
        cache: where encodings stay between runs; None for nowhere.
        sampling: `fps` and `max_frames` of the candidates, the same for every selector; empty for their own.
    """

    cache: EncodingCache | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    _video: str = ""
    _held: dict[tuple[Any, ...], VideoEncoding] = field(default_factory=dict)

    def of(self, video: str, selector: FrameSelector, num_frames: int) -> VideoEncoding:
        """The encoding of a video for a selector; with more candidates if it is too short for K frames otherwise."""
        if video != self._video:
            self._held.clear()
            self._video = video
        encoding = self._encoded(video, selector, 1)
        return encoding if len(encoding) >= num_frames else self._encoded(video, selector, num_frames)

    def with_words(
        self, encoding: VideoEncoding, selector: FrameSelector, question: Question, words: Mapping[str, Any]
    ) -> VideoEncoding:
        """The encoding with the words of a question's video; read once for all questions that name the same.

        Raises:
            TranscriptError: if they cannot be used.
        """
        sentences = getattr(getattr(selector, "encoder", None), "encode_sentences", None)
        key = (id(encoding), _words_key(question), sentences and selector.encoding_fingerprint)
        if key not in self._held:
            cache = self.cache if self.cache is not None else False
            source = words_of(question, words.get("words", "auto"))
            self._held[key] = selector.add_words(
                encoding, **{**words, "words": source}, video=question.video, cache=cache
            )
        return self._held[key]

    def _encoded(self, video: str, selector: FrameSelector, least: int) -> VideoEncoding:
        key = (selector.encoding_fingerprint, selector.rule, type(selector).needs_frames, least)
        if key not in self._held:
            cache = self.cache if self.cache is not None else False
            self._held[key] = selector.encode(
                video, cache=cache, progress=False, **{"min_frames": least, **self.sampling}
            )
        return self._held[key]


def _words_key(question: Question) -> str:
    return json.dumps([question.extra.get(name) for name in ("words", "words_start")], default=str)


class SelectorChooser:
    """A selector. The question goes to it without its options, unless asked otherwise."""

    def __init__(
        self,
        selector: FrameSelector,
        encodings: Encodings,
        *,
        options_to_selector: bool = False,
        words: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a selector.

        Args:
            selector: who chooses.
            encodings: of the videos.
            options_to_selector: whether it sees the answer options.
            words: arguments of `FrameSelector.add_words`, to choose by words as well; a question's own words (subtitles
                of the benchmark) count more. None for pictures alone.
        """
        self.selector = selector
        self.name = selector.name if words is None else f"{selector.name} + words"
        self.fingerprint = selector.fingerprint
        self._encodings = encodings
        self._with_options = options_to_selector
        self._words = words

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its choices beside the weights."""
        return settings_of(self.selector) | ({} if self._words is None else {"words": dict(self._words)})

    def choose(self, video: str, questions: Sequence[Question], num_frames: int) -> list[Selection | None]:
        """See `Chooser`."""
        encoding = self._encodings.of(video, self.selector, num_frames)
        found: dict[int, Selection] = {}
        for places in self._alike(questions):
            part = [questions[place] for place in places]
            heard = encoding
            if self._words is not None:
                heard = self._encodings.with_words(encoding, self.selector, part[0], self._words)
            options = [list(question.options) for question in part] if self._with_options else None
            texts = [question.question for question in part]
            selections = self.selector.select(heard, texts, num_frames=num_frames, options=options)
            found |= zip(places, selections, strict=True)
        return [found[place] for place in range(len(questions))]

    def _alike(self, questions: Sequence[Question]) -> list[list[int]]:
        """Places of questions with the same words: those of a video, mostly all."""
        if self._words is None:
            return [list(range(len(questions)))]
        groups: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            groups.setdefault(_words_key(question), []).append(place)
        return list(groups.values())


def load_selector(name: str, *, encoder: str | None = None, device: str | None = None) -> FrameSelector:
    """A selector by name; the encoder is for those that read the vectors of one.

    Raises:
        SelectorLoadError: naming what is missing or damaged, and the remedy.
        EncoderError: if the encoder cannot be used.
    """
    options: LoadArguments = {} if device is None else {"device": device}
    if encoder is not None and takes_encoder(name):
        options["encoder"] = encoder
    return FrameSelector.from_pretrained(name, **options)


def settings_of(selector: FrameSelector) -> dict[str, Any]:
    """What decides the choices of a selector beside its weights, defaults and seeds included."""
    found: dict[str, Any] = {"rule": asdict(selector.rule)}
    algorithm = getattr(selector, "algorithm", None)
    if algorithm is not None:
        parameters = inspect.signature(SCORED[algorithm]).parameters.values()
        defaults = {p.name: p.default for p in parameters if isinstance(p.default, bool | int | float | str)}
        found |= {"algorithm": algorithm, **defaults, **getattr(selector, "settings", {})}
    elif hasattr(selector, "seed"):
        found["seed"] = selector.seed
    return found


class StoredChooser:
    """Selections from a file. They are scored at the number of frames that they have."""

    def __init__(self, name: str, fingerprint: str, selections: Sequence[StoredSelection]) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._stored = {(item.id, item.num_frames): item for item in selections}
        if len(self._stored) < len(selections):
            raise InputError(
                f"{name} has several selections of the same length for one question; keep one selector per file"
            )

    @property
    def sizes(self) -> list[int]:
        """The numbers of frames K that there are."""
        return sorted({num_frames for _, num_frames in self._stored})

    @property
    def settings(self) -> dict[str, Any]:
        """What is known of the file."""
        return {"selections": len(self._stored)}

    def choose(self, video: str, questions: Sequence[Question], num_frames: int) -> list[Selection | None]:
        """See `Chooser`."""
        items = [self._stored.get((question.id, num_frames)) for question in questions]
        if not any(items):
            return [None] * len(items)
        with open_video(video) as source:
            return [
                None if item is None else _selection(item, question, source, self.name)
                for item, question in zip(items, questions, strict=True)
            ]


def _selection(item: StoredSelection, question: Question, source: Any, name: str) -> Selection:
    """A stored selection as one of this video."""
    times = source.timestamps
    if item.indices is not None:
        indices = np.array(item.indices, dtype=np.int64)
    else:
        shown = np.searchsorted(times, np.array(item.timestamps) + 1e-6, side="right") - 1
        indices = np.unique(np.clip(shown, 0, None)).astype(np.int64)
    if indices[-1] >= len(times):
        raise InputError(
            f"{name}: question {question.id} has frame {indices[-1]}, but {source.metadata.source} has {len(times)} "
            "frames; were the selections made from another copy of the video?"
        )
    warnings = () if len(indices) == item.num_frames else (f"{item.num_frames - len(indices)} frames repeat",)
    return Selection(
        question=question.question,
        selector=name,
        indices=indices,
        timestamps=times[indices],
        scores=np.zeros(len(indices)),
        candidate_indices=indices,
        candidate_timestamps=times[indices],
        video=source.metadata,
        video_fingerprint=source.fingerprint,
        warnings=warnings,
        origin=question.video,
    )
