"""From what a model says to the option that it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from ..questions import Question

_THOUGHT = re.compile(r"<think>.*?</think>|^.*?</think>", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+(?i:is|would be|should be))?\s*[:=]?\s*(?:(?i:option)\s*)?"
    r"[*_\"'`]*\(?([A-Z])\)?(?![A-Za-z'’])"
)
_ALONE = re.compile(r"^[\s*_\"'`(\[]*([A-Za-z])[\s*_\"'`)\].,:;!]*$")
_FIRST = re.compile(r"^[\s*_\"'`]*[(\[]?([A-Z])(?:[)\].,:]|\s*[-–]\s)")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def parse_choice(text: str, options: Sequence[str]) -> int | None:
    """The option that an answer means, or None if it cannot be told.

    In this order, as the parsers of the benchmarks do: a letter alone ("B", "(B)."), a letter in front ("B. a red
    car"), the last "answer is B", the only letter in brackets, the only option whose text occurs. Thoughts between
    <think> tags do not count. Unlike in some parsers nothing is drawn at random, and the word "A" at the beginning of a
    sentence is not an answer.

    Args:
        text: what the model generated.
        options: the options of the question; letters beyond them are not answers.
    """
    answer = _THOUGHT.sub("", text).strip()
    letters = ascii_uppercase[: len(options)]
    bracketed = {letter for letter in _BRACKETED.findall(answer) if letter in letters}
    for pattern in (_ALONE, _FIRST):
        match = pattern.match(answer)
        if match and match[1].upper() in letters and bracketed <= {match[1].upper()}:
            return letters.index(match[1].upper())
    said = [match[1].upper() for match in _SAID.finditer(answer) if match[1].upper() in letters]
    if said:
        return letters.index(said[-1])
    if len(bracketed) == 1:
        return letters.index(bracketed.pop())
    return _by_words(answer, options)


def _by_words(answer: str, options: Sequence[str]) -> int | None:
    """The option whose text is the answer, or else the only one that occurs in it."""
    plain = _plain(answer)
    texts = [_plain(option) for option in options]
    if plain in texts and texts.count(plain) == 1:
        return texts.index(plain)
    inside = [place for place, words in enumerate(texts) if words and re.search(rf"\b{re.escape(words)}\b", plain)]
    longest = [p for p in inside if not any(p != q and texts[p] in texts[q] for q in inside)]
    return longest[0] if len(longest) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def prompt_of(question: Question, *, preamble: str = "", instruction: str | None = None) -> str:
    """The question with lettered options and the request for a letter.

    Args:
        question: with options.
        preamble: what stands in front.
        instruction: what stands behind (default: that of `refocus_select.questions.multiple_choice`).
    """
    from ..questions import multiple_choice

    text = multiple_choice(question)
    if instruction is not None:
        text = "\n".join([*text.splitlines()[:-1], *([instruction] if instruction else [])])
    return f"{preamble}\n{text}" if preamble else text
