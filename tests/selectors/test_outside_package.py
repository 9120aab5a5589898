"""A package of somebody else, really installed, brings a selector and an encoder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refocus_select import FrameSelector
from refocus_select.encoders import encoder_names, load_encoder, register_encoder
from refocus_select.errors import EncoderError, InputError, SelectorLoadError
from refocus_select.selectors import register_selector, selector_names
from refocus_select.video import open_video
from tests.brightness import BrightnessSelector, ramp

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "bright-frames"
version = "1.0"

[project.entry-points."refocus_select.selectors"]
brightest = "bright_frames:Brightest"
broken = "bright_frames_that_are_not_here:Anything"
uniform = "bright_frames:Brightest"

[project.entry-points."refocus_select.encoders"]
light = "bright_frames:LightEncoder"

[tool.setuptools]
py-modules = ["bright_frames"]
"""

MODULE = """\
import numpy as np
import torch

from refocus_select.selectors import Choice, FrameSelector
from refocus_select.video import CandidateRule


class Brightest(FrameSelector):
    name, fingerprint = "brightest", "brightest-1"
    rule = CandidateRule(fps=1000.0)
    frame_size = (8, 8)

    def __init__(self, *, device=None, darkest=False):
        self.sign = -1 if darkest else 1

    def encode_frames(self, frames, total):
        means = [torch.from_numpy(piece.data.mean(axis=(1, 2, 3))) for piece in frames]
        return {"light": torch.cat(means)}, {}

    def choose(self, encoding, questions, num_frames, options, **kwargs):
        scores = self.sign * encoding.tensors["light"].numpy()
        return [Choice(np.argsort(-scores, kind="stable")[:num_frames], scores) for _ in questions]


class LightEncoder:
    name, fingerprint, frame_size = "light", "light-1", (8, 8)

    def encode_frames(self, frames):
        light = torch.from_numpy(frames.mean(axis=(1, 2, 3)) / 255).float()
        return torch.stack([light, 1 - light], 1)

    def encode_text(self, texts):
        return torch.tensor([[1.0, 0.0] if "light" in text else [0.0, 1.0] for text in texts])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the package; nothing is downloaded."""
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "bright_frames.py").write_text(MODULE)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--target", str(target), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.save(source / "film.npy", ramp(12))
    before = os.environ.get("PYTHONPATH")
    paths = [str(target), *([before] if before else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FILM": str(source / "film.npy")}


def run(code: str, environment: dict[str, str]) -> list[object]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


CALLS = """
import json, os
import numpy as np
from refocus_select import FrameSelector, open_video, select_frames
from refocus_select.errors import SelectorLoadError
from refocus_select.selectors import selector_names
from refocus_select.encoders import encoder_names

def film():
    return open_video(np.load(os.environ["FILM"]), fps=2.0)

def show(value):
    print(json.dumps(value))

show(select_frames(film(), "any", 2, selector="brightest").indices.tolist())
show(FrameSelector.from_pretrained("brightest", darkest=True).select(film(), "any", num_frames=2).indices.tolist())
show(select_frames(film(), "light", 2, selector="topk", encoder="light").indices.tolist())
show(select_frames(film(), "dark", 2, selector="mmr", encoder="light", balance=1.0).indices.tolist())
show(select_frames(film(), "light", 2, selector="topk", encoder="bright_frames:LightEncoder").indices.tolist())
show(["brightest" in selector_names(), "light" in encoder_names()])
show(type(FrameSelector.from_pretrained("uniform")).__name__)
for name, arguments in (("broken", {}), ("brightest", {"colour": 1})):
    try:
        FrameSelector.from_pretrained(name, **arguments)
    except SelectorLoadError as error:
        show(str(error))
"""


def test_its_selector_and_its_encoder_have_names(installed: dict[str, str]) -> None:
    *found, announced, own, broken, unknown = run(CALLS, installed)
    assert found == [[10, 11], [0, 1], [10, 11], [0, 1], [10, 11]]
    assert announced == [True, True]
    assert own == "UniformSelector"  # the names of the package cannot be taken over
    assert isinstance(broken, str)
    assert "bright-frames" in broken
    assert "uninstall" in broken
    assert unknown == "'brightest' takes no colour; it takes darkest, device"


def test_the_command_line_knows_them(installed: dict[str, str], tmp_path: Path) -> None:
    from PIL import Image

    for number, frame in enumerate(ramp(12)):
        Image.fromarray(frame).save(tmp_path / f"{number:03d}.png")
    for options, indices in (
        (["--selector", "brightest"], [10, 11]),
        (["--selector", "topk", "--encoder", "light"], [10, 11]),
    ):
        command = [sys.executable, "-m", "refocus_select", "select", str(tmp_path), "light", "-n", "2", "--json"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, env=installed, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["indices"] == indices


def test_a_program_registers_its_own() -> None:
    register_selector("bright-here", BrightnessSelector, replace=True)
    assert "bright-here" in selector_names()
    selection = FrameSelector.from_pretrained("bright-here").select(open_video(ramp(6), fps=2.0), "light", num_frames=1)
    assert selection.indices.tolist() == [5]
    with pytest.raises(InputError, match="registered already"):
        register_selector("bright-here", BrightnessSelector)
    with pytest.raises(InputError, match="of refocus-select"):
        register_selector("mini", BrightnessSelector)
    with pytest.raises(InputError, match="without '/'"):
        register_selector("a/b", BrightnessSelector)
    with pytest.raises(InputError, match="class or a function"):
        register_encoder("four", 4)  # type: ignore[arg-type]
    register_selector("no-selector", dict, replace=True)
    with pytest.raises(InputError, match="is a dict, not a FrameSelector"):
        FrameSelector.from_pretrained("no-selector")


def test_what_is_no_encoder_is_refused() -> None:
    register_encoder("nothing", dict, replace=True)
    assert "nothing" in encoder_names()
    with pytest.raises(EncoderError, match="dict is not an encoder: it has no encode_frames and no encode_text"):
        load_encoder("nothing")
    with pytest.raises(SelectorLoadError, match="cannot be imported"):
        load_encoder("no_such_module:Encoder")
    with pytest.raises(SelectorLoadError, match="has no 'Encoder'"):
        load_encoder("tests.brightness:Encoder")
    with pytest.raises(SelectorLoadError, match="no selector 'brightest'"):
        FrameSelector.from_pretrained("brightest")
