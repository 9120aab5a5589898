"""From captions of pictures to concepts: a name, a kind of thing, and the pictures that show it.

Names are the English labels of emoji and those titles and tags of openclipart that WordNet knows as nouns for things.
Kinds come from the emoji's subgroup or the drawing's folder.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.mini.materials import Pair, fluent_emoji, noto_emoji, openclipart, tux_paint

# Emoji subgroups (emojibase) and folders (openclipart) to kinds; the longest matching prefix counts.
_EMOJI_KINDS = {
    "face-": "face", "cat-face": "face", "monkey-face": "face", "hand": "body part", "body-parts": "body part",
    "person": "person", "family": "person", "animal-bird": "bird", "animal-bug": "insect", "animal-": "animal",
    "plant-": "plant", "food-fruit": "fruit", "food-vegetable": "vegetable", "food-sweet": "dessert",
    "food-": "dish", "drink": "drink", "dishware": "kitchenware", "place-": "building", "hotel": "thing",
    "transport-ground": "vehicle", "transport-water": "boat", "transport-air": "aircraft", "sky-weather": "weather",
    "award-medal": "award", "sport": "sports equipment", "game": "game", "clothing": "piece of clothing",
    "musical-instrument": "musical instrument", "phone": "device", "computer": "device", "light-video": "device",
    "tool": "tool", "science": "scientific instrument", "household": "household item", "writing": "office item",
    "office": "office item", "book-paper": "office item", "mail": "office item",
}  # fmt: skip
_FOLDER_KINDS = {
    "animals/birds": "bird", "animals/bugs": "insect", "animals": "animal", "plants": "plant",
    "food/fruit": "fruit", "food/vegetables": "vegetable", "food/desserts": "dessert", "food/beverages": "drink",
    "food": "dish", "transportation/boating": "boat", "transportation/vehicles": "vehicle",
    "recreation/music": "musical instrument", "recreation/sports": "sports equipment", "recreation/games": "game",
    "recreation/toys": "toy", "buildings/furniture": "piece of furniture", "buildings": "building",
    "tools/weapons": "weapon", "tools": "tool", "office": "office item", "computer/hardware": "device",
    "electronics": "device", "people/clothing": "piece of clothing", "people/bodypart": "body part",
}  # fmt: skip

_STAMP_KINDS = {
    "animals/birds": "bird", "animals/insects": "insect", "animals": "animal", "plants": "plant", "food/fruit": "fruit",
    "food/vegetables": "vegetable", "food/dessert": "dessert", "hobbies/music": "musical instrument",
    "town/houses": "building", "town/monuments": "building", "clothes": "piece of clothing", "household/tools": "tool",
    "vehicles/ship": "boat", "vehicles/flight": "aircraft", "vehicles": "vehicle", "military/vehicles": "vehicle",
    "sports": "sports equipment",
}  # fmt: skip

# lexicographer files of WordNet 3.0 (lexnames.5WN) that hold things one can draw
_THINGS = {"05", "06", "08", "13", "17", "18", "19", "20"}  # animal artifact body food object person phenomenon plant
_VAGUE = frozenset(
    """
    animal mammal bird fish insect bug food fruit vegetable drink beverage plant tree flower tool weapon vehicle
    transportation building home house people person man woman object thing art clip icon media geometry colour color
    black white red green blue yellow outline line image picture sign symbol shape design cartoon nature sport music
    computer office electronics hardware equipment machine device instrument structure product outdoors lineart
    silhouette template external externalsource cc public domain animals mammals birds contour colouring transport
    recreation education holiday science household clothing fashion body part face head set group kind unsorted top
    bottom left right front back end side piece half base user female male adult child body dessert meal snack buildings
    """.split()  # noqa: SIM905
)
_UNFIT = re.compile(
    r"button|symbol|medium|facing right|\bwith\b.*\bwith\b|dark skin|light skin|mahjong|o’clock|thirty|keycap|"
    r"^(man|men|woman|women|family|kiss|couple|busts?|bust) ?[:a-z]* |family:|hand with|index pointing|backhand|"
    r"right-facing|left-facing|tilted right|part of|clip ?art|untitled"
)


@dataclass
class Concept:
    """Something that captions name.

    Attributes:
        name: noun phrase without an article.
        kind: what kind of thing it is, "" if unknown.
        pictures: that show it.
    """

    name: str
    kind: str
    pictures: list[Pair] = field(default_factory=list)


def read_concepts(root: Path) -> list[Concept]:
    """All concepts of the training pictures, sorted by name; drawings without a usable name are left out."""
    nouns = _read_nouns(root / "wordnet/usr/share/wordnet/index.noun", root / "wordnet/usr/share/wordnet/data.noun")
    words = set(nouns)
    for part in ("adj", "verb"):
        lines = (root / f"wordnet/usr/share/wordnet/index.{part}").read_text(encoding="utf-8").splitlines()
        words.update(line.split(" ", 1)[0] for line in lines if not line.startswith(" "))
    kinds = _emoji_kinds(root)
    found: dict[str, Concept] = {}
    for pair in [*fluent_emoji(root), *noto_emoji(root)]:
        name = _clean(pair.texts[0])
        if name and not _UNFIT.search(name):
            _add(found, name, kinds.get(pair.texts[0], ""), pair)
    for pair in openclipart(root):
        name = _drawing_name(pair, nouns, words)
        if name:
            _add(found, name, _folder_kind(pair.path), pair)
    return sorted(found.values(), key=lambda concept: concept.name)


def read_stamps(root: Path) -> list[Concept]:
    """Concepts of Tux Paint's stamps, for tests only: those with a caption like "A fire truck."."""
    nouns = _read_nouns(root / "wordnet/usr/share/wordnet/index.noun", root / "wordnet/usr/share/wordnet/data.noun")
    base = root / "tuxpaint/usr/share/tuxpaint/stamps"
    found: dict[str, Concept] = {}
    for pair in tux_paint(root):
        caption = re.fullmatch(r"(?:An?|The) ([\w' -]+)\.", pair.texts[0])
        name = _clean(caption[1]) if caption else ""
        if name and name not in _VAGUE and _noun(name.split()[-1], nouns):
            _add(found, name, _longest(_STAMP_KINDS, pair.path.relative_to(base).as_posix()), pair)
    return sorted(found.values(), key=lambda concept: concept.name)


