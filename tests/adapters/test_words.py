"""What is said at the chosen moments, in the prompt: with real processors, tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from refocus_select.adapters import last_selection, openai, select_messages, sglang, vllm, with_frame_selection
from refocus_select.errors import InputError

from . import tiny
from .conftest import chat_about
from .film import QUESTION, NamedFrames

LINES = [
    {"start": 0.2, "end": 0.9, "text": "A straight line is fitted to the points."},
    {"start": 3.0, "end": 3.9, "text": "Overfitting means that a model learns noise."},
    {"start": 5.4, "end": 6.2, "text": "Nobody sees a frame while this is said."},
    {"start": 6.9, "end": 7.6, "text": "The data are split into folds."},
]
SAID = "Where does she explain overfitting?"
ASK = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
ORDER = {  # a quoted line among the times of frames, where these are interleaved
    "qwen2_5_vl": "interleave",
    "qwen3_vl": "interleave",
    "gemma4": "auto",
    "llava_onevision": "auto",
    "internvl": "auto",
}


def prompt_of(model_type: str, question: str, **settings: Any) -> tuple[str, Any]:
    processor = with_frame_selection(tiny.BUILDERS[model_type](), NamedFrames(), num_frames=6, words=LINES, **settings)
    inputs = processor.apply_chat_template(chat_about(FILM[0], question), **ASK)
    return processor.tokenizer.decode(inputs["input_ids"][0]), processor


FILM: list[str] = []


@pytest.fixture(autouse=True)
def _film(film: str) -> None:
    FILM[:] = [film]


@pytest.mark.parametrize(("model_type", "timestamps"), ORDER.items())
def test_quoted_lines_stand_in_the_prompt(model_type: str, timestamps: str) -> None:
    prompt, processor = prompt_of(model_type, SAID, words_in_prompt="chosen", timestamps=timestamps)
    assert last_selection(processor).quotes[0].text == LINES[1]["text"]
    assert prompt.count(LINES[1]["text"]) == 1
    assert LINES[2]["text"] not in prompt
    assert prompt.index(LINES[1]["text"]) < prompt.index(SAID)


@pytest.mark.parametrize(("model_type", "timestamps"), ORDER.items())
def test_all_lines_of_the_chosen_moments(model_type: str, timestamps: str) -> None:
    """The pictures decided: frames 1, 2, 5, 6, 9 and 11, at 0.1, 0.333, 3.333, 3.367, 6.667 and 7.667 s."""
    prompt, processor = prompt_of(model_type, QUESTION, words_in_prompt="all", timestamps=timestamps)
    assert last_selection(processor).quotes == ()
    places = [prompt.index(LINES[k]["text"]) for k in (0, 1, 3)]
    assert places == sorted(places)
    assert places[-1] < prompt.index(QUESTION)
    none, _ = prompt_of(model_type, QUESTION, words_in_prompt="chosen", timestamps=timestamps)
    assert not any(line["text"] in none for line in LINES)


def test_lines_stand_between_the_frames_in_the_order_of_time() -> None:
    prompt, _ = prompt_of("qwen2_5_vl", QUESTION, words_in_prompt="all", timestamps="interleave")
    order = [
        "<0.1 seconds>", "<0.2 seconds> said: A straight line", "<0.3 seconds>", "<3.0 seconds> said: Overfitting",
        "<3.3 seconds>", "<3.4 seconds>", "<6.7 seconds>", "<6.9 seconds> said: The data", "<7.7 seconds>",
    ]  # fmt: skip
    places = [prompt.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision"])
@pytest.mark.parametrize("timestamps", ["auto", "interleave"])
@pytest.mark.parametrize("which", ["chosen", "all"])
def test_messages_and_the_wrapper_give_the_same_tensors(model_type: str, timestamps: str, which: str) -> None:
    settings = {"num_frames": 6, "timestamps": timestamps, "words_in_prompt": which, "words": LINES}
    chat = chat_about(FILM[0], SAID)
    stock = tiny.BUILDERS[model_type]()
    messages, kwargs = select_messages(chat, NamedFrames(), model=stock, **settings)
    by_hand = stock.apply_chat_template(messages, processor_kwargs=kwargs, **ASK)
    by_itself = with_frame_selection(tiny.BUILDERS[model_type](), NamedFrames(), **settings).apply_chat_template(
        chat, **ASK
    )
    for key in by_hand:
        assert torch.equal(torch.as_tensor(by_hand[key]), torch.as_tensor(by_itself[key])), key


def test_without_words_in_the_prompt_nothing_changes() -> None:
    with_lines, _ = prompt_of("qwen2_5_vl", QUESTION)
    stock = with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), num_frames=6)
    inputs = stock.apply_chat_template(chat_about(FILM[0]), **ASK)
    assert stock.tokenizer.decode(inputs["input_ids"][0]) == with_lines


def test_words_are_looked_for_where_they_are_to_stand_in_the_prompt(tmp_path: Any) -> None:
    beside = tmp_path / "film.mp4"
    beside.write_bytes(Path(FILM[0]).read_bytes())
    (tmp_path / "film.srt").write_text(
        "1\n00:00:03,000 --> 00:00:03,900\nOverfitting means that a model learns noise.\n"
    )
    chat = chat_about(str(beside), SAID)
    messages, _ = select_messages(chat, NamedFrames(), num_frames=3, words_in_prompt="chosen")
    assert "learns noise" in str(messages)
    plain, _ = select_messages(chat, NamedFrames(), num_frames=3)
    assert "learns noise" not in str(plain)
    encoding = NamedFrames().encode(beside, words=LINES)
    messages, _ = select_messages(chat_about(encoding, SAID), NamedFrames(), num_frames=3, words_in_prompt="chosen")
    assert "learns noise" in str(messages)


def test_requests_of_pictures_have_the_lines_between_them() -> None:
    messages = openai.image_messages(
        chat_about(FILM[0]), NamedFrames(), num_frames=6, words=LINES, words_in_prompt="all"
    )
    texts = [part.get("text", "picture") for part in messages[0]["content"]]
    assert texts[:4] == [
        "<0.1 seconds>",
        "picture",
        "<0.2 seconds> said: A straight line is fitted to the points.\n<0.3 seconds>",
        "picture",
    ]
    assert texts[-2:] == ["picture", QUESTION]
    inputs = sglang.engine_inputs(
        chat_about(FILM[0]), tiny.qwen3_vl(), NamedFrames(), num_frames=6, words=LINES, words_in_prompt="all"
    )
    assert inputs["prompt"].index("A straight line") < inputs["prompt"].index("<0.3 seconds>")
    assert len(inputs["image_data"]) == 6


def test_requests_of_videos_have_the_lines_as_text() -> None:
    settings = {"num_frames": 6, "words": LINES, "words_in_prompt": "chosen"}
    messages, _ = openai.video_request(chat_about(FILM[0], SAID), NamedFrames(), model="qwen3_vl", **settings)
    assert "said: Overfitting means" in str(messages)
    prompt = vllm.generate_inputs(chat_about(FILM[0], SAID), tiny.qwen3_vl(), NamedFrames(), **settings)["prompt"]
    assert "said: Overfitting means" in prompt


def test_another_value_is_refused() -> None:
    with pytest.raises(InputError, match="'chosen', 'all' or False"):
        with_frame_selection(tiny.qwen2_5_vl(), NamedFrames(), words_in_prompt="some")
    with pytest.raises(InputError, match="words_in_prompt"):
        select_messages(chat_about(FILM[0]), NamedFrames(), words_in_prompt=True)
