"""A program at a terminal of its own (pty(7))."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from typing import Any


def opened(columns: int = 80, rows: int = 24) -> tuple[int, int]:
    """A terminal: our end and the program's."""
    ours, theirs = pty.openpty()
    resize(ours, columns, rows)
    return ours, theirs


def run(argv: Sequence[str], theirs: int, **more: Any) -> subprocess.Popen[bytes]:
    """The program, which has that end from here on."""
    process = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **more
    )
    os.close(theirs)
    return process


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read(terminal: int) -> bytes:
    """What the program has written; nothing when it has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last descriptor of the other side is closed
        return b""
