"""`python -m reloader` is the command `reloader`."""

import sys

from reloader.cli import main

sys.exit(main())
