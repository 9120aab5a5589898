"""Whether a text is in a script that an encoder's languages are written in: cheap, and certain where it says no."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

_LATIN = "af ca cs cy da de en es et eu fi fr ga gl hr hu id is it la lt lv ms nl no pl pt ro sk sl sq sv sw tl tr vi"
_CYRILLIC = "be bg kk ky mk mn ru sr tg uk"
_OTHERS = {
    "am": {"ETHIOPIC"},
    "ar": {"ARABIC"},
    "bn": {"BENGALI"},
    "el": {"GREEK"},
    "fa": {"ARABIC"},
    "gu": {"GUJARATI"},
    "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
    "hy": {"ARMENIAN"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA"},
    "ka": {"GEORGIAN"},
    "km": {"KHMER"},
    "kn": {"KANNADA"},
    "ko": {"HANGUL", "CJK"},
    "lo": {"LAO"},
    "ml": {"MALAYALAM"},
    "mr": {"DEVANAGARI"},
    "my": {"MYANMAR"},
    "ne": {"DEVANAGARI"},
    "pa": {"GURMUKHI"},
    "si": {"SINHALA"},
    "ta": {"TAMIL"},
    "te": {"TELUGU"},
    "th": {"THAI"},
    "ur": {"ARABIC"},
    "zh": {"CJK"},
}
SCRIPTS: dict[str, set[str]] = {
    **{language: {"LATIN"} for language in _LATIN.split()},
    **{language: {"CYRILLIC"} for language in _CYRILLIC.split()},
    **_OTHERS,
}
"""From a language (ISO 639-1) to the scripts that it is written in, by the first words of the names of characters."""


def foreign_script(text: str, languages: Sequence[str] | None) -> str | None:
    """The script of most letters of a text, if none of the languages is written in it.

    Args:
        text: a question.
        languages: codes such as "en"; None, or one that is not in the table, means that everything may be known.

    Returns:
        The name of the script, e.g. "Cyrillic"; None where the text may be in one of the languages.
    """
    if not languages or any(language not in SCRIPTS for language in languages):
        return None
    known = set().union(*(SCRIPTS[language] for language in languages))
    letters = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    strange = Counter({script: count for script, count in letters.items() if script not in known})
    if 2 * sum(strange.values()) <= sum(letters.values()):
        return None
    script = strange.most_common(1)[0][0]
    return "Chinese" if script == "CJK" else script.capitalize()
