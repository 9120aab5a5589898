"""The formats in which benchmarks are published: where their lists lie, and what a row of them says.

Field names and layouts are those of the authors' files and of the Hugging Face copies that lmms-eval 0.7 reads; the
docstring of each reader names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_text import parse_json, shown
from ..questions import Question
from .rows import (
    Row,
    beside,
    by_letter,
    by_place,
    kept,
    length_group,
    seconds,
    spans,
    split_question,
    table,
    unlettered,
)


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is published.

    Attributes:
        name: on the command line.
        title: for people.
        files: patterns of annotation files below the folder, the first that is there wins; {split} is replaced.
        read: rows of these files.
        convert: from one row of a table to a question; selections of the authors' release carry such rows.
        split: default of `split`.
        tolerance: see `QuestionSet`.
        subtitles: whether subtitles are published beside it.
    """

    name: str
    title: str
    files: tuple[str, ...]
    read: Callable[[list[Path]], Iterator[Any]]
    convert: Callable[[Mapping[str, Any]], Row | str]
    split: str = ""
    tolerance: float = 0.0
    subtitles: bool = False


# -- question answering ---------------------------------------------------------------------------


def _videomme(row: Mapping[str, Any]) -> Row:
    """Video-MME (Fu et al., 2024).

    `videomme/test-*.parquet` with video_id, duration (short, medium, long), domain, sub_category, videoID,
    question_id, task_type, question, options ["A. …"], answer "A"; videos in `data/<videoID>.mp4`, subtitles of those
    that have any in `subtitle/<videoID>.srt`.
    """
    options = unlettered(row["options"])
    return Row(
        Question(
            id=str(row["question_id"]),
            video=str(row["videoID"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=by_letter(row["answer"], options),
            category=str(row["task_type"]),
            extra={"length": str(row["duration"]), **kept(row, "domain", "sub_category")},
        ),
        subtitles=f"{row['videoID']}.srt",
    )


def _longvideobench(row: Mapping[str, Any]) -> Row:
    """LongVideoBench (Wu et al., 2024).

    `lvb_val.json` with candidates, or `validation-*.parquet` with option0 … option4 ("N/A" where there is none),
    and id, video_path, question, correct_choice, question_category, duration_group (15, 60, 600, 3600), level,
    topic_category; videos in `videos/`. Subtitles in `subtitles/<subtitle_path>`, a list of {"start": "00:00:01.000",
    "end", "line"} or {"timestamp": [1.0, 2.5], "text"}, belong to the film that the video was cut from, where it begins
    at starting_timestamp_for_subtitles.
    """
    raw = row.get("candidates") or [row[f"option{n}"] for n in range(5) if row.get(f"option{n}") not in (None, "N/A")]
    options = tuple(str(option) for option in raw)
    return Row(
        Question(
            id=str(row["id"]),
            video=str(row["video_path"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=by_place(row.get("correct_choice"), options),
            category=str(row["question_category"]),
            extra={"length": f"{row['duration_group']} s", **kept(row, "level", "topic_category", "position")},
        ),
        near="videos",
        subtitles=str(row.get("subtitle_path") or ""),
        subtitles_start=float(row.get("starting_timestamp_for_subtitles") or 0.0),
    )


def _mlvu_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in files:
        yield from ({**row, "_file": path.stem} for row in table([path]))


def _mlvu(row: Mapping[str, Any]) -> Row | str:
    """MLVU (Zhou et al., 2024).

    Development set: `json/1_plotQA.json` … `7_topic_reasoning.json` with video, duration, question, candidates,
    answer (the text), question_type, videos in `video/1_plotQA/` …; the copy for lmms-eval as Parquet with
    video_name, question (options included), candidates, answer (a letter), task_type; test set: `test_mcq_gt.json`.
    The open-ended tasks 8 and 9 are left out.
    """
    if not row.get("candidates"):
        return "open-ended"
    kind = str(row.get("question_type") or row["task_type"])
    video = str(row.get("video") or row["video_name"])
    options = tuple(str(option) for option in row["candidates"])
    question, _ = split_question(str(row["question"]))
    answer = str(row["answer"]).strip()
    given = row.get("question_id")
    extra = kept(row, "duration")
    if "duration" in extra:
        extra["length"] = length_group(float(extra["duration"]))
    return Row(
        Question(
            id=str(given) if given is not None else _mlvu_id(row, kind, video, question),
            video=video,
            question=question,
            options=unlettered(options),
            answer=options.index(answer) if answer in options else by_letter(answer, options),
            category=kind,
            extra=extra,
        ),
        near=str(row.get("_file", "")),
    )


def _mlvu_id(row: Mapping[str, Any], kind: str, video: str, question: str) -> str:
    """MLVU gives its questions no names; options tell apart the same question about the same video."""
    content = "\n".join([question, *map(str, row["candidates"]), str(row["answer"])])
    return f"{kind}-{Path(video).stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _with_vidor(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    """Rows with the path of the video in VidOR, if the map is beside the table."""
    for path in files:
        places: Mapping[str, str] = {}
        for folder in (path.parent, path.parent.parent):
            if (folder / "map_vid_vidorID.json").is_file():
                places = beside(folder / "map_vid_vidorID.json")
                break
        for row in table([path]):
            name = str(row.get("video", row.get("video_id")))
            yield {**row, "_vidor": places.get(name, name)}


def _nextqa(row: Mapping[str, Any]) -> Row:
    """NExT-QA, multiple choice (Xiao et al., 2021).

    `val.csv` or `test.csv` with video, question, answer (0 to 4), qid, type, a0 … a4, and `map_vid_vidorID.json`
    where the videos lie in VidOR's folders; the Parquet copy has the same fields.
    """
    options = tuple(str(row[f"a{n}"]).strip() for n in range(5))
    return Row(
        Question(
            id=f"{row['video']}_{row['qid']}",
            video=str(row.get("_vidor", row["video"])),
            question=str(row["question"]).strip(),
            options=options,
            answer=by_place(row["answer"], options),
            category=str(row["type"]),
        )
    )


def _egoschema_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in files:
        answers: Mapping[str, int] = {}
        if (path.parent / "subset_answers.json").is_file():
            answers = beside(path.parent / "subset_answers.json")
        for row in table([path]):
            yield {**row, "_answer": answers.get(str(row.get("q_uid")))}


def _egoschema(row: Mapping[str, Any]) -> Row | str:
    """EgoSchema (Mangalam et al., 2023).

    `questions.json` with q_uid, question, "option 0" … "option 4", beside it `subset_answers.json`; or
    `Subset/*.parquet` with video_idx, question, option ["A. …"], answer. Only the questions with a public answer
    are scored. Videos in `videos/<q_uid>.mp4`.
    """
    options = unlettered(row["option"]) if "option" in row else tuple(str(row[f"option {n}"]) for n in range(5))
    answer = by_place(row.get("answer", row.get("_answer")), options)
    if answer is None:
        return "answer not public"
    name = str(row.get("q_uid") or row["video_idx"])
    return Row(Question(name, name, str(row["question"]).strip(), options, answer))


def _lvbench_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for row in table(files):
        if "qa" in row:  # a line for each video
            if not isinstance(row["qa"], list) or not all(isinstance(question, Mapping) for question in row["qa"]):
                raise InputError(f"qa of {shown(row.get('key'))} is not a list of questions")
            yield from ({**row, **question} for question in row["qa"])
        else:
            yield row


def _lvbench(row: Mapping[str, Any]) -> Row:
    """LVBench (Wang et al., 2024).

    `video_info.meta.jsonl`: a line for each video with key, type, video_info and qa, each with uid, question ("(A)
    …" lines included), answer, question_type (several), time_reference "00:15-00:19"; the Parquet copies have a row
    for each question.
    """
    question, options = split_question(str(row["question"]))
    if row.get("options"):
        options = unlettered(row["options"])
    kinds = row.get("question_type") or []
    kinds = [kinds] if isinstance(kinds, str) else [str(kind) for kind in kinds]
    minutes = (row.get("video_info") or {}).get("duration_minutes")
    ends = [seconds(end) for end in str(row.get("time_reference") or "").split("-")]
    known = len(ends) == 2 and None not in ends
    return Row(
        Question(
            id=str(row["uid"]),
            video=str(row.get("key") or row["video_path"]),
            question=question,
            options=options,
            answer=by_letter(row["answer"], options),
            evidence=spans([ends]) if known else (),
            category=kinds[0] if kinds else "",
            extra={
                "categories": kinds,
                **({"length": length_group(60 * float(minutes))} if minutes is not None else {}),
                **kept(row, "type"),
            },
        )
    )


# -- evidence -------------------------------------------------------------------------------------


def _lvhaystack(row: Mapping[str, Any]) -> Row:
    """LV-Haystack (Ye et al., T*, 2025).

    Parquet or JSON with video_id, question, options {"A": …}, answer, frame_indexes_video, video_metadata
    (frame_rate, video_duration). A frame counts if it is at most 5 s away, as in the authors' evaluation.
    """
    facts = row["video_metadata"]
    facts = parse_json(facts) if isinstance(facts, str) else facts
    rate = float(facts["frame_rate"])
    times = [int(index) / rate for index in row["frame_indexes_video"]]
    if not times:
        raise InputError("no evidence frame is given")
    raw = row.get("options") or {}
    named = {key: str(text) for key, text in raw.items() if text is not None} if isinstance(raw, Mapping) else {}
    options = tuple(named[key] for key in sorted(named))
    text = f"{row['question']}\n{sorted(times)}"
    duration = facts.get("video_duration")
    return Row(
        Question(
            id=str(row.get("id") or f"{row['video_id']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"),
            video=str(row["video_id"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=by_letter(row["answer"], options) if options and row.get("answer") is not None else None,
            evidence=tuple((time, time) for time in sorted(set(times))),
            extra={} if duration is None else {"length": length_group(float(duration))},
        )
    )


def _momentseeker_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for place, row in enumerate(table(files)):
        yield {**row, "_place": place}


def _momentseeker(row: Mapping[str, Any]) -> Row | str:
    """MomentSeeker (Yuan et al., 2025).

    `t2v.json` with qry_text, src_video_path, answering_time_interval, task. Queries by a picture or a video are
    left out.
    """
    if row.get("qry_img_path") or row.get("qry_video_path"):
        return "query by picture or video"
    return Row(
        Question(
            id=f"{Path(str(row['src_video_path'])).stem}-{row['_place']}",
            video=str(row["src_video_path"]).removeprefix("./"),
            question=str(row["qry_text"]).strip(),
            evidence=spans(row["answering_time_interval"]),
            category=str(row.get("task") or ""),
        )
    )


def _nextgqa_rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    for path in files:
        spans_path = path.with_name(f"gsub_{path.stem}.json")
        if not spans_path.is_file():
            raise InputError(f"the time spans {spans_path} are not there; they belong beside {path.name}")
        videos = beside(spans_path)
        for row in _with_vidor([path]):
            of_video = videos.get(str(row.get("video_id", row.get("video"))), {})
            yield {**row, "_facts": of_video}


def _nextgqa(row: Mapping[str, Any]) -> Row | str:
    """NExT-GQA (Xiao et al., 2024).

    `val.csv` or `test.csv` with video_id, question, answer (text or position), qid, type, a0 … a4; `gsub_val.json`
    with {video: {"duration", "location": {qid: [[start, end]]}}}; `map_vid_vidorID.json`.
    """
    spans_of_question = row["_facts"].get("location", {}).get(str(row.get("qid")))
    if not spans_of_question:
        return "no time span"
    name = str(row.get("video_id") or row["video"])
    options = tuple(str(row[f"a{n}"]).strip() for n in range(5))
    answer = str(row["answer"]).strip()
    duration = row["_facts"].get("duration")
    return Row(
        Question(
            id=f"{name}_{row['qid']}",
            video=str(row["_vidor"]),
            question=str(row["question"]).strip(),
            options=options,
            answer=options.index(answer) if answer in options else by_place(answer, options),
            evidence=spans(spans_of_question),
            category=str(row["type"]),
            extra={} if duration is None else {"length": length_group(float(duration))},
        )
    )


_ALL = (
    Benchmark(
        "videomme",
        "Video-MME",
        ("videomme/test-*.parquet", "test-*.parquet", "videomme.json"),
        table,
        _videomme,
        subtitles=True,
    ),
    Benchmark(
        "longvideobench",
        "LongVideoBench",
        ("lvb_{split}.json", "{split}-*.parquet", "validation-*.parquet"),
        table,
        _longvideobench,
        split="val",
        subtitles=True,
    ),
    Benchmark(
        "mlvu",
        "MLVU",
        (
            "json/[1-7]_*.json",
            "MLVU/json/[1-7]_*.json",
            "**/test_mcq_gt.json",
            "test-*.parquet",
            "data/test-*.parquet",
        ),
        _mlvu_rows,
        _mlvu,
    ),
    Benchmark(
        "nextqa",
        "NExT-QA",
        (
            "{split}.csv",
            "nextqa/{split}.csv",
            "dataset/nextqa/{split}.csv",
            "MC/{split}-*.parquet",
            "MC/test-*.parquet",
        ),
        _with_vidor,
        _nextqa,
        split="val",
    ),
    Benchmark("egoschema", "EgoSchema", ("questions.json", "Subset/test-*.parquet"), _egoschema_rows, _egoschema),
    Benchmark(
        "lvbench",
        "LVBench",
        ("video_info.meta.jsonl", "data/video_info.meta.jsonl", "data/*.parquet", "*.parquet"),
        _lvbench_rows,
        _lvbench,
    ),
    Benchmark(
        "lvhaystack",
        "LV-Haystack",
        ("data/{split}-*.parquet", "{split}-*.parquet", "LVHaystack_{split}.json"),
        table,
        _lvhaystack,
        split="test_tiny",
        tolerance=5.0,
    ),
    Benchmark("momentseeker", "MomentSeeker", ("t2v.json",), _momentseeker_rows, _momentseeker),
    Benchmark(
        "nextgqa",
        "NExT-GQA",
        ("{split}.csv", "nextgqa/{split}.csv", "datasets/nextgqa/{split}.csv"),
        _nextgqa_rows,
        _nextgqa,
        split="val",
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
"""By the name on the command line."""


BAD_ROW = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What the readers of rows raise for rows of something else."""


def convert_row(name: str, row: Mapping[str, Any]) -> Question | None:
    """The question of one published row, its video by name; None if the row is of another kind or benchmark."""
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    try:
        converted = BENCHMARKS[name].convert(row)
    except BAD_ROW:
        return None
    return None if isinstance(converted, str) else converted.question
