"""How the servers start and end: ready line, signals, errors of a start, logs that nobody reads."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest
from real_server import LIMIT_S, SERVICES, fill, read_exactly

TCP = ["echo", "handler", "threaded", "forking", "eventloop", "chat", "chat_eventloop"]
UDP = ["udp_echo", "udp_registry"]
SIGNALS = [signal.SIGTERM, signal.SIGINT]

each = pytest.mark.parametrize("name", TCP + UDP)
either_signal = pytest.mark.parametrize("number", SIGNALS, ids=["SIGTERM", "SIGINT"])


def run(name, *options):
    return subprocess.run(
        [sys.executable, SERVICES / f"{name}.py", *options], capture_output=True, text=True, timeout=LIMIT_S
    )


# Endings.


@each
@either_signal
def test_a_signal_ends_an_idle_server_with_status_0(start, name, number):
    """SIGTERM and Ctrl-C are regular ends; the log says that it is stopping, and that it has stopped."""
    server = start(name)
    assert server.end(number) == 0
    assert len(server.events("stopping", signal=number.name)) == 1
    assert len(server.events("stopped")) == 1
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("name", TCP)
@either_signal
def test_a_signal_ends_a_tcp_server_under_load(start, name, number):
    """Clients that talk, one that is silent and one that does not read: none of them holds it back."""
    server = start(name)
    silent, stalled = server.connect(), server.connect(receive=4096)
    fill(stalled, b"some line\n" * 5000)
    stop_talking = threading.Event()

    def talk():
        with contextlib.suppress(OSError), server.connect() as client:
            client.settimeout(0.1)
            while not stop_talking.is_set():
                with contextlib.suppress(TimeoutError):
                    client.sendall(b"hello\n" * 100)
                    client.recv(65536)

    def come_and_go():
        with contextlib.suppress(OSError):
            while not stop_talking.is_set():
                server.connect().close()

    talkers = [threading.Thread(target=job) for job in (talk, talk, talk, come_and_go)]
    for talker in talkers:
        talker.start()
    server.logged("connected")
    try:
        assert server.end(number) == 0
    finally:
        stop_talking.set()
        for talker in talkers:
            talker.join()
        silent.close()
        stalled.close()
    assert len(server.events("stopped")) == 1
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("name", UDP)
@either_signal
def test_a_signal_ends_a_udp_server_under_load(start, name, number):
    """In the middle of a burst."""
    server = start(name)
    client = server.datagram_socket()
    client.send(b"#REG")
    client.recv(65_535)
    for _ in range(3000):
        client.send(b"x" * 1000)
    assert server.end(number) == 0
    assert "Traceback" not in server.log_text()
    client.close()


@each
def test_two_signals_at_once_are_one_end(start, name):
    """An impatient second Ctrl-C does not turn the end into a traceback."""
    server = start(name)
    server.process.send_signal(signal.SIGINT)
    assert server.end(signal.SIGINT) in (0, -signal.SIGINT)
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("name", TCP)
def test_the_port_can_be_taken_again_at_once(start, name):
    """Connections of the first server are in TIME_WAIT; the second one listens nevertheless."""
    first = start(name)
    with first.connect() as client:
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"x\n"
        assert first.end() == 0  # the server closes first, so the TIME_WAIT is on its side
        assert client.recv(10) == b""
    second = start(name, "--port", str(first.address[1]))
    assert second.address == first.address


# Errors of a start.


@each
def test_a_port_that_is_taken_is_said_in_one_line(start, name):
    """What, where, why, and the way out; status 1."""
    server = start(name)
    refused = run(name, "--port", str(server.address[1]))
    called, where = name.replace("_", "-"), f"127.0.0.1:{server.address[1]}"
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"{called}: cannot listen on {where}: address already in use; choose another --port\n"
    )


@each
@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1", "", "a" * 70 + ".example", "::g"])
def test_a_host_that_is_not_here_is_said_in_one_line(name, host):
    """A name that nobody knows, an address of another machine, nonsense: no traceback."""
    refused = run(name, "--port", "0", "--host", host)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "choose another --host" in refused.stderr


@each
@pytest.mark.parametrize(
    "options", [["--port", "65536"], ["--port", "-1"], ["--port", "http"], ["--prot", "1"]]
)
def test_a_wrong_option_is_a_usage_error(name, options):
    """Two lines, status 2."""
    refused = run(name, *options)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chat", ["--max-pending", "1000"]),
        ("chat_eventloop", ["--max-pending", "1000"]),
        ("chat", ["--keepalive", "30"]),
        ("chat_eventloop", ["--keepalive", "0,1,1"]),
        ("threaded", ["--daemon-threads", "maybe"]),
        ("udp_registry", ["--lease", "-1"]),
        ("udp_registry", ["--lease", "nan"]),
        ("echo", ["--unix", ""]),
    ],
)
def test_a_value_out_of_bounds_is_a_usage_error(name, options):
    """Each option checks what it is given."""
    refused = run(name, *options)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 2


# The log.


@each
def test_the_log_is_readable_by_default(start, name):
    """TIME EVENT PEER key=value ..., one event a line."""
    server = start(name, env={"SOCKLAB_LOG": ""})
    assert server.end() == 0
    for line in server.log_text().splitlines():
        assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} [a-z-]+ \S+( \w+=(\S+|".*"))*', line), line


@pytest.mark.parametrize("name", TCP)
def test_the_log_tells_who_came_and_who_left(start, name):
    """As JSON: a monotonic time, the event, the peer, how many are active, why one left."""
    server = start(name)
    with server.connect() as client:
        peer = "{}:{}".format(*client.getsockname())
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"x\n"
        (connected,) = server.logged("connected", peer=peer)
        assert connected["active"] == 1
        assert isinstance(connected["t"], float)
    (disconnected,) = server.logged("disconnected", peer=peer, why="eof")
    assert disconnected["t"] >= connected["t"]


def talk_to(kind, address):
    """One exchange with a server of which only the ready line is known."""
    if kind == "tcp":
        with socket.create_connection(address, LIMIT_S) as client:
            client.sendall(b"x\n")
            assert read_exactly(client, 2) == b"x\n"
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT_S)
            client.sendto(b"#DEREG", address)
            assert client.recv(100)


@contextlib.contextmanager
def started(name, **streams):
    """A server with these standard streams; gives the process, and what its ready line says."""
    with subprocess.Popen([sys.executable, SERVICES / f"{name}.py", "--port", "0"], **streams) as process:
        try:
            readable, _, _ = select.select([process.stdout], [], [], LIMIT_S)
            assert readable, "no ready line"
            _, kind, host, port = process.stdout.readline().decode().split()
            yield process, kind, (host, int(port))
        finally:
            process.kill()


@each
def test_a_log_that_nobody_reads_stops_nobody(name):
    """Standard error is a full pipe: lines are lost, clients are served, and a signal ends it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with started(name, stdout=subprocess.PIPE, stderr=writer) as (process, kind, address):
        os.close(writer)
        for _ in range(3):
            talk_to(kind, address)
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    os.close(reader)


@each
def test_closed_standard_streams_stop_nobody(name):
    """Standard error is closed, standard output too once the ready line is read."""
    with started(name, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2)) as (process, kind, address):
        process.stdout.close()
        talk_to(kind, address)
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_json_lines_are_whole_with_many_threads(start):
    """Fifty threads log at once, and each line is one object."""
    server = start("threaded")
    clients = [server.connect() for _ in range(50)]
    for client in clients:
        client.close()
    server.logged("disconnected", 50)
    times = [json.loads(line)["t"] for line in server.log_text().splitlines()]
    assert times == sorted(times)
