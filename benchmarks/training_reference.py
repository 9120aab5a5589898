"""Reference scorings per second: `python -m benchmarks.training_reference`.

Training asks a reference model about many subsets of one video's candidates. Two ways, side by side in one run, on the
same random weights, float32, from decoded pictures to the logits of the option letters:

- plain: processor and whole model for every subset, as one would call them for one answer;
- ours: `TransformersReference`, first on a video it has not seen (every candidate goes through the vision tower once),
  then with another question about the same video (visual tokens are there).

The models are LLaVA-OneVision and InternVL in small: real processors and architectures, a vision tower of 12 layers of
width 384, a language model of 4 layers of width 512; and an InternVL whose two parts share the operations as, by our
count, in InternVL3-2B (vision 0.7, language 1.0 TFLOP per frame of 256 tokens), where little is left to save.

All three ways give equal logits, which is checked in the run. Times are CPU seconds of the process, which other work on
the machine does not lengthen much; rates are medians over interleaved runs, each on a video of its own. The plain way
costs the same for every subset, so that it is timed on the first 8 of a group.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from refocus_select.encoding import VideoEncoding
from refocus_select.errors import InputError
from refocus_select.questions import Question
from refocus_select.reference import Request, TransformersReference
from refocus_select.reference.clips import Clip
from refocus_select.selectors import FrameSelector

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-3
PLAIN_SUBSETS = 8
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for block in message['content'] %}"
    "{% if block['type'] == 'video' %}VIDEO\n{% else %}{{ block['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Row = dict[str, Any]

_QUESTIONS = [
    Question("first", "v", "What does the woman put on the table?", ("a cup", "a book", "a key", "a hat"), 0),
    Question("second", "v", "Where does the man go in the end?", ("home", "to work", "to the sea", "nowhere"), 2),
]


class Pictures(Clip):
    """Decoded pictures, so that decoding is not part of any time."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (count, 36, 64, 3), dtype=np.uint8)
        self._pictures = coarse.repeat(10, axis=1).repeat(10, axis=2)  # 360 x 640
        self.timestamps = np.arange(count) * 0.5
        self.duration = count * 0.5
        self.key = f"pictures-{count}-{seed}"

    def pictures(self, positions: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
        return self._pictures[positions]

    def encoding(self, reader: FrameSelector) -> VideoEncoding:
        raise InputError("these pictures are for reference models")


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: pixels per side, layers and width of the vision tower, of the language model."""

    side: int
    depth: int
    width: int
    layers: int
    text_width: int


def _text(tokenizer: Any, shape: Shape) -> t.Qwen2Config:
    return t.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.text_width,
        intermediate_size=shape.text_width * 11 // 4,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.text_width // 64,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        pad_token_id=tokenizer.pad_token_id,
    )


def tokenizer(*special: str, **named: str) -> t.PreTrainedTokenizerFast:
    """One token for a word of the prompts, one for a digit, as in the tokenizers of Qwen."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    texts = [_choices(q) for q in _QUESTIONS] + [_words(name, np.arange(9.0), 9.0) for name in ("InternVL", "other")]
    words = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", *special, *named.values()]
    core.train_from_iterator(
        [f"{text} Frame1: user assistant" for text in texts],
        trainers.BpeTrainer(
            vocab_size=4000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=words,
            show_progress=False, min_frequency=1,
        ),
    )  # fmt: skip
    extra = {"extra_special_tokens": named} if named else {}
    return t.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", **extra)


def llava_onevision(shape: Shape) -> tuple[Any, Any]:
    """Patches of 14 pixels, pooled by two to (side / 28)² tokens per frame."""
    side = shape.side
    size = {"height": side, "width": side}
    pins = [[side, side], [2 * side, 2 * side]]
    processor = t.LlavaOnevisionProcessor(
        image_processor=t.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pins),
        tokenizer=tokenizer("<image>", "<video>"),
        video_processor=t.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(side // 14) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("VIDEO", "<video>"),
    )
    vision = t.SiglipVisionConfig(
        hidden_size=shape.width, intermediate_size=4 * shape.width, num_hidden_layers=shape.depth,
        num_attention_heads=shape.width // 64, image_size=side,
        patch_size=14, vision_use_head=False,
    )  # fmt: skip
    config = t.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=_text(processor.tokenizer, shape),
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=processor.tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pins,
        vision_feature_select_strategy="full",
    )
    return t.LlavaOnevisionForConditionalGeneration(config), processor


