"""Encodings on disk: found again, never half written, bounded, and safe when processes share or die."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from refocus_select import VideoEncoding, open_video
from refocus_select.cache import EncodingCache, default_folder, encoding_key, find_cache, parse_size
from refocus_select.cli import main
from refocus_select.errors import InputError
from refocus_select.files import replacing
from refocus_select.selectors import UniformSelector
from refocus_select.video import CandidatePlan, VideoMetadata
from tests.brightness import BrightnessSelector, ramp
from tests.leftovers import name_of_a_dead_process

ROOT = Path(__file__).resolve().parents[1]


class Counting(BrightnessSelector):
    """Counts how often pictures are encoded."""

    def __init__(self):
        self.read_times = 0

    def encode_frames(self, frames, total):
        self.read_times += 1
        return super().encode_frames(frames, total)


def video(count=12, fps=4.0):
    return open_video(ramp(count), fps=fps)


def stored(folder):
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def key(number):
    return f"{number:040x}"


def encoding(number=0, numbers=1000):
    """An encoding that says which one it is, of about 8 * numbers bytes."""
    return VideoEncoding(
        tensors={"value": torch.full((numbers,), float(number), dtype=torch.float64)},
        indices=np.arange(3),
        timestamps=np.arange(3.0),
        video=VideoMetadata(f"film-{number}.mp4", 3, 3.0),
        video_fingerprint=f"film-{number}",
        encoder="test",
        encoder_fingerprint="test-1",
    )


# -- through a selector ---------------------------------------------------------------------------


def test_a_second_encoding_comes_from_the_cache(tmp_path):
    selector = Counting()
    first = selector.encode(video(), cache=tmp_path)
    second = selector.encode(video(), cache=tmp_path)
    assert selector.read_times == 1
    assert len(stored(tmp_path)) == 1
    np.testing.assert_array_equal(first.tensors["brightness"], second.tensors["brightness"])
    np.testing.assert_array_equal(first.timestamps, second.timestamps)
    assert first.video == second.video
    assert second.origin is not None
    one, two = (selector.select(e, "light", num_frames=3) for e in (first, second))
    assert one.to_dict() == two.to_dict()
    np.testing.assert_array_equal(one.frames, two.frames)


def test_select_takes_the_cache_too(tmp_path):
    selector = Counting()
    for question in ("light", "dark"):
        selector.select(video(), question, num_frames=3, cache=tmp_path)
    assert selector.read_times == 1


@pytest.mark.parametrize(
    "other",
    [
        {"max_frames": 5},
        {"start": 1.0},
        {"fps": 2.0},
        {"exact": False},
    ],
)
def test_another_sampling_is_another_entry(tmp_path, other):
    selector = Counting()
    whole = selector.encode(video(), cache=tmp_path)
    part = selector.encode(video(), cache=tmp_path, **other)
    assert selector.read_times == 2
    assert len(stored(tmp_path)) == 2
    again = selector.encode(video(), cache=tmp_path)
    assert selector.read_times == 2
    assert len(again) == len(whole)
    assert len(selector.encode(video(), cache=tmp_path, **other)) == len(part)


def test_another_video_other_times_or_another_selector_is_another_entry(tmp_path):
    selector = Counting()
    selector.encode(video(), cache=tmp_path)
    assert selector.encode(video(13), cache=tmp_path).indices.max() == 12
    assert selector.encode(video(fps=8.0), cache=tmp_path).timestamps[1] == 1 / 8
    assert selector.read_times == 3
    changed = Counting()
    changed.fingerprint = "brightness-2"
    changed.encode(video(), cache=tmp_path)
    assert changed.read_times == 1
    assert len(stored(tmp_path)) == 4


def test_everything_that_decides_an_encoding_is_in_its_key():
    film, plan = video(), CandidatePlan(np.arange(4), np.arange(4) / 4)

    def made(film=film, encoder="test-1", plan=plan, size=(8, 8), exact=True):
        return encoding_key(film, encoder, plan, size=size, exact=exact)

    keys = [
        made(),
        made(film=video(13)),
        made(encoder="test-2"),
        made(plan=CandidatePlan(np.arange(1, 5), plan.timestamps)),
        made(plan=CandidatePlan(plan.indices, plan.timestamps + 1 / 8)),
        made(size=(8, 16)),
        made(size=(16, 8)),
        made(size=None),
        made(exact=False),
    ]
    assert len(set(keys)) == len(keys)
    assert made() == keys[0]


def test_a_changed_file_is_encoded_again(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(ramp(4)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    selector = Counting()
    before = selector.encode(folder, cache=tmp_path / "cache")
    selector.encode(folder, cache=tmp_path / "cache")
    assert selector.read_times == 1
    Image.fromarray(np.full((24, 40, 3), 255, np.uint8)).save(folder / "0.png")
    after = selector.encode(folder, cache=tmp_path / "cache")
    assert selector.read_times == 2
    assert before.tensors["brightness"][0] != after.tensors["brightness"][0]


def test_nothing_is_kept_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("REFOCUS_CACHE_DIR", raising=False)
    assert find_cache(None) is None
    monkeypatch.setenv("REFOCUS_CACHE_DIR", str(tmp_path))
    selector = Counting()
    selector.encode(video(), cache=False)
    assert stored(tmp_path) == []
    selector.encode(video())
    selector.encode(video())
    assert selector.read_times == 2
    assert len(stored(tmp_path)) == 1


def test_a_selector_that_looks_at_nothing_stores_nothing(tmp_path):
    UniformSelector().encode(video(), cache=tmp_path)
    assert stored(tmp_path) == []


def test_what_a_cache_may_be(tmp_path, monkeypatch):
    monkeypatch.setenv("REFOCUS_CACHE_DIR", str(tmp_path / "named"))
    monkeypatch.setenv("REFOCUS_CACHE_SIZE", "2MB")
    assert default_folder() == tmp_path / "named"
    assert find_cache(True).folder == tmp_path / "named"
    assert find_cache(True).max_bytes == 2_000_000
    own = EncodingCache(tmp_path, max_bytes=7)
    assert find_cache(own) is own
    with pytest.raises(InputError, match="cache must be a folder"):
        find_cache(3)
    with pytest.raises(InputError, match="at least 1"):
        EncodingCache(tmp_path, max_bytes=0)


def test_sizes_are_read_as_people_write_them():
    assert [parse_size(t) for t in ("1000", "1.5kB", " 20 GB ")] == [1000, 1500, 20 * 10**9]
    for wrong in ("", "much", "-3GB", "3GiBB"):
        with pytest.raises(InputError, match="not a size"):
            parse_size(wrong)


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "half", "foreign", "bit"])
def test_a_damaged_entry_is_replaced(tmp_path, damage, caplog):
    selector = Counting()
    selector.encode(video(), cache=tmp_path)
    (path,) = stored(tmp_path)
    whole = path.read_bytes()
    flipped = whole[:-2] + bytes([whole[-2] ^ 4]) + whole[-1:]
    half = whole[: len(whole) // 2]
    path.write_bytes({"empty": b"", "half": half, "foreign": b"something else" * 20, "bit": flipped}[damage])
    assert len(EncodingCache(tmp_path).entries()) == (damage == "bit")  # headers are all that a list reads
    assert len(selector.encode(video(), cache=tmp_path)) == 12
    assert selector.read_times == 2
    assert "damaged entry" in caplog.text
    assert len(EncodingCache(tmp_path).entries()) == 1


@pytest.mark.parametrize("again", [False, True])
def test_an_entry_may_be_evicted_while_it_is_opened(tmp_path, again, caplog, monkeypatch):
    cache = EncodingCache(tmp_path)
    cache.put(key(1), encoding(1))
    (path,) = stored(tmp_path)
    usual, calls = safetensors.safe_open, []

    def safe_open(*args, **kwargs):
        """safetensors finds it, then torch does not: another process was faster, and may have stored it again."""
        calls.append(args)
        if len(calls) > 1:
            return usual(*args, **kwargs)
        path.unlink()
        if again:
            cache.put(key(1), encoding(1))
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: No such file or directory (2)")

    monkeypatch.setattr(safetensors, "safe_open", safe_open)
    found = cache.get(key(1))
    assert (found.video_fingerprint == "film-1") if again else (found is None)
    assert "damaged" not in caplog.text
    assert path.exists() == again


def test_an_entry_that_may_not_be_read_stays(tmp_path, caplog, monkeypatch):
    """As when another user shares the folder: it is not a damage, and not ours to remove."""
    cache = EncodingCache(tmp_path)
    cache.put(key(1), encoding(1))

    def safe_open(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors, "safe_open", safe_open)
    assert cache.get(key(1)) is None
    assert len(stored(tmp_path)) == 1
    assert "may not be read" in caplog.text
    monkeypatch.undo()
    assert cache.get(key(1)).video_fingerprint == "film-1"


def test_a_cache_that_cannot_be_written_costs_only_the_cache(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    selector = Counting()
    assert len(selector.encode(video(), cache=tmp_path / "file" / "cache")) == 12
    assert "not cached" in caplog.text


# -- the limit ------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = EncodingCache(tmp_path, max_bytes=30_000)  # three entries of about 8.5 kB
    for number in range(3):
        cache.put(key(number), encoding(number))
        os.utime(tmp_path / f"{key(number)}.safetensors", (1000 + number, 1000 + number))
    assert cache.get(key(0)) is not None  # now used last
    cache.put(key(3), encoding(3))
    for number in (3, 2):
        os.utime(tmp_path / f"{key(number)}.safetensors", (1000 + number, 1000 + number))
    assert [entry.source for entry in cache.entries()] == ["film-0.mp4", "film-3.mp4", "film-2.mp4"]  # last used first
    assert cache.get(key(1)) is None
    assert float(cache.get(key(2)).tensors["value"][0]) == 2.0


def test_an_entry_larger_than_the_limit_does_not_stay(tmp_path):
    cache = EncodingCache(tmp_path, max_bytes=5_000)
    cache.put(key(1), encoding(1))
    assert cache.entries() == []


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine")
    cache = EncodingCache(tmp_path, max_bytes=1_000_000)
    cache.put(key(1), encoding(1))
    assert cache.shrink(0) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "notes.txt"]


def test_what_a_dead_process_left_is_removed_but_not_what_is_being_written(tmp_path):
    cache = EncodingCache(tmp_path)
    dead, old, young = name_of_a_dead_process(tmp_path), ".tmpAbc123", ".tmpDef456"  # the latter are of safetensors
    for name in (dead, old, young):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / old, (time.time() - 100_000,) * 2)
    with replacing(tmp_path / "entry") as own:
        cache.put(key(3), encoding(3))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, young, f"{key(3)}.safetensors"])


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="only root can become another user")
def test_two_users_share_a_folder(tmp_path, caplog):
    """The second reads and writes what the first may, and never removes what it may not read."""
    for folder in (tmp_path, *tmp_path.parents[: len(tmp_path.parents) - 2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o1777)
    before = os.umask(0o022)
    try:
        EncodingCache(tmp_path).put(key(1), encoding(1))
        EncodingCache(tmp_path).put(key(2), encoding(2))
    finally:
        os.umask(before)
    private = tmp_path / f"{key(2)}.safetensors"
    assert stat.S_IMODE((tmp_path / f"{key(1)}.safetensors").stat().st_mode) == 0o644
    private.chmod(0o600)

    def as_second_user():
        cache = EncodingCache(tmp_path)
        assert cache.get(key(1)).video_fingerprint == "film-1"
        assert cache.get(key(2)) is None
        assert private.exists()
        cache.put(key(2), encoding(2))  # in a folder as /tmp, the first user's file cannot be replaced either
        cache.put(key(3), encoding(3))
        assert cache.get(key(3)).video_fingerprint == "film-3"

    assert in_child_of_user(65_534, as_second_user) == 0
    assert EncodingCache(tmp_path).get(key(2)).video_fingerprint == "film-2"
    assert EncodingCache(tmp_path).get(key(3)).video_fingerprint == "film-3"
    assert (tmp_path / f"{key(3)}.safetensors").stat().st_uid == 65_534
    assert not list(tmp_path.glob(".refocus-*"))


def in_child_of_user(user, work):
    """Exit status of a child process that does the work as another user."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- several processes ----------------------------------------------------------------------------

