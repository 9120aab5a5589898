"""A real vLLM engine on a CPU, offline and as a server: what the prompt of each model says of every frame.

`make test-engines` installs it. The checkpoints are tiny and random, so answers mean nothing; prompts do.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

vllm = pytest.importorskip("vllm", reason="vLLM is installed by `make test-engines` only")

from transformers import AutoProcessor  # noqa: E402

from refocus_select import select_frames  # noqa: E402
from refocus_select.adapters import openai  # noqa: E402
from refocus_select.adapters.vllm import generate_inputs  # noqa: E402
from refocus_select.errors import InputError  # noqa: E402
from tests.adapters.conftest import chat_about  # noqa: E402
from tests.adapters.film import CHOSEN_TIMES, DURATION, QUESTION, TIMES, NamedFrames, picture  # noqa: E402

OFFLINE = ("qwen3_vl", "qwen2_5_vl", "llava_onevision", "internvl")
ENGINE = {"enforce_eager": True, "dtype": "float32", "max_model_len": 4096, "max_num_seqs": 2}


def seconds_told(model_type: str, prompt: str) -> list[float]:
    """The times that a prompt tells its model, in order."""
    if model_type == "qwen3_vl":
        return [float(t) for t in re.findall(r"<(\d+\.\d) seconds>", prompt)]
    sentence = prompt[prompt.index("The video lasts for") :].split("\n")[0]
    return [float(t) for t in re.findall(r"(\d+\.\d+)s\b", sentence)]


def written(model_type: str, times: Any) -> list[float]:
    digits = 1 if model_type == "qwen3_vl" else 2
    return [float(f"{t:.{digits}f}") for t in times]


# -- offline ------------------------------------------------------------------------------------------


class Offline:
    """A running engine and the processor of its model."""

    def __init__(self, model_type: str, folder: str) -> None:
        self.model_type = model_type
        self.processor = AutoProcessor.from_pretrained(folder)
        self.llm = vllm.LLM(folder, skip_mm_profiling=True, limit_mm_per_prompt={"image": 8, "video": 2}, **ENGINE)

    def told(self, chat: Any, num_frames: int, selector: Any = None, temporal_merge: str = "duplicate") -> str:
        inputs = generate_inputs(
            chat, self.processor, selector or NamedFrames(), num_frames=num_frames, temporal_merge=temporal_merge
        )
        (output,) = self.llm.generate(inputs, vllm.SamplingParams(max_tokens=2, temperature=0), use_tqdm=False)
        assert len(output.outputs[0].token_ids) == 2
        return self.processor.tokenizer.decode(output.prompt_token_ids)


@pytest.fixture(scope="module", params=OFFLINE)
def offline(request: Any, checkpoint: Callable[[str], str]) -> Iterator[Offline]:
    engine = Offline(request.param, checkpoint(request.param))
    yield engine
    engine.llm.llm_engine.engine_core.shutdown()


@pytest.mark.parametrize(
    ("num_frames", "question", "times"),
    [
        (1, "What is in 5?", TIMES[5:6]),
        (5, "What is in 1, 2, 5, 6 and 9?", CHOSEN_TIMES[:5]),
        (6, QUESTION, CHOSEN_TIMES),
    ],
)
def test_every_frame_has_its_time(
    offline: Offline, film: str, num_frames: int, question: str, times: Any, tell: Callable[..., None]
) -> None:
    prompt = offline.told(chat_about(film, question), num_frames)
    found = seconds_told(offline.model_type, prompt)
    assert found == written(offline.model_type, times)
    tell(
        engine="vLLM",
        version=vllm.__version__,
        model=offline.model_type,
        route="offline, generate_inputs",
        asked=f"K = {num_frames}: {', '.join(str(t) for t in times)}",
        told=", ".join(map(str, found)),
    )


def test_frames_near_each_other_share_a_group_by_default(
    offline: Offline, film: str, tell: Callable[..., None]
) -> None:
    prompt = offline.told(chat_about(film), 6, temporal_merge="auto")
    found = seconds_told(offline.model_type, prompt)
    assert found == ([0.2, 3.4, 7.2] if offline.model_type == "qwen3_vl" else written("", CHOSEN_TIMES))
    tell(
        engine="vLLM",
        version=vllm.__version__,
        model=offline.model_type,
        route='offline, generate_inputs, temporal_merge="auto"',
        asked=f"K = 6: {', '.join(str(t) for t in CHOSEN_TIMES)}",
        told=", ".join(map(str, found)),
    )


def test_two_videos_and_a_picture(offline: Offline, film: str) -> None:
    chat = chat_about(film, "What is in 1 and 2?")
    chat[0]["content"].insert(1, {"type": "video", "video": film, "video_start": 3})
    chat[0]["content"].insert(0, {"type": "image", "image": Image.fromarray(picture(3))})
    if offline.model_type in ("llava_onevision", "internvl"):
        chat[0]["content"].pop(2)  # their templates and ours put all sentences behind the last video
    prompt = offline.told(chat, 2)
    first = written(offline.model_type, TIMES[1:3])
    assert seconds_told(offline.model_type, prompt)[:2] == first


def test_uniform_and_selected_prompts_differ_in_times_only(offline: Offline, film: str) -> None:
    prompts = [offline.told(chat_about(film), 6, selector) for selector in (NamedFrames(), "uniform")]
    assert prompts[0] != prompts[1]
    assert re.sub(r"\d+", "#", prompts[0]) == re.sub(r"\d+", "#", prompts[1])


def test_a_model_without_video_is_refused_before_the_engine(checkpoint: Callable[[str], str], film: str) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint("smolvlm"))
    with pytest.raises(InputError, match=r"vLLM gives SmolVLM 2 no video; send pictures"):
        generate_inputs(chat_about(film), processor, NamedFrames(), num_frames=6)


# -- the server ---------------------------------------------------------------------------------------


class Server:
    """A server on loopback."""

    def __init__(self, url: str, processor: Any) -> None:
        self.url, self.processor = url, processor

    def ask(self, messages: Any, **extra: Any) -> str:
        """The prompt that the model was given."""
        body = {"model": "tiny", "messages": messages, "max_tokens": 2, "temperature": 0, "return_token_ids": True}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps({**body, **extra}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return self.processor.tokenizer.decode(json.load(response)["prompt_token_ids"])

    def refusal(self, messages: Any, **extra: Any) -> tuple[int, str]:
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.ask(messages, **extra)
        return caught.value.code, caught.value.read().decode()


@pytest.fixture(scope="module")
def server(checkpoint: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = checkpoint("qwen3_vl")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "2", "--skip-mm-profiling"]
    command += ["--trust-request-mm-kwargs", "--limit-mm-per-prompt", '{"image": 8, "video": 1}']
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "REFOCUS_SELECTOR": "aks"})
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(1)
            else:
                pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")
            yield Server(f"http://127.0.0.1:{port}", AutoProcessor.from_pretrained(folder))
        finally:
            process.terminate()
            process.wait(60)


def note(tell: Callable[..., None], route: str, asked: Any, told: Any) -> None:
    asked, told = (
        ", ".join(f"{t:.2f}" for t in times) if not isinstance(times, str) else times for times in (asked, told)
    )
    tell(engine="vLLM", version=vllm.__version__, model="qwen3_vl", route=route, asked=asked, told=told)


def test_a_request_with_frames(server: Server, film: str, tell: Callable[..., None]) -> None:
    messages, extra = openai.video_request(
        chat_about(film), NamedFrames(), num_frames=6, model="qwen3_vl", temporal_merge="duplicate"
    )
    found = seconds_told("qwen3_vl", server.ask(messages, **extra))
    assert found == written("qwen3_vl", CHOSEN_TIMES)
    note(tell, "server, video_request", CHOSEN_TIMES, found)


def test_pictures_with_their_times(server: Server, film: str, tell: Callable[..., None]) -> None:
    prompt = server.ask(openai.image_messages(chat_about(film), NamedFrames(), num_frames=6))
    assert seconds_told("qwen3_vl", prompt) == written("qwen3_vl", CHOSEN_TIMES)
    assert prompt.count("<|vision_start|>") == 6
    note(tell, "server, image_messages", CHOSEN_TIMES, seconds_told("qwen3_vl", prompt))


def by_loader(film: str, question: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    url = f"data:video/mp4;base64,{base64.b64encode(Path(film).read_bytes()).decode()}"
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
    video = {"video_backend": "refocus_select", "query": question, "num_frames": 4, "temporal_merge": "duplicate"}
    video |= more
    return [{"role": "user", "content": content}], {"media_io_kwargs": {"video": video}}


def test_the_loader_selects_on_the_server(server: Server, film: str, tell: Callable[..., None]) -> None:
    for question in ("A dark grey square", "A bright white square"):
        messages, extra = by_loader(film, question, model="qwen3_vl")
        chosen = select_frames(Path(film).read_bytes(), question, num_frames=4, selector="aks").timestamps
        found = seconds_told("qwen3_vl", server.ask(messages, **extra))
        assert found == written("qwen3_vl", chosen)
        note(tell, "server, loader by entry point", chosen, found)
    messages, extra = by_loader(film, "", model="qwen3_vl")
    spread = seconds_told("qwen3_vl", server.ask(messages, **extra))
    assert spread == written("qwen3_vl", select_frames(film, "any", num_frames=4, selector="uniform").timestamps)
    assert max(spread) < DURATION


def test_the_loader_refuses_with_a_reason(server: Server, film: str, tell: Callable[..., None]) -> None:
    messages, extra = by_loader(film, "What?")
    code, answer = server.refusal(messages, **extra)
    assert "the video loader must know the model" in answer
    messages, extra = by_loader(film, "What?", model="qwen2_5_vl")
    _, answer = server.refusal(messages, **extra)
    assert "in words, which a video loader cannot write" in answer
    note(tell, "server, loader by entry point", "without `model`, or Qwen2.5-VL", f"refused with the reason ({code})")
