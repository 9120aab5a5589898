"""Reference models elsewhere, against servers that really run: ours, and a small one for OpenAI's route."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from refocus_select.errors import InputError, ReferenceServerError, VideoDecodeError
from refocus_select.questions import Question
from refocus_select.reference import ReferenceModel, Request, TransformersReference
from refocus_select.reference.clips import VideoClip
from refocus_select.reference.remote import OpenAIReference, ServedReference
from refocus_select.reference.server import ReferenceServer
from refocus_select.video import CandidateRule

from ..video import clips
from .chat_models import build

QUICK = {"pause": 0.01, "timeout": 60.0}


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    folder = tmp_path_factory.mktemp("remote")
    found = []
    for i in range(3):
        path = folder / f"{i}.mp4"
        clips.encode(path, 20 + 4 * i, fps=8, width=64, height=48)
        clip = VideoClip(str(path), CandidateRule(4.0, 512, "paper"))
        question = Question(f"q{i}", str(path), f"What is number {i}?", ("red", "green", "blue")[: 2 + i % 2], 0)
        found.append(Request(question, clip, torch.tensor([[0, 2, 5], [1, 3, 4]])))
    return found


class Counting(ReferenceModel):
    """Answers from positions alone, and may fail."""

    name = "counting"

    def __init__(self, fingerprint: str = "counting-1", fail: int = 0) -> None:
        self.fingerprint, self.fail, self.calls = fingerprint, fail, 0

    def option_logits(self, requests: Any) -> list[Tensor]:
        self.calls += 1
        if self.calls <= self.fail:
            raise RuntimeError("the device is full")
        (request,) = requests
        count = len(request.question.options)
        return [request.subsets.double().mean(1, keepdim=True).float() / 3 * torch.arange(1, count + 1)]


class Running:
    """A server in threads of this process."""

    def __init__(self, reference: ReferenceModel, port: int = 0) -> None:
        self.server = ReferenceServer(reference, port=port)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_logits_are_those_of_this_process_to_the_last_bit(requests: list[Request]) -> None:
    torch.set_num_threads(1)
    here, there = (TransformersReference(*build("internvl")) for _ in range(2))
    running = Running(there)
    try:
        remote = ServedReference(running.url, **QUICK)
        assert remote.fingerprint == here.fingerprint
        for one, other in zip(remote.option_logits(requests), here.option_logits(requests), strict=True):
            assert torch.equal(one, other)
    finally:
        running.stop()


def test_a_server_that_fails_and_one_that_is_gone_cost_retries(requests: list[Request]) -> None:
    expected = Counting().option_logits(requests[:1])[0]
    gone, failing = Running(Counting()), Running(Counting(fail=2))
    remote = ServedReference([gone.url, failing.url], **QUICK)
    gone.stop()
    found = remote.option_logits(requests)
    assert torch.equal(found[0], expected)
    assert [len(one) for one in found] == [2, 2, 2]
    assert remote.retries >= 2
    failing.stop()


def test_a_server_that_comes_back_is_taken_up_again(requests: list[Request]) -> None:
    running = Running(Counting())
    remote = ServedReference(running.url, **QUICK)
    before = remote.option_logits(requests)
    running.stop()
    again: list[Running] = []
    timer = threading.Timer(0.5, lambda: again.append(Running(Counting(), running.port)))
    timer.start()
    after = remote.option_logits(requests)
    timer.join()
    again[0].stop()
    assert remote.retries > 0
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_when_nobody_answers_any_more_it_is_said(requests: list[Request]) -> None:
    running = Running(Counting())
    remote = ServedReference(running.url, patience=0.2, **QUICK)
    running.stop()
    with pytest.raises(ReferenceServerError, match=r"no reference server has answered for .* the run resumes"):
        remote.option_logits(requests)
    with pytest.raises(ReferenceServerError, match="serve-reference"):
        ServedReference(running.url, **QUICK)


def test_other_models_and_bad_videos_are_no_retries(requests: list[Request], tmp_path: Path) -> None:
    one, other = Running(Counting()), Running(Counting("counting-2"))
    try:
        with pytest.raises(InputError, match="different models"):
            ServedReference([one.url, other.url], **QUICK)
        remote = ServedReference(one.url, **QUICK)
        one.server.reference = Counting("counting-3")
        with pytest.raises(InputError, match="started again with another model"):
            remote.option_logits(requests[:1])
        path = tmp_path / "gone.mp4"
        clips.encode(path, 20, fps=8, width=64, height=48)
        clip = VideoClip(str(path), CandidateRule(4.0, 512, "paper"))
        path.unlink()
        with pytest.raises(VideoDecodeError, match="cannot read the video"):
            remote.option_logits([Request(requests[0].question, clip, torch.tensor([[0, 1]]))])
        assert remote.retries == 0
    finally:
        one.stop()
        other.stop()


# -- OpenAI's route ---------------------------------------------------------------------------------


class OpenAIHandler(BaseHTTPRequestHandler):
    """Two routes as vLLM has them, which prefer B and keep what they were asked."""

    seen: ClassVar[list[dict[str, Any]]] = []
    flying = most = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        with kind.lock:
            kind.seen.append(content)
            kind.flying += 1
            kind.most = max(kind.most, kind.flying)
            first = len(kind.seen) == 1
        threading.Event().wait(0.05)
        with kind.lock:
            kind.flying -= 1
        if first:
            self.answer(503, {"error": "still loading"})
            return
        told = [{"token": " B", "logprob": -0.2}, {"token": "b", "logprob": -9.0}, {"token": "A", "logprob": -1.9},
                {"token": "The", "logprob": -4.0}]  # fmt: skip
        self.answer(200, {"choices": [{"logprobs": {"content": [{"token": " B", "top_logprobs": told}]}}]})

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def openai() -> Iterator[str]:
    OpenAIHandler.seen, OpenAIHandler.flying, OpenAIHandler.most = [], 0, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), OpenAIHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_log_probabilities_of_the_letters(requests: list[Request], openai: str) -> None:
    remote = OpenAIReference(openai, model="tiny", in_flight=4, **QUICK)
    found = remote.option_logits(requests)
    assert [tuple(one.shape) for one in found] == [(2, 2), (2, 3), (2, 2)]
    # The likeliest token of a letter counts; a letter that is not told lies below all that are.
    assert found[1][0].tolist() == pytest.approx([-1.9, -0.2, -10.0])
    assert remote.retries == 1
    assert len(OpenAIHandler.seen) == 7
    assert 1 < OpenAIHandler.most <= 4  # several in flight, no more than asked for
    sent = OpenAIHandler.seen[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["logprobs"]) == (1, 0.0, True)
    parts = sent["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url"] * 3 + ["text"]
    assert "A. red" in parts[-1]["text"]
    import base64

    import cv2

    data = base64.b64decode(parts[1]["image_url"]["url"].split(",")[1])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    asked = next(r for r in requests if r.question.question in parts[-1]["text"])
    times = [math.isclose(float(parts[0]["text"].split()[0]), t, abs_tol=0.051) for t in asked.clip.timestamps]
    original = asked.clip.pictures(np.array([times.index(True)]))[0].astype(int)
    assert np.abs(shown - original).mean() < 6


def test_a_model_that_the_server_does_not_have(openai: str) -> None:
    with pytest.raises(InputError, match="no model 'other'; it has tiny"):
        OpenAIReference(openai, model="other", **QUICK)
