"""The agent's control stream: its lines, its answers, its end."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.clients.agent_process import AGENT, LIMIT_S, Agent, connected, fill, full_backlog, read_to_end


def test_it_says_hello_and_takes_little_memory(agent: Agent) -> None:
    """Version, process, Python; an idle one takes at most 20 MB."""
    assert agent.hello["agent"] == 1
    assert agent.hello["pid"] == agent.process.pid
    assert agent.hello["python"] == sys.version.split()[0]
    assert agent.memory() <= 20_000_000


@pytest.mark.parametrize(
    ("line", "number", "says"),
    [
        (b"not json", None, "a command is JSON"),
        (b"[]", None, "a command is an object"),
        (b"\xff\xfe", None, "a command is UTF-8"),
        (b"[" * 100_000, None, "a command is JSON"),
        (b"{}", None, '"id"'),
        (b'{"do": "sync"}', None, '"id"'),
        (b'{"id": true, "do": "sync"}', None, '"id"'),
        (b'{"id": 7}', 7, "unknown command None"),
        (b'{"id": 7, "do": "fly"}', 7, "known: abort, bye, close, crowd, open, pin, read, send"),
        (b'{"id": 7, "do": "open"}', 7, 'open needs "client"'),
        (b'{"id": 7, "do": "open", "client": "b", "kind": "pigeon", "to": []}', 7, "known: tcp, udp, unix"),
        (b'{"id": 7, "do": "open", "client": "b", "kind": "tcp", "to": "there"}', 7, '"to" is [host, port]'),
        (b'{"id": 7, "do": "open", "client": "b", "kind": "tcp", "to": ["::1", 70000]}', 7, '"to" is [host'),
        (b'{"id": 7, "do": "open", "client": "b", "kind": "unix", "to": 5}', 7, "a path"),
        (
            b'{"id": 7, "do": "open", "client": "b", "kind": "tcp", "to": ["a\\u0000b", 9]}',
            7,
            '"to" is [host',
        ),
        (b'{"id": 7, "do": "open", "client": "b", "kind": "tcp", "to": ["a..b", 9]}', 7, "label"),
        (b'{"id": 7, "do": "send", "client": "a"}', 7, 'send needs "chunks"'),
        (b'{"id": 7, "do": "send", "client": "a", "chunks": [{"txt": "x"}]}', 7, "a chunk is"),
        (b'{"id": 7, "do": "send", "client": "a", "chunks": [{"base64": "%"}]}', 7, "a chunk is"),
        (b'{"id": 7, "do": "send", "client": "a", "chunks": [], "pause": -1}', 7, '"pause" is a number'),
        (b'{"id": 7, "do": "set", "client": "a", "option": "magic", "value": 1}', 7, "known: nodelay"),
        (b'{"id": 7, "do": "set", "client": "a", "option": "ttl", "value": "x"}', 7, "a whole number"),
    ],
)
def test_a_wrong_command_is_answered_and_does_no_harm(
    agent: Agent, listener: socket.socket, line: bytes, number: int | None, says: str
) -> None:
    """It is a usage error that says what was expected, and the sockets go on."""
    with connected(agent, listener) as server:
        agent.raw(line + b"\n")
        answer = agent.answer(number)
        assert (answer["ok"], answer["error"]) == (False, "usage")
        assert says in answer["message"]
        agent.number = 7
        agent.send("still fine")
        assert server.recv(100) == b"still fine"


def test_a_line_may_come_in_pieces_and_many_at_once(agent: Agent) -> None:
    """The control stream is a stream: borders of reads mean nothing, empty lines neither."""
    for byte in b'{"id": 1, "do": "sync"}\n':
        agent.raw(bytes([byte]))
    assert agent.answer(1)["ok"]
    agent.raw(b'\n{"id": 2, "do": "sync"}\n\r\n{"id": 3, "do": "status"}\n{"id": 4, ')
    agent.raw(b'"do": "sync"}\n')
    assert [agent.answer(number)["ok"] for number in (2, 3, 4)] == [True] * 3


def test_a_line_may_be_megabytes_long(agent: Agent, listener: socket.socket) -> None:
    """Eight megabytes in one command arrive whole."""
    text = "0123456789abcdef" * (1 << 19)
    with connected(agent, listener) as server:
        number = agent.tell("send", client="a", chunks=[{"text": text}])
        agent.tell("close", client="a")
        assert read_to_end(server) == text.encode()
        assert agent.answer(number)["sent"] == len(text)


def test_answers_come_in_the_order_of_completion(agent: Agent, listener: socket.socket) -> None:
    """A connect that nobody answers blocks no other client's commands."""
    with full_backlog() as full:
        slow = agent.start_open(list(full.getsockname()), "slow", limit=LIMIT_S)
        with connected(agent, listener) as server:
            assert agent.send("hello")["ok"]
            assert server.recv(100) == b"hello"
        assert agent.status("slow")["state"] == "connecting"
        assert agent.ask("abort", client="slow")["ok"]
        assert agent.answer(slow)["error"] == "closed"


