"""Readers on small files in the published formats."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refocus_select.errors import InputError
from refocus_select.evaluation.benchmarks import read_benchmark
from refocus_select.evaluation.formats import BENCHMARKS, convert_row
from refocus_select.evaluation.rows import length_group
from refocus_select.evaluation.videos import VideoFolder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


VIDEOMME = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many candles burn?",
    "options": ["A. Apples.", "B. Two.", "C. Berries.", "D. Four."],
    "answer": "C",
}


def test_videomme(tmp_path):
    other = {**VIDEOMME, "question_id": "002-1", "videoID": "gone", "duration": "long"}
    parquet(tmp_path / "videomme" / "test-00000-of-00001.parquet", [VIDEOMME, other])
    touch(tmp_path, "data/fFjv93ACGo8.mkv", "subtitle/fFjv93ACGo8.srt")
    found = read_benchmark("videomme", tmp_path)
    (question,) = found.questions
    assert question.id == "001-1"
    assert question.video == str(tmp_path / "data" / "fFjv93ACGo8.mkv")
    assert question.options == ("Apples.", "Two.", "Berries.", "Four.")
    assert question.answer == 2
    assert question.category == "Counting Problem"
    said = {"words": str(tmp_path / "subtitle" / "fFjv93ACGo8.srt")}
    assert question.extra == {"length": "short", "domain": "Knowledge", "sub_category": "Humanity & History"} | said
    assert found.missing == {"gone": 1}
    assert found.order == ("001-1", "002-1")
    assert not found.problems


LONGVIDEOBENCH = {
    "video_id": "86CxyhFV9MI",
    "question": "Which subtitles appear with the man in black?",
    "question_wo_referring_query": "Which subtitles appear?",
    "candidates": ["promise", "loves", "paid", "dreams"],
    "correct_choice": 1,
    "position": [854],
    "topic_category": "NP-News-Programs",
    "question_category": "TOS",
    "level": "L2-Relation",
    "id": "86CxyhFV9MI_0",
    "video_path": "86CxyhFV9MI.mp4",
    "subtitle_path": "86CxyhFV9MI_en.json",
    "duration_group": 600,
    "starting_timestamp_for_subtitles": 0,
    "duration": 190.16,
    "view_count": 259852,
}


def test_longvideobench(tmp_path):
    write_json(tmp_path / "lvb_val.json", [LONGVIDEOBENCH])
    touch(tmp_path, "videos/86CxyhFV9MI.mp4")
    (question,) = read_benchmark("longvideobench", tmp_path).questions
    assert (question.id, question.answer, question.category) == ("86CxyhFV9MI_0", 1, "TOS")
    assert question.options == ("promise", "loves", "paid", "dreams")
    assert question.extra["length"] == "600 s"
    row = {k: v for k, v in LONGVIDEOBENCH.items() if k != "candidates"}
    row |= {f"option{n}": text for n, text in enumerate(["promise", "loves", "paid", "dreams", "N/A"])}
    (tmp_path / "lvb_val.json").unlink()
    parquet(tmp_path / "validation-00000-of-00001.parquet", [row])
    assert read_benchmark("longvideobench", tmp_path).questions == [question]


def test_the_hidden_answers_of_a_test_set_stay_unknown():
    question = convert_row("longvideobench", {**LONGVIDEOBENCH, "correct_choice": -1})
    assert question.answer is None


MLVU = {
    "video": "movie101_66.mp4",
    "duration": 480.0,
    "question": "What color is the main male character in the video?",
    "candidates": ["Yellow", "Red", "Green", "Blue"],
    "answer": "Yellow",
    "question_type": "plotQA",
}


def test_mlvu(tmp_path):
    count = {**MLVU, "candidates": [0, 1, 2, 3], "answer": "3", "question_type": "count", "question": "How often?"}
    write_json(
        tmp_path / "MLVU" / "json" / "1_plotQA.json", [MLVU, {**MLVU, "question": "Which hat?", "answer": "Blue"}]
    )
    write_json(tmp_path / "MLVU" / "json" / "4_count.json", [count])
    write_json(tmp_path / "MLVU" / "json" / "9_summary.json", [{"video": "a.mp4", "question": "Sum up", "answer": "…"}])
    touch(tmp_path, "MLVU/video/1_plotQA/movie101_66.mp4", "MLVU/video/4_count/movie101_66.mp4")
    plot, hat, often = read_benchmark("mlvu", tmp_path).questions
    assert (plot.answer, hat.answer, often.answer) == (0, 3, 3)
    assert often.options == ("0", "1", "2", "3")
    assert "1_plotQA" in plot.video
    assert "4_count" in often.video
    assert (plot.category, plot.extra["length"]) == ("plotQA", "2 to 15 min")
    assert len({plot.id, hat.id, often.id}) == 3


def test_mlvu_for_lmms_eval_is_the_same(tmp_path):
    text = "What color is the main male character in the video?\n(A) Yellow\n(B) Red\n(C) Green\n(D) Blue"
    row = {"video_name": "movie101_66.mp4", "question": text, "candidates": MLVU["candidates"], "answer": "A",
           "task_type": "plotQA"}  # fmt: skip
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row])
    touch(tmp_path, "video_part_1/movie101_66.mp4")
    (question,) = read_benchmark("mlvu", tmp_path).questions
    plain = convert_row("mlvu", MLVU)
    assert (question.question, question.options, question.answer) == (plain.question, plain.options, plain.answer)


def test_mlvu_test_set(tmp_path):
    row = {**MLVU, "question_id": "AR_0", "candidates": list("uvwxyz"), "answer": "z"}
    write_json(tmp_path / "test-ground-truth" / "test_mcq_gt.json", [row])
    touch(tmp_path, "video/movie101_66.mp4")
    (question,) = read_benchmark("mlvu", tmp_path).questions
    assert (question.id, question.answer, len(question.options)) == ("AR_0", 5, 6)


NEXTQA = {
    "video": "4010069381",
    "frame_count": "369",
    "width": "640",
    "height": "480",
    "question": "how do the two man play the instrument",
    "answer": "0",
    "qid": "6",
    "type": "CH",
    **{f"a{n}": text for n, text in enumerate(["roll the handle", "tap their feet", "strum the string", "hit", "pat"])},
}


def test_nextqa(tmp_path):
    table(tmp_path / "val.csv", [NEXTQA])
    write_json(tmp_path / "map_vid_vidorID.json", {"4010069381": "1164/4010069381"})
    touch(tmp_path, "NExTVideo/1164/4010069381.mp4", "other/4010069381.mp4")
    (question,) = read_benchmark("nextqa", tmp_path).questions
    assert (question.id, question.answer, question.category) == ("4010069381_6", 0, "CH")
    assert question.video.endswith("1164/4010069381.mp4")
    assert question.options[2] == "strum the string"


def test_egoschema(tmp_path):
    uid, hidden = "0074f737-11cb-497d-8d07-77c3a8127391", "00aa7247-9a4b-4667-8588-37df29d40fe8"
    row = {"q_uid": uid, "google_drive_id": "x", "question": "What happens?"}
    row |= {f"option {n}": f"C does {n}" for n in range(5)}
    write_json(tmp_path / "questions.json", [row, {**row, "q_uid": hidden}])
    write_json(tmp_path / "subset_answers.json", {uid: 3})
    touch(tmp_path, f"videos/{uid}.mp4", f"videos/{hidden}.mp4")
    found = read_benchmark("egoschema", tmp_path)
    (question,) = found.questions
    assert (question.id, question.answer, question.options[3]) == (uid, 3, "C does 3")
    assert found.left_out == {"answer not public": 1}
    copy = {"question_idx": "0", "question": "What happens?", "video_idx": uid, "answer": "3",
            "option": [f"{letter}. C does {n}" for n, letter in enumerate("ABCDE")]}  # fmt: skip
    (tmp_path / "questions.json").unlink()
    parquet(tmp_path / "Subset" / "test-00000-of-00001.parquet", [copy])
    assert read_benchmark("egoschema", tmp_path).questions == [question]


LVBENCH = {
    "key": "Cm73ma6Ibcs",
    "type": "live",
    "video_info": {"duration_minutes": 70.5, "fps": 30, "resolution": [1280, 720]},
    "qa": [
        {
            "uid": "4",
            "question": "What year appears in the opening caption?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
            "answer": "D",
            "question_type": ["key information retrieval", "entity recognition"],
            "time_reference": "00:15-01:02:19",
        },
        {
            "uid": "5",
            "question": "Why?\n(A) a\n(B) b\n(C) c\n(D) d",
            "answer": "A",
            "question_type": ["reasoning"],
            "time_reference": "",
        },
    ],
}


def test_lvbench(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "video_info.meta.jsonl").write_text(json.dumps(LVBENCH) + "\n")
    touch(tmp_path, "all_videos/Cm73ma6Ibcs.mp4")
    first, second = read_benchmark("lvbench", tmp_path).questions
    assert first.question == "What year appears in the opening caption?"
    assert (first.options, first.answer) == (("1636", "1366", "1363", "1633"), 3)
    assert first.extra["categories"] == ["key information retrieval", "entity recognition"]
    assert first.extra["length"] == "over 60 min"
    assert first.evidence == ((15.0, 3739.0),)
    assert second.evidence == ()


# -- evidence -------------------------------------------------------------------------------------


def test_lvhaystack(tmp_path):
    row = {
        "video_id": "c864505c",
        "question": "What did I put in the drawer?",
        "options": {"A": "a knife", "B": "a spoon", "C": "a fork", "D": "a cup"},
        "answer": "B",
        "frame_indexes_video": [300, 90],
        "video_metadata": {"CLIP-reference-interval": [0, 1], "frame_rate": 30.0, "video_duration": 1800.0},
    }
    parquet(tmp_path / "data" / "test_tiny-00000-of-00001.parquet", [row])
    touch(tmp_path, "videos/c864505c.mp4")
    found = read_benchmark("lvhaystack", tmp_path)
    (question,) = found.questions
    assert question.evidence == ((3.0, 3.0), (10.0, 10.0))
    assert (question.options[1], question.answer) == ("a spoon", 1)
    assert found.tolerance == 5.0
    columns = {key: [value] for key, value in row.items()}
    write_json(tmp_path / "columns.json", columns)
    again = read_benchmark("lvhaystack", tmp_path, annotations=tmp_path / "columns.json")
    assert again.questions == found.questions


def test_momentseeker(tmp_path):
    row = {"qry_text": "A man plays Connect Four.", "qry_img_path": "", "qry_video_path": "",
           "src_video_path": "./videos/ego_79.mp4", "task": "Description Location",
           "answering_time_interval": [[415.0, 480.0], [500, 510]]}  # fmt: skip
    write_json(tmp_path / "t2v.json", [row, {**row, "qry_img_path": "a.jpg"}])
    touch(tmp_path, "videos/ego_79.mp4")
    found = read_benchmark("momentseeker", tmp_path)
    (question,) = found.questions
    assert question.evidence == ((415.0, 480.0), (500.0, 510.0))
    assert question.category == "Description Location"
    assert found.left_out == {"query by picture or video": 1}


def test_nextgqa(tmp_path):
    row = {("video_id" if key == "video" else key): value for key, value in NEXTQA.items()}
    table(tmp_path / "val.csv", [{**row, "answer": "tap their feet"}, {**row, "qid": "7"}])
    write_json(
        tmp_path / "gsub_val.json", {"4010069381": {"duration": 34, "location": {"6": [[1.2, 5.8]]}, "fps": 29.97}}
    )
    touch(tmp_path, "4010069381.mp4")
    found = read_benchmark("nextgqa", tmp_path)
    (question,) = found.questions
    assert (question.evidence, question.answer) == (((1.2, 5.8),), 1)
    assert question.extra["length"] == "up to 2 min"
    assert found.left_out == {"no time span": 1}
    (tmp_path / "gsub_val.json").unlink()
    with pytest.raises(InputError, match="the time spans"):
        read_benchmark("nextgqa", tmp_path)


# -- what may go wrong ----------------------------------------------------------------------------


def test_own_questions(tmp_path):
    rows = [{"id": n, "video": f"{n}.mp4", "question": "?", "options": ["a", "b"], "answer": 0} for n in range(3)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    touch(tmp_path, "videos/0.mp4", "videos/2.mp4")
    found = read_benchmark("questions", tmp_path / "mine.jsonl", videos=tmp_path / "videos")
    assert [q.id for q in found.questions] == ["0", "2"]
    assert found.missing == {str(tmp_path / "videos" / "1.mp4"): 1}
    (tmp_path / "mine.jsonl").write_text((json.dumps(rows[0]) + "\n") * 2)
    with pytest.raises(InputError, match="'0' occurs twice"):
        read_benchmark("questions", tmp_path / "mine.jsonl", videos=tmp_path / "videos")


def test_bad_rows_are_named_and_the_others_read(tmp_path):
    wrong = {**VIDEOMME, "question_id": "x", "answer": "E"}
    lacking = {k: v for k, v in VIDEOMME.items() if k != "task_type"} | {"question_id": "y"}
    write_json(tmp_path / "videomme.json", [wrong, lacking, VIDEOMME])
    touch(tmp_path, "fFjv93ACGo8.mp4")
    found = read_benchmark("videomme", tmp_path)
    assert [q.id for q in found.questions] == ["001-1"]
    assert [problem.where for problem in found.problems] == ["row 1", "row 2"]
    assert "'E' is not one of the 4 options" in found.problems[0].what
    assert "task_type" in found.problems[1].what
    assert found.order == ("", "", "001-1")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no benchmark 'imagenet'"):
        read_benchmark("imagenet", tmp_path)
    with pytest.raises(InputError, match=r"holds no annotations of Video-MME: none of videomme/test-\*"):
        read_benchmark("videomme", tmp_path)
    with pytest.raises(InputError, match="no folder"):
        read_benchmark("mlvu", tmp_path / "none")
    (tmp_path / "videomme.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_benchmark("videomme", tmp_path)
    with pytest.raises(InputError, match="no folder of videos"):
        read_benchmark("videomme", tmp_path, videos=tmp_path / "none")


def test_a_parquet_file_that_is_none(tmp_path):
    (tmp_path / "test-0.parquet").write_bytes(b"PAR?")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_benchmark("videomme", tmp_path)


def test_videos_of_one_name(tmp_path):
    touch(tmp_path, "a/clip.mp4", "b/clip.mp4", "c/Other.WEBM")
    folder = VideoFolder(tmp_path)
    assert folder.find("b/clip.mp4") == tmp_path / "b" / "clip.mp4"
    assert folder.find("clip", near="a") == tmp_path / "a" / "clip.mp4"
    assert folder.find("other.mp4") == tmp_path / "c" / "Other.WEBM"
    assert folder.find("none") is None
    with pytest.raises(InputError, match="several videos are called clip"):
        folder.find("clip")


def test_lengths():
    assert [length_group(s) for s in (120, 121, 3600, 3601)] == [
        "up to 2 min", "2 to 15 min", "15 to 60 min", "over 60 min",
    ]  # fmt: skip


def test_each_benchmark_documents_its_fields():
    for benchmark in BENCHMARKS.values():
        assert benchmark.convert.__doc__.count("\n") >= 2
