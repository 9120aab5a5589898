"""The examples, run as a user runs them: with tiny models on disk, and a server that listens."""

from __future__ import annotations

import json
import os
import runpy
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from . import tiny
from .models import build

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    processor = tiny.qwen3_vl()
    processor.save_pretrained(folder)
    build("qwen3_vl", processor).save_pretrained(folder)
    return str(folder)


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["transformers_chat.py", "pipeline.py"])
def test_examples_with_transformers(name: str, checkpoint: str, film: str, monkeypatch: Any, capsys: Any) -> None:
    arguments = [film, "What is shown?", "--model", checkpoint, "--selector", "uniform", "--num-frames", "2"]
    out = run(name, [*arguments, "--max-new-tokens", "2"], monkeypatch, capsys)
    assert "answer:" in out
    seen = out.split("seen at: ")[1].strip().split(", ")
    assert len(seen) == 2
    assert all(s.endswith(" s") for s in seen)


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """A chat server that remembers what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            answer = json.dumps({"choices": [{"message": {"content": "Grey."}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["openai_request.py", "vllm_request.py"])
def test_examples_with_a_server(name: str, server: Any, film: str, monkeypatch: Any, capsys: Any) -> None:
    url, asked = server
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    arguments = [
        film,
        "What is shown?",
        "--url",
        url,
        "--model",
        "a-model",
        "--selector",
        "uniform",
        "--num-frames",
        "3",
    ]
    assert run(name, arguments, monkeypatch, capsys) == "answer: Grey.\n"
    ((path, body),) = asked
    assert path == "/v1/chat/completions"
    content = body["messages"][0]["content"]
    if name == "openai_request.py":
        assert [b["type"] for b in content] == ["text", "image_url"] * 3 + ["text"]
    else:
        assert content[0]["video_url"]["url"].startswith("data:video/jpeg;base64,")
        assert len(body["media_io_kwargs"]["video"]["frames_indices"]) == 6


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_lmms_eval_command(tmp_path: Path) -> None:
    fake = tmp_path / "python"  # stands for `python -m lmms_eval`: writes down its arguments
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{tmp_path}/calls"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", str(EXAMPLES / "lmms_eval.sh"), "a/model", "16"], check=True, env=environment, cwd=tmp_path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert calls[1] == calls[0].replace("mini-policy", "uniform")
    assert "--model refocus_select --tasks videomme" in calls[0]
    assert "pretrained=a/model,selector=mini-policy,num_frames=16,record=out/mini-policy.jsonl" in calls[0]


def test_the_evaluation_for_a_gpu_in_small(checkpoint: str, film: str, tmp_path: Path) -> None:
    """Two questions in the form of Video-MME; the costs come first, and the second run has nothing left to do."""
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "data").mkdir(parents=True)
    for name in ("one", "two"):
        (data / "data" / f"{name}.mp4").write_bytes(Path(film).read_bytes())
    common = {"duration": "short", "task_type": "t", "options": ["A. yes.", "B. no."], "answer": "A"}
    rows = [{**common, "videoID": n, "question_id": f"{n}-1", "question": f"Is it {n}?"} for n in ("one", "two")]
    (data / "videomme.json").write_text(json.dumps(rows))
    environment = {
        **os.environ, "MODEL": checkpoint, "FRAMES": "2 3", "SELECTORS": "topk", "ENCODERS": "mini", "OUT": str(out),
        "PYTHON": sys.executable, "QA_ARGUMENTS": "--device cpu",
    }  # fmt: skip
    command = ["bash", str(EXAMPLES / "gpu_evaluation.sh"), f"videomme={data}"]

    def once(**more: str) -> str:
        done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    planned = once(DRY_RUN="1")
    assert "videomme: 2 questions about 2 videos, 0.0 hours; 0 videos are missing" in planned
    assert "8 answers of the model with 2 3 frames (2 selections)" in planned
    assert not list(out.glob("videomme.*.jsonl"))
    first = once()
    assert "topk+mini" in first
    kept = {p: p.read_bytes() for p in sorted(out.rglob("predictions*.jsonl"))}
    assert kept
    assert sum(len(content.splitlines()) for content in kept.values()) == 8
    once()
    assert {p: p.read_bytes() for p in sorted(out.rglob("predictions*.jsonl"))} == kept
