"""What every family of real processors tells its model about frames at irregular times."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version
from PIL import ImageDraw
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from refocus_select.adapters import families, last_selection, with_frame_selection
from refocus_select.adapters.families import FAMILIES, NOT_CHAT, ROUTES, family_of, table
from refocus_select.selectors import UniformSelector
from tests.installed import TRANSFORMERS, needs

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, CHOSEN_TIMES, DURATION, NamedFrames

TENTHS = [f"{t:.1f}" for t in CHOSEN_TIMES]  # 0.1 0.3 3.3 3.4 6.7 7.7
FLOORS = [f"00:{int(t):02d}" for t in CHOSEN_TIMES]
ROUNDED = [f"00:{round(t):02d}" for t in CHOSEN_TIMES]
EMBEDDING_GEMMA_ROUNDS = Version("5.23") <= TRANSFORMERS
SENTENCE = (
    f"The video lasts for {DURATION:.2f} seconds, and 6 frames are selected from it. "
    "These frames are located at 0.10s,0.33s,3.33s,3.37s,6.67s,7.67s.\nWhat is",
)
NUMBERED = "Frame1 is at 0.10s, Frame2 is at 0.33s, Frame3 is at 3.33s, Frame4 is at 3.37s, Frame5 is at 6.67s, "
BY_SENTENCE = (
    *("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_omni_moe", "exaone4_5", "hy_v4_vl", "dots3_note"),
    "hyperclovax_vision_v2",
    *("llava_onevision", "llava_next_video", "video_llava", "perception_lm"),
    *("minicpmv4_6", "minicpmv4_7", "minicpm_ocr"),
)

# For each model type: what stands in the prompt, in this order.
SEEN: dict[str, tuple[str, ...]] = {
    **{m: tuple(f"<{t} seconds>" for t in TENTHS) for m in ("qwen3_vl", "lfm3_vl", "cohere_compass", "cosmos3_edge")},
    **{m: tuple(f"{t} <|image>" for t in FLOORS) for m in ("gemma4", "gemma4_unified")},
    "embedding_gemma2": tuple(f"{t} <|image>" for t in (ROUNDED if EMBEDDING_GEMMA_ROUNDS else FLOORS)),
    "molmo2": tuple(f"{t} <frame_start>" for t in TENTHS),
    "video_llama_3": tuple(f"Time {t}s:" for t in TENTHS),
    "smolvlm": ("six frames from a 0:00:07 [H:MM:SS] video", *[f"Frame from {t}:" for t in FLOORS]),
    "glm4v": tuple(f"<|end_of_image|>{int(t)}<" for t in CHOSEN_TIMES),
    **{m: tuple(f"<|end_of_image|>{t} seconds<" for t in TENTHS) for m in ("glm46v", "glm5_next")},
    "minimax_m3_vl": tuple(f"]<]{t} seconds[>[" for t in TENTHS),
    **{m: tuple(f"Time: {t}s<" for t in TENTHS) for m in ("muse_glimmer", "muse_spark")},
    "kimi_k25": ("00:00:00.100", "00:00:00.333", "00:00:03.333", "00:00:03.367", "00:00:06.66", "00:00:07.66"),
    "nemotron_h_omni": tuple(
        f"sampled at {t:.2f} seconds and frame {2 * k} sampled at {t:.2f} seconds: <img>"
        for k, t in enumerate(CHOSEN_TIMES, 1)
    ),
    "internvl": ("Frame1: <img>", "Frame6: <img>", f"{NUMBERED}Frame6 is at 7.67s.\nWhat is"),
    "ernie4_5_vl_moe": ("<|VIDEO_START|>", "<|VIDEO_END|>What is"),  # the times are drawn, see below
    **dict.fromkeys(BY_SENTENCE, SENTENCE),
}
CHAT_TYPES = sorted(SEEN.keys() & tiny.BUILDERS.keys())
ASK = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


def ask(model_type: str) -> dict[str, Any]:
    """How this model's users call apply_chat_template: MiniMax does not fit frames to its grid by itself."""
    return {**ASK, "processor_kwargs": {"do_resize": True}} if model_type == "minimax_m3_vl" else dict(ASK)


def wrapped(model_type: str, selector: Any = None, **kwargs: Any) -> Any:
    processor = tiny.build(model_type)
    settings = {"num_frames": 6, "temporal_merge": "duplicate", **kwargs}
    return with_frame_selection(processor, selector or NamedFrames(), **settings)


def prompt_of(processor: Any, inputs: Any) -> str:
    return processor.tokenizer.decode(inputs["input_ids"][0])


