"""From the files of composed videos to answers, and what blur does to the picks."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from refocus_select.encoding import VideoEncoding
from refocus_select.questions import Question
from refocus_select.reference import Request
from refocus_select.reference.clips import EncodedClip, VideoClip
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.storyboards import Storyboards

from ..storyboards.check_pixels import EVERY_FRAME
from ..storyboards.render import frames, render
from .contenders import Picker
from .figures import mean_of

BLURS = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Radius of the Gaussian, as a share of the picture's side."""


def end_to_end(
    boards: Storyboards, root: Path, pickers: Mapping[str, Picker], reader: ReaderReference, num_frames: int
) -> dict[str, Any]:
    """Accuracy from the bank's features and from H.264 files that are decoded and encoded again."""
    right: dict[str, list[list[float]]] = {name: [] for name in pickers}
    same: dict[str, list[float]] = {name: [] for name in pickers}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(len(boards)):
            question, layout = boards.item(index)
            stored = boards(question.video)
            file = render(boards.bank, layout, root, Path(folder) / f"{index}.mp4")
            decoded = EncodedClip(VideoClip(str(file), EVERY_FRAME).encoding(reader.selector))
            file.unlink()
            picked = {}
            for name, clip in (("features", stored), ("pixels", decoded)):
                encoding = clip.encoding(reader.selector)
                picks = np.stack([pick(question, encoding, num_frames) for pick in pickers.values()])
                answers = reader.option_logits([Request(question, clip, torch.from_numpy(picks))])[0].argmax(1)
                picked[name] = picks, (answers == question.answer).float().tolist()
            for i, name in enumerate(pickers):
                right[name].append([picked["features"][1][i], picked["pixels"][1][i]])
                same[name].append(np.isin(picked["features"][0][i], picked["pixels"][0][i]).mean())
    return {
        "questions": len(boards),
        "K": num_frames,
        "rows": {
            name: {
                "features": mean_of([pair[0] for pair in pairs]),
                "pixels": mean_of([pair[1] for pair in pairs]),
                "same picks": round(float(np.mean(same[name])), 4),
            }
            for name, pairs in right.items()
        },
    }


def blur_test(boards: Storyboards, root: Path, chooser: VectorPolicySelector, num_frames: int) -> dict[str, Any]:
    """How often each scene of the evidence is among the picks when the frames of the evidence are blurred.

    A policy that looks leaves frames that show nothing any more; one that has learned habits goes on picking them.
    """
    found: dict[float, list[float]] = {blur: [] for blur in BLURS}
    encoder = chooser.encoder
    for index in range(len(boards)):
        question, layout = boards.item(index)
        pictures = [Image.fromarray(picture) for picture in frames(boards.bank, layout, root)]
        times = layout.timestamps
        spans = [np.flatnonzero((times >= a) & (times <= b)) for a, b in question.evidence]
        shown = np.unique(np.concatenate(spans))
        clear = encoder.encode_frames(np.stack([np.asarray(picture) for picture in pictures]))
        stored = boards(question.video).encoding(chooser)
        for blur in BLURS:
            vectors = clear.clone()
            if blur:
                radius = ImageFilter.GaussianBlur(blur * pictures[0].width)
                hidden = np.stack([np.asarray(pictures[i].filter(radius)) for i in shown])
                vectors[torch.from_numpy(shown)] = encoder.encode_frames(hidden)
            picks = _picks(chooser, stored, vectors, question, num_frames)
            found[blur].append(float(np.mean([np.isin(span, picks).any() for span in spans])))
    return {
        "questions": len(boards),
        "K": num_frames,
        "evidence scenes picked": {str(blur): mean_of(values) for blur, values in found.items()},
    }


def _picks(
    chooser: VectorPolicySelector, like: VideoEncoding, vectors: torch.Tensor, question: Question, num_frames: int
) -> np.ndarray:
    encoding = dataclasses.replace(like, tensors={"embeddings": vectors})
    return np.searchsorted(like.indices, chooser.select(encoding, question.question, num_frames=num_frames).indices)
