"""Qwen's utilities, LLaVA-Video, OpenAI-style requests, vLLM and SGLang."""

from __future__ import annotations

import base64
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor

from refocus_select.adapters import openai, qwen_vl_utils, sglang, vllm
from refocus_select.adapters.llava_video import llava_video_inputs
from refocus_select.errors import InputError, MissingDependencyError, VideoOpenError

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, CHOSEN_TIMES, DURATION, QUESTION, NamedFrames, greys
from .models import build
from .test_families import prompt_of

MILLISECONDS = [round(1000 * t) for t in CHOSEN_TIMES]


# -- qwen-vl-utils ------------------------------------------------------------------------------------


def test_process_vision_info_states_true_times(film: str) -> None:
    processor = tiny.qwen3_vl()
    chat = chat_about(film)
    text = processor.apply_chat_template(chat, tokenize=False)
    images, videos, kwargs = qwen_vl_utils.process_vision_info(
        chat,
        NamedFrames(),
        num_frames=6,
        image_patch_size=16,
        return_video_kwargs=True,
        return_video_metadata=True,
    )
    assert images is None
    frames, metadata = zip(*videos, strict=True)
    inputs = processor(
        text=[text], videos=list(frames), video_metadata=list(metadata), do_resize=False, return_tensors="pt", **kwargs
    )
    prompt = prompt_of(processor, inputs)
    position = 0
    for t in CHOSEN_TIMES:
        position = prompt.index(f"<{t:.1f} seconds>", position) + 1
    assert greys(frames[0][::2].permute(0, 2, 3, 1).numpy()) == list(CHOSEN)


def test_an_odd_number_of_frames_keeps_metadata_and_frames_together(film: str) -> None:
    chat = chat_about(film, "1, 5 and 9")
    _, videos = qwen_vl_utils.process_vision_info(
        chat, NamedFrames(), num_frames=3, image_patch_size=16, return_video_metadata=True, temporal_merge="ignore"
    )
    ((frames, metadata),) = videos
    assert len(frames) == 4
    assert metadata["frames_indices"] == [100, 3333, 6667, 6667]


def test_qwen2_5_vl_with_its_utilities(film: str) -> None:
    processor = tiny.qwen2_5_vl()
    image = Image.new("RGB", (56, 56))
    chat = chat_about(film)
    chat[0]["content"].insert(0, {"type": "image", "image": image})
    chat[0]["content"][1].update(resized_height=112, resized_width=84)
    info = qwen_vl_utils.select_vision_info(chat, NamedFrames(), num_frames=6, model=processor)
    text = processor.apply_chat_template(info.messages, tokenize=False)
    inputs = processor(text=[text], return_tensors="pt", **info.kwargs)
    assert "located at 0.10s,0.33s,3.33s,3.37s,6.67s,7.67s." in prompt_of(processor, inputs)
    assert info.videos is not None
    assert info.videos[0].shape == (12, 3, 112, 84)
    assert len(info.images or []) == 1
    assert info.selections[0].indices.tolist() == list(CHOSEN)
    model = build("qwen2_5_vl", processor)
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] == inputs["input_ids"].shape[1] + 2


