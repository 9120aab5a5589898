"""The composed world: the same item again, true answers, evidence in its place, nothing shared between splits."""

from __future__ import annotations

import gzip
import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refocus_select.errors import EncodingError, InputError
from refocus_select.questions import Question, check_choices
from refocus_select.reference.clips import REFERENCE_VIEW
from refocus_select.selectors.training_free import AlgorithmSelector
from refocus_select.train_selector.storyboards import NOTHING, Bank, Layout, Storyboards
from refocus_select.train_selector.storyboards.bank import write_bank
from refocus_select.train_selector.storyboards.natural import NATURAL
from refocus_select.train_selector.storyboards.phrasings import COUNTS, MOMENTS, PHRASINGS, article, plural
from refocus_select.train_selector.storyboards.stories import TYPES

from .tiny_world import SPLITS, WordEncoder, tiny_bank

SHIPPED = Path(__file__).parents[2] / "benchmarks/storyboards/bank"


@pytest.fixture(scope="module")
def bank() -> Bank:
    return tiny_bank()


@pytest.fixture(scope="module")
def shipped() -> Bank:
    return Bank.load(SHIPPED)


def asked(question: Question, split: str) -> tuple[str, dict[str, str]]:
    """Which wording a question has, and what fills it."""
    for name, wordings in PHRASINGS.items():
        for wording in wordings[split]:
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(wording))
            found = re.fullmatch(pattern, question.question, re.IGNORECASE)
            if found:
                slots = found.groupdict()
                if "moment" in slots and not _is_moment(slots["moment"], split):
                    continue
                return name, slots
    raise AssertionError(f"no wording of {split} fits {question.question!r}")


def _is_moment(text: str, split: str) -> bool:
    return any(text.lower() == words for _, choice in MOMENTS[split] for words in choice)


def right_option(bank: Bank, question: Question, layout: Layout, split: str) -> set[str]:
    """Which options are true, told from the layout alone."""
    wording, slots = asked(question, split)
    names = [bank.cards[-1 - s.concept] if s.concept < 0 else bank.concepts[s.concept].name for s in layout.scenes]
    kinds = ["" if s.concept < 0 else bank.concepts[s.concept].kind for s in layout.scenes]
    options = set(question.options)

    def at(name: str) -> int:
        places = [i for i, n in enumerate(names) if name in (n, n.removeprefix("a "))]
        assert len(places) == 1, f"{name} occurs {len(places)} times"
        return places[0]

    if wording == "kind":
        return {n for n, kind in zip(names, kinds, strict=True) if kind == slots["kind"]} & options
    if wording == "after":
        return {names[at(slots["x"]) + 1]}
    if wording == "before":
        return {names[at(slots["x"]) - 1]}
    if wording == "between":
        first, last = at(slots["x"]), at(slots["y"])
        assert last == first + 2
        return {names[first + 1]}
    if wording == "kind after":
        kind = kinds[at(slots["x"]) + 1]
        return {kind if plural(kind) == kind else article(kind)}
    if wording == "count":
        times = names.count(slots["x"])
        return {words[times - 1] for words in COUNTS} & options
    if wording in ("first", "last"):
        return {names[0 if wording == "first" else -1]}
    if wording in ("first of kind", "last of kind"):
        own = [n for n, kind in zip(names, kinds, strict=True) if kind == slots["kind"]] if "kind" in slots else None
        if own is None:
            own = [n for n, kind in zip(names, kinds, strict=True) if plural(kind) == slots["kinds"]]
        return {own[0 if wording.startswith("first") else -1]}
    if wording == "order":
        mine = sorted((slots[x] for x in "xyz"), key=at)
        return {", ".join(mine)}
    if wording == "never":
        return options - set(names)
    if wording == "text":
        return set(names) & options
    if wording == "moment":
        share = next(s for s, choice in MOMENTS[split] if slots["moment"].lower() in choice)
        middles = [(s.start + s.stop) / 2 / len(layout.timestamps) for s in layout.scenes]
        nearest = int(np.argmin([abs(middle - share) for middle in middles]))
        assert abs(middles[nearest] - share) < 0.09
        return {names[nearest]}
    assert wording == "gist"
    counts = Counter(plural(kind) for kind in kinds if kind)
    best = max(counts.values())
    assert sum(v == best for v in counts.values()) == 1
    return {kind for kind, v in counts.items() if v == best}


