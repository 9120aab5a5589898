"""Pictures of chosen frames: the timeline of scores with its frames, and the contact sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .plain_text import printable

if TYPE_CHECKING:
    from PIL import Image

    from .selection import Quote
    from .video import Frames

_CHOSEN, _UNIFORM, _SAID = "#d1495b", "#8d99ae", "#2a6f97"
_MOST_QUOTES = 4  # lines of text below the scores
_MOST_COLUMNS = 8  # pictures per row in a plot; more chosen frames are shown as evenly chosen examples


def clock(seconds: float) -> str:
    """Seconds as m:ss.t or h:mm:ss.t."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{tenths / 10:04.1f}"


def drawable(text: str, width: int | None = None) -> str:
    """A text of anybody for matplotlib: no formulas, nothing that a font cannot be asked for; four lines at most.

    Args:
        text: what is to be read.
        width: letters of a line; None leaves the lines as they are.
    """
    plain = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in printable(text))
    if width is not None:
        plain = textwrap.fill(plain, width, max_lines=4, placeholder=" …")
    return plain.replace("$", r"\$")


def plot_choice(
    path: Path,
    *,
    title: str,
    label: str,
    chosen: tuple[np.ndarray, np.ndarray],
    candidates: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    duration: float,
    decode: Callable[[np.ndarray], Frames],
    quotes: Sequence[Quote] = (),
) -> None:
    """Draw scores over time, the chosen frames, and the frames that uniform sampling would have shown.

    Args:
        path: where to; its suffix says the format.
        title: of the whole, e.g. the question.
        label: of the chosen frames.
        chosen: frame numbers [K] and seconds [K] of the chosen frames.
        candidates: the same of the candidates, [F].
        scores: of the candidates, [F]; -inf for "never".
        duration: of the video, in seconds.
        decode: from frame numbers [N] to small pictures, with the times of what they show.
        quotes: lines that decided; they stand below the scores.
    """
    # The object interface of matplotlib: pyplot would touch the caller's figures and backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .selectors.algorithms import uniform

    (indices, timestamps), (candidate_indices, candidate_timestamps) = chosen, candidates
    shown = _examples(len(indices))
    spread = uniform(candidate_timestamps, len(indices))[shown]
    chosen_rows = [shown[i : i + _MOST_COLUMNS] for i in range(0, len(shown), _MOST_COLUMNS)]
    columns = max(len(row) for row in chosen_rows)
    thumbs = decode(np.concatenate([indices[shown], candidate_indices[spread]]))

    aspect = thumbs.data.shape[1] / thumbs.data.shape[2]
    width = 13.0
    row_height = width / columns * aspect + 0.32
    said = sorted(sorted(quotes, key=lambda quote: -(quote.match or 0.0))[:_MOST_QUOTES], key=lambda quote: quote.start)
    text_height = 0.2 * len(said)
    height = 2.5 + text_height + 2 * row_height
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3, columns, height_ratios=[1.55 + text_height, row_height, row_height], hspace=0.24, wspace=0.04,
        left=0.045, right=0.99, top=1 - 0.55 / height, bottom=0.01,
    )  # fmt: skip
    figure.suptitle(drawable(title, 110), x=0.045, ha="left", fontsize=13, fontweight="bold")

    axis = figure.add_subplot(grid[0, :])
    if said:
        place = axis.get_position()
        below = text_height / height
        axis.set_position((place.x0, place.y0 + below, place.width, place.height - below))
        for number, quote in enumerate(said):
            top = place.y0 + below - (0.36 + 0.2 * number) / height
            figure.text(place.x0, top, drawable(quoted(quote)), fontsize=9, color=_SAID, va="top")
            axis.axvspan(quote.start, max(quote.end, quote.start), color=_SAID, alpha=0.18, linewidth=0)
    _draw_scores(axis, candidate_timestamps, scores, timestamps, candidate_timestamps[spread], duration)

    count = len(shown)
    rows = (
        (1, thumbs.data[:count], thumbs.timestamps[:count], _CHOSEN, label),
        (2, thumbs.data[count:], thumbs.timestamps[count:], _UNIFORM, "uniform sampling, for comparison"),
    )
    for row, pictures, times, colour, text in rows:
        for column, (picture, time) in enumerate(zip(pictures, times, strict=True)):
            cell = figure.add_subplot(grid[row, column])
            cell.imshow(picture)
            cell.set_xticks([])
            cell.set_yticks([])
            for spine in cell.spines.values():
                spine.set_color(colour)
                spine.set_linewidth(2.5)
            cell.set_xlabel(clock(float(time)), fontsize=9, labelpad=2)
            if column == 0:
                cell.set_title(drawable(text), loc="left", fontsize=10, color=colour, fontweight="bold", pad=4)
    figure.savefig(path, format=path.suffix[1:])


def quoted(quote: Quote) -> str:
    """A line with its time, for people; long ones are shortened."""
    text = textwrap.shorten(printable(quote.text), 140, placeholder=" …")
    return f"{clock(quote.start)}  “{text}”" + (" (written)" if quote.source == "written" else "")


def _draw_scores(
    axis: object, times: np.ndarray, scores: np.ndarray, chosen: np.ndarray, spread: np.ndarray, duration: float
) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    assert isinstance(axis, Axes)
    finite = np.where(np.isfinite(scores), scores, np.nan)
    axis.fill_between(times, finite, np.nanmin(finite), color="#e9ecef", linewidth=0)
    axis.plot(times, finite, color="#495057", linewidth=1.2)
    at = np.searchsorted(times, chosen)
    axis.plot(chosen, finite[at], "o", color=_CHOSEN, markersize=7, label="chosen", zorder=3)
    floor = np.full(len(spread), np.nanmin(finite))
    axis.plot(spread, floor, "|", color=_UNIFORM, markersize=12, markeredgewidth=2.5, label="uniform", zorder=2)
    axis.set_xlim(0, max(duration, float(times[-1])) or 1.0)
    axis.xaxis.set_major_locator(MaxNLocator(10))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda t, _: clock(t)[:-2]))
    axis.set_yticks([])
    axis.set_ylabel("score", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, ncols=2, frameon=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def contact_sheet(frames: np.ndarray, timestamps: np.ndarray, *, columns: int | None = None) -> Image.Image:
    """Frames in a grid, each with its time below it.

    Args:
        frames: uint8 RGB [K, h, w, 3].
        timestamps: seconds, [K].
        columns: frames per row (default: a nearly square sheet).
    """
    from PIL import Image, ImageDraw, ImageFont

    count, height, width, _ = frames.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    caption, gap = 18, 4
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + caption + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for k, (thumb, time) in enumerate(zip(frames, timestamps, strict=True)):
        row, column = divmod(k, columns)
        x, y = gap + column * (width + gap), gap + row * (height + caption + gap)
        sheet.paste(Image.fromarray(thumb), (x, y))
        draw.text((x + width // 2, y + height + 1), clock(float(time)), fill="black", font=font, anchor="ma")
    return sheet


def _examples(count: int) -> np.ndarray:
    """Positions of the frames shown in one row: all, or `_MOST_COLUMNS` of them evenly."""
    if count <= _MOST_COLUMNS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _MOST_COLUMNS).round().astype(int))
