"""`python -m socklab`: the command line."""

import signal
import sys

from socklab.cli import main

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.exit(main())
