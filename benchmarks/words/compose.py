"""Videos with spoken and written words, and questions whose spans are known: drawn and timed by a seeded script.

Lectures are slides with a transcript: a title for some seconds, then one bullet after the other. News are pictures with
a headline for some seconds and a voice, dialogues two drawn people with subtitles. Nothing is spoken aloud: the
transcript lies beside the video, as most users hold it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from refocus_select import open_video
from refocus_select.questions import Question

from .texts import TEMPLATES, Part, Programme, programmes

ROOT = Path(__file__).parents[2]
FILM = ROOT / "examples" / "film" / "big_buck_bunny.mp4"
SIZE = (640, 360)
FPS = 4
TITLE = 4.0  # seconds for which a title is to be read
KINDS = ("said", "written", "who says", "shown while said", "order", "not there", "picture")
_PAPER = ((246, 244, 236), (232, 240, 248), (28, 34, 48), (250, 250, 250), (236, 245, 236))
_PEOPLE = ((192, 84, 72), (70, 110, 170))


@dataclass(frozen=True)
class Made:
    """One video of the benchmark.

    Attributes:
        name: of its files.
        split: "validation" or "test".
        video, transcript: files.
        questions: with `category` one of `KINDS`, and `evidence`, empty for what is not there.
    """

    name: str
    split: str
    video: Path
    transcript: Path
    questions: tuple[Question, ...]


def make(folder: Path, *, seed: int = 0) -> list[Made]:
    """Write all videos and transcripts that are not there yet, and give the questions."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(programme, number, folder, seed) for number, programme in enumerate(programmes())]


def _make(programme: Programme, number: int, folder: Path, seed: int) -> Made:
    rng = random.Random(f"{seed} {programme.title}")
    name = f"{programme.kind}-{number:02d}"
    video, transcript = folder / f"{name}.mp4", folder / f"{name}.srt"
    spans, lines = _timed(programme, rng)
    draw = _drawer(programme, number)
    if not video.exists():
        temporary = video.with_suffix(".part.mp4")
        _write_video(temporary, programme, spans, lines, draw)
        temporary.rename(video)
    transcript.write_text(_srt(lines), encoding="utf-8")
    questions = tuple(_questions(programme, spans, lines, rng, str(video), name))
    return Made(name, programme.split, video, transcript, questions)


Line = tuple[int, str, float, float, str]  # part, who, start, end, text


def _timed(programme: Programme, rng: random.Random) -> tuple[list[tuple[float, float]], list[Line]]:
    """When each part is shown, and when each line is said."""
    now, spans, lines = 0.0, [], []
    for number, part in enumerate(programme.parts):
        start = now
        now += rng.uniform(1.0, 4.0)
        for who, text in part.said:
            length = 1.0 + len(text.split()) / 2.6
            lines.append((number, who, round(now, 3), round(now + length, 3), text))
            now += length + rng.uniform(0.4, 6.0)
        spans.append((start, now))
    return spans, lines


def _questions(
    programme: Programme,
    spans: list[tuple[float, float]],
    lines: list[Line],
    rng: random.Random,
    video: str,
    name: str,
) -> list[Question]:
    templates = TEMPLATES[programme.split]
    found: list[Question] = []

    def ask(kind: str, template: str, text: str, evidence: list[tuple[float, float]]) -> None:
        speaker = programme.speaker if programme.kind != "dialogues" else "somebody"
        question = rng.choice(templates[template]).format(he=speaker, x=text) if template else text
        question = question[0].upper() + question[1:]
        found.append(Question(f"{name}-{len(found)}", video, question, evidence=tuple(evidence), category=kind))

    last = len(programme.parts) - 1
    for number, part in enumerate(programme.parts):
        own = [(start, end) for at, _, start, end, _ in lines if at == number]
        for kind, line, text in part.asked:
            if kind == "picture":
                same = [spans[k] for k, other in enumerate(programme.parts) if other.picture == part.picture]
                ask("picture", "", text, same)
            elif kind == "who":
                ask("who says", "who", text, [own[line]])
            elif kind == "about":
                ask("said", "about", text, [own[line]])
                if programme.kind == "lectures" and number and line == 0:
                    ask("order", "before", text, [(spans[number - 1][1] - TITLE, spans[number - 1][1])])
            else:
                ask("shown while said", "that", text, [own[line]])
                if programme.kind == "lectures" and number < last and line == len(part.said) - 1 and number % 2:
                    ask("order", "after", text, [_shown(spans[number + 1], -1)])
        if programme.kind != "dialogues":
            row = number % 3 - 1 if programme.kind == "lectures" else -1
            text = part.title if row < 0 else part.bullets[row]
            ask("written", "title" if row < 0 else "bullet", text, [_shown(spans[number], row)])
    for text in programme.absent:
        ask("not there", "absent", text, [])
    return found