WRITER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from tests.test_cache import EncodingCache, encoding, key
cache = EncodingCache(sys.argv[1], max_bytes=int(sys.argv[3]))
numbers, rounds = int(sys.argv[4]), int(sys.argv[5])
print("ready", flush=True)
for round in range(rounds):
    for number in range(6):
        found = cache.get(key(number))
        if found is None:
            cache.put(key(number), encoding(number, numbers))
        else:
            assert found.video_fingerprint == f"film-{number}"
            assert (found.tensors["value"] == number).all()
            assert len(found.tensors["value"]) == numbers
print("done", flush=True)
"""


def start(folder, *, limit, numbers, rounds):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(ROOT), str(limit), str(numbers), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_processes_share_a_folder_that_is_too_small(tmp_path):
    """Two processes read, write and evict the same six entries in a folder that holds three."""
    processes = [start(tmp_path, limit=28_000, numbers=1000, rounds=40) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "done" in out
        assert "damaged" not in err
    cache = EncodingCache(tmp_path, max_bytes=28_000)
    assert 0 < sum(entry.size for entry in cache.entries()) <= 28_000
    assert len(list(tmp_path.iterdir())) == len(cache.entries())


def test_a_killed_process_leaves_no_half_entry(tmp_path):
    """Entries of 4 MB are written without pause; the process is killed while a file is under way."""
    process = start(tmp_path, limit=5_000_000, numbers=500_000, rounds=100_000)
    try:
        assert process.stdout.readline().strip() == "ready"
        while not (stored(tmp_path) and list(tmp_path.glob(".*"))):
            assert process.poll() is None, process.stderr.read()
    finally:
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.communicate()
    for path in stored(tmp_path):
        loaded = VideoEncoding.load(path)
        assert loaded.video_fingerprint == f"film-{loaded.tensors['value'][-1]:.0f}"
    for path in tmp_path.glob(".*"):
        os.utime(path, (1000, 1000))
    EncodingCache(tmp_path).shrink()
    assert list(tmp_path.glob(".*")) == []


def test_what_dead_processes_left_goes_and_what_is_under_way_stays(tmp_path):
    left = [tmp_path / f".{key(0)}.safetensors.ab12", tmp_path / ".tmpnEucch"]  # ours, and the one of safetensors
    young = [tmp_path / f".{key(1)}.safetensors.cd34", tmp_path / ".tmpXyZ012"]
    other = tmp_path / ".hidden"
    for path in (*left, *young, other):
        path.write_bytes(b"half")
    for path in (*left, other):
        os.utime(path, (1000, 1000))
    EncodingCache(tmp_path).shrink()
    assert sorted(tmp_path.iterdir()) == sorted([*young, other])


# -- the command ----------------------------------------------------------------------------------


def test_the_command_lists_limits_and_clears(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("REFOCUS_CACHE_DIR", str(tmp_path))
    assert main(["cache"]) == 0
    assert "0 encodings, 0.00 MB of 10000 MB" in capsys.readouterr().out
    cache = EncodingCache()
    for number in range(3):
        cache.put(key(number), encoding(number))
        os.utime(tmp_path / f"{key(number)}.safetensors", (1000 + number,) * 2)
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == ["film-2.mp4", "film-1.mp4", "film-0.mp4"]
    assert "3 frames  test" in lines[0]
    assert lines[3].startswith("3 encodings, 0.03 MB")
    assert main(["cache", "--limit", "10kB"]) == 0
    assert "2 removed" in capsys.readouterr().out
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "film-2.mp4"
    assert main(["cache", "--limit", "lots"]) == 2
    assert "not a size" in capsys.readouterr().err
    assert main(["cache", "--clear"]) == 0
    assert stored(tmp_path) == []


def test_the_command_takes_another_folder(tmp_path, capsys):
    EncodingCache(tmp_path / "other").put(key(1), encoding(1))
    assert main(["cache", "--dir", str(tmp_path / "other")]) == 0
    assert "1 encodings" in capsys.readouterr().out


def test_select_takes_an_encoder_and_a_cache(tmp_path, capsys):
    from PIL import Image

    from tests.models.tiny_encoders import tiny_siglip

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(ramp(6)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    encoder = str(tiny_siglip(tmp_path / "siglip"))
    base = ["select", str(folder), "light", "-n", "2", "--device", "cpu", "--cache", str(tmp_path / "cache"), "--json"]
    answers = []
    for selector in ("topk", "mdp3"):
        assert main([*base, "--selector", selector, "--encoder", encoder]) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert [answer["selector"] for answer in answers] == ["topk (siglip)", "mdp3 (siglip)"]
    assert len(stored(tmp_path / "cache")) == 1  # one encoding serves both
    assert main([*base, "--selector", "uniform", "--encoder", encoder]) == 4
    assert "takes no encoder" in capsys.readouterr().err
