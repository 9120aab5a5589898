"""The portable core: rewrite the videos of a chat into selected frames with their true times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refocus_select.errors import InputError
from refocus_select.selection import Selection
from refocus_select.weights import DEFAULT_SELECTOR

from .choose import Request, choose, load
from .handling import Clip, Handling, equal_length, processor_kwargs, stamp
from .media import SAMPLING_KEYS, VIDEO_KEYS, is_frames, is_source, is_video_block, to_pictures, video_of
from .questions import Query, check_query, questions_of


class SelectedMessages(tuple[Any, dict[str, Any]]):
    """`(messages, processor_kwargs)`, with what was chosen in `.selections` (None for frames left as they were)."""

    selections: tuple[Selection | None, ...]

    def __new__(
        cls, messages: Any, kwargs: dict[str, Any], selections: Sequence[Selection | None] = ()
    ) -> SelectedMessages:
        """Hold the pair, and the selections beside it."""
        pair = super().__new__(cls, (messages, kwargs))
        pair.selections = tuple(selections)
        return pair


@dataclass(eq=False)
class _Place:
    """A video block and where it stands."""

    conversation: int
    message: int
    block: int
    value: Any
    where: str
    selection: Selection | None = None
    clips: list[Clip] | None = None


def select_messages(
    messages: Sequence[Any],
    selector: Any = DEFAULT_SELECTOR,
    *,
    num_frames: int = 8,
    query: Query = "last_user",
    model: Any = None,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    frames: str = "select",
    audio: bool = False,
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
            (seconds) beside them in the block. `video_start` and `video_end` (seconds) in a block limit the part
            that is looked at.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video.
        query: what counts as the question: "last_user", "first_user", "all", or a function of the conversation (see
            `questions.questions_of`).
        model: a processor or a model type, to fit the frames to that model; None gives frames and metadata as they are.
        timestamps: "auto" (what the model needs), "metadata", "text", or "interleave" (one short video per moment).
        temporal_merge: for models that merge neighbouring frames: "auto", "duplicate", "pairs", or "ignore".
        frames: "select" chooses from frames that the chat holds too; "keep" leaves them as they are.
        audio: put an audio block with the whole sound track behind each video that is a path or URL.
        **select_kwargs: more arguments of `FrameSelector.select`: `start`, `end`, `fps`, `max_frames`, `exact`, ….

    Returns:
        `(messages, processor_kwargs)`: new messages, in which frames stand where videos stood, and the keyword
        arguments for the processor. The caller's messages are not changed. Frames that came as PIL images, arrays or
        tensors stay of that kind; others are uint8 arrays [K, H, W, 3].

    Raises:
        InputError: if a chat with a video has no question, or an argument is not usable.
        VideoError: if a video cannot be read; the message names the conversation and the video.
    """
    check_query(query)
    if frames not in ("select", "keep"):
        raise InputError(f"frames must be 'select' or 'keep', not {frames!r}")
    handling = Handling.of(model, timestamps, temporal_merge)
    batched = is_batch(messages)
    conversations = list(messages) if batched else [messages]
    places = [p for c, chat in enumerate(conversations) for p in _places(chat, c, batched)]
    wanted = [p for p in places if _wants_selection(p, conversations, frames)]
    requests = []
    for c, chat in enumerate(conversations):
        here = [p for p in places if p.conversation == c]
        if not any(p in wanted for p in here):
            continue
        questions = questions_of(chat, query, len(here), where=f"conversation {c + 1}" if batched else "the chat")
        for place, question in zip(here, questions, strict=True):
            if place not in wanted:
                continue
            block = chat[place.message]["content"][place.block]
            given = {**select_kwargs, **block_limits(block)}
            video = place.value if is_source(place.value) else _opened(place, block)
            requests.append(Request(video, question, handling.frames_to_choose(num_frames), place.where, given))
    for place, selection in zip(wanted, choose(load(selector), requests) if requests else [], strict=True):
        place.selection = selection
        place.clips = handling.clips(selection, None if is_source(place.value) else place.value)
    _pad([p for p in places if p.clips], handling)
    kwargs = (
        processor_kwargs(_metadata(places, conversations), [c for p in places for c in p.clips or []], handling)
        if wanted
        else {}
    )
    rewritten = [
        _rewritten(chat, [p for p in places if p.conversation == c], handling, audio)
        for c, chat in enumerate(conversations)
    ]
    return SelectedMessages(rewritten if batched else rewritten[0], kwargs, [p.selection for p in places])


