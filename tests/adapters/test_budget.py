"""Token budgets: what real processors make of the frames stays within them and uses them up."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refocus_select.adapters import (
    last_selection,
    last_selections,
    openai,
    qwen_vl_utils,
    select_messages,
    sglang,
    tokens,
    tokens_per_frame,
    vllm,
    with_frame_selection,
)
from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError
from refocus_select.video import open_video

from . import full_size, tiny
from .conftest import chat_about
from .film import NamedFrames
from .test_families import ASK, ask

QUESTION = "What happens here?"


def prompt_tokens(processor: Any, content: list[dict[str, Any]]) -> int:
    """Tokens of a chat without videos."""
    text = [{"role": "user", "content": [b for b in content if b["type"] != "video"]}]
    prompt = type(processor).apply_chat_template(processor, text, tokenize=False, add_generation_prompt=True)
    return len(processor.tokenizer(prompt)["input_ids"])


def spent(processor: Any, inputs: Any, content: list[dict[str, Any]], row: int = 0) -> int:
    """Tokens that the videos of a chat added."""
    whole = int(inputs["attention_mask"][row].sum()) if "attention_mask" in inputs else len(inputs["input_ids"][row])
    return whole - prompt_tokens(processor, content)


@pytest.fixture(scope="module")
def videos() -> list[Any]:
    rng = np.random.default_rng(7)
    return [full_size.random_video(rng, longest=300.0, lines=480) for _ in range(3)]


@pytest.mark.parametrize("model_type", full_size.FAMILIES)
def test_the_budget_is_kept_and_used(model_type: str, videos: list[Any]) -> None:
    rng = np.random.default_rng(len(model_type))
    stock = full_size.processor(model_type)
    for number, video in enumerate(videos[:2]):
        tokens_allowed = int(rng.integers(2100, 3000))
        of = ("video", "prompt")[number % 2]
        processor = with_frame_selection(stock, "uniform", token_budget=TokenBudget(tokens_allowed, of=of))
        content = chat_about(video, QUESTION)[0]["content"]
        inputs = processor.apply_chat_template([{"role": "user", "content": content}], **ask(model_type))
        plan = last_selection(processor).plan
        added = spent(processor, inputs, content)
        measured = added if of == "video" else len(inputs["input_ids"][0])
        assert 0.85 * tokens_allowed < measured <= tokens_allowed
        assert 0 <= plan.tokens - added <= 2 + (model_type == "video_llama_3") * 0.1 * plan.tokens
        assert plan.num_frames == len(last_selection(processor))


def test_tokens_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = full_size.processor("qwen2_5_vl")
    large, small = (tokens_per_frame(processor, (side, side), timestamps="metadata") for side in (448, 336))
    assert (large.per_group, large.group, large.per_frame) == (256, 2, 128)  # 16 x 16 patches of 28 pixels
    assert small.per_group == 144
    assert large.fixed == 2  # where the vision begins and ends
    assert large.of(3) == 2 + 2 * 256
    assert tokens_per_frame(processor, (448, 448)).per_group > 256  # the time of each frame in words
    fixed = full_size.processor("internvl")
    assert tokens_per_frame(fixed, (448, 448)).per_frame == tokens_per_frame(fixed, (90, 200)).per_frame

    monkeypatch.setattr(tokens.Meter, "count", None)  # the same once more is not measured
    assert tokens_per_frame(full_size.processor("qwen2_5_vl"), (448, 448), timestamps="metadata") == large
    other = full_size.processor("qwen2_5_vl")
    other.video_processor.size = {"shortest_edge": 784, "longest_edge": 100 * 784}
    with pytest.raises(TypeError):
        tokens_per_frame(other, (448, 448), timestamps="metadata")


def test_measurements_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tokens_per_frame(full_size.processor("qwen3_vl"), (320, 320), cache=tmp_path)
    (file,) = (tmp_path / "tokens").iterdir()
    assert json.loads(file.read_text())["1 of 320x320 until 999.9"] == found.of(1)
    monkeypatch.setattr(tokens, "_measured", {})
    monkeypatch.setattr(tokens.Meter, "count", None)
    assert tokens_per_frame(full_size.processor("qwen3_vl"), (320, 320), cache=tmp_path) == found
    file.write_text("{")
    monkeypatch.undo()
    monkeypatch.setattr(tokens, "_measured", {})
    assert tokens_per_frame(full_size.processor("qwen3_vl"), (320, 320), cache=tmp_path) == found


def test_more_tokens_make_frames_more_and_larger(videos: list[Any]) -> None:
    stock, plans = full_size.processor("qwen2_5_vl"), []
    for budget in (500, 2000, 8000):
        processor = with_frame_selection(stock, "uniform", token_budget=TokenBudget(budget, max_frames=16))
        processor.apply_chat_template(chat_about(videos[0], QUESTION), **ASK)
        plans.append(last_selection(processor).plan)
    assert plans[0].num_frames < plans[1].num_frames < plans[2].num_frames == 16
    areas = [p.sizes[0][0] * p.sizes[0][1] for p in plans]
    assert areas[1] < areas[2]
    written = with_frame_selection(stock, "uniform", token_budget=2000)
    written.apply_chat_template(chat_about(videos[0], "What is written on the sign?"), **ASK)
    assert last_selection(written).plan.num_frames < plans[1].num_frames
    assert last_selection(written).plan.sizes[0] > plans[1].sizes[0]


def test_a_number_of_frames_with_a_budget_leaves_the_size(videos: list[Any]) -> None:
    processor = with_frame_selection(full_size.processor("qwen3_vl"), "uniform", num_frames=5, token_budget=1200)
    processor.apply_chat_template(chat_about(videos[0], QUESTION), **ASK)
    assert len(last_selection(processor)) == 5
    assert 1020 < last_selection(processor).plan.tokens <= 1200
    processor.apply_chat_template(chat_about(videos[0], QUESTION), **ASK, processor_kwargs={"num_frames": 3})
    assert len(last_selection(processor)) == 3
    processor.apply_chat_template(chat_about(videos[0], QUESTION), **ASK, processor_kwargs={"num_frames": "auto"})
    assert last_selection(processor).plan.num_frames == last_selection(processor).plan.needed
    with pytest.raises(InputError, match='"auto" needs a token_budget'):
        with_frame_selection(full_size.processor("qwen3_vl"), "uniform", num_frames="auto")


def test_frames_have_the_size_of_the_plan(film: str) -> None:
    budget = {"model": tiny.qwen2_5_vl(), "token_budget": TokenBudget(125, min_side=28)}
    messages, _ = select_messages(chat_about(film, "1, 5 and 9"), NamedFrames(), num_frames=3, **budget)
    assert messages[0]["content"][0]["video"].shape == (6, 28, 28, 3)
    pictures = [Image.new("RGB", (112, 84), (k, k, k)) for k in range(6)]
    arrays = [np.asarray(p) for p in pictures]
    for held in (pictures, arrays, torch.from_numpy(np.stack(arrays))):
        content = [{"type": "video", "video": held, "fps": 0.5}, {"type": "text", "text": "1 3"}]
        chosen = select_messages([{"role": "user", "content": content}], NamedFrames(), num_frames=2, **budget)
        frames = chosen[0][0]["content"][0]["video"]
        assert type(frames) is type(held)
        size = frames[0].size[::-1] if isinstance(frames[0], Image.Image) else tuple(frames[0].shape[:2])
        assert size == chosen.selections[0].plan.sizes[0]
        assert size != (84, 112)


def test_pictures_in_turn_have_sizes_of_their_own(videos: list[Any]) -> None:
    stock = full_size.processor("qwen2_5_vl")
    stock.video_processor.size = {"shortest_edge": 4 * 784, "longest_edge": 768 * 784}  # small ones stay small
    processor = with_frame_selection(stock, "uniform", timestamps="interleave", token_budget=3000)
    content = chat_about(videos[0], QUESTION)[0]["content"]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **ASK)
    plan = last_selection(processor).plan
    assert len(plan.sizes) == plan.num_frames > plan.needed
    large, small = max(plan.sizes), min(plan.sizes)
    assert plan.sizes.count(large) == plan.needed
    assert small[0] <= large[0] / 2 + 14
    grids = inputs["video_grid_thw"].tolist()
    assert [(14 * h, 14 * w) for _, h, w in grids] == list(plan.sizes)
    assert 0.85 * 3000 < spent(processor, inputs, content) == plan.tokens


def test_pictures_for_a_server(videos: list[Any]) -> None:
    stock = full_size.processor("qwen2_5_vl")
    chat = chat_about(videos[0], QUESTION)
    messages = openai.image_messages(chat, "uniform", token_budget=3000, model=stock)
    blocks = messages[0]["content"]
    opened = [
        {"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(b["image_url"]["url"].split(",")[1])))}
        if b["type"] == "image_url"
        else b
        for b in blocks
    ]
    inputs = stock.apply_chat_template([{"role": "user", "content": opened}], **ASK)
    added = len(inputs["input_ids"][0]) - prompt_tokens(stock, [blocks[-1]])
    assert 0.85 * 3000 < added <= 3000
    assert len({b["image"].size for b in opened if b["type"] == "image"}) == 2
    engine = sglang.engine_inputs(chat, stock, "uniform", token_budget=3000)
    assert len(engine["image_data"]) == len([b for b in blocks if b["type"] == "image_url"])
    with pytest.raises(InputError, match=r"give model=AutoProcessor\.from_pretrained"):
        openai.image_messages(chat, "uniform", token_budget=3000)


def test_engines_and_utilities_keep_the_budget(videos: list[Any]) -> None:
    stock = full_size.processor("qwen3_vl")
    chat = chat_about(videos[2], QUESTION)
    content = chat[0]["content"]
    inputs = vllm.generate_inputs(chat, stock, "uniform", token_budget=2000)
    ((frames, metadata),) = inputs["multi_modal_data"]["video"]
    sent = {k: v for k, v in metadata.items() if k != "do_sample_frames"}
    read = stock(
        text=[inputs["prompt"]], videos=[frames], video_metadata=[sent], do_sample_frames=False, return_tensors="pt"
    )
    assert 1700 < spent(stock, read, content) <= 2000

    info = qwen_vl_utils.select_vision_info(chat, "uniform", model=stock, token_budget=2000)
    text = stock.apply_chat_template(info.messages, tokenize=False, add_generation_prompt=True)
    read = stock(text=[text], return_tensors="pt", **info.kwargs)
    assert spent(stock, read, content) == info.selections[0].plan.tokens
    assert 1700 < info.selections[0].plan.tokens <= 2000

    _, extra = openai.video_request(chat, "uniform", model=stock, token_budget=2000)
    assert len(extra["media_io_kwargs"]["video"]["frames_indices"]) == len(frames)
    with pytest.raises(InputError, match="tokens are measured with the model's processor"):
        openai.video_request(chat, "uniform", model="qwen3_vl", token_budget=2000)


def test_videos_of_a_chat_share_the_budget(videos: list[Any]) -> None:
    content = [{"type": "video", "video": v} for v in videos] + [{"type": "text", "text": QUESTION}]
    processor = with_frame_selection(full_size.processor("qwen2_5_vl"), "uniform", token_budget=3000)
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **ASK)
    plans = [s.plan for s in last_selections(processor)]
    assert sum(p.tokens for p in plans) == spent(processor, inputs, content)
    assert 2550 < sum(p.tokens for p in plans) <= 3000
    assert min(p.tokens for p in plans) > 700  # nothing tells these videos apart


def test_the_relevant_video_gets_the_larger_share() -> None:
    blue, red = ([np.full((224, 224, 3), c, np.uint8)] * 40 for c in ((20, 20, 200), (200, 20, 20)))
    half = [*blue[:20], *red[:20]]
    content = [{"type": "video", "video": open_video(f, fps=1.0)} for f in (blue, half)] + [
        {"type": "text", "text": "Show me the red card."}
    ]
    processor = with_frame_selection(full_size.processor("qwen2_5_vl"), "topk", token_budget=2000)
    processor.apply_chat_template([{"role": "user", "content": content}], **ASK)
    first, second = last_selections(processor)
    assert second.plan.budget > 1.5 * first.plan.budget


def test_every_conversation_of_a_batch_has_the_budget(videos: list[Any]) -> None:
    chats = [chat_about(v, QUESTION) for v in videos[:2]]
    for model_type in ("qwen2_5_vl", "llava_onevision"):  # the second takes one number of frames only
        processor = with_frame_selection(full_size.processor(model_type), "uniform", token_budget=2500)
        inputs = processor.apply_chat_template(chats, **ASK, processor_kwargs={"padding": True})
        for row, chat in enumerate(chats):
            assert spent(processor, inputs, chat[0]["content"], row) <= 2500
        counts = [len(s) for s in last_selections(processor)]
        assert model_type == "qwen2_5_vl" or counts[0] == counts[1]


def test_what_a_processor_itself_limits_is_not_fought(videos: list[Any]) -> None:
    stock = full_size.processor("qwen3_vl")
    stock.video_processor.size = {"shortest_edge": 4096, "longest_edge": 640 * 32 * 32}  # at most 320 tokens of pixels
    processor = with_frame_selection(stock, "uniform", token_budget=4000)
    processor.apply_chat_template(chat_about(videos[1], QUESTION), **ASK)
    plan = last_selection(processor).plan
    assert plan.tokens < 1000
    assert plan.num_frames <= 4 * plan.needed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (0, "token_budget must be a whole number of at least 1, not 0"),
        ("many", "token_budget must be a whole number"),
        (
            30,
            r"30 tokens are below one frame: one frame of 224 x \d+ pixels cost \d+ .* \(now 30\), or lower min_side",
        ),
    ],
)
def test_budgets_that_cannot_be(settings: Any, message: str, videos: list[Any]) -> None:
    tall = open_video([np.zeros((300, 200, 3), np.uint8)] * 30, fps=1.0)
    with pytest.raises(InputError, match=message):
        with_frame_selection(tiny.qwen2_5_vl(), "uniform", token_budget=settings).apply_chat_template(
            chat_about(tall, QUESTION), **ASK
        )


def test_limits_that_contradict_each_other() -> None:
    for wrong, message in (
        ({"min_frames": 9, "max_frames": 4}, "min_frames=9 of the token budget is above max_frames=4"),
        ({"min_side": 500, "max_side": 300}, "min_side=500 of the token budget is above max_side=300"),
        ({"of": "all"}, "budget_of must be one of video, prompt"),
        ({"prefer": "both"}, "prefer must be one of auto, frames, size"),
        ({"max_side": 0}, "max_side of the token budget must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            TokenBudget(1000, **wrong)


def test_a_prompt_that_is_too_long_already(videos: list[Any]) -> None:
    processor = with_frame_selection(
        full_size.processor("qwen2_5_vl"), "uniform", token_budget=TokenBudget(300, of="prompt")
    )
    with pytest.raises(InputError, match=r"token_budget=300 is used up by the \d+ tokens of the prompt"):
        processor.apply_chat_template(chat_about(videos[0], "Why? " * 100), **ASK)


def test_a_processor_that_refuses_sizes(videos: list[Any]) -> None:
    processor = with_frame_selection(full_size.processor("minimax_m3_vl"), "uniform", token_budget=2000)
    processor.video_processor.do_resize = False
    processor.video_processor.merge_size = 2.0  # does not tell its grid, so frames have sizes that it refuses
    with pytest.raises(InputError, match=r"does not take .* frames of .* pixels .*min_side and max_side"):
        processor.apply_chat_template(chat_about(videos[0], QUESTION), **ASK)


def test_arguments_of_a_command_line() -> None:
    from refocus_select.adapters.lmms_eval import _amount

    assert _amount(None, None, "video", {}) == (32, None)
    assert _amount("16", None, "video", {}) == (16, None)
    assert _amount(None, "8000", "prompt", {"max_side": "512"}) == (None, TokenBudget(8000, of="prompt", max_side=512))
    with pytest.raises(InputError, match="max_side: only with token_budget"):
        _amount(None, None, "video", {"max_side": "512"})
    with pytest.raises(InputError, match="must be whole numbers"):
        _amount(None, "many", "video", {})
