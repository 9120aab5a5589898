"""What happens between the decoder and an encoder: good pictures pass, the rest is remembered and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np

from ..video import Frames


class CandidateReader:
    """Passes good pictures on, remembers what arrived, and moves the progress bar."""

    def __init__(self, planned: np.ndarray, progress: bool | Callable[[int, int], None] | None) -> None:
        self._total = len(planned)
        self._keep_repeats = len(np.unique(planned)) < len(planned)  # a rule that repeats frames means to
        self._progress = progress
        self._seen: set[int] = set()
        self._arrived: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._damaged: list[float] = []

    def read(self, stream: Iterator[Frames]) -> Iterator[Frames]:
        from tqdm import tqdm

        report = self._progress if callable(self._progress) else None
        disable = None if self._progress is None else report is not None or not self._progress
        done = 0
        if report is not None:
            report(done, self._total)
        with tqdm(total=self._total, desc="candidates", unit="frame", disable=disable, leave=False) as bar:
            for piece in stream:
                bar.update(len(piece))
                done += len(piece)
                if report is not None:
                    report(done, self._total)
                keep = piece.valid.copy()
                self._damaged.extend(float(t) for t in piece.timestamps[~keep])
                if not self._keep_repeats:  # two candidates may have moved to one keyframe
                    for row, index in enumerate(piece.indices.tolist()):
                        if keep[row]:
                            keep[row] = index not in self._seen
                            self._seen.add(index)
                if not keep.any():
                    continue
                good = piece if keep.all() else _rows(piece, keep)
                self._arrived.append((good.positions, good.indices, good.timestamps))
                yield good

    def arrived(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, frame numbers and times of the pictures passed on, in the order of arrival."""
        if not self._arrived:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        positions, indices, timestamps = (np.concatenate(part) for part in zip(*self._arrived, strict=True))
        return positions, indices, timestamps

    def warnings(self) -> tuple[str, ...]:
        if not self._damaged:
            return ()
        first, last = min(self._damaged), max(self._damaged)
        return (
            f"{len(self._damaged)} of {self._total} candidate frames are damaged "
            f"(near {first:.2f} s to {last:.2f} s) and were left out",
        )


def _rows(piece: Frames, keep: np.ndarray) -> Frames:
    return Frames(**{field.name: getattr(piece, field.name)[keep] for field in fields(Frames)})
