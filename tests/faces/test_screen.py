"""`socklab play` on a terminal: who waits for what is seen while it goes on, and nothing of it stays."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import pseudo_terminal

pyte = pytest.importorskip("pyte", reason="needs pyte (make test installs it)")

ROOT = Path(__file__).resolve().parents[2]
HEAD = "title: {title}\nservice: {service}\nclients: [alice, bob]\nsteps:\n  - connect: everyone\n"
WAITING = HEAD.format(title="Waiting", service="chat") + (
    "  - send: {alice: hello}\n  - expect: {everyone: hello}\n  - expect: {bob: never}\n    within: 2s\n"
)
HOSTILE = HEAD.format(title="Hostile", service="chat") + (
    '  - send: {alice: {bytes: "\\e]0;owned\\a\\e[2J\\e[31m\\x9b31m\\xff\\n"}}\n  - wait: 500ms\n    note: to be seen\n'
)
SLOW = HEAD.format(title="Slow", service="chat") + "  - wait: 1s\n    note: to be seen\n"


class Window:
    """A terminal with a play in it."""

    def __init__(
        self, folder: Path, *words: str, size: tuple[int, int] = (100, 30), **environment: str
    ) -> None:
        self.screen = pyte.Screen(*size)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        mine = ("NO_COLOR", "COLUMNS", "LINES")  # pytest's workers have such
        inherited = {name: value for name, value in os.environ.items() if name not in mine}
        command = [
            sys.executable,
            "-m",
            "socklab",
            "play",
            "--compose",
            str(ROOT / "docker-compose.yml"),
            *words,
        ]
        self.ours, theirs = pseudo_terminal.opened(*size)
        self.process = pseudo_terminal.run(
            command, theirs, cwd=folder, env={**inherited, "TERM": "xterm-256color", **environment}
        )

    def resize(self, columns: int, rows: int) -> None:
        pseudo_terminal.resize(self.ours, columns, rows)
        self.screen.resize(rows, columns)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def _read(self, limit: float) -> bool:
        """Take in what comes within the limit; whether anything did."""
        if not select.select([self.ours], [], [], limit)[0]:
            return False
        data = pseudo_terminal.read(self.ours)
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def until(self, seen: Callable[[list[str]], bool], limit: float = 20.0) -> list[str]:
        """Read until this is to be seen; what is to be seen then."""
        deadline = time.monotonic() + limit
        while not seen(self.lines):
            came = self._read(0.05)
            assert came or self.process.poll() is None, (
                f"it ended, and this is what stands there: {self.lines}"
            )
            assert time.monotonic() < deadline, self.lines
        return self.lines

    def end(self, limit: float = 30.0) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + limit
        while self._read(0.05) or self.process.poll() is None:
            assert time.monotonic() < deadline, self.lines
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Callable[..., Window]]:
    made: list[Window] = []

    def open_(*texts: str, options: tuple[str, ...] = (), **more: Any) -> Window:
        for number, text in enumerate(texts):
            (tmp_path / f"play{number}.scenario.yaml").write_text(text)
        made.append(Window(tmp_path, *options, str(tmp_path), **more))
        return made[-1]

    yield open_
    for each in made:
        each.close()


def has(*texts: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(all(text in line for text in texts) for line in lines)


def test_who_waits_for_what_is_seen_while_it_goes_on_and_is_gone_afterwards(
    window: Callable[..., Window],
) -> None:
    play = window(WAITING)
    play.until(has("bob", "connected", 'waits for "never"'))
    seen = play.until(has("line 8: expect: {bob: never}"))
    assert has("server", "listens, 2 connected")(seen)
    assert has("alice", '← "hello\\n"')(seen)

    assert play.end() == 1
    assert not has("waits for")(play.lines)
    assert has('expected  bob: "never", within 2s')(play.lines)
    assert play.lines[-1].startswith("0 passed, 1 failed on ")


def test_several_plays_have_a_line_each(window: Callable[..., Window]) -> None:
    play = window(SLOW, SLOW, SLOW)
    seen = play.until(lambda lines: sum("wait: 1s" in line for line in lines) == 3)
    assert not has("waits for")(seen)
    assert play.end() == 0
    assert sum(line.startswith("pass ") for line in play.lines) == 3


def test_a_narrow_window_and_one_that_changes_are_not_broken(window: Callable[..., Window]) -> None:
    play = window(WAITING, size=(40, 8))
    play.until(has("bob", "waits for"))
    play.resize(60, 10)
    play.until(has("bob", 'waits for "never"'))
    assert play.end() == 1
    assert not has("waits for")(play.lines)


def test_a_crowd_leaves_the_one_who_waits_in_view(window: Callable[..., Window]) -> None:
    text = WAITING.replace("[alice, bob]", "[alice, bob, {crowd: 30}]")
    play = window(text, size=(80, 12))
    play.until(has("bob", 'waits for "never"'))
    play.until(has("and 25 more"))
    assert play.end() == 1


def test_what_a_server_sends_drives_no_terminal(window: Callable[..., Window]) -> None:
    play = window(HOSTILE)
    play.until(has("bob", "\\x1b]0;owned"))
    assert play.end() == 0
    assert play.screen.title != "owned"
    assert b"\x1b]0;" not in play.raw
    assert b"\x1b[31m" not in play.raw


def test_no_color_means_no_colours(window: Callable[..., Window]) -> None:
    play = window(SLOW, NO_COLOR="1")
    assert play.end() == 0
    assert not [code for code in (b"\x1b[32m", b"\x1b[33m", b"\x1b[1;3") if code in play.raw]


@pytest.mark.parametrize(
    ("options", "environment"), [(("--quiet",), {}), (("--json",), {}), ((), {"TERM": "dumb"})]
)
def test_where_nothing_may_be_drawn_nothing_is(
    window: Callable[..., Window], options: tuple[str, ...], environment: dict[str, str]
) -> None:
    play = window(SLOW, options=options, **environment)
    assert play.end() == 0
    assert b"\x1b[" not in play.raw.replace(b"\x1b[32m", b"").replace(b"\x1b[0m", b"").replace(
        b"\x1b[2m", b""
    ).replace(b"\x1b[1m", b"")


def test_ctrl_c_in_the_middle_gives_the_terminal_back(window: Callable[..., Window]) -> None:
    play = window(SLOW.replace("1s", "60s"))
    play.until(has("wait: 60s"))
    os.killpg(play.process.pid, signal.SIGINT)
    assert play.end() == 130
    assert not play.screen.cursor.hidden
    assert play.lines[-1] == "interrupted; everything that was started has been ended"


def test_json_is_all_that_stands_on_standard_output(tmp_path: Path) -> None:
    (tmp_path / "a.scenario.yaml").write_text(WAITING.replace("2s", "50ms"))
    (tmp_path / "b.scenario.yaml").write_text(SLOW.replace("1s", "10ms"))
    command = [
        sys.executable,
        "-m",
        "socklab",
        "play",
        "--json",
        "--compose",
        str(ROOT / "docker-compose.yml"),
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [(row["label"], row["verdict"]) for row in rows] == [("a", "fail"), ("b", "pass")]
    assert rows[0]["where"] == "a.scenario.yaml:8"


def test_a_pipe_gets_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "a.scenario.yaml").write_text(SLOW.replace("1s", "10ms"))
    command = [sys.executable, "-m", "socklab", "play", "--compose", str(ROOT / "docker-compose.yml"), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-2].startswith("pass  a.scenario.yaml  Slow  ")
