"""Hold the network against recorded outputs of the authors' code: `python -m tests.golden CASE_DIR …`.

A case is a checkpoint in the authors' format (config.json, vision_config.json, model.safetensors) with its
inputs.safetensors and outputs.safetensors. For every output tensor the largest absolute difference and the tolerance
are printed; the exit status is 0 only if every tensor of every case holds. A folder without a checkpoint is taken for
the model-independent goldens (resizing, pixel values, candidate rule, export rule, marginals). float32 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from refocus_select.errors import InputError, RefocusError
from refocus_select.hub import find_checkpoint
from refocus_select.models.checkpoint import load_model
from refocus_select.models.preprocess import normalise_frames, resize_frames
from refocus_select.models.prompt import IMAGE_TOKEN_ID
from refocus_select.models.refocus import Decoded, RefocusModel
from refocus_select.models.vision import pool_patches

FEATURES, LOG_PROBS, PIXELS, EXACT = 5e-5, 1e-4, 1e-6, 0.0
LEVEL = 1.0  # OpenCV resizes by other code on other processors, and rounds a few pixels to the next of 256 levels
_DECODE_FIELDS = {
    "log_probs": LOG_PROBS,
    "selection_logp": LOG_PROBS,
    "sampler_logp": LOG_PROBS,
    "rank_logits": LOG_PROBS,
    "query_hidden": FEATURES,
    "queries": FEATURES,
    "rank_hidden": FEATURES,
    "decoder_inputs": FEATURES,
    "idx": EXACT,
    "margin": 2 * LOG_PROBS,  # a difference of two log-probabilities
}


@dataclass(frozen=True)
class Row:
    """One compared tensor; `difference` is inf if shapes or the places of -inf differ."""

    name: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.tolerance


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; inf for another shape, other infinite entries, or NaN anywhere."""
    if ours.shape != theirs.shape:
        return float("inf")
    a, b = ours.detach().double(), theirs.double()
    infinite = torch.isinf(b)
    if a.isnan().any() or b.isnan().any() or not torch.equal(torch.isinf(a), infinite):
        return float("inf")
    if not torch.equal(a[infinite], b[infinite]):
        return float("inf")
    finite = (a - b)[~infinite].abs()
    return float(finite.max()) if finite.numel() else 0.0


