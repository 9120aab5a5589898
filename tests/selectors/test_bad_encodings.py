"""Encodings of strangers with a right checksum and wrong tensors: an `EncodingError` of every kind of selector, and of
the cache a miss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refocus_select import FrameSelector, VideoEncoding, open_video
from refocus_select.cache import EncodingCache
from refocus_select.errors import EncodingError, RefocusError
from tests.brightness import ramp
from tests.models.tiny import selector_folder

KINDS = ("policy", "mini-policy", "mini", "aks")
COUNT = 6


def video() -> Any:
    return open_video(ramp(COUNT), fps=4.0)


@pytest.fixture(scope="module")
def selectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FrameSelector]:
    folder = selector_folder(tmp_path_factory.mktemp("policy"))
    return {
        "policy": FrameSelector.from_pretrained(folder, device="cpu"),
        **{name: FrameSelector.from_pretrained(name, device="cpu") for name in (*KINDS[1:], "uniform", "random")},
    }


@pytest.fixture(scope="module")
def encodings(selectors: dict[str, FrameSelector]) -> dict[str, VideoEncoding]:
    return {name: selector.encode(video()) for name, selector in selectors.items()}


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """One number of the tensor is another."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[-1] = value
        return changed

    return change


WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "missing": lambda tensor: None,
    "one row less": lambda tensor: tensor[:-1],
    "one row more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "no rows": lambda tensor: tensor[:0],
    "one column less": lambda tensor: tensor[..., :-1],
    "no columns": lambda tensor: tensor[..., :0],
    "one side more": lambda tensor: tensor[None],
    "a single number": lambda tensor: tensor.flatten()[0],
    "whole numbers": lambda tensor: tensor.to(torch.int64),
    "true and false": lambda tensor: tensor > 0,
    "complex numbers": lambda tensor: tensor.to(torch.complex64),
    "double precision": lambda tensor: tensor.double(),
    "not a number": filled(float("nan")),
    "without end": filled(float("-inf")),
    "overflows when squared": filled(3e38),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_tensors(
    selectors: dict[str, FrameSelector], encodings: dict[str, VideoEncoding], kind: str, wrong: str, tmp_path: Path
) -> None:
    selector, intact = selectors[kind], encodings[kind]
    for name, tensor in intact.tensors.items():
        changed = WRONG[wrong](tensor)
        tensors = {**intact.tensors, name: changed}
        if changed is None:
            del tensors[name]
        path = replace(intact, tensors=tensors).save(tmp_path / f"{name}.safetensors")
        with pytest.raises(EncodingError, match=name):
            selector.select(VideoEncoding.load(path), "a bird", num_frames=3)


@pytest.mark.parametrize("kind", [*KINDS, "uniform", "random"])
def test_what_is_more_than_needed_is_ignored(
    selectors: dict[str, FrameSelector], encodings: dict[str, VideoEncoding], kind: str, tmp_path: Path
) -> None:
    intact = encodings[kind]
    more = {**intact.tensors, "else": torch.full((2,), float("nan"))}
    path = replace(intact, tensors=more).save(tmp_path / "e.safetensors")
    found = selectors[kind].select(VideoEncoding.load(path), "a bird", num_frames=3)
    assert found.indices.tolist() == selectors[kind].select(intact, "a bird", num_frames=3).indices.tolist()


def test_frames_that_the_video_does_not_have(encodings: dict[str, VideoEncoding], tmp_path: Path) -> None:
    intact = encodings["uniform"]
    path = replace(intact, indices=intact.indices + 1).save(tmp_path / "e.safetensors")
    with pytest.raises(EncodingError, match=f"frame number {COUNT} of a video of {COUNT} frames"):
        VideoEncoding.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_another_type_are_read(
    selectors: dict[str, FrameSelector], encodings: dict[str, VideoEncoding], kind: str
) -> None:
    """As indexes keep them, or a GPU gives them."""
    intact = encodings[kind]
    half = replace(intact, tensors={name: tensor.half() for name, tensor in intact.tensors.items()})
    found = selectors[kind].select(half, "a bird", num_frames=3)
    direct = selectors[kind].select(intact, "a bird", num_frames=3)
    np.testing.assert_allclose(found.scores, direct.scores, rtol=0.02, atol=0.02)


