"""A right server is never blamed, whatever its style; a wrong one is, with the reason in plain words.

Each server here is a real process on a real lab; the scenarios are those that a stranger's server is judged by.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from socklab import conductor, judge, topology
from socklab.backends import Backend
from socklab.backends.netns import Netns
from socklab.backends.process import Process
from socklab.conductor import Options
from socklab.scenario import load
from socklab.verdict import Result, Verdict

CHAT = """\
import socket, threading, time
room, lock = [], threading.Lock()
def serve(c):
    {join}
    with lock: room.append(c)
    {greet}
    buffer = b""
    while data := c.recv(4096):
        *lines, buffer = (buffer + data).split(b"\\n")
        for line in lines:
            if line == b"quit":
                with lock: room.remove(c)
                c.close()
                return
            with lock:
                for each in room: each.sendall({decorated} + b"\\n")
    with lock: room.remove(c)
s = socket.create_server(({host!r}, {port}))
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""

SCENARIO = """\
title: Everyone hears a line, once
clauses: [chat.2]
service: server-under-test
clients: [alice, bob]
steps:
  - connect: [alice, bob]
  - send: {alice: hello}
  - expect: {alice: {text: hello, once: true}, bob: {text: hello, once: true}}
  - send: {bob: quit}
  - expect: {bob: eof}
  - send: {alice: bye}
  - expect: {alice: bye}
"""


def chat(
    join: str = "pass", greet: str = "pass", decorated: str = "line", host: str = "0.0.0.0", port: int = 6000
) -> str:
    return CHAT.format(join=join, greet=greet, decorated=decorated, host=host, port=port)


def play(
    folder: Path, program: str, scenario: str = SCENARIO, on: type[Backend] = Process, patience: float = 1.0
) -> Result:  # type: ignore[type-abstract]
    """Play a scenario with a program as the server under test."""
    (folder / "server.py").write_text(program)
    (folder / "docker-compose.yml").write_text(
        "services:\n  server-under-test:\n    command: python server.py --host 0.0.0.0 --port 6000\n    expose: ['6000']\n"
    )
    path = folder / "test.scenario.yaml"
    path.write_text(scenario)

    async def whole() -> Result:
        backend = on()
        try:
            (one,) = load(path)
            return await conductor.play(
                one, topology.read(folder / "docker-compose.yml"), backend, Options(patience=patience)
            )
        finally:
            await backend.close()

    return asyncio.run(whole())


@pytest.fixture
def netns() -> type[Netns]:
    async def probe() -> str | None:
        backend = Netns()
        try:
            return await backend.probe()
        finally:
            await backend.close()

    if reason := asyncio.run(probe()):
        pytest.skip(reason)
    return Netns


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(chat(), id="plain"),
        pytest.param(chat(greet="c.sendall(b'Welcome!\\n')"), id="greets"),
        pytest.param(chat(decorated="b'<%d> ' % c.fileno() + line"), id="decorates"),
        pytest.param(
            chat(greet="[each.sendall(b'somebody came\\n') for each in room]"), id="tells who comes"
        ),
    ],
)
def test_a_right_server_passes_whatever_its_style(tmp_path: Path, netns: type[Netns], program: str) -> None:
    """A welcome line, a prefix, news of who comes: the text stands in the line, and that is what was asked."""
    result = play(tmp_path, program, on=netns)

    assert result.verdict is Verdict.PASS, result


def test_a_server_that_is_slow_to_let_a_client_in_is_not_blamed(tmp_path: Path, netns: type[Netns]) -> None:
    """connect() ends in the kernel: for a second a line may pass the newcomer by. Played again with a longer gap, it passes."""
    result = play(tmp_path, chat(join="time.sleep(0.3)"), on=netns)

    assert result.verdict is Verdict.PASS, result
    assert "chat.4" in result.notes[0]


def test_a_server_that_never_lets_the_second_in_is(tmp_path: Path, netns: type[Netns]) -> None:
    """The longer gap does not help the one that is wrong."""
    result = play(tmp_path, chat(join="threading.active_count() > 2 and time.sleep(60)"), on=netns)

    assert result.verdict is Verdict.FAIL
    assert result.failure is not None
    assert result.failure.expected == 'bob: "hello", nothing twice, within 2s'
    assert result.failure.got.startswith("bob: nothing")


