"""`FrameSelector`: the one interface of every selector. Subclasses encode frames and choose; the rest is here."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np

from ..arguments import ENCODE_ARGUMENTS
from ..cache import EncodingCache, encoding_key, find_cache
from ..encoding import VideoEncoding, check_tensors
from ..errors import EncodingError, InputError, VideoDecodeError
from ..selection import Selection
from ..video import CandidatePlan, CandidateRule, Frames, Video, VideoMetadata, opened, read_input, sample_candidates
from ..weights import DEFAULT_SELECTOR
from .algorithms.contract import complete_picks
from .asked import checked_question, frames_asked_for, least_candidates
from .reading import CandidateReader
from .registry import load_selector
from .words import choices_by_route, cover_lines, with_quotes, with_words, words_wanted

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from ..arguments import LoadArguments, SelectArguments, VideoSource
    from ..words.find import WordSource
    from ..words.match import WordMatch
    from ..words.speech import Recogniser
    from ..words.written import TextReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What a selector answers for one question.

    Attributes:
        picks: positions among the candidates, distinct, in any order, int64 [K]; the most important first where the
            selector decides how many are enough.
        scores: one number per candidate for plots and refills, larger is better, float64 [F].
        strategy: "selected" when the question decided, "uniform_fallback" when nothing did, and the frames are spread
            evenly over the video.
        warnings: what the user should know.
        enough: how many of the picks are enough for the question; None if the selector cannot tell, or more are needed.
    """

    picks: np.ndarray
    scores: np.ndarray
    strategy: str = "selected"
    warnings: tuple[str, ...] = ()
    enough: int | None = None


