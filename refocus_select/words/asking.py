"""What a question asks of words: whether it does, what to look for among the lines, and when relative to that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ..parsing import content_phrase

# Questions about words have one of these; "read", "sign" and "name" alone also stand in questions about pictures.
_SAYING = (
    r"says?|said|saying|tells?|told|telling|talks?|talked|talking|speaks?|spoke|spoken|speaking|mentions?|mentioned|"
    r"mentioning|explains?|explained|explaining|discuss(?:es|ed|ing)?|describes?|described|describing|announc(?:es?|ed)|"
    r"remarks?|remarked|states?|stated|argues?|argued|claims?|claimed|asks?|asked|answers?|answered|warns?|warned|"
    r"promis(?:es?|ed)|recommends?|recommended|defines?|defined|introduces?|introduced|comments?|commented|quotes?|"
    r"quoted|points? out that|pointed out that|refers? to|referred to|suggests?|suggested|complains?|complained|"
    r"admits?|admitted|"
    r"reports? that|reported that|greets?|whispers?|shouts?|sings?|sang|hears?|heard"
)
_NAMING = (
    r"remarks?|statements?|talk|explanation|discussion|description|mention|definition|comments?|words|sentences?|"
    r"phrases?|lines?|lyrics|topic|subject|question|passages?"
)
_WRITTEN = (
    r"titles?|titled|headlines?|headings?|captions?|slides?|written|writes?|reads?|text|subtitles?|"
    r"banner|spell(?:s|ed)?|entitled|inscription"
)
_ABOUT_WORDS = re.compile(
    rf"\b(?:{_SAYING}|{_WRITTEN}|words?|sign|sentences?|phrases?|lyrics|called|according to|lectures?|lecturer|speaker|"
    r"narrator|interview(?:s|ed|er)?|topic|explanation|remarks?|definition)\b",
    re.IGNORECASE,
)
_ABOUT_WRITING = re.compile(rf"\b(?:{_WRITTEN})\b", re.IGNORECASE)

_WHO = r"(?:he|she|they|it|we|i|you|somebody|someone|anybody|people|the \w+(?: \w+)?|[A-Z]\w+)"
_HELPER = r"(?:(?:is|are|was|were|has|have|had|will|can|first|last|then|also|finally)\s+)*"
_OBJECT = r"(?:\s+(?:us|them|him|her|me|you|the others?|the other one|the audience|viewers))?"
_LINK = r"(?:\s+(?:about|of|on|that|upon|over))?(?:\s+the (?:words?|phrase|sentence|subject|topic))?(?:\s+(?:of|that))?"
_ACTIVE = re.compile(rf"\b{_WHO}\s+{_HELPER}(?:{_SAYING})\b{_OBJECT}{_LINK}\s+", re.IGNORECASE)
_NOMINAL = re.compile(
    rf"\bthe (?:\w+ )?(?:(?:part|section|chapter|slide|bit) (?:on|about)|"
    rf"(?:{_NAMING}) (?:that|about|on|of|where {_WHO} {_HELPER}(?:{_SAYING}){_LINK}))\s+",
    re.IGNORECASE,
)
_PASSIVE = re.compile(
    r"\b(?:is|are|was|were|gets?|being|been)\b"
    r"(?P<content>(?:(?!\b(?:is|are|was|were|before|after|until|while|as)\b)[^?,])*?)(?:\bfirst|\blast|\bfinally)?\s*"
    r"\b(?:mentioned|discussed|explained|described|announced|said|told|quoted|defined|introduced|heard of|"
    r"talked about|spoken of)\b",
    re.IGNORECASE,
)
_BEFORE_PASSIVE = re.compile(
    r"\b(?:when|where|after|before|until|once|while|as|which|what|time|passage|moment|point)\b", re.IGNORECASE
)
_END = re.compile(r"\s*(?:[?!.]|,\s*(?:what|which|who|where|when|how|and then)\b|\band then\b)", re.IGNORECASE)

_TIMES = re.compile(r"\bfor the (?:first|last) time\b", re.IGNORECASE)

_RELATIONS = (
    ("between", re.compile(r"\bbetween\b", re.IGNORECASE)),
    ("last", re.compile(r"\b(?:(?:for the |the )?last time|finally|at the (?:very )?end)\b", re.IGNORECASE)),
    ("first", re.compile(r"\b(?:(?:for the |the )?first time|initially)\b|\bfirst (?:mention|said)", re.IGNORECASE)),
    ("before", re.compile(
        r"\b(?:before|preced(?:es?|ed|ing)|previous(?:ly)?|prior to|ahead of|leads? up to|led up to|until)\b",
        re.IGNORECASE,
    )),
    ("after", re.compile(
        r"\b(?:after|next|follow(?:s|ed|ing)?|subsequent(?:ly)?|once|as soon as|when .{1,24} (?:has|had) \w+)\b",
        re.IGNORECASE,
    )),
)  # fmt: skip
_ROUTINE = frozenset(
    """
    say says said saying tell tells told talk talks talked talking speak speaks spoke spoken mention mentions mentioned
    explain explains explained discuss discusses discussed describe describes described announce announces announced
    state states stated remark remarks point points out words word sentence phrase text title titles titled headline
    heading written write writes read reads slide slides credit credits called speaker lecturer lecture topic subject
    sign card board poster banner label inscription mean means
    according subtitle caption he she they somebody someone part passage moment displayed display appear appears
    screen seen shown hear heard picture goes
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Asked:
    """What a question asks of words.

    Attributes:
        clause: whether it tells what is said or spoken about ("while she says that …", "the part on …").
        for_words: whether it has a word that asks for what is said or written.
        for_writing: whether it asks for what is written.
        relation: "" for what is said itself, "after", "before", "between", "first" or "last" for when.
        contents: what to look for among the lines: one phrase, two for "between".
    """

    clause: bool
    for_words: bool
    for_writing: bool
    relation: str
    contents: tuple[str, ...]