def test_vectors_of_nothing_but_zeros(
    selectors: dict[str, FrameSelector], encodings: dict[str, VideoEncoding], recwarn: pytest.WarningsRecorder
) -> None:
    for kind in KINDS[1:]:
        intact = encodings[kind]
        zeros = {name: torch.zeros_like(tensor) for name, tensor in intact.tensors.items()}
        found = selectors[kind].select(replace(intact, tensors=zeros), "a bird", num_frames=3)
        assert len(found.indices) == 3
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


# -- the cache ------------------------------------------------------------------------------------


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_a_swapped_entry_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two videos of equal length: each entry is intact, and under the name of the other."""
    selector = FrameSelector.from_pretrained("mini", device="cpu")
    videos = [open_video(frames, fps=4.0) for frames in (ramp(COUNT), 255 - ramp(COUNT))]
    right = [selector.encode(one, cache=tmp_path) for one in videos]
    one, two = entries(tmp_path)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    for one_video, encoding in zip(videos, right, strict=True):
        found = selector.encode(one_video, cache=tmp_path)
        assert torch.equal(found.tensors["embeddings"], encoding.tensors["embeddings"])
    assert caplog.text.count("holds another encoding than its name says") == 2
    assert len(entries(tmp_path)) == 2


def test_an_entry_with_wrong_tensors_is_a_miss(
    selectors: dict[str, FrameSelector], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    selector, store = selectors["mini"], EncodingCache(tmp_path)
    right = selector.encode(video(), cache=store)
    key = entries(tmp_path)[0].stem
    store.put(key, replace(right, tensors={"embeddings": right.tensors["embeddings"][:, :8]}))
    again = selector.encode(video(), cache=store)
    assert torch.equal(again.tensors["embeddings"], right.tensors["embeddings"])
    assert "not used" in caplog.text
    stored = store.get(key)
    assert stored is not None
    assert torch.equal(stored.tensors["embeddings"], right.tensors["embeddings"])


def test_damaged_entries_never_change_what_is_found(selectors: dict[str, FrameSelector], tmp_path: Path) -> None:
    """Bits flipped, pieces cut out, doubled or zeroed, by chance: the entry is a miss."""
    selector = selectors["mini"]
    right = selector.encode(video(), cache=tmp_path)
    path = entries(tmp_path)[0]
    whole = path.read_bytes()
    store = EncodingCache(tmp_path)
    rng = np.random.default_rng(16)
    for _ in range(150):
        path.write_bytes(damaged(whole, rng))
        found = store.get(path.stem)
        assert found is None
        assert not path.exists()
    path.write_bytes(whole)
    intact = store.get(path.stem)
    assert intact is not None
    assert torch.equal(intact.tensors["embeddings"], right.tensors["embeddings"])


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """The content with one fault, different from it."""
    while True:
        start, stop = sorted(rng.integers(0, len(whole) + 1, 2).tolist())
        found = {
            0: whole[:start],
            1: whole[:start] + whole[stop:],
            2: whole[:start] + whole[start:stop] + whole[start:],
            3: whole[:start] + bytes(stop - start) + whole[stop:],
            4: whole[:start] + rng.bytes(min(stop - start, 64)) + whole[min(stop, start + 64) :],
            5: whole[: start // 8] + bytes([whole[start // 8] ^ 1 << start % 8]) + whole[start // 8 + 1 :],
        }[int(rng.integers(6))]
        if found != whole:
            return found


def test_a_random_encoding_is_selected_from_or_refused(
    selectors: dict[str, FrameSelector], encodings: dict[str, VideoEncoding]
) -> None:
    """Tensors of any shape and type under the right names: frames, or an error of ours."""
    rng = np.random.default_rng(15)
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool]
    refused = 0
    for _ in range(200):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        tensors = dict(encodings[kind].tensors)
        for name in tensors:
            if rng.random() < 0.7:
                shape = [int(n) for n in rng.choice([0, 1, COUNT, 24, 384], int(rng.integers(4)))]
                tensors[name] = torch.zeros(shape).to(kinds[int(rng.integers(len(kinds)))])
        try:
            found = selectors[kind].select(replace(encodings[kind], tensors=tensors), "a bird", num_frames=3)
        except RefocusError:
            refused += 1
        else:
            assert len(found.indices) == 3
    assert 100 < refused < 200