def test_haze_hides_things_from_selectors_only(bank: Bank) -> None:
    selector = AlgorithmSelector("topk", WordEncoder())
    clear = Storyboards(bank, "train", num_questions=40)
    hazy = Storyboards(bank, "train", num_questions=40, haze=1.0)
    assert clear.fingerprint != hazy.fingerprint
    wrong, alarms, shares = [], [], []
    for plain, question in zip(clear, hazy, strict=True):
        layout = hazy.item(len(wrong))[1]
        seen = hazy(question.video).encoding(selector).tensors
        truth = clear(plain.video).encoding(selector).tensors["embeddings"]
        assert torch.equal(seen[REFERENCE_VIEW], truth)
        assert (plain.question, plain.answer, plain.evidence) == (question.question, question.answer, question.evidence)
        changed = (seen["embeddings"] != truth).any(1).numpy()
        wrong.append(changed[layout.shown != NOTHING].mean())
        alarms.append(changed[layout.shown == NOTHING].mean())
        shares.append(changed.mean())
        again = Storyboards(bank, "train", num_questions=40, haze=1.0)
        assert torch.equal(again(question.video).encoding(selector).tensors["embeddings"], seen["embeddings"])
    assert 0.35 < np.mean(wrong) < 0.65  # each video draws its own, up to 1
    assert 0.05 < np.mean(alarms) < 0.2
    assert np.std(shares) > 0.05


def test_pace_makes_scenes_longer(bank: Bank) -> None:
    def mean_length(pace: float) -> float:
        boards = Storyboards(bank, "train", num_questions=150, num_candidates=256, pace=pace)
        scenes = []
        for index in range(len(boards)):
            layout = boards.item(index)[1]
            assert all(a.stop <= b.start for a, b in itertools.pairwise(layout.scenes))
            assert layout.scenes[0].start >= 0
            assert layout.scenes[-1].stop <= 256
            scenes += [scene.stop - scene.start for scene in layout.scenes]
        return float(np.mean(scenes))

    assert 1.9 < mean_length(4.0) / mean_length(1.0) < 3.1  # 1 to 4 times, 2.5 on average


@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_layout(bank: Bank, split: str) -> None:
    boards = Storyboards(bank, split, num_questions=1500, num_candidates=(32, 64, 200))
    for index in range(len(boards)):
        question, layout = boards.item(index)
        assert {question.options[question.answer]} == right_option(bank, question, layout, split), question
    assert {boards[i].category for i in range(len(boards))} == set(TYPES) - {"look up"}  # asked only where it is named


@pytest.mark.parametrize("split", SPLITS)
def test_questions_in_ordinary_words_have_the_same_answers(bank: Bank, split: str) -> None:
    """A reader is asked in words that it knows; what the selector is asked names the things of the evidence."""
    boards = Storyboards(bank, split, num_questions=600, natural=1.0, joined=0.5, types=list(TYPES))
    filled, ordinary = [], set()
    for index in range(len(boards)):
        question, layout = boards.item(index)
        usual = question.extra.get("reference_question", question.question)
        asked = replace(question, question=usual)
        assert {question.options[question.answer]} == right_option(bank, asked, layout, split), question
        if usual != question.question:
            ordinary.add(question.category)
        if question.category == "look up":
            shown = {bank.concepts[scene.concept].name for scene in layout.scenes if scene.concept >= 0}
            (thing,) = [name for name in shown if name in question.question.lower()]
            times = layout.timestamps
            spans = {(times[s.start], times[s.stop - 1]) for s in layout.scenes if s.concept >= 0
                     and bank.concepts[s.concept].name == thing}  # fmt: skip
            assert spans == set(question.evidence)
        filled.append(bool((layout.shown != NOTHING).all()))
    assert ordinary == set(NATURAL)
    assert 0.35 < np.mean(filled) < 0.6  # those pinned to a place in the video are never joined
    for kind, wordings in NATURAL.items():
        others = set().union(*(NATURAL[kind][other] for other in SPLITS if other != split))
        assert not others.intersection(wordings[split])


@pytest.mark.parametrize("split", SPLITS)
def test_answers_of_the_shipped_bank_follow_too(shipped: Bank, split: str) -> None:
    boards = Storyboards(shipped, split, seed=3, num_questions=600)
    for index in range(len(boards)):
        question, layout = boards.item(index)
        assert {question.options[question.answer]} == right_option(shipped, question, layout, split), question


