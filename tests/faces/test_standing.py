"""A lab that stands: up, status, faults by hand, a client in it, down; and nothing left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


class Lab:
    """The commands, on a socket of our own."""

    def __init__(self, runtime: Path) -> None:
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"}
        self.runtime = runtime

    def run(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "socklab", *words]
        return subprocess.run(
            argv, capture_output=True, text=True, cwd=ROOT, env=self.environment, input=input, timeout=60
        )

    def said(self, *words: str, input: str = "") -> str:
        done = self.run(*words, input=input)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def lab(why_no_netns: str | None) -> Iterator[Lab]:
    """In a folder with a short name, wherever pytest has its own: a socket's path may not be long."""
    if why_no_netns:
        pytest.skip(why_no_netns)
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        lab = Lab(Path(runtime))
        yield lab
        lab.run("down")


@pytest.fixture
def up(lab: Lab) -> Lab:
    """With a chat and a registry in it."""
    lab.said("up", "chat", "udp-registry")
    return lab


def test_a_path_that_is_too_long_for_a_socket_is_told_in_a_line(tmp_path: Path) -> None:
    runtime = tmp_path / ("x" * 100)

    begun = Lab(runtime).run("up", "chat")

    assert begun.returncode == 3
    assert begun.stderr.count("\n") == 1
    assert "set XDG_RUNTIME_DIR to a shorter path" in begun.stderr


def test_it_stands_until_it_is_taken_down(lab: Lab) -> None:
    begun = lab.said("up", "chat", "--clients", "ann,ben")
    assert "listens on tcp 6001" in begun
    assert [line.split()[0] for line in begun.splitlines()] == ["node", "chat", "ann", "ben"]
    assert lab.said("status").endswith("all links are whole\n")
    again = lab.run("up", "chat")
    assert (again.returncode, again.stderr) == (
        2, "this lab is up already; socklab status shows it, socklab down ends it\n",
    )  # fmt: skip
    assert "the lab is down" in lab.said("down")
    gone = lab.run("status")
    assert (gone.returncode, gone.stderr) == (2, "no lab is up here; socklab up starts one\n")
    assert not list((lab.runtime / "socklab").glob("*.socket"))


def test_its_socket_is_the_users_alone(up: Lab) -> None:
    (folder,) = up.runtime.iterdir()
    (socket,) = folder.glob("*.socket")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert socket.stat().st_mode & 0o077 == 0


def test_faults_by_hand_are_felt_and_counted(up: Lab) -> None:
    """A client cannot connect through a cut, and can when it is healed."""
    dial = "import socket; socket.create_connection(('chat', 6001), timeout=0.3)"
    assert "alice→chat  cut" in up.said("cut", "alice", "chat")
    dialled = up.run("exec", "alice", "--", sys.executable, "-c", dial)
    assert dialled.returncode == 1
    assert "TimeoutError" in dialled.stderr
    assert "of 1 packet 1 dropped" in up.said("status")
    assert "alice→chat  whole" in up.said("heal", "alice")
    assert up.run("exec", "alice", "--", sys.executable, "-c", dial).returncode == 0


def test_links_are_named_by_two_words_or_one(up: Lab) -> None:
    """A hyphen may be part of a name, too."""
    assert "udp-registry→bob  loss 10% burst 3" in up.said("loss", "bob-udp-registry", "10%", "burst=3")
    told = up.said("delay", "bob", "udp-registry", "100ms", "--one-way")
    assert "bob→udp-registry  delay 100ms, loss 10% burst 3" in told
    assert "udp-registry→bob  loss 10% burst 3" in told
    assert "whole" in up.said("heal", "bob", "udp-registry")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss", "alice", "chat", "120%"], 'expected a percentage over 0% and up to 100%, like 10% or 0.5%, got "120%"'),
        (["loss", "alice", "chat"], "a link needs is: (how many are lost)"),
        (["delay", "alice", "caht", "1s"], 'a link has two ends, like alice chat; "caht" is none of chat, udp-registry, alice, bob, carol'),
        (["delay", "alice", "alice", "1s"], "there is no link from alice to itself"),
        (["cut", "alice", "chat", "now"], 'unknown key "is" in a link'),
        (["cut", "alice", "chat", "right", "now"], '"now": one word too many'),
        (["heal", "dave", "chat"], '"dave" is none of chat'),
        (["logs", "dave"], 'no server "dave" here; there are chat, udp-registry'),
        (["restart", "alice"], 'no server "alice" here'),
        (["exec", "dave", "true"], 'no node "dave" here'),
        (["exec", "alice"], "exec needs a command"),
        (["talk", "udp-echo", "--as", "alice"], '"udp-echo" is not up'),
        (["talk", "chat", "--as", "dave"], 'no node "dave" here'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(up: Lab, words: list[str], said: str) -> None:
    done = up.run(*words)

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "all links are whole" in up.said("status")


def test_one_talks_as_a_client_of_it(up: Lab) -> None:
    assert "hello" in up.said("talk", "chat", "--as", "alice", input="hello\n")
    assert "connected 10.71." in up.said("logs", "chat")


def test_a_program_in_it_ends_as_it_would_anywhere(up: Lab) -> None:
    """Its status, and a program that is not there."""
    assert up.run("exec", "alice", "sh", "-c", "exit 7").returncode == 7
    missing = up.run("exec", "alice", "no-such-program")
    assert (missing.returncode, missing.stderr) == (3, "no-such-program: no such program on the PATH\n")


def test_a_server_that_ended_is_told_and_started_again(up: Lab) -> None:
    """Killed from within its own node."""
    up.said(
        "exec",
        "chat",
        "sh",
        "-c",
        "for p in /proc/[0-9]*; do grep -qs [s]ervices/chat.py $p/cmdline && kill -9 ${p#/proc/}; done; true",
    )
    for _ in range(100):
        if "ended by signal 9" in up.said("status"):
            break
    assert "ended by signal 9" in up.said("status")
    assert "listens on tcp 6001" in up.said("restart", "chat")


def test_a_daemon_that_is_killed_leaves_nothing(up: Lab) -> None:
    """And a new lab can be started where it was."""
    (socket,) = (up.runtime / "socklab").glob("*.socket")
    daemons = [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and str(socket) in _command(p) and "socklab.standing" in _command(p)
    ]
    (daemon,) = daemons
    os.kill(daemon, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while up.run("status").returncode == 0 and time.monotonic() < deadline:
        pass
    assert up.run("status").returncode == 2
    assert "listens on tcp 6001" in up.said("up", "chat")


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
