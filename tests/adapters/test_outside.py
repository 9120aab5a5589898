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

from refocus_select.adapters import engines, openai, qwen_vl_utils, sglang, vllm
from refocus_select.adapters.families import FAMILIES
from refocus_select.adapters.llava_video import llava_video_inputs
from refocus_select.errors import InputError, MissingDependencyError, VideoOpenError

from . import tiny
from .conftest import chat_about
from .film import CHOSEN, CHOSEN_TIMES, DURATION, QUESTION, NamedFrames, greys, picture, write_film
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
        temporal_merge="duplicate",
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
    info = qwen_vl_utils.select_vision_info(
        chat, NamedFrames(), num_frames=6, model=processor, temporal_merge="duplicate"
    )
    text = processor.apply_chat_template(info.messages, tokenize=False)
    inputs = processor(text=[text], return_tensors="pt", **info.kwargs)
    assert "located at 0.10s,0.33s,3.33s,3.37s,6.67s,7.67s." in prompt_of(processor, inputs)
    assert info.videos is not None
    assert info.videos[0].shape == (12, 3, 112, 84)
    assert len(info.images or []) == 1
    assert info.selections[0].indices.tolist() == list(CHOSEN)
    model = build("qwen2_5_vl", processor)
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] == inputs["input_ids"].shape[1] + 2


def test_times_that_a_model_would_get_wrong_are_warned_of(film: str, caplog: pytest.LogCaptureFixture) -> None:
    def ask(selector: Any, patch: int, metadata: bool) -> str:
        caplog.clear()
        qwen_vl_utils.process_vision_info(
            chat_about(film), selector, num_frames=6, image_patch_size=patch, return_video_metadata=metadata
        )
        return caplog.text

    uneven = ask(NamedFrames(), 14, True)
    assert "Qwen2.5-VL assumes one frame every 1.28 s, which misplaces a chosen frame by 1.5 s" in uneven
    assert "use select_vision_info" in uneven
    assert ask(NamedFrames(), 16, True) == ""  # Qwen3-VL is told every time
    assert "will assume 24 frames per second" in ask(NamedFrames(), 16, False)
    even = write_film(Path(film).with_name("even.mp4"), times=[k / 2 for k in range(12)])
    caplog.clear()
    qwen_vl_utils.process_vision_info(chat_about(str(even)), "uniform", num_frames=6, return_video_metadata=True)
    assert caplog.text == ""


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
    messages, extra = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model="gemma4")
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

    _, near = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model="qwen3_vl")
    assert near["media_io_kwargs"]["video"]["frames_indices"] == MILLISECONDS  # in pairs within a second
    exact = {"num_frames": 6, "model": "qwen3_vl", "temporal_merge": "duplicate"}
    _, doubled = openai.video_request(chat_about(film), NamedFrames(), **exact)
    assert doubled["media_io_kwargs"]["video"]["frames_indices"] == [ms for ms in MILLISECONDS for _ in range(2)]
    told, _ = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model="internvl")
    assert "Frame1 is at 0.10s" in told[0]["content"][1]["text"]

    two = chat_about(film)
    two[0]["content"].append({"type": "video", "video": film})
    with pytest.raises(InputError, match="one video per request, or use image_messages"):
        openai.video_request(two, NamedFrames(), model="gemma4")


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "muse_glimmer", "ernie4_5_vl_moe", "another_model"])
def test_models_that_vllm_tells_no_times_are_told_in_words(model_type: str, film: str) -> None:
    messages, _ = openai.video_request(chat_about(film), NamedFrames(), num_frames=6, model=model_type)
    assert "located at 0.10s,0.33s,3.33s,3.37s,6.67s,7.67s." in messages[0]["content"][1]["text"]
    silent, _ = openai.video_request(
        chat_about(film), NamedFrames(), num_frames=6, model=model_type, timestamps="metadata"
    )
    assert [b["type"] for b in silent[0]["content"]] == ["video_url", "text"]


def test_a_request_names_its_model(film: str) -> None:
    with pytest.raises(InputError, match="name the model behind the server"):
        openai.video_request(chat_about(film), NamedFrames())
    with pytest.raises(InputError, match=r"vLLM gives SmolVLM 2 no video; send pictures .*image_messages"):
        openai.video_request(chat_about(film), NamedFrames(), model="smolvlm")
    with pytest.raises(InputError, match="needs several videos, and a request has one"):
        openai.video_request(chat_about(film), NamedFrames(), model="qwen3_vl", timestamps="interleave")


# -- vLLM ---------------------------------------------------------------------------------------------


def test_inputs_of_the_offline_engine(film: str) -> None:
    processor = tiny.qwen3_vl()
    chat = chat_about(film)
    image = Image.new("RGB", (8, 8))
    chat[0]["content"].insert(0, {"type": "image", "image": image})
    inputs = vllm.generate_inputs(chat, processor, NamedFrames(), num_frames=6, temporal_merge="duplicate")
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


