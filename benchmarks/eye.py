"""CPU time of the embedded encoder per frame, by what computes it:  python -m benchmarks.eye [--frames 32] [--rounds 9]

On one thread, in one process and in turn, so that whoever else uses the machine disturbs all alike: ONNX Runtime,
PyTorch in float32, and where the processor multiplies in bfloat16 also that, for both networks or for the detector, as
the encoder does there; OpenVINO, if it is installed, computes the same ONNX model of the image network. Frames are of
the film in `examples/`, at the size that the encoder asks for. Besides, the cosine of the vectors with those of PyTorch
in float32, and what the first frame costs (loading the runtime and preparing the networks).
Writes benchmarks/results/eye.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus_select import open_video
from refocus_select.models import mini
from refocus_select.models.mini import MiniEncoder
from refocus_select.weights import resolve

ROOT = Path(__file__).resolve().parent.parent
FILM = ROOT / "examples/film/big_buck_bunny.mp4"
RESULT = ROOT / "benchmarks/results/eye.md"


def film_frames(count: int, size: tuple[int, int]) -> np.ndarray:
    """Frames spread over the film, uint8 [count, H, W, 3]."""
    with open_video(str(FILM)) as video:
        return np.asarray(video.get_frames(np.linspace(0, len(video) - 1, count).astype(int), size=size).data)


def encoders() -> dict[str, tuple[MiniEncoder, float]]:
    """Encoder and CPU seconds to its first frame, by what computes the networks."""
    found = {}
    usual = mini._image_dtype
    has_half = usual(torch.device("cpu")) != torch.float32
    first = film_frames(1, (225, 225))
    half = ["PyTorch, bfloat16", "ONNX Runtime, the detector by PyTorch in bfloat16"] if has_half else []
    for name in ("ONNX Runtime", "PyTorch, float32", *half):
        mini._image_dtype = usual if name.endswith("bfloat16") else lambda device: torch.float32
        runtime = "torch" if name.startswith("PyTorch") else "onnxruntime"
        encoder = MiniEncoder.from_pretrained(resolve("mini"), device="cpu", runtime=runtime)
        began = time.process_time()
        encoder.encode_frames(first)
        found[name] = encoder, time.process_time() - began
    mini._image_dtype = usual
    return found


def network_by_openvino(encoder: MiniEncoder) -> Callable[[np.ndarray], Any] | None:
    """The image network alone, on one thread; None where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(encoder.image.to_onnx(encoder.frame_size)), "CPU", settings)
    return lambda pixels: compiled([pixels])


def cpu_ms(tasks: dict[str, Callable[[], Any]], rounds: int, frames: int) -> dict[str, float]:
    """Median CPU time per frame of each task, in milliseconds, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            if number:  # the first round warms up
                times[name].append(1000 * (time.process_time() - began) / frames)
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = encoders()
    frames = film_frames(arguments.frames, (225, 225))
    tasks: dict[str, Callable[[], Any]] = {
        name: (lambda encoder=encoder: encoder.encode_frames(frames)) for name, (encoder, _) in chosen.items()
    }
    first = next(iter(chosen.values()))[0]
    openvino = network_by_openvino(first)
    if openvino:
        pixels = frames[:8].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        tasks["OpenVINO, the image network alone"] = lambda: [openvino(pixels) for _ in range(0, len(frames), 8)]
    times = cpu_ms(tasks, arguments.rounds, len(frames))
    exact = chosen["PyTorch, float32"][0].encode_frames(frames)
    lines = [
        "`python -m benchmarks.eye`, one thread, CPU time, medians, taken in turn in one process; "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}.",
        "",
        "| computed by | ms a frame | of PyTorch float32 | first frame, s | least cosine to PyTorch float32 |",
        "|---|---|---|---|---|",
    ]
    for name, value in times.items():
        line = f"| {name} | {value:.1f} | {value / times['PyTorch, float32']:.2f} "
        if name in chosen:
            encoder, started = chosen[name]
            cosine = torch.nn.functional.cosine_similarity(encoder.encode_frames(frames), exact).min()
            line += f"| {started:.2f} | {cosine:.5f} |"
        else:
            line += "| | |"
        lines.append(line)
    text = "\n".join(lines) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