def internvl(shape: Shape) -> tuple[Any, Any]:
    """Patches of 14 pixels, four of them to a token: (side / 28)² tokens per frame."""
    side = shape.side
    size = {"height": side, "width": side}
    tokens = (side // 28) ** 2
    names = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    processor = t.InternVLProcessor(
        image_processor=t.GotOcr2ImageProcessor(size=size),
        tokenizer=tokenizer(**names),
        video_processor=t.InternVLVideoProcessor(size=size),
        image_seq_length=tokens,
        chat_template=CHAT.replace("VIDEO", "<video>"),
    )
    vision = {
        "hidden_size": shape.width, "intermediate_size": 4 * shape.width, "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.width // 64,
        "image_size": [side, side], "patch_size": [14, 14],
    }  # fmt: skip
    config = t.InternVLConfig(
        vision_config=vision,
        text_config=_text(processor.tokenizer, shape),
        image_token_id=processor.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=tokens,
    )
    return t.InternVLForConditionalGeneration(config), processor


BUILDERS: dict[str, Callable[[Shape], tuple[Any, Any]]] = {"LLaVA-OneVision": llava_onevision, "InternVL": internvl}
MODELS = [
    ("LLaVA-OneVision", Shape(294, 12, 384, 4, 512)),
    ("InternVL", Shape(224, 12, 384, 4, 512)),
    ("InternVL", Shape(224, 6, 256, 6, 640)),  # 2.8 and 3.9 GFLOP per frame
]


def plain(model: Any, processor: Any, name: str, question: Question, clip: Clip, subsets: Tensor) -> Tensor:
    """Every subset by itself, as documentation of transformers shows it, [N, options]."""
    letters = [processor.tokenizer.convert_tokens_to_ids(x) for x in "ABCD"[: len(question.options)]]
    rows = []
    for subset in subsets.numpy():
        times = clip.timestamps[subset]
        metadata = {
            "total_num_frames": round(1000 * clip.duration),
            "fps": 1000.0,
            "duration": clip.duration,
            "frames_indices": [round(1000 * x) for x in times],
        }
        video = {"type": "video", "video": clip.pictures(subset)}
        text = {"type": "text", "text": _words(name, times, clip.duration) + _choices(question)}
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": [video, text]}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"do_sample_frames": False, "video_metadata": [metadata]},
        )
        rows.append(model(**inputs, logits_to_keep=1).logits[0, -1, letters])
    return torch.stack(rows)


def _words(name: str, times: np.ndarray, duration: float) -> str:
    if name == "InternVL":
        named = ", ".join(f"Frame{k} is at {x:.2f}s" for k, x in enumerate(times, start=1))
        return f"The video lasts for {duration:.2f} seconds. {named}.\n"
    located = ",".join(f"{x:.2f}s" for x in times)
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(times)} frames are selected from it. "
        f"These frames are located at {located}.\n"
    )


def _choices(question: Question) -> str:
    options = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", question.options, strict=True))
    return f"{question.question}\n{options}Answer with the option's letter from the given choices directly."


