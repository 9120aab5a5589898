"""The questions about real clips: known spans, splits that share nothing, wordings that training does not use."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
import torch

from benchmarks.clips.compose import BLANKS, FRAMES, WORDINGS, compose, read_clips
from benchmarks.clips.videos import JoinedVideo, clip_frames, load_questions
from benchmarks.quality.real_clips import outcome
from refocus_select.train_selector.storyboards.natural import NATURAL
from refocus_select.train_selector.storyboards.phrasings import PHRASINGS


def test_the_questions_stay_the_same_everywhere():
    digest = hashlib.sha256(json.dumps(compose(), separators=(",", ":")).encode()).hexdigest()
    assert digest == "43db4d7a1eef47146b56a09f3564024e9fdf2f9e9f5a80733e65db01750a9227"


def test_splits_share_no_clip_and_no_wording():
    clips = {split: [clip for clip in read_clips() if clip["split"] == split] for split in WORDINGS}
    files = {split: {(clip["file"], str(clip.get("part"))) for clip in rows} for split, rows in clips.items()}
    assert not files["validation"] & files["test"]
    asked = {split: {row["question"] for row in load_questions(split)} for split in WORDINGS}
    assert not asked["validation"] & asked["test"]
    wordings = {split: {text for texts in WORDINGS[split].values() for text in texts} for split in WORDINGS}
    assert not wordings["validation"] & wordings["test"]


# These three were composed for validation before they came into training as well.
SHARED = {"what is _ doing?", "what happens between _ and _?", "how does the video end?"}


def test_no_wording_is_trained_on():
    def plain(texts):
        return {re.sub(r"(the )?\{\w+\}", "_", text.lower()) for text in texts}

    trained = plain(text for splits in (*PHRASINGS.values(), *NATURAL.values()) for text in splits["train"])
    for split, known in (("test", set()), ("validation", SHARED)):
        assert plain(text for texts in WORDINGS[split].values() for text in texts) & trained == known


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_question_has_one_meaning_in_its_video(split):
    clips = {clip["id"]: clip for clip in read_clips()}
    for row in load_questions(split):
        shown = {name for name, _, _ in row["scenes"]} - set(BLANKS)
        things = [thing for name in shown for thing in clips[name]["things"]]
        assert len(things) == len(set(things)), row["id"]
        assert all(start >= 0 and start + length <= FRAMES for _, start, length in row["scenes"])
        assert bool(row["answer"]) == (row["kind"] != "absent")
        if row["kind"] in ("look-up", "blank"):
            assert row["question"] in clips[row["scenes"][row["answer"][0]][0]]["ask"]
        if row["kind"] == "absent":
            missing = next(clip for clip in clips.values() if row["question"] in clip["ask"])
            assert not set(missing["things"]) & set(things)
        if row["kind"] == "people":
            people = [number for number, (name, _, _) in enumerate(row["scenes"]) if clips[name]["people"]]
            assert people == row["answer"]
        if row["kind"] in ("after", "before"):
            step = 1 if row["kind"] == "after" else -1
            assert row["answer"] == [row["anchor"][0] + step]
            assert clips[row["scenes"][row["anchor"][0]][0]]["name"] in row["question"]
        if row["kind"] in ("first time", "last time"):
            again = row["scenes"][row["answer"][0]][0]
            twice = [number for number, (name, _, _) in enumerate(row["scenes"]) if name == again]
            assert len(twice) == 2
            assert row["answer"] == [twice[0 if row["kind"] == "first time" else 1]]
            assert twice[1] - twice[0] > 1


def test_a_joined_video_and_what_is_counted():
    row = {"id": "x", "kind": "after", "question": "And after the dog?", "answer": [2], "anchor": [1],
           "scenes": [["cat", 0, 2], ["dog", 3, 1], ["owl", 0, 3], ["black", 0, 2]]}  # fmt: skip
    vectors = {name: torch.full((FRAMES, 4), float(i)) for i, name in enumerate(("cat", "dog", "owl", "black"))}

    class Encoder:
        fingerprint = "none"

    video = JoinedVideo(row, vectors, Encoder())
    assert video.encoding.tensors["embeddings"][:, 0].tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
    assert video.question.evidence == ((1.5, 2.5), (1.0, 1.0))
    assert outcome(video, np.array([2, 5])) == (1.0, 0.5, 1.0, 0.0)
    assert outcome(video, np.array([3, 4, 6, 7])) == (1.0, 0.5, 0.0, 0.5)
    assert outcome(video, np.array([0, 2])) == (0.0, 0.0, 0.0, 0.0)


def test_clips_are_read_from_their_part_and_missing_ones_name_the_remedy(tmp_path):
    clip = next(clip for clip in read_clips() if clip["id"] == "credits")
    frames = clip_frames(clip, tmp_path, (36, 64))  # the film lies in the repository
    assert frames.shape == (FRAMES, 36, 64, 3)
    assert frames.mean() < 80  # dark pages
    with pytest.raises(FileNotFoundError, match="fetch"):
        clip_frames(next(clip for clip in read_clips() if clip["id"] == "fox"), tmp_path, (36, 64))