def test_questions_can_be_scored_and_answers_lie_anywhere(bank: Bank) -> None:
    boards = Storyboards(bank, "train", num_questions=2000)
    questions = list(boards)
    assert not [problem for question in questions for problem in check_choices(question)]
    assert len({question.id for question in questions}) == len({q.video for q in questions}) == len(questions)
    assert {len(q.options) for q in questions} == {3, 4}
    places = Counter(q.answer for q in questions if len(q.options) == 4)
    assert min(places.values()) > 0.2 * sum(places.values())


@pytest.mark.parametrize("split", SPLITS)
def test_the_question_names_no_option(shipped: Bank, split: str) -> None:
    for question in Storyboards(shipped, split, num_questions=1500):
        told = [o for o in question.options if re.search(rf"\b{re.escape(o)}\b", question.question, re.IGNORECASE)]
        assert not told, question


def test_wrong_options_of_relations_are_in_the_same_video(bank: Bank) -> None:
    boards = Storyboards(
        bank, "train", num_questions=800, types=("after", "before", "between", "first", "last", "moment")
    )
    for index in range(len(boards)):
        question, layout = boards.item(index)
        shown = {bank.concepts[s.concept].name if s.concept >= 0 else bank.cards[-1 - s.concept] for s in layout.scenes}
        assert set(question.options) <= shown


def test_evidence_spans_are_the_scenes_that_decide(bank: Bank) -> None:
    boards = Storyboards(bank, "test", num_questions=1200, num_candidates=(64, 128))
    for index in range(len(boards)):
        question, layout = boards.item(index)
        spans = {(layout.timestamps[s.start], layout.timestamps[s.stop - 1]): s.concept for s in layout.scenes}
        concepts = [spans[span] for span in question.evidence]
        assert concepts, question
        names = {bank.cards[-1 - c] if c < 0 else bank.concepts[c].name for c in concepts}
        answer = question.options[question.answer]
        if question.category in ("kind", "after", "before", "between", "first", "last", "moment", "text"):
            assert answer in names
        if question.category == "never":
            assert names == set(question.options) - {answer}
        if question.category == "order":
            assert names == set(answer.split(", "))
        if question.category == "count":
            assert len(concepts) == sum(s.concept == concepts[0] for s in layout.scenes)


def test_layouts_hold_together(bank: Bank) -> None:
    boards = Storyboards(bank, "train", num_questions=600, num_candidates=(32, 64, 1024))
    sizes = Counter()
    for index in range(len(boards)):
        _, layout = boards.item(index)
        count = len(layout.timestamps)
        sizes[count] += 1
        assert (np.diff(layout.timestamps) > 0).all()
        assert layout.timestamps[0] == 0
        assert all(a.stop <= b.start for a, b in itertools.pairwise(layout.scenes))
        assert layout.scenes[0].start >= 0
        assert layout.scenes[-1].stop <= count
        shown = np.full(count, NOTHING)
        for scene in layout.scenes:
            assert scene.stop > scene.start
            shown[scene.start : scene.stop] = scene.concept
            assert (layout.series[scene.start : scene.stop] == scene.series).all()
            assert bank.series[scene.series]["concept"] == scene.concept
        assert (shown == layout.shown).all()
        assert ((layout.series < 0) == (shown == NOTHING)).all()
    assert set(sizes) == {32, 64, 1024}


def test_videos_have_as_many_scenes_as_asked_for(bank: Bank) -> None:
    boards = Storyboards(bank, "train", num_questions=200, num_scenes=(12, 14), types=("after", "order", "never"))
    counts = Counter(len(boards.item(i)[1].scenes) for i in range(len(boards)))
    assert set(counts) == {12, 13, 14}


def test_scenes_of_a_counted_thing_stay_apart(bank: Bank) -> None:
    boards = Storyboards(bank, "train", num_questions=300, types=("count",))
    answers = Counter()
    for index in range(len(boards)):
        question, layout = boards.item(index)
        answers[question.answer] += 1
        starts = [round(start / layout.timestamps[1]) for start, _ in question.evidence]
        mine = [i for i, s in enumerate(layout.scenes) if s.start in starts]
        assert all(b - a > 1 for a, b in itertools.pairwise(mine))  # something else between two scenes
    assert min(answers.values()) > 40