def same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.mark.parametrize("model_type", CHAT_TYPES)
def test_the_model_is_told_the_true_time_of_every_frame(model_type: str, chat: Any) -> None:
    processor = wrapped(model_type)
    prompt = prompt_of(processor, processor.apply_chat_template(chat, **ask(model_type)))
    assert last_selection(processor).indices.tolist() == list(CHOSEN)
    position = 0
    for words in SEEN[model_type]:
        found = prompt.find(words, position)
        assert found >= 0, f"{words!r} is not in {prompt[position:]!r}"
        position = found + len(words)


@pytest.mark.parametrize(
    ("model_type", "shown"),
    [
        ("qwen3_vl", [f"<{t} seconds>" for t in ("0.2", "3.4", "7.2")]),  # means of the pairs
        ("glm46v", [f"<|end_of_image|>{t} seconds<" for t in ("0.1", "3.3", "6.7")]),  # first frames of the pairs
        ("kimi_k25", ["00:00:00.100", "00:00:03.333", "00:00:06.66"]),  # 6.667 and 7.667 s lie a second apart
    ],
)
def test_frames_within_a_second_share_a_group(model_type: str, shown: list[str], chat: Any, film: str) -> None:
    processor = wrapped(model_type, temporal_merge="auto")
    near = processor.apply_chat_template(chat, **ask(model_type))
    prompt = prompt_of(processor, near)
    positions = [prompt.index(words) for words in shown]
    assert positions == sorted(positions)
    assert last_selection(processor).indices.tolist() == list(CHOSEN)
    processor = wrapped(model_type, temporal_merge="auto", num_frames=3)
    apart = processor.apply_chat_template(chat_about(film, "What is in 1, 5 and 9?"), **ask(model_type))
    assert near["video_grid_thw"].tolist() == apart["video_grid_thw"].tolist()  # six frames at the price of three


@pytest.mark.parametrize("model_type", CHAT_TYPES)
def test_one_step_and_two_steps_give_identical_tensors(model_type: str, chat: Any, film: str) -> None:
    processor = wrapped(model_type)
    one = processor.apply_chat_template(chat, **ask(model_type))
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    more = ask(model_type).get("processor_kwargs", {})
    assert same(one, processor(text=[prompt], videos=[film], return_tensors="pt", **more))

    stranger = wrapped(model_type)  # never rendered this prompt, so it reads the question from the words
    assert same(one, stranger(text=prompt, videos=film, return_tensors="pt", **more))
    assert last_selection(stranger).question == last_selection(processor).question


@pytest.mark.parametrize("model_type", CHAT_TYPES)
def test_uniform_and_selected_runs_differ_only_in_frames_and_times(model_type: str, chat: Any) -> None:
    runs = []
    for selector in (NamedFrames(), UniformSelector()):
        processor = wrapped(model_type, selector)
        inputs = processor.apply_chat_template(chat, **ask(model_type))
        runs.append((prompt_of(processor, inputs), inputs, last_selection(processor)))
    (chosen_prompt, chosen, a), (uniform_prompt, uniform, b) = runs
    assert a.indices.tolist() != b.indices.tolist()
    assert re.sub(r"\d+", "#", chosen_prompt) == re.sub(r"\d+", "#", uniform_prompt)
    of_tokens = {"input_ids", "attention_mask", "mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids"}
    for key in chosen.keys() - of_tokens:
        assert np.shape(chosen[key]) == np.shape(uniform[key]), key
    pixels = next(k for k in chosen if k.startswith("pixel_values"))
    assert not torch.equal(chosen[pixels], uniform[pixels])


@pytest.mark.parametrize("model_type", CHAT_TYPES)
def test_one_frame_is_enough(model_type: str, film: str) -> None:
    processor = wrapped(model_type, num_frames=1)
    inputs = processor.apply_chat_template(chat_about(film, "What is in 5?"), **ask(model_type))
    assert last_selection(processor).timestamps == pytest.approx([3.333])
    if family_of(processor).text:
        assert "3.33s" in prompt_of(processor, inputs)


def test_times_are_drawn_for_ernie(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    stock = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, *a, **k: (drawn.append(text), stock(self, at, text, *a, **k))[1],
    )
    processor = wrapped("ernie4_5_vl_moe")
    processor.apply_chat_template(chat, **ASK)
    assert drawn == [f"time: 00:00:0{t:.2f}" for t in CHOSEN_TIMES for _ in range(2)]


