"""`socklab shell`: what a person types, sees, and keeps."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from socklab import player
from socklab.scenario import load
from tests import pseudo_terminal

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "socklab", "shell"]
COMPOSE = ["--compose", str(ROOT / "docker-compose.yml")]


def fed(folder: Path, what: str, *lines: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit status and output of a shell that is fed these lines."""
    done = subprocess.run(
        [*COMMAND, what, *options, *([] if "--compose" in options else COMPOSE)],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_what_happens_is_told_as_it_happens(tmp_path: Path) -> None:
    status, text = fed(tmp_path, "chat", "connect: everyone", "alice: hello", "expect: {carol: hello}")

    assert status == 0, text
    assert re.search(r'bob ← +"hello\\n"', text)
    assert re.search(r"server log +\S+ connected \S+ thread=", text)
    assert re.search(r"history   socklab show runs/\S+-by-hand", text)


DRIVING = r'send: {alice: {bytes: "\e]0;owned\a\e[2J\e[31m\x9b31m\0\xff<b>\n"}}'


def test_what_a_server_sends_drives_no_terminal(tmp_path: Path) -> None:
    """Nor does a line of a megabyte fill it."""
    megabyte = "send: {alice: {text: x, repeat: 1000000}}"
    status, text = fed(
        tmp_path, "echo", "connect: alice", DRIVING, megabyte, "expect: {alice: {exactly: sent}}"
    )

    assert status == 0, text
    assert r"\x1b]0;owned\x07" in text
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize("on", ["netns", "process"])
@pytest.mark.parametrize(
    ("service", "lines"),
    [
        (
            "chat",
            ["connect: everyone", "alice: hello", "bob: it is 12:30 #now", "close: bob", "alice: {braces}"],
        ),
        (
            "chat",
            [
                "connect: [alice, bob]",
                "send: {alice: [one, two]}",
                "expect: {bob: [one, two]}",
                "connect: carol",
                "carol: three",
            ],
        ),
        (
            "eventloop",
            [
                "connect: everyone",
                "alice: hello",
                "bob: abc",
                "alice: again",
                "half-close: bob",
                "abort: carol",
            ],
        ),
        ("udp-echo", ["alice: one", "send: {alice: [two, three]}", "bob: four"]),
        (
            "udp-registry",
            [
                'send: {bob: "#REG"}',
                'send: {carol: "#REG"}',
                "send: {alice: [news, more]}",
                'send: {carol: "#DEREG"}',
                "alice: last",
            ],
        ),
    ],
)
def test_what_was_typed_with_what_came_is_saved_as_a_scenario_that_passes(
    tmp_path: Path, service: str, lines: list[str], on: str
) -> None:
    if on == "netns" and os.geteuid() != 0:
        pytest.skip("needs root")
    lines = [line.replace("{braces}", "{{braces}}") for line in lines]
    status, text = fed(tmp_path, service, *lines, "save kept.scenario.yaml", options=("--on", on))

    assert status == 0, text
    assert "pass  kept.scenario.yaml  Kept" in text
    expected = {name for step in load(tmp_path / "kept.scenario.yaml")[0].steps for name, _ in step.expects}
    assert len(expected) >= 2, (tmp_path / "kept.scenario.yaml").read_text()


def test_a_fault_by_hand_is_kept_with_what_it_did(tmp_path: Path) -> None:
    lines = [
        "connect: [alice, bob]",
        "delay: {from: server, to: bob, is: 1500ms}",
        "alice: late",
        "expect: {bob: late}",
        "cut: {between: [bob, server]}",
        "alice: lost",
        "expect: {bob: lost}\r",
        "quiet: {bob: 50ms}",
    ]
    status, text = fed(tmp_path, "chat", *lines, "save kept.scenario.yaml", "quit")

    assert status == 1, text  # bob expected what was lost
    assert "pass  kept.scenario.yaml" in text
    kept = (tmp_path / "kept.scenario.yaml").read_text()
    assert "expect: {bob: lost}" not in kept
    assert 'expect: {alice: "lost"}' in kept


def test_a_scenario_is_played_step_by_step(tmp_path: Path) -> None:
    file = ROOT / "scenarios" / "chat" / "everyone-hears-a-line.yaml"
    steps = len(load(file)[0].steps)
    status, text = fed(tmp_path, str(file), *["next"] * (steps + 1))

    assert status == 2
    assert text.count("> next") == steps + 1
    assert "no step is left" in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", 'expected a step, got "nonsense"'),
        ("connect alice", "write connect: …, a colon behind the verb"),
        ("send: {dora: x}", 'no client "dora"'),
        ("alice: hello", "alice is not connected; put `connect: alice` before it"),
        ("connect: {alice: {over: ipv6}}", "begin it with --ipv6"),
        ("save here.txt", "name it so"),
        ("save begun.scenario.yaml", "nothing was done yet"),
        ("help nothing", 'there is no verb "nothing"'),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("kill: alice", '"alice"'),
        ("x" * 100_000, "expected a step"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line_and_the_shell_goes_on(
    tmp_path: Path, line: str, told: str
) -> None:
    status, text = fed(tmp_path, "chat", line, "connect: alice", "alice: hi", "expect: {alice: hi}")

    assert status == 2
    assert told in text
    assert "\x1b[31mred" not in text
    assert re.search(r'alice ← +"hi\\n"', text)


def test_a_scenario_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    status, text = fed(tmp_path, "chat", "connect: alice", "save /proc/none/x.scenario.yaml")

    assert status == 2
    assert "/proc/none/x.scenario.yaml: No such file or directory" in text


@pytest.mark.parametrize(
    ("what", "options", "told"),
    [
        ("chatt", (), 'no service "chatt"'),
        ("none.yaml", (), "none.yaml: cannot be read: No such file or directory"),
        ("chat", ("--clients", "everyone"), '"everyone" is a word of the language'),
        ("chat", ("--clients", "a,,b"), "is no list of names"),
        ("chat", ("--compose", "none.yml"), "none.yml"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_in_a_line(
    tmp_path: Path, what: str, options: tuple[str, ...], told: str
) -> None:
    status, text = fed(tmp_path, what, options=options)

    assert status == 2
    assert told in text
    assert len(text.strip().splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(folder / "state")}
        self.ours, theirs = pseudo_terminal.opened()
        self.process = pseudo_terminal.run([*COMMAND, *words, *COMPOSE], theirs, cwd=folder, env=environment)
        self.text = ""
        self.raw = b""

    def until(self, wanted: str, limit: float = 20.0) -> str:
        """Read until this has come; what came before it is forgotten."""
        deadline = time.monotonic() + limit
        while wanted not in self.text:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} did not come; this did: {self.text!r}"
            data = pseudo_terminal.read(self.ours)
            self.raw += data
            assert data, f"ended before {wanted!r} came; this did: {self.text!r}"
            if b"\x1b[6n" in data:
                os.write(self.ours, b"\x1b[1;1R")  # where the cursor is, as a terminal answers
            self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        before, _, self.text = self.text.partition(wanted)
        return before

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        os.close(self.ours)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    pytest.importorskip("prompt_toolkit", reason="needs socklab[shell]")
    made = Terminal(tmp_path, "chat")
    made.until("socklab>")
    yield made
    made.close()


def test_words_are_completed_and_lines_recalled(shell: Terminal) -> None:
    shell.type("conn\t")
    shell.until("ect:")  # a prompt draws what differs from what stands there
    shell.type("al\t")
    shell.until("ice")
    shell.type("\r")
    shell.until("alice →")
    shell.until("socklab>")
    shell.type("alice: hello\r")
    shell.until('alice ←        "hello')
    shell.until("socklab>")
    shell.type("\x1b[A\r")
    shell.until('alice ←        "hello')
    shell.until("socklab>")
    shell.type("\x04")
    shell.until("history   socklab show")
    assert shell.process.wait(20) == 0


def test_what_a_server_sends_drives_no_prompt(shell: Terminal) -> None:
    shell.type("connect: alice\r")
    shell.until("connected")
    shell.type(DRIVING + "\r")
    shell.until("alice ←")
    shell.until("<b>")
    assert b"\x1b]0;" not in shell.raw
    assert b"\x9b31m" not in shell.raw


def test_ctrl_c_ends_what_is_waited_for_and_not_the_shell(shell: Terminal) -> None:
    shell.type("connect: alice\r")
    shell.until("alice →")
    shell.until("socklab>")
    shell.type("{expect: {alice: hello}, within: 60s}\r")
    shell.until("within: 60s}")
    time.sleep(0.3)  # nothing tells that it waits
    os.killpg(shell.process.pid, signal.SIGINT)
    shell.until("broken off")
    shell.until("socklab>")
    shell.type("quit\r")
    shell.until("history   socklab show")
    assert shell.process.wait(20) == 2


def test_a_shell_that_is_ended_leaves_a_run_and_no_process(shell: Terminal, tmp_path: Path) -> None:
    shell.type("connect: everyone\r")
    shell.until("carol →")
    shell.process.send_signal(signal.SIGTERM)
    assert "Traceback" not in shell.until("history   socklab show")
    assert shell.process.wait(20) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_shell_that_waits_for_a_pipe_is_ended_at_once(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Whoever feeds it may say nothing more."""
    with subprocess.Popen(
        [*COMMAND, "chat", *COMPOSE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("connect: everyone\n")
        process.stdin.flush()
        assert any("carol →" in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(20) == status
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


def test_the_saved_scenario_is_found_by_play(tmp_path: Path) -> None:
    fed(tmp_path, "udp-echo", "alice: hello", "save scenarios/mine/hello.yaml")

    assert player.find([tmp_path / "scenarios"]) == [tmp_path / "scenarios" / "mine" / "hello.yaml"]