def _shown(span: tuple[float, float], row: int) -> tuple[float, float]:
    """When the title (-1) or a bullet (0, 1) of a part is to be read."""
    start, end = span
    middle = (start + TITLE + end) / 2
    return ((start, start + TITLE), (start + TITLE, middle), (middle, end))[row + 1]


# -- pictures -------------------------------------------------------------------------------------


def _drawer(programme: Programme, number: int) -> Callable[[Part, int, str], np.ndarray]:
    """From a part, what is to be read (see `_shown`) and who speaks to a picture."""
    if programme.kind == "lectures":
        return lambda part, row, who: _slide(part, row, _PAPER[number % len(_PAPER)])
    if programme.kind == "news":
        return lambda part, row, who: _item(part, row)
    names = list(dict.fromkeys(who for part in programme.parts for who, _ in part.said))
    return lambda part, row, who: _talk(names.index(who) if who else -1)


def _slide(part: Part, row: int, paper: tuple[int, int, int]) -> np.ndarray:
    image = Image.new("RGB", SIZE, paper)
    draw = ImageDraw.Draw(image)
    ink = (240, 236, 220) if sum(paper) < 384 else (25, 28, 60)
    if row < 0:
        draw.text((36, 150), part.title, fill=ink, font=ImageFont.load_default(30))
        draw.line((36, 200, 604, 200), fill=(200, 120, 60), width=3)
    else:
        draw.text((48, 90 + 60 * row), f"• {part.bullets[row]}", fill=ink, font=ImageFont.load_default(22))
    return np.asarray(image)


def _item(part: Part, row: int) -> np.ndarray:
    image = _picture(part.picture).copy()
    if row < 0:
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 304, *SIZE), fill=(24, 44, 96))
        draw.text((20, 314), part.title, fill=(255, 255, 255), font=ImageFont.load_default(26))
    return np.asarray(image)


@cache
def _picture(name: str) -> Image.Image:
    if name.startswith("film "):
        with open_video(FILM) as film:
            index = int(np.searchsorted(film.timestamps, float(name.split()[1])))
            return Image.fromarray(film.get_frames(np.array([index])).data[0]).resize(SIZE)
    return Image.open(ROOT / "examples" / "needles" / f"{name}.jpg").convert("RGB").resize(SIZE)


def _talk(speaking: int) -> np.ndarray:
    """Two people at a table; whoever speaks has an open mouth and is nearer."""
    image = Image.new("RGB", SIZE, (214, 204, 188))
    draw = ImageDraw.Draw(image)
    for place in range(2):
        centre, size = 180 + 280 * place, 82 if place == speaking else 66
        draw.ellipse((centre - size, 150 - size, centre + size, 150 + size), fill=(232, 190, 160))
        draw.rectangle((centre - size, 150 + size, centre + size, 360), fill=_PEOPLE[place])
        for eye in (-26, 26):
            draw.ellipse((centre + eye - 6, 130, centre + eye + 6, 142), fill=(30, 30, 30))
        tall = 16 if place == speaking else 2
        draw.ellipse((centre - 18, 182 - tall, centre + 18, 182 + tall), fill=(120, 30, 30))
    return np.asarray(image)


def _write_video(
    path: Path,
    programme: Programme,
    spans: list[tuple[float, float]],
    lines: list[Line],
    draw: Callable[[Part, int, str], np.ndarray],
) -> None:
    known: dict[tuple[int, int, str], np.ndarray] = {}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "26", "preset": "veryfast"}
        for frame in range(int(spans[-1][1] * FPS)):
            now = frame / FPS
            part = next(k for k, (start, end) in enumerate(spans) if start <= now < end or k == len(spans) - 1)
            who = next((who for _, who, start, end, _ in lines if start <= now <= end), "")
            row = sum(now >= _shown(spans[part], row)[0] for row in (0, 1)) - 1
            key = (part, row, who)
            if key not in known:
                known[key] = draw(programme.parts[part], row, who)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(known[key])))
        container.mux(stream.encode(None))


def _srt(lines: list[Line]) -> str:
    def clock(seconds: float) -> str:
        whole = round(1000 * seconds)
        return f"{whole // 3600000:02d}:{whole // 60000 % 60:02d}:{whole // 1000 % 60:02d},{whole % 1000:03d}"

    rows = [
        f"{number}\n{clock(start)} --> {clock(end)}\n{f'{who.upper()}: ' if who else ''}{text}\n"
        for number, (_, who, start, end, text) in enumerate(lines, start=1)
    ]
    return "\n".join(rows)


def as_json(made: list[Made]) -> str:
    """All questions, to be read by people."""
    rows = [{"video": m.name, "split": m.split, "kind": q.category, "question": q.question, "evidence": q.evidence}
            for m in made for q in m.questions]  # fmt: skip
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