def test_bye_answers_what_is_under_way_and_ends(agent: Agent, listener: socket.socket) -> None:
    """No command is left without its answer: a waiting connect, a send that nobody reads."""
    with full_backlog() as full, connected(agent, listener):
        waiting = [
            agent.start_open(list(full.getsockname()), "slow"),
            agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 100_000_000}]),
            agent.tell("close", client="a"),
        ]
        assert agent.ask("bye")["ok"]
        assert [agent.answer(number)["error"] for number in waiting] == ["closed"] * 3
        assert agent.wait() == 0


@pytest.mark.parametrize("how", ["end of stream", "SIGTERM"])
def test_at_its_end_it_closes_all_and_says_nothing(
    agent: Agent, listener: socket.socket, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a send under way, too: it is gone at once, its peers see that, and no process is left."""
    with connected(agent, listener, "idle") as idle, connected(agent, listener) as busy:
        agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 100_000_000}])
        assert busy.recv(1) == b"x"
        if how == "SIGTERM":
            agent.process.send_signal(signal.SIGTERM)
            assert agent.wait() == 0
        else:
            assert agent.end() == 0
        assert read_to_end(idle) == b""
    assert agent.answers == []
    assert not Path(f"/proc/{agent.pid}").exists()
    assert capfd.readouterr().err == ""


def test_ctrl_c_at_the_terminal_is_for_the_conductor(agent: Agent) -> None:
    """It goes to the whole foreground group, and the conductor may still want something."""
    agent.process.send_signal(signal.SIGINT)
    assert agent.ask("status")["ok"]


def test_it_ends_when_nobody_takes_its_reports(listener: socket.socket) -> None:
    """The other end of its stdout is closed, though not its stdin."""
    process = subprocess.Popen([sys.executable, AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(LIMIT_S) == 0


def test_commands_may_come_from_a_file(tmp_path: Path) -> None:
    """epoll knows no files; an agent fed by one must not fail for that."""
    commands = tmp_path / "commands"
    commands.write_text('{"id": 1, "do": "status"}\n{"id": 2, "do": "bye"}\n')
    with commands.open() as stdin, (tmp_path / "reports").open("w+") as stdout:
        subprocess.run([sys.executable, AGENT], stdin=stdin, stdout=stdout, check=True, timeout=LIMIT_S)
        stdout.seek(0)
        assert [json.loads(line).get("id") for line in stdout] == [None, 1, 2]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_speaks_on_a_connection_as_well(kind: str, tmp_path: Path) -> None:
    """--connect dials the conductor, and the same lines go over that connection."""
    path = str(tmp_path / "control")
    conductor = socket.socket(socket.AF_UNIX) if kind == "unix" else socket.create_server(("127.0.0.1", 0))
    with conductor:
        if kind == "unix":
            conductor.bind(path)
            conductor.listen()
        name = conductor.getsockname()
        target = f"unix:{path}" if kind == "unix" else f"{name[0]}:{name[1]}"
        conductor.settimeout(LIMIT_S)
        with subprocess.Popen([sys.executable, AGENT, "--connect", target]) as process:
            stream, _ = conductor.accept()
            stream.settimeout(LIMIT_S)
            with stream, stream.makefile("rw") as lines:
                assert json.loads(lines.readline())["event"] == "hello"
                lines.write('{"id": 1, "do": "status"}\n')
                lines.flush()
                assert json.loads(lines.readline())["ok"]
            assert process.wait(LIMIT_S) == 0
    refused = subprocess.run(
        [sys.executable, AGENT, "--connect", target], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "is the conductor listening there?" in refused.stderr


def test_a_process_that_has_read_it_may_fork_and_serve() -> None:
    """serve() on a socket pair, in a child; and importing it does nothing yet."""
    program = """
import importlib.util, os, socket, sys
spec = importlib.util.spec_from_file_location("agent", sys.argv[1])
agent = importlib.util.module_from_spec(spec)
spec.loader.exec_module(agent)
ours, theirs = socket.socketpair()
if not (child := os.fork()):
    ours.close()
    agent.serve(theirs.fileno(), theirs.fileno())
    os._exit(0)
theirs.close()
with ours.makefile("rw") as lines:
    print(lines.readline(), end="")
    print('{"id": 1, "do": "bye"}', file=lines, flush=True)
    print(lines.readline(), end="")
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, AGENT], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    hello, bye, status = done.stdout.splitlines()

    assert json.loads(hello)["event"] == "hello"
    assert json.loads(bye)["ok"]
    assert status == "0"


