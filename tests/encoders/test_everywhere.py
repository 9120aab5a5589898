"""`encoder=` behind every door: batches, indexes, chats, the command line, policies that read pictures."""

from __future__ import annotations

import json

import pytest
import torch

from refocus_select import FrameSelector, cli
from refocus_select.adapters import select_messages
from refocus_select.corpus import Index, select_batch
from refocus_select.encoders import load_encoder_for
from refocus_select.errors import EncodingError, InputError, SelectorLoadError
from tests.models.tiny_encoders import tiny_clip
from tests.video.clips import encode

NAME = "tests.encoders.test_everywhere:Axes"


class Axes:
    """Frames by their mean colours; "red" is the first axis, everything else the third."""

    name, fingerprint, frame_size = "axes", "axes-1", (8, 8)

    def encode_frames(self, frames):
        return torch.from_numpy(frames.mean(axis=(1, 2)) / 255).float()

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0, 0.0] if "red" in text else [0.0, 0.0, 1.0] for text in texts])


class Textless(Axes):
    encode_text = None


TEXTLESS = f"{NAME.partition(':')[0]}:Textless"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(encode(tmp_path_factory.mktemp("film") / "film.mp4", 50))


@pytest.fixture(scope="module")
def expected(film):
    """Times of the frames that the encoder gives for "red"."""
    selection = FrameSelector.from_pretrained("topk", encoder=Axes()).select(film, "red", num_frames=3)
    assert selection.selector == "topk (axes)"
    return selection.timestamps.tolist()


@pytest.mark.parametrize("encoder", [NAME, Axes()], ids=["name", "object"])
def test_batches(film, expected, tmp_path, encoder):
    out = tmp_path / "out.jsonl"
    result = select_batch([{"video": film, "question": "red"}], out, selector="topk", encoder=encoder, num_frames=3)
    assert result.failed == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["selector"], row["timestamps"]) == ("topk (axes)", pytest.approx(expected))


@pytest.mark.parametrize("encoder", [NAME, Axes()], ids=["name", "object"])
def test_indexes(film, expected, tmp_path, encoder):
    Index.build(film, tmp_path / "index", selector="topk", encoder=encoder)
    again = {} if isinstance(encoder, str) else {"encoder": encoder}
    index = Index(tmp_path / "index", **again)
    assert sorted(hit.timestamp for hit in index.search("red", 3)) == pytest.approx(expected)
    selection = index.select("red", video=film, num_frames=3)
    assert selection.timestamps.tolist() == pytest.approx(expected)
    with pytest.raises(EncodingError, match="open it with that encoder"):
        Index(tmp_path / "index", encoder="mini", device="cpu").select("red", video=film)


def test_chats(film, expected):
    chat = [{"role": "user", "content": [{"type": "video", "path": film}, {"type": "text", "text": "red"}]}]
    chosen = select_messages(chat, "topk", encoder=NAME, num_frames=3)
    assert chosen.selections[0].timestamps.tolist() == expected


def test_the_command_line(film, expected, tmp_path, capsys):
    arguments = ["select", film, "red", "-n", "3", "--selector", "topk", "--json", "--encoder"]
    assert cli.main([*arguments, NAME]) == 0
    assert json.loads(capsys.readouterr().out)["timestamps"] == pytest.approx(expected)
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"video": film, "question": "red"}))
    batch = ["batch", str(questions), "--out", str(tmp_path / "out.jsonl"), "-n", "3", "--selector", "topk", "--quiet"]
    assert cli.main([*batch, "--encoder", NAME]) == 0
    index = ["index", film, "--out", str(tmp_path / "index"), "--quiet", "--selector", "mmr", "--encoder", NAME]
    assert cli.main(index) == 0
    capsys.readouterr()
    assert cli.main(["search", str(tmp_path / "index"), "red", "-k", "3", "--gap", "0", "--json"]) == 0
    found = [json.loads(line)["timestamp"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("selector", "encoder", "message"),
    [
        ("topk", TEXTLESS, "has no encode_text: it sees frames but reads no questions"),
        ("topk", f"{NAME}less", "has no 'Axesless'"),
        ("uniform", NAME, "'uniform' takes no encoder"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_exit_status_4(film, capsys, selector, encoder, message):
    assert cli.main(["select", film, "red", "--selector", selector, "--encoder", encoder]) == 4
    assert message in capsys.readouterr().err


def test_a_loaded_selector_has_its_encoder(film, tmp_path):
    selector = FrameSelector.from_pretrained("topk", encoder=Axes())
    rows = [{"video": film, "question": "red"}]
    for call in (
        lambda: select_batch(rows, tmp_path / "out.jsonl", selector=selector, encoder="mini"),
        lambda: Index.build(film, tmp_path / "index", selector=selector, encoder="mini"),
        lambda: select_messages([{"role": "user", "content": [
            {"type": "video", "path": film}, {"type": "text", "text": "red"}
        ]}], selector, encoder="mini"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="this selector is loaded already"):
            call()


def test_without_network_folders_are_taken_and_hub_ids_are_not(film, tmp_path):
    rows, folder = [{"video": film, "question": "who scores first"}], tiny_clip(tmp_path / "clip")
    for encoder in ("google/siglip2-base-patch16-224", "open_clip:ViT-B-32/laion2b_s34b_b79k", "st:owner/name"):
        with pytest.raises(SelectorLoadError, match="not complete in the local cache"):
            select_batch(rows, tmp_path / "out.jsonl", selector="topk", encoder=encoder, network=False)
    done = select_batch(rows, tmp_path / "out.jsonl", selector="topk", encoder=str(folder), network=False)
    assert done.failed == 0


def test_arguments_that_are_not_for_the_encoder_are_left_out(tmp_path):
    encoder = load_encoder_for(NAME, device="cpu", token="secret", local_files_only=True)
    assert isinstance(encoder, Axes)
    assert load_encoder_for("mini", device="cpu", token=None, revision="main").device == torch.device("cpu")
    clip = load_encoder_for(tiny_clip(tmp_path), device="cpu", cache_dir=tmp_path, colour="red")
    assert clip.device == torch.device("cpu")
