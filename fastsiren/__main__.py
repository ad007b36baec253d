"""`python -m fastsiren` is the command `fastsiren`."""

import sys

from .cli import main

sys.exit(main())
