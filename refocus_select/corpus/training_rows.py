"""Training rows with chosen frames, in the layouts that fine-tuning stacks document.

Frames are pictures with their time in front, "<3.4 seconds>", as `adapters.openai.image_messages` gives them to a model
that answers: what is learnt and what is asked look alike. The stacks give lists of frames the times of a constant rate,
so pictures are the form in which a model learns the true ones.

Layouts: ms-swift, "Custom Dataset", multimodal; LLaMA-Factory, data/README.md, sharegpt format; TRL, "Dataset formats",
vision dataset, conversational prompt-completion; Qwen3-VL, qwen-vl-finetune/README.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import Any, BinaryIO

from ..adapters.input_format import sentence, stamp
from ..errors import InputError
from ..files import write_json
from ..plain_text import json_text, parse_json
from ..questions import Question, multiple_choice
from .output import cannot_write
from .results import read_results

FORMS = ("images", "video")
_ROWS_AT_ONCE = 2000  # between two notes of how far it is


@dataclass(frozen=True)
class Example:
    """One question with its frames and its answer.

    Attributes:
        files: pictures, in order of time.
        timestamps: their seconds.
        duration: of the video in seconds.
        question: what is asked, options included.
        answer: what is to be learnt.
    """

    files: tuple[str, ...]
    timestamps: tuple[float, ...]
    duration: float
    question: str
    answer: str

    def tagged(self, form: str) -> str:
        """The user's text with the tags of ms-swift, LLaMA-Factory and Qwen: one per picture, or one for the video."""
        if form == "images":
            frames = "\n".join(f"{stamp(t)}<image>" for t in self.timestamps)
            return f"{frames}\n{self.question}"
        return f"<video>{sentence(self.timestamps, self.duration)}\n{self.question}"


def _ms_swift(example: Example, form: str) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": example.tagged(form)},
        {"role": "assistant", "content": example.answer},
    ]
    if form == "images":
        return {"messages": messages, "images": list(example.files)}
    return {"messages": messages, "videos": [list(example.files)]}


