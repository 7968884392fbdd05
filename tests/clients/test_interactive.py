"""The interactive clients, at a real terminal (a pty) and in pipes."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CLIENTS = Path(__file__).resolve().parent.parent.parent / "clients"


class Terminal:
    """A client at a terminal, and what its screen has shown so far."""

    def __init__(self, *argv: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", COLUMNS="80", LINES="24")
            os.execv(sys.executable, [sys.executable, *argv])
        self.shown = b""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, pattern: bytes, limit: float = 10) -> re.Match[bytes]:
        """Wait until the screen has shown this, behind what was waited for before."""
        deadline = time.monotonic() + limit
        while not (found := re.search(pattern, self.shown)):
            assert select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0], self.shown
            try:
                self.shown += os.read(self.fd, 65536)
            except OSError:
                raise AssertionError(self.shown) from None
        self.shown = self.shown[found.end() :]
        return found

    def status(self) -> int:
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(10)
        yield made


@pytest.fixture
def registry() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(10)
        yield made


def tcp(listener: socket.socket) -> list[str]:
    return [str(CLIENTS / "tcp_client.py"), *map(str, listener.getsockname())]


def udp(registry: socket.socket, *more: str) -> list[str]:
    return [str(CLIENTS / "udp_client.py"), *map(str, registry.getsockname()), *more]


def test_what_arrives_does_not_tear_what_is_typed(listener: socket.socket) -> None:
    """The message stands on a line of its own, the typed text is shown again below it, and is sent whole."""
    terminal = Terminal(*tcp(listener))
    server, _ = listener.accept()
    with server:
        server.settimeout(10)
        terminal.until(b"> ")
        terminal.type("half a tho")
        terminal.until(b"half a tho")
        server.sendall(b"news from bob\n")
        terminal.until(rb"\r\x1b\[Jnews from bob\r\n> half a tho")
        terminal.type("ught\n")
        assert server.recv(100) == b"half a thought\n"
        terminal.until(b"> ")  # between two lines the terminal itself would take the key
        terminal.type("\x04")
        assert server.recv(100) == b""
    assert terminal.status() == 0


def test_a_server_cannot_drive_the_terminal(listener: socket.socket) -> None:
    terminal = Terminal(*tcp(listener))
    server, _ = listener.accept()
    with server:
        terminal.until(b"> ")
        server.sendall(b"\x1b[2Jgone\xff\x07\n")
        terminal.until(rb"\\x1b\[2Jgone\\xff\\x07")
    terminal.until(b"the server closed the connection")
    assert terminal.status() == 0


def test_ctrl_c_leaves_at_once(listener: socket.socket) -> None:
    terminal = Terminal(*tcp(listener))
    server, _ = listener.accept()
    with server:
        server.settimeout(10)
        terminal.until(b"> ")
        terminal.type("\x03")
        assert server.recv(100) == b""
        assert terminal.status() == 130
    assert b"Traceback" not in terminal.shown


def test_in_a_pipe_it_is_a_filter(listener: socket.socket) -> None:
    """Lines in, lines out, and at the end of the input it waits for what is still to come."""
    with subprocess.Popen(
        [sys.executable, *tcp(listener)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("one\ntwo\n")
            client.stdin.close()
            got = b""
            while data := server.recv(100):
                got += data
            assert got == b"one\ntwo\n"
            server.sendall(b"last words\nno newline")
        assert client.stdout.read() == "last words\nno newline\n"
        assert client.wait(10) == 0


def test_a_part_of_a_line_is_shown_too(listener: socket.socket) -> None:
    """An echo server returns no newline if none was sent."""
    terminal = Terminal(*tcp(listener))
    server, _ = listener.accept()
    with server:
        terminal.until(b"> ")
        server.sendall(b"no newline")
        terminal.until(b"no newline\r\n")
    terminal.status()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("tcp_client.py", ["127.0.0.1", "9"]),
        ("tcp_client.py", ["no..host", "9"]),
        ("udp_client.py", ["no..host", "9"]),
        ("tcp_client.py", ["unix:/no/such/socket"]),
    ],
)
def test_where_nobody_is_one_line_says_so(program: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, CLIENTS / program, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("key", "status"), [("\x04", 0), ("\x03", 130)], ids=["Ctrl-D", "Ctrl-C"])
def test_a_udp_client_registers_and_says_goodbye(registry: socket.socket, key: str, status: int) -> None:
    """#REG at the start, #DEREG at the end, however that comes; between them each line is a datagram."""
    terminal = Terminal(*udp(registry))
    data, client = registry.recvfrom(100)
    assert data == b"#REG"
    registry.sendto(b"registered", client)
    terminal.until(b"registered")
    terminal.until(b"> ")
    terminal.type("hello\n")
    assert registry.recv(100) == b"hello"
    terminal.until(b"> ")
    terminal.type("half")
    terminal.until(b"half")
    registry.sendto(b"from bob", client)
    terminal.until(rb"from bob\r\n> half")
    terminal.type(("\x15" if key == "\x04" else "") + key)  # Ctrl-D ends the input only on an empty line
    assert registry.recv(100) == b"#DEREG"
    registry.sendto(b"deregistered", client)
    assert terminal.status() == status


def test_a_udp_client_ended_by_sigterm_says_goodbye(registry: socket.socket) -> None:
    with subprocess.Popen(
        [sys.executable, *udp(registry)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        _, address = registry.recvfrom(100)
        registry.sendto(b"registered", address)
        assert client.stdout is not None
        assert client.stdout.readline() == b"registered\n"
        client.send_signal(signal.SIGTERM)
        assert registry.recv(100) == b"#DEREG"


def test_without_an_answer_a_udp_client_says_so(registry: socket.socket) -> None:
    done = subprocess.run(
        [sys.executable, *udp(registry)], input="", capture_output=True, text=True, timeout=20
    )

    assert "no answer to #REG within 2 s: is a registry listening there?" in done.stdout


def test_a_plain_udp_server_is_not_registered_with(registry: socket.socket) -> None:
    done = subprocess.Popen(
        [sys.executable, *udp(registry, "--no-register")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with done:
        assert done.stdin is not None
        done.stdin.write("hello\n")
        done.stdin.flush()
        data, client = registry.recvfrom(100)
        assert data == b"hello"
        registry.sendto(b"hello", client)
        assert done.stdout is not None
        assert done.stdout.readline() == "hello\n"
        done.stdin.close()
        assert done.wait(10) == 0
    registry.setblocking(False)
    with pytest.raises(BlockingIOError):
        registry.recv(100)
