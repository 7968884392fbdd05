"""The agent's TCP and AF_UNIX clients: what each command does at the peer, and what is told of the peer's doings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.clients.agent_process import (
    LIMIT_S,
    Agent,
    connected,
    fill,
    full_backlog,
    read_to_end,
    reset,
    unacknowledged,
    until,
)

HOUR = 3600.0
MIB = 1 << 20


def echo(connection: socket.socket) -> threading.Thread:
    """Send everything back, in a thread, until the peer's FIN."""

    def serve() -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


# What goes out and comes in.


def test_bytes_go_out_and_come_in_as_they_are(agent: Agent, any_listener: socket.socket) -> None:
    """Text as text, other bytes in base64, times from the monotonic clock."""
    before = time.monotonic_ns()
    with connected(agent, any_listener) as server:
        answer = agent.ask("send", client="a", chunks=[{"text": "grüße\n"}, {"base64": "AP8="}])
        assert (answer["ok"], answer["sent"]) == (True, 10)
        assert server.recv(10, socket.MSG_WAITALL) == "grüße\n".encode() + b"\x00\xff"
        server.sendall("소켓".encode())
        event = agent.event("received")
        assert event["text"] == "소켓"
        assert before < event["t"] < time.monotonic_ns()
        server.sendall(b"\xff\x00")
        assert agent.event("received")["base64"] == "/wA="


def test_an_open_tells_both_addresses(agent: Agent, listener: socket.socket) -> None:
    """The client's own, as it was asked for, and the server's."""
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        local = list(free.getsockname())
    number = agent.start_open(list(listener.getsockname()), bind=local)
    server, address = listener.accept()
    with server:
        answer = agent.answer(number)

    assert (answer["local"], answer["remote"]) == (local, list(listener.getsockname()))
    assert list(address) == local


def test_a_name_is_looked_up(agent: Agent, listener: socket.socket) -> None:
    """In the family of the address that the client binds."""
    number = agent.start_open(["localhost", listener.getsockname()[1]], bind=["127.0.0.1", 0])
    with listener.accept()[0]:
        assert agent.answer(number)["remote"][0] == "127.0.0.1"


def test_an_abstract_unix_socket_has_a_name_and_no_file(agent: Agent) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0socklab-test-{os.getpid()}")
        listener.listen()
        number = agent.start_open(f"@socklab-test-{os.getpid()}", kind="unix")
        with listener.accept()[0] as server:
            assert agent.answer(number)["remote"] == f"@socklab-test-{os.getpid()}"
            agent.send("hi")
            assert server.recv(10) == b"hi"


