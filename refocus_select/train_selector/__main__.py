"""`python -m refocus_select.train_selector CONFIG …`, also under `accelerate launch` and `torchrun`."""

import sys

from ..cli import main

sys.exit(main(["train", *sys.argv[1:]]))
