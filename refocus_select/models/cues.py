"""What a policy may read of any dual encoder: cues that stay the same when the encoder is exchanged.

Nothing here depends on the axes, the number of dimensions or the scale of an encoder's vectors: frames are compared
with frames of the same video, and a text with the frames of one video. Turning all vectors by a rotation, or
multiplying them, changes no cue.

    video = video_cues(frames, times)                                  # of the video: once for all questions
    asked = entity_cues(frames, relative_texts(texts, null), video)    # of each question

Letters in shapes: V videos, B questions (V is B or 1), F frames, M things that a question names, h dimensions of the
encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

VIDEO_CUES = 16
ENTITY_CUES = 9
PICK_CUES = 3

_EPS = 1e-6
_SHARP = 3.0  # standard deviations to logits, where the frames that match best are weighed
_ELSEWHERE = 5  # candidates: what is farther away is another part of the video
_NEAR = 2.0  # candidates: how fast nearness in time fades
_LEAST_SPREAD = 0.1  # in cosine: what differs less between neighbours and strangers is noise, and is not blown up
_SAMPLE = 128  # frames of a long video from which the scale of its similarities is estimated


@dataclass(frozen=True)
class VideoCues:
    """What needs no question.

    Attributes:
        frames: cues of each frame, [V, F, VIDEO_CUES].
        alike: how alike two frames are, on the video's own scale (`similarity_scale`), [V, F, F].
        nearby: weights of the frames that are near and look the same, [V, F, F]; the rows sum to 1.
        next_scene: [V, F, F], near 1 where frame f lies in the scene right behind that of frame g, else near 0.
    """

    frames: Tensor
    alike: Tensor
    nearby: Tensor
    next_scene: Tensor


def relative_texts(texts: Tensor, null: Tensor) -> Tensor:
    """Text vectors relative to the mean of unrelated ones, of unit length: the gap between modalities cancels.

    Args:
        texts: [..., M, h], zero where there is none.
        null: mean of the vectors of unrelated texts, broadcastable to the texts.
    """
    there = texts.abs().sum(-1, keepdim=True) > 0
    return F.normalize(texts - null, dim=-1) * there


def standardised(values: Tensor) -> Tensor:
    """Zero mean and unit deviation over the frames (the last axis); zero where all are alike."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=_EPS)


