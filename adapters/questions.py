"""Which words of a chat are the question that frames are chosen for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refocus_select.errors import InputError

Conversation = Sequence[Mapping[str, Any]]
Query = str | Callable[[Conversation], Any]  # a policy by name, or a function of the conversation

POLICIES = ("last_user", "first_user", "all")


@dataclass(frozen=True)
class Question:
    """What is asked of one video.

    Attributes:
        text: the question itself.
        options: the answers offered, for policies that were trained to see them; None if there are none.
    """

    text: str
    options: tuple[str, ...] | None = None


def check_query(query: Query) -> None:
    """Raise InputError for a policy that does not exist."""
    if not callable(query) and query not in POLICIES:
        raise InputError(f"query must be one of {', '.join(POLICIES)} or a function of the conversation, not {query!r}")


def questions_of(
    conversation: Conversation, query: Query, num_videos: int, *, where: str = "the chat"
) -> list[Question]:
    """The question for each video of a conversation.

    Args:
        conversation: messages with `role` and `content`.
        query: "last_user" (the last user message that has text), "first_user", "all" (every user message), or a
            function of the conversation that returns a question, a (question, options) pair, or a list of one of these
            per video.
        num_videos: how many videos the conversation has.
        where: how errors name the conversation.

    Raises:
        InputError: if there is no question.
    """
    check_query(query)
    if callable(query):
        return _answers_of(query, conversation, num_videos, where)
    texts = user_texts(conversation)
    if not texts:
        raise InputError(
            f"{where} has a video but no question: no user message has text. Add a text block, choose what to ask with "
            "query=..., or use the selector 'uniform' with query=lambda chat: 'describe the video'"
        )
    text = {"last_user": texts[-1], "first_user": texts[0], "all": "\n".join(texts)}[str(query)]
    return [Question(text)] * num_videos


def _answers_of(
    query: Callable[[Conversation], Any], conversation: Conversation, num_videos: int, where: str
) -> list[Question]:
    answer = query(conversation)
    answers = answer if isinstance(answer, list) else [answer] * num_videos
    if len(answers) != num_videos:
        raise InputError(f"{where} has {num_videos} videos, but query() gave {len(answers)} questions")
    return [_as_question(a, where) for a in answers]


def _as_question(answer: Any, where: str) -> Question:
    if isinstance(answer, Question):
        question = answer
    elif isinstance(answer, tuple) and len(answer) == 2 and not isinstance(answer[1], str):
        question = Question(answer[0], None if answer[1] is None else tuple(answer[1]))
    else:
        question = Question(answer)
    if not isinstance(question.text, str) or not question.text.strip():
        raise InputError(f"query() must give the question of {where} as text, not {question.text!r}")
    return question


def user_texts(conversation: Conversation) -> list[str]:
    """The text of each user message that has any, blocks joined by line breaks."""
    texts = []
    for message in conversation:
        if message.get("role") != "user":
            continue
        text = "\n".join(part for part in _text_parts(message.get("content")) if part.strip()).strip()
        if text:
            texts.append(text)
    return texts


def _text_parts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list | tuple) else []
    return [b["text"] for b in blocks if isinstance(b, Mapping) and isinstance(b.get("text"), str)]


# -- multiple choice ----------------------------------------------------------------------------------

_OPTION = re.compile(r"^\s*\(?([A-Z])\s*[.):]\s*(\S.*?)\s*$", re.MULTILINE)
_OPTIONS_LINE = re.compile(r"^\s*(?:options|choices|candidates|answer choices)\s*:?\s*$", re.IGNORECASE | re.MULTILINE)
_QUESTION_LABEL = re.compile(r"^\s*question\s*:\s*", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"^\s*(?:answer with|answer the|please answer|please respond|please select|select the best|respond with|"
    r"carefully watch|the best answer|only give|these are the frames|this video's subtitles)",
    re.IGNORECASE,
)


def split_multiple_choice(text: str) -> Question:
    """Take a benchmark prompt apart: the question, its options, and instructions that say nothing about the video.

    Options are two or more lines "A. ...", "(B) ...", "C: ..." in alphabetical order. Instructions are lines that begin
    like those of Video-MME, MLVU, LVBench, LongVideoBench and EgoSchema in lmms-eval and VLMEvalKit.
    """
    found = list(_OPTION.finditer(text))
    letters = "".join(m.group(1) for m in found)
    has_options = len(found) >= 2 and letters == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]
    stem = text[: found[0].start()] if has_options else text
    stem = _OPTIONS_LINE.sub("", stem)
    lines = [line for line in stem.splitlines() if line.strip() and not _INSTRUCTION.match(line)]
    question = _QUESTION_LABEL.sub("", "\n".join(lines)).strip()
    options = tuple(m.group(2) for m in found) if has_options else None
    return Question(question or text.strip(), options)


def multiple_choice(conversation: Conversation) -> Question:
    """A `query` for benchmark prompts: the last user text, its options apart, instructions left out."""
    texts = user_texts(conversation)
    if not texts:
        raise InputError("the chat has no question: no user message has text")
    return split_multiple_choice(texts[-1])


# -- rendered prompts ---------------------------------------------------------------------------------


def conversation_of_prompt(processor: Any, prompt: str) -> list[dict[str, Any]]:
    """Read the user's words back from a prompt that the processor's chat template has rendered.

    The template itself says what it writes around a user message: it is rendered once with marks in place of words. A
    prompt of another origin, or of a processor without a template, counts as one user message.

    Args:
        processor: has `tokenizer`, and `chat_template` or not.
        prompt: the text that is about to be tokenised.

    Returns:
        One message per user turn, each with the text left after media placeholders and special tokens are taken out.
    """
    clean = _cleaner(processor)
    turns = [clean(turn) for turn in _user_turns(processor, prompt)]
    return [{"role": "user", "content": [{"type": "text", "text": turn}]} for turn in turns if turn]


def _user_turns(processor: Any, prompt: str) -> list[str]:
    for with_video in (False, True):  # SmolVLM has another template for chats with a video
        before, after = _user_frame(processor, with_video)
        if before and before in prompt:
            turns = prompt.split(before)[1:]
            return [turn.split(after)[0] for turn in turns] if after else turns
    return [prompt]


def _user_frame(processor: Any, with_video: bool) -> tuple[str, str]:
    """What the chat template writes before and after the words of a user: ("", "") if it cannot be told."""
    marks = [f"\ue000{k}\ue000" for k in range(5)]
    roles = ["user", "assistant"] * 2 + ["user"]
    chat = [{"role": r, "content": [{"type": "text", "text": m}]} for r, m in zip(roles, marks, strict=True)]
    if with_video:
        chat[0]["content"].append({"type": "video"})  # type: ignore[attr-defined]
    try:
        rendered = _stock_template(processor)(chat, tokenize=False)
        pieces = []
        for mark in marks:
            piece, rendered = rendered.split(mark)
            pieces.append(piece)
    except Exception:  # templates are programs: any of them may fail on a chat that it does not expect
        return "", ""
    before = _common_end(_common_end(pieces[0], pieces[2]), pieces[4])
    after = _common_begin(pieces[3], rendered)
    return before.strip(), after.strip()


def _stock_template(processor: Any) -> Callable[..., Any]:
    base = getattr(type(processor), "_refocus_base", None)
    return processor.apply_chat_template if base is None else base.apply_chat_template.__get__(processor)


def _common_begin(a: str, b: str) -> str:
    size = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:size]


def _common_end(a: str, b: str) -> str:
    return _common_begin(a[::-1], b[::-1])[::-1]


def _cleaner(processor: Any) -> Callable[[str], str]:
    tokenizer = getattr(processor, "tokenizer", None)
    words = {str(t) for t in (getattr(tokenizer, "added_tokens_decoder", None) or {}).values()}
    names = ("image_token", "video_token", "audio_token")
    words |= {str(getattr(processor, name)) for name in names if getattr(processor, name, None)}
    pattern = re.compile("|".join(re.escape(w) for w in sorted(words, key=len, reverse=True) if w.strip()) or r"(?!)")
    return lambda text: pattern.sub("", text).strip()