def test_megabytes_go_both_ways_through_small_buffers(agent: Agent, any_listener: socket.socket) -> None:
    """Partial sends are gone on with, while what comes back is read."""
    size = 3 * MIB
    server = connected(agent, any_listener, options={"sndbuf": 4096, "rcvbuf": 4096})
    thread = echo(server)
    number = agent.tell("send", client="a", chunks=[{"text": "01234567", "repeat": size // 8}])
    assert agent.received(size) == b"01234567" * (size // 8)
    assert agent.answer(number)["sent"] == size
    assert agent.ask("close", client="a")["ok"]
    thread.join(LIMIT_S)


def test_between_two_chunks_there_is_a_pause(agent: Agent, listener: socket.socket) -> None:
    """The second is not handed to the kernel before the pause is over; meanwhile all else goes on."""
    with connected(agent, listener) as server:
        number = agent.tell("send", client="a", chunks=[{"text": "one"}, {"text": "two"}], pause=HOUR)
        assert server.recv(100) == b"one"
        server.sendall(b"back")
        assert agent.received(4) == b"back"
        status = agent.status()
        assert (status["sent"], status["unsent"]) == (3, 3)
        agent.ask("abort", client="a")
        assert agent.answer(number)["sent"] == 3


def test_after_the_pause_the_next_chunk_comes(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        assert agent.send(*"abcdefghij", pause=0.001)["sent"] == 10
        agent.ask("close", client="a")
        assert read_to_end(server) == b"abcdefghij"


def test_a_pause_does_not_divide_a_long_chunk(agent: Agent, listener: socket.socket) -> None:
    """A repetition of megabytes is one chunk, however many calls it takes."""
    with connected(agent, listener) as server:
        agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 5 * MIB}, {"text": "y"}], pause=HOUR)
        got = 0
        while got < 5 * MIB:
            got += len(server.recv(MIB))
        assert agent.status()["unsent"] == 1
        assert agent.ask("abort", client="a")["ok"]


def test_what_a_client_has_to_do_is_done_in_order(agent: Agent, listener: socket.socket) -> None:
    """Sends, half-close and close wait for the sends before them, however slowly the peer reads."""
    with connected(agent, listener, options={"sndbuf": 4096}) as server:
        numbers = [
            agent.tell("send", client="a", chunks=[{"text": "a", "repeat": MIB}]),
            agent.tell("send", client="a", chunks=[{"text": "b", "repeat": MIB}]),
            agent.tell("shutdown", client="a"),
        ]
        assert read_to_end(server) == b"a" * MIB + b"b" * MIB
        assert [agent.answer(number)["ok"] for number in numbers] == [True] * 3
    with connected(agent, listener, options={"sndbuf": 4096}) as server:
        agent.tell("send", client="a", chunks=[{"text": "a", "repeat": MIB}])
        number = agent.tell("close", client="a")
        assert read_to_end(server) == b"a" * MIB
        assert agent.answer(number)["ok"]


def test_a_send_that_nobody_takes_ends_at_its_limit(agent: Agent, listener: socket.socket) -> None:
    """So does one that waits behind it; the rest of both is forgotten, and the client may be used again."""
    with connected(agent, listener) as server:
        first = agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 50 * MIB}], limit=0.2)
        second = agent.tell("send", client="a", chunks=[{"text": "y"}], limit=0.1)
        answer = agent.answer(second)
        assert (answer["error"], answer["sent"]) == ("timed out", 0)
        answer = agent.answer(first)
        assert answer["error"] == "timed out"
        assert 0 < answer["sent"] < 50 * MIB
        number = agent.tell("send", client="a", chunks=[{"text": "the end"}])
        agent.tell("close", client="a")
        assert read_to_end(server) == b"x" * answer["sent"] + b"the end"
        assert agent.answer(number)["ok"]


# Ends.


def test_after_a_half_close_it_still_reads(agent: Agent, any_listener: socket.socket) -> None:
    with connected(agent, any_listener) as server:
        agent.send("bye")
        assert agent.ask("shutdown", client="a")["ok"]
        assert read_to_end(server) == b"bye"
        server.sendall(b"still there")
        assert agent.received(11) == b"still there"
    agent.event("eof")


def test_after_the_peers_fin_it_may_still_send(agent: Agent, any_listener: socket.socket) -> None:
    with connected(agent, any_listener) as server:
        server.shutdown(socket.SHUT_WR)
        agent.event("eof")
        assert agent.status()["state"] == "eof"
        assert agent.send("and yet")["ok"]
        assert agent.ask("close", client="a")["ok"]
        assert read_to_end(server) == b"and yet"


def test_close_says_fin_even_if_something_came_last(agent: Agent, listener: socket.socket) -> None:
    """A close() with unread input would say RST; so what has come is reported first."""
    with connected(agent, listener) as server:
        with agent.held():
            server.sendall(b"too late to be read?")
            number = agent.tell("close", client="a")
        assert agent.answer(number)["ok"]
        assert agent.received(20) == b"too late to be read?"
        assert read_to_end(server) == b""


def test_abort_says_rst_and_forgets_what_was_to_be_sent(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        pending = agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 50 * MIB}])
        assert agent.ask("abort", client="a")["ok"]
        assert agent.answer(pending)["error"] == "closed"
        with pytest.raises(ConnectionResetError):
            read_to_end(server)
    assert agent.seen() == []


