"""Image-text pairs from packages of public registries, as plain records.

Training sources: openclipart (public domain), fluent emoji 3-D (MIT), Noto emoji (Apache-2.0), media and prompts of
comfyui workflow templates (MIT), and cards with written words that we draw ourselves. Test only, never trained on:
Tux Paint stamps (GPL-2), Big Buck Bunny (CC-BY 3.0). `fetch.sh` lays every package out below one folder.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Folders of openclipart that hold no pictures of things.
_NOT_THINGS = re.compile(
    r"/(shapes|logos|computer/icons|special|buttons|signs_and_symbols|containers|geography|unsorted/gramastar)/"
)
_DC = "{http://purl.org/dc/elements/1.1/}"
_RDF_ITEM = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"


@dataclass(frozen=True)
class Pair:
    """One picture and what it shows; `frame` numbers the picture within an animated file."""

    source: str
    path: Path
    texts: tuple[str, ...]
    frame: int = 0


def training_pairs(root: Path) -> list[Pair]:
    """All pairs that the head may learn from."""
    return [*openclipart(root), *fluent_emoji(root), *noto_emoji(root), *comfy(root), *cards()]


def openclipart(root: Path) -> Iterator[Pair]:
    """Public-domain drawings with titles and tags."""
    base = root / "openclipart/usr/share/openclipart"
    for svg in sorted((base / "svg").rglob("*.svg*")):
        path = base / "png" / svg.relative_to(base / "svg").with_suffix("").with_suffix(".png")
        if _NOT_THINGS.search(str(svg)) or not path.is_file():
            continue
        try:
            tree = ElementTree.fromstring(_read_svg(svg))
        except ElementTree.ParseError:
            continue
        licences = [value for node in tree.iter() for key, value in node.attrib.items() if "icense" in node.tag]
        if not any("ublic" in value for value in licences):
            continue
        title = next((node.text for node in tree.iter(f"{_DC}title") if node.text), "") or path.stem
        tags = [node.text for node in tree.iter(_RDF_ITEM) if node.text]
        title = re.sub(r"[_\-0-9]+", " ", title).strip().lower()
        tags = [tag.lower() for tag in tags if "clip" not in tag.lower() and "http" not in tag][:5]
        if "gramastar" in title or len(title) < 3 or _pixels(path) > 50_000_000:
            continue
        texts = [title] + ([", ".join(tags)] if tags else [])
        yield Pair("openclipart", path, tuple(texts))


def _pixels(png: Path) -> int:
    header = png.read_bytes()[:24]
    return int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big")


def _read_svg(path: Path) -> bytes:
    import gzip

    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _emoji_labels(root: Path) -> dict[str, tuple[str, ...]]:
    """Code points (lower-case, joined by '-') to label and tags; flags, symbols and skin tones are left out."""
    labels = {}
    for entry in json.loads((root / "emojibase/package/en/data.json").read_text(encoding="utf-8")):
        if entry.get("group") in (None, 2, 8, 9):  # components, symbols, flags
            continue
        tags = ", ".join(entry.get("tags", [])[:5])
        labels[entry["hexcode"].lower()] = (entry["label"], tags) if tags else (entry["label"],)
    return labels


def fluent_emoji(root: Path) -> Iterator[Pair]:
    """3-D rendered emoji."""
    labels = {key.replace("-fe0f", ""): value for key, value in _emoji_labels(root).items()}
    for path in sorted((root / "fluent/package/assets").glob("*.webp")):
        texts = labels.get(path.stem.lower().replace("-fe0f", ""))
        if texts:
            yield Pair("fluent", path, texts)


def noto_emoji(root: Path) -> Iterator[Pair]:
    """Flat drawn emoji, 64 pixels."""
    labels = {key.replace("-fe0f", ""): value for key, value in _emoji_labels(root).items()}
    for path in sorted((root / "noto/package/img/google/64").glob("*.png")):
        texts = labels.get(path.stem.lower().replace("-fe0f", ""))
        if texts:
            yield Pair("noto", path, texts)


def comfy(root: Path) -> Iterator[Pair]:
    """Generated pictures and clips with the prompt that made them (text-to-image and text-to-video only)."""
    media = {}
    for path in sorted((root / "whl").glob("comfyui_workflow_templates_media*/*/templates/*.webp")):
        name, _, number = path.stem.rpartition("-")
        media.setdefault(name, []).append((number, path))
    for workflow in sorted((root / "whl").glob("comfyui_workflow_templates_json*/*/templates/*.json")):
        if workflow.stem not in media or not re.search(r"t2[iv]|text_to", workflow.stem):
            continue
        prompt = _longest_prompt(json.loads(workflow.read_text(encoding="utf-8")))
        if prompt is None:
            continue
        sentences = [s.strip() for s in re.split(r"(?<=[.!?\n])\s+", prompt) if 20 < len(s.strip()) < 300][:4]
        texts = tuple(dict.fromkeys([prompt[:300], *sentences]))
        for number, path in media[workflow.stem]:
            if number != "1":
                continue
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
            for frame in sorted({0, frames // 3, 2 * frames // 3}):
                yield Pair("comfy", path, texts, frame)


def _longest_prompt(workflow: dict) -> str | None:
    nodes = [*workflow.get("nodes", [])]
    for graph in workflow.get("definitions", {}).get("subgraphs", []):
        nodes += graph["nodes"]
    texts = [
        value
        for node in nodes
        if "Note" not in str(node.get("type"))
        for value in (node.get("widgets_values") or [])
        if isinstance(value, str) and value.count(" ") >= 5 and value.isascii()
    ]
    negative = re.compile(r"low quality|worst quality|blurry|watermark|bad hands", re.I)
    texts = [text for text in texts if not negative.search(text[:200])]
    return max(texts, key=len) if texts else None


_CARDS = {
    "credits": (
        "closing credits",
        "the end credits of a film",
        "credits, names of the cast and crew",
        "a list of names",
    ),
    "title": ("the title of the film", "opening title", "a title card with big letters", "written words, a caption"),
    "page": ("a page of text", "written text on the screen", "many lines of text", "text, letters, words"),
}
_SYLLABLES = [
    "ba",
    "ren",
    "to",
    "mi",
    "sa",
    "kel",
    "dor",
    "an",
    "vi",
    "lu",
    "per",
    "no",
    "sch",
    "tan",
    "el",
    "wa",
    "ri",
    "ge",
    "mo",
    "hun",
    "ka",
    "is",
    "fe",
    "ol",
    "ja",
]


def cards(count: int = 240) -> Iterator[Pair]:
    """Cards with written words, drawn by `load_rgba` from their number: credits, titles, pages."""
    kinds = list(_CARDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield Pair("cards", Path(kind), _CARDS[kind], number)


def _draw_card(kind: str, number: int) -> Image.Image:
    rng = random.Random(number)

    def word() -> str:
        return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 3)))

    dark = rng.random() < 0.75
    low, high = ((0, 110), (190, 255)) if dark else ((150, 255), (0, 70))
    ground = (
        tuple(rng.randint(*low) for _ in range(3)) if rng.random() < 0.6 else (0, 0, 0) if dark else (255, 255, 255)
    )
    ink = (255, 255, 255) if dark and rng.random() < 0.7 else tuple(rng.randint(*high) for _ in range(3))
    card = Image.new("RGBA", (480, 270), (*ground, 255))
    draw = ImageDraw.Draw(card)
    if kind == "title":
        for line in range(rng.randint(1, 3)):
            font = ImageFont.load_default(rng.randint(26, 64))
            text = " ".join(word().title() for _ in range(rng.randint(1, 3)))
            draw.text((240, 70 + 62 * line), text.upper() if rng.random() < 0.4 else text, ink, font, anchor="mm")
        return card
    size = rng.randint(7, 15)
    font = ImageFont.load_default(size)
    for line in range(rng.randint(0, 60) // size, 270 // (size + 3)):
        top = line * (size + 3)
        if kind == "page":
            draw.text((rng.choice((10, 14)), top), " ".join(word() for _ in range(rng.randint(8, 14))), ink, font)
        elif rng.random() < 0.8:
            draw.text((232, top), f"{word()} {word()}".title(), ink, font, anchor="ra")
            draw.text((248, top), f"{word()} {word()}".title(), ink, font, anchor="la")
    return card


def tux_paint(root: Path) -> Iterator[Pair]:
    """Stamps with captions; test only."""
    base = root / "tuxpaint/usr/share/tuxpaint/stamps"
    for path in sorted(base.rglob("*.png")):
        caption = path.with_suffix(".txt")
        if "symbols" in path.parts or path.stem.endswith(("_mirror", "_flip")) or not caption.is_file():
            continue
        lines = caption.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines and lines[0].strip():
            yield Pair("tuxpaint", path, (lines[0].strip(),))


def load_rgba(pair: Pair) -> Image.Image:
    """The picture with its alpha channel."""
    if pair.source == "cards":
        return _draw_card(pair.path.name, pair.frame)
    with Image.open(pair.path) as image:
        if pair.frame:
            image.seek(pair.frame)
        return image.convert("RGBA")


def compose(
    image: Image.Image,
    size: int,
    background: Image.Image | tuple[int, int, int],
    box: tuple[float, float, float, float],
) -> np.ndarray:
    """The picture on a background.

    Args:
        image: RGBA.
        size: side of the square result in pixels.
        background: a colour, or a picture that is stretched to the square.
        box: left, top, width, height of the picture within the square, in 0..1 (aspect is kept inside the box).

    Returns:
        uint8 `[size, size, 3]`.
    """
    canvas = (
        background.convert("RGB").resize((size, size))
        if isinstance(background, Image.Image)
        else Image.new("RGB", (size, size), background)
    )
    left, top, width, height = (part * size for part in box)
    scale = min(width / image.width, height / image.height)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    canvas.paste(small, (round(left + (width - small.width) / 2), round(top + (height - small.height) / 2)), small)
    return np.asarray(canvas)
