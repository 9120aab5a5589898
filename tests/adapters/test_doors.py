"""The same video, in whatever form it is handed over, gives the same frames and times through every door."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refocus_select import open_video, select_frames
from refocus_select.adapters import last_selection, openai, qwen_vl_utils, select_messages, sglang, vllm
from refocus_select.adapters import with_frame_selection as wrapped
from refocus_select.adapters.llava_video import llava_video_inputs
from refocus_select.corpus import Index, select_batch
from refocus_select.errors import VideoError

from . import tiny
from .film import TIMES, NamedFrames, greys, picture, write_film

ASKED = "What is shown in 1, 2, 5, 6, 9 and 11?"
CHOSEN = [1, 2, 5, 6, 9, 11]
OFFSET = 100.0  # seconds: pictures whose times are those of a longer video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The film in a folder with a difficult name, and beside it its frames as pictures."""
    root = tmp_path_factory.mktemp("doors") / "my holiday 100% 视频"
    (root / "frames").mkdir(parents=True)
    write_film(root / "film #1.mp4")
    for number in range(len(TIMES)):
        Image.fromarray(picture(number)).save(root / "frames" / f"frame {number}.png")
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "/film%20%231.mp4?token=a/b.png&x=1")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "JPEG", quality=95)
    return file.getvalue()


FILES: dict[str, Callable[[Path, str], Any]] = {
    "path": lambda folder, web: str(folder / "film #1.mp4"),
    "Path": lambda folder, web: folder / "film #1.mp4",
    "file URI": lambda folder, web: (folder / "film #1.mp4").as_uri(),
    "file URI on localhost": lambda folder, web: (folder / "film #1.mp4").as_uri().replace("://", "://localhost"),
    "file:// and the plain path": lambda folder, web: f"file://{folder / 'film #1.mp4'}",
    "http": lambda folder, web: f"{web}/film%20%231.mp4?token=a/b.png",
    "http that moved": lambda folder, web: f"{web}/moved?id=7",
    "data URL": lambda folder, web: data((folder / "film #1.mp4").read_bytes(), "video/mp4"),
    "bytes": lambda folder, web: (folder / "film #1.mp4").read_bytes(),
    "BytesIO": lambda folder, web: io.BytesIO((folder / "film #1.mp4").read_bytes()),
    "open file": lambda folder, web: (folder / "film #1.mp4").open("rb"),
    "dict of a path": lambda folder, web: {"path": str(folder / "film #1.mp4"), "bytes": None},
    "dict of bytes": lambda folder, web: {"path": "x.mp4", "bytes": (folder / "film #1.mp4").read_bytes()},
    "value of datasets": lambda folder, web: SimpleNamespace(
        _hf_encoded={"path": str(folder / "film #1.mp4"), "bytes": None}, get_frames_at=print, metadata=None
    ),
    "open Video": lambda folder, web: open_video(folder / "film #1.mp4"),
}

PICTURES: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "folder": lambda folder, clip: folder / "frames",
    "folder as a URI": lambda folder, clip: (folder / "frames").as_uri(),
    "paths": lambda folder, clip: [str(folder / "frames" / f"frame {i}.png") for i in range(12)],
    "Paths": lambda folder, clip: [folder / "frames" / f"frame {i}.png" for i in range(12)],
    "URIs": lambda folder, clip: [(folder / "frames" / f"frame {i}.png").as_uri() for i in range(12)],
    "data URLs": lambda folder, clip: [data(jpeg(i), "image/jpeg") for i in range(12)],
    "contents": lambda folder, clip: [jpeg(i) for i in range(12)],
    "dicts": lambda folder, clip: [{"path": None, "bytes": jpeg(i)} for i in range(12)],
    "sequence as a data URL": lambda folder, clip: (
        "data:video/jpeg;base64," + ",".join(base64.b64encode(jpeg(i)).decode() for i in range(12))
    ),
    "PIL": lambda folder, clip: [Image.fromarray(p) for p in clip],
    "PIL, grey": lambda folder, clip: [Image.fromarray(p[..., 0]) for p in clip],
    "array": lambda folder, clip: clip,
    "array TCHW": lambda folder, clip: np.ascontiguousarray(clip.transpose(0, 3, 1, 2)),
    "tensor": lambda folder, clip: torch.from_numpy(clip).permute(0, 3, 1, 2),
    "tensor THWC": lambda folder, clip: torch.from_numpy(clip),
    "grey array": lambda folder, clip: clip[..., 0],
    "grey tensor": lambda folder, clip: torch.from_numpy(clip[..., :1]).permute(0, 3, 1, 2),
    "RGBA": lambda folder, clip: np.concatenate([clip, np.full_like(clip[..., :1], 255)], axis=-1),
    "floats to 1": lambda folder, clip: torch.from_numpy(clip).permute(0, 3, 1, 2) / 255,
    "floats to 255": lambda folder, clip: clip.astype(np.float32),
    "list of arrays": lambda folder, clip: list(clip),
    "list of tensors": lambda folder, clip: list(torch.from_numpy(clip).permute(0, 3, 1, 2)),
}
IN_MEMORY = frozenset(name for name in PICTURES if not name.startswith(("folder", "sequence")))  # for a processor