@lru_cache(maxsize=65536)
def what_is_asked(question: str) -> Asked:
    """Take a question about words apart.

    >>> what_is_asked("Where does she explain overfitting?").contents
    ('overfitting',)
    >>> what_is_asked("What is shown right after he says that the tax will rise?")
    Asked(clause=True, for_words=True, for_writing=False, relation='after', contents=('the tax will rise',))
    """
    quoted = re.findall(r"[\"“„«]([^\"”“»]+)[\"”“»]", question)
    content, around, subject = _clause(question)
    if quoted:
        content, around = quoted[0], re.sub(r"[\"“„«][^\"”“»]+[\"”“»]", " ", question)
    relation = next((name for name, pattern in _RELATIONS if pattern.search(around)), "")
    said = content and not quoted  # then what is written counts only if it is the subject: "the slide that mentions …"
    content = _TIMES.sub("", content).strip(" ,")
    named = content or content_of(question)
    contents: tuple[str, ...] = (named or question,)
    if relation == "between":
        halves = tuple(quoted[:2]) if len(quoted) > 1 else tuple(re.split(r"\s+and\s+", contents[0], maxsplit=1))
        contents = tuple(_without_clause(half) for half in halves)
        relation = relation if len(contents) == 2 else ""
    return Asked(
        bool(said),
        bool(named) and (bool(said) or _ABOUT_WORDS.search(question) is not None),
        _ABOUT_WRITING.search(subject if said else around) is not None,
        relation,
        contents,
    )


def content_of(question: str) -> str:
    """The words of a question that name what it looks for; "" for "What does the sign say?"."""
    return " ".join(word for word in content_phrase(question).split() if word.lower() not in _ROUTINE)


def _clause(question: str) -> tuple[str, str, str]:
    """What is said or spoken about, the question around it, and who says so; ("", question, question) without."""
    for pattern in (_ACTIVE, _NOMINAL):
        found = pattern.search(question)
        if found is None:
            continue
        end = _END.search(question, found.end())
        stop = end.start() if end else len(question)
        content = question[found.end() : stop].strip(" ,")
        if content and content.lower() not in ("something", "anything", "what", "this", "that"):
            around = (
                f"{question[: found.start()]} {found.group()} {' '.join(_TIMES.findall(content))} {question[stop:]}"
            )
            return content, around, found.group()
    cue = _ABOUT_WORDS.search(question)
    that = re.compile(r"\bthat\s+").search(question, cue.end()) if cue else None
    if cue is not None and that is not None:  # said in another way, "which words tell him that …"
        end = _END.search(question, that.end())
        stop = end.start() if end else len(question)
        if question[that.end() : stop].count(" ") > 1:
            return question[that.end() : stop].strip(" ,"), question[: that.start()] + question[stop:], cue.group()
    found = _PASSIVE.search(question)
    if found is not None:
        content, start = found["content"].strip(), found.start("content")
        if not content:  # "before the tax is mentioned"
            start = max((m.end() for m in _BEFORE_PASSIVE.finditer(question[: found.start()])), default=0)
            content = question[start : found.start()].strip(" ,")
        if content:
            return content, question.replace(content, " ", 1), question[:start]
    return "", question, question


def _without_clause(half: str) -> str:
    found = _ACTIVE.match(half)
    return half[found.end() :] if found else half
