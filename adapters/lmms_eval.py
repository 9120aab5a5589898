"""lmms-eval: video models of transformers with any frame selector, uniform sampling among them, on one code path.

The entry point `lmms_eval.models` makes the model name known; nothing has to be patched:

    lmms-eval --model refocus_select --tasks videomme --batch_size 1 \\
        --model_args pretrained=Qwen/Qwen2.5-VL-7B-Instruct,selector=mini-policy,num_frames=32

and the baseline is the same command with `selector=uniform`. On several GPUs each answers its share of the questions:

    accelerate launch --num_processes 8 -m lmms_eval --model refocus_select …
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refocus_select.budget import TokenBudget
from refocus_select.errors import InputError, MissingDependencyError
from refocus_select.weights import DEFAULT_SELECTOR

from .processor import last_selections, with_frame_selection
from .questions import multiple_choice

MODEL_NAME = "refocus_select"


def manifests() -> list[Any]:
    """What the entry point `lmms_eval.models` yields."""
    from lmms_eval.models.registry_v2 import ModelManifest

    path = "refocus_select.adapters.lmms_eval.SelectedVideoModel"
    return [ModelManifest(MODEL_NAME, chat_class_path=path, aliases=("refocus-select",))]


class VideoModel:
    """A video model of transformers that answers chats about selected frames. The part without lmms-eval.

    Args:
        pretrained: Hub id or folder of the model.
        selector: "uniform", "mini-policy", a Hub id, or a folder.
        num_frames: how many frames K per video (default: 32, or what a budget allows).
        token_budget: how many tokens the videos of a prompt may cost, see `with_frame_selection`.
        budget_of, min_frames, max_frames, min_side, max_side: of the budget, see `TokenBudget`.
        timestamps: see `with_frame_selection`.
        temporal_merge: see `with_frame_selection`.
        words_in_prompt: see `with_frame_selection`.
        options: True if options and instructions of a multiple-choice prompt are kept from the selector's question (the
            options are handed over separately, to policies that were trained to see them).
        device: where the model runs; "auto" spreads it over the GPUs, "cuda" is the GPU of this process (`LOCAL_RANK`).
        dtype: of the weights.
        attn_implementation: e.g. "flash_attention_2".
        selector_device: where the selector runs (default: chosen by the selector).
        encoder: whose vectors the selector compares, for those that read vectors: a folder, a Hub id, ….
        record: a file that gets one line of JSON per answer: the question, the selector, and the chosen times.
        max_new_tokens: unless the task says otherwise.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        selector: str = DEFAULT_SELECTOR,
        num_frames: int | str | None = None,
        token_budget: int | str | None = None,
        budget_of: str = "video",
        min_frames: int | str | None = None,
        max_frames: int | str | None = None,
        min_side: int | str | None = None,
        max_side: int | str | None = None,
        timestamps: str = "auto",
        temporal_merge: str = "auto",
        words_in_prompt: str | bool = False,
        options: bool | str = True,
        device: str | None = None,
        dtype: str = "bfloat16",
        attn_implementation: str | None = None,
        selector_device: str | None = None,
        encoder: str | None = None,
        record: str | None = None,
        max_new_tokens: int | str = 128,
        system_prompt: str | None = None,
    ) -> None:
        import torch
        import transformers
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        from refocus_select.selectors import FrameSelector

        given = {"min_frames": min_frames, "max_frames": max_frames, "min_side": min_side, "max_side": max_side}
        limits = {name: value for name, value in given.items() if value is not None}
        number, budget = _amount(num_frames, token_budget, budget_of, limits)
        device = _device_of(device)
        kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype)}
        if attn_implementation is not None:
            kwargs["attn_implementation"] = attn_implementation
        if device == "auto":
            kwargs["device_map"] = "auto"
        config = AutoConfig.from_pretrained(pretrained)
        known = type(config) in AutoModelForImageTextToText._model_mapping
        auto = AutoModelForImageTextToText if known else transformers.AutoModelForMultimodalLM
        model = auto.from_pretrained(pretrained, **kwargs).eval()
        self.model = model if device == "auto" else model.to(device)
        chosen = {"device": selector_device, "encoder": encoder}
        chooser = FrameSelector.from_pretrained(selector, **{k: v for k, v in chosen.items() if v})  # type: ignore[arg-type]
        self.processor = with_frame_selection(
            AutoProcessor.from_pretrained(pretrained),
            chooser,
            num_frames=number,
            token_budget=budget,
            timestamps=timestamps,
            temporal_merge=temporal_merge,
            query=multiple_choice if _is_true(options) else "last_user",
            words_in_prompt=words_in_prompt,
        )
        self.processor.tokenizer.padding_side = "left"
        self.record = _of_this_process(Path(record)) if record else None
        self.max_new_tokens = int(max_new_tokens)
        self.system_prompt = system_prompt

    def answer(self, chats: Sequence[Any], **generation: Any) -> tuple[list[str], list[int]]:
        """Answer a batch of chats.

        Args:
            chats: conversations with video blocks.
            **generation: arguments of `generate`; `temperature=0` means greedy.

        Returns:
            The answers, and how many tokens each has.
        """
        import torch

        if self.system_prompt:
            system = {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]}
            chats = [[system, *(m for m in chat if m["role"] != "system")] for chat in chats]
        inputs = self.processor.apply_chat_template(
            list(chats),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"padding": True},
        ).to(self.model.device, dtype=self.model.dtype)
        begin = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            output = self.model.generate(**inputs, **self._generation(generation))
        answers = self.processor.batch_decode(output[:, begin:], skip_special_tokens=True)
        pad = self.processor.tokenizer.pad_token_id
        self._write_record(answers)
        return [a.strip() for a in answers], [int((row[begin:] != pad).sum()) for row in output]

    def _generation(self, asked: dict[str, Any]) -> dict[str, Any]:
        names = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k")
        kwargs = {k: v for k, v in asked.items() if k in names and v is not None}
        kwargs.setdefault("max_new_tokens", self.max_new_tokens)
        if float(kwargs.get("temperature", 0)) > 0:
            kwargs["do_sample"] = True
        else:
            kwargs = {k: v for k, v in kwargs.items() if k not in ("temperature", "top_p", "top_k")} | {
                "do_sample": False
            }
        return {**kwargs, "pad_token_id": self.processor.tokenizer.pad_token_id}

    def _write_record(self, answers: Sequence[str]) -> None:
        if self.record is None:
            return
        chosen = [None if s is None else s.to_dict() for s in last_selections(self.processor)]
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"answers": list(answers), "selections": chosen}, ensure_ascii=False) + "\n")