@pytest.fixture(scope="module")
def processor() -> Any:
    return wrapped(tiny.qwen3_vl(), NamedFrames(), num_frames=6, temporal_merge="ignore")


def chat_of(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [block, {"type": "text", "text": ASKED}]}]


def from_urls(urls: list[str]) -> list[int]:
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) for url in urls]
    return greys(np.stack([np.asarray(p) for p in pictures]))


def through_every_door(value: Any, beside: dict[str, Any], processor: Any, *, in_memory: bool) -> dict[str, Any]:
    """By door: the frames that came out, and their times in milliseconds (or as they were written)."""
    found: dict[str, Any] = {}

    def keep(door: str, frames: Any, milliseconds: Any) -> None:
        found[door] = (frames if isinstance(frames, list) else greys(frames), [round(float(m)) for m in milliseconds])

    given = {"video": value, **beside} if beside else value
    with_times = open_video(given)
    keep("open_video", with_times.get_frames(CHOSEN).data, with_times.timestamps[CHOSEN] * 1000)
    selection = select_frames(given, ASKED, 6, selector=NamedFrames())
    keep("select_frames", selection.frames, selection.timestamps * 1000)

    block = {"type": "video", "video": value, **beside}
    nested = {"type": "video_url", "video_url": {"url": value}, **beside}
    ask = {"num_frames": 6}
    for name, form in (("block", block), ("video_url", nested)):
        (rewritten,), kwargs = select_messages(chat_of(form), NamedFrames(), **ask)
        frames = rewritten["content"][0]["video"]
        shown = open_video(frames, fps=1).get_frames(range(6)).data  # of the caller's kind
        assert not set(rewritten["content"][0]) - {"type", "video"}
        if str(getattr(frames, "dtype", "")) not in ("torch.float32", "float32"):  # what they mean needs the whole clip
            keep(f"select_messages, {name}", shown, kwargs["video_metadata"][0]["frames_indices"])
        parts = openai.image_messages(chat_of(form), NamedFrames(), max_side=None, **ask)[0]["content"][:-1]
        seconds = [float(part["text"][1:].split()[0]) for part in parts[::2]]
        found[f"image_messages, {name}"] = (from_urls([p["image_url"]["url"] for p in parts[1::2]]), seconds)
    messages, extra = openai.video_request(chat_of(block), NamedFrames(), model="internvl", **ask)
    url = messages[0]["content"][0]["video_url"]["url"]
    again = open_video(url, timestamps=[t / 1000 for t in extra["media_io_kwargs"]["video"]["frames_indices"]])
    keep("video_request", again.get_frames(range(6)).data, again.timestamps * 1000)
    stock = tiny.qwen3_vl()
    ((frames, metadata),) = vllm.generate_inputs(chat_of(block), stock, NamedFrames(), temporal_merge="ignore", **ask)[
        "multi_modal_data"
    ]["video"]
    keep("vllm", frames, metadata["frames_indices"])
    inputs = sglang.engine_inputs(chat_of(block), stock, NamedFrames(), max_side=None, **ask)
    found["sglang"] = (from_urls(inputs["image_data"]), None)
    info = qwen_vl_utils.select_vision_info(chat_of(block), NamedFrames(), temporal_merge="ignore", **ask)
    keep("qwen-vl-utils", info.videos[0].permute(0, 2, 3, 1).numpy(), info.video_metadata[0]["frames_indices"])
    if not in_memory:  # frames that the caller holds pass a processor untouched
        for name, form in (("block", block), ("video_url", nested)):
            processor.apply_chat_template(chat_of(form), tokenize=True, return_dict=True, return_tensors="pt")
            selection = last_selection(processor)
            keep(f"processor, {name}", selection.frames, selection.timestamps * 1000)
    return found


