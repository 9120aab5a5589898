"""Small readers: what they take from a question, and that they learn to need the evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.storyboards.subsets import KINDS, subset
from refocus_select.errors import EncodingError, InputError, SelectorLoadError
from refocus_select.parsing import option_number, option_parts, parse_question
from refocus_select.questions import Question
from refocus_select.reference import Request
from refocus_select.reference.reader import ReaderReference
from refocus_select.reference.reader_net import COUNTS, Counter, ReaderConfig, make_net
from refocus_select.train_selector.storyboards import NOTHING, Storyboards

from ..train_selector.tiny_world import DIMENSIONS, WordEncoder, tiny_bank

MAKES = ("transformer", "relation", "recurrent")


def tiny_reader(make: str = "transformer", seed: int = 0) -> ReaderReference:
    torch.manual_seed(seed)
    net = make_net(ReaderConfig(make, width=32, layers=2, dimensions=DIMENSIONS, look=8))
    return ReaderReference(net.requires_grad_(False), WordEncoder(), name=make)


@pytest.fixture(scope="module")
def boards() -> Storyboards:
    return Storyboards(tiny_bank(), "train", num_questions=4000, num_candidates=48)


def request(boards: Storyboards, index: int, *, subsets: int = 3, num_frames: int = 8) -> Request:
    question = boards[index]
    rng = np.random.default_rng(index)
    rows = [np.sort(rng.permutation(48)[:num_frames]) for _ in range(subsets)]
    return Request(question, boards(question.video), torch.from_numpy(np.stack(rows)))


@pytest.mark.parametrize(
    ("question", "mentions", "frame"),
    [
        ("What is shown right after the fire engine?", ("fire engine",), "What is shown right after the something?"),
        ("What appears between the pot of food and the cat?", ("pot of food", "cat"),
         "What appears between the something and the something?"),
        ("The owl, the red car, the harp: in which order are they shown?", ("owl", "red car", "harp"),
         "The something, the something, the something: in which order are they shown?"),
        ("Which animal appears in the video?", ("animal",), "Which something appears in the video?"),
        ("What is the first thing that is shown?", (), "What is the first thing that is shown?"),
        ("What do we see halfway through?", (), "What do we see halfway through?"),
        ("How often is the face with monocle shown?", ("face with monocle",), "How often is the something shown?"),
        ("Is anybody in the picture?", ("person",), "Is something in the picture?"),
        ("Who is that?", ("person",), "something is that?"),
        ("Who has the harp?", ("harp",), "Who has the something?"),
        ("?", (), "?"),
    ],
)  # fmt: skip
def test_questions_are_taken_apart(question: str, mentions: tuple[str, ...], frame: str) -> None:
    parsed = parse_question(question)
    assert parsed.entities == mentions
    assert parsed.template == frame


def test_options_are_taken_apart() -> None:
    assert option_parts("owl, red car, harp") == ("owl", "red car", "harp")
    assert option_parts("owl") == ("owl",)
    assert option_parts(",") == (",",)
    said = {"once": 1, "Twice": 2, "three times": 3, "4": 4, "two": 2, "0": 0, "owl": None, "2 owls": None, "²": None}
    assert {text: option_number(text) for text in said} == said


@pytest.mark.parametrize("make", MAKES)
def test_a_batch_gives_what_single_requests_give(boards: Storyboards, make: str) -> None:
    reader = tiny_reader(make)
    requests = [request(boards, i, subsets=1 + i % 3, num_frames=(4, 8, 16)[i % 3]) for i in range(24)]
    together = reader.option_logits(requests)
    for one, logits in zip(requests, together, strict=True):
        alone = reader.option_logits([one])[0]
        assert logits.shape == (len(one.subsets), len(one.question.options))
        assert logits.dtype == torch.float32
        assert not logits.requires_grad
        torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-4)
        rows = torch.cat([reader.option_logits([Request(one.question, one.clip, row[None])])[0] for row in one.subsets])
        torch.testing.assert_close(rows, logits, atol=1e-5, rtol=1e-4)
    again = tiny_reader(make).option_logits(requests)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))


@pytest.mark.parametrize("make", MAKES)
def test_only_the_chosen_frames_are_seen(boards: Storyboards, make: str) -> None:
    reader = tiny_reader(make)
    one = request(boards, 5, subsets=2)
    before = reader.option_logits([one])[0]
    rows = one.clip.encoding(reader.selector).tensors["embeddings"]
    hidden = np.setdiff1d(np.arange(48), one.subsets.numpy())
    rows[torch.from_numpy(hidden)] = 100.0
    assert torch.equal(reader.option_logits([one])[0], before)


@pytest.mark.parametrize("make", MAKES)
def test_the_order_of_frames_matters(boards: Storyboards, make: str) -> None:
    reader = tiny_reader(make)
    requests = [request(boards, i, subsets=1) for i in range(8) if len(boards[i].options) == 4]
    batch = reader.batch(requests)
    forwards = reader.net(batch)
    backwards = reader.net(batch._replace(frames=batch.frames.flip(1)))
    assert (forwards - backwards).abs().amax() > 1e-4  # rounding is a hundred times smaller


@pytest.mark.parametrize("make", MAKES)
def test_options_change_places_with_their_logits(boards: Storyboards, make: str) -> None:
    reader = tiny_reader(make)
    one = request(boards, 3)
    turned = Question(**{**_fields(one.question), "options": one.question.options[::-1]})
    logits = reader.option_logits([one, Request(turned, one.clip, one.subsets)])
    torch.testing.assert_close(logits[0], logits[1].flip(1), atol=1e-5, rtol=1e-4)


def _fields(question: Question) -> dict:
    return {name: getattr(question, name) for name in question.__dataclass_fields__}


def test_the_counter_counts_scenes() -> None:
    """With certain frames the soft count is the plain count of runs, split where frames are not of one scene."""
    counter = Counter()
    with torch.no_grad():
        for part in (counter.present, counter.same):
            for parameter in part.parameters():
                parameter.zero_()
        counter.same[0].weight[0, 0] = 50.0  # the first number of `nearby` says whether the scene goes on
        counter.same[2].weight[0, 0] = 50.0
    similarity = torch.tensor([[9.0, 9.0, -9.0, 9.0, -9.0, 9.0], [-9.0] * 6, [9.0] * 6, [9.0] * 6])
    nearby = torch.zeros(4, 6, 6)
    nearby[..., 0] = 1.0
    nearby[3, :, 0] = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    counted = counter(similarity, nearby, torch.ones(4))
    torch.testing.assert_close(counted.exp().sum(1), torch.ones(4))
    assert counted.argmax(1).tolist() == [3, 0, 1, 3]
    many = counter(torch.full((1, 16), 9.0), -torch.ones(1, 16, 6), torch.ones(1))
    assert many.argmax().item() == COUNTS - 1
    assert counter(similarity, nearby, torch.zeros(4)).argmax(1).tolist() == [0, 0, 0, 0]


def test_what_is_saved_is_loaded(boards: Storyboards, tmp_path: Path) -> None:
    reader = tiny_reader("relation", seed=4)
    reader.save_pretrained(tmp_path / "r", training={"steps": 3})
    again = ReaderReference.from_pretrained(tmp_path / "r", encoder=WordEncoder())
    requests = [request(boards, i) for i in range(6)]
    assert again.fingerprint == reader.fingerprint != tiny_reader("relation", seed=5).fingerprint
    assert again.name == reader.name
    for a, b in zip(reader.option_logits(requests), again.option_logits(requests), strict=True):
        assert torch.equal(a, b)
    assert not list((tmp_path / "r").glob("*.tmp"))


def test_damaged_readers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SelectorLoadError, match="no reader in"):
        ReaderReference.from_pretrained(tmp_path, encoder=WordEncoder())
    tiny_reader().save_pretrained(tmp_path)
    other = WordEncoder()
    other.fingerprint = "words-2"
    with pytest.raises(SelectorLoadError, match="was trained with the encoder words-1"):
        ReaderReference.from_pretrained(tmp_path, encoder=other)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(SelectorLoadError, match="cannot be loaded"):
        ReaderReference.from_pretrained(tmp_path, encoder=WordEncoder())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SelectorLoadError, match="does not describe a reader"):
        ReaderReference.from_pretrained(tmp_path, encoder=WordEncoder())
    with pytest.raises(InputError, match="no reader is made as"):
        make_net(ReaderConfig("oracle"))


def test_bad_requests_are_refused(boards: Storyboards) -> None:
    reader, one = tiny_reader(), request(boards, 0)
    with pytest.raises(InputError, match="has 0 options"):
        reader.option_logits([Request(Question("q", "v", "What?"), one.clip, one.subsets)])
    with pytest.raises(InputError, match="name frames 48 to 48"):
        reader.option_logits([Request(one.question, one.clip, torch.tensor([[48]]))])
    with pytest.raises(InputError, match=r"must be \[N, K\]"):
        reader.option_logits([Request(one.question, one.clip, torch.zeros(0, 4, dtype=torch.long))])
    stranger = WordEncoder()
    stranger.fingerprint = "words-3"
    with pytest.raises(EncodingError, match="was encoded by"):
        ReaderReference(tiny_reader().net, stranger).option_logits([one])
    assert reader.option_logits([]) == []


def test_subsets_are_what_they_are_called(boards: Storyboards) -> None:
    for index in range(300):
        question, layout = boards.item(index)
        spans = {start for start, _ in question.evidence}
        scenes = [s for s in layout.scenes if layout.timestamps[s.start] in spans]
        inside = np.concatenate([np.arange(s.start, s.stop) for s in scenes])
        for kind in KINDS:
            rows = subset(kind, np.random.default_rng(index), question, layout, 8, np.arange(48.0))
            assert len(rows) == 8
            assert (np.diff(rows) > 0).all()
            if kind == "oracle":
                assert all(set(range(s.start, s.stop)) & set(rows) for s in scenes[:8])
            if kind == "none":
                assert not set(inside) & set(rows)
            if kind == "background" and (layout.shown == NOTHING).sum() >= 8:
                assert (layout.shown[rows] == NOTHING).all()
            if kind == "similar":
                assert rows.tolist() == list(range(40, 48))


def test_a_reader_learns_to_need_the_evidence() -> None:
    """A hundred steps in a world of random vectors; held-out things and wordings."""
    torch.manual_seed(0)
    bank = tiny_bank(noise=0.7)
    types = ("kind", "after", "text", "moment")
    reader = tiny_reader()
    net = reader.net.requires_grad_(True).train()
    rng = np.random.default_rng(0)
    train = Storyboards(bank, "train", num_questions=10_000, num_candidates=32, types=types)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for step in range(100):
        requests = []
        for index in range(24 * step, 24 * step + 24):
            question, layout = train.item(index)
            if len(question.options) == 4:
                kind = str(rng.choice(("oracle", "half", "random")))
                rows = subset(kind, rng, question, layout, 8, np.zeros(32))
                requests.append(Request(question, train(question.video), torch.from_numpy(rows[None])))
        answers = torch.tensor([r.question.answer for r in requests])
        loss = F.cross_entropy(net(reader.batch(requests)), answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval().requires_grad_(False)
    test = Storyboards(bank, "test", num_questions=400, num_candidates=32, types=types)
    accuracy = {}
    for kind in ("oracle", "uniform", "none"):
        right = []
        for index in range(len(test)):
            question, layout = test.item(index)
            rows = subset(kind, np.random.default_rng(index), question, layout, 8, np.zeros(32))
            logits = reader.option_logits([Request(question, test(question.video), torch.from_numpy(rows[None]))])[0]
            right.append(logits.argmax().item() == question.answer)
        accuracy[kind] = np.mean(right)
    assert accuracy["oracle"] > 0.55, accuracy
    assert accuracy["oracle"] > accuracy["uniform"] + 0.15, accuracy
    assert accuracy["none"] < 0.4, accuracy