def test_when_nobody_reads_its_reports_it_stops_reading_too(listener: socket.socket) -> None:
    """Its memory stays bounded and its peers are made to wait; then everything arrives, in order."""
    process = subprocess.Popen([sys.executable, AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        to = list(listener.getsockname())
        process.stdin.write(
            json.dumps({"id": 1, "do": "open", "client": "a", "kind": "tcp", "to": to}).encode() + b"\n"
        )
        process.stdin.flush()
        server, _ = listener.accept()
        with server:
            assert json.loads(process.stdout.readline())["ok"]
            sent = fill(server)
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            assert pages * os.sysconf("SC_PAGE_SIZE") < 64_000_000
        got = 0
        while got < sent:
            got += len(json.loads(process.stdout.readline())["text"])
        assert json.loads(process.stdout.readline())["event"] == "eof"
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_it_is_told_it_answers_once_and_lives(
    agent: Agent, listener: socket.socket, seed: int
) -> None:
    """Random commands, half of them nonsense: each gets one answer, and none brings it down."""
    rng = random.Random(seed)
    port = listener.getsockname()[1]
    words = ["a", "b", "tcp", "udp", "unix", "127.0.0.1", "@x", "/no/such", "x\0y", "\ud800", "rcvbuf", "ttl"]
    numbers = [0, 1, -1, 70000, 1 << 31, 1 << 63, 10**30, 1e300, -1.5, 0.01, True, None]
    fields = ["client", "kind", "to", "bind", "limit", "options", "chunks", "pause", "option", "value"]

    def anything(depth: int = 0) -> Any:
        kind = rng.randrange(5 if depth < 3 else 2)
        if kind == 0:
            return rng.choice(words)
        if kind == 1:
            return rng.choice(numbers)
        if kind == 2:
            return [rng.choice(["127.0.0.1", "::1"]), rng.choice([port, 0, 9])]
        if kind == 3:
            return [
                anything(depth + 1) for _ in range(rng.choice([0, 1, 3]))
            ]  # two might be a name to look up
        return {
            rng.choice([*fields, "text", "base64", "repeat"]): anything(depth + 1)
            for _ in range(rng.randrange(4))
        }

    for number in range(2000):
        do = rng.choice(
            ["open", "open", "send", "send", "shutdown", "close", "abort", "stall", "read", "set", "sync"]
        )
        command: dict[str, Any] = {"client": rng.choice("ab"), "do": do}
        if do == "open":
            command["kind"] = rng.choice(["tcp", "udp", "unix"])
            command["to"] = "@nobody" if command["kind"] == "unix" else ["127.0.0.1", port]
        elif do == "send":
            repeat = rng.choice([0, 1, 100_000])
            command |= {"chunks": [{"text": "x", "repeat": repeat}], "pause": rng.choice([0, 0.001])}
        for _ in range(rng.randrange(3)):
            command[rng.choice(fields)] = anything()
        agent.raw(json.dumps({**command, "id": number}).encode() + b"\n")
    agent.raw(b'{"id": 5000, "do": "bye"}\n')
    assert agent.wait() == 0
    answered = Counter(answer["id"] for answer in agent.answers)

    assert answered == Counter([*range(2000), 5000])