def check(found: dict[str, Any], times: list[float]) -> None:
    milliseconds = [round(1000 * times[i]) for i in CHOSEN]
    written = [float(f"{times[i]:.1f}") for i in CHOSEN]
    for door, (frames, told) in found.items():
        assert frames == CHOSEN, door
        if door.startswith("image_messages"):
            assert told == written, door
        elif told is not None:
            assert told == milliseconds, door


@pytest.mark.parametrize("kind", FILES)
def test_files_through_every_door(kind: str, folder: Path, server: str, processor: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    value = FILES[kind](folder, server)
    found = through_every_door(value, {}, processor, in_memory=False)
    assert len(found) == 12
    check(found, list(TIMES))
    if hasattr(value, "close"):
        value.close()


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_through_every_door(kind: str, folder: Path, processor: Any) -> None:
    clip = np.stack([picture(i) for i in range(len(TIMES))])
    times = [OFFSET + t for t in TIMES]
    value = PICTURES[kind](folder, clip)
    check(through_every_door(value, {"timestamps": times}, processor, in_memory=kind in IN_MEMORY), times)
    rate = [i / 4 for i in range(len(TIMES))]
    check(through_every_door(value, {"sample_fps": 4, "raw_fps": 30}, processor, in_memory=kind in IN_MEMORY), rate)


def test_metadata_within_a_dict(processor: Any) -> None:
    clip = np.stack([picture(i) for i in range(len(TIMES))])
    metadata = {"fps": 1000.0, "frames_indices": [round(1000 * (OFFSET + t)) for t in TIMES]}
    value = {"array": clip, "video_metadata": metadata}
    check(through_every_door(value, {}, processor, in_memory=True), [OFFSET + t for t in TIMES])


def test_batches_and_indexes_read_addresses_too(folder: Path, server: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    kinds = [name for name in FILES if name not in ("bytes", "BytesIO", "open file", "dict of bytes", "open Video")]
    rows = [{"video": FILES[kind](folder, server), "question": ASKED, "kind": kind} for kind in kinds]
    rows = [{**row, "video": str(row["video"]) if isinstance(row["video"], Path) else row["video"]} for row in rows]
    result = select_batch(rows, tmp_path / "out.jsonl", selector=NamedFrames(), num_frames=6, workers=1)
    for line in result.path.read_text("utf-8").splitlines():
        row = json.loads(line)
        assert row["error"] is None, row["kind"]
        assert row["indices"] == CHOSEN, row["kind"]
        assert row["timestamps"] == pytest.approx([TIMES[i] for i in CHOSEN])
    pytest.importorskip("pyarrow")
    uri = (folder / "film #1.mp4").as_uri()
    index = Index.build([uri], tmp_path / "index", selector=NamedFrames())
    for name in (uri, folder / "film #1.mp4", "film #1.mp4"):
        assert index.select(ASKED, video=name, num_frames=6).indices.tolist() == CHOSEN


# -- what a block says --------------------------------------------------------------------------------


def test_a_blocks_own_number_of_frames_and_part(folder: Path, processor: Any) -> None:
    film = str(folder / "film #1.mp4")
    for keys in ({"nframes": 2}, {"num_frames": 2}, {"nframes": "2"}):
        block = {"type": "video", "video": film, **keys}
        _, kwargs = select_messages(chat_of(block), NamedFrames(), num_frames=6)
        assert kwargs["video_metadata"][0]["frames_indices"] == [100, 333]
        processor.apply_chat_template(chat_of(block), tokenize=True, return_dict=True)
        assert last_selection(processor).indices.tolist() == [1, 2]
    for start, end in ((1.5, 5.5), ("1.5", "0:05.5"), ("00:00:01.5", 5.5)):
        block = {"type": "video", "video": film, "video_start": start, "video_end": end}
        selection = select_messages(chat_of(block), NamedFrames(), num_frames=2).selections[0]
        assert selection.indices.tolist() == [5, 6]
        processor.apply_chat_template(chat_of(block), tokenize=True, return_dict=True)
        assert last_selection(processor).candidate_indices.tolist() == [3, 4, 5, 6, 7, 8]


def test_a_part_of_pictures_is_on_their_own_clock() -> None:
    clip = np.stack([picture(i) for i in range(len(TIMES))])
    block = {"type": "video", "video": clip, "timestamps": [OFFSET + t for t in TIMES], "video_start": "1:41.5"}
    selection = select_messages(chat_of(block), NamedFrames(), num_frames=3).selections[0]
    assert selection.candidate_timestamps[0] == OFFSET + 1.0  # shown since then
    assert selection.indices.tolist() == [5, 6, 9]


def test_frames_that_are_kept_keep_their_times() -> None:
    clip = np.stack([picture(i) for i in (3, 4)])
    film = np.stack([picture(i) for i in range(12)])
    content = [
        {"type": "video", "video": clip, "timestamps": [100, 101.5]},
        {"type": "video", "video": film, "fps": 2, "video_metadata": {"fps": 25.0, "frames_indices": list(range(12))}},
        {"type": "text", "text": ASKED},
    ]
    chat = [{"role": "user", "content": content}]
    kept = select_messages(chat, NamedFrames(), frames="keep")
    assert [m["frames_indices"] for m in kept.metadata] == [[100_000, 101_500], list(range(12))]
    chat[0]["content"] = content[1:]
    parts = openai.image_messages(chat, NamedFrames())[0]["content"]
    assert [p["text"] for p in parts[:4:2]] == ["<0.0 seconds>", "<0.0 seconds>"]
    assert parts[22]["text"] == "<0.4 seconds>"


def test_dark_frames_of_floats_stay_dark_in_requests() -> None:
    clip = np.stack([picture(i) for i in range(4)]).astype(np.float32)
    clip[2] = 0
    clip[2, ::2] = 1
    block = {"type": "video", "video": clip, "fps": 1}
    chat = [{"role": "user", "content": [block, {"type": "text", "text": "frame 2"}]}]
    parts = openai.image_messages(chat, NamedFrames(), num_frames=1)[0]["content"]
    image = Image.open(io.BytesIO(base64.b64decode(parts[1]["image_url"]["url"].split(",")[1])))
    assert np.asarray(image).max() < 8


def test_a_damaged_frame_is_told_with_the_time_of_what_is_shown(tmp_path: Path, caplog: Any) -> None:
    for number in range(12):
        Image.fromarray(picture(number)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "05.png").write_bytes(b"no picture")
    block = {"type": "video", "video": str(tmp_path), "timestamps": list(TIMES)}
    with caplog.at_level(logging.WARNING):
        messages, kwargs = select_messages(chat_of(block), NamedFrames(), num_frames=6)
    assert greys(messages[0]["content"][0]["video"]) == [1, 2, 4, 6, 9, 11]
    assert kwargs["video_metadata"][0]["frames_indices"][2] == 2000
    words = select_messages(chat_of(block), NamedFrames(), num_frames=6, timestamps="text")[0][0]["content"][1]["text"]
    assert "0.33s,2.00s,3.37s" in words


def test_errors_name_the_place_and_not_the_content() -> None:
    url = data(b"A" * 100_000, "video/mp4")
    for value in (url, b"A" * 1000, [url], {"path": None, "bytes": b"A" * 1000}):
        with pytest.raises(VideoError) as caught:
            select_messages(chat_of({"type": "video", "video": value, "sample_fps": 1}), NamedFrames())
        assert str(caught.value).startswith("video 1 (")
        assert len(str(caught.value)) < 300


def test_llava_inputs_take_every_kind(folder: Path) -> None:
    from transformers import SiglipImageProcessor

    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    clip = np.stack([picture(i) for i in range(len(TIMES))])
    for video in ((folder / "film #1.mp4").as_uri(), {"video": clip, "timestamps": list(TIMES)}):
        assert llava_video_inputs(video, ASKED, images, NamedFrames(), num_frames=6).frame_time.startswith(
            "0.10s,0.33s"
        )
