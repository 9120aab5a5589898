"""Pictures of a report, as PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RefocusError
from ..pictures import clock, drawable
from ..plain_text import printable
from ..statistics import Interval
from ..video import open_video
from .tables import Line

_BASELINE = "#868e96"
_THUMB = 150  # pixels, width of a frame in a strip
_PER_ROW = 8
_MARKERS = ("o", "^", "s", "D", "v")  # colours repeat after ten selectors, markers then change


def curves(lines: Sequence[Line], *, what: str, baseline: str = "uniform") -> bytes:
    """A value over the number of frames, a curve per selector with its 95 % intervals."""
    figure = _figure(7.6, 4.4)
    axis = figure.add_subplot()
    names = list(dict.fromkeys(line.selector for line in lines))
    sizes = sorted({line.num_frames for line in lines})
    for place, name in enumerate(names):
        own = [line for line in lines if line.selector == name]
        shift = 1.018 ** (place - (len(names) - 1) / 2)  # beside each other, so that intervals can be read
        x = [line.num_frames * shift for line in own]
        y = np.array([line.value.mean for line in own])
        low = np.array([0.0 if np.isnan(line.value.low) else line.value.mean - line.value.low for line in own])
        high = np.array([0.0 if np.isnan(line.value.high) else line.value.high - line.value.mean for line in own])
        style = {"color": f"C{place % 10}", "linestyle": "-", "marker": _MARKERS[place // 10 % len(_MARKERS)]}
        if name == baseline:
            style |= {"color": _BASELINE, "linestyle": "--"}
        errors = [np.maximum(low, 0), np.maximum(high, 0)]
        axis.errorbar(x, y, yerr=errors, markersize=5, capsize=2, linewidth=1.4, label=drawable(name), **style)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("frames K")
    axis.set_ylabel(what)
    axis.grid(axis="y", color="#e9ecef")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return _png(figure)


def gains(lines: Sequence[Line], *, what: str, baseline: str) -> bytes:
    """The paired difference to the baseline with its interval, a row per selector and K."""
    shown = [line for line in lines if line.gain is not None]
    figure = _figure(7.6, 1.0 + 0.26 * len(shown))
    axis = figure.add_subplot()
    for place, line in enumerate(shown):
        gain: Any = line.gain
        colour = "#2b8a3e" if gain.low > 0 else "#c92a2a" if gain.high < 0 else "#495057"
        if not np.isnan(gain.low):
            axis.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2)
        axis.plot(gain.mean, place, "o", color=colour, markersize=5)
    axis.axvline(0, color="#adb5bd", linewidth=1)
    labels = [drawable(f"{line.selector}, K = {line.num_frames}") for line in shown]
    axis.set_yticks(range(len(shown)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"{what}, difference to {drawable(baseline)} on the same questions")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    return _png(figure)


def heat_table(groups: Mapping[str, Mapping[str, Interval]], *, what: str) -> bytes:
    """A value per group and selector as a coloured table."""
    rows = list(groups)
    columns = list(dict.fromkeys(name for values in groups.values() for name in values))
    grid = np.array([[groups[row][c].mean if c in groups[row] else np.nan for c in columns] for row in rows])
    figure = _figure(2.2 + 0.85 * len(columns), 1.3 + 0.3 * len(rows))
    axis = figure.add_subplot()
    shown = axis.imshow(grid, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
    for (row, column), number in np.ndenumerate(grid):
        if not np.isnan(number):
            colour = "white" if number > 0.6 else "black"
            axis.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(columns)), [drawable(name) for name in columns], fontsize=8, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), [drawable(name) for name in rows], fontsize=8)
    figure.colorbar(shown, ax=axis, label=what, shrink=0.8)
    return _png(figure)


@dataclass(frozen=True)
class Strip:
    """What one selector chose for a question.

    Attributes:
        label: the selector, and how it went.
        indices: frame numbers.
        timestamps: seconds.
        good: whether the outcome is good, for the colour; None if it cannot be said.
    """

    label: str
    indices: Sequence[int]
    timestamps: Sequence[float]
    good: bool | None = None


def timeline(
    strips: Sequence[Strip], *, end: float, spans: Sequence[tuple[float, float]] = (), title: str, unit: str = "seconds"
) -> bytes:
    """Where in the video each selector chose its frames; evidence is shaded."""
    figure = _figure(9.0, 1.1 + 0.27 * len(strips))
    axis = figure.add_subplot()
    for start, stop in spans:
        middle, half = (start + stop) / 2, max((stop - start) / 2, end / 400)
        axis.axvspan(middle - half, middle + half, color="#ffe066", linewidth=0)
    for place, strip in enumerate(strips):
        axis.plot(strip.timestamps, [place] * len(strip.timestamps), "|", color=_colour(strip), markersize=11,
                  markeredgewidth=1.8)  # fmt: skip
    axis.set_yticks(range(len(strips)), [drawable(strip.label) for strip in strips], fontsize=8)
    axis.set_ylim(len(strips) - 0.5, -0.5)
    axis.set_xlim(0, end)
    axis.set_xlabel(unit, fontsize=8)
    axis.set_title(drawable(title, 100), fontsize=10, loc="left")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    return _png(figure)


def frame_strips(video: str, strips: Sequence[Strip], *, title: str) -> bytes | None:
    """The chosen frames, a row per selector, at most eight of each; None if the video cannot be read."""
    from PIL import Image, ImageDraw, ImageFont

    picks = [_spread(len(strip.indices)) for strip in strips]
    wanted = [np.array(strip.indices, dtype=np.int64)[pick] for strip, pick in zip(strips, picks, strict=True)]
    try:
        with open_video(video) as source:
            height = max(1, round(_THUMB * source.metadata.height / source.metadata.width))
            frames = source.get_frames(np.concatenate(wanted), size=(height, _THUMB)).data
    except RefocusError:
        return None
    columns = max(map(len, wanted))
    lines = textwrap.wrap(printable(title), 110, max_lines=4, placeholder=" …")
    label, gap, top = 18, 4, 10 + 20 * len(lines)
    row_height = label + height + 16 + gap
    sheet = Image.new("RGB", (columns * (_THUMB + gap) + gap, top + len(strips) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    big, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    for number, line in enumerate(lines):
        draw.text((gap, 4 + 20 * number), line, fill="black", font=big)
    place = 0
    for row, (strip, pick) in enumerate(zip(strips, picks, strict=True)):
        y = top + row * row_height
        draw.text((gap, y), printable(strip.label), fill=_colour(strip), font=small)
        for column, position in enumerate(pick):
            x = gap + column * (_THUMB + gap)
            sheet.paste(Image.fromarray(frames[place]), (x, y + label))
            time = clock(float(strip.timestamps[int(position)]))
            draw.text((x + _THUMB // 2, y + label + height + 1), time, fill="#495057", font=small, anchor="ma")
            place += 1
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _colour(strip: Strip) -> str:
    return {True: "#2b8a3e", False: "#c92a2a", None: "#364fc7"}[strip.good]


def _spread(count: int) -> np.ndarray:
    """Positions of the frames that are shown: all, or eight of them evenly."""
    if count <= _PER_ROW:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _PER_ROW).round().astype(int))


def _figure(width: float, height: float) -> Any:
    # The object interface of matplotlib: pyplot would touch the caller's figures and backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
