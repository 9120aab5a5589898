"""Writing files: complete or not there, with ordinary permissions, and nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from refocus_select.files import (
    remove_leftovers,
    replacing,
    replacing_folder,
    write_bytes,
    write_file,
    write_json,
    write_text,
)

from .leftovers import name_of_a_dead_process

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and signals as on POSIX")


@pytest.fixture
def umask_of_a_group():
    before = os.umask(0o027)
    yield
    os.umask(before)


@posix
def test_permissions_are_those_that_the_umask_leaves(tmp_path, umask_of_a_group):
    write_text(tmp_path / "a.txt", "é\n")
    write_bytes(tmp_path / "b.bin", b"1", sync=True)
    write_json(tmp_path / "new" / "c.json", {"a": 1})
    with replacing(tmp_path / "d.safetensors") as temporary:  # its writer replaces the file by a private one
        save_file({"a": torch.ones(2)}, temporary)
    with replacing_folder(tmp_path / "step-1") as folder:
        save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    names = ["a.txt", "b.bin", "new/c.json", "d.safetensors", "step-1/model.safetensors"]
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names} == dict.fromkeys(names, 0o640)
    assert stat.S_IMODE((tmp_path / "step-1").stat().st_mode) == 0o750
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()


@posix
def test_writing_never_changes_the_umask(tmp_path, monkeypatch):
    """Another thread would make files that anybody may write meanwhile."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("umask"))
    write_text(tmp_path / "a.txt", "a")
    with replacing_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("c")


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_write_that_fails_changes_nothing(tmp_path, before):
    target = tmp_path / "a.bin"
    if before is not None:
        target.write_bytes(before)

    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(target, half)
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["a.bin"])
    assert before is None or target.read_bytes() == before


def test_a_folder_takes_the_place_of_an_older_one_or_leaves_it(tmp_path):
    target = tmp_path / "step-1"
    for number in (1, 2):
        with replacing_folder(target) as folder:
            (folder / f"{number}.txt").write_text(str(number))
    assert [path.name for path in target.iterdir()] == ["2.txt"]

    def stop():
        with replacing_folder(target) as folder:
            (folder / "3.txt").write_text("3")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert [path.name for path in target.iterdir()] == ["2.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from refocus_select.files import replacing, replacing_folder
with replacing(Path(sys.argv[1], "a.png")) as file, replacing_folder(Path(sys.argv[1], "b")) as folder:
    file.write_bytes(b"half")
    (folder / "c").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_a_killed_process_leaves_is_removed_at_the_next_start(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@posix
def test_what_is_being_written_and_what_is_not_ours_stays(tmp_path):
    dead = name_of_a_dead_process(tmp_path)
    _, machine, process, token = dead.split(".")[1].split("-")
    elsewhere = "0" * 8 if machine != "0" * 8 else "1" * 8
    foreign = [".refocus-notes", f"refocus-{machine}-{process}-{token}", f".refocus-{machine}-x-{token}", "a.png"]
    other_machine = f".refocus-{elsewhere}-{process}-{token}.txt"
    for name in (dead, other_machine, *foreign):
        (tmp_path / name).write_text("x")
    with replacing(tmp_path / "own.txt") as own:
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {own.name, other_machine, *foreign}
    os.utime(tmp_path / other_machine, (time.time() - 2 * 86_400,) * 2)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"own.txt", *foreign}


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    remove_leftovers(Path(tmp_path, "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