def test_the_peers_fin_is_eof_and_its_rst_is_reset(agent: Agent, listener: socket.socket) -> None:
    """What had come before is reported first; after a reset the socket is closed."""
    with connected(agent, listener) as server:
        server.sendall(b"last words")
    assert agent.received(10) == b"last words"
    agent.event("eof")
    server = connected(agent, listener)
    with agent.held():
        server.sendall(b"x" * 40_000)
        until(lambda: unacknowledged(server) == 0, "the client's kernel has it all")
        reset(server)
    assert agent.received(40_000) == b"x" * 40_000
    agent.event("reset")
    assert agent.status()["state"] == "closed"
    assert agent.send("too late")["error"] == "closed"
    assert agent.seen() == []


def test_a_reset_ends_what_was_to_be_sent(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        pending = agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 50 * MIB}])
        assert server.recv(1) == b"x"
        reset(server)
        agent.event("reset")
        answer = agent.answer(pending)
    assert answer["error"] == "reset"
    assert 0 < answer["sent"] < 50 * MIB


def test_who_sends_to_a_peer_that_has_closed_is_reset(agent: Agent, listener: socket.socket) -> None:
    """FIN says only that the peer sends no more; that it does not read either, RST says."""
    connected(agent, listener).close()
    agent.event("eof")
    assert agent.send("is anybody there?")["ok"]
    agent.event("reset")
    assert agent.send("no")["error"] == "closed"


def test_a_connection_that_is_reset_at_once_was_open(agent: Agent, listener: socket.socket) -> None:
    """The connect succeeded, whenever the RST is noticed: an answer with both addresses, then the reset."""
    for _ in range(50):
        number = agent.start_open(list(listener.getsockname()))
        server, address = listener.accept()
        reset(server)
        answer = agent.answer(number)
        assert answer["ok"]
        assert (answer["local"], answer["remote"]) == (list(address), list(listener.getsockname()))
        agent.event("reset")
        assert agent.seen() == []


def test_what_is_closed_says_so(agent: Agent, listener: socket.socket) -> None:
    """Commands for a client that was never opened, is not connected yet, has said FIN, is closed."""
    assert agent.send("x")["error"] == "closed"
    with connected(agent, listener), full_backlog() as full:
        assert agent.ask("shutdown", client="a")["ok"]
        answer = agent.send("x")
        assert (answer["error"], answer["errno"], answer["sent"]) == ("closed", "EPIPE", 0)
        waiting = agent.start_open(list(full.getsockname()), "b")
        assert agent.send("x", client="b")["error"] == "closed"
        assert agent.ask("close", client="b")["ok"]
        assert agent.answer(waiting)["error"] == "closed"
        assert agent.ask("close", client="a")["ok"]
        for do in ("close", "abort", "shutdown", "stall", "read"):
            assert agent.ask(do, client="a")["error"] == "closed"


