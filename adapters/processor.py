"""The one-liner: a processor of transformers that chooses frames by itself."""

from __future__ import annotations

import functools
import inspect
import logging
import uuid
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from refocus_select.errors import InputError
from refocus_select.selection import Selection

from .choose import Request, choose, load, video_key
from .handling import Clip, Handling, equal_length, processor_kwargs, seconds_per_grid
from .media import is_source, is_video_block, name_of, sound_of, to_pictures
from .messages import block_limits, given_metadata, is_batch, pictures_of_files
from .prompts import write_times
from .questions import Query, Question, check_query, conversation_of_prompt, questions_of

logger = logging.getLogger(__name__)

P = TypeVar("P")

# Processors with a video processor that do not chat.
_NOT_CHAT = {"PeAudioVideoProcessor", "PeVideoProcessor", "Sam2VideoProcessor", "VideoPrismProcessor"}

_DISABLED: ContextVar[frozenset[str]] = ContextVar("refocus_disabled", default=frozenset())
_PINNED: ContextVar[Mapping[str, dict[Hashable, Selection]]] = ContextVar("refocus_pinned", default={})  # noqa: B039
_CHAT: ContextVar[_Chat | None] = ContextVar("refocus_chat", default=None)


def with_frame_selection(
    processor: P,
    selector: Any = "mini",
    *,
    num_frames: int = 8,
    timestamps: str = "auto",
    temporal_merge: str = "auto",
    query: Query = "last_user",
    **select_kwargs: Any,
) -> P:
    """Make a processor choose the frames that the question needs, and tell the model when they are shown.

        processor = with_frame_selection(AutoProcessor.from_pretrained(name), num_frames=32)
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")

    Videos given as a path, URL, bytes, `Video` or `VideoEncoding` are selected from; frames that the caller chose (arrays,
    or anything with its own `video_metadata`) pass through untouched. It works in `__call__`, so chats in one step, chats
    in two steps (render, then process), plain prompts, pipelines and data collators all choose alike. The processor
    remains an instance of its own class, and is saved as such.

    Args:
        processor: a processor of a video model. It is changed in place and returned.
        selector: a `FrameSelector`, or the name of one.
        num_frames: how many frames K per video; `num_frames=` in a call overrides it.
        timestamps: "auto" (what the model needs), "metadata", "text", or "interleave" (one short video per moment).
        temporal_merge: for models that merge neighbouring frames: "auto" or "duplicate" (every frame twice, or four times),
            "pairs" (K frames as pairs of neighbours), "ignore" (distant frames are merged).
        query: what counts as the question: "last_user", "first_user", "all", or a function of the conversation (see
            `questions.questions_of`).
        **select_kwargs: more arguments of `FrameSelector.select`: `start`, `end`, `fps`, `max_frames`, `exact`, ….

    Returns:
        The same processor.

    Raises:
        InputError: if the processor takes no video, or an argument is not usable.
    """
    check_query(query)
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer) or num_frames < 1:
        raise InputError(f"num_frames must be a whole number of at least 1, not {num_frames!r}")
    base = getattr(type(processor), "_refocus_base", type(processor))
    _check_processor(processor, base)
    handling = Handling.of(processor, timestamps, temporal_merge)
    handling.frames_to_choose(num_frames)
    state = _State(load(selector), int(num_frames), handling, query, dict(select_kwargs))
    processor.__class__ = _selecting_class(base)
    processor.__dict__["_refocus"] = state
    return processor


def without_frame_selection(processor: P) -> P:
    """Take the selection off a processor again; it is changed in place and returned."""
    base = getattr(type(processor), "_refocus_base", None)
    if base is not None:
        processor.__class__ = base
        processor.__dict__.pop("_refocus", None)
    return processor


@contextmanager
def disable_selection(processor: Any) -> Iterator[Any]:
    """Within the block the processor does what it did before, for baselines.

    It holds for the current thread or task, and for data loader workers started within the block.
    """
    token = _DISABLED.set(_DISABLED.get() | {_state(processor).key})
    try:
        yield processor
    finally:
        _DISABLED.reset(token)


@contextmanager
def pinned_selection(processor: Any, *selections: Selection) -> Iterator[Any]:
    """Within the block every video keeps the frames it got first, so that a chat can go on with its cache.

    A later turn asks another question; frames chosen anew would change the beginning of the prompt, and the cached keys
    and values of it would no longer fit.

    Args:
        processor: a processor with frame selection.
        *selections: what to begin with; by default the first call in the block chooses.
    """
    pins: dict[Hashable, Selection] = {key: s for s in selections for key in _keys_of(s)}
    token = _PINNED.set({**_PINNED.get(), _state(processor).key: pins})
    try:
        yield processor
    finally:
        _PINNED.reset(token)