def frame_similarity(frames: Tensor) -> Tensor:
    """How alike two frames of a video are, on the video's own scale: about 1 for neighbours, 0 for any two.

    Args:
        frames: [V, F, h].

    Returns:
        [V, F, F], between -1 and 2.
    """
    centred = F.normalize(frames - frames.mean(1, keepdim=True), dim=-1)
    cosine = centred @ centred.transpose(1, 2)
    count = frames.shape[1]
    if count < 5:  # too few pairs for a scale
        return cosine
    near = cosine.diagonal(1, 1, 2).quantile(0.75, dim=-1)
    step = -(-count // _SAMPLE)
    sample = cosine[:, ::step, ::step]
    first, second = torch.triu_indices(sample.shape[1], sample.shape[1], 3 if step == 1 else 1, device=frames.device)
    usual = sample[:, first, second].median(-1).values
    scale = (near - usual).clamp(min=_LEAST_SPREAD)
    return ((cosine - usual[:, None, None]) / scale[:, None, None]).clamp(-1, 2)


def video_cues(frames: Tensor, times: Tensor) -> VideoCues:
    """All cues of videos.

    Args:
        frames: vectors [V, F, h].
        times: seconds, ascending, [V, F].
    """
    frames = frames.float()
    alike = frame_similarity(frames)
    count = frames.shape[1]
    start, end = times[:, :1], times[:, -1:]
    place = ((times - start) / (end - start).clamp(min=_EPS)).float()
    angle = torch.pi * place
    changes = []
    for lag in (1, 2, 4):
        change = 1 - alike.diagonal(lag, 1, 2) if lag < count else alike.new_zeros(len(alike), 0)
        pad = min(lag, count)
        changes += [F.pad(change, (pad, 0)), F.pad(change, (0, pad))]
    unit = F.normalize(frames, dim=-1)
    unusual = standardised(1 - (unit * F.normalize(unit.mean(1, keepdim=True), dim=-1)).sum(-1))
    dense = torch.sigmoid(6 * (alike - 0.5)).mean(-1)
    index = torch.arange(count, device=frames.device)
    distance = (index[:, None] - index).abs()
    returns = alike.masked_fill(distance <= _ELSEWHERE, -1.0).amax(-1)
    nearby = (4 * alike - distance.float().log1p()).softmax(-1)
    clock = _scene_clock(alike)
    apart = clock[:, :, None] - clock[:, None, :]  # [V, f, g]: scenes from g to f
    next_scene = torch.exp(-((apart - 1) / 0.4).square())
    scenes = clock[:, -1:].clamp(min=1)
    cues = [
        2 * place - 1, angle.cos(), (2 * angle).cos(), (2 * angle).sin(), *changes, unusual, standardised(dense),
        3 * dense, returns, torch.log1p(clock), torch.log1p(scenes - clock),
    ]  # fmt: skip
    return VideoCues(torch.stack(cues, -1), alike, nearby, next_scene)


def _scene_clock(alike: Tensor) -> Tensor:
    """Time in scenes: how many cuts lie before a frame, [V, F]; half a cut for half a change."""
    change = 1 - alike.diagonal(1, 1, 2)
    return F.pad(((change - 0.4) / 0.4).clamp(0, 1), (1, 0)).cumsum(-1)


def similarities(frames: Tensor, texts: Tensor) -> Tensor:
    """Standardised cosine of each named thing over the frames, [B, M, F]; zero for things that are not there.

    Args:
        frames: [V, F, h].
        texts: from `relative_texts`, [B, M, h].
    """
    there = texts.abs().sum(-1, keepdim=True) > 0
    unit = F.normalize(frames.float(), dim=-1)
    return standardised(torch.matmul(texts.float(), unit.transpose(1, 2))) * there


def mean_similarity(matches: Tensor) -> Tensor:
    """Mean of `similarities` over the things that are there, [B, M, F] to [B, F]; zero where there is none."""
    return matches.sum(1) / (matches != 0).any(-1).sum(-1, keepdim=True).clamp(min=1)


def entity_cues(matches: Tensor, video: VideoCues) -> Tensor:
    """How the frames match each named thing.

    Args:
        matches: from `similarities`, [B, M, F].
        video: of V videos.

    Returns:
        [B, F, ENTITY_CUES * M]: standardised similarity, below the best, rise, rank, mean of the frames that look the
        same, likeness to the frames that match best (as it is, and below the best), and whether those frames show the
        scene before, or behind. Zero for things that are not there.
    """
    there = (matches != 0).any(-1, keepdim=True)
    count = matches.shape[-1]
    rank = matches.argsort(dim=-1, stable=True).argsort(dim=-1) / max(1, count - 1)
    smoothed = matches @ video.nearby.transpose(1, 2)
    best = torch.softmax(_SHARP * smoothed, -1)  # [B, M, F]
    resembling = best @ video.alike
    after = best @ video.next_scene.transpose(1, 2)
    before = best @ video.next_scene
    cues = [
        matches, 0.5 * (matches - matches.amax(-1, keepdim=True)), F.pad(matches.diff(dim=-1), (1, 0)), rank,
        smoothed, resembling, resembling - resembling.amax(-1, keepdim=True), after, before,
    ]  # fmt: skip
    return (torch.stack(cues, -1) * there[..., None]).transpose(1, 2).flatten(2)


class PickCues:
    """How each frame compares with what was picked so far: most like any pick, like the last one, near one in time.

    A map of the decoder's state weighs these and adds them to the logits: diversity that is learned.
    """

    def __init__(self, alike: Tensor, rows: int) -> None:
        """Before any pick.

        Args:
            alike: [V, F, F].
            rows: B * N, N selections of each question in turn.
        """
        count = alike.shape[-1]
        self._alike = alike
        self._video = torch.arange(len(alike), device=alike.device).repeat_interleave(rows // len(alike))
        self._index = torch.arange(count, device=alike.device)
        self._count = 0
        self.now = alike.new_zeros(rows, count, PICK_CUES)

    def add(self, picks: Tensor) -> None:
        """Take one more pick of each row, int64 [rows], into account; `now` is [rows, F, PICK_CUES]."""
        last = self._alike[self._video, picks]  # [rows, F]
        near = torch.exp(-(picks[:, None] - self._index).abs() / _NEAR)
        if self._count:
            most, _, nearest = self.now.unbind(-1)
            self.now = torch.stack([torch.maximum(most, last), last, torch.maximum(nearest, near)], -1)
        else:
            self.now = torch.stack([last, last, near], -1)
        self._count += 1


def all_pick_cues(alike: Tensor, picks: Tensor) -> Tensor:
    """The same for given picks, before each of them at once.

    Args:
        alike: [V, F, F].
        picks: int64 [rows, Q], rows as for `PickCues`.

    Returns:
        [rows, Q, F, PICK_CUES].
    """
    rows, count = len(picks), alike.shape[-1]
    video = torch.arange(len(alike), device=alike.device).repeat_interleave(rows // len(alike))
    index = torch.arange(count, device=alike.device)
    last = alike[video[:, None], picks]  # [rows, Q, F]
    near = torch.exp(-(picks[..., None] - index).abs() / _NEAR)
    cues = torch.stack([last.cummax(1).values, last, near.cummax(1).values], -1)
    return F.pad(cues, (0, 0, 0, 0, 1, 0))[:, :-1]