def pictures_of(tmp_path: Path, film: str) -> tuple[list[dict[str, Any]], list[int]]:
    """A chat with a picture in every form, and the greys of these pictures."""
    Image.fromarray(picture(3)).save(tmp_path / "a.png")
    url = openai.jpeg_url(picture(5), None, 95)
    chat = chat_about(film)
    chat[0]["content"][:0] = [
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image", "image": Image.fromarray(picture(8))},
    ]
    return chat, [3, 5, 5, 8]


def test_pictures_of_every_form_reach_the_offline_engines(film: str, tmp_path: Path) -> None:
    chat, expected = pictures_of(tmp_path, film)
    inputs = vllm.generate_inputs(chat, tiny.qwen3_vl(), NamedFrames(), num_frames=6)
    assert inputs["prompt"].count("<|image_pad|>") == 4
    assert greys(np.stack([np.asarray(i) for i in inputs["multi_modal_data"]["image"]])) == expected
    assert len(inputs["multi_modal_data"]["video"]) == 1

    inputs = sglang.engine_inputs(chat, tiny.qwen3_vl(), NamedFrames(), num_frames=6)
    assert inputs["prompt"].count("<|image_pad|>") == 4 + 6
    assert greys(np.stack([picture_of(u) for u in inputs["image_data"]])) == [*expected, *CHOSEN]

    info = qwen_vl_utils.select_vision_info(chat, NamedFrames(), num_frames=6)
    assert greys(np.stack([np.asarray(i) for i in info.images or []])) == expected

    for wrong, message in (
        ({"type": "image", "path": "gone.png"}, r"the picture gone\.png cannot be read"),
        ({"type": "image"}, "a picture in the chat has none of the keys"),
    ):
        chat[0]["content"][0] = wrong
        for builder in (vllm.generate_inputs, sglang.engine_inputs):
            with pytest.raises(InputError, match=message):
                builder(chat, tiny.qwen3_vl(), NamedFrames(), num_frames=6)


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
    frames, metadata = loader.load_bytes(Path(film).read_bytes(), num_frames=3, model="gemma4", fps=2, max_duration=300)
    assert len(frames) == 3
    assert metadata["fps"] == 1000.0
    assert metadata["do_sample_frames"] is False


def test_the_loader_heeds_the_question(film: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "_selector", lambda name, encoder: {"mini-policy": NamedFrames()}[name])
    data = Path(film).read_bytes()
    frames, metadata = vllm.load_video(data, 6, query=QUESTION, model="gemma4")
    assert greys(frames) == list(CHOSEN)
    assert metadata["frames_indices"] == MILLISECONDS
    doubled, _ = vllm.load_video(data, 2, query="5 and 9", model="qwen3_vl")
    assert greys(doubled) == [5, 5, 9, 9]
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        vllm.load_video(data, 0, query=QUESTION, model="qwen3_vl")
    with pytest.raises(VideoOpenError):
        vllm.load_video(b"no video", 3, query=QUESTION, model="qwen3_vl")


def test_the_loader_refuses_what_it_cannot_tell(film: str) -> None:
    data = Path(film).read_bytes()
    with pytest.raises(InputError, match=r'must know the model, .* "model": "qwen3_vl" .* --media-io-kwargs'):
        vllm.load_video(data, 4, query=QUESTION)
    for model_type in ("qwen2_5_vl", "another_model"):
        with pytest.raises(InputError, match=r"in words, which a video loader cannot write: .*video_request"):
            vllm.load_video(data, 4, model=model_type)
        frames, _ = vllm.load_video(data, 4, model=model_type, timestamps="metadata", temporal_merge="ignore")
        assert len(frames) == 4
    with pytest.raises(InputError, match=r"vLLM gives Kimi K2\.5 no video"):
        vllm.load_video(data, 4, model="kimi_k25")
    with pytest.raises(InputError, match="cannot be done by a video loader"):
        vllm.load_video(data, 4, model="qwen3_vl", timestamps="interleave")


def test_the_table_in_the_documentation_is_the_one_of_the_code() -> None:
    assert engines.table() in (Path(__file__).parents[2] / "docs" / "engines.md").read_text("utf-8")
    known = {t for f in FAMILIES for t in f.model_types}
    assert set(engines.VLLM) <= known


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
    chat[0]["content"].insert(0, {"type": "image", "url": "https://example.org/cat.png"})
    inputs = sglang.engine_inputs(chat, processor, NamedFrames(), num_frames=6)
    assert inputs["prompt"].count("<|image_pad|>") == 7
    assert inputs["prompt"].count("<|video_pad|>") == 0
    assert inputs["prompt"].index("<0.1 seconds>") < inputs["prompt"].index("<7.7 seconds>")
    assert inputs["image_data"][0] == "https://example.org/cat.png"
    assert greys(np.stack([picture_of(u) for u in inputs["image_data"][1:]])) == list(CHOSEN)
    assert sglang.chat_messages is openai.image_messages


def test_torch_tensors_become_pictures_too() -> None:
    url = openai.jpeg_url(torch.full((3, 8, 8), 0.5), None, 90)
    assert picture_of(url).mean() == pytest.approx(128, abs=2)
