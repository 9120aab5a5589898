"""`python -m refocus_select`."""

import sys

from .cli import main

sys.exit(main())
