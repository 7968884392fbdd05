"""The interactive UDP client, at a real terminal and in pipes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.agent_process import LIMIT_S
from tests.clients.terminal import Terminal
from tests.clients.test_tcp_client import piped

ROOT = Path(__file__).resolve().parents[2]
CLIENT = str(ROOT / "clients" / "udp_client.py")
Start = Callable[..., Terminal]


def arguments(peer: socket.socket, *more: str) -> list[str]:
    return [CLIENT, *map(str, peer.getsockname()[:2]), *more]


def registered(peer: socket.socket) -> tuple[str, int]:
    """Take the client's #REG and answer it; returns the client's address."""
    data, client = peer.recvfrom(100)
    assert data == b"#REG"
    peer.sendto(b"registered", client)
    address: tuple[str, int] = client
    return address


@pytest.mark.parametrize("typed", ["half a thou", "y" * 100])
def test_what_arrives_does_not_tear_what_is_typed(terminal: Start, peer: socket.socket, typed: str) -> None:
    """It stands on lines of its own; the typed text stands below, goes on, and is one datagram."""
    at = terminal(*arguments(peer), columns=40)
    client = registered(peer)
    at.shows("registered", ">")
    at.type(typed)
    at.until_typed(typed)
    peer.sendto(b"news from bob", client)
    at.has("news from bob")
    at.until_typed(typed)
    at.type("!\n")
    assert peer.recv(1000) == typed.encode() + b"!"


@pytest.mark.parametrize(
    ("keys", "status"), [("\x04", 0), ("\x03", 130), ("half a line\x03", 130)], ids=["D", "C", "text and C"]
)
def test_it_registers_and_says_goodbye(terminal: Start, peer: socket.socket, keys: str, status: int) -> None:
    """#REG at the start, #DEREG at the end, by Ctrl-D or by Ctrl-C, even in the moment the prompt appears."""
    for _ in range(5):
        at = terminal(*arguments(peer))
        client = registered(peer)
        at.shows("registered", ">")
        at.type(keys)
        assert peer.recv(100) == b"#DEREG"
        peer.sendto(b"deregistered", client)
        assert at.status() == status
        at.has("deregistered")
        assert "Traceback" not in at.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_goodbye(peer: socket.socket, number: signal.Signals) -> None:
    """Sent by a parent, without a terminal; and also if no answer comes."""
    with piped(*arguments(peer)) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        registered(peer)
        assert client.stdout.readline() == b"registered\n"
        client.send_signal(number)
        assert peer.recv(100) == b"#DEREG"
        assert client.wait(LIMIT_S) == 128 + number
        assert client.stderr.read() == b""


def test_a_cookie_is_sent_back(peer: socket.socket) -> None:
    """A registry that wants to know that our address is ours asks for it; later, such a text is a text."""
    with piped(*arguments(peer)) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        data, address = peer.recvfrom(100)
        assert data == b"#REG"
        peer.sendto(b"#COOKIE c00c1e", address)
        assert peer.recv(100) == b"#REG c00c1e"
        peer.sendto(b"registered", address)
        peer.sendto(b"#COOKIE says bob", address)
        assert client.stdout.readline() == b"registered\n"
        assert client.stdout.readline() == b"#COOKIE says bob\n"
        client.stdin.close()
        assert peer.recv(100) == b"#DEREG"
        assert client.wait(LIMIT_S) == 0


def test_without_an_answer_it_says_so(peer: socket.socket) -> None:
    done = subprocess.run(
        [sys.executable, *arguments(peer)], input="", capture_output=True, text=True, timeout=LIMIT_S
    )

    assert done.returncode == 0
    assert done.stdout == "no answer to #REG within 2 s: is a registry listening there?\n"


def test_where_nobody_is_bound_icmp_tells(peer: socket.socket) -> None:
    """Once for each datagram that was sent, and none of them is lost by it."""
    command = [sys.executable, *arguments(peer, "--no-register")]
    peer.close()
    done = subprocess.run(command, input="one\ntwo\n", capture_output=True, text=True, timeout=LIMIT_S)

    assert done.returncode == 0
    assert set(done.stdout.splitlines()) == {"refused: nobody is bound to that port there"}
    assert done.stderr == ""


def test_a_plain_udp_server_is_not_registered_with(peer: socket.socket) -> None:
    """Each line is a datagram, each datagram a line; at the end of the input it waits for the last answers."""
    with piped(*arguments(peer, "--no-register")) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"one\n\n\xff\x00\nno newline")
        client.stdin.close()
        for expected in (b"one", b"", b"\xff\x00", b"no newline"):
            data, address = peer.recvfrom(100)
            assert data == expected
            peer.sendto(data, address)
        assert client.stdout.read() == b"one\n\n\\xff\\x00\nno newline\n"
        assert client.wait(LIMIT_S) == 0
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(100)


def test_what_is_too_long_for_a_datagram_is_not_sent(peer: socket.socket) -> None:
    command = [sys.executable, *arguments(peer, "--no-register")]
    done = subprocess.run(command, input="x" * 65508, capture_output=True, text=True, timeout=LIMIT_S)

    assert (done.returncode, done.stdout) == (0, "not sent: Message too long\n")


@pytest.mark.parametrize("argv", [["no..host", "9"]])
def test_what_cannot_be_reached_is_told_in_one_line(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, CLIENT, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("?\n")


@pytest.fixture(params=[[], ["--cookie"]], ids=["plain", "cookie"])
def registry(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The project's own registry: its host and port."""
    with subprocess.Popen(
        [sys.executable, ROOT / "services" / "udp_registry.py", "--port", "0", *request.param],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[2:]
        server.terminate()
        assert server.wait(LIMIT_S) == 0


def test_two_of_them_chat(registry: list[str]) -> None:
    """Each is registered by its own #REG and hears both; who has left hears nothing more."""
    with piped(CLIENT, *registry) as alice, piped(CLIENT, *registry) as bob:
        assert alice.stdin is not None
        assert alice.stdout is not None
        assert bob.stdout is not None
        assert alice.stdout.readline().startswith(b"registered")
        assert bob.stdout.readline().startswith(b"registered")
        alice.stdin.write(b"hello\n")
        alice.stdin.close()
        assert bob.stdout.readline() == b"hello\n"
        assert alice.stdout.read() == b"hello\nderegistered\n"
        assert alice.wait(LIMIT_S) == 0
