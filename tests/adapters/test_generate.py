"""Tiny random models answer about selected frames: what the wrapper gives is what `generate` takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from refocus_select.adapters import last_selection, last_selections, qwen2_5_vl_position_ids, with_frame_selection
from refocus_select.errors import InputError
from tests.installed import VERSION_5, needs

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, NamedFrames
from .models import MODELS, build
from .test_families import ASK


def wrapped(model_type: str, **kwargs: Any) -> Any:
    return with_frame_selection(tiny.build(model_type), NamedFrames(), **{"num_frames": 6, **kwargs})


@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_generate(model_type: str, film: str) -> None:
    processor = wrapped(model_type)
    model = build(model_type, processor)
    answers = {}
    for question in ("What is in 1, 2, 5, 6, 9, 11?", "What is in 0, 2, 3, 4, 5, 10?"):
        inputs = processor.apply_chat_template(chat_about(film, question), **ASK)
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert output.shape[1] == inputs["input_ids"].shape[1] + 3
        answers[question] = logits
    first, second = answers.values()
    assert torch.isfinite(first).all()
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_generate_with_one_video_per_moment(model_type: str, film: str) -> None:
    processor = wrapped(model_type, timestamps="interleave")
    model = build(model_type, processor)
    inputs = processor.apply_chat_template(chat_about(film), **ASK)
    output = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 2
    prompt = processor.tokenizer.decode(inputs["input_ids"][0])
    for seconds in ("<0.1 seconds>", "<3.4 seconds>", "<7.7 seconds>"):
        assert seconds in prompt


def test_generate_for_a_batch(film: str) -> None:
    processor = wrapped("qwen3_vl")
    processor.tokenizer.padding_side = "left"
    model = build("qwen3_vl", processor)
    chats = [chat_about(film), chat_about(film, "What about 3 and 4, and the others?")]
    inputs = processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True})
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 2


@pytest.mark.parametrize("task", ["any-to-any", "image-text-to-text"])
def test_pipelines(task: str, film: str) -> None:
    needs(task in PIPELINE_REGISTRY.get_supported_tasks(), f"has no pipeline {task}")
    processor = wrapped("qwen3_vl")
    pipe = pipeline(task, model=build("qwen3_vl", processor), processor=processor)
    (answer,) = [pipe(text=chat_about(film), max_new_tokens=2, return_full_text=False)]
    assert answer[0]["generated_text"] is not None
    assert last_selection(processor).indices.tolist() == list(CHOSEN)

    processor.tokenizer.padding_side = "left"
    chats = [chat_about(film, "1 2 3 4 5 6"), chat_about(film, "5 6 7 8 9 10")]
    answers = pipe(text=chats, max_new_tokens=2, batch_size=2, return_full_text=False)
    assert len(answers) == 2


# -- exact positions for Qwen2.5-VL -------------------------------------------------------------------


def temporal_positions(processor: Any, inputs: Any, position_ids: torch.Tensor) -> list[int]:
    video = inputs["input_ids"][0] == processor.video_token_id
    positions = position_ids[1, 0][video].tolist()
    return sorted({p - positions[0] for p in positions})


def stock_positions(model: Any, inputs: Any) -> torch.Tensor:
    """Positions of one prompt as `generate` makes them."""
    ids = inputs["input_ids"]
    if VERSION_5:
        return model._prepare_position_ids_for_generation(ids, dict(inputs))
    names = ("video_grid_thw", "second_per_grid_ts", "attention_mask")
    vision, _ = model.model.get_rope_index(ids, **{name: inputs[name] for name in names})
    return torch.cat([torch.arange(ids.shape[1])[None, None], vision])


def test_exact_positions_stand_at_the_true_times(film: str) -> None:
    processor = wrapped("qwen2_5_vl", temporal_merge="duplicate")
    model = build("qwen2_5_vl", processor)
    inputs = processor.apply_chat_template(chat_about(film), **ASK)
    exact = qwen2_5_vl_position_ids(model, inputs, last_selections(processor), temporal_merge="duplicate")
    # 2 positions per second, from 0.1 s on: 0.333, 3.333, 3.367, 6.667 and 7.667 s
    assert temporal_positions(processor, inputs, exact) == [0, 6, 13, 15]
    stock = stock_positions(model, inputs)
    cut = [0, 2, 4, 6, 8, 10]  # transformers 4 takes whole seconds of the mean spacing
    assert temporal_positions(processor, inputs, stock) == ([0, 2, 5, 7, 10, 12] if VERSION_5 else cut)
    text = inputs["input_ids"][0] != processor.video_token_id
    assert torch.equal(exact[:, :, text], stock[:, :, text])
    assert torch.equal(exact[2:], stock[2:])

    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits[0, -1], model(**inputs, position_ids=exact).logits[0, -1])
    needs(VERSION_5, "does not generate from given positions")
    output = model.generate(**inputs, position_ids=exact, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3


def test_exact_positions_of_pairs_and_of_padded_batches(film: str) -> None:
    processor = wrapped("qwen2_5_vl", temporal_merge="ignore")
    processor.tokenizer.padding_side = "left"
    model = build("qwen2_5_vl", processor)
    chats = [chat_about(film), chat_about(film, "What is in 0, 3, 4, 7, 8 and 10, and is it longer?")]
    inputs = processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True})
    exact = qwen2_5_vl_position_ids(model, inputs, last_selections(processor), temporal_merge="ignore")
    assert exact.shape == (4, 2, inputs["input_ids"].shape[1])
    # grids of two frames: means 0.2165, 3.35 and 7.167 s
    assert temporal_positions(processor, inputs, exact) == [0, 6, 13]
    needs(VERSION_5, "does not generate from given positions")
    assert model.generate(**inputs, position_ids=exact, max_new_tokens=2, do_sample=False).shape[0] == 2


def test_exact_positions_of_frames_within_a_second(film: str) -> None:
    processor = wrapped("qwen2_5_vl")
    model = build("qwen2_5_vl", processor)
    inputs = processor.apply_chat_template(chat_about(film, "What is in 1, 2, 5, 6 and 10?"), **ASK)
    exact = qwen2_5_vl_position_ids(model, inputs, last_selections(processor))
    assert temporal_positions(processor, inputs, exact) == [0, 6, 13]  # 0.2165, 3.35, and 7 s alone


def test_exact_positions_want_the_selections_of_these_inputs(film: str) -> None:
    processor = wrapped("qwen2_5_vl")
    model = build("qwen2_5_vl", processor)
    inputs = processor.apply_chat_template(chat_about(film), **ASK)
    selection = last_selection(processor)
    with pytest.raises(InputError, match="1 videos, but there are 2 selections"):
        qwen2_5_vl_position_ids(model, inputs, [selection, selection])
    processor.apply_chat_template(chat_about(film), **ASK, processor_kwargs={"num_frames": 2})
    with pytest.raises(
        InputError, match=r"2 frames were selected and make 1 groups with .*'near', but the inputs hold 3"
    ):
        qwen2_5_vl_position_ids(model, inputs, last_selection(processor))
