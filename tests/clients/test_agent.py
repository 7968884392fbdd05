"""The scripted client's protocol: each command, each answer, what is reported of the sockets. Real sockets on loopback."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

AGENT = Path(__file__).resolve().parent.parent.parent / "clients" / "agent.py"


class Agent:
    """An agent process, spoken to line by line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.number = 0
        self.events: list[dict[str, Any]] = []
        self.answers: dict[Any, dict[str, Any]] = {}
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.hello = self.event("hello", client=None)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            with self.changed:
                if "event" in message:
                    self.events.append(message)
                else:
                    self.answers[message["id"]] = message
                self.changed.notify_all()

    def raw(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def tell(self, do: str, **arguments: Any) -> int:
        self.number += 1
        self.raw(json.dumps({"id": self.number, "do": do, **arguments}))
        return self.number

    def answer(self, number: Any) -> dict[str, Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: number in self.answers, 10), self.events[-3:]
            return self.answers.pop(number)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.tell(do, **arguments))

    def event(self, kind: str, client: str | None = "a") -> dict[str, Any]:
        """The next event of this kind, waited for; it and those of its kind before it are taken away."""

        def found() -> dict[str, Any] | None:
            return next((e for e in self.events if e["event"] == kind and e.get("client") == client), None)

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, 10), self.events[-3:]
            event = found()
            assert event is not None
            self.events.remove(event)
            return event

    def received(self, length: int, client: str = "a") -> bytes:
        """So many bytes, put together from as many chunks as it takes."""
        got = b""
        while len(got) < length:
            event = self.event("received", client)
            got += event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
        return got

    def open(self, address: Any, client: str = "a", kind: str = "tcp", **more: Any) -> dict[str, Any]:
        return self.ask(
            "open",
            client=client,
            kind=kind,
            to=list(address) if isinstance(address, tuple) else address,
            **more,
        )

    def send(self, *texts: str, client: str = "a", **more: Any) -> dict[str, Any]:
        return self.ask("send", client=client, chunks=[{"text": text} for text in texts], **more)

    def end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(10)
        self.reader.join(10)
        self.process.stdout.close()
        return status


@pytest.fixture
def agent() -> Iterator[Agent]:
    made = Agent()
    yield made
    if made.process.poll() is None:
        assert made.end() == 0


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        made = socket.create_server((request.param, 0), family=family)
    except OSError as exc:
        pytest.skip(f"no {request.param} here: {exc}")
    made.settimeout(10)
    with made:
        yield made


def connected(agent: Agent, listener: socket.socket, **more: Any) -> socket.socket:
    address = listener.getsockname()[:2]
    number = agent.tell("open", client="a", kind="tcp", to=list(address), **more)
    server, _ = listener.accept()
    assert agent.answer(number)["ok"]
    server.settimeout(10)
    return server


