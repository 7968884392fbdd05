"""`python -m socklab`: the command line."""

import sys

from socklab.cli import main

sys.exit(main())