def measure(name: str, shape: Shape, *, subsets: int, num_frames: int, candidates: int, runs: int) -> Row:
    """CPU seconds of one group of subsets, each way."""
    torch.manual_seed(0)
    model, processor = BUILDERS[name](shape)
    reference = TransformersReference(model.eval(), processor)
    times: dict[str, list[float]] = {"plain": [], "first question": [], "further question": []}
    worst, towers = 0.0, []
    tower = model.model.vision_tower
    tower.register_forward_hook(lambda *_: towers.append(1))
    rng = np.random.default_rng(0)
    for run in range(runs + 1):
        count = 2 if run == 0 else subsets  # the first run warms up
        clip = Pictures(candidates, run)
        rows = [np.sort(rng.choice(candidates, num_frames, replace=False)) for _ in range(count)]
        group = torch.as_tensor(np.stack(rows))
        found, seconds = {}, {}
        for key, question in zip(("first question", "further question"), _QUESTIONS, strict=True):
            towers.clear()
            start = time.process_time()
            (found[key],) = reference.option_logits([Request(question, clip, group)])
            seconds[key] = time.process_time() - start
            expected = len(group.unique()) if key == "first question" else 0
            if len(towers) != expected:
                raise RuntimeError(f"{len(towers)} frames went through the vision tower instead of {expected}")
        start = time.process_time()
        found["plain"] = plain(model, processor, name, _QUESTIONS[0], clip, group[:PLAIN_SUBSETS])
        seconds["plain"] = (time.process_time() - start) * count / len(found["plain"])
        worst = max(worst, float((found["plain"] - found["first question"][:PLAIN_SUBSETS]).abs().max()))
        again = plain(model, processor, name, _QUESTIONS[1], clip, group[:2])
        worst = max(worst, float((again - found["further question"][:2]).abs().max()))
        if run:
            print(f"{name}, run {run}:", {key: f"{value:.1f} s" for key, value in seconds.items()}, file=sys.stderr)
            for key, value in seconds.items():
                times[key].append(value)
    if worst > TOLERANCE:
        raise RuntimeError(f"{name}: the ways differ by {worst:g}, more than {TOLERANCE:g}")
    middle = {key: statistics.median(values) for key, values in times.items()}
    return {
        "model": name,
        "shape": asdict(shape),
        "tokens_per_frame": math.ceil(shape.side / 28) ** 2,
        "subsets": subsets,
        "num_frames": num_frames,
        "candidates": candidates,
        "runs": runs,
        "seconds": times,
        "subsets_per_second": {key: subsets / value for key, value in middle.items()},
        "ratio_first": statistics.median(a / b for a, b in zip(times["plain"], times["first question"], strict=True)),
        "ratio_further": statistics.median(
            a / b for a, b in zip(times["plain"], times["further question"], strict=True)
        ),
        "largest_difference": worst,
    }


def reference_rates(*, quick: bool = False, runs: int = 3) -> list[Row]:
    """The measurement of every model."""
    rows = []
    for name, shape in MODELS:
        group = {"subsets": 4, "num_frames": 4, "candidates": 8} if quick else {
            "subsets": 32, "num_frames": 8, "candidates": 64,
        }  # fmt: skip
        rows.append(measure(name, Shape(56, 2, 64, 2, 128) if quick else shape, **group, runs=1 if quick else runs))
    return rows


def table(rows: list[Row]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| model | group | plain | ours, first question | ours, further question | ratio, first | further "
        "| largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate, shape = row["subsets_per_second"], row["shape"]
        lines.append(
            f"| {row['model']}, {shape['side']} px, {row['tokens_per_frame']} tokens per frame; vision "
            f"{shape['depth']} x {shape['width']}, language {shape['layers']} x {shape['text_width']} "
            f"| {row['subsets']} x {row['num_frames']} of {row['candidates']} | {rate['plain']:.2f}/s "
            f"| {rate['first question']:.2f}/s | {rate['further question']:.2f}/s | {row['ratio_first']:.1f}x "
            f"| {row['ratio_further']:.1f}x | {row['largest_difference']:.0e} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run, print the table, and write it to benchmarks/results/."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_reference", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--runs", type=int, default=3, help="measured runs, after one to warm up")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    command = "python -m benchmarks.training_reference " + " ".join(sys.argv[1:] if arguments is None else arguments)
    rows = reference_rates(quick=options.quick, runs=options.runs)
    setting = {
        "command": command.strip(),
        "machine": machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "transformers": t.__version__,
    }
    head = (
        f"## Reference scorings per second\n\n`{setting['command']}` on {setting['machine']}, {options.threads} "
        f"threads, torch {torch.__version__}, transformers {t.__version__}, float32. "
        "Subsets per CPU second, from decoded pictures to option logits.\n"
    )
    text = f"{head}\n{table(rows)}\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training-reference.json").write_text(json.dumps({**setting, "rows": rows}, indent=2) + "\n")
    (options.out / "training-reference.md").write_text(text)
    print(text)


def machine() -> str:
    """The processor in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