def test_items_are_the_same_again(bank: Bank) -> None:
    one, two = (Storyboards(bank, "train", seed=5, num_questions=50) for _ in range(2))
    for index in (49, 3, 3, 20):
        assert one[index] == two[index]
        first, second = one(one[index].video), two(two[index].video)
        selector = AlgorithmSelector("topk", WordEncoder())
        assert torch.equal(
            first.encoding(selector).tensors["embeddings"], second.encoding(selector).tensors["embeddings"]
        )
        assert first.key == second.key
    other = Storyboards(bank, "train", seed=6, num_questions=50)
    assert [q.question for q in one] != [q.question for q in other]
    assert one[-1] == one[49]
    assert one[10:13] == [one[10], one[11], one[12]]


def test_clips_keep_the_contract_of_clips(bank: Bank) -> None:
    boards = Storyboards(bank, "test", num_questions=20, num_candidates=96)
    question, layout = boards.item(7)
    clip = boards(question.video)
    selector = AlgorithmSelector("topk", WordEncoder())
    encoding = clip.encoding(selector)
    assert len(clip) == len(encoding) == 96
    assert selector.reads(encoding.encoder_fingerprint)
    assert encoding.tensors["embeddings"].shape == (96, 32)
    assert encoding.tensors["embeddings"].dtype == torch.float32
    assert (clip.timestamps == layout.timestamps).all()
    assert clip.key != boards(boards[8].video).key
    picks = selector.select(encoding, question.question, num_frames=8)
    assert len(picks.timestamps) == 8
    with pytest.raises(InputError, match="features only"):
        clip.pictures(np.array([0]))
    other = WordEncoder()
    other.fingerprint = "words-2"
    with pytest.raises(EncodingError, match="was encoded by"):
        clip.encoding(AlgorithmSelector("topk", other))


def test_frames_show_what_the_layout_says(bank: Bank) -> None:
    boards = Storyboards(bank, "train", num_questions=5, noise=0.0)
    question, layout = boards.item(2)
    rows = boards(question.video).encoding(AlgorithmSelector("topk", WordEncoder())).tensors["embeddings"]
    for position in range(len(rows)):
        if layout.series[position] >= 0:
            expected = bank.thing_rows[layout.series[position], layout.step[position]]
        else:
            expected = bank.background_rows[layout.step[position]]
        assert torch.equal(rows[position], expected)
    noisy = Storyboards(bank, "train", num_questions=5, noise=0.15)
    apart = noisy(noisy[2].video).encoding(AlgorithmSelector("topk", WordEncoder())).tensors["embeddings"] - rows
    relative = apart.norm(dim=1) / rows.norm(dim=1)
    assert 0.1 < relative.mean() < 0.2


def test_only_pictures_of_the_split_are_shown(bank: Bank) -> None:
    for split in SPLITS:
        boards = Storyboards(bank, split, num_questions=200)
        for index in range(len(boards)):
            _, layout = boards.item(index)
            assert {bank.series[s]["split"] for s in layout.series if s >= 0} == {split}
            behind = np.searchsorted(bank.background_starts, layout.step[layout.series < 0], side="right") - 1
            assert {bank.backgrounds[clip]["split"] for clip in behind} <= {split}


def test_shipped_splits_share_nothing(shipped: Bank) -> None:
    names, pictures, paths = {}, {}, {}
    for split in SPLITS:
        names[split] = {c.name for c in shipped.concepts if c.split == split}
        pictures[split] = {tuple(s["picture"]) for s in shipped.series if s["split"] == split}
        paths[split] = {b["path"] for b in shipped.backgrounds if b["split"] == split}
        for s in shipped.series:
            if s["split"] == split and s["concept"] >= 0:
                assert shipped.concepts[s["concept"]].split == split
                assert s["background"] < 0 or shipped.backgrounds[s["background"]]["split"] == split
    assert sum(map(len, names.values())) >= 1000
    for a, b in itertools.combinations(SPLITS, 2):
        assert not names[a] & names[b]
        assert not pictures[a] & pictures[b]
        assert not paths[a] & paths[b]
    assert not any("bbb.mp4" in path for path in paths["train"] | paths["validation"])
    assert not any("tuxpaint" in str(picture) for split in SPLITS for picture in pictures[split])