def last_selections(processor: Any) -> list[Selection | None]:
    """What the last call chose, one entry per video in order; None for frames that the caller had chosen."""
    return list(_state(processor).last)


def last_selection(processor: Any, video: int = 0) -> Selection:
    """What the last call chose for one video.

    Args:
        processor: a processor with frame selection.
        video: its place among the videos of the call.

    Raises:
        InputError: if nothing was chosen for that video.
    """
    last = _state(processor).last
    chosen = last[video] if -len(last) <= video < len(last) else None
    if chosen is None:
        raise InputError(f"nothing was selected for video {video}: the last call had {len(last)} videos")
    return chosen


# -- the class that a processor becomes ---------------------------------------------------------------


class _State:
    """Everything that the selection adds to a processor: its settings, and what happened last."""

    def __init__(
        self,
        selector: Any,
        num_frames: int,
        handling: Handling,
        query: Query,
        select_kwargs: dict[str, Any],
        off: bool = False,
    ) -> None:
        self.selector = selector
        self.num_frames = num_frames
        self.handling = handling
        self.query = query
        self.select_kwargs = select_kwargs
        self.off = off
        self.key = uuid.uuid4().hex
        self.last: list[Selection | None] = []
        self.rendered: OrderedDict[str, _Notes] = OrderedDict()  # prompts that this processor rendered lately

    @property
    def disabled(self) -> bool:
        return self.off or self.key in _DISABLED.get()

    def __deepcopy__(self, memo: dict[int, Any]) -> _State:
        # Processors are deep-copied on every repr and save; the selector's weights are not.
        return _State(self.selector, self.num_frames, self.handling, self.query, self.select_kwargs, self.off)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.selector, self.num_frames, self.handling, self.query, self.select_kwargs, self.disabled)
        return _State, arguments

    def remember(self, prompt: str, notes: _Notes) -> None:
        self.rendered[prompt] = notes
        self.rendered.move_to_end(prompt)
        while len(self.rendered) > 256:
            self.rendered.popitem(last=False)


def _state(processor: Any) -> _State:
    state = getattr(processor, "__dict__", {}).get("_refocus")
    if not isinstance(state, _State):
        raise InputError(
            f"{type(processor).__name__} has no frame selection; call with_frame_selection(processor) first"
        )
    return state