class FrameSelector(ABC):
    """Chooses the frames of a video that answer a question.

        selector = FrameSelector.from_pretrained("mini-policy")
        encoding = selector.encode("match.mp4")              # once per video
        selector.select(encoding, "Who scores first?", num_frames=8)

    A subclass sets the attributes below and implements `encode_frames` and `choose`.

    Attributes:
        name: for people, e.g. "mini" or "interlive/ReFoCUS-1.3B".
        fingerprint: identity of weights and configuration: of all that decides a choice.
        rule: which candidate frames are drawn from a video.
        frame_size: (height, width) at which candidates are decoded; None for the video's own size.
        ordered: whether `encode_frames` needs the frames in order (a recurrence) or in any order (faster).
        needs_frames: False for selectors that need no picture at all: nothing is decoded.
        reads_words: False for selectors that take no account of what is said and written.
        choice_arguments: names of the keyword arguments that `choose` understands.
        decides_number: whether it can tell how many frames a question needs (`num_frames="auto"`).
    """

    name: str
    fingerprint: str
    rule: CandidateRule
    frame_size: tuple[int, int] | None = None
    ordered: ClassVar[bool] = False
    needs_frames: ClassVar[bool] = True
    reads_words: ClassVar[bool] = True
    choice_arguments: ClassVar[frozenset[str]] = frozenset()
    decides_number: ClassVar[bool] = False

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] = DEFAULT_SELECTOR, **kwargs: Unpack[LoadArguments]
    ) -> FrameSelector:
        """Load a selector by name ("mini-policy", "mini", "aks", …), from a local folder, or from the Hugging Face Hub.

        Args:
            name_or_path: a built-in or registered name, a folder, or a Hub id such as "interlive/ReFoCUS-1.3B".
            **kwargs: `device`, `dtype`; for algorithms and for policies that read vectors `encoder` (see
                `load_encoder`); for an algorithm its settings (see `AlgorithmSelector`); for the Hub also `revision`,
                `token`, `cache_dir`, `local_files_only`.

        Raises:
            SelectorLoadError: naming what is missing or damaged, and the remedy.
            EncoderError: if the encoder cannot be used, or the policy was not trained for it.
        """
        selector = load_selector(name_or_path, **kwargs)
        if not isinstance(selector, cls):
            raise InputError(
                f"{os.fspath(name_or_path)!r} is a {type(selector).__name__}, not a {cls.__name__}; "
                "load it with FrameSelector.from_pretrained"
            )
        return selector

    # -- encoding ---------------------------------------------------------------------------------

    @property
    def encoding_fingerprint(self) -> str:
        """Identity of what decides an encoding; encodings of another identity are refused.

        Selectors with one value share encodings: all that read the vectors of one encoder, for instance.
        """
        return self.fingerprint

    def reads(self, fingerprint: str) -> bool:
        """Whether it can choose from encodings of this identity."""
        return fingerprint == self.encoding_fingerprint

    @property
    def encoding_name(self) -> str:
        """What makes the encodings, for people."""
        return self.name

    def encode(
        self,
        video: VideoSource,
        *,
        candidates: CandidateRule | CandidatePlan | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        min_frames: int | None = None,
        start: float | None = None,
        end: float | None = None,
        exact: bool = True,
        workers: int | None = None,
        backend: str | None = None,
        progress: bool | Callable[[int, int], None] | None = None,
        cache: EncodingCache | str | os.PathLike[str] | bool | None = None,
        words: WordSource = None,
        ocr: bool | TextReader = False,
        transcribe: str | Recogniser | None = None,
        language: str | None = None,
    ) -> VideoEncoding:
        """Read the candidate frames of a video and keep what later questions need.

        Args:
            video: anything that `open_video` takes. What a dict says of sampling (`video_start`, `fps`, …) is obeyed
                where the arguments below say nothing.
            candidates: a rule for choosing candidates, or the very frames to read (default: the selector's own rule).
            fps: candidates per second at most (default: the selector's own rule).
            max_frames: candidates in all at most (default: the selector's own rule).
            min_frames: candidates in all at least, as far as the video has frames: short videos are sampled more
                densely than `fps` (default: the selector's own rule; `select` asks for `num_frames`).
            start: where the part to look at begins, in seconds.
            end: where it ends, in seconds.
            exact: False lets each candidate move to a near keyframe (faster; the true times are reported).
            workers: decoder threads (default: one per core).
            backend: "pyav", "torchcodec" or "decord" (default: chosen for you).
            progress: show a progress bar (default: only on a terminal); or a function that is told how many candidates
                are read, of how many. An exception that it raises ends the reading.
            cache: where encodings are kept between runs: a folder, True for the default one, an `EncodingCache`, or
                False for nowhere (default: REFOCUS_CACHE_DIR if it is set, else nowhere).
            words: what is said in the video: "auto" takes a transcript beside the file or a subtitle track in it, if
                there is one; or a path, a `Transcript`, or the result of a speech recogniser (default: no words).
            ocr: read the text in the candidate frames as well (needs the extra `ocr`); or a function that does it.
            transcribe: who listens where no transcript is found: a Hub id, "faster-whisper:small", or a function.
            language: which subtitles are preferred, and what is spoken, such as "en".

        Returns:
            The encoding of F candidates; damaged pictures are left out and reported in `warnings`.

        Raises:
            VideoError: if the video cannot be opened, or not one candidate can be decoded.
            InputError: if an argument is out of range.
            TranscriptError: if a transcript that was named cannot be used.
            MissingDependencyError: if OCR or a recogniser is wanted and not installed.
        """
        handed = read_input(video)
        wording = {"words": words, "ocr": ocr, "transcribe": transcribe, "language": language}
        asked = {"fps": fps, "max_frames": max_frames, "min_frames": min_frames, "start": start, "end": end}
        asked = {name: value for name, value in asked.items() if value is not None}
        with opened(handed, backend) as source:
            plan = self._plan(source, candidates, asked, handed.sampling)
            size = self.decode_size(source.metadata)
            store = find_cache(cache) if self.needs_frames else None
            key = encoding_key(source, self.encoding_fingerprint, plan, size=size, exact=exact) if store else ""
            encoding = self._stored(store, key) if store else None
            if encoding is None:
                encoding = self._read(source, plan, size=size, exact=exact, workers=workers, progress=progress)
                if store:
                    store.put(key, encoding)
            if self.reads_words:
                encoder = getattr(self, "encoder", None)
                encoding = with_words(source, encoding, wording, encoder=encoder, path=handed.path, store=store)
            origin = source if handed.path is None else handed.path
            return replace(encoding, video=source.metadata, origin=origin)

    def add_words(
        self,
        encoding: VideoEncoding,
        words: WordSource = "auto",
        *,
        video: VideoSource | None = None,
        ocr: bool | TextReader = False,
        transcribe: str | Recogniser | None = None,
        language: str | None = None,
        cache: EncodingCache | str | os.PathLike[str] | bool | None = None,
    ) -> VideoEncoding:
        """The same encoding with the words of its video, in place of those that it has; frames are not encoded again.

        Selections by selectors that take no account of words have `lines` then, but no `quotes`.

        Args:
            encoding: of a video.
            words, ocr, transcribe, language, cache: see `encode`.
            video: the video itself (default: where the encoding says that it comes from).

        Raises:
            VideoError, TranscriptError, MissingDependencyError: see `encode`.
        """
        plain = replace(encoding, words=None)
        if not words_wanted(words, ocr, transcribe):
            return plain
        handed = read_input(video if video is not None else encoding.origin or encoding.video.source)
        asked = {"words": words, "ocr": ocr, "transcribe": transcribe, "language": language}
        with opened(handed) as source:
            encoder, store = getattr(self, "encoder", None), find_cache(cache)
            return with_words(source, plain, asked, encoder=encoder, path=handed.path, store=store)

    def _stored(self, store: EncodingCache, key: str) -> VideoEncoding | None:
        """What the cache has, if this selector can use it."""
        encoding = store.get(key)
        try:
            if encoding is not None:
                self.check_encoding(encoding)
        except EncodingError as error:
            logger.warning("an entry of the cache is not used: %s", error)
            return None
        return encoding

    def _plan(
        self,
        source: Video,
        candidates: CandidateRule | CandidatePlan | None,
        asked: Mapping[str, Any],
        beside: Mapping[str, Any],
    ) -> CandidatePlan:
        """The candidates; sampling that the caller has `asked` for counts more than what stands `beside` the video."""
        if not isinstance(candidates, CandidatePlan):
            if candidates is not None and not isinstance(candidates, CandidateRule):
                raise InputError(
                    f"candidates must be a CandidateRule or a CandidatePlan, not {type(candidates).__name__}"
                )
            return sample_candidates(source, self.rule if candidates is None else candidates, **{**beside, **asked})
        if asked:
            raise InputError(f"{', '.join(asked)}: a CandidatePlan names every frame; give a CandidateRule instead")
        if not len(candidates):
            raise InputError("the CandidatePlan holds no frame")
        count = len(source.timestamps)
        if candidates.indices.min() < 0 or candidates.indices.max() >= count:
            raise InputError(f"{source.metadata.source}: the CandidatePlan holds frames outside 0..{count - 1}")
        return candidates

    def _read(
        self,
        source: Video,
        plan: CandidatePlan,
        *,
        size: tuple[int, int] | None,
        exact: bool,
        workers: int | None,
        progress: bool | Callable[[int, int], None] | None,
    ) -> VideoEncoding:
        """Decode and encode the candidates of a plan."""
        unusual = source.warnings  # before reading: damaged pictures are reported by the reader
        reader = CandidateReader(plan.indices, progress)
        per_frame: dict[str, torch.Tensor] = {}
        per_video: dict[str, torch.Tensor] = {}
        if self.needs_frames:
            height, width = size or (source.metadata.height, source.metadata.width)
            chunk = int(np.clip(_CHUNK_BYTES // (3 * height * width), 1, 32))
            stream = source.iter_frames(
                plan.indices, size=size, exact=exact, workers=workers, chunk=chunk, ordered=self.ordered
            )
            per_frame, per_video = self.encode_frames(reader.read(stream), len(plan.indices))
            positions, indices, timestamps = reader.arrived()
        else:
            indices, first = np.unique(plan.indices, return_index=True)
            positions, timestamps = np.arange(len(indices)), plan.timestamps[first]
        if not len(positions):
            raise VideoDecodeError(
                f"{source.metadata.source}: not one of the {len(plan.indices)} candidate frames could be decoded; "
                "the file is damaged there: choose another range with start= and end=, or repair the file"
            )
        order = np.argsort(positions, kind="stable")
        return VideoEncoding(
            tensors={**{name: t[order] for name, t in per_frame.items()}, **per_video},
            indices=indices[order],
            timestamps=timestamps[order],
            video=source.metadata,
            video_fingerprint=source.fingerprint,
            encoder=self.encoding_name,
            encoder_fingerprint=self.encoding_fingerprint,
            warnings=(*unusual, *reader.warnings()),
        )

    def decode_size(self, metadata: VideoMetadata) -> tuple[int, int] | None:
        """(height, width) at which the candidates of this video are decoded; None for the video's own size."""
        return self.frame_size

    @abstractmethod
    def encode_frames(
        self, frames: Iterator[Frames], total: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Turn candidate frames into tensors.

        Args:
            frames: pieces of the candidates, all of them good pictures; in order if `ordered`.
            total: how many candidates are expected at most.

        Returns:
            Tensors with one row per frame in the order of arrival, and tensors of the video as a whole.
        """

    # -- selection --------------------------------------------------------------------------------

    @overload
    def select(  # type: ignore[overload-overlap]
        self,
        video: VideoSource | VideoEncoding,
        question: str,
        *,
        num_frames: int | Literal["auto"] = ...,
        options: Sequence[str] | None = ...,
        **kwargs: Unpack[SelectArguments],
    ) -> Selection: ...
    @overload
    def select(
        self,
        video: VideoSource | VideoEncoding,
        question: Sequence[str],
        *,
        num_frames: int | Literal["auto"] = ...,
        options: Sequence[Sequence[str] | None] | None = ...,
        **kwargs: Unpack[SelectArguments],
    ) -> list[Selection]: ...
    def select(
        self,
        video: VideoSource | VideoEncoding,
        question: str | Sequence[str],
        *,
        num_frames: int | Literal["auto"] = 8,
        options: Sequence[str] | Sequence[Sequence[str] | None] | None = None,
        **kwargs: Unpack[SelectArguments],
    ) -> Selection | list[Selection]:
        """Choose the frames that answer a question.

        Args:
            video: an encoding, or anything that `encode` takes.
            question: one question, or several (a list gives a list).
            num_frames: how many frames K; `nframes` or `num_frames` of a dict counts more. A video or part with fewer
                candidates is sampled more densely, up to every frame; an encoding, or a video with fewer frames, gives
                all it has and a warning. "auto": as many as the question needs, between `at_least` (default 1) and
                `at_most` (default 16), for selectors that can tell.
            options: answer options, one list per question; only policies trained to see them use them.
            **kwargs: arguments of `encode` if `video` is not an encoding, and of the selector's choice
                (for policies: `sample`, `temperature`, `seed`, `num_samples`, `protocol`).

        Returns:
            Exactly min(num_frames, candidates) distinct frames, sorted in time, per question.

        Raises:
            InputError: for an empty question or an impossible number of frames, or "auto" where the selector cannot
                tell.
            EncodingError: if the encoding was made by another encoder.
            VideoError: see `encode`.
        """
        handed = read_input(video)
        num_frames = num_frames if handed.num_frames is None else handed.num_frames
        single = isinstance(question, str)
        questions = [checked_question(q) for q in ([question] if single else question)]
        given: dict[str, Any] = dict(kwargs)
        least, size = frames_asked_for(self, num_frames, given)
        options_of: list[Sequence[str] | None] = [None] * len(questions)
        if options is not None:
            options_of = [options] if single else list(options)  # type: ignore[list-item]
            if len(options_of) != len(questions):
                raise InputError(f"{len(questions)} questions but options for {len(options_of)}; give one list each")
        unknown = sorted(given.keys() - self.choice_arguments - ENCODE_ARGUMENTS)
        if unknown:
            understood = ", ".join(sorted(ENCODE_ARGUMENTS | self.choice_arguments))
            raise InputError(f"{self.name!r} has no argument {', '.join(unknown)}; it understands {understood}")
        if isinstance(handed.source, VideoEncoding):
            unused = sorted(ENCODE_ARGUMENTS & (given.keys() | handed.sampling.keys()))
            if unused:
                raise InputError(f"{', '.join(unused)}: decided when the video was encoded; encode it again instead")
            encoding = handed.source
        else:
            reading = {k: given.pop(k) for k in list(given) if k in ENCODE_ARGUMENTS}
            if not isinstance(reading.get("candidates"), CandidatePlan):
                fewest = reading.get("min_frames") or handed.sampling.get("min_frames", 1)
                reading["min_frames"] = max(fewest, least_candidates(size, given))
            encoding = self.encode(handed, **reading)  # type: ignore[arg-type]  # what read_input gave, it takes back
        if not self.reads(encoding.encoder_fingerprint):
            raise EncodingError(
                f"this encoding was made by {encoding.encoder!r} ({encoding.encoder_fingerprint[:12]}), but "
                f"{self.name!r} reads those of {self.encoding_name!r} ({self.encoding_fingerprint[:12]}); encode the "
                "video again with this selector"
            )
        if encoding is handed.source:
            self.check_encoding(encoding)
        if not questions:
            return []
        choices, matches = choices_by_route(self, encoding, questions, size, options_of, given)
        selections = []
        for asked, choice, match in zip(questions, choices, matches, strict=True):
            count, kept = size, choice
            if least is not None and choice.enough is not None:
                count = min(size, max(least, choice.enough))
                kept = replace(choice, picks=choice.picks[:count])
            selections.append(with_quotes(self._selection(encoding, asked, kept, count), encoding, match))
        return selections[0] if single else selections

    def check_encoding(self, encoding: VideoEncoding) -> None:
        """Refuse an encoding from elsewhere that `choose` could not read, though its fingerprint is right.

        Raises:
            EncodingError: saying what is wrong.
        """
        check_tensors(encoding, {})  # subclasses name what they read

    @abstractmethod
    def choose(
        self,
        encoding: VideoEncoding,
        questions: list[str],
        num_frames: int,
        options: list[Sequence[str] | None],
        **kwargs: Any,
    ) -> list[Choice]:
        """Choose at most min(num_frames, F) candidates for each question; too few are refilled by score."""

    def choose_by_words(
        self, encoding: VideoEncoding, questions: list[str], num_frames: int, matches: list[WordMatch], **kwargs: Any
    ) -> list[Choice]:
        """Choose where the words decide: by default the frames that are likeliest to show what is meant.

        Args:
            encoding: of F candidates, with words.
            questions: those that the words answer.
            num_frames: K.
            matches: how the words answer each question; `gains` says what each candidate gains from the lines said or
                shown there.
            **kwargs: as for `choose`.
        """
        return [
            Choice(cover_lines(match, encoding.timestamps, num_frames), match.gains.max(axis=0)) for match in matches
        ]

    def picture_prominence(self, encoding: VideoEncoding, question: str) -> float:
        """How far what a question names stands out in the pictures, in deviations over unrelated things.

        It keeps the words from deciding questions that do not ask for words. Selectors that cannot tell leave it at
        -inf.
        """
        return float("-inf")

    def question_warnings(self, question: str) -> tuple[str, ...]:
        """What whoever asks this question should know, whatever is chosen."""
        return ()

    def _selection(self, encoding: VideoEncoding, question: str, choice: Choice, num_frames: int) -> Selection:
        """Hold the contract: exactly min(K, distinct candidates) distinct frames, sorted."""
        scores = np.nan_to_num(np.asarray(choice.scores, dtype=np.float64), nan=-np.inf, neginf=-np.inf)
        picks = complete_picks(np.asarray(choice.picks, dtype=np.int64), scores, encoding.indices, num_frames)
        of_question = (*self.question_warnings(question), *choice.warnings)
        warnings = [*encoding.warnings, *of_question]
        if len(picks) < num_frames:
            warnings.append(f"{num_frames} frames asked for, only {len(picks)} candidates are there: all are returned")
        for warning in of_question:
            logger.info("%s: %s", encoding.video.source, warning)
        return Selection(
            question=question,
            selector=self.name,
            indices=encoding.indices[picks],
            timestamps=encoding.timestamps[picks],
            scores=scores,
            candidate_indices=encoding.indices,
            candidate_timestamps=encoding.timestamps,
            video=encoding.video,
            video_fingerprint=encoding.video_fingerprint,
            strategy=choice.strategy,
            enough=choice.enough,
            warnings=tuple(warnings),
            origin=encoding.origin,
        )


_CHUNK_BYTES = 64 * 2**20  # of pictures handed over at once: 4K pictures come in small pieces
