"""The conductor is killed at any moment, and nothing of its lab is left: no process, namespace, interface or file.

SOCKLAB_KILLS=100 does it a hundred times (default 10 for each backend).
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = int(os.environ.get("SOCKLAB_KILLS", "10"))
SCENARIO = """\
title: A lab to be killed
service: forking
clients: [alice, bob, carol]
steps:
  - connect: everyone
  - repeat:
      times: 100000
      steps:
        - send: {everyone: "hello;"}
        - expect: {everyone: "hello;"}
"""


@pytest.mark.parametrize("backend", ["netns", "process"])
def test_a_killed_conductor_leaves_nothing(backend: str, tmp_path: Path, why_no_netns: str | None) -> None:
    """Everything started carries the conductor's mark in its environment or descends from it; none of it outlives it."""
    if backend == "netns" and why_no_netns:
        pytest.skip(why_no_netns)
    (tmp_path / "kill.scenario.yaml").write_text(SCENARIO)
    rng = random.Random(os.getpid())
    (tmp_path / "stderr").touch()
    interfaces, names, files = socket.if_nameindex(), _names(), _files(tmp_path)
    for _ in range(KILLS):
        argv = [
            sys.executable,
            "-m",
            "socklab",
            "play",
            "--on",
            backend,
            "--no-runs",
            "--compose",
            str(ROOT / "docker-compose.yml"),
            "kill.scenario.yaml",
        ]
        with (tmp_path / "stderr").open("a") as stderr:
            process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=stderr)
        seen: set[int] = set()
        moment = time.monotonic() + rng.uniform(0.05, 0.8)
        while time.monotonic() < moment:
            seen |= _descendants(process.pid)
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGSTOP)  # so that what is seen now is all there is
        seen |= _descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _wait_until_gone(seen)
    assert (socket.if_nameindex(), _names(), _files(tmp_path)) == (interfaces, names, files)
    assert (tmp_path / "stderr").read_text() == ""


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= {int(child)} | _descendants(int(child))
    except OSError:
        pass  # it has ended meanwhile
    return found


def _wait_until_gone(pids: set[int]) -> None:
    """The kernel ends them, not somebody's clean-up; it takes a moment, which has a limit."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if _alive(pid)]:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _names() -> list[str]:
    return sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))
