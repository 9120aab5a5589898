"""The portable core: rewrite the videos of a chat into selected frames with their true times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.locations import local_path
from refocus_select.selection import Selection
from refocus_select.video.images import seconds_of
from refocus_select.video.inputs import VideoInput, is_pictures, read_input
from refocus_select.weights import DEFAULT_SELECTOR

from .budget import choose_within, frames_or_budget
from .choose import Request, choose, load, located
from .families import Family
from .input_format import Clip, InputFormat, equal_length, processor_kwargs
from .media import REPLACED_KEYS, is_frames, is_source, is_video_block, name_of, prepared, to_images
from .questions import Query, Question, check_query, questions_of
from .tokens import Meter
from .words import asking_for_words


class SelectedMessages(tuple[Any, dict[str, Any]]):
    """`(messages, processor_kwargs)`, with what was chosen in `.selections` (None for frames left as they were)."""

    selections: tuple[Selection | None, ...]
    metadata: tuple[dict[str, Any], ...]  # one entry per video of the new messages

    def __new__(
        cls,
        messages: Any,
        kwargs: dict[str, Any],
        selections: Sequence[Selection | None] = (),
        metadata: Sequence[dict[str, Any]] = (),
    ) -> SelectedMessages:
        """Hold the pair, and the selections beside it."""
        pair = super().__new__(cls, (messages, kwargs))
        pair.selections = tuple(selections)
        pair.metadata = tuple(metadata)
        return pair


@dataclass(eq=False)
class _VideoSlot:
    """A video block and where it stands."""

    conversation: int
    message: int
    block: int
    given: VideoInput
    where: str
    kept: bool = False  # the caller has chosen the frames
    selection: Selection | None = None
    clips: list[Clip] | None = None

    own_metadata: Any = None  # of the caller, for frames that are kept

    def metadata(self) -> list[dict[str, Any]]:
        """Metadata of the videos that stand here afterwards."""
        if self.clips:
            return [clip.metadata for clip in self.clips]
        return [given_metadata(self.value, self.own_metadata, self.given)]

    @property
    def value(self) -> Any:
        return self.given.source

    @property
    def own_frames(self) -> Any:
        """The frames that the caller holds in memory; None if they are to be decoded."""
        return self.value if is_frames(self.value) else None


def select_messages(
    messages: Sequence[Any],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int | str | None = None,
    token_budget: int | TokenBudget | None = None,
    query: Query = "last_user",
    model: Any = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    frames: str = "select",
    audio: bool = False,
    words_in_prompt: str | bool = False,
    encoder: Any = None,
    **select_kwargs: Any,
) -> SelectedMessages:
    """Replace every video of a chat by the frames that its question needs.

        messages, processor_kwargs = select_messages(messages, selector, num_frames=32, model=processor)
        inputs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=processor_kwargs
        )

    Args:
        messages: a chat, or a list of chats. A video block holds a path, URL, bytes, an open `Video`, a
            `VideoEncoding`, or frames (PIL images, arrays, a tensor [T, ...]); frames want `fps` or `timestamps`
            (seconds) beside them in the block. `video_start` and `video_end` in a block limit the part that is looked
            at, and `nframes` is its own K (see `refocus_select.video.inputs.read_input`).
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video (default: 8, or what a budget allows).
        token_budget: how many tokens the videos of a chat may cost, see `with_frame_selection`; `model` must be a
            processor, which measures them.
        query: what counts as the question: "last_user", "first_user", "all", or a function of the conversation (see
            `questions.questions_of`).
        model: a processor or a model type, to fit the frames to that model; None gives frames and metadata as they are.
        timestamps: "auto" (what the model needs), "metadata", "text", or "interleave" (one short video per frame).
        temporal_merge: for models that merge neighbouring frames: see `with_frame_selection`.
        frames: "select" chooses from frames that the chat holds too; "keep" leaves them as they are.
        audio: put an audio block with the whole sound track behind each video that is a path or URL.
        words_in_prompt: "chosen" writes the lines that decided the choice into the chat, "all" all lines that are said
            or written at the chosen moments, too: between the frames if times are interleaved, else behind them.
            `words` is then "auto" by default.
        encoder: whose vectors the selector compares, for those that read vectors: see `refocus_select.encoders`.
        **select_kwargs: more arguments of `FrameSelector.select`: `start`, `end`, `fps`, `max_frames`, `exact`, ….

    Returns:
        `(messages, processor_kwargs)`: new messages, in which frames stand where videos stood, and the keyword
        arguments for the processor. The caller's messages are not changed. Frames that came as PIL images, arrays or
        tensors stay of that kind; others are uint8 arrays [K, H, W, 3].

    Raises:
        InputError: if a chat with a video has no question, or an argument is not usable.
        VideoError: if a video cannot be read; the message names the conversation and the video.
    """
    return selected_messages(
        messages,
        selector,
        num_frames=num_frames,
        token_budget=token_budget,
        query=query,
        model=model,
        timestamps=timestamps,
        temporal_merge=temporal_merge,
        frames=frames,
        audio=audio,
        words_in_prompt=words_in_prompt,
        encoder=encoder,
        **select_kwargs,
    )


def selected_messages(
    messages: Sequence[Any],
    selector: Any,
    *,
    num_frames: int | str | None,
    query: Query,
    token_budget: int | TokenBudget | None = None,
    meter: Meter | None = None,
    model: Any = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    frames: str = "select",
    audio: bool = False,
    words_in_prompt: str | bool = False,
    place_words: bool = True,
    keep_kind: bool = True,
    encoder: Any = None,
    **select_kwargs: Any,
) -> SelectedMessages:
    """`select_messages`, for other request builders.

    Without `keep_kind` all chosen frames are uint8 arrays, whatever the caller's were; without `place_words` the lines
    are left to the caller. A `meter` counts tokens in another way than the format of the model says, as for frames that
    become pictures.
    """
    check_query(query)
    number, budget = frames_or_budget(num_frames, token_budget)
    if frames not in ("select", "keep"):
        raise InputError(f"frames must be 'select' or 'keep', not {frames!r}")
    input_format = InputFormat.of(model, timestamps, temporal_merge, words_in_prompt)
    if budget is not None:
        meter = meter or _meter(model, input_format)
    batched = is_batch(messages)
    conversations = list(messages) if batched else [messages]
    slots = [s for c, chat in enumerate(conversations) for s in _slots(chat, c, batched, frames)]
    wanted = [s for s in slots if not s.kept]
    requests = []
    for c, chat in enumerate(conversations):
        here = [s for s in slots if s.conversation == c]
        if not any(s in wanted for s in here):
            continue
        questions = questions_of(chat, query, len(here), where=f"conversation {c + 1}" if batched else "the chat")
        for slot, question in zip(here, questions, strict=True):
            if slot in wanted:
                requests.append(
                    _request(slot, question, number, input_format, select_kwargs, budgeted=budget is not None)
                )
    chooser = load(selector, encoder)
    if budget is not None and meter is not None and requests:
        beside = _tokens_beside(meter, conversations, slots) if budget.of == "prompt" else {}
        selections = choose_within(chooser, requests, budget, meter, beside)
    else:
        selections = choose(chooser, requests) if requests else []
    for slot, selection in zip(wanted, selections, strict=True):
        slot.selection = selection
        slot.clips = input_format.clips(selection, slot.own_frames if keep_kind else None)
    _pad([s for s in slots if s.clips], input_format)
    metadata = [m for slot in slots for m in slot.metadata()]
    clips = [c for slot in slots for c in slot.clips or []]
    kwargs = processor_kwargs(metadata, clips, input_format) if wanted else {}
    written = input_format if place_words else replace(input_format, words=False)
    rewritten = [
        _rewritten(chat, [s for s in slots if s.conversation == c], written, audio)
        for c, chat in enumerate(conversations)
    ]
    return SelectedMessages(rewritten if batched else rewritten[0], kwargs, [s.selection for s in slots], metadata)


def is_batch(messages: Sequence[Any]) -> bool:
    """Whether these are several chats."""
    return bool(messages) and isinstance(messages[0], list | tuple)


def _slots(chat: Sequence[Mapping[str, Any]], conversation: int, batched: bool, frames: str) -> list[_VideoSlot]:
    slots: list[_VideoSlot] = []
    for m, message in enumerate(chat):
        content = message.get("content")
        for b, block in enumerate(content if isinstance(content, list | tuple) else []):
            if is_video_block(block):
                where = f"video {len(slots) + 1}"
                where = f"conversation {conversation + 1}, {where}" if batched else where
                slots.append(_slot(block, conversation, m, b, where, frames))
    return slots


def _slot(
    block: Mapping[str, Any], conversation: int, message: int, number: int, where: str, frames: str
) -> _VideoSlot:
    with located(where, block):
        given = read_input(block)
    listed = isinstance(given.source, list | tuple) and len(given.source) > 0
    if not (is_source(given.source) or is_frames(given.source) or listed):
        kind = type(given.source).__name__
        raise InputError(f"{where} is a {kind}: give a path, a URL, bytes, or frames [T, H, W, 3]")
    kept = not is_source(given.source) and (frames == "keep" or block.get("video_metadata") is not None)
    if kept and not is_frames(given.source):
        with located(where, given):
            given = replace(given, source=to_images(given.source))
    return _VideoSlot(conversation, message, number, given, where, kept, own_metadata=block.get("video_metadata"))


def _meter(model: Any, input_format: InputFormat) -> Meter:
    if model is None or isinstance(model, str | Family):
        raise InputError(
            "token_budget: tokens are measured with the model's processor; give "
            "model=AutoProcessor.from_pretrained(...)"
        )
    return Meter(model, input_format)


def _tokens_beside(meter: Meter, chats: Sequence[Any], slots: Sequence[_VideoSlot]) -> dict[int, int]:
    """Tokens of each chat without its videos."""
    found = {}
    for c, chat in enumerate(chats):
        places = {(s.message, s.block) for s in slots if s.conversation == c}
        rest = [
            {**m, "content": [b for k, b in enumerate(m["content"]) if (n, k) not in places]}
            if isinstance(m.get("content"), list | tuple)
            else m
            for n, m in enumerate(chat)
        ]
        found[c] = meter.count_chat(rest)
    return found


def _request(
    slot: _VideoSlot,
    question: Question,
    num_frames: Any,
    input_format: InputFormat,
    select_kwargs: Mapping[str, Any],
    *,
    budgeted: bool,
) -> Request:
    with located(slot.where, slot.given):
        video = prepared(slot.given)
    count = num_frames if slot.given.num_frames is None else slot.given.num_frames
    arguments = asking_for_words({**select_kwargs, **slot.given.sampling}, video, input_format.words)
    if not budgeted:
        count = input_format.frames_to_choose(count)
    return Request(video, question, count, slot.where, arguments, slot.conversation)


def _pad(slots: list[_VideoSlot], input_format: InputFormat) -> None:
    padded = iter(equal_length([c for s in slots for c in s.clips or []], input_format.family))
    for slot in slots:
        slot.clips = [next(padded) for _ in slot.clips or []]


def given_metadata(frames: Any, metadata: Any = None, given: VideoInput | None = None) -> dict[str, Any]:
    """Metadata of frames that the user chose: theirs, their times, or what transformers assumes without any."""
    if metadata is not None:
        return dict(metadata)
    count = len(frames)
    if given is None or (given.timestamps is None and given.fps is None):
        return {"total_num_frames": count, "fps": None, "duration": None, "frames_indices": list(range(count))}
    times, end = seconds_of(name_of(frames), count, given.timestamps, given.fps)
    milliseconds = [round(1000 * float(t)) for t in times]
    total = max(round(1000 * end), milliseconds[-1] + 1)
    return {"total_num_frames": total, "fps": 1000.0, "duration": end, "frames_indices": milliseconds}


def _rewritten(
    chat: Sequence[Mapping[str, Any]], slots: list[_VideoSlot], input_format: InputFormat, audio: bool
) -> list[dict[str, Any]]:
    changed = {(s.message, s.block): s for s in slots}
    messages = []
    for m, message in enumerate(chat):
        content = message.get("content")
        if isinstance(content, list | tuple):
            blocks = [
                new
                for b, block in enumerate(content)
                for new in _blocks(block, changed.get((m, b)), input_format, audio)
            ]
            messages.append({**message, "content": blocks})
        else:
            messages.append(dict(message))
    return messages


def _blocks(block: Any, slot: _VideoSlot | None, input_format: InputFormat, audio: bool) -> list[Any]:
    if slot is None:
        return [dict(block) if isinstance(block, Mapping) else block]
    kept = {k: v for k, v in block.items() if k not in REPLACED_KEYS}
    if slot.selection is None or not slot.clips:
        return [{**kept, "type": "video", "video": slot.value}]
    sound = [{"type": "audio", "audio": local_path(slot.value) or slot.value}] if audio and _has_sound(slot) else []
    videos = [{**kept, "type": "video", "video": clip.frames} for clip in slot.clips]
    if input_format.timestamps == "interleave":
        pairs = zip(input_format.texts_in_front(slot.selection, slot.clips), videos, strict=True)
        videos = [x for text, video in pairs for x in ({"type": "text", "text": text}, video)]
    text = input_format.text_beside(slot.selection)
    return [*videos, *sound, *([{"type": "text", "text": f"{text}\n"}] if text else [])]


def _has_sound(slot: _VideoSlot) -> bool:
    return isinstance(slot.value, str) and not is_pictures(slot.value)
