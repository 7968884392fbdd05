"""The command line in an empty folder, as somebody uses it who brings a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHAT = (ROOT / "services" / "chat.py").read_text()
ECHO = (ROOT / "services" / "eventloop.py").read_text()
START = ("--", "python3", "server.py", "--host", "{host}", "--port", "{port}")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run("check", "chat", …) gives what `socklab check chat …` printed, in an empty folder."""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "socklab", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
        return subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )

    return run


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A right chat server of somebody's, server.py."""
    (tmp_path / "server.py").write_text(CHAT)
    return tmp_path / "server.py"