@pytest.mark.parametrize("model_type", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_omni_models_get_the_mean_spacing_of_each_video(model_type: str, film: str) -> None:
    content = [
        {"type": "video", "video": film},
        {"type": "video", "video": film, "video_end": 4.5},
        {"type": "text", "text": "What is in 1, 2, 5 and 6?"},
    ]
    inputs = wrapped(model_type, num_frames=4).apply_chat_template([{"role": "user", "content": content}], **ASK)
    assert inputs["video_second_per_grid"].tolist() == pytest.approx([DURATION / 4, DURATION / 4])


def test_qwen2_5_vl_gets_the_mean_spacing(chat: Any) -> None:
    inputs = wrapped("qwen2_5_vl").apply_chat_template(chat, **ASK)
    assert float(inputs["second_per_grid_ts"][0]) == pytest.approx(DURATION / 6)


def test_instructblipvideo_takes_four_frames_as_images(film: str) -> None:
    processor = wrapped("instructblipvideo", num_frames=4)
    inputs = processor(text="What is in 1, 2, 5 and 6?", images=film, return_tensors="pt")
    assert inputs["pixel_values"].shape[:2] == (1, 4)
    assert "located at 0.10s,0.33s,3.33s,3.37s." in processor.tokenizer.decode(inputs["input_ids"][0])
    both = processor(text=["What is in 1 and 2?", "And 5?"], images=[film, film], padding=True, return_tensors="pt")
    assert both["pixel_values"].shape[:2] == (2, 4)
    assert [last_selection(processor, k).question for k in (0, 1)] == ["What is in 1 and 2?", "And 5?"]
    with pytest.raises(ValueError, match="exactly 4 frames, not 6: use num_frames=4"):
        wrapped("instructblipvideo")


@pytest.mark.parametrize("model_type", [t for t in CHAT_TYPES if family_of(t).equal_frames])
def test_videos_of_unequal_length_go_into_one_batch(model_type: str, film: str, tmp_path: Path) -> None:
    from .film import write_film

    short = str(write_film(tmp_path / "short.mp4", times=(0.0, 0.5, 1.5)))
    processor = wrapped(model_type)
    inputs = processor.apply_chat_template(
        [chat_about(film), chat_about(short)], **ASK, processor_kwargs={"padding": True}
    )
    assert len(inputs["input_ids"]) == 2
    assert len(last_selection(processor, 0)) == 6
    assert len(last_selection(processor, 1)) == 3


def test_every_video_type_of_transformers_is_in_the_table() -> None:
    known = {t for f in FAMILIES for t in f.model_types}
    mapped = set(VIDEO_PROCESSOR_MAPPING_NAMES)
    assert mapped - known - set(NOT_CHAT) == set(), "new model types: add them to families.py"
    assert not known & set(NOT_CHAT)
    for family in FAMILIES:
        assert family.route in ROUTES
        expected = {PROCESSOR_MAPPING_NAMES[t] for t in family.model_types if t in PROCESSOR_MAPPING_NAMES}
        assert set(family.processors) >= expected, family.name


def test_every_family_with_a_processor_is_proved_here() -> None:
    proved = {family_of(tiny.BUILDERS[t]()).name for t in [*CHAT_TYPES, "instructblipvideo"]}
    here = {f.name for f in FAMILIES if f.processors and set(f.model_types) & set(PROCESSOR_MAPPING_NAMES)}
    assert proved == here
    if Version("5.24") <= TRANSFORMERS:
        assert here == {f.name for f in FAMILIES if f.processors}


def test_an_unknown_type_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    assert family_of("a_model_of_tomorrow").text
    assert family_of("a_model_of_tomorrow").name == "unknown"
    assert [r.message for r in caplog.records].count(caplog.records[0].message) == 1
    assert "a_model_of_tomorrow" in caplog.records[0].message


@pytest.mark.parametrize("model_type", CHAT_TYPES)
def test_a_processor_of_tomorrow_is_told_the_times_as_text(
    model_type: str, chat: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every real processor as if it were not in the table."""
    old = model_type == "nemotron_h_omni" and Version("5.21") > TRANSFORMERS
    needs(not old, "takes one object as metadata for Nemotron, which a processor of tomorrow is not given")
    monkeypatch.setattr(families, "_BY_PROCESSOR", {})
    monkeypatch.setattr(families, "_warned", set())
    processor = wrapped(model_type)
    prompt = prompt_of(processor, processor.apply_chat_template(chat, **ask(model_type)))
    assert SENTENCE[0] in prompt
    (record,) = [r for r in caplog.records if "table of video families" in r.getMessage()]
    assert type(tiny.build(model_type)).__name__ in record.getMessage()


def test_the_module_prints_the_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refocus_select.adapters.families"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == table()
    assert len(done.stdout.strip().splitlines()) == 2 + len(FAMILIES)


def test_the_table_in_the_documentation_is_the_one_of_the_code() -> None:
    readme = Path(__file__).parents[2] / "adapters" / "README.md"
    assert table() in readme.read_text("utf-8")