def test_a_second_open_replaces_the_first(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as first, connected(agent, listener) as second:
        assert read_to_end(first) == b""
        agent.send("me")
        assert second.recv(10) == b"me"
        assert agent.sockets() == 1


def test_a_hundred_connections_leave_nothing_behind(agent: Agent, listener: socket.socket) -> None:
    for how in ["close", "abort", "reset", "eof"] * 25:
        server = connected(agent, listener)
        if how in ("close", "abort"):
            agent.ask(how, client="a")
            server.close()
        else:
            (reset if how == "reset" else socket.socket.close)(server)
            agent.event(how)
    agent.ask("abort", client="a")

    assert agent.sockets() == 0


# Why a connect fails.


def test_where_nobody_listens_it_is_refused(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = list(gone.getsockname())
    answer = agent.open(address)

    assert (answer["ok"], answer["error"], answer["errno"]) == (False, "refused", "ECONNREFUSED")


def test_where_the_backlog_is_full_it_times_out(agent: Agent, tmp_path: Path) -> None:
    """TCP's SYN gets no answer; AF_UNIX has no SYN, and is tried again."""
    with full_backlog() as tcp, full_backlog(socket.AF_UNIX, str(tmp_path / "s")) as unix:
        assert agent.open(list(tcp.getsockname()), limit=0.1)["error"] == "timed out"
        assert agent.open(unix.getsockname(), kind="unix", limit=0.1)["error"] == "timed out"


def test_an_open_waits_for_room_in_a_unix_backlog(agent: Agent, tmp_path: Path) -> None:
    with full_backlog(socket.AF_UNIX, str(tmp_path / "s")) as listener:
        number = agent.start_open(listener.getsockname(), kind="unix")
        agent.ask("stall", client="a")
        assert agent.status()["state"] == "connecting"
        for _ in range(2):
            listener.accept()[0].close()
        assert agent.answer(number)["ok"]


def test_an_address_in_use_says_so(agent: Agent, listener: socket.socket) -> None:
    to = list(listener.getsockname())

    assert agent.open(to, bind=to)["error"] == "in use"


def test_an_address_that_is_not_ours_is_some_other_error(agent: Agent, listener: socket.socket) -> None:
    answer = agent.open(list(listener.getsockname()), bind=["192.0.2.1", 0])

    assert (answer["error"], answer["errno"]) == ("other", "EADDRNOTAVAIL")


def test_a_path_that_leads_nowhere_is_unreachable(agent: Agent, tmp_path: Path) -> None:
    assert agent.open(str(tmp_path / "nothing"), kind="unix")["error"] == "unreachable"


def test_where_no_route_leads_it_is_unreachable_or_denied() -> None:
    """In a network namespace of its own: no route at all, and one that prohibits."""
    inside = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("ip") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs ip(8) and leave to make a network namespace")
    route = 'ip link set lo up && ip route add prohibit 10.9.0.0/16 && exec "$@"'
    agent = Agent([*inside, "sh", "-c", route, "sh"])
    try:
        assert agent.open(["10.8.0.1", 5000])["error"] == "unreachable"
        assert agent.open(["10.9.0.1", 5000])["error"] == "denied"
        assert agent.end() == 0
    finally:
        agent.clean_up()


# Stalling.


def test_who_does_not_read_stalls_its_sender_and_reads_on(agent: Agent, listener: socket.socket) -> None:
    """stall stops reading, so the buffers fill; read gets all of it."""
    with connected(agent, listener, options={"maxseg": 1400}) as server:
        assert agent.ask("stall", client="a", rcvbuf=4096)["ok"]
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        sent = fill(server)
        assert agent.ask("sync")["ok"]
        assert agent.seen() == []
        assert agent.ask("read", client="a")["ok"]
        assert agent.received(sent) == b"x" * sent


def test_what_came_during_a_stall_is_there_afterwards(agent: Agent, any_listener: socket.socket) -> None:
    """Both sides have said FIN meanwhile, so the kernel tells a hang-up; yet nothing is lost."""
    server = connected(agent, any_listener)
    agent.ask("stall", client="a")
    agent.ask("shutdown", client="a")
    assert read_to_end(server) == b""
    server.sendall(b"slow news")
    server.close()
    for _ in range(3):
        agent.ask("sync")
    assert agent.seen() == []
    agent.ask("read", client="a")
    assert agent.received(9) == b"slow news"
    agent.event("eof")
    for do in ("stall", "read", "close"):
        assert agent.ask(do, client="a")["ok"]


def test_a_reset_is_told_during_a_stall(agent: Agent, listener: socket.socket) -> None:
    """A server that drops a slow consumer is noticed, though nothing is read."""
    server = connected(agent, listener)
    agent.ask("stall", client="a")
    reset(server)
    agent.event("reset")


def test_a_peer_that_takes_nothing_is_given_up(agent: Agent, listener: socket.socket) -> None:
    """With TCP_USER_TIMEOUT, in milliseconds: an error of an open connection, told as an event."""
    with connected(agent, listener):
        agent.ask("set", client="a", option="user_timeout", value=300)
        pending = agent.tell("send", client="a", chunks=[{"text": "x", "repeat": 50 * MIB}])
        assert agent.event("error")["error"] == "timed out"
        assert agent.answer(pending)["error"] == "timed out"
        assert agent.status()["state"] == "closed"


def test_a_linger_time_of_zero_turns_close_into_rst(agent: Agent, listener: socket.socket) -> None:
    with connected(agent, listener) as server:
        agent.ask("set", client="a", option="linger", value=0)
        agent.ask("close", client="a")
        with pytest.raises(ConnectionResetError):
            read_to_end(server)


def test_options_may_be_set_before_the_connect(agent: Agent, listener: socket.socket) -> None:
    """The window that a server sees is of the size that was asked for."""
    with connected(agent, listener) as wide:
        agent.ask("stall", client="a")
        wide.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        much = fill(wide)
    options = {"rcvbuf": 2048, "keepalive": 1, "keepidle": 10, "keepintvl": 1, "keepcnt": 3, "oobinline": 1}
    with connected(agent, listener, options=options) as narrow:
        agent.ask("stall", client="a")
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert fill(narrow) < much


# Many at once.


def test_after_sync_everything_that_had_arrived_is_told(agent: Agent, any_listener: socket.socket) -> None:
    """Data, FIN and RST alike, as soon as the client's kernel has them."""
    with connected(agent, any_listener) as server:
        for size in [1, 100, 10_000, 65_536, 100_000] * 10:
            server.sendall(b"x" * size)
            if any_listener.family != socket.AF_UNIX:
                until(lambda: unacknowledged(server) == 0, "the client's kernel has it all")
            agent.ask("sync")
            got = sum(len(e["text"]) for e in agent.events if e["event"] == "received")
            assert got == size
            agent.events.clear()


def test_a_flooding_peer_keeps_no_command_waiting(agent: Agent, listener: socket.socket) -> None:
    """Three floods: status, sync and another client's conversation go on."""
    stop = threading.Event()

    def flood(connection: socket.socket) -> None:
        try:
            while not stop.is_set():
                connection.sendall(b"\xff" * 65536)
        except OSError:
            pass  # the agent is done with it

    with connected(agent, listener, "calm") as calm:
        floods = [connected(agent, listener, f"flood-{number}") for number in range(3)]
        threads = [threading.Thread(target=flood, args=(each,), daemon=True) for each in floods]
        for thread in threads:
            thread.start()
        agent.event("received", "flood-0")
        for _ in range(10):
            assert agent.ask("status")["ok"]
            assert agent.ask("sync")["ok"]
            assert agent.send("ping", client="calm")["ok"]
            assert calm.recv(10) == b"ping"
            agent.events.clear()
        for number in range(3):
            agent.ask("abort", client=f"flood-{number}")
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
        for each in floods:
            each.close()


def test_a_new_socket_hears_nothing_of_an_old_one(agent: Agent, listener: socket.socket) -> None:
    """Close and open in one breath, while the old socket's end is being told: their numbers are the same."""
    with full_backlog() as full:
        for _ in range(20):
            server = connected(agent, listener)
            with agent.held():
                server.sendall(b"news")
                server.close()
                agent.tell("abort", client="a")
                number = agent.start_open(list(full.getsockname()), "b", limit=0.02)
            assert agent.answer(number)["error"] == "timed out"


def test_two_hundred_clients_converse_at_once(agent: Agent, listener: socket.socket) -> None:
    names = [f"c{number}" for number in range(200)]
    threads = [echo(connected(agent, listener, name)) for name in names]
    numbers = [
        agent.tell("send", client=name, chunks=[{"text": f"I am {name}. ", "repeat": 1000}]) for name in names
    ]
    for name in names:
        text = f"I am {name}. ".encode() * 1000
        assert agent.received(len(text), name) == text
    assert all(agent.answer(number)["ok"] for number in numbers)
    for name in names:
        agent.ask("close", client=name)
    for thread in threads:
        thread.join(LIMIT_S)
    assert agent.sockets() == 0