def test_shipped_splits_have_no_near_synonyms(shipped: Bank) -> None:
    from refocus_select.models.mini import MiniEncoder
    from refocus_select.weights import resolve

    encoder = MiniEncoder.from_pretrained(resolve("mini"), device="cpu")
    assert shipped.encoder in (encoder.fingerprint, *encoder.earlier)
    vectors = encoder.text.encode([concept.name for concept in shipped.concepts])
    split = np.array([concept.split for concept in shipped.concepts])
    alike = vectors @ vectors.T
    for a, b in itertools.combinations(SPLITS, 2):
        assert alike[split == a][:, split == b].max() <= 0.8001


def test_wordings_are_held_out() -> None:
    for name, wordings in PHRASINGS.items():
        assert set(wordings) == set(SPLITS)
        assert len(wordings["train"]) >= 4, name
        for a, b in itertools.combinations(SPLITS, 2):
            assert not set(wordings[a]) & set(wordings[b]), name
    for a, b in itertools.combinations(SPLITS, 2):
        said = [{words for _, choice in MOMENTS[s] for words in choice} for s in (a, b)]
        assert not said[0] & said[1]


def test_bad_arguments_are_refused(bank: Bank) -> None:
    with pytest.raises(InputError, match="split must be one of"):
        Storyboards(bank, "dev")
    with pytest.raises(InputError, match="at least 32"):
        Storyboards(bank, num_candidates=16)
    with pytest.raises(InputError, match="num_scenes must be between 5"):
        Storyboards(bank, num_scenes=(3, 9))
    with pytest.raises(InputError, match="haze must be between 0 and 1, and pace at least 1"):
        Storyboards(bank, haze=1.5)
    with pytest.raises(InputError, match="haze must be between 0 and 1, and pace at least 1"):
        Storyboards(bank, pace=0.5)
    with pytest.raises(InputError, match="no question types"):
        Storyboards(bank, types=("what",))
    with pytest.raises(InputError, match="not all 0"):
        Storyboards(bank, types={"after": 0.0})
    boards = Storyboards(bank, num_questions=10)
    with pytest.raises(IndexError):
        boards[10]
    with pytest.raises(InputError, match="is no video of these storyboards"):
        boards("film.mp4")
    with pytest.raises(InputError, match="is no video of these storyboards"):
        boards(Storyboards(bank, num_questions=10, seed=9)[0].video)
    with pytest.raises(InputError, match="no kind with enough things"):
        Storyboards(tiny_bank(each=4))
    few = replace(bank, concepts=tuple(replace(c, near=tuple(range(len(bank.concepts)))) for c in bank.concepts))
    with pytest.raises(InputError, match="too few different things for questions of type 'order'"):
        Storyboards(few, types=("order",))[0]


def test_a_bank_is_written_and_read_again(bank: Bank, tmp_path: Path) -> None:
    index = {
        "format": "refocus-select/storyboard-bank",
        "version": 1,
        "encoder": bank.encoder,
        "concepts": [{"name": c.name, "kind": c.kind, "split": c.split, "near": list(c.near)} for c in bank.concepts],
        "cards": list(bank.cards),
        "series": list(bank.series),
        "backgrounds": list(bank.backgrounds),
    }
    write_bank(tmp_path / "b", index, things=bank.thing_rows, backgrounds=bank.background_rows)
    again = Bank.load(tmp_path / "b.safetensors")
    assert again.concepts == bank.concepts
    assert again.series == bank.series
    assert (again.thing_rows - bank.thing_rows).abs().max() < 0.06  # int8
    assert again.fingerprint == Bank.load(tmp_path / "b").fingerprint
    (tmp_path / "b.json.gz").write_bytes(b"{}")
    with pytest.raises(InputError, match="damaged"):
        Bank.load(tmp_path / "b")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(InputError, match="no bank of this version"):
        Bank.load(tmp_path / "b")
    write_bank(
        tmp_path / "b",
        {**index, "series": index["series"][:-1]},
        things=bank.thing_rows,
        backgrounds=bank.background_rows,
    )
    with pytest.raises(InputError, match="do not belong together"):
        Bank.load(tmp_path / "b")
    with pytest.raises(InputError, match="no bank at"):
        Bank.load(tmp_path / "c")