def _device_of(device: str | None) -> str:
    """Where the model of this process runs: processes of one machine take one GPU each."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    several = local is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device == "auto" and several:
        raise InputError(
            'device="auto" spreads one model over all GPUs, but several processes were started; leave device out, or '
            "start one process"
        )
    if device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{local}" if several else "cuda"
    return device or "cpu"


def _of_this_process(path: Path) -> Path:
    """Several processes write a file each: `record.jsonl`, `record.rank1.jsonl`, …"""
    rank = int(os.environ.get("RANK", "0"))
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path


def _amount(
    num_frames: int | str | None, tokens: int | str | None, of: str, limits: dict[str, int | str]
) -> tuple[int | str | None, TokenBudget | None]:
    """Number of frames and budget from arguments of a command line."""
    try:
        number = num_frames if num_frames in (None, "auto") else int(num_frames)
        whole = {name: int(value) for name, value in limits.items()}
        budget = None if tokens is None else TokenBudget(int(tokens), of=of, **whole)  # type: ignore[arg-type]
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"num_frames, token_budget and its limits must be whole numbers ({error})") from error
    if budget is None and (limits or of != "video"):
        raise InputError(f"{', '.join(limits) or 'budget_of'}: only with token_budget")
    return (32 if number is None and budget is None else number), budget


def _is_true(value: bool | str) -> bool:
    return value if isinstance(value, bool) else value.strip().lower() in ("1", "true", "yes")


def _make_class() -> type:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms
    from lmms_eval.protocol import ChatMessages

    class SelectedVideoModel(lmms):
        """The model that lmms-eval runs under the name "refocus_select"; arguments as for `VideoModel`."""

        is_simple = False

        def __init__(
            self, pretrained: str, batch_size: int | str = 1, max_batch_size: Any = None, **kwargs: Any
        ) -> None:
            super().__init__()
            _check_filelock()
            self.batch_size = int(batch_size)
            self.accelerator = _accelerator()
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
            self.video_model = VideoModel(pretrained, **kwargs)

        @property
        def device(self) -> Any:
            """Where lmms-eval puts the tensors that it exchanges between processes."""
            return self.accelerator.device

        @property
        def model(self) -> Any:
            return self.video_model.model

        def generate_until(self, requests: list[Instance]) -> list[str]:
            answers: list[str] = []
            for start in range(0, len(requests), self.batch_size):
                answers += self._answer(requests[start : start + self.batch_size])
            return answers

        def _answer(self, requests: list[Instance]) -> list[str]:
            chats = []
            for _, doc_to_messages, _, doc_id, task, split in (r.args for r in requests):
                messages = doc_to_messages(self.task_dict[task][split][doc_id])
                chats.append(ChatMessages(messages=messages).to_hf_messages())
            generation = [dict(r.args[2]) for r in requests]
            stops = [stop for g in generation for stop in _as_list(g.get("until"))]
            if all(g == generation[0] for g in generation):
                answers, _ = self.video_model.answer(chats, **generation[0])
            else:
                answers = [self.video_model.answer([c], **g)[0][0] for c, g in zip(chats, generation, strict=True)]
            answers = [_until(a, stops) for a in answers]
            for request, answer in zip(requests, answers, strict=True):
                self.cache_hook.add_partial("generate_until", (request.args[0], request.args[2]), answer)
            return answers

        def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
            raise InputError("refocus_select answers by generation; choose a task with output_type generate_until")

        def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
            raise InputError(
                "refocus_select answers one round per question; choose a task with output_type generate_until"
            )

    SelectedVideoModel.__module__ = __name__
    SelectedVideoModel.__qualname__ = "SelectedVideoModel"
    return SelectedVideoModel


def _check_filelock() -> None:
    """lmms-eval 0.7 imports a module that filelock 4 no longer has, and only when the model is loaded already."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from packaging.version import Version

    try:
        installed = version("lmms-eval")
    except PackageNotFoundError:
        return
    if Version(installed) < Version("0.8") and find_spec("filelock._api") is None:
        raise MissingDependencyError(
            f"lmms-eval {installed} does not start with filelock {version('filelock')}: pip install 'filelock<4'"
        )


def _accelerator() -> Any:
    """lmms-eval gathers results of several processes with it. Answers of one may take long, so others wait for long."""
    from datetime import timedelta

    from accelerate import Accelerator, InitProcessGroupKwargs

    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(weeks=1))])


def _as_list(until: Any) -> list[str]:
    return [until] if isinstance(until, str) else [u for u in (until or []) if u]


def _until(answer: str, stops: Sequence[str]) -> str:
    for stop in stops:
        answer = answer.split(stop)[0] if stop.strip() else answer
    return answer.strip()


def __getattr__(name: str) -> Any:
    """The class derives from one of lmms-eval, so it is made when somebody asks for it."""
    if name != "SelectedVideoModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _make_class()
    globals()[name] = made
    return made
