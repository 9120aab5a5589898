"""What the page shows of an answer, as HTML. Every text of a video, a file name or a question is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ..pictures import clock
from ..plain_text import printable
from ..selection import Quote, Selection
from ..service.jpeg import jpegs
from ..video import Frames

_MOST_BYTES = 1_500_000  # of the pictures of one row
_WIDTH, _HEIGHT = 1000.0, 120.0  # of the timeline, in units that scale with the page


@dataclass(frozen=True)
class Row:
    """One selector's answer.

    Attributes:
        selection: what it chose.
        frames: small pictures of it.
        colour: "chosen" or "other", see `STYLE`.
    """

    selection: Selection
    frames: Frames
    colour: str


def answer_html(rows: Sequence[Row]) -> str:
    """The timeline, the frames of each selector, and the quotes."""
    first = rows[0].selection
    parts = [f'<h3 class="rs-question">{_text(first.question)}</h3>', _timeline(rows)]
    parts += [_pictures(row) for row in rows]
    if first.quotes:
        lines = "".join(map(_quote, first.quotes))
        parts.append(f'<h4>What is said or written there</h4><ul class="rs-quotes">{lines}</ul>')
    notes = dict.fromkeys(note for row in rows for note in row.selection.warnings)
    parts += [f'<p class="rs-note">Note: {_text(note)}</p>' for note in notes]
    return f'<section class="rs-answer" aria-live="polite">{"".join(parts)}</section>'


def message_html(text: str, *, error: bool = False) -> str:
    """A message in place of an answer."""
    kind, role = ("rs-error", "alert") if error else ("rs-hint", "status")
    return f'<p class="{kind}" role="{role}">{_text(text)}</p>'


def snippet(selection: Selection, video: str, selector: str, encoder: str | None, num_frames: int | str) -> str:
    """The answer as Python for the reader's own model."""
    options = f", selector={selector!r}" + (f", encoder={encoder!r}" if encoder else "")
    return f"""\
from refocus_select import select_frames

selection = select_frames({video!r}, {selection.question!r}, {num_frames!r}{options})
selection.timestamps   # seconds: {[round(float(t), 3) for t in selection.timestamps]}
selection.images       # for your model; selection.metadata() is for processors of transformers
"""


def _timeline(rows: Sequence[Row]) -> str:
    """Scores over time with a mark for every chosen frame; the marks are buttons."""
    first = rows[0].selection
    times, scores = first.candidate_timestamps, first.scores
    length = max(first.duration, float(times[-1]), 1e-9)
    finite = np.where(np.isfinite(scores), scores, np.nan)
    curve = ""
    if np.isfinite(finite).any() and np.nanmax(finite) > np.nanmin(finite):
        low, high = float(np.nanmin(finite)), float(np.nanmax(finite))
        points = [
            f"{_WIDTH * t / length:.1f},{_HEIGHT - (_HEIGHT - 10) * (s - low) / (high - low):.1f}"
            for t, s in zip(times, np.nan_to_num(finite, nan=low), strict=True)
        ]
        base = f"{_WIDTH * times[0] / length:.1f},{_HEIGHT} ", f" {_WIDTH * times[-1] / length:.1f},{_HEIGHT}"
        curve = f'<polygon points="{base[0]}{" ".join(points)}{base[1]}"/>'
    marks = "".join(
        f'<button type="button" class="rs-mark rs-{row.colour}" data-time="{float(t):.6f}" '
        f'style="left:{100 * float(t) / length:.3f}%" aria-label="play at {clock(float(t))}" '
        f'title="{_text(row.selection.selector)}: {clock(float(t))}"></button>'
        for row in reversed(rows)
        for t in row.selection.timestamps
    )
    svg = f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" aria-hidden="true">{curve}</svg>'
    scale = f'<div class="rs-scale"><span>0:00</span><span>{clock(length / 2)}</span><span>{clock(length)}</span></div>'
    return f'<div class="rs-timeline" role="group" aria-label="scores over time">{svg}{marks}</div>{scale}'


def _pictures(row: Row) -> str:
    chosen = row.selection
    how = f"{len(chosen)} frames chosen by {chosen.selector}"
    if chosen.strategy != "selected":
        why = "" if chosen.selector == "uniform" else "nothing stood out, "
        how = f"{chosen.selector}: {why}{len(chosen)} frames spread evenly"
    cards = "".join(
        f'<button type="button" class="rs-frame rs-{row.colour}" data-time="{float(t):.6f}" '
        f'aria-label="play at {clock(float(t))}">'
        f'<img alt="frame at {clock(float(t))}" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}"/>'
        f"<span>{clock(float(t))}</span></button>"
        for t, picture in zip(row.frames.timestamps, jpegs(row.frames.data, _MOST_BYTES), strict=True)
    )
    return f'<h4>{_text(how)}</h4><div class="rs-frames">{cards}</div>'


def _quote(quote: Quote) -> str:
    time = clock(quote.start)
    button = f'<button type="button" class="rs-time" data-time="{float(quote.start):.6f}">{time}</button>'
    return f"<li>{button} <q>{_text(quote.text)}</q>{' (written)' if quote.source == 'written' else ''}</li>"


def _text(text: str) -> str:
    """For HTML, where the page's component also reads "${" and "{{" as its own."""
    return escape(printable(text)).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


STYLE = """
.rs-question { overflow-wrap: anywhere; margin: .2em 0 .6em }
.rs-timeline { position: relative; height: 7em; border-bottom: 1px solid #adb5bd }
.rs-timeline svg { width: 100%; height: 100%; display: block }
.rs-timeline polygon { fill: #ced4da; stroke: #868e96; vector-effect: non-scaling-stroke }
.rs-mark { position: absolute; bottom: -7px; width: 14px; height: 14px; margin-left: -7px; padding: 0;
  border: 2px solid #fff; border-radius: 50%; cursor: pointer }
.rs-mark.rs-chosen { background: #d1495b; z-index: 2 }
.rs-mark.rs-other { background: #6c7a89; border-radius: 3px }
.rs-scale { display: flex; justify-content: space-between; font-size: .8em; margin: .6em 0 }
.rs-frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 6px; margin-bottom: 1em }
.rs-frame { padding: 0; border: 3px solid transparent; border-radius: 6px; background: none; cursor: pointer }
.rs-frame.rs-chosen { border-color: #d1495b } .rs-frame.rs-other { border-color: #8d99ae }
.rs-frame img { width: 100%; display: block; border-radius: 3px; margin: 0 } .rs-frame span { font-size: .85em }
.rs-mark, .rs-frame, .rs-frame img { margin-top: 0 !important; margin-bottom: 0 !important }
.rs-frame:focus-visible, .rs-mark:focus-visible, .rs-time:focus-visible { outline: 3px solid #2a6f97 }
.rs-time { font-variant-numeric: tabular-nums; text-decoration: underline; cursor: pointer; border: 0;
  background: none }
.rs-quotes { list-style: none; padding: 0 }
.rs-quotes q, .rs-note, .rs-error, .rs-hint { overflow-wrap: anywhere }
.rs-error { border-left: 4px solid #d1495b; padding: .5em .8em } .rs-note { font-size: .9em; opacity: .8 }
"""

PLAY = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-time]');
  const video = document.querySelector('#rs-video video');
  if (!button || !video) return;
  video.currentTime = Number(button.dataset.time);
  video.play().catch(() => {});
  video.scrollIntoView({behavior: 'smooth', block: 'nearest'});
});
"""
