"""The package as a whole: light to import, nothing foreign shipped, a tree that stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_adapters_and_weights_are_parts_of_the_package():
    import refocus_select.adapters
    import refocus_select.weights

    for module, folder in ((refocus_select.adapters, "adapters"), (refocus_select.weights, "weights")):
        assert Path(module.__file__).parent.samefile(ROOT / folder)


def test_the_tracked_tree_stays_small_and_free_of_pickles():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    size = sum(file.stat().st_size for file in files)
    assert size < 60 * 2**20
    assert not [file for file in files if file.suffix in {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}]
