"""The parts of the comparison that are run once for each encoder: composed videos, recognition, real clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from refocus_select import FrameSelector
from refocus_select.encoders import DualEncoder
from refocus_select.encoding import VideoEncoding
from refocus_select.reference.reader import ReaderReference
from refocus_select.selectors.dual_encoder import DualEncoderSelector
from refocus_select.train_selector.storyboards import Bank, Storyboards

from ..storyboards.views import background_frames, draw_series
from .contenders import Scores, blind, oracle, policy
from .eyes import EYES, SimulatedEye
from .figures import mean_of
from .second_pair import SecondPair
from .storyboards import View, compare, summary, tune, tuned_pickers

SIZES = (4, 8, 16, 32)
SECOND = "second pair"


@dataclass(frozen=True)
class Eye:
    """An encoder and how it sees composed videos."""

    encoder: DualEncoder
    view: View


def simulated(base: DualEncoder, bank: Bank) -> dict[str, Eye]:
    """The simulated encoders."""
    eyes = {settings.name: SimulatedEye(settings, base, bank) for settings in EYES}
    return {name: Eye(eye, eye.view) for name, eye in eyes.items()}


def second(bank: Bank, materials: Path, splits: Sequence[str]) -> Eye:
    """The real second pair; the pictures of the bank are drawn and encoded once and kept below `materials`."""
    pair = SecondPair(materials)
    stored = materials / f"bank-{bank.fingerprint[:12]}-{pair.fingerprint[-12:]}-{'-'.join(splits)}.safetensors"
    if not stored.is_file():
        save_file(_encoded(bank, pair, materials, splits), stored)
    rows = load_file(stored)
    own = dataclasses.replace(
        bank, encoder=pair.fingerprint, thing_rows=rows["things"], background_rows=rows["backgrounds"]
    )
    worlds: dict[tuple[str, int, int], Storyboards] = {}
    reader = DualEncoderSelector(pair)

    def view(boards: Storyboards, index: int, encoding: VideoEncoding) -> VideoEncoding:
        key = boards.fingerprint, boards.seed, len(boards)
        if key not in worlds:
            worlds[key] = Storyboards(
                own, boards.split, seed=boards.seed, num_questions=len(boards), num_candidates=boards.sizes,
                num_scenes=boards.scenes, types=boards.types, noise=boards.noise, haze=boards.haze, pace=boards.pace,
            )  # fmt: skip
        mine = worlds[key]
        tensors = mine(f"storyboard/{mine.fingerprint}/{index}").encoding(reader).tensors
        return dataclasses.replace(
            encoding, tensors={"embeddings": tensors["embeddings"]}, encoder=pair.name,
            encoder_fingerprint=pair.fingerprint,
        )  # fmt: skip

    return Eye(pair, view)


def _encoded(bank: Bank, encoder: SecondPair, root: Path, splits: Sequence[str]) -> dict[str, torch.Tensor]:
    size = encoder.frame_size[0]
    things, behind = torch.zeros_like(bank.thing_rows), torch.zeros_like(bank.background_rows)
    backgrounds = list(bank.backgrounds)
    for number, record in enumerate(bank.series):
        if record["split"] in splits:
            things[number] = encoder.encode_frames(draw_series(root, dict(record), backgrounds, size))
    for number, clip in enumerate(backgrounds):
        if clip["split"] in splits:
            start, stop = bank.background_starts[number : number + 2]
            key = clip["source"], clip["path"], tuple(clip["frames"])
            behind[start:stop] = encoder.encode_frames(background_frames(root, key, size))
    return {"things": things, "backgrounds": behind}


def composed(
    eye: Eye,
    bank: Bank,
    readers: Sequence[ReaderReference],
    policies: Mapping[str, FrameSelector],
    split: str,
    *,
    tuning: int,
    questions: int,
) -> dict[str, Any]:
    """Everybody on composed videos of 64 candidates, as one encoder sees them; the unseen reader answers.

    Args:
        eye: the encoder.
        bank: the pictures.
        readers: the first is the one of the tables.
        policies: that use the eye's encoder.
        split: whose questions are asked.
        tuning: validation questions on which the training-free algorithms are tuned, for each K.
        questions: that are asked.
    """
    scores = Scores(eye.encoder)
    tuned = tune(bank, readers[:1], scores, tuning, SIZES, eye.view)
    pickers = blind(scores) | tuned_pickers(tuned, scores)
    del pickers["mini"]  # its thresholds are the embedded encoder's
    pickers |= {name: policy(chooser) for name, chooser in policies.items()}  # type: ignore[arg-type]
    pickers["oracle"] = oracle
    boards = Storyboards(bank, split, seed=0, num_questions=questions)
    outcomes = compare(boards, pickers, readers[:1], SIZES, eye.view)
    return {
        "encoder": eye.encoder.fingerprint,
        "tuned": tuned,
        **summary(outcomes, list(policies)),
        "alarms": {name: alarms(boards, eye.view, chooser, readers[0]) for name, chooser in policies.items()},
    }


def alarms(boards: Storyboards, view: View, chooser: FrameSelector, reader: ReaderReference) -> dict[str, Any]:
    """How often a policy says "not to be seen" of a thing that is (false), and fails to of one that is not (missed).

    Each video is asked for one of its things, and for one that neither it shows nor anything like it.
    """
    false, missed = [], []
    rng = np.random.default_rng(3)
    cast, concepts = boards.cast, boards.bank.concepts
    for index, question in enumerate(boards):
        _, layout = boards.item(index)
        encoding = view(boards, index, boards(question.video).encoding(reader.selector))
        shown = sorted({int(x) for x in layout.shown if x >= 0})
        near = set(shown).union(*(concepts[x].near for x in shown))
        absent = [int(x) for x in cast.everyone if int(x) not in near]
        for concept, said in ((rng.choice(shown), false), (rng.choice(absent), missed)):
            asked = f"At what point can one see the {concepts[int(concept)].name}?"
            chosen = chooser.select(encoding, asked, num_frames=8)
            said.append(float((chosen.strategy != "selected") == (said is false)))
    return {"false alarms": mean_of(false), "missed alarms": mean_of(missed)}