ECHO = """\
import signal, socket, sys, threading, time
def serve(c):
    while data := c.recv(4096): c.sendall(data)
def end(*_):
    s.close()
    {at_sigterm}
    open("saved", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, end)
s = socket.create_server(("0.0.0.0", 6000))
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""

RESTARTED = """\
title: It is started anew
clauses: [echo.1]
service: server-under-test
clients: [alice]
steps:
  - connect: alice
  - restart: server
    within: {within}
  - connect: alice
  - send: {{alice: hello}}
  - expect: {{alice: hello}}
"""


def test_a_server_that_saves_something_when_it_is_to_end_is_not_killed_for_it(
    tmp_path: Path, netns: type[Netns]
) -> None:
    """It listens no more, and its process goes on for a while: that is its good right."""
    program = ECHO.format(at_sigterm="time.sleep(0.3)")
    result = play(tmp_path, program, RESTARTED.format(within="20s"), on=netns)

    assert result.verdict is Verdict.PASS, result
    assert (tmp_path / "saved").exists()
    assert [e.data["status"] for e in result.events if e.kind == "exited"] == [0]


def test_one_that_does_not_end_is_killed_and_the_history_says_so(tmp_path: Path, netns: type[Netns]) -> None:
    program = ECHO.format(at_sigterm="time.sleep(600)")
    result = play(tmp_path, program, RESTARTED.format(within="300ms"), on=netns)

    assert result.verdict is Verdict.PASS, result
    assert not (tmp_path / "saved").exists()
    notes = [e.data["text"] for e in result.events if e.kind == "note" and e.node == "server"]
    assert notes == ["still runs 0.3s after SIGTERM, so it was killed"]


def test_who_says_a_line_twice_is_told_so(tmp_path: Path, netns: type[Netns]) -> None:
    result = play(tmp_path, chat(decorated="line + b'\\n' + line"), on=netns)

    assert result.verdict is Verdict.FAIL
    assert '"hello" came twice' in result.reason


def test_a_server_on_loopback_only_is_told_so(tmp_path: Path, netns: type[Netns]) -> None:
    """The commonest mistake of a first server in a container."""
    result = play(tmp_path, chat(host="127.0.0.1"), on=netns, patience=0.1)

    assert result.verdict is Verdict.FAIL
    assert "it listens on 127.0.0.1 only; bind 0.0.0.0" in result.reason


def test_a_server_on_another_port_is_told_so(tmp_path: Path, netns: type[Netns]) -> None:
    result = play(tmp_path, chat(port=7777), on=netns, patience=0.1)

    assert result.verdict is Verdict.FAIL
    assert "it listens on port 7777 instead" in result.reason


def test_a_server_that_dies_behind_its_last_answer_fails(tmp_path: Path, netns: type[Netns]) -> None:
    """All steps were met, but a server has to stay up."""
    scenario = SCENARIO.replace(
        "  - send: {alice: bye}\n  - expect: {alice: bye}\n", "  - expect: {alice: eof}\n"
    )
    program = chat().replace("c.close()\n                return", "import os; os._exit(5)")
    result = play(tmp_path, program, scenario, on=netns)

    assert result.verdict is Verdict.FAIL
    assert "its process ended with status 5" in result.reason


def test_the_history_alone_gives_the_same_verdict(tmp_path: Path, netns: type[Netns]) -> None:
    """Judged again from its events, a pass is a pass, and a failure is the same one at the same line."""
    for program in (chat(), chat(decorated="line.upper()"), chat(decorated="line + b'\\n' + line")):
        result = play(tmp_path, program, on=netns)

        verdict, line, reason = judge.again(result.events)

        assert verdict is result.verdict
        assert line == (int(result.failure.where.rpartition(":")[2]) if result.failure else 0)
        assert reason.split(", within")[0] == result.reason.split(", within")[0]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_how_long_a_server_may_take_to_end_is_what_the_step_says(
    tmp_path: Path, netns: type[Netns], verb: str
) -> None:
    """One that does not hear SIGTERM is killed then, and not after the usual two seconds."""
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + chat()
    steps = f"  - {verb}: server\n    within: 100ms\n"

    result = play(
        tmp_path, deaf, f"title: t\nservice: server-under-test\nclients: [alice]\nsteps:\n{steps}", netns
    )

    assert result.verdict is Verdict.PASS, result.reason
    notes = [event.data["text"] for event in result.events if event.kind == "note"]
    assert any(note.endswith("0.1s after SIGTERM, so it was killed") for note in notes)
