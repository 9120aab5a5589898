"""A report from parts: Markdown with its pictures beside it, and one HTML page with everything inside."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..plain_text import markdown_paragraph, markdown_text
from .records import write_bytes, write_text

_PACKAGES = ("refocus-select", "torch", "transformers", "tokenizers", "accelerate", "numpy", "av", "pillow", "pyarrow")


@dataclass(frozen=True)
class Heading:
    """A heading of the second level."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph, plain words."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        header: of the columns.
        rows: as many cells as the header has.
        caption: above the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: of the file, without suffix.
        png: its content.
        caption: what is seen, also for those who cannot see it.
    """

    name: str
    png: bytes
    caption: str


Part = Heading | Text | Code | Table | Figure

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #212529 }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0 }
th, td { border-bottom: 1px solid #dee2e6; padding: 0.25rem 0.8rem; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto } figure { margin: 1rem 0 } figcaption { color: #495057 }
pre { background: #f1f3f5; padding: 0.8rem; overflow-x: auto }"""


def write_report(folder: Path, title: str, parts: Sequence[Part], *, name: str = "report") -> tuple[Path, Path]:
    """Write `report.md` with its pictures, and `report.html`.

    Returns:
        The paths of both.
    """
    for part in parts:
        if isinstance(part, Figure):
            write_bytes(folder / f"{part.name}.png", part.png)
    page = write_text(folder / f"{name}.html", to_html(title, parts))
    return write_text(folder / f"{name}.md", to_markdown(title, parts)), page


def to_markdown(title: str, parts: Sequence[Part]) -> str:
    """The report as Markdown; pictures are files beside it."""
    blocks = [f"# {markdown_text(title)}"]
    for part in parts:
        if isinstance(part, Heading):
            blocks.append(f"## {markdown_text(part.text)}")
        elif isinstance(part, Text):
            blocks.append(markdown_paragraph(part.text))
        elif isinstance(part, Code):
            blocks.append("\n".join(f"    {line}" for line in part.text.splitlines()))
        elif isinstance(part, Figure):
            blocks.append(f"![{markdown_text(part.caption)}]({part.name}.png)")
        else:
            lines = [_row(part.header), "|" + "---|" * len(part.header), *map(_row, part.rows)]
            blocks.append("\n".join(([f"**{markdown_text(part.caption)}**", ""] if part.caption else []) + lines))
    return "\n\n".join(blocks) + "\n"


def to_html(title: str, parts: Sequence[Part]) -> str:
    """The report as one page that needs no other file and no network."""
    blocks = [f"<h1>{html.escape(title)}</h1>"]
    for part in parts:
        if isinstance(part, Heading):
            blocks.append(f"<h2>{html.escape(part.text)}</h2>")
        elif isinstance(part, Text):
            blocks.append(f"<p>{html.escape(part.text)}</p>")
        elif isinstance(part, Code):
            blocks.append(f"<pre>{html.escape(part.text)}</pre>")
        elif isinstance(part, Figure):
            data = base64.b64encode(part.png).decode("ascii")
            caption = html.escape(part.caption)
            image = f'<img alt="{html.escape(part.caption, quote=True)}" src="data:image/png;base64,{data}">'
            blocks.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
        else:
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.header)
            rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in part.rows]
            caption = f"<caption>{html.escape(part.caption)}</caption>" if part.caption else ""
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            blocks.append(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    body = "\n".join(blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def versions() -> dict[str, str]:
    """Python, the system, and the packages that decide results."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown_text, cells)) + " |"
