"""The trained policy that the package ships."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, select_frames, weights
from refocus_select.errors import SelectorLoadError
from refocus_select.reference import Request
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.algorithms import SCORED, uniform
from refocus_select.selectors.vector_policy import VectorPolicySelector
from refocus_select.train_selector.storyboards import Bank, Storyboards

from ..video.clips import encode

BOARDS = Path(__file__).parents[2] / "benchmarks/storyboards"


@pytest.fixture(scope="module")
def policy() -> VectorPolicySelector:
    loaded = FrameSelector.from_pretrained("mini-policy", device="cpu")
    assert isinstance(loaded, VectorPolicySelector)
    return loaded


def test_it_answers_more_than_every_frame_rule_from_its_own_vectors(policy: VectorPolicySelector) -> None:
    """Held-out names, pictures and wordings, and a reader that never gave a reward."""
    boards = Storyboards(Bank.load(BOARDS / "bank"), "test", seed=4242, num_questions=160)
    reader = ReaderReference.from_pretrained(BOARDS / "readers/recurrent", encoder=policy.encoder)  # type: ignore[arg-type]
    right = dict.fromkeys(("uniform", "topk", "mmr", "policy", "another question"), 0.0)
    for place, question in enumerate(boards):
        clip = boards(question.video)
        encoding = clip.encoding(policy)
        vectors = encoding.tensors["embeddings"]
        scores = (vectors @ policy.encoder.encode_text([question.question])[0]).double().numpy()
        other = boards[(place + 7) % len(boards)].question
        picks = np.stack([
            uniform(encoding.timestamps, 8),
            SCORED["topk"](scores, 8, timestamps=encoding.timestamps),
            SCORED["mmr"](scores, 8, timestamps=encoding.timestamps, embeddings=vectors.numpy()),
            policy.select(encoding, question.question, num_frames=8).indices,
            policy.select(encoding, other, num_frames=8).indices,
        ])  # fmt: skip
        answers = reader.option_logits([Request(question, clip, torch.from_numpy(picks))])[0].argmax(1)
        for name, answer in zip(right, answers.tolist(), strict=True):
            right[name] += (answer == question.answer) / len(boards)
    assert right["policy"] > right["uniform"] + 0.2
    assert right["policy"] > max(right["topk"], right["mmr"]) + 0.05
    assert right["policy"] > right["another question"] + 0.1  # it reads the question


def test_it_is_what_selects_from_a_file_by_default(policy: VectorPolicySelector, tmp_path: Path) -> None:
    film = encode(tmp_path / "film.mp4", 100)
    chosen = select_frames(str(film), "What comes right after the dog?", num_frames=3)
    again = policy.select(str(film), "What comes right after the dog?", num_frames=3)
    assert len(set(chosen.indices.tolist())) == 3
    assert (np.diff(chosen.timestamps) > 0).all()
    assert chosen.indices.tolist() == again.indices.tolist()
    assert chosen.selector == "mini-policy"


def test_one_encoding_serves_the_policy_and_the_algorithms(policy: VectorPolicySelector) -> None:
    assert policy.encoding_fingerprint == FrameSelector.from_pretrained("topk", device="cpu").encoding_fingerprint
    assert policy.rule == FrameSelector.from_pretrained("mini", device="cpu").rule


def test_its_card_tells_the_hash_of_its_weights() -> None:
    folder = weights.resolve("mini-policy")
    card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    for name in ("model.safetensors", "config.json"):
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert any(name in line and found in line for line in card), f"{found}  {name}"


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(SelectorLoadError, match="takes no colour"):
        FrameSelector.from_pretrained("mini-policy", colour="red")