class Case:
    """A checkpoint with inputs, run once; `produce(name)` gives our counterpart of each recorded tensor."""

    def __init__(self, folder: Path) -> None:
        self.model: RefocusModel = load_model(find_checkpoint(folder), device="cpu", dtype="float32")
        inputs = load_file(folder / "inputs.safetensors")
        self.theirs = load_file(folder / "outputs.safetensors")
        self.inputs = inputs
        ids = inputs["input_ids"]
        if int((ids == IMAGE_TOKEN_ID).sum()) != 1:
            raise InputError("input_ids hold more or less than one image marker; a selector reads one video")
        marker = int((ids == IMAGE_TOKEN_ID).nonzero()[0])
        self.prefix, self.suffix = ids[:marker], ids[marker + 1 :]
        # The cases were recorded from the image processor on; the loader's own resizing has goldens of its own.
        self.pixels = normalise_frames(inputs["frames"].numpy(), self.model.config.vision)
        self._decoded: dict[str, Decoded] = {}
        self._run()

    @torch.no_grad()
    def _run(self) -> None:
        model = self.model
        assert model.vision is not None
        self.patches = torch.cat([model.vision(piece) for piece in self.pixels.split(4)])
        self.pooled = pool_patches(self.patches, model.config.mm_spatial_pool_mode)
        self.tokens = model.embed_frames(self.pixels)
        # As a user's selector does it: in segments with carried state, the question last.
        state = model.start(self.prefix)
        keys, values = [], []
        for segment in self.tokens.split(3):
            k, v, state = model.read_frames(segment, state)
            keys.append(k)
            values.append(v)
        self.keys, self.values = torch.cat(keys), torch.cat(values)
        self.state = model.read_text(self.suffix[None], state)
        # And the whole prompt at once.
        embed = model.backbone.embedding
        self.embeds = torch.cat([embed(self.prefix), self.tokens.flatten(0, 1), embed(self.suffix)])[None]
        self.hidden, self.full_state = model.backbone(self.embeds)
        self.tails = len(self.prefix) + (torch.arange(len(self.tokens)) + 1) * self.tokens.shape[1] - 1

    def produce(self, name: str) -> Tensor | None:
        """Our value for an output tensor; None for a name that is not known."""
        if match := re.fullmatch(r"(conv|ssm)_state\.(\d+)", name):
            return getattr(self.state.layers[int(match[2])], match[1])
        if match := re.fullmatch(r"(norep|rep)_t([\d.]+)\.(\w+)", name):
            return self._forced(match[1], float(match[2]), match[3])
        if match := re.fullmatch(r"(greedy|sampled)_(norep|rep)\.(\w+)", name):
            return self._free(match[1], match[2], match[3])
        theirs = self.theirs[name]
        first = theirs.shape[0] if theirs.ndim else 0
        simple: dict[str, Callable[[], Tensor]] = {
            "pixel_values_first": lambda: _like(self.pixels[:first], theirs),
            "pixel_values_frame_mean": lambda: self.pixels.mean((2, 3)),
            "pixel_values_frame_std": lambda: self.pixels.std((2, 3)),
            "vision_hidden_first": lambda: self.patches[:first],
            "vision_pooled_first": lambda: self.pooled[:first],
            "visual_features_first": lambda: self.tokens[:first],
            "visual_features": lambda: self.tokens,
            "inputs_embeds": lambda: self.embeds,
            "seq_len": lambda: torch.tensor(self.embeds.shape[1]),
            "tail_positions": lambda: self.tails,
            "hidden_states": lambda: self.hidden,
            "hidden_tail": lambda: self.hidden[0, self.tails],
            "hidden_last": lambda: self.hidden[:, -1],
            "keys": lambda: self.keys,
            "values": lambda: self.values,
            "logit_scale_effective_t1": lambda: self.model.pointer.scale(),
        }
        return simple[name]() if name in simple else None

    @torch.no_grad()
    def _forced(self, mode: str, temperature: float, field: str) -> Tensor | None:
        replace, picks = mode == "rep", self.inputs[f"forced_idx_{mode}"]
        key = f"{mode}{temperature}"
        if f"{key}.parallel" not in self._decoded:
            common: dict[str, Any] = {"temperature": temperature, "replace": replace}
            self._decoded[f"{key}.parallel"] = self.model.score(self.keys, self.values, self.state, picks, **common)
            self._decoded[f"{key}.steps"] = self.model.decode(
                self.keys,
                self.values,
                self.state,
                steps=picks.shape[2],
                num_samples=picks.shape[1],
                forced=picks,
                **common,
            )
        parallel: Any = self._decoded[f"{key}.parallel"]
        steps = self._decoded[f"{key}.steps"]
        if field == "log_probs":  # both passes must hold: give the one that is further away
            return _further(parallel.log_probs[0], steps.log_probs[0], self.theirs[f"{mode}_t{temperature}.log_probs"])
        if field == "rank_logits" and steps.rank_logits is not None:
            theirs = self.theirs[f"{mode}_t{temperature}.rank_logits"]
            return _further(parallel.rank_logits[0], steps.rank_logits[0], theirs)
        found = {
            "selection_logp": parallel.pick_log_probs[0],
            "sampler_logp": steps.pick_log_probs[0],
            "query_hidden": parallel.hidden[:, :-1],
            "queries": parallel.queries,
            "rank_hidden": parallel.hidden[:, -1:],
            "decoder_inputs": parallel.inputs,
        }
        return found.get(field)

    @torch.no_grad()
    def _free(self, kind: str, mode: str, field: str) -> Tensor | None:
        key = f"{kind}_{mode}"
        theirs, sampled = self.theirs[f"{key}.idx"], kind == "sampled"
        if field == "idx":  # a run of our own: for samples, the recorded random numbers are drawn again
            if sampled:
                torch.manual_seed(1234)
            ours = self._decode(theirs, mode, sample=sampled)
            return ours.picks[0] if sampled else ours.picks[0, 0]
        if key not in self._decoded:  # the numbers are compared along the recorded picks
            self._decoded[key] = self._decode(theirs, mode, forced=theirs.reshape(1, -1, theirs.shape[-1]))
        ours = self._decoded[key]
        if field == "margin":
            best = ours.log_probs[0, 0].topk(2).values
            return best[:, 0] - best[:, 1]
        values = {"log_probs": ours.log_probs, "selection_logp": ours.pick_log_probs, "rank_logits": ours.rank_logits}
        found = values.get(field)
        if found is None:
            return None
        return found[0] if sampled or field == "rank_logits" else found[0, 0]

    def _decode(self, picks: Tensor, mode: str, **kwargs: Any) -> Decoded:
        samples = len(picks) if picks.ndim == 2 else 1
        return self.model.decode(
            self.keys,
            self.values,
            self.state,
            steps=picks.shape[-1],
            num_samples=samples,
            replace=mode == "rep",
            **kwargs,
        )


