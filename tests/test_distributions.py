"""The wheel and the source archive: built, installed into an empty environment, and used there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILM = ROOT / "examples" / "film" / "big_buck_bunny.mp4"

USE = """
import sys
import refocus_select
from refocus_select import select_frames
assert "site-packages" in refocus_select.__file__, refocus_select.__file__
import refocus_select.adapters, refocus_select.service
selection = select_frames(sys.argv[1], "When is the bow used?", 2, max_frames=16, end=120.0)
print(selection.selector, len(selection.frames))
"""


def run(*command, **kwargs):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A source archive of what git tracks, and a wheel of what the archive holds: nothing else may be needed."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    wanted = ("refocus_select/", "adapters/", "weights/", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    for name in names:
        if name.startswith(wanted) and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    build = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
    run(sys.executable, "-c", build.format("sdist", str(folder)), cwd=tree)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-c", build.format("wheel", str(folder)), cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def test_what_the_wheel_holds(archives):
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"refocus_select"}
    tracked = run("git", "ls-files", "-z", "refocus_select/*.py", "adapters/*.py", "weights/*", cwd=ROOT).split("\0")
    inside = {name if name.startswith("refocus_select/") else f"refocus_select/{name}" for name in tracked if name}
    assert inside <= names, inside - names
    assert "refocus_select/py.typed" in names


def test_the_wheel_works_in_an_environment_of_its_own(archives, tmp_path):
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    install = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run(sys.executable, *install, "--target", site, archives[1])
    # The dependencies are those of this environment, without the editable copy of this very package.
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n", "utf-8")
    out = run(python, "-P" if sys.version_info >= (3, 11) else "-s", "-c", USE, FILM, cwd=tmp_path)
    assert out.split() == ["mini-policy", "2"]
