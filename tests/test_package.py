"""The package as a whole: light to import, nothing foreign shipped, a tree that stays small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import refocus_select

ROOT = Path(__file__).parent.parent


def test_import_loads_no_heavy_package():
    code = (
        "import sys, refocus_select; "
        "heavy = {'torch', 'transformers', 'av', 'decord', 'numpy', 'PIL', 'matplotlib', 'cv2'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"import refocus_select loads {done.stderr}"


def test_a_selection_imports_no_compiler_and_no_plots():
    code = f"""
import sys, torch
before = set(sys.modules)
from refocus_select import select_frames
selection = select_frames({str(ROOT / "examples/film/big_buck_bunny.mp4")!r}, "When is the meadow?", 4, end=10)
assert len(selection.frames) == 4
slow = ("torch._dynamo", "torch._inductor", "torch.distributed", "sympy", "matplotlib", "transformers")
sys.exit(", ".join(sorted(name for name in set(sys.modules) - before if name.startswith(slow))[:10]) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"selecting frames imports {done.stderr}"


def test_video_facts_need_no_torch():
    code = (
        "import sys; from refocus_select.cli import main; "
        f"code = main(['info', {str(ROOT / 'examples/film/big_buck_bunny.mp4')!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "480" in done.stdout


def test_public_names_exist_and_unknown_ones_do_not():
    for name in refocus_select.__all__:
        assert getattr(refocus_select, name) is not None
    assert set(refocus_select.__all__) <= set(dir(refocus_select))
    assert not hasattr(refocus_select, "no_such_name")


def test_all_parts_come_from_this_checkout():
    """An environment of another checkout would give its adapters to the core of this one."""
    import refocus_select.adapters
    import refocus_select.weights

    parts = ((refocus_select, "refocus_select"), (refocus_select.adapters, "adapters"))
    for module, folder in (*parts, (refocus_select.weights, "weights")):
        assert Path(module.__file__).parent.samefile(ROOT / folder)


@pytest.fixture
def pretend(tmp_path):
    """Runs code where the metadata of packages name other releases."""

    def run(code: str, **releases: str) -> subprocess.CompletedProcess[str]:
        for name, release in releases.items():
            folder = tmp_path / f"{name}-{release}.dist-info"
            folder.mkdir()
            folder.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
        path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    return run


FIRST_USES = {
    "the core": "from refocus_select import select_frames",
    "a video": "from refocus_select.video import open_video; open_video('film.mp4')",
    "an adapter": "from refocus_select.adapters import with_frame_selection",
}


@pytest.mark.parametrize("code", FIRST_USES.values(), ids=FIRST_USES)
def test_a_dependency_too_old_is_named_with_its_remedy(pretend, code):
    done = pretend(code, av="14.4.0")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "MissingDependencyError: av 14.4.0: not the release that refocus-select needs" in error
    assert "run: pip install 'av>=15.0,<20'" in error


def test_dependencies_too_old_and_too_new_are_named_in_one_line(pretend):
    code = "from refocus_select.cli import main; raise SystemExit(main(['info', 'film.mp4']))"
    done = pretend(code, av="20.0.1", transformers="4.40.0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("refocus-select: av 20.0.1, transformers 4.40.0: not the release")
    assert line.count("pip install") == 1


def test_local_and_newer_releases_within_the_range_are_fine(pretend):
    code = "import refocus_select; refocus_select.select_frames"
    done = pretend(code, torch="2.14.1+cpu", tqdm="5.0.0rc1", av="16.1.0")
    assert done.returncode == 0, done.stderr


def test_the_error_classes_can_be_imported_to_catch_it(pretend):
    code = (
        "import refocus_select\ntry: refocus_select.open_video\nexcept refocus_select.RefocusError: raise SystemExit(7)"
    )
    assert pretend(code, av="14.4.0").returncode == 7


def test_the_tracked_tree_stays_small_and_free_of_pickles():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    size = sum(file.stat().st_size for file in files)
    assert size < 60 * 2**20
    assert not [file for file in files if file.suffix in {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}]