def _add(found: dict[str, Concept], name: str, kind: str, pair: Pair) -> None:
    concept = found.setdefault(name, Concept(name, kind))
    concept.kind = concept.kind or kind
    concept.pictures.append(pair)


def _clean(title: str) -> str:
    title = html.unescape(title.replace("&atilde;", "ã")).lower()
    title = re.sub(r"\(.*?\)|clipart by nicu buculei|[#:_]|\s-\s|\b(b and w|b ?& ?w|icon)\b", " ", title)
    title = re.sub(r"\s+", " ", re.sub(r"[^a-z'’\- ]", " ", title)).strip(" -'’")
    return title if 2 < len(title) <= 32 and len(title.split()) <= 4 else ""


def _drawing_name(pair: Pair, nouns: dict[str, str], words: set[str]) -> str:
    """The title if WordNet knows its words and its head as a thing; else the first tag that is a precise thing."""
    title = _clean(pair.texts[0])
    if title and title not in _VAGUE and not _UNFIT.search(title):
        parts = title.split()
        head = _noun(title.replace(" ", "_"), nouns) or _noun(parts[-1], nouns)
        if head and (len(parts) == 1 or all(p in words or _noun(p, nouns) for p in parts)):
            return title
    for tag in pair.texts[1].split(", ") if len(pair.texts) > 1 else ():
        tag = _clean(tag)
        if tag and tag not in _VAGUE and _noun(tag.replace(" ", "_"), nouns):
            return tag
    return ""


def _noun(word: str, nouns: dict[str, str]) -> bool:
    """Whether the first sense of a word, or of its singular, is a thing."""
    forms = [word, word[:-1] if word.endswith("s") else "", word[:-2] if word.endswith("es") else ""]
    return any(nouns.get(form) in _THINGS for form in forms if len(form) > 2)


def _read_nouns(index: Path, data: Path) -> dict[str, str]:
    """Lemma to the lexicographer file of its first sense."""
    files = {}
    for line in data.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            offset, lexicographer = line.split(" ", 2)[:2]
            files[offset] = lexicographer
    nouns = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses = int(fields[2])
            nouns[fields[0]] = files[fields[-senses]]
    return nouns


def _emoji_kinds(root: Path) -> dict[str, str]:
    import json

    subgroups = json.loads((root / "emojibase/package/meta/groups.json").read_text(encoding="utf-8"))["subgroups"]
    kinds = {}
    for entry in json.loads((root / "emojibase/package/en/data.json").read_text(encoding="utf-8")):
        if entry.get("group") is not None:
            kinds[entry["label"]] = _longest(_EMOJI_KINDS, subgroups[str(entry["subgroup"])])
    return kinds


def _folder_kind(path: Path) -> str:
    return _longest(_FOLDER_KINDS, str(path).split("/png/", 1)[-1])


def _longest(kinds: dict[str, str], name: str) -> str:
    fitting = [prefix for prefix in kinds if name.startswith(prefix)]
    return kinds[max(fitting, key=len)] if fitting else ""
