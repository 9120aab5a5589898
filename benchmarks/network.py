"""Speed and memory of the selection network: `python -m benchmarks.network`.

Four questions, answered side by side in one run on random weights:

a. Reading (prefill) against transformers' own Mamba2 in plain PyTorch, one layer, same weights, float32. Its default
   chunk is 256; the better of 64 and 256 is shown too. Errors are against a token-by-token float64 recurrence.
b. Drawing 64 candidates of 64 picks against one candidate after another with a carried state, and against all
   candidates with a copy of the state each (what the authors' model does).
c. A further question on a cached encoding against encoding the video and asking, 512 candidates, through the selector.
d. Peak memory of that process against the number of candidates, over the memory of a process that encodes 8.

Times are the best of several interleaved runs. `--device cuda` instead runs the published 1.3B shape with random
weights: 512 frames of 384 px, bfloat16 and float32 (written without a GPU at hand, so not yet run on one).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refocus_select.models.backbone import Backbone, BackboneState
from refocus_select.models.config import RefocusConfig, SSMConfig, VisionConfig
from refocus_select.models.refocus import RefocusModel

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def best(runs: int, **tasks: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the fastest of several runs of each task; tasks take turns, after one warm-up each."""
    found = dict.fromkeys(tasks, float("inf"))
    for run in range(runs + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if run:
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def backbone(d: int, layers: int) -> Backbone:
    """A random stack with the state size, head size and expansion of the published model."""
    torch.manual_seed(0)
    config = RefocusConfig(
        d_model=d, n_layer=layers, vocab_size=64, mm_hidden_size=d, frame_encoder="none", mm_spatial_pool_mode="none"
    )
    return Backbone(config).eval()


# -- a -----------------------------------------------------------------------------------------------


def prefill(d: int, tokens: int, runs: int) -> Row:
    """One layer of width d reads `tokens` vectors."""
    ours = backbone(d, 1)
    theirs = {chunk: transformers_mamba2(ours, d, chunk) for chunk in (64, 256)}
    u = torch.randn(1, tokens, d)
    tasks: dict[str, Callable[[], Any]] = {"ours": lambda: ours(u)}
    for chunk, model in theirs.items():
        tasks[f"chunk {chunk}"] = partial(model, inputs_embeds=u, use_cache=False)
    times = best(runs, **tasks)
    short = u[:, : min(tokens, 256)]
    exact = float64_layer(ours, short[0])
    peers = {name: t for name, t in times.items() if name != "ours"}
    return {
        "d": d,
        "tokens": tokens,
        "ours_s": times["ours"],
        "transformers_default_s": times["chunk 256"],
        "transformers_best_s": min(peers.values()),
        "ratio_default": times["chunk 256"] / times["ours"],
        "ratio_best": min(peers.values()) / times["ours"],
        "error_ours": float((ours(short)[0][0].double() - exact).abs().max()),
        "error_transformers": float(
            (theirs[256](inputs_embeds=short, use_cache=False).last_hidden_state[0].double() - exact).abs().max()
        ),
    }


def transformers_mamba2(ours: Backbone, d: int, chunk: int) -> Any:
    """transformers' Mamba2Model with the same weights."""
    from transformers import Mamba2Config, Mamba2Model

    config = Mamba2Config(
        hidden_size=d, num_hidden_layers=len(ours.layers), vocab_size=64, state_size=128, head_dim=64,
        num_heads=2 * d // 64, expand=2, n_groups=1, conv_kernel=4, chunk_size=chunk, use_bias=False,
        use_conv_bias=True, layer_norm_epsilon=1e-5, residual_in_fp32=True,
    )  # fmt: skip
    model = Mamba2Model(config).eval()
    weights = {name.replace("embedding.", "embeddings."): t for name, t in ours.state_dict().items()}
    model.load_state_dict(weights)
    return model


def float64_layer(ours: Backbone, u: Tensor) -> Tensor:
    """The same single layer, one token after another in float64: [L, d] to [L, d]."""
    w = {name: t.double() for name, t in ours.state_dict().items()}
    p = "layers.0.mixer."
    heads, inner, n = len(w[p + "A_log"]), len(w[p + "norm.weight"]), 128
    u = u.double()

    def rms(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight

    z, xbc, dt = (rms(u, w["layers.0.norm.weight"]) @ w[p + "in_proj.weight"].T).split(
        [inner, inner + 2 * n, heads], -1
    )
    padded = F.pad(xbc, (0, 0, 3, 0))
    mixed = sum(w[p + "conv1d.weight"][:, 0, j] * padded[j : j + len(u)] for j in range(4)) + w[p + "conv1d.bias"]
    x, b, c = F.silu(mixed).split([inner, n, n], -1)
    x, dt = x.unflatten(-1, (heads, -1)), F.softplus(dt + w[p + "dt_bias"])
    state, rows = torch.zeros(heads, inner // heads, n, dtype=torch.float64), []
    for t in range(len(u)):
        keep = torch.exp(-dt[t] * torch.exp(w[p + "A_log"]))
        state = keep[:, None, None] * state + (dt[t, :, None] * x[t])[..., None] * b[t]
        rows.append((state @ c[t] + w[p + "D"][:, None] * x[t]).flatten())
    gated = torch.stack(rows) * F.silu(z)
    return rms(u + rms(gated, w[p + "norm.weight"]) @ w[p + "out_proj.weight"].T, w["norm_f.weight"])


# -- b -----------------------------------------------------------------------------------------------


def decoding(d: int, layers: int, frames: int, candidates: int, steps: int, runs: int) -> Row:
    """Draw candidates from one state, three ways, each with its own random numbers."""
    torch.manual_seed(0)
    model = RefocusModel(
        RefocusConfig(
            d_model=d,
            n_layer=layers,
            vocab_size=64,
            mm_hidden_size=d,
            frame_encoder="none",
            mm_spatial_pool_mode="none",
        )
    ).eval()
    keys, values = torch.randn(frames, d), torch.randn(frames, d)
    _, state = model.backbone(torch.randn(1, 64, d))

    def ours() -> Any:
        return model.decode(keys, values, state, steps=steps, num_samples=candidates, sample=True)

    times = best(
        runs,
        ours=ours,
        loop=lambda: [plain_decode(model, keys, values, state, steps) for _ in range(candidates)],
        copies=lambda: plain_decode(
            model, keys, values, state.select_rows(torch.zeros(candidates, dtype=torch.long)), steps
        ),
    )
    return {
        "d": d, "layers": layers, "frames": frames, "candidates": candidates, "steps": steps, "ours_s": times["ours"],
        "row_by_row_s": times["loop"], "state_copies_s": times["copies"],
        "ratio_row_by_row": times["loop"] / times["ours"], "ratio_state_copies": times["copies"] / times["ours"],
    }  # fmt: skip


def plain_decode(model: RefocusModel, keys: Tensor, values: Tensor, state: BackboneState, steps: int) -> Tensor:
    """The textbook loop: the whole recurrent state is rewritten at every step, and frames are drawn row by row."""
    rows = state.rows
    token = model.backbone.embedding.weight[0].expand(rows, 1, -1)
    used = torch.zeros(rows, len(keys), dtype=torch.bool)
    picks = []
    for _ in range(steps):
        hidden, state = model.backbone(token, state)
        logits = model.pointer.logits(model.pointer.queries(hidden[:, 0]), keys, 1.0, None)
        probabilities = logits.masked_fill(used, -torch.inf).softmax(-1)
        pick = torch.cat([torch.multinomial(row, 1) for row in probabilities])
        used[torch.arange(rows), pick] = True
        token = values[pick][:, None]
        picks.append(pick)
    return torch.stack(picks, 1)


# -- c and d -----------------------------------------------------------------------------------------

_MIDDLE = {
    "d_model": 256,
    "n_layer": 4,
    "vocab_size": 257,
    "start_of_frame_token_id": 0,
    "mm_hidden_size": 192,
    "mm_projector_type": "mlp2x_gelu",
    "vision": VisionConfig(192, 768, 4, 6),
    "ssm": SSMConfig(),
}


def encode_and_ask(frames: int, questions: int) -> Row:
    """In this process: encode a video of `frames` candidates, ask, and read the peak memory."""
    selector, video = make_selector(_MIDDLE), StreamedVideo(frames)
    start = time.perf_counter()
    per_frame, per_video = selector.encode_frames(video.pieces(), frames)
    encoded = time.perf_counter() - start
    encoding = video.encoding(selector, per_frame, per_video)
    selector.select(encoding, "Is this a warm-up?", num_frames=8)
    asked = []
    for i in range(questions):
        start = time.perf_counter()
        selector.select(encoding, f"What happens after the {i}. goal?", num_frames=8)
        asked.append(time.perf_counter() - start)
    return {"frames": frames, "encode_s": encoded, "question_s": float(np.median(asked)), "peak_mb": peak_mb()}


def make_selector(fields: dict[str, Any], device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A selector of random weights that reads bytes."""
    from refocus_select.models.prompt import PromptTokenizer
    from refocus_select.selectors.policy import PolicySelector

    torch.manual_seed(0)
    with torch.device(device):
        model = RefocusModel(RefocusConfig(**fields)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.endswith("A_log"):
            parameter.data = parameter.data.to(dtype)
    return PolicySelector(model, PromptTokenizer(byte_tokenizer()), name="random")


def byte_tokenizer() -> Any:
    """Every byte a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


class StreamedVideo:
    """Random frames that exist only while they are read, so that memory is the network's."""

    def __init__(self, frames: int, size: int = 384) -> None:
        self.frames, self.size = frames, size

    def pieces(self) -> Any:
        from refocus_select.video import Frames

        rng = np.random.default_rng(0)
        for first in range(0, self.frames, 8):
            at = np.arange(first, min(first + 8, self.frames))
            data = rng.integers(0, 255, (len(at), self.size, self.size, 3), dtype=np.uint8)
            yield Frames(data=data, indices=at, timestamps=at / 4.0, valid=np.ones(len(at), bool), positions=at)

    def encoding(self, selector: Any, per_frame: dict[str, Tensor], per_video: dict[str, Tensor]) -> Any:
        from refocus_select.encoding import VideoEncoding
        from refocus_select.video import VideoMetadata

        at = np.arange(self.frames)
        return VideoEncoding(
            {**per_frame, **per_video},
            at,
            at / 4.0,
            VideoMetadata("random", self.frames, self.frames / 4.0),
            "random",
            selector.encoding_name,
            selector.encoding_fingerprint,
        )


def peak_mb() -> float:
    """Highest memory of this process so far, in MB."""
    if platform.system() == "Windows":
        return float("nan")
    if platform.system() == "Linux":  # getrusage would also count the parent's peak, which a fork inherits
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1e3
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if platform.system() == "Darwin" else 1e3)


def in_fresh_process(arguments: list[str]) -> Row:
    """Run one part of this file alone, for its memory."""
    command = [sys.executable, "-m", "benchmarks.network", "--part", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


# -- the published shape, on a GPU -------------------------------------------------------------------

_PUBLISHED = {
    "d_model": 2048,
    "n_layer": 48,
    "vocab_size": 50277,
    "pad_vocab_size_multiple": 16,
    "start_of_frame_token_id": 50277,
    "mm_projector_type": "mlp2x_gelu",
    "query_frames": 64,
}


def full_scale(device: str, fields: dict[str, Any], frames: int, steps: int) -> list[Row]:
    """Seconds and GB for encoding, a first and a further question; and how far bfloat16 is from float32."""
    rows, runs = [], {}
    for dtype in (torch.bfloat16, torch.float32):
        selector = make_selector(fields, device, dtype)
        video = StreamedVideo(frames, selector.model.config.vision.image_size)
        if device == "cuda":
            warm = StreamedVideo(16, video.size)
            selector.encode_frames(warm.pieces(), 16)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        encoding = video.encoding(selector, *selector.encode_frames(video.pieces(), frames))
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = [time.perf_counter() - start]
        suffix = selector.tokenizer.suffix("What happens after the goal?")
        for _ in range(2):
            start = time.perf_counter()
            result = selector._decode(encoding, [suffix], steps=steps, num_samples=1, seed=None, sample=False)[0]
            seconds.append(time.perf_counter() - start)
        runs[dtype] = result
        rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."), "frames": frames, "steps": steps, "encode_s": seconds[0],
                "first_question_s": seconds[1], "further_question_s": seconds[2],
                "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else peak_mb() / 1e3,
            }
        )  # fmt: skip
        del selector, encoding
    half, full = runs[torch.bfloat16], runs[torch.float32]
    first = (half.log_probs[0, 0] - full.log_probs[0, 0]).abs()
    shared = len(set(half.picks[0].tolist()) & set(full.picks[0].tolist()))
    rows[0] |= {"mean_log_prob_difference": float(first.mean()), "picks_shared_with_float32": shared}
    return rows


# -- the run -----------------------------------------------------------------------------------------


def run_cpu(quick: bool) -> dict[str, Any]:
    """All four parts; `quick` takes small sizes, for trying the script."""
    runs = 1 if quick else 3
    sizes = [(64, 256)] if quick else [(256, 8192), (512, 8192), (2048, 8192)]
    found: dict[str, Any] = {"prefill": [prefill(d, tokens, runs if d < 2048 else 1) for d, tokens in sizes]}
    found["decoding"] = decoding(64, 1, 40, 4, 4, 1) if quick else decoding(256, 4, 512, 64, 64, 1)
    counts = (1, 2) if quick else (8, 64, 128, 512)
    found["encoding"] = [in_fresh_process([str(count), "20"]) for count in counts]
    base = found["encoding"][0]["peak_mb"]
    for row in found["encoding"]:
        row["over_smallest_mb"] = row["peak_mb"] - base
        row["ratio"] = (row["encode_s"] + row["question_s"]) / row["question_s"]
    return found


def tables(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "### Reading, one layer, float32", "",
        "| d | tokens | ours | transformers, chunk 256 | its best chunk | ratio | to best | errors ours, theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in found["prefill"]:
        lines.append(
            f"| {r['d']} | {r['tokens']} | {r['ours_s']:.3f} s | {r['transformers_default_s']:.3f} s | "
            f"{r['transformers_best_s']:.3f} s | {r['ratio_default']:.1f}x | {r['ratio_best']:.1f}x | "
            f"{r['error_ours']:.1e} / {r['error_transformers']:.1e} |"
        )
    r = found["decoding"]
    lines += [
        "",
        f"### {r['candidates']} x {r['steps']} picks of {r['frames']} frames, d {r['d']}, {r['layers']} layers",
        "",
        "| ours | row by row | a state copy per row | ratio to row by row | ratio to copies |",
        "|---|---|---|---|---|",
        f"| {r['ours_s']:.2f} s | {r['row_by_row_s']:.2f} s | {r['state_copies_s']:.2f} s | "
        f"{r['ratio_row_by_row']:.1f}x | {r['ratio_state_copies']:.1f}x |",
        "",
        "### Encode once, ask again (d 256, 4 layers, 4 tower blocks of width 192 at 384 px, 196 tokens per frame)",
        "",
        "| candidates | encode | further question | (encode + question) / question | peak memory | over the smallest |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in found["encoding"]:
        lines.append(
            f"| {r['frames']} | {r['encode_s']:.1f} s | {r['question_s'] * 1e3:.0f} ms | {r['ratio']:.0f}x | "
            f"{r['peak_mb']:.0f} MB | {r['over_smallest_mb']:+.0f} MB |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run, print the tables, and write them to benchmarks/results/."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: the published 1.3B shape")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--part", nargs=2, metavar=("FRAMES", "QUESTIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.part:
        print(json.dumps(encode_and_ask(*map(int, options.part))))
        return
    command = "python -m benchmarks.network " + " ".join(arguments if arguments is not None else sys.argv[1:])
    setting = {"command": command.strip(), "torch": torch.__version__, "threads": options.threads, "machine": machine()}
    if options.device == "cuda":
        setting["gpu"] = torch.cuda.get_device_name()
        found: dict[str, Any] = {"full_scale": full_scale("cuda", _PUBLISHED, 512, 64)}
        text = "```json\n" + json.dumps(found, indent=2) + "\n```"
    else:
        found = run_cpu(options.quick)
        text = tables(found)
    name = "network-cuda" if options.device == "cuda" else "network"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps({**setting, **found}, indent=2) + "\n")
    head = f"## The selection network\n\n`{setting['command']}` on {setting['machine']}, {options.threads} threads, "
    (options.out / f"{name}.md").write_text(f"{head}torch {torch.__version__}\n\n{text}\n")
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