def is_batch(messages: Sequence[Any]) -> bool:
    """Whether these are several chats."""
    return bool(messages) and isinstance(messages[0], list | tuple)


def _places(chat: Sequence[Mapping[str, Any]], conversation: int, batched: bool) -> list[_Place]:
    places: list[_Place] = []
    for m, message in enumerate(chat):
        content = message.get("content")
        for b, block in enumerate(content if isinstance(content, list | tuple) else []):
            if is_video_block(block):
                where = f"video {len(places) + 1}"
                where = f"conversation {conversation + 1}, {where}" if batched else where
                places.append(_Place(conversation, m, b, pictures_of_files(video_of(block)), where))
    return places


def pictures_of_files(value: Any) -> Any:
    """A list of picture files as a list of pictures; anything else as it is."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        from PIL import Image

        try:
            return [Image.open(v.removeprefix("file://")).convert("RGB") for v in value]
        except OSError as error:
            raise InputError(f"a frame of the video cannot be read: {error}; give paths of picture files") from error
    return value.removeprefix("file://") if isinstance(value, str) else value


def _wants_selection(place: _Place, conversations: Sequence[Any], frames: str) -> bool:
    if is_source(place.value):
        return True
    if not is_frames(place.value):
        raise InputError(
            f"{place.where} is a {type(place.value).__name__}: give a path, a URL, bytes, or frames [T, H, W, 3]"
        )
    block = conversations[place.conversation][place.message]["content"][place.block]
    return frames == "select" and block.get("video_metadata") is None


def block_limits(block: Mapping[str, Any]) -> dict[str, float]:
    """The part of the video that a block is about, as `start` and `end` in seconds."""
    names = {"video_start": "start", "video_end": "end"}
    return {ours: float(block[theirs]) for theirs, ours in names.items() if block.get(theirs) is not None}


def _opened(place: _Place, block: Mapping[str, Any]) -> Any:
    from refocus_select.video import open_video

    times, fps = block.get("timestamps"), block.get("fps")
    return open_video(to_pictures(place.value), timestamps=times, fps=None if times is not None else fps)


def _pad(places: list[_Place], handling: Handling) -> None:
    padded = iter(equal_length([c for p in places for c in p.clips or []], handling.family))
    for place in places:
        place.clips = [next(padded) for _ in place.clips or []]


def _metadata(places: list[_Place], conversations: Sequence[Any]) -> list[dict[str, Any]]:
    metadata = []
    for place in places:
        block = conversations[place.conversation][place.message]["content"][place.block]
        metadata += (
            [c.metadata for c in place.clips]
            if place.clips
            else [given_metadata(place.value, block.get("video_metadata"))]
        )
    return metadata


def given_metadata(frames: Any, metadata: Any = None) -> dict[str, Any]:
    """Metadata of frames that the user chose: theirs, or what transformers assumes for frames without any."""
    if metadata is not None:
        return dict(metadata)
    return {"total_num_frames": len(frames), "fps": None, "duration": None, "frames_indices": list(range(len(frames)))}


def _rewritten(
    chat: Sequence[Mapping[str, Any]], places: list[_Place], handling: Handling, audio: bool
) -> list[dict[str, Any]]:
    changed = {(p.message, p.block): p for p in places}
    messages = []
    for m, message in enumerate(chat):
        content = message.get("content")
        if isinstance(content, list | tuple):
            blocks = [
                new for b, block in enumerate(content) for new in _blocks(block, changed.get((m, b)), handling, audio)
            ]
            messages.append({**message, "content": blocks})
        else:
            messages.append(dict(message))
    return messages


def _blocks(block: Any, place: _Place | None, handling: Handling, audio: bool) -> list[Any]:
    if place is None:
        return [dict(block) if isinstance(block, Mapping) else block]
    kept = {k: v for k, v in block.items() if k not in VIDEO_KEYS and k not in SAMPLING_KEYS}
    if place.selection is None or not place.clips:
        return [{**kept, "type": "video", "video": place.value}]
    sound = [{"type": "audio", "audio": str(place.value)}] if audio and isinstance(place.value, str) else []
    videos = [{**kept, "type": "video", "video": clip.frames} for clip in place.clips]
    if handling.timestamps == "interleave":
        pairs = zip(place.clips, videos, strict=True)
        return [x for clip, video in pairs for x in ({"type": "text", "text": stamp(clip.moments[0])}, video)] + sound
    words = handling.sentence(place.selection)
    return [*videos, *sound, *([{"type": "text", "text": f"{words}\n"}] if words else [])]
