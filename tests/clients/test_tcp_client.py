"""The interactive TCP client, at a real terminal and in pipes."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.agent_process import LIMIT_S, full_backlog, read_to_end, reset
from tests.clients.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
CLIENT = str(ROOT / "clients" / "tcp_client.py")
Start = Callable[..., Terminal]


def arguments(listener: socket.socket) -> list[str]:
    return [CLIENT, *map(str, listener.getsockname()[:2])]


def accept(listener: socket.socket) -> socket.socket:
    server, _ = listener.accept()
    server.settimeout(LIMIT_S)
    return server


@contextlib.contextmanager
def piped(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """The client in pipes; nothing of it is left afterwards."""
    with subprocess.Popen(
        [sys.executable, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        try:
            yield client
        finally:
            if client.poll() is None:
                client.kill()


# At a terminal.


@pytest.mark.parametrize(
    "typed", ["", "half a thou", "반쯤 쓴 글", "x" * 36, "x" * 37, "x" * 38, "x" * 39, "y" * 100]
)
def test_what_arrives_does_not_tear_what_is_typed(
    terminal: Start, listener: socket.socket, typed: str
) -> None:
    """It stands on lines of its own; the typed text stands below, goes on, and is sent whole. A row is 40 wide."""
    at = terminal(*arguments(listener), columns=40)
    with accept(listener) as server:
        at.shows(">")
        at.type(typed)
        at.until_typed(typed)
        server.sendall(b"news from bob\r\nand more\n")
        at.has("news from bob")
        at.has("and more")
        at.until_typed(typed)
        at.type("!")
        at.until_typed(typed + "!")
        assert at.text().count("news from bob") == 1
        at.type("\n")
        assert server.recv(1000) == typed.encode() + b"!\n"


def test_it_is_a_conversation(terminal: Start, listener: socket.socket) -> None:
    """Lines go out and come in, until Ctrl-D says FIN; what still comes is shown."""
    at = terminal(*arguments(listener))
    with accept(listener) as server:
        at.shows(">")
        at.type("hello\n")
        assert server.recv(100) == b"hello\n"
        server.sendall(b"hello yourself\n")
        at.shows("> hello", "hello yourself", ">")
        at.type("\x04")
        assert server.recv(100) == b""
        server.sendall(b"last words\n")
    assert at.status() == 0
    assert at.screen.lines()[-3:] == [">", "last words", ""]


def test_a_part_of_a_line_is_shown_too(terminal: Start, listener: socket.socket) -> None:
    """An echo server sends no newline if it has got none."""
    at = terminal(*arguments(listener))
    with accept(listener) as server:
        at.shows(">")
        server.sendall(b"no newline")
        at.shows("no newline", ">")


def test_a_server_cannot_drive_the_terminal(terminal: Start, listener: socket.socket) -> None:
    """Control characters and what is no UTF-8 are shown, not obeyed."""
    at = terminal(*arguments(listener))
    with accept(listener) as server:
        at.shows(">")
        server.sendall(b"\x1b[2Jgone\xff\x07\xc2\x9b \xe2\x80\xaeright to left\n")
        at.shows("\\x1b[2Jgone\\xff\\x07\\x9b \\u202eright to left", ">")


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("half a line\x03", 130)])
def test_ctrl_c_leaves_at_once(terminal: Start, listener: socket.socket, key: str, status: int) -> None:
    """Also in the moment in which the prompt appears; the terminal is as it was before."""
    for _ in range(10):
        at = terminal(*arguments(listener))
        with accept(listener) as server:
            at.shows(">")
            at.type(key)
            assert read_to_end(server) == b""
        assert at.status() == status
        assert "Traceback" not in at.text()


def test_the_servers_end_is_told_at_once(terminal: Start, listener: socket.socket) -> None:
    """Also in the moment in which the prompt appears, and with text typed: no key is needed."""
    for typed in ["", "half a line"] * 5:
        at = terminal(*arguments(listener))
        with accept(listener) as server:
            at.shows(">")
            at.type(typed)
            server.sendall(b"bye\n")
        at.has("bye")
        at.has("the server closed the connection")
        assert at.status() == 0


# In pipes.


def test_in_a_pipe_it_is_a_filter(listener: socket.socket) -> None:
    """Bytes out as they are, lines in, and at the end of the input it waits for what is still to come."""
    data = b"one\n\xff\x00two\nno newline"
    with piped(*arguments(listener)) as client, accept(listener) as server:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(data)
        client.stdin.close()
        assert read_to_end(server) == data
        server.sendall(b"last words\r\n\xff\nno newline")
        server.close()
        assert client.stdout.read() == b"last words\n\\xff\nno newline\n"
        assert client.wait(LIMIT_S) == 0


def test_megabytes_without_a_newline_come_through(listener: socket.socket) -> None:
    """A line that never ends is shown in parts, not collected for ever."""
    with piped(*arguments(listener)) as client, accept(listener) as server:
        assert client.stdout is not None
        server.sendall(b"x" * 3_000_000)
        server.close()
        assert client.stdout.read().replace(b"\n", b"") == b"x" * 3_000_000
        assert client.wait(LIMIT_S) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(listener: socket.socket, number: signal.Signals, status: int) -> None:
    """Sent by a parent, without a terminal: the connection is closed, nothing is said."""
    with piped(*arguments(listener)) as client, accept(listener) as server:
        assert client.stdout is not None
        assert client.stderr is not None
        server.sendall(b"ready\n")
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(number)
        assert read_to_end(server) == b""
        assert client.wait(LIMIT_S) == status
        assert client.stderr.read() == b""


def test_when_its_reader_goes_it_goes_quietly(listener: socket.socket) -> None:
    """As behind `| head -1`."""
    with piped(*arguments(listener)) as client, accept(listener) as server:
        assert client.stdout is not None
        assert client.stderr is not None
        server.sendall(b"first\n")
        assert client.stdout.readline() == b"first\n"
        client.stdout.close()
        server.sendall(b"second\n")
        assert client.wait(LIMIT_S) == 128 + signal.SIGPIPE
        assert client.stderr.read() == b""


def test_a_server_that_closes_ends_it_though_the_input_goes_on(listener: socket.socket) -> None:
    with piped(*arguments(listener)) as client:
        assert client.stderr is not None
        accept(listener).close()
        assert client.wait(LIMIT_S) == 0
        assert client.stderr.read() == b"the server closed the connection\n"


def test_a_reset_is_told_in_one_line(listener: socket.socket) -> None:
    """Whether it comes in the moment of the connect or later."""
    with piped(*arguments(listener)) as client:
        assert client.stderr is not None
        reset(accept(listener))
        assert client.wait(LIMIT_S) == 1
        assert client.stderr.read() == b"the connection broke: Connection reset by peer\n"


def test_a_server_that_never_closes_is_not_waited_for(listener: socket.socket) -> None:
    """After the end of the input, and then some seconds of silence."""
    with piped(*arguments(listener)) as client, accept(listener):
        assert client.stdin is not None
        assert client.stderr is not None
        client.stdin.close()
        assert client.wait(LIMIT_S) == 1
        assert client.stderr.read() == b"the server does not close, and has said nothing for 5 s\n"


# Where nobody is.


def run(*argv: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, CLIENT, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_where_nobody_listens_one_line_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    assert run("127.0.0.1", str(port)) == (
        1,
        f"tcp_client: 127.0.0.1:{port} refuses: is a server listening there?\n",
    )


def test_where_nobody_answers_one_line_says_so() -> None:
    with full_backlog() as full:
        port = full.getsockname()[1]
        expected = f"tcp_client: 127.0.0.1:{port} does not answer: is the address right, the network up?\n"
        assert run("127.0.0.1", str(port)) == (1, expected)


@pytest.mark.parametrize("argv", [["no..host", "9"], ["unix:/no/such/socket"], ["unix:/tmp"]])
def test_what_cannot_be_reached_is_told_in_one_line(argv: list[str]) -> None:
    status, words = run(*argv)

    assert status == 1
    assert words.startswith(f"tcp_client: {argv[0]}")
    assert words.endswith("?\n")
    assert words.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [[], ["127.0.0.1"], ["127.0.0.1", "http"], ["::1", "70000"], ["unix:/x", "9"]]
)
def test_a_wrong_command_line_is_a_usage_error(argv: list[str]) -> None:
    status, words = run(*argv)

    assert status == 2
    assert words.splitlines()[-1].startswith("tcp_client: error: ")


def test_two_of_them_chat(tmp_path: Path) -> None:
    """With the project's own server: each hears both, and `quit` is a line that the server understands."""
    with subprocess.Popen(
        [sys.executable, ROOT / "services" / "chat.py", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        _, _, host, port = server.stdout.readline().split()
        with piped(CLIENT, host, port) as alice, piped(CLIENT, host, port) as bob:
            for client, name in ((alice, b"alice"), (bob, b"bob")):
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(b"I am %s\n" % name)
                client.stdin.flush()
                while b"I am " + name not in client.stdout.readline():
                    pass
            assert alice.stdin is not None
            assert bob.stdout is not None
            alice.stdin.write(b"hello bob\nquit\n")
            alice.stdin.flush()
            assert b"hello bob" in bob.stdout.readline()
            assert alice.wait(LIMIT_S) == 0
        server.terminate()
        assert server.wait(LIMIT_S) == 0
