"""VLMEvalKit's own `run.py` with our launcher, on a local dataset of its Video-MME class (`make test-engines`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.film import write_film

pytest.importorskip("vlmeval", reason="VLMEvalKit is installed by `make test-engines` only, from a clone")


def test_its_run_script_asks_our_model(
    checkpoint: Callable[[str], str], tmp_path: Path, tell: Callable[..., None]
) -> None:
    import vlmeval

    home = tmp_path / "LMUData"
    (home / "films").mkdir(parents=True)
    rows = ["index\tvideo\tquestion\tanswer\tvideo_path"]
    for number, power in enumerate((1.0, 1.5, 2.0)):
        write_film(home / "films" / f"film{number}.mp4", times=[(k / 2) ** power for k in range(12)])
        rows.append(f"{number}\tfilm{number}\tWhat is shown in the middle?\tGrey.\t{home}/films/film{number}.mp4")
    (home / "LocalFilms.tsv").write_text("\n".join(rows) + "\n")
    # A dataset in the form that VLMEvalKit's documentation asks for: build_prompt gives the path of the video.
    (tmp_path / "start.py").write_text(DATASET)
    record = tmp_path / "record.jsonl"
    script = Path(vlmeval.__file__).parents[1] / "run.py"
    command = [sys.executable, str(tmp_path / "start.py"), "--pretrained", checkpoint("qwen2_5_vl")]
    command += ["--selector", "aks", "--num-frames", "4", "--name", "Qwen2.5-VL-selected", "--dtype", "float32"]
    command += ["--device", "cpu", "--max-new-tokens", "2", "--record", str(record), "--", str(script)]
    command += ["--data", "LocalFilms", "--work-dir", str(tmp_path / "out"), "--mode", "infer"]
    environment = {**os.environ, "LMUData": str(home), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert record.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        (selection,) = line["selections"]
        assert (selection["selector"], selection["num_frames"]) == ("aks", 4)
        assert selection["question"] == "What is shown in the middle?"
        tell(
            engine="VLMEvalKit",
            version=vlmeval.__version__,
            model="qwen2_5_vl",
            route="run.py by our launcher, selector=aks",
            asked=selection["question"],
            told=", ".join(f"{t:.2f}" for t in selection["timestamps"]),
        )
    assert list((tmp_path / "out").rglob("*LocalFilms*")), "VLMEvalKit wrote no predictions"


DATASET = """
import os

import pandas
import vlmeval.dataset
from refocus_select.adapters import vlmevalkit
from vlmeval.dataset.video_base import VideoBaseDataset


class LocalFilms(VideoBaseDataset):
    TYPE = "Video-VQA"

    def __init__(self, dataset="LocalFilms", pack=False, nframe=4, fps=-1, **more):
        self.dataset_name, self.pack, self.nframe, self.fps = dataset, pack, nframe, fps
        self.data = pandas.read_csv(os.path.join(os.environ["LMUData"], "LocalFilms.tsv"), sep="\\t")
        self.videos = list(self.data["video"])

    @classmethod
    def supported_datasets(cls):
        return ["LocalFilms"]

    def build_prompt(self, line, video_llm):
        line = self.data.iloc[line] if isinstance(line, int) else line
        assert video_llm
        return [dict(type="video", value=line["video_path"]), dict(type="text", value=line["question"])]

    def evaluate(self, eval_file, **judge):
        return None


def build(name, *arguments, **more):
    return LocalFilms(name) if name == "LocalFilms" else stock(name, *arguments, **more)


stock = vlmeval.dataset.build_dataset
vlmeval.dataset.build_dataset = build
vlmevalkit.main()
"""
