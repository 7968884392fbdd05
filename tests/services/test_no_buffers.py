"""The kernel has no memory left for a call: ENOBUFS. It is told by strace in the kernel's place."""

import shutil
import subprocess
import sys

import pytest
from real_server import read_exactly


@pytest.fixture
def without_buffers(tmp_path):
    """without_buffers(call, which) gives a Python in which these calls of that name end with ENOBUFS."""
    if (
        not shutil.which("strace")
        or subprocess.run(["strace", "-qq", "true"], capture_output=True).returncode
    ):
        pytest.skip("strace is missing or may not trace here")

    def interpreter(call, which):
        python = tmp_path / "python"
        # -D: strace is not the parent, so the server's process is the one that was started.
        python.write_text(
            f"#!/bin/sh\nexec strace -D -f -qq -o /dev/null -e trace={call}"
            f' -e inject={call}:error=ENOBUFS:when={which} {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        return str(python)

    return interpreter


@pytest.mark.parametrize(
    "name", ["echo", "handler", "threaded", "forking", "eventloop", "chat", "chat_eventloop"]
)
def test_a_failed_accept_is_said_once_and_tried_again(start, without_buffers, name):
    """Three times there is no memory for the newcomer: it waits, and is served then."""
    server = start(name, python=without_buffers("accept4", "1..3"))
    with server.connect() as client:
        server.logged("accept-failed", error="ENOBUFS")
        client.sendall(b"hello\n")
        assert read_exactly(client, 6) == b"hello\n"
    assert len(server.events("accept-failed")) == 1


def test_a_datagram_that_cannot_be_sent_is_lost_and_the_next_is_not(start, without_buffers):
    """The first to be delivered to two fails twice; they stay registered and hear the second."""
    server = start("udp_registry", python=without_buffers("sendto", "3..4"))
    with server.datagram_socket() as alice, server.datagram_socket() as bob:
        for client in (alice, bob):
            client.send(b"#REG")
            assert client.recv(65_535).startswith(b"registered")
        alice.send(b"lost")
        server.logged("send-failed", error="ENOBUFS")
        alice.send(b"heard")
        assert alice.recv(65_535) == bob.recv(65_535) == b"heard"
