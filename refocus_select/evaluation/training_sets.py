"""The layouts in which sets of training questions are published; `formats` holds those of the benchmarks.

Field names and layouts are those of the authors' files. An open question has no options; its right answer is kept as
`extra["open_answer"]`, and whoever wants it scored as multiple choice has to find wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_text import shown
from ..questions import Question
from .formats import BENCHMARKS, Benchmark
from .rows import Row, beside, by_letter, by_place, kept, spans, split_question, table, unlettered

OPEN_ANSWER = "open_answer"
_ACTIVITYNET_TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
_LETTER = re.compile(r"^\s*\(?([A-Z])\b[.):]?")
_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_REQUEST = re.compile(r"\n[^\n]*\b(letter|option)\b[^\n]*$", re.IGNORECASE)


def _star(row: Mapping[str, Any]) -> Row:
    """STAR (Wu et al., 2021).

    `STAR_train.json`, `STAR_val.json` with question_id ("Interaction_T1_13"), question, answer (text), choices
    [{choice_id, choice}], video_id (of Charades), start, end in seconds: what the question is about.
    """
    options = tuple(str(choice["choice"]).strip() for choice in sorted(row["choices"], key=lambda c: c["choice_id"]))
    answer = row.get("answer")
    return Row(
        Question(
            id=str(row["question_id"]),
            video=str(row["video_id"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=None if answer is None else by_letter(str(answer).strip(), options),
            evidence=spans([(row["start"], row["end"])]),
            category=str(row["question_id"]).split("_")[0],
        )
    )


def _perception_test_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in files:
        if path.suffix == ".parquet":
            yield from table([path])
            continue
        for name, facts in beside(path).items():
            if not isinstance(facts, Mapping) or not isinstance(facts.get("mc_question", []), list):
                raise InputError(f"{path}: {name} does not hold a list mc_question")
            yield from ({"video_name": name, **question} for question in facts.get("mc_question", []))


def _perception_test(row: Mapping[str, Any]) -> Row:
    """Perception Test, multiple choice (Pătrăucean et al., 2023).

    `mc_question_train.json`, `mc_question_valid.json` or `all_*.json`: {video: {metadata, mc_question: [{id, question,
    options, answer_id, area, reasoning, tag}]}}; the Parquet copy has a row for each question with video_name and
    question_id.
    """
    options = tuple(str(option).strip() for option in row["options"])
    return Row(
        Question(
            id=f"{row['video_name']}_{row['id'] if 'id' in row else row['question_id']}",
            video=str(row["video_name"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=by_place(row.get("answer_id"), options),
            category=str(row.get("area") or ""),
            extra=kept(row, "reasoning", "tag"),
        )
    )


def _llava_video_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for row in table(files):
        turns = row.get("conversations")
        if not isinstance(turns, list) or len(turns) % 2:
            raise InputError(f"conversations of {shown(row.get('id'))} are no pairs of question and answer")
        for place in range(0, len(turns), 2):
            yield {**row, "_turn": place // 2, "_asked": turns[place]["value"], "_told": turns[place + 1]["value"]}


def _llava_video(row: Mapping[str, Any]) -> Row:
    """LLaVA-Video-178K (Zhang et al., 2024).

    `*_mc_*.json` and `*_oe_*.json` with id, video, data_source and conversations [{from, value}]: a question behind
    "<image>", its "A. …" lines and a request for the letter; then "B. …". Every pair of turns is a question.
    """
    text = str(row["_asked"]).replace("<image>", "").replace("<video>", "").strip()
    question, options = split_question(_REQUEST.sub("", text))
    told = str(row["_told"]).strip()
    letter = _LETTER.match(told)
    extra: dict[str, Any] = {} if options else {OPEN_ANSWER: told}
    return Row(
        Question(
            id=f"{row['id']}_{row['_turn']}",
            video=str(row["video"]),
            question=question,
            options=options,
            answer=by_letter(letter[1] if letter else told, options) if options else None,
            category=str(row.get("data_source") or ""),
            extra=extra,
        )
    )


def _video_r1(row: Mapping[str, Any]) -> Row | str:
    """Video-R1-260k (Feng et al., 2025).

    `Video-R1-260k.json` with problem_id, problem, data_type ("video", "image"), problem_type ("multiple choice",
    "free-form", …), options ["A. …"], solution "<answer>A</answer>", path, data_source.
    """
    if row.get("data_type") != "video":
        return "no video"
    found = _TAGGED.search(str(row["solution"]))
    answer = found[1] if found else str(row["solution"]).strip()
    choice = row["problem_type"] == "multiple choice"
    options = unlettered(row["options"]) if choice else ()
    return Row(
        Question(
            id=str(row["problem_id"]),
            video=str(row["path"]).removeprefix("./"),
            question=str(row["problem"]).strip(),
            options=options,
            answer=by_letter(answer, options) if choice else None,
            category=str(row.get("data_source") or row["problem_type"]),
            extra={} if choice else {OPEN_ANSWER: answer},
        )
    )


def _activitynet_qa_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in files:
        answers_path = path.with_name(path.name.replace("_q.", "_a."))
        if not answers_path.is_file() or answers_path == path:
            raise InputError(f"the answers {answers_path} are not there; they belong beside {path.name}")
        answers = {row["question_id"]: row for row in table([answers_path])}
        for row in table([path]):
            yield {**row, **answers.get(row.get("question_id"), {})}


def _activitynet_qa(row: Mapping[str, Any]) -> Row | str:
    """ActivityNet-QA (Yu et al., 2019), open questions.

    `train_q.json` with video_name, question_id, question, and `train_a.json` with question_id, answer, type (0 to 8);
    videos `v_<video_name>.mp4`.
    """
    if row.get("answer") is None:
        return "no answer"
    name = str(row["video_name"])
    return Row(
        Question(
            id=str(row["question_id"]),
            video=name if name.startswith("v_") else f"v_{name}",
            question=str(row["question"]).strip().rstrip("?") + "?",
            category=_ACTIVITYNET_TYPES[int(row["type"])],
            extra={OPEN_ANSWER: str(row["answer"]).strip()},
        )
    )


def _clevrer_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for row in table(files):
        for question in row["questions"]:
            yield {**row, **question}


def _clevrer(row: Mapping[str, Any]) -> Row | str:
    """CLEVRER (Yi et al., 2020).

    `train.json`, `validation.json` with scene_index, video_filename and questions [{question_id, question,
    question_type, question_subtype, answer or choices [{choice_id, choice, answer: "correct" or "wrong"}]}].
    Descriptive questions are open. Of the others only those with a single right choice can be scored.
    """
    identity, kind = f"{row['scene_index']}_{row['question_id']}", str(row["question_type"])
    common: dict[str, Any] = {
        "id": identity, "video": str(row["video_filename"]), "question": str(row["question"]).strip(),
    }  # fmt: skip
    if "choices" not in row:
        if row.get("answer") is None:
            return "no answer"
        return Row(Question(**common, category=str(row.get("question_subtype") or kind),
                            extra={OPEN_ANSWER: str(row["answer"])}))  # fmt: skip
    right = [place for place, choice in enumerate(row["choices"]) if choice.get("answer") == "correct"]
    if len(right) != 1 or len(row["choices"]) < 2:
        return "not one right choice of several"
    options = tuple(str(choice["choice"]).strip() for choice in row["choices"])
    return Row(Question(**common, options=options, answer=right[0], category=kind))


_ALL = (
    Benchmark("star", "STAR", ("STAR_{split}.json", "**/STAR_{split}.json"), table, _star, split="train"),
    Benchmark("perception_test", "Perception Test", ("mc_question_{split}.json", "all_{split}.json", "**/*.parquet"),
              _perception_test_rows, _perception_test, split="train"),
    Benchmark("llava_video", "LLaVA-Video-178K", ("*_mc_*.json", "**/*_mc_*.json", "**/*_oe_*.json"),
              _llava_video_rows, _llava_video),
    Benchmark("video_r1", "Video-R1", ("Video-R1-260k.json", "Video-R1*.json"), table, _video_r1),
    Benchmark("activitynet_qa", "ActivityNet-QA", ("{split}_q.json", "dataset/{split}_q.json"), _activitynet_qa_rows,
              _activitynet_qa, split="train"),
    Benchmark("clevrer", "CLEVRER", ("{split}.json", "questions/{split}.json"), _clevrer_rows, _clevrer,
              split="train"),
)  # fmt: skip
TRAINING_SETS: dict[str, Benchmark] = {one.name: one for one in _ALL} | {"nextqa": BENCHMARKS["nextqa"]}
"""By the name of `data.format`."""
