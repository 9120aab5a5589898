"""One video and its questions: what every engine does, wherever it runs."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import EncodingCache
from ..encoding import VideoEncoding
from ..errors import InputError, RefocusError, TranscriptError, VideoDecodeError, VideoOpenError
from ..locations import check_offline, local_path, short_name
from ..questions import words_of
from ..selection import Selection
from ..selectors import FrameSelector
from ..selectors.algorithms.contract import check_num_frames
from ..selectors.asked import least_candidates
from ..selectors.words import words_wanted
from ..video import CandidateRule, Video, open_video
from ..video.inputs import VideoInput
from .output import OutputError, cannot_write, write_output
from .table import VideoJob

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE = 64  # fixed: a text's vector depends in its last digits on the texts encoded with it
SAMPLING = frozenset({"fps", "max_frames", "start", "end", "exact"})
WORDS = frozenset({"words", "ocr", "transcribe", "language"})
_choosing = threading.Lock()  # tokenizers are not made for several threads


@dataclass(frozen=True)
class Described:
    """What has to be known of a selector without loading it here; names as in `FrameSelector`."""

    name: str
    fingerprint: str
    rule: CandidateRule
    frame_size: tuple[int, int] | None
    needs_frames: bool
    choice_arguments: frozenset[str]

    @classmethod
    def of(cls, selector: FrameSelector) -> Described:
        """Describe a selector."""
        return cls(
            selector.name,
            selector.fingerprint,
            selector.rule,
            selector.frame_size,
            selector.needs_frames,
            selector.choice_arguments,
        )


@dataclass(frozen=True)
class BatchSettings:
    """What is asked of every video.

    Attributes:
        num_frames: how many frames K.
        sampling: arguments of `FrameSelector.encode` that decide the candidates.
        choice: arguments of the selector's choice.
        backend: decoder.
        frames: folder for the chosen frames; None to write none.
        scores: whether results hold the scores of all candidates.
        network: whether videos may be fetched from URLs.
        words: arguments of `FrameSelector.add_words`; a row's own field `words` counts more than the one here.
    """

    num_frames: int = 8
    sampling: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    frames: str | None = None
    scores: bool = False
    network: bool = True
    words: Mapping[str, Any] = field(default_factory=dict)

    def check(self, selector: FrameSelector | Described) -> None:
        """Find now what would be wrong with every video.

        Raises:
            InputError: naming the argument.
        """
        check_num_frames(self.num_frames)
        if self.words.get("words", "auto") not in ("auto", "off", True):
            raise InputError(
                "words must be 'auto' or 'off' for a batch; a transcript belongs into the row's field words"
            )
        unknown = sorted((self.sampling.keys() - SAMPLING) | (self.choice.keys() - selector.choice_arguments))
        if unknown:
            known = ", ".join(sorted(SAMPLING | WORDS | selector.choice_arguments))
            raise InputError(f"{selector.name!r} has no argument {', '.join(unknown)}; it understands {known}")
        selector.rule.limited(**{k: v for k, v in self.sampling.items() if k in ("fps", "max_frames")})

    def reading(self, given: VideoInput) -> dict[str, Any]:
        """Arguments of `FrameSelector.encode`: candidates enough for K frames, of short videos too.

        What a row says of its video counts more than what is said of all.
        """
        return {"min_frames": least_candidates(self.num_frames, self.choice), **self.sampling, **given.sampling}

    def check_network(self, video: str) -> None:
        """Refuse a URL where the network may not be used.

        Raises:
            InputError: naming the URL.
        """
        if not self.network:
            check_offline(video)

    def facts(self) -> dict[str, Any]:
        """What decides a result, as plain values."""
        return {
            "num_frames": self.num_frames,
            "sampling": dict(sorted(self.sampling.items())),
            "choice": dict(sorted(self.choice.items())),
            "backend": self.backend,
            "frames": self.frames,
            "scores": self.scores,
            **({"words": dict(sorted(self.words.items()))} if self.words else {}),
        }


def answer_video(
    selector: FrameSelector,
    job: VideoJob,
    *,
    settings: BatchSettings,
    cache: EncodingCache | None = None,
    decoded: Video | None = None,
    state: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """Results of all questions about a video; whatever is wrong with the video is a result too.

    Args:
        selector: who chooses.
        job: what is asked.
        settings: how.
        cache: where encodings are kept.
        decoded: the candidates, if somebody else has decoded them.
        state: of the file before it was decoded (see `file_state`).

    Returns:
        A result for each question, with its `position`.

    Raises:
        OutputError: if frames cannot be written.
    """
    try:
        settings.check_network(job.video)
        state = state or file_state(job.video)
        with ExitStack() as opened:
            given = job.given
            video = decoded or opened.enter_context(open_video(given, backend=settings.backend))
            # One decoder thread per video: the cores are used by several videos at once.
            encoding = selector.encode(
                video, cache=cache or False, progress=False, workers=1, **settings.reading(given)
            )
            results = _results(selector, job, encoding, settings, cache)
            if settings.frames is not None:
                if decoded is not None:
                    video = opened.enter_context(open_video(given, backend=settings.backend))
                _write_frames(video, encoding, results, Path(settings.frames))
        if file_state(job.video) != state:
            raise VideoDecodeError(f"{short_name(job.video)} changed while it was read; run again when it is complete")
        return [{"position": p, **r} for p, r in zip(job.positions, results, strict=True)]
    except OutputError:
        raise
    except Exception as error:
        if not isinstance(error, RefocusError):
            logger.warning("%s: unexpected error", short_name(job.video), exc_info=True)
        return failed(job, selector.name, settings.num_frames, error)


def failed(job: VideoJob, selector: str, num_frames: int, error: BaseException | str) -> list[dict[str, Any]]:
    """Results that say why there are none."""
    text = str(error) if isinstance(error, RefocusError | str) else f"{type(error).__name__}: {error}"
    return [{"position": place, **no_result(selector, num_frames, text)} for place in job.positions]


def no_result(selector: str, num_frames: int, error: str) -> dict[str, Any]:
    """The fields of a row without frames."""
    return {
        "selector": selector,
        "num_frames": num_frames,
        "indices": [],
        "timestamps": [],
        "frame_scores": [],
        "strategy": None,
        "duration": None,
        "warnings": [],
        "quotes": [],
        "files": [],
        "error": error,
    }


RESULT_FIELDS = frozenset({*no_result("", 0, ""), "scores", "candidate_indices", "candidate_timestamps"})
"""Columns of results. A table that has such columns already (results that are asked again) loses the old ones."""


def file_state(video: str) -> tuple[int, int] | None:
    """Size and time of change of a local file or folder; None for anything else."""
    try:
        status = os.stat(local_path(video) or "")
    except (OSError, ValueError, VideoOpenError):
        return None
    return status.st_size, status.st_mtime_ns


# -- results --------------------------------------------------------------------------------------


def _results(
    selector: FrameSelector,
    job: VideoJob,
    encoding: VideoEncoding,
    settings: BatchSettings,
    cache: EncodingCache | None,
) -> list[dict[str, Any]]:
    """A result for each question; rows with words of their own are answered apart."""
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(job.questions):
        own = [question.extra.get(name) for name in ("words", "words_start")]
        rows.setdefault(json.dumps(own, sort_keys=True, default=str), []).append(row)
    found: dict[int, dict[str, Any]] = {}
    for places in rows.values():
        try:
            source = words_of(job.questions[places[0]], settings.words.get("words", "off"))
            heard = _with_words(selector, job, encoding, source, settings, cache)
        except (TranscriptError, InputError) as error:  # of these rows alone
            found |= {place: no_result(selector.name, settings.num_frames, str(error)) for place in places}
            continue
        for start in range(0, len(places), QUESTIONS_AT_ONCE):
            part = places[start : start + QUESTIONS_AT_ONCE]
            with _choosing:
                selections = selector.select(
                    heard,
                    [job.questions[place].question for place in part],
                    num_frames=settings.num_frames,
                    options=[list(job.questions[place].options) or None for place in part],
                    **settings.choice,
                )
            found |= {place: _result(s, settings) for place, s in zip(part, selections, strict=True)}
    return [found[place] for place in range(len(job.questions))]


def _with_words(
    selector: FrameSelector,
    job: VideoJob,
    encoding: VideoEncoding,
    source: Any,
    settings: BatchSettings,
    cache: EncodingCache | None,
) -> VideoEncoding:
    if not words_wanted(source, settings.words.get("ocr")):
        return encoding
    if isinstance(source, str) and source not in ("auto", "off") and not settings.network:
        check_offline(source)
    wanted = {**settings.words, "words": source}
    return selector.add_words(encoding, video=job.video, cache=cache or False, **wanted)


def _result(selection: Selection, settings: BatchSettings) -> dict[str, Any]:
    # A repeated candidate has one score like the others of its number: the first stands for all.
    scores = _rounded(selection.scores[selection.picks])
    result = {
        "selector": selection.selector,
        "num_frames": settings.num_frames,
        "indices": selection.indices.tolist(),
        "timestamps": [round(float(time), 6) for time in selection.timestamps],
        "frame_scores": scores,
        "strategy": selection.strategy,
        "duration": round(selection.duration, 6),
        "warnings": list(selection.warnings),
        "quotes": [asdict(quote) for quote in selection.quotes],
        "files": [],
        "error": None,
    }
    if settings.scores:
        result["scores"] = _rounded(selection.scores)
        result["candidate_indices"] = selection.candidate_indices.tolist()
        result["candidate_timestamps"] = [round(float(time), 6) for time in selection.candidate_timestamps]
    return result


def _rounded(scores: np.ndarray) -> list[float | None]:
    """Four digits, which do not depend on the number of threads; None for a score that is not finite."""
    return [round(float(score), 4) if math.isfinite(score) else None for score in scores]


# -- frames ---------------------------------------------------------------------------------------


def _write_frames(video: Video, encoding: VideoEncoding, results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write every chosen frame of the video once, and name the files in the results."""
    if video.fingerprint != encoding.video_fingerprint:
        raise VideoDecodeError(f"{video.metadata.source} changed while it was read; run again when it is complete")
    stem = re.sub(r"[^\w.-]+", "-", Path(video.metadata.source).stem)[:60].strip(".-") or "video"
    same_name = hashlib.sha256(video.metadata.source.encode()).hexdigest()[:8]
    place = f"{stem}-{same_name}-{video.fingerprint[:8]}"
    times = dict(zip(encoding.indices.tolist(), encoding.timestamps.tolist(), strict=True))
    names = {i: f"{times[i]:010.3f}s_frame{i:06d}.jpg" for result in results for i in result["indices"]}
    for result in results:
        result["files"] = [f"{place}/{names[index]}" for index in result["indices"]]
    target = folder / place
    try:
        target.mkdir(parents=True, exist_ok=True)
        missing = sorted(index for index, name in names.items() if not (target / name).exists())
    except OSError as error:
        raise cannot_write(target, error) from error
    if not missing:
        return
    for piece in video.iter_frames(np.array(missing), chunk=4, workers=1):
        if not piece.valid.all():
            raise VideoDecodeError(f"{video.metadata.source}: the frame at {piece.timestamps[0]:.2f} s is damaged")
        for index, picture in zip(piece.indices.tolist(), piece.data, strict=True):
            _write_picture(target / names[index], picture)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    write_output(path, lambda file: Image.fromarray(picture).save(file, format="JPEG", quality=95), sync=False)
