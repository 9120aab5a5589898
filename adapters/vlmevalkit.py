"""A launcher for VLMEvalKit that adds a model with frame selection. Not tried against an installed VLMEvalKit.

VLMEvalKit has no plugin interface, so the model is put into its table before its own `run.py` starts:

    python -m refocus_select.adapters.vlmevalkit --pretrained Qwen/Qwen2.5-VL-7B-Instruct --selector mini-policy \\
        --num-frames 32 -- /path/to/VLMEvalKit/run.py --data Video-MME_64frame --work-dir out

Everything behind `--` is the script and its own arguments; `--model` is filled in.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from refocus_select.errors import InputError, MissingDependencyError
from refocus_select.weights import DEFAULT_SELECTOR

from .input_format import TEMPORAL_MERGE, TIMESTAMPS
from .lmms_eval import VideoModel


class SelectedVLM:
    """A model in the form of VLMEvalKit: `VIDEO_LLM` makes datasets hand over the path of the video.

    Args:
        pretrained: Hub id or folder of the model.
        **kwargs: as for `lmms_eval.VideoModel`; arguments that VLMEvalKit adds (`nframe`, `fps`, and for names such as
            "Qwen2.5-VL" `use_vllm`) are not used.

    Raises:
        InputError: if VLMEvalKit was started with `--use-vllm`.
    """

    INSTALL_REQ = False
    INTERLEAVE = True
    VIDEO_LLM = True

    def __init__(self, pretrained: str, **kwargs: Any) -> None:
        if kwargs.pop("use_vllm", False):
            raise InputError("refocus-select answers with transformers here: start VLMEvalKit without --use-vllm")
        for name in ("nframe", "fps", "total_pixels", "verbose", "retry"):
            kwargs.pop(name, None)
        self.video_model = VideoModel(pretrained, **kwargs)

    def generate(self, message: Sequence[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer one message.

        Args:
            message: items with `type` "text", "image" or "video" and `value`.
            dataset: name of the benchmark; not needed.
        """
        (answer,), _ = self.video_model.answer([chat_of(message)])
        return answer

    def set_dump_image(self, dump: Any) -> None:
        """VLMEvalKit announces where pictures of a dataset are written; they arrive as paths."""

    def use_custom_prompt(self, dataset: str) -> bool:
        """The dataset's own prompt is used."""
        return False


def chat_of(message: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message of VLMEvalKit as a chat."""
    content = []
    for item in message:
        kind = item.get("type")
        if kind not in ("text", "image", "video"):
            raise InputError(f"VLMEvalKit sent an item of type {kind!r}; text, image and video are known")
        content.append({"type": kind, kind: item["value"]})
    return [{"role": "user", "content": content}]


def install(name: str, **kwargs: Any) -> None:
    """Put the model into VLMEvalKit's table.

    Args:
        name: how `--model` calls it.
        **kwargs: as for `SelectedVLM`.

    Raises:
        MissingDependencyError: if VLMEvalKit is not installed.
    """
    try:
        import vlmeval.config
        import vlmeval.vlm
    except ImportError as error:
        raise MissingDependencyError(
            "VLMEvalKit is not installed: git clone https://github.com/open-compass/VLMEvalKit, "
            "then pip install -e VLMEvalKit"
        ) from error
    vlmeval.vlm.SelectedVLM = SelectedVLM
    vlmeval.config.supported_VLM[name] = partial(SelectedVLM, **kwargs)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a script of VLMEvalKit with the model added."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--" not in arguments or arguments[-1] == "--":
        raise SystemExit(
            "give the script behind --, e.g. … --pretrained Qwen/Qwen2.5-VL-7B-Instruct -- run.py --data Video-MME"
        )
    split = arguments.index("--")
    script, *rest = arguments[split + 1 :]
    parser = argparse.ArgumentParser(prog="python -m refocus_select.adapters.vlmevalkit", description=__doc__)
    parser.add_argument("--pretrained", required=True, help="Hub id or folder of the model")
    parser.add_argument("--selector", default=DEFAULT_SELECTOR, help='"uniform", "mini-policy", a Hub id, or a folder')
    parser.add_argument("--encoder", default=None, help="dual encoder of a selector that reads vectors")
    parser.add_argument("--num-frames", help="frames per video (default: 32, or what a token budget allows)")
    parser.add_argument("--token-budget", type=int, help="tokens that the video may cost")
    parser.add_argument("--name", default="refocus-select", help="the name of the model in VLMEvalKit's results")
    parser.add_argument("--timestamps", default="auto", choices=TIMESTAMPS, help="how the model is told the times")
    parser.add_argument("--temporal-merge", default="auto", choices=TEMPORAL_MERGE, help="for models that merge frames")
    parser.add_argument("--device", default=None, help='e.g. "cuda", or "auto" for several GPUs')
    parser.add_argument("--dtype", default=None, help='of the weights, e.g. "float16" (default: bfloat16)')
    parser.add_argument("--attn-implementation", default=None, help='e.g. "flash_attention_2"')
    parser.add_argument("--max-new-tokens", type=int, default=None, help="tokens per answer (default: 128)")
    parser.add_argument("--record", default=None, help="a file that gets the chosen times of every question")
    given = parser.parse_args(arguments[:split])
    kwargs = {k: v for k, v in vars(given).items() if k != "name" and v is not None}
    if "/" in given.name:
        raise SystemExit(f"--name {given.name!r} names files: leave the / out")
    install(given.name, **kwargs)
    sys.argv = [script, *rest, "--model", given.name]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