def _like(pixels: Tensor, theirs: Tensor) -> Tensor:
    """Large pictures are recorded at every third pixel."""
    return pixels if pixels.shape == theirs.shape else pixels[..., ::3, ::3]


def _further(one: Tensor, other: Tensor, theirs: Tensor) -> Tensor:
    return one if difference(one, theirs) >= difference(other, theirs) else other


def _tolerance(name: str) -> float:
    if name.startswith("pixel_values"):
        # Mean and deviation over a picture are sums of many float32 numbers.
        return PIXELS if name == "pixel_values_first" else 1e-5
    if name in ("seq_len", "tail_positions"):
        return EXACT
    return _DECODE_FIELDS.get(name.rsplit(".", 1)[-1], FEATURES) if "." in name else FEATURES


def check_case(folder: Path) -> Iterator[Row]:
    """Compare every output tensor of a checkpoint case."""
    case = Case(folder)
    for name in sorted(case.theirs):
        ours = case.produce(name)
        far = float("inf") if ours is None else difference(ours, case.theirs[name])
        yield Row(name, far, _tolerance(name))


def check_aux(folder: Path) -> Iterator[Row]:
    """Compare the goldens that need no model."""
    from refocus_select.models.config import VisionConfig
    from refocus_select.selectors.protocol import marginal_log_probs, released_frames
    from refocus_select.video.candidates import paper_indices

    tensors = load_file(folder / "preprocess.safetensors")
    for name in sorted(n for n in tensors if n.endswith(".in")):
        kind, frames, theirs = name.split(".")[0], tensors[name].numpy(), tensors[f"{name[:-3]}.out"]
        if kind == "resize":
            ours = torch.from_numpy(resize_frames(frames, 384 if "384" in name else 56))
            ours = ours if ours.shape == theirs.shape else ours[:, ::3, ::3]
            yield Row(name[:-3], difference(ours, theirs), LEVEL)
        else:
            ours = normalise_frames(frames, VisionConfig(image_size=56))
            yield Row(name[:-3], difference(ours, theirs), PIXELS)

    for entry in json.loads((folder / "candidate_sampling.json").read_text()):
        indices = paper_indices(
            entry["total_frames"], entry["fps"], fps=entry["max_fps"], max_frames=entry["max_num_frames"]
        )
        name = f"candidates.{entry['total_frames']}@{entry['fps']:g}"
        yield Row(name, difference(torch.from_numpy(indices), torch.tensor(entry["idx"])), EXACT)

    for name, entry in json.loads((folder / "export.json").read_text()).items():
        index = np.asarray(entry["frame_idx"])
        for field, candidate, ordered in (("out_cand0_sorted", 0, True), ("out_cand2_sorted", 2, True),
                                          ("out_cand0_raw", 0, False)):  # fmt: skip
            picks = None if entry["candidates"] is None else np.asarray(entry["candidates"][candidate])
            frames = released_frames(index, picks, ordered=ordered)
            yield Row(f"export.{name}.{field}", difference(torch.from_numpy(frames), torch.tensor(entry[field])), EXACT)

    marginal = load_file(folder / "marginal.safetensors")
    ours = torch.from_numpy(marginal_log_probs(marginal["logp"].numpy()))
    yield Row("marginal_log", difference(ours, marginal["marginal_log"]), 1e-6)


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; 0 if all holds, 1 if something does not, 2 if a case cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE_DIR")
    status = 0
    for folder in parser.parse_args(arguments).cases:
        print(f"{folder}")
        try:
            rows = list(check_case(folder) if (folder / "config.json").is_file() else check_aux(folder))
        except (RefocusError, OSError) as error:
            print(f"  REFUSED  {type(error).__name__}: {error}")
            status = 2
            continue
        width = max(len(row.name) for row in rows)
        for row in rows:
            print(
                f"  {'ok  ' if row.holds else 'FAIL'} {row.name:<{width}}  {row.difference:.3g}  (<= {row.tolerance:g})"
            )
        failed = sum(not row.holds for row in rows)
        print(f"  {len(rows) - failed} of {len(rows)} tensors hold")
        status = max(status, int(failed > 0))
    return status


if __name__ == "__main__":
    sys.exit(main())
