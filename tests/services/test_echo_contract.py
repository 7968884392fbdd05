"""The contract `echo`, held by all five TCP echo servers: one conversation, five ways to serve it."""

import os
import resource
import socket
import threading

import pytest
from real_server import fill, read_exactly, read_to_end, reset, until

ITERATIVE = ["echo", "handler"]
CONCURRENT = ["threaded", "forking", "eventloop"]
MIB = 1024 * 1024

all_servers = pytest.mark.parametrize("name", ITERATIVE + CONCURRENT)
iterative = pytest.mark.parametrize("name", ITERATIVE)
concurrent = pytest.mark.parametrize("name", CONCURRENT)


def in_background(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def at_rest(server):
    """What the server holds when it has served one client, and so has opened and loaded all that it needs."""
    assert_serves(server)
    threads = 2 if server.name == "threaded" else 1
    until(lambda: server.sockets() == 1, "only the listener is open")
    until(lambda: server.threads() == threads and server.children() == [], "no worker is left")
    return server.holdings()


def assert_serves(server):
    """A new client is served from its first byte to the server's FIN."""
    with server.connect() as client:
        client.sendall(b"still there?")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"still there?"


# 1. Every byte comes back, unchanged, in order, once.


@all_servers
def test_all_byte_values_come_back_unchanged(start, name):
    """Bytes are bytes: NUL, invalid UTF-8, no newline."""
    message = bytes(range(256)) + b"\xff\xfe\xc3\x28\x00\r\n\x1a"
    with start(name).connect() as client:
        client.sendall(message)
        assert read_exactly(client, len(message)) == message


@all_servers
def test_one_byte_at_a_time_comes_back(start, name):
    """Two hundred segments of one byte are the same stream as one segment of two hundred."""
    message = bytes(range(200))
    with start(name).connect() as client:
        for byte in message:
            client.sendall(bytes([byte]))
        assert read_exactly(client, len(message)) == message


@all_servers
def test_megabytes_through_small_buffers_come_back(start, name):
    """Four MiB at once from a client with small buffers, so that nearly every send is a partial one."""
    message = os.urandom(4 * MIB)
    with start(name).connect(receive=4096, send=4096) as client:
        sender = in_background(client.sendall, message)
        assert read_exactly(client, len(message)) == message
        sender.join()


@concurrent
def test_each_client_gets_its_own_bytes(start, name):
    """Twenty clients send at once; what comes back to each is what it sent, and nothing of the others."""
    server = start(name)
    clients = [server.connect() for _ in range(20)]
    messages = [bytes([number]) * 200_000 for number in range(20)]
    senders = [in_background(c.sendall, m) for c, m in zip(clients, messages, strict=True)]
    for client, message in zip(clients, messages, strict=True):
        assert read_exactly(client, len(message)) == message
    for sender, client in zip(senders, clients, strict=True):
        sender.join()
        client.close()


# 2. Half-close.


@all_servers
def test_all_that_is_owed_comes_back_after_half_close(start, name):
    """The client says everything and FIN before it reads the first byte; all comes back, then FIN, no RST."""
    message = os.urandom(2 * MIB)
    with start(name).connect(receive=65536) as client:

        def send():
            client.sendall(message)
            client.shutdown(socket.SHUT_WR)

        sender = in_background(send)
        assert read_to_end(client) == message
        sender.join()


@all_servers
def test_half_close_without_a_byte_is_answered_with_fin(start, name):
    """A client that has nothing to say is let go."""
    with start(name).connect() as client:
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""


# 3. A client that vanishes ends its own connection only.


@all_servers
def test_a_reset_in_mid_transfer_ends_that_connection_only(start, name):
    """RST while the server is sending: its descriptor, thread or child is released, the next is served."""
    server = start(name)
    before = at_rest(server)
    for _ in range(3):
        client = server.connect(receive=4096)
        assert fill(client) > 0  # the server waits in send(), or for room
        reset(client)
    server.logged("disconnected", 3, why="reset")
    server.holds_again(before)
    assert_serves(server)


@all_servers
def test_a_reset_in_the_backlog_is_survived(start, name):
    """Clients that are gone before the server looks at them cost nothing."""
    server = start(name)
    before = at_rest(server)
    for _ in range(200):
        reset(server.connect())
    assert_serves(server)
    server.holds_again(before)


@all_servers
def test_an_idle_peer_is_asked_whether_it_is_alive(start, name):
    """The kernel's timer on an idle connection is the keepalive timer, so a half-open peer is found out."""
    server = start(name)
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        local, remote = (f"{port:04X}" for port in (server.address[1], client.getsockname()[1]))

        def timers():
            with open("/proc/net/tcp") as table:
                rows = [line.split() for line in table]
            ours = [r for r in rows[1:] if r[1].endswith(f":{local}") and r[2].endswith(f":{remote}")]
            return [row[5].split(":")[0] for row in ours]

        until(lambda: timers() == ["02"], "the server's end has a keepalive timer")


# 4. It stays up, through a thousand connections.


@all_servers
def test_a_thousand_connections_leave_nothing_behind(start, name):
    """A thousand clients one after another; then descriptors, threads, children and zombies are as before."""
    server = start(name)
    before = at_rest(server)
    for number in range(1000):
        message = b"%d" % number
        with server.connect() as client:
            client.sendall(message)
            assert read_exactly(client, len(message)) == message
    server.logged("disconnected", 1001)
    server.holds_again(before)


# 5. Who is served when.


@concurrent
def test_nobody_delays_the_others(start, name):
    """A silent client, one that does not read and one in the middle of a transfer: a new one is served."""
    server = start(name)
    silent, slow, half = server.connect(), server.connect(receive=4096), server.connect()
    fill(slow)
    half.sendall(b"half a mess")
    for _ in range(5):
        assert_serves(server)
    for client in (silent, slow, half):
        client.close()


@concurrent
def test_hundreds_are_served_at_the_same_time(start, name):
    """Three hundred clients are connected at once, and each is answered while all stay."""
    server = start(name)
    before = at_rest(server)
    clients = [server.connect() for _ in range(300)]
    for client in clients:
        client.sendall(b"hello")
    for client in clients:
        assert read_exactly(client, 5) == b"hello"
    assert max(entry["active"] for entry in server.events("connected")) == 300
    for client in clients:
        client.close()
    server.holds_again(before)


@iterative
def test_the_second_client_connects_and_waits_its_turn(start, name):
    """The kernel completes the second client's handshake; the server serves it when the first has left."""
    server = start(name)
    first, second = server.connect(), server.connect()
    second.sendall(b"second")
    first.sendall(b"first")
    assert read_exactly(first, 5) == b"first"
    second.settimeout(0.2)
    with pytest.raises(TimeoutError):
        second.recv(1)  # a quiet window: nothing is owed to it yet
    second.settimeout(20)
    first.close()
    assert read_exactly(second, 6) == b"second"
    second.close()


# Under load.


@concurrent
def test_a_stalled_reader_costs_bounded_memory(start, name):
    """A client that sends without end and never reads is made to wait; the server keeps none of it."""
    server = start(name)
    with server.connect() as warm_up:
        warm_up.sendall(b"x")
        assert warm_up.recv(1) == b"x"
    before = server.memory()
    stalled = [server.connect(receive=4096) for _ in range(5)]
    assert sum(fill(client, b"x" * MIB) for client in stalled) > 5 * MIB
    assert server.memory() - before < 8 * MIB
    assert_serves(server)
    for client in stalled:
        reset(client)


@all_servers
def test_without_a_free_descriptor_clients_wait_and_the_server_does_not_spin(start, name):
    """accept() fails with EMFILE: said once, no busy loop, and the client is served when one is free."""
    server = start(name)
    at_rest(server)
    limits = server.limit_descriptors(server.highest_descriptor() + 1)
    server.connect().close()  # echo's accept() is waiting, and had its descriptor before the limit came
    server.logged("accept-failed", error="EMFILE")
    with server.connect() as client:
        client.sendall(b"patience")
        spent = server.cpu_seconds()
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.recv(1)  # a window in which accept() fails again and again
        assert server.cpu_seconds() - spent < 0.5, "it spins"
        assert len(server.events("accept-failed")) == 1
        server.limit_descriptors(limits[0])
        client.settimeout(20)
        assert read_exactly(client, 8) == b"patience"
    assert_serves(server)


@pytest.mark.parametrize("name", ["threaded", "eventloop"])
def test_more_clients_than_descriptors_are_served_as_others_leave(start, name):
    """With 32 descriptors and 60 clients, those who find no place wait for one, and everybody is served."""
    server = start(name, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)))
    clients = [server.connect() for _ in range(60)]
    for client in clients:
        client.sendall(b"me?")
    server.logged("accept-failed", error="EMFILE")
    for client in clients:
        assert read_exactly(client, 3) == b"me?"
        client.close()
    assert_serves(server)


def test_a_client_for_whom_no_thread_can_be_started_is_let_go(start):
    """Memory for threads runs out: that client's connection is closed, the others and the server stay."""
    server = start("threaded")
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        resource.prlimit(server.pid, resource.RLIMIT_AS, (server.mapped() + MIB, -1))  # a stack needs more
        with server.connect() as refused:
            assert read_to_end(refused) == b""
        server.logged("error")
        client.sendall(b"z")
        assert client.recv(1) == b"z"
    resource.prlimit(server.pid, resource.RLIMIT_AS, (-1, -1))
    assert_serves(server)
