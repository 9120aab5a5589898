"""What a processor with frame selection does when it is called."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refocus_select.errors import InputError
from refocus_select.selection import Selection
from refocus_select.video.inputs import SOURCE_KEYS, read_input

from .budget import choose_within, frames_or_budget
from .choose import Request, choose, located, video_key
from .input_format import Clip, InputFormat, equal_length, processor_kwargs, seconds_per_grid
from .media import is_source, is_video_block, keys_beside, name_of, names_video, prepared, sound_of, to_pictures
from .messages import given_metadata, is_batch
from .prompts import without_videos, write_times
from .questions import Query, conversation_of_prompt, questions_of
from .state import CHAT, PINNED, Chat, Notes, State, state_of
from .tokens import Meter, words_of_prompt
from .words import asking_for_words

logger = logging.getLogger(__name__)


# -- chats --------------------------------------------------------------------------------------------


def _notes_of(conversation: Any, query: Query, where: str) -> Notes:
    contents = [m.get("content") for m in conversation if isinstance(m, Mapping)]
    blocks = [b for content in contents if isinstance(content, list | tuple) for b in content if names_video(b)]
    if not blocks and callable(query):
        return Notes([], [])
    try:
        return Notes(
            questions_of(conversation, query, max(1, len(blocks)), where=where), [keys_beside(b) for b in blocks]
        )
    except InputError as error:  # matters only if frames must be chosen
        return Notes(error, [])


def _readable(chat: Any) -> Any:
    """A chat in which every video and picture stands where transformers looks for it; OpenAI's blocks among them."""

    def block(b: Any) -> Any:
        if isinstance(b, Mapping) and b.get("type") == "image_url":
            return {"type": "image", "image": _url(b.get("image_url"))}
        if not is_video_block(b) or (b["type"] == "video" and any(key in b for key in ("video", "url", "path"))):
            return b
        held = {key: value for key, value in b.items() if key in SOURCE_KEYS}
        return {**keys_beside(b), "type": "video", "video": _url(held["video_url"]) if "video_url" in held else held}

    def message(m: Any) -> Any:
        content = m.get("content") if isinstance(m, Mapping) else None
        return {**m, "content": [block(b) for b in content]} if isinstance(content, list | tuple) else m

    return [message(m) for m in chat]


def _url(value: Any) -> Any:
    """What OpenAI's `{"url": …}` holds."""
    return value["url"] if isinstance(value, Mapping) and set(value) <= {"url", "detail"} else value


def render_chat(processor: Any, base: Any, conversation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    state = state_of(processor)
    if not conversation:
        return base.apply_chat_template(processor, conversation, *args, **kwargs)
    batched = is_batch(conversation)
    chats = list(conversation) if batched else [conversation]
    readable = [_readable(chat) for chat in chats]
    if state.disabled:
        return base.apply_chat_template(processor, readable if batched else readable[0], *args, **kwargs)
    names = [f"conversation {c + 1}" if batched else "the chat" for c in range(len(chats))]
    notes = [_notes_of(chat, state.query, name) for chat, name in zip(chats, names, strict=True)]
    conversation = readable if batched else readable[0]
    kwargs = dict(kwargs)
    inner = dict(kwargs.get("processor_kwargs") or {})
    num_frames = _take_sampling(kwargs, state, inner)
    if "processor_kwargs" in kwargs:
        del kwargs["processor_kwargs"]
        kwargs |= {"processor_kwargs": inner} if _nests_kwargs(base) else inner
    token = CHAT.set(Chat(state.key, notes, num_frames))
    try:
        result = base.apply_chat_template(processor, conversation, *args, **kwargs)
    finally:
        CHAT.reset(token)
    prompts = [result] if isinstance(result, str) else result
    if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts):
        for prompt, note in zip(prompts, notes, strict=True):
            state.remember(prompt, note)
    return result


@functools.cache
def _nests_kwargs(base: type) -> bool:
    """Whether chat templates take `processor_kwargs`, as in transformers 5; before, all stood side by side."""
    return "processor_kwargs" in inspect.signature(base.apply_chat_template).parameters  # type: ignore[attr-defined]


def _take_sampling(kwargs: dict[str, Any], state: State, *nested: dict[str, Any]) -> Any:
    """Remove what asks the processor to sample by itself; `num_frames` means K."""
    places = [kwargs, *nested]
    asked = [p.pop("num_frames") for p in places if "num_frames" in p]
    rates = [p.pop("fps") for p in places if "fps" in p]
    for place in places:
        place.pop("do_sample_frames", None)
    rate = next((r for r in rates if r is not None), None)
    if rate is not None and CHAT.get() is None:  # within a chat, templates of SmolVLM add their own
        number = f"{state.num_frames} frames" if state.budget is None else "as many frames as the budget allows"
        logger.warning("fps=%s is not used: the selector chooses %s", rate, number)
    return next((n if n == "auto" else int(n) for n in asked if n is not None), None)


