"""The embedded encoder: equal to the published models, deterministic, whole, and honest about damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from refocus_select import weights
from refocus_select.errors import InputError, SelectorLoadError
from refocus_select.models.efficientnet_lite import LITE_VARIANTS, EfficientNetLite, block_shapes
from refocus_select.models.mini import DIMENSIONS, MiniEncoder
from refocus_select.models.text_encoder import quantize_rows
from refocus_select.parsing import content_phrase
from refocus_select.selectors import FrameSelector
from refocus_select.selectors.similarity import SimilaritySelector

FOLDER = weights.resolve("mini")
REFERENCE = np.load(Path(__file__).parent / "reference.npz")  # from the published models, see the text below
TEXTS = [
    "When does the rabbit pick up an apple?",
    "A fire truck.",
    "Wo ist der Hund?",
    "Où est le café déjà-vu ?",
    "a very long question " * 200,
]


@pytest.fixture(scope="module")
def encoder() -> MiniEncoder:
    return MiniEncoder.from_pretrained(FOLDER, device="cpu")


def reference_pictures() -> torch.Tensor:
    """The smooth pictures in -1..1 that the reference features were computed from."""
    y, x = np.mgrid[:260, :260].astype(np.float32) / 260
    channels = [
        [np.sin(9 * x + k) * np.cos(7 * y), np.sin(31 * x * y + k), np.cos(5 * (x + y) * (k + 1))] for k in range(2)
    ]
    return torch.from_numpy(np.array(channels, dtype=np.float32))


def some_frames(count: int, seed: int = 0, size: tuple[int, int] = (225, 225)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, 5, 5, 3))
    tall, wide = -(-size[0] // 5), -(-size[1] // 5)
    return coarse.repeat(tall, 1).repeat(wide, 2)[:, : size[0], : size[1]].astype(np.uint8)


@torch.inference_mode()
def test_image_tower_equals_the_published_network(encoder: MiniEncoder) -> None:
    # The reference is the published checkpoint in its authors' code, 260 pixels: an even size, so "SAME" padding is
    # one-sided. Ours has the normalisation folded in, and holds large layers as int8, the rest as fp16.
    network = EfficientNetLite("lite2").eval()
    network.load_state_dict({name: t.float() for name, t in encoder.image.state_dict().items()})
    features = network(reference_pictures())
    logits = network.classifier(features)
    cosine = torch.nn.functional.cosine_similarity(features, torch.from_numpy(REFERENCE["features"]))
    assert cosine.min() > 0.998
    assert (logits.argmax(-1).numpy() == REFERENCE["logits"].argmax(-1)).all()


def test_text_tower_equals_the_published_network(encoder: MiniEncoder) -> None:
    cosine = (encoder.text.encode(TEXTS) * torch.from_numpy(REFERENCE["text"])).sum(-1)
    assert cosine.min() > 0.995  # int8 rows; the mean is above .999
    assert cosine.mean() > 0.998


@pytest.mark.parametrize("variant", LITE_VARIANTS)
def test_every_variant_has_the_published_depth_and_runs(variant: str) -> None:
    blocks = {"lite0": 16, "lite1": 18, "lite2": 18, "lite3": 22, "lite4": 27}
    network = EfficientNetLite(variant)
    assert len(network.blocks) == len(list(block_shapes(LITE_VARIANTS[variant])))
    if variant in ("lite0",):
        assert len(network.blocks) == blocks[variant]
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 97)).shape == (1, 1280)


def test_quantised_rows_are_within_half_a_step() -> None:
    weight = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    rows, scale = quantize_rows(weight)
    assert ((rows * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()


def test_frames_are_encoded_the_same_again_and_in_any_batch(encoder: MiniEncoder) -> None:
    frames = some_frames(7)
    whole = encoder.encode_frames(frames, batch=7)
    assert torch.equal(whole, encoder.encode_frames(frames, batch=7))
    single = encoder.encode_frames(frames, batch=1)
    assert torch.nn.functional.cosine_similarity(whole, single).min() > 0.999
    assert whole.shape == (7, DIMENSIONS)
    assert whole.isfinite().all()


def test_frames_of_another_size_are_resized(encoder: MiniEncoder) -> None:
    small = encoder.encode_frames(some_frames(3))
    large = encoder.encode_frames(some_frames(3, size=(450, 450)))
    assert torch.nn.functional.cosine_similarity(small, large).min() > 0.9
    assert encoder.encode_frames(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, DIMENSIONS)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)]
)
def test_wrong_frames_are_refused(encoder: MiniEncoder, frames: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        encoder.encode_frames(frames)


def test_text_of_any_kind_gives_a_vector(encoder: MiniEncoder) -> None:
    texts = ["", " ", "?", "the", "猫が魚を食べる", "Где собака?", "[MASK] [SEP]", "word " * 5000, "🐇🏹", "\x00\n"]
    vectors = encoder.encode_text(texts)
    assert vectors.shape == (len(texts), DIMENSIONS)
    assert vectors.isfinite().all()
    alone = torch.cat([encoder.encode_text([text]) for text in texts])
    torch.testing.assert_close(alone, vectors, atol=2e-3, rtol=0)
    assert encoder.encode_text([]).shape == (0, DIMENSIONS)


def test_unrelated_texts_have_mean_zero_and_deviation_one(encoder: MiniEncoder) -> None:
    things = [
        "dog",
        "car",
        "tree",
        "boat",
        "lamp",
        "book",
        "ball",
        "hat",
        "horse",
        "fish",
        "cup",
        "chair",
        "clock",
        "house",
        "river",
        "violin",
        "bread",
        "soldier",
        "map",
    ]
    texts = [f"a {adjective} {thing}" for thing in things for adjective in ("red", "small", "broken")]
    similarity = encoder.encode_frames(some_frames(6)) @ encoder.text.encode(texts).sub(encoder.text_mean).T
    assert similarity.mean(dim=1).abs().max() < 1.5
    assert 0.4 < similarity.std(dim=1).mean() < 2.0


def test_a_drawn_meaning_is_nearer_than_another(encoder: MiniEncoder) -> None:
    dog, puppy, lorry = encoder.encode_text(["Where is the dog?", "a puppy", "a lorry"])
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(dog, puppy, dim=0) > cosine(dog, lorry, dim=0) + 0.2


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("When does the rabbit pick up a red apple?", "rabbit pick red apple"),
        ("What is it?", "What is it?"),
        ("猫はどこですか", "猫はどこですか"),
        ("Who's riding the two-wheeled bike?", "riding two-wheeled bike"),
        ("  ", ""),
    ],
)
def test_content_phrase(question: str, content: str) -> None:
    assert content_phrase(question) == content


def test_the_folder_is_small_and_safe() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert (FOLDER.parent / "LICENSES/Apache-2.0.txt").is_file()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        weights.resolve("maxi")
    with pytest.raises(SelectorLoadError, match="no weights"):
        SimilaritySelector.from_pretrained("no/such/folder")
    with pytest.raises(SelectorLoadError, match="takes no colour"):
        FrameSelector.from_pretrained("mini", colour="red")  # type: ignore[call-arg]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "mini"))


@pytest.mark.parametrize("name", ["image.safetensors", "text.safetensors", "vocab.txt"])
def test_a_changed_file_is_refused(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(SelectorLoadError, match=f"{name} is damaged"):
        MiniEncoder.from_pretrained(copied, device="cpu")


@pytest.mark.parametrize("name", ["image.safetensors", "text.safetensors", "vocab.txt", "config.json"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(SelectorLoadError, match=name):
        MiniEncoder.from_pretrained(copied, device="cpu")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "refocus-select/mini", "version": 99}'])
def test_a_config_of_another_kind_is_refused(copied: Path, text: str) -> None:
    (copied / "config.json").write_text(text)
    with pytest.raises(SelectorLoadError, match=r"config\.json"):
        MiniEncoder.from_pretrained(copied, device="cpu")


def test_the_fingerprint_follows_the_weights(copied: Path, encoder: MiniEncoder) -> None:
    assert MiniEncoder.from_pretrained(copied, device="cpu").fingerprint == encoder.fingerprint
    config = json.loads((copied / "config.json").read_text())
    config["top_classes"] = 3
    (copied / "config.json").write_text(json.dumps(config))
    assert MiniEncoder.from_pretrained(copied, device="cpu").fingerprint != encoder.fingerprint