def test_qwen_vl_utils_missing(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qwen_vl_utils", None)
    with pytest.raises(MissingDependencyError, match="pip install qwen-vl-utils"):
        qwen_vl_utils.process_vision_info(chat_about(film), NamedFrames())


# -- LLaVA-Video --------------------------------------------------------------------------------------


def test_llava_video_inputs(film: str) -> None:
    processor = SiglipImageProcessor(size={"height": 28, "width": 28})
    inputs = llava_video_inputs(film, QUESTION, processor, NamedFrames(), num_frames=6, prompt="A or B?")
    assert inputs.video.shape == (6, 3, 28, 28)
    assert greys((inputs.video.permute(0, 2, 3, 1).numpy() * 0.5 + 0.5) * 255) == list(CHOSEN)
    assert inputs.frame_time == "0.10s,0.33s,3.33s,3.37s,6.67s,7.67s"
    assert inputs.video_time == pytest.approx(DURATION)
    assert inputs.prompt == (
        "<image>\nThe video lasts for 7.67 seconds, and 6 frames are selected from it. These frames are located at "
        "0.10s,0.33s,3.33s,3.37s,6.67s,7.67s.Please answer the following questions related to this video.\nA or B?"
    )
    trained = llava_video_inputs(film, QUESTION, processor, NamedFrames(), num_frames=6, wording="training")
    assert "6 frames are uniformly sampled from it" in trained.instruction
    assert trained.prompt.endswith(QUESTION)
    with pytest.raises(InputError, match="wording must be one of"):
        llava_video_inputs(film, QUESTION, processor, NamedFrames(), wording="any")


# -- OpenAI style -------------------------------------------------------------------------------------


def picture_of(url: str) -> np.ndarray:
    kind, data = url.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_times_and_pictures_for_any_server(film: str) -> None:
    chat = [{"role": "system", "content": "Be brief."}, *chat_about(film)]
    chat[1]["content"].insert(0, {"type": "image", "image": "https://example.org/a.jpg"})
    messages = openai.image_messages(chat, NamedFrames(), num_frames=6, max_side=32, detail="low")
    json.dumps(messages)
    assert messages[0] == chat[0]
    web, *parts, question = messages[1]["content"]
    assert web == {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}}
    assert question == {"type": "text", "text": QUESTION}
    assert [p["text"] for p in parts[::2]] == [f"<{t:.1f} seconds>" for t in CHOSEN_TIMES]
    pictures = [picture_of(p["image_url"]["url"]) for p in parts[1::2]]
    assert {p["image_url"]["detail"] for p in parts[1::2]} == {"low"}
    assert [p.shape for p in pictures] == [(32, 32, 3)] * 6
    assert greys(np.stack(pictures)) == list(CHOSEN)


def test_local_pictures_are_sent_along(film: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "red.png")
    chat = chat_about(film)
    chat[0]["content"].append({"type": "image", "path": str(tmp_path / "red.png")})
    last = openai.image_messages(chat, NamedFrames(), num_frames=1)[0]["content"][-1]
    assert picture_of(last["image_url"]["url"])[0, 0, 0] > 150
    chat[0]["content"][-1] = {"type": "image", "path": "gone.png"}
    with pytest.raises(InputError, match=r"the picture gone\.png cannot be read"):
        openai.image_messages(chat, NamedFrames(), num_frames=1)


def test_a_jpeg_sequence_with_metadata_for_vllm(film: str) -> None:
    messages, extra = openai.video_request(chat_about(film), NamedFrames(), num_frames=6)
    json.dumps([messages, extra])
    kind, *pictures = messages[0]["content"][0]["video_url"]["url"].split(",")
    assert kind == "data:video/jpeg;base64"
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p)))) for p in pictures]
    assert greys(np.stack(decoded)) == list(CHOSEN)
    video = extra["media_io_kwargs"]["video"]
    assert video["num_frames"] == -1
    assert video["frames_indices"] == MILLISECONDS
    assert video["fps"] == 1000.0
    assert isinstance(video["total_num_frames"], int)
    assert video["total_num_frames"] > max(MILLISECONDS)

    _, doubled = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model="qwen3_vl")
    assert doubled["media_io_kwargs"]["video"]["frames_indices"] == [ms for ms in MILLISECONDS for _ in range(2)]
    told, _ = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model="internvl")
    assert "Frame1 is at 0.10s" in told[0]["content"][1]["text"]

    two = chat_about(film)
    two[0]["content"].append({"type": "video", "video": film})
    with pytest.raises(InputError, match="one video per request, or use image_messages"):
        openai.video_request(two, NamedFrames())


# -- vLLM ---------------------------------------------------------------------------------------------