@functools.cache
def _selecting_class(base: type) -> type:
    """A subclass under the name of its base: transformers writes class names into saved files."""

    @functools.wraps(base.__call__)  # type: ignore[operator]
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _call(self, base, args, kwargs)

    @functools.wraps(base.apply_chat_template)  # type: ignore[attr-defined]
    def apply_chat_template(self: Any, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        return _apply_chat_template(self, base, conversation, args, kwargs)

    @functools.wraps(base.from_pretrained.__func__)  # type: ignore[attr-defined]
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        return base.from_pretrained(*args, **kwargs)  # type: ignore[attr-defined]

    def reduce_ex(self: Any, protocol: int) -> tuple[Any, ...]:
        return _rebuild, (base,), dict(self.__dict__)

    members = {
        "__call__": call,
        "apply_chat_template": apply_chat_template,
        "from_pretrained": classmethod(from_pretrained),
        "__reduce_ex__": reduce_ex,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_refocus_base": base,
    }
    return type(base.__name__, (base,), members)


def _rebuild(base: type) -> Any:
    cls = _selecting_class(base)
    return cls.__new__(cls)


def _check_processor(processor: Any, base: type) -> None:
    name = base.__name__
    if name in _NOT_CHAT:
        raise InputError(
            f"{name} does not chat about videos: there is no question to choose frames for; use select_frames"
        )
    if getattr(processor, "video_processor", None) is None:
        raise InputError(
            f"{name} takes no video. For a model that reads several pictures, send the frames as pictures: "
            "refocus_select.adapters.openai.image_messages(...) or select_frames(...).images"
        )
    if not (callable(processor) and hasattr(processor, "apply_chat_template")):
        raise InputError(f"{name} is not a processor of transformers; pass what AutoProcessor.from_pretrained gave")


# -- chats --------------------------------------------------------------------------------------------


@dataclass
class _Notes:
    """What a conversation says about its videos."""

    questions: list[Question] | InputError
    limits: list[dict[str, float]]


@dataclass
class _Chat:
    """The call of `apply_chat_template` in progress."""

    key: str
    notes: list[_Notes]
    num_frames: int | None


def _notes_of(conversation: Any, query: Query, where: str) -> _Notes:
    contents = [m.get("content") for m in conversation if isinstance(m, Mapping)]
    blocks = [b for content in contents if isinstance(content, list | tuple) for b in content if is_video_block(b)]
    questions: list[Question] | InputError = []
    if blocks:
        try:
            questions = questions_of(conversation, query, len(blocks), where=where)
        except InputError as error:  # matters only if frames must be chosen
            questions = error
    return _Notes(questions, [block_limits(b) for b in blocks])


def _apply_chat_template(
    processor: Any, base: Any, conversation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    state = _state(processor)
    if state.disabled or not conversation:
        return base.apply_chat_template(processor, conversation, *args, **kwargs)
    batched = is_batch(conversation)
    chats = list(conversation) if batched else [conversation]
    names = [f"conversation {c + 1}" if batched else "the chat" for c in range(len(chats))]
    notes = [_notes_of(chat, state.query, name) for chat, name in zip(chats, names, strict=True)]
    kwargs = dict(kwargs)
    inner = dict(kwargs.get("processor_kwargs") or {})
    num_frames = _take_sampling(kwargs, state, inner)
    if "processor_kwargs" in kwargs:
        kwargs["processor_kwargs"] = inner
    token = _CHAT.set(_Chat(state.key, notes, num_frames))
    try:
        result = base.apply_chat_template(processor, conversation, *args, **kwargs)
    finally:
        _CHAT.reset(token)
    prompts = [result] if isinstance(result, str) else result
    if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts):
        for prompt, note in zip(prompts, notes, strict=True):
            state.remember(prompt, note)
    return result


def _take_sampling(kwargs: dict[str, Any], state: _State, *nested: dict[str, Any]) -> int | None:
    """Remove what asks the processor to sample by itself; `num_frames` means K."""
    places = [kwargs, *nested]
    asked = [p.pop("num_frames") for p in places if "num_frames" in p]
    rates = [p.pop("fps") for p in places if "fps" in p]
    for place in places:
        place.pop("do_sample_frames", None)
    if any(rate is not None for rate in rates):
        logger.info("fps=%s is not used: the selector chooses %d frames", rates, state.num_frames)
    return next((int(n) for n in asked if n is not None), None)


# -- the call -----------------------------------------------------------------------------------------


@dataclass
class _Video:
    """One video of a call, in order, with the prompt it belongs to."""

    value: Any
    prompt: int
    place: int  # among the videos of its prompt
    metadata: Any = None
    selection: Selection | None = None
    clips: list[Clip] = field(default_factory=list)


def _call(processor: Any, base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    state = _state(processor)
    if state.disabled:
        return base.__call__(processor, *args, **kwargs)
    kwargs = {**dict(zip(_parameters(base), args, strict=False)), **kwargs}
    family = state.handling.family
    video_argument = "videos" if family.takes_metadata else "images"
    values, counts = _flat(kwargs.get(video_argument))
    nested = dict(kwargs.get("videos_kwargs") or {})
    given = _given(nested.get("video_metadata", kwargs.get("video_metadata")), len(values))
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
    chat = _CHAT.get()
    in_chat = chat is not None and chat.key == state.key
    num_frames = (chat.num_frames if chat is not None and in_chat else asked) or state.num_frames
    notes = chat.notes if chat is not None and in_chat else [_read_back(processor, state, p) for p in prompts]
    _select(state, videos, notes, num_frames)
    state.last = [v.selection for v in videos]

    handling = state.handling
    _equalise(videos, handling)
    ours = processor_kwargs([m for v in videos for m in _metadata(v)], [c for v in videos for c in v.clips], handling)
    kwargs[video_argument] = [frames for v in videos for frames in _frames(v)]
    if not family.takes_metadata and len(kwargs[video_argument]) == 1:
        kwargs[video_argument] = kwargs[video_argument][0]
    written = [
        _write(processor, prompt, [v for v in videos if v.prompt == p], handling) for p, prompt in enumerate(prompts)
    ]
    kwargs["text"] = written[0] if isinstance(text, str) else written
    if kwargs.get("load_audio_from_video") or nested.get("load_audio_from_video") or kwargs.get("use_audio_in_video"):
        _load_sound(processor, videos, kwargs)
    kwargs.pop("video_metadata", None)
    if "videos_kwargs" in kwargs:
        kwargs["videos_kwargs"] = {**nested, **ours}
    else:
        kwargs.update({**ours, **({"return_metadata": True} if kwargs.get("return_metadata") else {})})
    wants_metadata = "return_metadata" in kwargs and "return_metadata" not in ours
    outputs = base.__call__(processor, **kwargs)
    return _finished(processor, outputs, videos, handling, keep_metadata=wants_metadata)


@functools.cache
def _parameters(base: type) -> tuple[str, ...]:
    return tuple(inspect.signature(base.__call__).parameters)[1:]  # type: ignore[operator]


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
    if sum(counts) != len(values):
        raise InputError(
            f"{len(values)} videos for {len(prompts)} prompts with {sum(counts)} video placeholders: "
            "give as many videos as the prompts name, as a list, or as one list per prompt"
        )
    owners = [(p, k) for p, count in enumerate(counts) for k in range(count)]
    return [_Video(value, p, k, metadata) for value, metadata, (p, k) in zip(values, given, owners, strict=True)]


def _read_back(processor: Any, state: _State, prompt: str) -> _Notes:
    """What a prompt says: from the chat it was rendered from, or else from its words."""
    if prompt in state.rendered:
        return state.rendered[prompt]
    conversation = conversation_of_prompt(processor, prompt)
    count = max(1, prompt.count(str(getattr(processor, "video_token", "") or "\0")))
    try:
        return _Notes(questions_of(conversation, state.query, count, where="the prompt"), [])
    except InputError as error:
        return _Notes(error, [])


def _select(state: _State, videos: list[_Video], notes: list[_Notes], num_frames: int) -> None:
    pins = _PINNED.get().get(state.key)
    several = len(notes) > 1
    wanted = [v for v in videos if is_source(v.value) and v.metadata is None]
    asking: list[tuple[_Video, Request]] = []
    for video in wanted:
        if pins is not None and video_key(video.value) in pins:
            video.selection = pins[video_key(video.value)]
            continue
        note = notes[video.prompt]
        if isinstance(note.questions, InputError):
            raise note.questions
        if video.place >= len(note.questions):
            raise InputError(f"prompt {video.prompt + 1} has more videos than questions")
        where = f"video {video.place + 1}"
        where = f"conversation {video.prompt + 1}, {where}" if several else where
        limits = note.limits[video.place] if video.place < len(note.limits) else {}
        arguments = {**state.select_kwargs, **limits}
        value = video.value.removeprefix("file://") if isinstance(video.value, str) else video.value
        count = state.handling.frames_to_choose(num_frames)
        asking.append((video, Request(value, note.questions[video.place], count, where, arguments)))
    for (video, _), selection in zip(asking, choose(state.selector, [r for _, r in asking]), strict=True):
        video.selection = selection
        if pins is not None:
            pins.setdefault(video_key(video.value), selection)
    for video in wanted:
        assert video.selection is not None  # for the type checker: every wanted video was chosen or pinned
        video.clips = state.handling.clips(video.selection)


def _keys_of(selection: Selection) -> list[Hashable]:
    return [video_key(str(selection.video["source"])), selection.video_fingerprint]


def _equalise(videos: list[_Video], handling: Handling) -> None:
    clips = iter(equal_length([c for v in videos for c in v.clips], handling.family))
    for video in videos:
        video.clips = [next(clips) for _ in video.clips]


def _metadata(video: _Video) -> list[dict[str, Any]]:
    if video.clips:
        return [c.metadata for c in video.clips]
    return [given_metadata(video.value, video.metadata)]


def _frames(video: _Video) -> list[Any]:
    if video.clips:
        return [c.frames for c in video.clips]
    value = pictures_of_files(video.value)  # transformers takes one kind of video per call
    return [to_pictures(value) if isinstance(value, list | tuple) else value]


def _write(processor: Any, prompt: str, videos: list[_Video], handling: Handling) -> str:
    moments = [[c.moments[0] for c in v.clips] if handling.timestamps == "interleave" else None for v in videos]
    words = [handling.sentence(v.selection) if v.selection is not None else "" for v in videos]
    return write_times(prompt, str(getattr(processor, "video_token", None) or ""), words, moments)


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
    source = video.value
    if not isinstance(source, str | bytes) and not hasattr(source, "__fspath__"):
        source = getattr(source, "origin", None) or getattr(getattr(source, "metadata", None), "source", None)
    if not isinstance(source, str | bytes) and not hasattr(source, "__fspath__"):
        raise InputError(f"load_audio_from_video needs the video as a path or URL, not {name_of(video.value)}")
    return sound_of(source, rate)


def _finished(processor: Any, outputs: Any, videos: list[_Video], handling: Handling, *, keep_metadata: bool) -> Any:
    if handling.family.return_metadata and not keep_metadata:
        outputs.pop("video_metadata", None)
    if handling.family.spacing_from_fps and "video_second_per_grid" in outputs:
        spacing = outputs["video_second_per_grid"]
        clips = [c for v in videos for c in (v.clips or [None])]
        for k, clip in enumerate(clips):
            if clip is not None:
                spacing[k] = seconds_per_grid(clip, handling.merge)
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
            "the prompt has %d tokens, but the model takes %d: %d frames per video are too many; use a smaller num_frames",
            longest,
            limit,
            frames,
        )
