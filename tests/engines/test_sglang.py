"""SGLang as far as it goes without a GPU: its requests, its reading of chats, and its processor of Qwen models.

Its kernels need a GPU, so no model runs; what the model would be told is in the tokens that its processor makes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

sglang = pytest.importorskip("sglang", reason="SGLang is installed by `make test-engines` only")

from transformers import AutoConfig, AutoProcessor  # noqa: E402

from refocus_select.adapters.sglang import chat_messages, engine_inputs  # noqa: E402
from tests.adapters.conftest import chat_about  # noqa: E402
from tests.adapters.film import CHOSEN, CHOSEN_TIMES, NamedFrames, greys, picture  # noqa: E402

TIMES = [f"<{t:.1f} seconds>" for t in CHOSEN_TIMES]


@pytest.fixture
def chat(film: str, tmp_path: Path) -> list[dict[str, Any]]:
    """A question about a film, with a picture in front."""
    Image.fromarray(picture(3)).save(tmp_path / "photo.png")
    chat = chat_about(film)
    chat[0]["content"].insert(0, {"type": "image", "path": str(tmp_path / "photo.png")})
    return chat


def test_requests_are_those_of_its_server(chat: Any, tell: Callable[..., None]) -> None:
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest
    from sglang.srt.parser.jinja_template_utils import process_content_for_template_format
    from sglang.srt.utils import load_image

    request = ChatCompletionRequest(model="any", messages=chat_messages(chat, NamedFrames(), num_frames=6))
    images: list[Any] = []
    message = process_content_for_template_format(request.messages[0].model_dump(), "openai", images, [], [], [])
    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["image", *["text", "image"] * 6, "text"]
    assert [block["text"] for block in message["content"][1:-1:2]] == TIMES
    loaded = [load_image(image.url) for image in images]
    loaded = [image[0] if isinstance(image, tuple) else image for image in loaded]
    assert greys(np.stack([np.asarray(image.convert("RGB").resize((64, 64))) for image in loaded])) == [3, *CHOSEN]
    note(tell, "any", "server's reading of chat_messages", " ".join(TIMES))


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen2_5_vl"])
def test_its_processor_sees_every_picture_behind_its_time(
    model_type: str, checkpoint: Callable[[str], str], chat: Any, tell: Callable[..., None]
) -> None:
    from sglang.srt.multimodal.processors.qwen_vl import QwenVLImageProcessor
    from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler

    folder = checkpoint(model_type)
    processor = AutoProcessor.from_pretrained(folder)
    arguments = ServerArgs(model_path=folder, device="cpu")
    set_global_server_args_for_scheduler(arguments)
    theirs = QwenVLImageProcessor(AutoConfig.from_pretrained(folder), arguments, processor, None)
    inputs = engine_inputs(chat, processor, NamedFrames(), num_frames=6)
    request = SimpleNamespace(video_data=None, audio_data=None, rid="one")
    try:
        made = asyncio.run(
            theirs.process_mm_data_async(
                image_data=inputs["image_data"], input_text=inputs["prompt"], request_obj=request
            )
        )
    finally:
        theirs.shutdown()
    prompt = processor.tokenizer.decode(made.input_ids)
    told = re.sub(r"(<\|image_pad\|>)+", "IMAGE", prompt)
    image = "<|vision_start|>IMAGE<|vision_end|>"
    assert told.startswith(f"<|im_start|>user\n{image}" + "".join(f"{t}{image}" for t in TIMES) + "What is shown")
    assert sum(len(item.offsets) for item in made.mm_items) == 7
    note(tell, model_type, "engine_inputs, its processor on a CPU", " ".join(TIMES))


def note(tell: Callable[..., None], model: str, route: str, told: str) -> None:
    asked = ", ".join(str(t) for t in CHOSEN_TIMES)
    tell(engine="SGLang", version=sglang.__version__, model=model, route=route, asked=asked, told=told)