def test_inputs_of_the_offline_engine(film: str) -> None:
    processor = tiny.qwen3_vl()
    chat = chat_about(film)
    image = Image.new("RGB", (8, 8))
    chat[0]["content"].insert(0, {"type": "image", "image": image})
    inputs = vllm.generate_inputs(chat, processor, NamedFrames(), num_frames=6)
    assert inputs["prompt"].count("<|video_pad|>") == 1
    assert inputs["prompt"].endswith("<|im_start|>assistant\n")
    assert inputs["multi_modal_data"]["image"] == [image]
    ((frames, metadata),) = inputs["multi_modal_data"]["video"]
    assert greys(frames) == [i for i in CHOSEN for _ in range(2)]
    assert metadata["do_sample_frames"] is False
    assert metadata["fps"] == 1000.0
    assert metadata["frames_indices"] == [ms for ms in MILLISECONDS for _ in range(2)]
    text = vllm.generate_inputs([{"role": "user", "content": "Hello"}], processor, NamedFrames())
    assert set(text) == {"prompt"}


class Registry:
    """The part of vLLM's registry of video loaders that plugins use."""

    def __init__(self) -> None:
        self.name2class: dict[str, type] = {}

    def register(self, name: str, **kwargs: Any) -> Any:
        return lambda cls: self.name2class.setdefault(name, cls)


def test_the_plugin_registers_a_loader(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("vllm.multimodal.video")
    module.VIDEO_LOADER_REGISTRY = Registry()  # type: ignore[attr-defined]
    module.VideoLoader = object  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.multimodal"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.multimodal.video", module)
    vllm.register()
    vllm.register()
    loader = module.VIDEO_LOADER_REGISTRY.name2class["refocus_select"]  # type: ignore[attr-defined]
    frames, metadata = loader.load_bytes(Path(film).read_bytes(), num_frames=3, fps=2, max_duration=300)
    assert len(frames) == 3
    assert metadata["fps"] == 1000.0
    assert metadata["do_sample_frames"] is False


def test_the_loader_heeds_the_question(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "_selector", lambda name, encoder: {"mini-policy": NamedFrames()}[name])
    data = Path(film).read_bytes()
    frames, metadata = vllm.load_video(data, 6, query=QUESTION)
    assert greys(frames) == list(CHOSEN)
    assert metadata["frames_indices"] == MILLISECONDS
    doubled, _ = vllm.load_video(data, 6, query=QUESTION, model="qwen3_vl")
    assert len(doubled) == 12
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        vllm.load_video(data, 0, query=QUESTION)
    with pytest.raises(VideoOpenError):
        vllm.load_video(b"no video", 3, query=QUESTION)


def test_the_entry_points_are_declared() -> None:
    from importlib.metadata import entry_points

    for group, name in (("vllm.general_plugins", "register"), ("lmms_eval.models", "manifests")):
        (entry,) = entry_points(group=group, name="refocus_select")
        assert callable(entry.load())
        assert entry.attr == name


# -- SGLang -------------------------------------------------------------------------------------------


def test_inputs_of_sglang(film: str) -> None:
    processor = tiny.qwen3_vl()
    chat = chat_about(film)
    chat[0]["content"].insert(0, {"type": "image", "path": "cat.png"})
    inputs = sglang.engine_inputs(chat, processor, NamedFrames(), num_frames=6)
    assert inputs["prompt"].count("<|image_pad|>") == 7
    assert inputs["prompt"].count("<|video_pad|>") == 0
    assert inputs["prompt"].index("<0.1 seconds>") < inputs["prompt"].index("<7.7 seconds>")
    assert inputs["image_data"][0] == "cat.png"
    assert greys(np.stack([picture_of(u) for u in inputs["image_data"][1:]])) == list(CHOSEN)
    assert sglang.chat_messages is openai.image_messages


def test_torch_tensors_become_pictures_too() -> None:
    url = openai.jpeg_url(torch.full((3, 8, 8), 0.5), None, 90)
    assert picture_of(url).mean() == pytest.approx(128, abs=2)
