"""What a process that was killed leaves: a name that `refocus_select.files` gave to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from refocus_select.files import replacing
with replacing(Path(sys.argv[1], "entry.safetensors")) as temporary:
    print(temporary.name)
"""


def name_of_a_dead_process(folder: Path) -> str:
    """The name of a temporary file of a process that has ended; the file itself is gone."""
    found = subprocess.run([sys.executable, "-c", CODE, str(folder)], capture_output=True, text=True, check=True)
    (folder / "entry.safetensors").unlink()
    return found.stdout.strip()
