"""`with_frame_selection`: the one-liner, and everything around a processor that must go on working."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version
from PIL import Image
from torch.utils.data import DataLoader
from transformers import (
    AutoProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.video_utils import VideoMetadata

from refocus_select.adapters import (
    disable_selection,
    last_selection,
    last_selections,
    pinned_selection,
    select_messages,
    with_frame_selection,
    without_frame_selection,
)
from refocus_select.errors import InputError, VideoOpenError
from refocus_select.video import open_video
from tests.installed import TRANSFORMERS, VERSION_5, needs, nested

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, DURATION, QUESTION, NamedFrames, greys, picture
from .test_families import ASK, prompt_of, same


@pytest.fixture
def processor() -> Any:
    return with_frame_selection(tiny.qwen3_vl(), NamedFrames(), num_frames=6)


# -- the class ----------------------------------------------------------------------------------------


def test_it_is_the_same_object_and_still_of_its_own_class() -> None:
    stock = tiny.qwen2_5_vl()
    wrapped = with_frame_selection(stock, NamedFrames())
    assert wrapped is stock
    assert isinstance(wrapped, Qwen2_5_VLProcessor)
    assert isinstance(wrapped, ProcessorMixin)
    assert type(wrapped).__name__ == "Qwen2_5_VLProcessor"
    assert "Qwen2_5_VLProcessor" in repr(wrapped)


def test_wrapping_twice_replaces_the_settings(chat: Any) -> None:
    processor = with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=2)
    with_frame_selection(processor, NamedFrames(), num_frames=3)
    processor.apply_chat_template(chat, **ASK)
    assert len(last_selection(processor)) == 3
    assert type(processor).__mro__[1] is Qwen2_5_VLProcessor


def test_unwrapping_gives_the_stock_processor_back(chat: Any) -> None:
    processor = without_frame_selection(with_frame_selection(tiny.qwen2_5_vl(), NamedFrames()))
    assert type(processor) is Qwen2_5_VLProcessor
    assert "_refocus" not in vars(processor)
    assert without_frame_selection(processor) is processor
    with pytest.raises(InputError, match="has no frame selection"):
        last_selection(processor)


def test_it_is_saved_as_the_stock_class(processor: Any, tmp_path: Path, chat: Any) -> None:
    processor.save_pretrained(tmp_path)
    stock = AutoProcessor.from_pretrained(tmp_path)
    assert type(stock).__name__ == "Qwen3VLProcessor"
    assert "_refocus" not in vars(stock)
    assert not any("refocus" in file.read_text("utf-8") for file in tmp_path.iterdir())
    assert type(type(processor).from_pretrained(tmp_path)) is type(stock)
    again = with_frame_selection(stock, NamedFrames(), num_frames=6)
    assert same(again.apply_chat_template(chat, **ASK), processor.apply_chat_template(chat, **ASK))


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_and_pickles_select_too(copier: Any, processor: Any, chat: Any) -> None:
    twin = copier(processor)
    assert same(twin.apply_chat_template(chat, **ASK), processor.apply_chat_template(chat, **ASK))
    assert isinstance(twin, type(without_frame_selection(processor)))


def test_copies_share_the_selector(processor: Any) -> None:
    selector = vars(processor)["_refocus"].selector
    assert vars(copy.deepcopy(processor))["_refocus"].selector is selector


def test_a_pickle_made_while_disabled_stays_disabled(processor: Any) -> None:
    with disable_selection(processor):
        twin = pickle.loads(pickle.dumps(processor))
    assert vars(twin)["_refocus"].disabled
    assert not vars(processor)["_refocus"].disabled


class Collate:
    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, chats: list[Any]) -> Any:
        return dict(self.processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True}))


def test_data_loader_workers_select(processor: Any, film: str) -> None:
    chats = [chat_about(film, f"What is in {a}, {a + 1}, 6, 7, 8 and 9?") for a in (0, 2, 3, 4)]
    here = [Collate(processor)(chats[k : k + 2]) for k in (0, 2)]
    context = torch.multiprocessing.get_context("spawn")
    loader = DataLoader(
        chats, batch_size=2, collate_fn=Collate(processor), num_workers=1, multiprocessing_context=context
    )
    for batch, expected in zip(loader, here, strict=True):
        assert same(batch, expected)


# -- disabling, looking, pinning ----------------------------------------------------------------------


def test_disabled_it_is_the_stock_processor(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.from_numpy(np.stack([picture(i) for i in (0, 4, 8, 11)])).permute(0, 3, 1, 2)
    fetched: list[Any] = []

    def fetch(self: Any, videos: Any, sample_indices_fn: Any = None) -> Any:  # stands for the decoder of transformers
        fetched.append((videos, sample_indices_fn is not None))
        return [pictures], [VideoMetadata(total_num_frames=12, fps=2.0, duration=6.0, frames_indices=[0, 4, 8, 11])]

    monkeypatch.setattr(Qwen2VLVideoProcessor, "fetch_videos", fetch)
    chat = chat_about(film)
    stock, processor = tiny.qwen2_5_vl(), with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=6)
    kwargs = nested(num_frames=4)
    expected = stock.apply_chat_template(chat, **ASK, **kwargs)
    with disable_selection(processor) as inside:
        assert same(inside.apply_chat_template(chat, **ASK, **kwargs), expected)
    assert fetched == [([film], True)] * 2
    assert not same(processor.apply_chat_template(chat, **ASK), expected)
    assert len(fetched) == 2


def test_the_last_selection(processor: Any, film: str) -> None:
    with pytest.raises(InputError, match="nothing was selected for video 0"):
        last_selection(processor)
    processor.apply_chat_template(
        [chat_about(film, "1"), chat_about(film, "2")], **ASK, processor_kwargs={"padding": True}
    )
    assert [s.question for s in last_selections(processor)] == ["1", "2"]
    assert last_selection(processor, 1).question == "2"
    assert greys(last_selection(processor, 1).frames)[0] in range(12)


def test_a_pinned_selection_keeps_the_frames_of_a_chat(processor: Any, film: str) -> None:
    first = chat_about(film, "What is in 1, 2, 3, 4, 5 and 6?")
    more = [
        *first,
        {"role": "assistant", "content": [{"type": "text", "text": "Grey."}]},
        {"role": "user", "content": [{"type": "text", "text": "And in 6, 7, 8, 9, 10 and 11?"}]},
    ]
    with pinned_selection(processor):
        begin = processor.apply_chat_template(first, **ASK)["input_ids"][0]
        chosen = last_selection(processor)
        longer = processor.apply_chat_template(more, **ASK)
        assert last_selection(processor) is chosen
    shared = len(begin) - len("assistant\n") - 1
    assert torch.equal(longer["input_ids"][0][:shared], begin[:shared])
    processor.apply_chat_template(more, **ASK)
    assert last_selection(processor).indices.tolist() == [6, 7, 8, 9, 10, 11]
    with pinned_selection(processor, chosen):
        processor.apply_chat_template(more, **ASK)
    assert last_selection(processor) is chosen


# -- what may be passed -------------------------------------------------------------------------------


def test_a_caller_may_give_videos_kwargs(processor: Any, chat: Any) -> None:
    plain = processor.apply_chat_template(chat, **ASK)
    nested = {"videos_kwargs": {"do_rescale": True, "num_frames": 6, "fps": 1}}
    assert same(processor.apply_chat_template(chat, **ASK, processor_kwargs=nested), plain)
    assert nested == {"videos_kwargs": {"do_rescale": True, "num_frames": 6, "fps": 1}}
    other = processor.apply_chat_template(chat, **ASK, processor_kwargs={"videos_kwargs": {"do_normalize": False}})
    assert not torch.equal(other["pixel_values_videos"], plain["pixel_values_videos"])


def test_num_frames_of_a_call_is_k(processor: Any, chat: Any, film: str) -> None:
    processor.apply_chat_template(chat, **ASK, processor_kwargs={"num_frames": 3})
    assert len(last_selection(processor)) == 3
    processor.apply_chat_template(chat, **ASK, num_frames=2)
    assert len(last_selection(processor)) == 2
    prompt = processor.apply_chat_template(chat, tokenize=False)
    processor(text=[prompt], videos=[film], num_frames=4)
    assert len(last_selection(processor)) == 4
    with pytest.raises(InputError, match="num_frames must be a whole number of at least 1, not 0"):
        processor(text=[prompt], videos=[film], num_frames=0)


def test_fps_of_a_call_is_not_used_and_says_so(processor: Any, chat: Any, film: str, caplog: Any) -> None:
    prompt = processor.apply_chat_template(chat, tokenize=False)
    processor(text=[prompt], videos=[film], fps=2, return_tensors="pt")
    assert "fps=2 is not used: the selector chooses 6 frames" in caplog.text


@pytest.mark.parametrize("kind", ["array", "tensor", "pil", "nested"])
def test_frames_that_the_user_chose_pass_through(kind: str) -> None:
    pictures = np.stack([picture(i) for i in (2, 4, 6, 8)])
    video = {
        "array": pictures,
        "tensor": torch.from_numpy(pictures).permute(0, 3, 1, 2),
        "pil": [Image.fromarray(p) for p in pictures],
        "nested": [pictures, pictures],
    }[kind]
    count = 2 if kind == "nested" else 1
    content = [{"type": "video"}] * count + [{"type": "text", "text": QUESTION}]
    stock, processor = tiny.qwen2_5_vl(), with_frame_selection(tiny.qwen2_5_vl(), NamedFrames())
    prompt = stock.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert same(
        processor(text=[prompt], videos=video, return_tensors="pt"),
        stock(text=[prompt], videos=video, return_tensors="pt"),
    )
    assert last_selections(processor) == [None] * count


def test_frames_that_pass_through_are_mentioned_once(film: str, caplog: pytest.LogCaptureFixture) -> None:
    pictures = np.stack([picture(i) for i in (2, 4)])
    processor = with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=6)
    prompt = processor.apply_chat_template(chat_about(film), tokenize=False)
    processor(text=[prompt], videos=[film], return_tensors="pt")
    assert "passed on as they are" not in caplog.text
    for _ in range(2):
        processor(text=[prompt], videos=[pictures], return_tensors="pt")
    assert caplog.text.count("passed on as they are, nothing is selected from them") == 1


def test_blocks_of_openai(film: str, tmp_path: Path) -> None:
    """With selection and without it, `video_url` and `image_url` are what `video` and `image` are."""
    photo = tmp_path / "photo.png"
    Image.fromarray(picture(3)).save(photo)
    processor = with_frame_selection(tiny.qwen3_vl(), NamedFrames(), num_frames=6)
    rest = [{"type": "text", "text": QUESTION}]
    plain = [{"type": "image", "image": str(photo)}, {"type": "video", "video": film}, *rest]
    openai = [
        {"type": "image_url", "image_url": {"url": str(photo), "detail": "low"}},
        {"type": "video_url", "video_url": {"url": film}},
        *rest,
    ]
    chats = [[{"role": "user", "content": content}] for content in (plain, openai)]
    one, two = (processor.apply_chat_template(chat, **ASK) for chat in chats)
    assert same(one, two)
    with disable_selection(processor):
        texts = [processor.apply_chat_template(chat, tokenize=False) for chat in chats]
    assert texts[0] == texts[1]
    assert "<|video_pad|>" in texts[0]
    assert "<|image_pad|>" in texts[0]


@pytest.mark.parametrize("timestamps", ["auto", "interleave"])
@pytest.mark.parametrize("num_frames", [1, 3])
@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl", "glm4v", "kimi_k25"])
def test_frames_fill_a_group_without_duplication(model_type: str, num_frames: int, timestamps: str, film: str) -> None:
    if model_type not in tiny.BUILDERS:
        pytest.skip(f"this transformers has no {model_type}")
    processor = with_frame_selection(
        tiny.build(model_type),
        NamedFrames(),
        num_frames=num_frames,
        temporal_merge="ignore",
        timestamps=timestamps,
    )
    inputs = processor.apply_chat_template(chat_about(film, "What is in 5, 9 and 11?"), **ASK)
    seconds = last_selection(processor).timestamps
    assert seconds == pytest.approx([3.333, 6.667, 7.667][:num_frames])
    if timestamps == "interleave":
        assert all(f"<{t:.1f} seconds>" in prompt_of(processor, inputs) for t in seconds)


def test_explicit_metadata_passes_through(film: str) -> None:
    pictures = np.stack([picture(i) for i in (2, 4, 6, 8)])
    metadata = [VideoMetadata(total_num_frames=100, fps=25.0, frames_indices=[0, 20, 40, 60])]
    stock, processor = tiny.qwen3_vl(), with_frame_selection(tiny.qwen3_vl(), NamedFrames())
    prompt = stock.apply_chat_template(chat_about(film), tokenize=False)
    kwargs = {"text": [prompt], "videos": [pictures], "do_sample_frames": False, "return_tensors": "pt"}
    assert same(processor(**kwargs, video_metadata=copy.deepcopy(metadata)), stock(**kwargs, video_metadata=metadata))


def test_chosen_frames_and_paths_in_one_call(processor: Any, film: str) -> None:
    mine = [Image.fromarray(picture(i)) for i in (0, 3)]
    metadata = {"total_num_frames": 10, "fps": 1.0, "frames_indices": [1, 9]}
    content = [{"type": "video", "video": mine}, {"type": "video", "video": film}, {"type": "text", "text": "5 6"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        **ASK,
        processor_kwargs={"video_metadata": [metadata, None], "num_frames": 2},
    )
    prompt = prompt_of(processor, inputs)
    assert prompt.index("<5.0 seconds>") < prompt.index("<3.4 seconds>")  # 3.333 and 3.367 s are one pair
    assert last_selections(processor)[0] is None
    prompt_text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    with pytest.raises(InputError, match="has its own video_metadata"):
        processor(text=[prompt_text], videos=[film, film], video_metadata=[metadata, None])


def test_placeholders_filled_in_the_second_step(processor: Any, film: str, chat: Any) -> None:
    empty = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(empty, tokenize=False, add_generation_prompt=True)
    expected = processor.apply_chat_template(chat, **ASK)
    for videos in (film, [film], [[film]], Path(film)):
        assert same(processor(text=[prompt], videos=videos, return_tensors="pt"), expected)


def test_positional_arguments(processor: Any, film: str, chat: Any) -> None:
    prompt = processor.apply_chat_template(chat, tokenize=False)
    processor(None, [prompt], [film], return_tensors="pt")
    assert last_selection(processor).indices.tolist() == list(CHOSEN)


def test_flat_videos_go_to_the_prompts_that_name_them(processor: Any, film: str) -> None:
    chats = [
        chat_about(film, "1"),
        [{"role": "user", "content": [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "5"}]}],
    ]
    prompts = processor.apply_chat_template(chats, tokenize=False)
    processor(text=prompts, videos=[film, film, film], padding=True, return_tensors="pt", num_frames=1)
    assert [s.indices.tolist() for s in last_selections(processor)] == [[1], [5], [5]]
    with pytest.raises(InputError, match="2 videos for 2 prompts with 3 video placeholders"):
        processor(text=prompts, videos=[film, film])


def test_images_and_videos_mixed_in_a_batch(film: str) -> None:
    image = Image.fromarray(picture(4))
    processor = with_frame_selection(tiny.internvl(), NamedFrames(), num_frames=2)
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "A picture?"}]}],
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": image},
                    {"type": "video", "video": film},
                    {"type": "text", "text": "1 2"},
                ],
            }
        ],
        [{"role": "user", "content": [{"type": "text", "text": "Nothing"}]}],
    ]
    inputs = processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True, "crop_to_patches": False})
    assert len(inputs["input_ids"]) == 3
    assert len(inputs["pixel_values"]) == 4
    assert last_selection(processor).indices.tolist() == [1, 2]


def test_queries_of_a_chat_with_turns(film: str) -> None:
    chat = [
        *chat_about(film, "1"),
        {"role": "assistant", "content": [{"type": "text", "text": "2"}]},
        {"role": "user", "content": [{"type": "text", "text": "5"}]},
    ]
    for query, expected in {"last_user": [5], "first_user": [1], "all": [1, 5], (lambda c: "frame 7"): [7]}.items():
        processor = with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=len(expected), query=query)
        processor.apply_chat_template(chat, **ASK)
        assert last_selection(processor).indices.tolist() == expected
        prompt = processor.apply_chat_template(chat, tokenize=False)
        stranger = with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=len(expected), query=query)
        stranger(text=[prompt], videos=[film])
        assert last_selection(stranger).indices.tolist() == expected


def test_a_prompt_written_by_hand(film: str) -> None:
    processor = with_frame_selection(tiny.llava_next_video(), NamedFrames(), num_frames=2)
    processor(text="USER: <video>\nWhat is in 5 and 6? ASSISTANT:", videos=film)
    assert last_selection(processor).indices.tolist() == [5, 6]


def test_return_metadata_is_the_callers_choice(chat: Any) -> None:
    needs(VERSION_5, "makes no tensors of inputs with metadata")
    for model_type in ("cosmos3_edge", "qwen3_vl"):
        processor = with_frame_selection(tiny.build(model_type), NamedFrames(), num_frames=6)
        assert "video_metadata" not in processor.apply_chat_template(chat, **ASK)
        asked = processor.apply_chat_template(chat, **ASK, processor_kwargs={"return_metadata": True})
        assert asked["video_metadata"][0].fps == 1000.0


def test_a_query_function_sees_only_chats_with_videos(film: str) -> None:
    seen: list[Any] = []
    processor = with_frame_selection(
        tiny.qwen3_vl(), NamedFrames(), num_frames=1, query=lambda chat: (seen.append(chat), "5")[1]
    )
    processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], **ASK)
    assert seen == []
    processor.apply_chat_template(chat_about(film), **ASK)
    assert len(seen) == 1
    assert last_selection(processor).indices.tolist() == [5]


def test_a_prompt_with_another_number_of_placeholders_is_the_processors_error(film: str) -> None:
    processor = with_frame_selection(tiny.qwen2_vl(), NamedFrames(), num_frames=1)
    message = r"number of <\|video_pad\|>" if Version("5.21") <= TRANSFORMERS else None
    with pytest.raises((ValueError, IndexError, StopIteration), match=message):
        processor(text=["<|video_pad|><|video_pad|> What is in 5?"], videos=[film])


def test_text_only_calls_are_untouched(processor: Any) -> None:
    stock = tiny.qwen3_vl()
    chat = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert same(processor.apply_chat_template(chat, **ASK), stock.apply_chat_template(chat, **ASK))


# -- sound --------------------------------------------------------------------------------------------

needs_sound = pytest.mark.usefixtures("_sound")


@pytest.fixture
def _sound() -> None:
    needs(Version("5.21") <= TRANSFORMERS, "reads sound in the chat template, with FFmpeg")


@needs_sound
@pytest.mark.parametrize("model_type", ["qwen2_5_omni", "qwen3_omni_moe", "embedding_gemma2"])
def test_the_sound_of_the_video_comes_along(model_type: str, sound_film: str, film: str) -> None:
    processor = with_frame_selection(tiny.build(model_type), NamedFrames(), num_frames=6)
    inputs = processor.apply_chat_template(chat_about(sound_film), **ASK, load_audio_from_video=True)
    selection = last_selection(processor)

    # The stock processor, with frames and sound read by hand.
    messages, kwargs = select_messages(chat_about(sound_film), NamedFrames(), num_frames=6, model=processor)
    stock = tiny.build(model_type)
    prompt = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    sine = np.sin(np.arange(int(16000 * DURATION)) * 0.1).astype(np.float32)
    sound = {"audio": [sine], "audio_from_video_indices": [0], "load_audio_from_video": True}
    expected = stock(text=[prompt], videos=[messages[0]["content"][0]["video"]], return_tensors="pt", **kwargs, **sound)

    assert selection.indices.tolist() == list(CHOSEN)
    audio = processor.tokenizer.convert_tokens_to_ids(processor.audio_token)
    assert (expected["input_ids"] == audio).sum() >= 100
    assert abs(int((inputs["input_ids"] == audio).sum() - (expected["input_ids"] == audio).sum())) <= 2
    assert inputs["input_features"].shape[-2] == pytest.approx(expected["input_features"].shape[-2], abs=8)
    middle = slice(100, 400)
    axis = -1 if inputs["input_features"].shape[-1] > 400 else -2
    heard, played = (torch.as_tensor(x["input_features"]).movedim(axis, -1)[..., middle] for x in (inputs, expected))
    assert torch.corrcoef(torch.stack([heard.flatten(), played.flatten()]))[0, 1] > 0.9


@needs_sound
def test_a_silent_video_has_no_sound(film: str) -> None:
    processor = with_frame_selection(tiny.qwen2_5_omni(), NamedFrames(), num_frames=6)
    inputs = processor.apply_chat_template(chat_about(film), **ASK, load_audio_from_video=True)
    assert "input_features" not in inputs
    assert last_selection(processor).indices.tolist() == list(CHOSEN)


@needs_sound
def test_sound_of_encodings_and_open_videos(sound_film: str, film: str) -> None:
    selector = NamedFrames()
    processor = with_frame_selection(tiny.qwen2_5_omni(), selector, num_frames=6)
    expected = processor.apply_chat_template(chat_about(sound_film), **ASK, load_audio_from_video=True)
    for video in (selector.encode(sound_film), open_video(sound_film), Path(sound_film).read_bytes()):
        prompt = processor.apply_chat_template(chat_about(video), tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[prompt], videos=[video], load_audio_from_video=True, return_tensors="pt")
        assert same(inputs, expected)
    frames = open_video(np.stack([picture(i) for i in range(12)]), fps=2)
    with pytest.raises(VideoOpenError, match=r"the sound of .* cannot be read"):
        processor.apply_chat_template(chat_about(frames), **ASK, load_audio_from_video=True)


# -- bad input ----------------------------------------------------------------------------------------


def test_a_processor_without_video_is_refused() -> None:
    from transformers import LlavaProcessor

    images = LlavaProcessor(Qwen2VLImageProcessor(), tiny.tokenizer("<image>"), patch_size=14)
    with pytest.raises(InputError, match=r"LlavaProcessor takes no video\. .* send the frames as pictures"):
        with_frame_selection(images, NamedFrames())
    with pytest.raises(InputError, match=r"takes no video"):
        with_frame_selection(tiny.tokenizer(), NamedFrames())
    with pytest.raises(InputError, match="str takes no video"):
        with_frame_selection("Qwen/Qwen3-VL-8B-Instruct", NamedFrames())


def test_a_video_processor_alone_is_refused_for_what_it_is() -> None:
    with pytest.raises(
        InputError, match=r"Qwen2VLVideoProcessor is only the part .* sees no question .* AutoProcessor"
    ):
        with_frame_selection(Qwen2VLVideoProcessor(), NamedFrames())


@pytest.mark.parametrize("num_frames", [0, -1, 2.5, True, "8"])
def test_k_must_be_a_positive_whole_number(num_frames: Any) -> None:
    with pytest.raises(InputError, match="num_frames must be"):
        with_frame_selection(tiny.qwen3_vl(), NamedFrames(), num_frames=num_frames)


def test_a_chat_without_a_question_is_refused(processor: Any, film: str) -> None:
    silent = [{"role": "user", "content": [{"type": "video", "video": film}]}]
    with pytest.raises(InputError, match="the chat has a video but no question"):
        processor.apply_chat_template(silent, **ASK)
    with pytest.raises(InputError, match="conversation 2 has a video but no question"):
        processor.apply_chat_template([chat_about(film), silent], **ASK)
    with pytest.raises(InputError, match="there is no text"):
        processor(videos=[film])


def test_an_unreadable_video_in_a_batch_is_named(processor: Any, film: str) -> None:
    chats = [chat_about(film), chat_about("gone.mp4")]
    with pytest.raises(VideoOpenError, match=r"conversation 2, video 1 \(gone\.mp4\)"):
        processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True})


def test_an_unknown_processor_gets_text_and_one_warning(film: str, caplog: Any) -> None:
    from refocus_select.adapters import families

    tomorrow = type("Qwen9VLProcessor", (ProcessorMixin,), dict(vars(type(tiny.qwen2_vl()))))
    families._warned.clear()
    for _ in range(2):
        stock = tiny.qwen2_vl()
        stock.__class__ = tomorrow
        processor = with_frame_selection(stock, NamedFrames(), num_frames=6, temporal_merge="duplicate")
        inputs = processor.apply_chat_template(chat_about(film), **ASK)
        assert "These frames are located at 0.10s,0.33s" in prompt_of(processor, inputs)
        assert inputs["video_grid_thw"][0, 0] == 6
    warnings = [r for r in caplog.records if "Qwen9VLProcessor" in r.message]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING


def test_more_frames_than_the_model_has_room_for(chat: Any, caplog: Any) -> None:
    stock = tiny.qwen3_vl()
    stock.tokenizer.model_max_length = 100
    processor = with_frame_selection(stock, NamedFrames(), num_frames=6, temporal_merge="duplicate")
    processor.apply_chat_template(chat, **ASK)
    assert "but the model takes 100: 12 frames per video are too many; use a smaller num_frames" in caplog.text


def test_the_selector_is_loaded_by_name(film: str) -> None:
    processor = with_frame_selection(tiny.qwen3_vl(), "uniform", num_frames=3)
    processor.apply_chat_template(chat_about(film), **ASK)
    assert last_selection(processor).selector == "uniform"


def test_importing_the_adapters_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, refocus_select.adapters; print([m for m in ('torch', 'transformers', 'av') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