def test_it_says_hello_and_takes_little_memory(agent: Agent) -> None:
    """Version, process, Python; an idle one takes at most 20 MB."""
    assert agent.hello["agent"] == 1
    status = Path(f"/proc/{agent.hello['pid']}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert kib * 1024 <= 20_000_000


def test_bytes_go_out_and_come_in_as_they_are(agent: Agent, listener: socket.socket) -> None:
    """Text as text, other bytes in base64, times from the monotonic clock."""
    before = time.monotonic_ns()
    with connected(agent, listener) as server:
        answer = agent.ask("send", client="a", chunks=[{"text": "grüße\n"}, {"base64": "AP8="}])
        assert (answer["ok"], answer["sent"]) == (True, 10)
        server.sendall("소켓".encode())
        event = agent.event("received")
        assert event["text"] == "소켓"
        assert before < event["t"] < time.monotonic_ns()
        server.sendall(b"\xff\x00")
        assert agent.received(2) == b"\xff\x00"


def test_pieces_are_sent_apart(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        number = agent.tell("send", client="a", chunks=[{"text": "one"}, {"text": "two"}], pause=0.2)
        assert server.recv(100) == b"one"
        assert server.recv(100) == b"two"
        assert agent.answer(number)["sent"] == 6


def test_a_megabyte_goes_through_small_buffers(agent: Agent, listener: socket.socket) -> None:
    """Partial sends are gone on with, while what comes back is read."""
    size = 3_000_000
    with connected(agent, listener, options={"sndbuf": 4096, "rcvbuf": 4096}) as server:
        echo = threading.Thread(
            target=lambda: [server.sendall(data) for data in iter(lambda: server.recv(65536), b"")],
            daemon=True,
        )
        echo.start()
        number = agent.tell("send", client="a", chunks=[{"text": "0123456789", "repeat": size // 10}])
        assert agent.received(size) == b"0123456789" * (size // 10)
        assert agent.answer(number)["sent"] == size
        agent.ask("close", client="a")
        echo.join(10)


def test_half_close_close_and_abort(agent: Agent, listener: socket.socket) -> None:
    """FIN and still reading; FIN; RST."""
    with connected(agent, listener) as server:
        agent.send("bye")
        assert agent.ask("shutdown", client="a")["ok"]
        assert server.recv(10) + server.recv(10) == b"bye"
        server.sendall(b"still")
        assert agent.received(5) == b"still"
    agent.event("eof")
    with connected(agent, listener) as server:
        assert agent.ask("close", client="a")["ok"]
        assert server.recv(10) == b""
    with connected(agent, listener) as server:
        assert agent.ask("abort", client="a")["ok"]
        with pytest.raises(ConnectionResetError):
            server.recv(10)


def test_the_peers_end_is_told(agent: Agent, listener: socket.socket) -> None:
    """FIN is eof, RST is reset, and what was sent before is reported first."""
    with connected(agent, listener) as server:
        server.sendall(b"last words")
    assert agent.received(10) == b"last words"
    agent.event("eof")
    server = connected(agent, listener)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    agent.event("reset")
    assert agent.send("too late")["error"] == "closed"


def test_why_a_connect_fails(agent: Agent) -> None:
    """refused, timed out (a full backlog), in use: each by its word. Unreachable is seen on the networks of a lab."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    assert agent.open(address)["error"] == "refused"
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        assert agent.open(full.getsockname(), limit=0.2)["error"] == "timed out"
        for filler in fillers:
            filler.close()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert agent.open(busy.getsockname(), bind=list(busy.getsockname()))["error"] == "in use"


def test_a_slow_consumer_stalls_its_sender_and_reads_on(agent: Agent, listener: socket.socket) -> None:
    """stall stops reading, so the sender's buffers fill; read gets all of it."""
    with connected(agent, listener, options={"maxseg": 1400}) as server:
        assert agent.ask("stall", client="a", rcvbuf=4096)["ok"]
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        server.setblocking(False)
        sent = 0
        while select.select([], [server], [], 0.2)[1]:
            sent += server.send(b"x" * 65536)
        assert agent.ask("sync")["ok"]
        assert [e for e in agent.events if e["event"] == "received"] == []
        assert agent.ask("read", client="a")["ok"]
        assert agent.received(sent) == b"x" * sent


def test_after_sync_everything_that_had_arrived_is_told(agent: Agent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        local = agent.open(peer.getsockname(), kind="udp", bind=["127.0.0.1", 0])["local"]
        for _ in range(50):
            for number in range(20):
                peer.sendto(b"%d" % number, tuple(local))
            agent.ask("sync")
            assert len([e for e in agent.events if e["event"] == "received"]) == 20
            agent.events.clear()


def test_datagrams_keep_their_borders_and_senders(agent: Agent) -> None:
    """Empty ones and the largest too; each with the address it came from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        target = list(peer.getsockname())
        local = tuple(agent.open(peer.getsockname(), kind="udp", bind=["127.0.0.1", 0])["local"])
        for content in (b"", b"x" * 65507, b"\x00\xff"):
            chunk = {"base64": base64.b64encode(content).decode()}
            assert agent.ask("send", client="a", chunks=[chunk], to=target)["sent"] == len(content)
            assert peer.recvfrom(65535) == (content, local)
            peer.sendto(content, local)
            event = agent.event("received")
            assert event["from"] == target
            assert (
                event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
            ) == content


def test_icmp_is_told_as_an_error_of_that_client(agent: Agent) -> None:
    """Nobody is bound there: the datagram was sent all the same, the answer comes later, and the next datagram goes out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        target = list(gone.getsockname())
    agent.open(tuple(target), kind="udp")
    assert agent.send("hello", to=target)["ok"]
    assert agent.event("error")["error"] == "refused"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(tuple(target))
        back.settimeout(10)
        assert agent.send("again", to=target)["ok"]
        assert back.recv(100) == b"again"


def test_unix_sockets_by_path_and_by_abstract_name(agent: Agent, tmp_path: Path) -> None:
    for name, bound in (
        (str(tmp_path / "s"), str(tmp_path / "s")),
        (f"@socklab-test-{os.getpid()}", f"\0socklab-test-{os.getpid()}"),
    ):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(bound)
            server.listen()
            assert agent.open(name, kind="unix")["ok"]
            peer, _ = server.accept()
            with peer:
                agent.send("hi")
                assert peer.recv(10) == b"hi"
    assert agent.open(str(tmp_path / "nothing"), kind="unix")["ok"] is False


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"id": 7}',
        '{"id": 7, "do": "fly"}',
        '{"id": 7, "do": "open"}',
        '{"id": 7, "do": "open", "client": "a", "kind": "carrier pigeon", "to": []}',
        '{"id": 7, "do": "send", "client": "nobody", "chunks": []}',
        '{"id": 7, "do": "set", "client": "a", "option": "magic", "value": 1}',
    ],
)
def test_a_wrong_command_is_answered_and_does_no_harm(
    agent: Agent, listener: socket.socket, line: str
) -> None:
    with connected(agent, listener) as server:
        agent.raw(line)
        answer = agent.answer(7 if '"id": 7' in line else None)
        assert answer["ok"] is False
        assert answer["error"] in ("usage", "closed")
        agent.send("still fine")
        assert server.recv(100) == b"still fine"


def test_a_send_that_nobody_takes_ends_at_its_limit(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener):
        answer = agent.ask("send", client="a", chunks=[{"text": "x", "repeat": 50_000_000}], limit=0.3)
        assert answer["error"] == "timed out"
        assert 0 < answer["sent"] < 50_000_000


def test_a_flooding_peer_does_not_keep_commands_waiting(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        server.setblocking(True)
        stop = threading.Event()

        def flood() -> None:
            try:
                while not stop.is_set():
                    server.sendall(b"x" * 65536)
            except OSError:
                pass

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        agent.event("received")
        for _ in range(20):
            assert agent.ask("status")["ok"]
        stop.set()
        agent.ask("abort", client="a")
        thread.join(10)


def test_at_the_end_of_its_stream_it_closes_all_and_ends(listener: socket.socket) -> None:
    agent = Agent()
    with connected(agent, listener) as server:
        assert agent.end() == 0
        assert server.recv(10) == b""


def test_it_speaks_on_a_socket_as_well() -> None:
    """--connect dials the conductor, and the same lines go over that connection."""
    with socket.create_server(("127.0.0.1", 0)) as conductor:
        conductor.settimeout(10)
        host, port = conductor.getsockname()
        with subprocess.Popen([sys.executable, AGENT, "--connect", f"{host}:{port}"]) as process:
            stream, _ = conductor.accept()
            with stream, stream.makefile("rw") as lines:
                assert json.loads(lines.readline())["event"] == "hello"
                lines.write('{"id": 1, "do": "status"}\n')
                lines.flush()
                assert json.loads(lines.readline())["ok"]
            assert process.wait(10) == 0
    refused = subprocess.run(
        [sys.executable, AGENT, "--connect", f"{host}:{port}"], capture_output=True, text=True
    )
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
