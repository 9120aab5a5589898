"""Train a selector by reinforcement in minutes on two CPU cores: `python examples/train_tiny.py [--out runs/tiny]`.

Filters the questions, starts a run of two curriculum stages, kills it in the middle as a power cut would, goes on with
it, and shows what the selector is worth against uniform and top-k on held-out questions.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "refocus_select"]


def main() -> int:
    """Run the example; further words are settings, e.g. `seed=1`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder of the run (default: runs/tiny)")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of examples/train_tiny.yaml")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    settings = [str(HERE / "train_tiny.yaml"), f"output={out}", *arguments.settings]

    print("1. the questions whose answer depends on the frames", flush=True)
    run([*COMMAND, "filter", *settings])
    settings.append(f"data.train={out / 'filtered' / 'kept.jsonl'}")

    print("2. training, killed after its first checkpoints", flush=True)
    with subprocess.Popen([*COMMAND, "train", *settings], cwd=HERE.parent) as process:
        while process.poll() is None and len(list((out / "checkpoints").glob("step-*[1-9]*"))) < 2:
            time.sleep(0.2)
        process.kill()
    if process.returncode not in (0, -signal.SIGTERM, -9, 1):
        return process.returncode

    print("3. the same command goes on", flush=True)
    run([*COMMAND, "train", *settings])

    from refocus_select import FrameSelector

    selector = FrameSelector.from_pretrained(out / "selector")
    print(f"4. {selector.name} is ready; its model card, with learning curves: {out / 'selector' / 'README.md'}")
    return 0


def run(command: list[str]) -> None:
    """Run a command of ours from the root of the repository, and stop with it if it fails."""
    status = subprocess.run(command, cwd=HERE.parent, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
