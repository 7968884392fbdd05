"""What a message costs in system calls, counted by strace(1): the same on a busy machine and on an idle one, so it can be held to a number."""

import collections
import contextlib
import re
import shutil
import signal
import subprocess

import pytest
from real_server import until

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (apt install strace)")
TIMER = {"rt_sigreturn", "restart_syscall"}  # of the signal that interrupts a server twice a second


@contextlib.contextmanager
def counted(server, tmp_path):
    """The system calls of a server while the block runs, by name, once the block has ended."""
    calls, trace = collections.Counter(), tmp_path / "strace"
    with subprocess.Popen(
        ["strace", "-f", "-p", str(server.pid), "-o", str(trace)], stderr=subprocess.PIPE, text=True
    ) as strace:
        try:
            said = strace.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace cannot look into processes here: {said.strip()}")
            yield calls
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(20)
    for line in trace.read_text().splitlines():
        if (call := re.match(r"\d+ +(\w+)\(", line)) and call[1] not in TIMER:
            calls[call[1]] += 1


def received(client, size):
    data = b""
    while len(data) < size:
        part = client.recv(65536)
        assert part, "the connection ended"
        data += part
    return data


def test_a_round_trip_of_the_event_loop_is_three_calls(start, tmp_path):
    """Wait, receive, send. A change of what is waited for would be a fourth."""
    server = start("eventloop")
    with server.connect() as client:
        client.sendall(b"first")
        received(client, 5)
        with counted(server, tmp_path) as calls:
            for _ in range(200):
                client.sendall(b"hello")
                received(client, 5)

    assert calls["recvfrom"] == calls["sendto"] == 200
    assert sum(calls.values()) <= 3 * 200 + 20


def in_a_room(start, count):
    """A chat server and so many clients that have joined."""
    server = start("chat_eventloop")
    clients = [server.connect() for _ in range(count)]
    until(lambda: server.log_text().count('"connected"') == count, "all have joined")
    return server, clients


def test_a_line_costs_a_send_for_each_client_and_two_calls_more(start, tmp_path):
    server, clients = in_a_room(start, 30)
    with counted(server, tmp_path) as calls:
        for _ in range(50):
            clients[0].sendall(b"a line that all of them hear\n")
            for client in clients:
                received(client, 29)
    for client in clients:
        client.close()

    assert calls["sendto"] == 30 * 50
    assert sum(calls.values()) <= (30 + 3) * 50 + 20


def test_lines_that_come_together_go_out_together(start, tmp_path):
    """A thousand lines in a burst cost what a few do: the block is the server's trick, and this is what it is worth."""
    server, clients = in_a_room(start, 30)
    burst = b"".join(b"line %04d of a burst\n" % number for number in range(1000))
    with counted(server, tmp_path) as calls:
        clients[0].sendall(burst)
        for client in clients:
            assert received(client, len(burst)) == burst
    for client in clients:
        client.close()

    assert calls["sendto"] + calls["sendmsg"] <= 30 * 10


def test_a_datagram_to_the_registry_costs_a_send_for_each_who_is_registered(start, tmp_path):
    server = start("udp_registry")
    clients = [server.datagram_socket() for _ in range(20)]
    for client in clients:
        client.send(b"#REG")
        client.recv(100)
    with counted(server, tmp_path) as calls:
        for _ in range(50):
            clients[0].send(b"to all")
            for client in clients:
                assert client.recv(100) == b"to all"
    for client in clients:
        client.close()

    assert calls["sendto"] == 20 * 50
    assert sum(calls.values()) <= (20 + 3) * 50 + 20
