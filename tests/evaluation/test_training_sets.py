"""Readers of training sets on small files in the published layouts (written here, in their field names)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refocus_select.errors import InputError
from refocus_select.evaluation.benchmarks import read_benchmark
from refocus_select.evaluation.training_sets import OPEN_ANSWER, TRAINING_SETS
from refocus_select.train_selector.config import DataConfig
from refocus_select.train_selector.data import load_questions, with_distractors


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def videos(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


STAR = {
    "question_id": "Interaction_T1_13", "question": "Which object was tidied up by the person?", "video_id": "6H78U",
    "start": 11.1, "end": 19.6, "answer": "The closet.", "question_program": [], "situations": {},
    "choices": [{"choice_id": 1, "choice": "The closet."}, {"choice_id": 0, "choice": "The blanket."},
                {"choice_id": 2, "choice": "The table."}],
}  # fmt: skip


def test_star(tmp_path: Path) -> None:
    write(tmp_path / "STAR_train.json", [STAR])
    videos(tmp_path, "Charades_v1_480/6H78U.mp4")
    (question,) = read_benchmark("star", tmp_path).questions
    assert question.options == ("The blanket.", "The closet.", "The table.")
    assert (question.answer, question.category, question.evidence) == (1, "Interaction", ((11.1, 19.6),))
    assert question.video.endswith("6H78U.mp4")


def test_perception_test(tmp_path: Path) -> None:
    asked = {"id": 4, "question": "Is the camera moving?", "options": ["no", "yes", "I don't know"], "answer_id": 1,
             "area": "physics", "reasoning": "descriptive", "tag": ["motion"]}  # fmt: skip
    facts = {"metadata": {"split": "train", "video_id": "video_10"}, "mc_question": [asked]}
    write(tmp_path / "mc_question_train.json", {"video_10": facts, "video_11": {"metadata": {}}})
    videos(tmp_path, "videos/video_10.mp4")
    (question,) = read_benchmark("perception_test", tmp_path).questions
    assert (question.id, question.answer, question.category) == ("video_10_4", 1, "physics")
    assert question.extra["tag"] == ["motion"]


def test_llava_video(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhat is cut first?\nA. An apple.\nB. A pear.\nC. A plum.\nPlease provide "
                                   "your answer by stating the letter followed by the full option."},
        {"from": "gpt", "value": "B. A pear."},
        {"from": "human", "value": "Who cuts it?"}, {"from": "gpt", "value": "A cook."},
    ]  # fmt: skip
    row = {"id": "7-1", "conversations": turns, "data_source": "0_30_s_youtube_v0_1", "video": "tube/a.mp4"}
    write(tmp_path / "0_30_s_youtube_mc_v0_1_qa_processed.json", [row])
    videos(tmp_path, "tube/a.mp4")
    choice, open_ended = read_benchmark("llava_video", tmp_path).questions
    assert (choice.question, choice.options) == ("What is cut first?", ("An apple.", "A pear.", "A plum."))
    assert (choice.answer, choice.id) == (1, "7-1_0")
    assert (open_ended.options, open_ended.extra[OPEN_ANSWER]) == ((), "A cook.")


def test_video_r1(tmp_path: Path) -> None:
    row = {"problem_id": 2, "problem": "What happens?", "data_type": "video", "problem_type": "multiple choice",
           "options": ["A. Rain", "B. Snow"], "process": "", "solution": "<answer>B</answer>",
           "path": "./STAR/a.mp4", "data_source": "STAR"}  # fmt: skip
    picture = {**row, "problem_id": 3, "data_type": "image"}
    number = {**row, "problem_id": 4, "problem_type": "numerical", "options": [], "solution": "<answer>3</answer>"}
    write(tmp_path / "Video-R1-260k.json", [row, picture, number])
    videos(tmp_path, "STAR/a.mp4")
    found = read_benchmark("video_r1", tmp_path)
    assert found.left_out == {"no video": 1}
    assert [(q.options, q.answer) for q in found.questions] == [(("Rain", "Snow"), 1), ((), None)]
    assert found.questions[1].extra[OPEN_ANSWER] == "3"


def activitynet(folder: Path, answers: list[str]) -> None:
    write(folder / "train_q.json", [{"video_name": "abc", "question_id": f"v_abc_{i}", "question": "is it dark"}
                                    for i in range(len(answers))])  # fmt: skip
    write(folder / "train_a.json", [{"question_id": f"v_abc_{i}", "answer": answer, "type": 4}
                                    for i, answer in enumerate(answers)])  # fmt: skip
    videos(folder, "v_abc.mp4")


def test_activitynet_qa(tmp_path: Path) -> None:
    activitynet(tmp_path, ["blue", "red"])
    found = read_benchmark("activitynet_qa", tmp_path).questions
    assert [(q.question, q.category, q.extra[OPEN_ANSWER]) for q in found] == [
        ("is it dark?", "color", "blue"), ("is it dark?", "color", "red"),
    ]  # fmt: skip
    (tmp_path / "train_a.json").unlink()
    with pytest.raises(InputError, match=r"the answers .*train_a.json are not there"):
        read_benchmark("activitynet_qa", tmp_path)


def test_clevrer(tmp_path: Path) -> None:
    def choice(number: int, right: bool) -> dict[str, Any]:
        return {"choice_id": number, "choice": f"it is {number}", "answer": "correct" if right else "wrong"}

    questions = [
        {"question_id": 0, "question": "What shape?", "question_type": "descriptive",
         "question_subtype": "query_shape", "answer": "cube"},
        {"question_id": 1, "question": "Why?", "question_type": "explanatory",
         "choices": [choice(0, False), choice(1, True), choice(2, False)]},
        {"question_id": 2, "question": "What then?", "question_type": "predictive",
         "choices": [choice(0, True), choice(1, True)]},
    ]  # fmt: skip
    write(tmp_path / "train.json", [{"scene_index": 7, "video_filename": "video_00007.mp4", "questions": questions}])
    videos(tmp_path, "video_train/video_00000-01000/video_00007.mp4")
    found = read_benchmark("clevrer", tmp_path)
    assert found.left_out == {"not one right choice of several": 1}
    assert [(q.id, q.answer, q.category) for q in found.questions] == [
        ("7_0", None, "query_shape"), ("7_1", 1, "explanatory"),
    ]  # fmt: skip


def test_open_questions_get_options_only_if_asked_for(tmp_path: Path) -> None:
    activitynet(tmp_path, ["blue", "red", "Red", "green", "white"])
    config = DataConfig(format="activitynet_qa", check_videos=False)
    with pytest.raises(InputError, match="holds no questions"):
        load_questions(str(tmp_path), "train", config, tmp_path / "cache")
    asked = DataConfig(format="activitynet_qa", check_videos=False, distractors=3)
    found = load_questions(str(tmp_path), "train", asked, tmp_path / "cache").questions
    assert len(found) == 5
    for question in found:
        assert len({option.casefold() for option in question.options}) == 4
        assert question.options[question.answer] == question.extra[OPEN_ANSWER]
    assert [q.options for q in with_distractors(found[::-1], 3, OPEN_ANSWER)[::-1]] == [q.options for q in found]
    assert len({q.answer for q in found}) > 1


def test_one_file_and_videos_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "notes" / "mine.json", [STAR, {**STAR, "question_id": "Sequence_T1_1", "video_id": "gone"}])
    videos(tmp_path, "videos/6H78U.mp4")
    config = DataConfig(format="star", root=str(tmp_path / "videos"), check_videos=False)
    found = load_questions(str(path), "train", config, tmp_path / "cache")
    assert [q.id for q in found.questions] == ["Interaction_T1_13"]


def test_rows_of_something_else_are_problems_of_those_rows(tmp_path: Path) -> None:
    for name in TRAINING_SETS.keys() - {"nextqa", "activitynet_qa", "perception_test", "llava_video"}:
        write(tmp_path / f"{name}.json", [{"something": "else", "questions": [{}]}])
        found = read_benchmark(name, tmp_path, annotations=tmp_path / f"{name}.json")
        assert not found.questions
        assert found.problems or found.left_out
