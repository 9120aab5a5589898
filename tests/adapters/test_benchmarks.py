"""lmms-eval and VLMEvalKit with a tiny model on disk. Where lmms-eval is installed, it is the real one."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from refocus_select.adapters import vlmevalkit
from refocus_select.adapters.lmms_eval import VideoModel
from refocus_select.errors import InputError, MissingDependencyError, SelectorLoadError

from . import tiny
from .conftest import chat_about
from .models import build

CHOICE = "What is shown?\nA. Grey.\nB. Red.\nAnswer with the option's letter from the given choices directly."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    processor = tiny.qwen2_5_vl()
    processor.save_pretrained(folder)
    build("qwen2_5_vl", processor).save_pretrained(folder)
    return str(folder)


def test_a_model_answers_about_selected_frames(checkpoint: str, film: str, tmp_path: Path) -> None:
    record = tmp_path / "out" / "record.jsonl"
    model = VideoModel(
        checkpoint,
        selector="uniform",
        num_frames="4",
        dtype="float32",
        device="cpu",
        record=str(record),
        max_new_tokens="3",
        system_prompt="Be brief.",
    )
    chats = [chat_about(film, CHOICE), chat_about(film, "A longer question about everything in it?")]
    answers, lengths = model.answer(chats, temperature=0, until=["\n"])
    assert len(answers) == len(lengths) == 2
    assert all(0 < n <= 3 for n in lengths)
    (line,) = map(json.loads, record.read_text().splitlines())
    assert line["answers"] == answers
    assert [s["selector"] for s in line["selections"]] == ["uniform"] * 2
    assert [s["num_frames"] for s in line["selections"]] == [4, 4]
    assert line["selections"][0]["question"] == "What is shown?"
    assert [len(model.answer([chat], max_new_tokens=2, temperature=0.5, top_p=0.9)[0]) for chat in chats] == [1, 1]


def test_options_may_stay_in_the_question(checkpoint: str, film: str) -> None:
    from refocus_select.adapters import last_selection

    model = VideoModel(checkpoint, selector="uniform", num_frames=2, dtype="float32", options="False", max_new_tokens=1)
    model.answer([chat_about(film, CHOICE)])
    assert last_selection(model.processor).question == CHOICE


def test_an_unknown_selector_is_an_error(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SelectorLoadError):
        VideoModel(checkpoint, selector="no-such-selector", dtype="float32", device="cpu")


# -- lmms-eval ----------------------------------------------------------------------------------------


@dataclass
class Request:
    args: tuple[Any, ...]


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed lmms-eval, or the few names of it that a model needs."""
    if importlib.util.find_spec("lmms_eval") is not None:
        return

    class Lmms:
        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}
            self.cache_hook = types.SimpleNamespace(add_partial=lambda *a: None)

    class ChatMessages:
        def __init__(self, messages: Any) -> None:
            self.messages = messages

        def to_hf_messages(self) -> Any:
            blocks = [
                [{"video" if k == "url" else k: v for k, v in b.items()} for b in m["content"]] for m in self.messages
            ]
            return [{"role": m["role"], "content": b} for m, b in zip(self.messages, blocks, strict=True)]

    @dataclass
    class ModelManifest:
        model_id: str
        chat_class_path: str
        aliases: tuple[str, ...] = ()

    names = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.api.instance": {"Instance": Request},
        "lmms_eval.protocol": {"ChatMessages": ChatMessages},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


def test_lmms_eval_runs_the_model(lmms_eval: None, checkpoint: str, film: str) -> None:
    from refocus_select.adapters import lmms_eval as adapter

    (manifest,) = adapter.manifests()
    assert manifest.model_id == "refocus_select"
    module, name = manifest.chat_class_path.rsplit(".", 1)
    assert module == adapter.__name__
    made = getattr(adapter, name)
    assert made.is_simple is False
    model = made(
        pretrained=checkpoint,
        batch_size="2",
        selector="uniform",
        num_frames=2,
        dtype="float32",
        device="cpu",
        max_new_tokens=3,
    )
    docs = [
        {"video": film, "question": CHOICE},
        {"video": film, "question": "And then?"},
        {"video": film, "question": "Why?"},
    ]

    def doc_to_messages(doc: dict[str, str]) -> list[dict[str, Any]]:
        content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}]
        return [{"role": "user", "content": content}]

    model.task_dict = {"task": {"test": docs}}
    settings = [{"until": ["\n"], "max_new_tokens": 2}, {"until": ["\n"], "max_new_tokens": 2}, {"max_new_tokens": 1}]
    requests = [
        Request((d["question"], doc_to_messages, s, k, "task", "test"))
        for k, (d, s) in enumerate(zip(docs, settings, strict=True))
    ]
    answers = model.generate_until(requests)
    assert len(answers) == 3
    assert all(isinstance(a, str) and "\n" not in a for a in answers)
    assert model.generate_until(requests[::-1])[0] == answers[2]
    with pytest.raises(InputError, match="answers by generation"):
        model.loglikelihood([])
    with pytest.raises(InputError, match="one round"):
        model.generate_until_multi_round([])
    vars(adapter).pop("SelectedVideoModel")


