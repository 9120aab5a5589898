"""Pictures of a selection: the timeline with its frames, and the contact sheet."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from .selection import Selection

_CHOSEN, _UNIFORM = "#d1495b", "#8d99ae"
_MOST_COLUMNS = 8  # pictures per row in a plot; more chosen frames are shown as evenly chosen examples


def clock(seconds: float) -> str:
    """Seconds as m:ss.t or h:mm:ss.t."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{tenths / 10:04.1f}"


def plot_selection(selection: Selection, path: Path) -> None:
    """Draw scores over time, the chosen frames, and the frames that uniform sampling would have shown."""
    # The object interface of matplotlib: pyplot would touch the caller's figures and backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .selectors.algorithms import uniform

    shown = _examples(len(selection))
    spread = uniform(selection.candidate_timestamps, len(selection))[shown]
    chosen_rows = [shown[i : i + _MOST_COLUMNS] for i in range(0, len(shown), _MOST_COLUMNS)]
    columns = max(len(row) for row in chosen_rows)
    decoded = selection.get_frames(
        np.concatenate([selection.indices[shown], selection.candidate_indices[spread]]), size=_thumb_size(selection)
    )
    thumbs, times = decoded.data, decoded.timestamps  # times of what is shown, which for a damaged frame is another one
    chosen, even = thumbs[: len(shown)], thumbs[len(shown) :]

    aspect = thumbs.shape[1] / thumbs.shape[2]
    width = 13.0
    row_height = width / columns * aspect + 0.32
    figure = Figure(figsize=(width, 2.5 + 2 * row_height), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3, columns, height_ratios=[1.55, row_height, row_height], hspace=0.24, wspace=0.04,
        left=0.045, right=0.99, top=1 - 0.55 / (2.5 + 2 * row_height), bottom=0.01,
    )  # fmt: skip
    title = textwrap.fill(f"“{selection.question}”", 110)
    figure.suptitle(title, x=0.045, ha="left", fontsize=13, fontweight="bold")

    axis = figure.add_subplot(grid[0, :])
    _draw_scores(axis, selection, selection.candidate_timestamps[spread])

    label = f"{selection.selector}: the {len(selection)} frames chosen" if selection.strategy == "selected" else (
        f"{selection.selector}: nothing stands out, {len(selection)} frames spread"
    )  # fmt: skip
    rows = (
        (1, chosen, times[: len(shown)], _CHOSEN, label),
        (2, even, times[len(shown) :], _UNIFORM, "uniform sampling, for comparison"),
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
                cell.set_title(text, loc="left", fontsize=10, color=colour, fontweight="bold", pad=4)
    figure.savefig(path, format=path.suffix[1:])


def _draw_scores(axis: object, selection: Selection, spread: np.ndarray) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    assert isinstance(axis, Axes)
    times, scores = selection.candidate_timestamps, selection.scores
    finite = np.where(np.isfinite(scores), scores, np.nan)
    axis.fill_between(times, finite, np.nanmin(finite), color="#e9ecef", linewidth=0)
    axis.plot(times, finite, color="#495057", linewidth=1.2)
    at = np.searchsorted(times, selection.timestamps)
    axis.plot(selection.timestamps, finite[at], "o", color=_CHOSEN, markersize=7, label="chosen", zorder=3)
    floor = np.full(len(spread), np.nanmin(finite))
    axis.plot(spread, floor, "|", color=_UNIFORM, markersize=12, markeredgewidth=2.5, label="uniform", zorder=2)
    axis.set_xlim(0, max(selection.duration, float(times[-1])) or 1.0)
    axis.xaxis.set_major_locator(MaxNLocator(10))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda t, _: clock(t)[:-2]))
    axis.set_yticks([])
    axis.set_ylabel("score", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, ncols=2, frameon=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def contact_sheet(selection: Selection, *, columns: int | None = None) -> Image.Image:
    """The chosen frames in a grid, each with its time below it."""
    from PIL import Image, ImageDraw, ImageFont

    count = len(selection)
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    height, width = _thumb_size(selection)
    decoded = selection.get_frames(selection.indices, size=(height, width))
    caption, gap = 18, 4
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + caption + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for k, (thumb, time) in enumerate(zip(decoded.data, decoded.timestamps, strict=True)):
        row, column = divmod(k, columns)
        x, y = gap + column * (width + gap), gap + row * (height + caption + gap)
        sheet.paste(Image.fromarray(thumb), (x, y))
        draw.text((x + width // 2, y + height + 1), clock(float(time)), fill="black", font=font, anchor="ma")
    return sheet


def _thumb_size(selection: Selection, longest: int = 320) -> tuple[int, int]:
    """(height, width) of a thumbnail that keeps the video's shape and does not enlarge it."""
    width, height = int(selection.video["width"]), int(selection.video["height"])
    scale = min(1.0, longest / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _examples(count: int) -> np.ndarray:
    """Positions of the frames shown in one row: all, or `_MOST_COLUMNS` of them evenly."""
    if count <= _MOST_COLUMNS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _MOST_COLUMNS).round().astype(int))