def _trl(example: Example, form: str) -> dict[str, Any]:
    content: list[dict[str, str]] = []
    for seconds in example.timestamps:
        content += [{"type": "text", "text": stamp(seconds)}, {"type": "image"}]
    content.append({"type": "text", "text": example.question})
    return {
        "images": list(example.files),
        "prompt": [{"role": "user", "content": content}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": example.answer}]}],
    }


def _qwen_vl(example: Example, form: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": example.tagged(form)}, {"from": "gpt", "value": example.answer}]
    return {"image": list(example.files), "conversations": turns}


@dataclass(frozen=True)
class Stack:
    """How a fine-tuning stack wants its rows.

    Attributes:
        row: makes one.
        forms: of `FORMS`, those that it can read.
        use: what to do with the file, for people; {file} is its name.
    """

    row: Callable[[Example, str], dict[str, Any]]
    forms: tuple[str, ...]
    use: str


_FACTORY = (
    '{{"NAME": {{"file_name": "{file}", "formatting": "sharegpt", "columns": {{"messages": "messages", "images": '
    '"images", "videos": "videos"}}, "tags": {{"role_tag": "role", "content_tag": "content", "user_tag": "user", '
    '"assistant_tag": "assistant"}}}}}}'
)
STACKS: dict[str, Stack] = {
    "ms-swift": Stack(_ms_swift, FORMS, "swift sft --dataset {file} …"),
    "llamafactory": Stack(_ms_swift, FORMS, f"in dataset_info.json: {_FACTORY} (only the column that the rows have)"),
    "trl": Stack(
        _trl,
        ("images",),
        'load_dataset("json", data_files="{file}", split="train").cast_column("images", List(Image())), with '
        "max_length=None in SFTConfig",
    ),
    "qwen-vl": Stack(
        _qwen_vl, ("images",), 'in qwenvl/data/__init__.py: {{"annotation_path": "{file}", "data_path": ""}}'
    ),
}


@dataclass
class Converted:
    """How far a conversion is.

    Attributes:
        read: results.
        written: training rows.
        without_frames: results with an error, or without frames.
        without_answer: results that say no answer.
        size: bytes of the file.
    """

    read: int = 0
    written: int = 0
    without_frames: int = 0
    without_answer: int = 0
    size: int = 0


def write_training_rows(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    stack: str,
    *,
    frames: str | os.PathLike[str],
    form: str = "images",
    answer: str | None = None,
    resume: bool = False,
) -> Converted:
    """Write results of `batch` as training rows of a fine-tuning stack.

        select_batch("questions.jsonl", "chosen.jsonl", num_frames=32, frames="pictures")
        write_training_rows("chosen.jsonl", "train.jsonl", "ms-swift", frames="pictures")

    Memory holds one row. Until all are written they stand in TARGET.part, and TARGET.part.json says how far it is.

    Args:
        path: results, .jsonl or .parquet.
        target: a new .jsonl file.
        stack: a key of `STACKS`.
        frames: the folder of `batch --frames`; rows name its pictures by absolute paths.
        form: "images" (pictures, a time in front of each) or "video" (a list of frames as one video, and a sentence
            with the times; stacks give such a list the times of a constant rate besides).
        answer: the column that holds what is to be learnt; by default the letter of the option that `answer` names.
        resume: continue an interrupted run; without one to continue, begin.

    Returns:
        How many rows were written and left out.

    Raises:
        InputError: if the target exists, a picture is missing, no row has an answer, or an argument is not usable.
    """
    goal, folder = Path(target), Path(frames)
    _check(goal, stack, form)
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the one that `refocus-select batch --frames` wrote to")
    folder = folder.resolve()
    status = Path(path).stat() if Path(path).exists() else None
    settings = {
        "results": str(Path(path).resolve()),
        "state": None if status is None else [status.st_size, status.st_mtime_ns],
        "stack": stack,
        "form": form,
        "frames": str(folder),
        "answer": answer,
    }
    part, notes = goal.with_name(f"{goal.name}.part"), goal.with_name(f"{goal.name}.part.json")
    done = _begin(part, notes, settings, resume)
    try:
        with part.open("r+b") as file:
            file.truncate(done.size)
            file.seek(done.size)
            for row in islice(read_results(path), done.read, None):
                example = _example(row, folder, answer, done)
                done.read += 1
                if example is not None:
                    file.write(json_text(STACKS[stack].row(example, form)).encode() + b"\n")
                    done.written += 1
                if done.read % _ROWS_AT_ONCE == 0:
                    _note(file, notes, settings, done)
            _note(file, notes, settings, done)
    except OSError as error:
        raise cannot_write(goal, error) from error
    if not done.written:
        part.unlink()
        notes.unlink()
        raise InputError(
            f"{path}: none of {done.read} results can be trained on: {done.without_frames} have no frames, "
            f"{done.without_answer} no answer; name the column of the answers with --answer"
        )
    part.replace(goal)
    notes.unlink()
    return done


def _check(goal: Path, stack: str, form: str) -> None:
    if stack not in STACKS:
        raise InputError(f"training rows are written for {', '.join(STACKS)}, not {stack!r}")
    if form not in STACKS[stack].forms:
        raise InputError(f"{stack} reads frames as {' or '.join(STACKS[stack].forms)}, not {form!r}")
    if goal.suffix.lower() != ".jsonl":
        raise InputError(f"{goal}: training rows are written to .jsonl")
    if goal.exists():
        raise InputError(f"{goal} exists already; choose another name")


def _begin(part: Path, notes: Path, settings: Mapping[str, Any], resume: bool) -> Converted:
    """Where to begin: at the start, or where an interrupted run noted its state last."""
    if (part.exists() or notes.exists()) and not resume:
        raise InputError(f"{part} is an interrupted run: continue it with --resume, or delete it")
    try:
        if notes.exists() and part.exists():
            stored = parse_json(notes.read_bytes())
            if stored.get("settings") != settings:
                raise InputError(f"{part} was begun with other results or settings: delete it, or repeat them")
            return Converted(**stored["done"])
        part.write_bytes(b"")
    except OSError as error:
        raise cannot_write(part, error) from error
    return Converted()


def _note(file: BinaryIO, notes: Path, settings: Mapping[str, Any], done: Converted) -> None:
    file.flush()
    os.fsync(file.fileno())
    done.size = file.tell()
    write_json(notes, {"settings": settings, "done": asdict(done)})


def _example(row: Mapping[str, Any], folder: Path, column: str | None, done: Converted) -> Example | None:
    """What is learnt from a result; None, and counted, if nothing is."""
    if row["error"] is not None or not row["indices"]:
        done.without_frames += 1
        return None
    answer = _answer(row, column)
    if answer is None:
        done.without_answer += 1
        return None
    files = row.get("files") or []
    if len(files) != len(row["timestamps"]):
        raise InputError(f"result {row['id']} names no pictures: run `refocus-select batch` with --frames")
    shown = sorted(zip(row["timestamps"], files, strict=True))
    paths = tuple(os.path.join(folder, name) for _, name in shown)
    missing = next((p for p in paths if not os.path.exists(p)), None)
    if missing is not None:
        raise InputError(f"result {row['id']}: no picture {missing}; is {folder} the folder of `batch --frames`?")
    return Example(
        paths, tuple(t for t, _ in shown), float(row["duration"] or shown[-1][0]), _without_tags(_asked(row)), answer
    )


def _asked(row: Mapping[str, Any]) -> str:
    options: Sequence[str] = row.get("options") or ()
    question = Question(row["id"], row["video"], row["question"], tuple(options))
    return multiple_choice(question) if options else str(row["question"])


def _answer(row: Mapping[str, Any], column: str | None) -> str | None:
    if column is not None:
        value = row.get(column)
        return _without_tags(str(value)) if value is not None and str(value).strip() else None
    position, options = row.get("answer"), row.get("options") or ()
    return ascii_uppercase[position] if isinstance(position, int) and 0 <= position < len(options) else None


def _without_tags(text: str) -> str:
    """Stacks count these tags, so a text that speaks of one must not hold it."""
    return re.sub(r"<(image|video|audio)>", r"\1", text)


def how_to_use(stack: str, target: str | os.PathLike[str]) -> str:
    """What to do with the file, in one line."""
    return STACKS[stack].use.format(file=Path(target).resolve())