# -- the call -----------------------------------------------------------------------------------------


@dataclass
class _Video:
    """One video of a call, in order, with the prompt it belongs to."""

    value: Any
    prompt: int
    place: int  # among the videos of its prompt
    metadata: Any = None
    source: Any = None  # what the selector is given for it
    selection: Selection | None = None
    clips: list[Clip] = field(default_factory=list)


def call_processor(processor: Any, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    state = state_of(processor)
    if state.disabled:
        return base.__call__(processor, *args, **kwargs)
    kwargs = {**dict(zip(_parameters(base), args, strict=False)), **kwargs}
    family = state.input_format.family
    video_argument = "videos" if family.takes_metadata else "images"
    values, counts = _flat(kwargs.get(video_argument))
    nested = dict(kwargs.get("videos_kwargs") or {})
    given = _given(nested.get("video_metadata", kwargs.get("video_metadata")), len(values))
    if not all(is_source(value) for value in values):
        state.say_once(
            "frames in memory are passed on as they are, nothing is selected from them; to select from them use "
            "select_messages, or give the video itself"
        )
    if not any(is_source(value) and metadata is None for value, metadata in zip(values, given, strict=True)):
        state.last = [None] * len(values)
        return base.__call__(processor, **kwargs)

    text = kwargs.get("text")
    prompts = [text] if isinstance(text, str) else list(text or [])
    if not prompts:
        raise InputError(
            "there is no text, so there is no question to choose frames for; pass text=, or use disable_selection"
        )
    videos = _placed(processor, values, counts, given, prompts)
    asked = _take_sampling(kwargs, state, nested)
    chat = CHAT.get()
    in_chat = chat is not None and chat.key == state.key
    if chat is not None and in_chat:
        asked, notes = chat.num_frames, chat.notes
    else:
        notes = [_read_back(processor, state, p) for p in prompts]
    number = state.num_frames if asked is None else frames_or_budget(asked, state.budget)[0]
    if state.budget is None:
        _select(state, videos, notes, number, choose)
    else:
        meter = Meter(processor, state.input_format, kwargs)
        beside = _tokens_beside(processor, prompts, kwargs.get("images")) if state.budget.of == "prompt" else {}
        within = functools.partial(choose_within, budget=state.budget, meter=meter, beside=beside)
        _select(state, videos, notes, number, within)
    state.last = [v.selection for v in videos]

    input_format = state.input_format
    _equalise(videos, input_format)
    ours = processor_kwargs(
        [m for v in videos for m in _metadata(v)], [c for v in videos for c in v.clips], input_format
    )
    frames = [[f for v in videos if v.prompt == p for f in _frames(v)] for p in range(len(prompts))]
    kwargs[video_argument] = frames if family.takes_metadata else [f for group in frames for f in group]
    written = [
        _write(processor, prompt, [v for v in videos if v.prompt == p], input_format)
        for p, prompt in enumerate(prompts)
    ]
    kwargs["text"] = written[0] if isinstance(text, str) else written
    if any(place.get(name) for place in (kwargs, nested) for name in ("load_audio_from_video", "use_audio_in_video")):
        _load_sound(processor, videos, kwargs)
    kwargs.pop("video_metadata", None)
    nested.pop("video_metadata", None)
    keep_metadata = bool(kwargs.get("return_metadata"))
    if keep_metadata:
        ours.pop("return_metadata", None)
    if "videos_kwargs" in kwargs:  # transformers refuses an argument that is given in both places
        kwargs["videos_kwargs"] = {**nested, **ours}
    else:
        kwargs.update(ours)
    outputs = base.__call__(processor, **kwargs)
    return _finished(processor, outputs, videos, input_format, keep_metadata=keep_metadata)


@functools.cache
def _parameters(base: type) -> tuple[str, ...]:
    return tuple(inspect.signature(base.__call__).parameters)[1:]


def _flat(videos: Any) -> tuple[list[Any], list[int] | None]:
    """The videos of a call in order, and how many each conversation has if they came nested.

    Accepted are one video, a list of videos, or a list of such lists, as in transformers.
    """
    if videos is None:
        return [], None
    if is_source(videos) or not isinstance(videos, list | tuple):
        return [videos], None
    if not videos or any(_is_picture(v) for v in videos):  # the frames of one video
        return ([videos], None) if videos else ([], None)
    if all(not isinstance(v, list | tuple) for v in videos) or any(_is_picture(v[0]) for v in videos if _is_list(v)):
        return list(videos), None
    groups = [list(v) if isinstance(v, list | tuple) else [v] for v in videos]
    return [value for group in groups for value in group], [len(group) for group in groups]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_picture(value: Any) -> bool:
    return getattr(value, "ndim", None) == 3 or hasattr(value, "getbands")


def _given(metadata: Any, count: int) -> list[Any]:
    """The caller's metadata, one entry per video; None where there is none."""
    if metadata is None:
        return [None] * count
    if not isinstance(metadata, list | tuple):
        return [metadata] * count
    flat = [m for group in metadata for m in (group if isinstance(group, list | tuple) else [group])]
    if len(flat) != count:
        raise InputError(
            f"there are {count} videos, but video_metadata for {len(flat)}; give one entry per video, or None for it"
        )
    return flat


def _placed(
    processor: Any, values: list[Any], counts: list[int] | None, given: list[Any], prompts: list[str]
) -> list[_Video]:
    """Which video belongs to which prompt."""
    if counts is None or len(counts) != len(prompts):
        token = getattr(processor, "video_token", None)
        counts = [len(values)] if len(prompts) == 1 else [p.count(str(token)) if token else 1 for p in prompts]
        if not any(counts) and len(values) == len(prompts):  # InstructBLIP-Video writes the placeholders itself
            counts = [1] * len(prompts)
    if sum(counts) != len(values):
        raise InputError(
            f"{len(values)} videos for {len(prompts)} prompts with {sum(counts)} video placeholders: "
            "give as many videos as the prompts name, as a list, or as one list per prompt"
        )
    owners = [(p, k) for p, count in enumerate(counts) for k in range(count)]
    return [_Video(value, p, k, metadata) for value, metadata, (p, k) in zip(values, given, owners, strict=True)]


def _read_back(processor: Any, state: State, prompt: str) -> Notes:
    """What a prompt says: from the chat it was rendered from, or else from its words."""
    notes = state.rendered.get(prompt)
    if notes is not None and notes.questions:
        return notes
    conversation = conversation_of_prompt(processor, prompt)
    count = max(1, prompt.count(str(getattr(processor, "video_token", "") or "\0")))
    try:
        return Notes(questions_of(conversation, state.query, count, where="the prompt"), [])
    except InputError as error:
        return Notes(error, [])


def _tokens_beside(processor: Any, prompts: Sequence[str], images: Any) -> dict[int, int]:
    """Tokens of each prompt without its videos."""
    pictures = iter(_flat_images(images))
    token = str(getattr(processor, "image_token", None) or "\0")
    words = [without_videos(p, str(getattr(processor, "video_token", None) or "")) for p in prompts]
    several = len(prompts) > 1
    own = [[next(pictures) for _ in range(p.count(token))] if several else list(pictures) for p in prompts]
    return {k: words_of_prompt(processor, p, i) for k, (p, i) in enumerate(zip(words, own, strict=True))}


def _flat_images(images: Any) -> list[Any]:
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [x for group in images for x in (group if isinstance(group, list | tuple) else [group])]


def _select(
    state: State,
    videos: list[_Video],
    notes: list[Notes],
    num_frames: Any,
    choose: Callable[[Any, list[Request]], list[Selection]],
) -> None:
    pins = PINNED.get().get(state.key)
    several = len(notes) > 1
    wanted = [v for v in videos if is_source(v.value) and v.metadata is None]
    asking: list[tuple[_Video, Request]] = []
    for video in wanted:
        note = notes[video.prompt]
        where = f"video {video.place + 1}"
        where = f"conversation {video.prompt + 1}, {where}" if several else where
        with located(where, video.value):
            given = read_input(video.value, note.beside[video.place] if video.place < len(note.beside) else None)
            video.source = prepared(given)
        if pins is not None and video_key(video.source) in pins:
            video.selection = pins[video_key(video.source)]
            continue
        if isinstance(note.questions, InputError):
            raise note.questions
        if not note.questions:
            raise InputError(f"prompt {video.prompt + 1} has a video, but no message of its chat names one")
        question = note.questions[min(video.place, len(note.questions) - 1)]
        wanted_too = {**state.select_kwargs, **given.sampling}
        arguments = asking_for_words(wanted_too, video.source, state.input_format.words)
        count = num_frames if given.num_frames is None else given.num_frames
        if state.budget is None:
            count = state.input_format.frames_to_choose(count)
        asking.append((video, Request(video.source, question, count, where, arguments, video.prompt)))
    for (video, _), selection in zip(asking, choose(state.selector, [r for _, r in asking]), strict=True):
        video.selection = selection
        if pins is not None:
            pins.setdefault(video_key(video.source), selection)
    for video in wanted:
        if video.selection is not None:
            video.clips = state.input_format.clips(video.selection)


def keys_of(selection: Selection) -> list[Hashable]:
    """What a video may be called by whoever asks about it again."""
    return [video_key(selection.video.source), selection.video_fingerprint]


def _equalise(videos: list[_Video], input_format: InputFormat) -> None:
    clips = iter(equal_length([c for v in videos for c in v.clips], input_format.family))
    for video in videos:
        video.clips = [next(clips) for _ in video.clips]


def _metadata(video: _Video) -> list[dict[str, Any]]:
    if video.clips:
        return [c.metadata for c in video.clips]
    return [given_metadata(video.value, video.metadata)]


def _frames(video: _Video) -> list[Any]:
    if video.clips:
        return [c.frames for c in video.clips]
    if is_source(video.value):
        raise InputError(
            f"{name_of(video.value)} has its own video_metadata, while frames are chosen from other videos of the "
            "call: transformers takes files or frames, not both; give its frames"
        )
    return [to_pictures(video.value) if isinstance(video.value, list | tuple) else video.value]


def _write(processor: Any, prompt: str, videos: list[_Video], input_format: InputFormat) -> str:
    apart = input_format.timestamps == "interleave"
    times = [input_format.texts_in_front(v.selection, v.clips) if apart else None for v in videos]
    texts = [input_format.text_beside(v.selection) if v.selection is not None else "" for v in videos]
    return write_times(prompt, str(getattr(processor, "video_token", None) or ""), texts, times)


def _load_sound(processor: Any, videos: list[_Video], kwargs: dict[str, Any]) -> None:
    """Read the sound tracks here: once its frames are chosen, the processor no longer sees the file.

    Silent videos have no entry, as in transformers.
    """
    audio = kwargs.get("audio")
    standalone = iter(audio if isinstance(audio, list | tuple) else [] if audio is None else [audio])
    slots = kwargs.get("audio_from_video_indices")
    slots = list(range(len(videos))) if slots is None else list(slots)
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    rate = int(getattr(extractor, "sampling_rate", 16_000))
    tracks: list[Any] = []
    owners: list[int | None] = []
    for slot in slots:
        track = next(standalone) if slot is None else _sound(videos[slot], rate)
        if track is not None:
            tracks.append(track)
            owners.append(slot)
    kwargs["audio"] = tracks or None
    kwargs["audio_from_video_indices"] = owners
    kwargs["load_audio_from_video"] = True
    kwargs.pop("use_audio_in_video", None)


def _sound(video: _Video, rate: int) -> np.ndarray | None:
    source = read_input(video.value).source
    if not isinstance(source, str | bytes) and not hasattr(source, "__fspath__"):
        source = getattr(source, "origin", None) or getattr(getattr(source, "metadata", None), "source", None)
    if not isinstance(source, str | bytes) and not hasattr(source, "__fspath__"):
        raise InputError(f"load_audio_from_video needs the video as a path or URL, not {name_of(video.value)}")
    return sound_of(source, rate)


def _finished(
    processor: Any, outputs: Any, videos: list[_Video], input_format: InputFormat, *, keep_metadata: bool
) -> Any:
    if input_format.family.return_metadata and not keep_metadata:
        outputs.pop("video_metadata", None)
    if input_format.family.spacing_from_fps and "video_second_per_grid" in outputs:
        spacing = outputs["video_second_per_grid"]
        position = 0
        for video in videos:
            for k, clip in enumerate(video.clips, start=position):
                spacing[k] = seconds_per_grid(clip, input_format.merge)
            position += len(video.clips) or 1
    _warn_if_too_long(processor, outputs, videos)
    return outputs


def _warn_if_too_long(processor: Any, outputs: Any, videos: Sequence[_Video]) -> None:
    limit = getattr(getattr(processor, "tokenizer", None), "model_max_length", None)
    ids = outputs.get("input_ids") if isinstance(outputs, Mapping) or hasattr(outputs, "get") else None
    if not isinstance(limit, int) or limit > 10**9 or ids is None or not len(ids):
        return
    longest = max(len(row) for row in ids)
    if longest > limit:
        frames = max((len(c.milliseconds) for v in videos for c in v.clips), default=0)
        logger.warning(
            "the prompt has %d tokens, but the model takes %d: %d frames per video are too many; "
            "use a smaller num_frames",
            longest,
            limit,
            frames,
        )
