"""What only one of the echo servers has: AF_UNIX, --once, daemon threads, children."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
from real_server import LIMIT_S, SERVICES, read_exactly, read_to_end, until


def greet(server):
    """A new client is served, from its first byte to the server's FIN."""
    with server.connect() as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"hello"


# echo: addresses and AF_UNIX.


@pytest.mark.parametrize("name", ["echo", "handler", "threaded", "forking", "eventloop"])
@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_it_listens_on_ipv6_and_on_names(start, name, host):
    """--host takes an address of either family, or a name."""
    greet(start(name, "--host", host))


def test_echo_serves_a_unix_path_and_removes_the_file_at_the_end(start, tmp_path):
    """The same conversation by a file's name; the peer is named by its process id."""
    path = str(tmp_path / "echo.sock")
    server = start("echo", "--unix", path)
    assert (server.kind, server.address) == ("unix", path)
    greet(server)
    server.logged("connected", peer=f"pid:{os.getpid()}")
    assert server.end() == 0
    assert not os.path.exists(path)


def test_echo_serves_the_abstract_namespace(start):
    """@NAME is no file."""
    server = start("echo", "--unix", f"@socklab-test-{os.getpid()}")
    greet(server)
    assert server.end() == 0


def test_the_file_of_a_killed_server_is_replaced(start, tmp_path):
    """After SIGKILL the file is still there, but nobody answers on it: the next server takes the path."""
    path = str(tmp_path / "echo.sock")
    assert start("echo", "--unix", path).end(signal.SIGKILL) == -signal.SIGKILL
    assert os.path.exists(path)
    greet(start("echo", "--unix", path))


def test_a_living_server_keeps_its_path(start, tmp_path):
    """A second server is refused, and the first one's file stays."""
    path = str(tmp_path / "echo.sock")
    server = start("echo", "--unix", path)
    second = run_echo("--unix", path)
    assert second.returncode == 1
    assert (
        second.stderr
        == f"echo: cannot listen on {path}: address already in use; choose another --unix path\n"
    )
    greet(server)


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    """A typing error must not cost anybody a file."""
    path = tmp_path / "thesis.txt"
    path.write_text("three years of work")
    assert run_echo("--unix", str(path)).returncode == 1
    assert path.read_text() == "three years of work"


def test_a_path_that_is_too_long_is_said_in_one_line(tmp_path):
    """The kernel has 108 bytes for it."""
    refused = run_echo("--unix", str(tmp_path / ("x" * 120)))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "too long" in refused.stderr


def run_echo(*options):
    return subprocess.run(
        [sys.executable, SERVICES / "echo.py", *options], capture_output=True, text=True, timeout=LIMIT_S
    )


# handler: handle_request() against serve_forever().


def test_once_serves_one_client_and_ends(start):
    """--once is handle_request(): the process ends with status 0 when its one client has left."""
    server = start("handler", "--once")
    greet(server)
    assert server.process.wait(LIMIT_S) == 0
    assert len(server.events("connected")) == 1


# threaded: who outlives whom.


def test_daemon_threads_end_with_the_main_thread(start):
    """--daemon-threads yes: SIGTERM ends the process, though a client is being served."""
    server = start("threaded", "--daemon-threads", "yes")
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert server.end() == 0


def test_other_threads_outlive_the_main_thread(start):
    """--daemon-threads no: after SIGTERM nobody is accepted, those who are served stay to their end."""
    server = start("threaded", "--daemon-threads", "no")
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server.process.send_signal(signal.SIGTERM)
        server.logged("stopping", note="main thread ends")
        client.sendall(b"still served")
        assert read_exactly(client, 12) == b"still served"
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert server.process.poll() is None
        assert server.events("stopped") == []
    assert server.process.wait(LIMIT_S) == 0
    assert len(server.events("stopped")) == 1


def test_a_second_signal_ends_threads_that_stay(start):
    """--daemon-threads no, and a client that never leaves: the second Ctrl-C kills."""
    server = start("threaded", "--daemon-threads", "no")
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server.process.send_signal(signal.SIGINT)
        server.logged("stopping", note="main thread ends")
        until(lambda: server.ignores_no(signal.SIGINT), "a second signal counts again")
        assert server.end(signal.SIGINT) == -signal.SIGINT


# forking: children.


def test_more_children_than_the_library_would_have_are_served(start):
    """ForkingMixIn stops at 40 children; here the 60th client is served while all others stay."""
    server = start("forking")
    clients = [server.connect() for _ in range(60)]
    for client in clients:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    assert len(server.children()) == 60
    for client in clients:
        client.close()


def test_no_zombies_stay_while_nobody_connects(start):
    """Ended children are waited for, though no next client comes."""
    server = start("forking")
    for _ in range(20):
        greet(server)
    until(lambda: server.children() == [], "all children are reaped")
    server.logged("reaped", 20, status=0)


def test_children_end_with_the_server(start):
    """SIGTERM: children that serve, one that is stopped and one that waits in send() end and are reaped."""
    server = start("forking")
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    children = server.children()
    os.kill(children[0], signal.SIGSTOP)
    assert server.end() == 0
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    for client in clients:
        client.close()


def test_children_do_not_keep_the_port(start):
    """A killed server's children go on with their clients; the port is free for the next server."""
    server = start("forking")
    with server.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server.end(signal.SIGKILL)
        client.sendall(b"orphan")
        assert read_exactly(client, 6) == b"orphan"
        greet(start("forking", "--port", str(server.address[1])))


@pytest.mark.skipif(
    os.geteuid() != 0, reason="the number of root's processes is limited by giving up capabilities"
)
def test_a_client_for_whom_no_process_can_be_forked_is_let_go(start):
    """fork() fails: that client's connection is closed, the others and the server stay."""

    def few_processes():
        # The limit holds for a real user id other than root's, in a process without these capabilities.
        cap_sys_admin, cap_sys_resource, pr_capbset_drop = 21, 24, 24
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (cap_sys_admin, cap_sys_resource):
            assert libc.prctl(pr_capbset_drop, capability) == 0, os.strerror(ctypes.get_errno())
        os.setresuid(54_321, 0, 0)  # nobody else has processes of this user
        resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))

    server = start("forking", preexec=few_processes)
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    with server.connect() as refused:
        assert read_to_end(refused) == b""
    server.logged("error")
    for client in clients:
        client.sendall(b"y")
        assert client.recv(1) == b"y"
        client.close()
    until(lambda: server.children() == [], "all children are reaped")
    greet(server)