def test_each_process_of_several_has_its_gpu_and_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus_select.adapters import lmms_eval as adapter

    assert adapter._device_of("cpu") == "cpu"
    assert adapter._of_this_process(Path("out/a.jsonl")) == Path("out/a.jsonl")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert adapter._device_of(None) == "cuda"
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert adapter._device_of(None) == adapter._device_of("cuda") == "cuda:1"
    assert adapter._of_this_process(Path("out/a.jsonl")) == Path("out/a.rank3.jsonl")
    with pytest.raises(InputError, match="several processes were started"):
        adapter._device_of("auto")


def test_the_model_class_needs_lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus_select.adapters import lmms_eval as adapter

    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = adapter.Other
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.setitem(sys.modules, "lmms_eval.api", None)
    monkeypatch.setitem(sys.modules, "lmms_eval.api.instance", None)
    with pytest.raises(ImportError):
        _ = adapter.SelectedVideoModel


# -- VLMEvalKit ---------------------------------------------------------------------------------------


def test_the_launcher_adds_the_model_and_runs_the_script(
    checkpoint: str, film: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, vlm, config = (types.ModuleType(n) for n in ("vlmeval", "vlmeval.vlm", "vlmeval.config"))
    config.supported_VLM = {}  # type: ignore[attr-defined]
    kit.vlm, kit.config = vlm, config  # type: ignore[attr-defined]
    for module in (kit, vlm, config):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "argv", ["x"])
    script = tmp_path / "run.py"
    script.write_text(
        "import json, sys\n"
        "from vlmeval.config import supported_VLM\n"
        "model = supported_VLM[sys.argv[-1]](nframe=8, use_vllm=False)\n"
        f"message = [dict(type='video', value={film!r}), dict(type='text', value='What is it?')]\n"
        "answer = model.generate(message, dataset='Video-MME')\n"
        f"json.dump([sys.argv[1:], answer], open({str(tmp_path / 'answer.json')!r}, 'w'))\n"
    )
    vlmevalkit.main(
        [
            "--pretrained",
            checkpoint,
            "--selector",
            "uniform",
            "--num-frames",
            "2",
            "--name",
            "Qwen2.5-VL-selected",  # VLMEvalKit gives such names an argument more
            "--device",
            "cpu",
            "--dtype",
            "float32",
            "--max-new-tokens",
            "2",
            "--timestamps",
            "text",
            "--temporal-merge",
            "pairs",
            "--record",
            str(tmp_path / "record.jsonl"),
            "--",
            str(script),
            "--data",
            "X",
        ]
    )
    arguments, answer = json.loads((tmp_path / "answer.json").read_text())
    assert arguments == ["--data", "X", "--model", "Qwen2.5-VL-selected"]
    (line,) = map(json.loads, (tmp_path / "record.jsonl").read_text().splitlines())
    assert line["selections"][0]["num_frames"] == 1  # two frames as one pair
    assert isinstance(answer, str)
    assert vlm.SelectedVLM.VIDEO_LLM is True  # type: ignore[attr-defined]


def test_the_launcher_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="leave the / out"):
        vlmevalkit.main(["--pretrained", "x", "--name", "Qwen/Qwen2.5-VL", "--", "run.py"])
    with pytest.raises(InputError, match="without --use-vllm"):
        vlmevalkit.SelectedVLM("x", use_vllm=True)
    with pytest.raises(SystemExit, match="give the script behind --"):
        vlmevalkit.main(["--pretrained", "x"])
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    with pytest.raises(MissingDependencyError, match="VLMEvalKit is not installed"):
        vlmevalkit.main(["--pretrained", "x", "--", "run.py"])
    with pytest.raises(InputError, match="type 'audio'"):
        vlmevalkit.chat_of([{"type": "audio", "value": "a.wav"}])
