"""The agent's UDP clients."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import pytest

from tests.clients.agent_process import LIMIT_S, Agent, content


def nobody() -> list[object]:
    """An address that nobody is bound to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        return list(gone.getsockname())


def test_an_open_is_answered_at_once_and_sends_nothing(agent: Agent, peer: socket.socket) -> None:
    """The client is bound, so that its address is known; the peer learns nothing of it."""
    answer = agent.open(list(peer.getsockname()), kind="udp", bind=["127.0.0.2", 0])

    assert answer["local"][0] == "127.0.0.2"
    assert answer["local"][1] > 0
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(100)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x00\xff\n", b"x" * 65507], ids=["", "text", "bytes", "65507"]
)
def test_datagrams_keep_their_borders_and_senders(agent: Agent, peer: socket.socket, data: bytes) -> None:
    """Empty ones and the largest too; each with the address it came from."""
    local = agent.open(list(peer.getsockname()), kind="udp", bind=["127.0.0.1", 0])["local"]
    chunk = {"base64": base64.b64encode(data).decode()}
    assert agent.ask("send", client="a", chunks=[chunk, chunk])["sent"] == 2 * len(data)
    for _ in range(2):
        assert peer.recvfrom(65535) == (data, tuple(local))
        peer.sendto(data, tuple(local))
    for _ in range(2):
        event = agent.event("received")
        assert (content(event), event["from"]) == (data, list(peer.getsockname()))


def test_a_datagram_goes_where_its_send_says(agent: Agent, peer: socket.socket) -> None:
    """To the address of the send, else to that of the open; without both it is a usage error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(LIMIT_S)
        agent.open(list(peer.getsockname()), kind="udp")
        agent.send("to the peer")
        agent.send("to the other", to=list(other.getsockname()))
        assert peer.recv(100) == b"to the peer"
        assert other.recv(100) == b"to the other"
        assert agent.ask("open", client="a", kind="udp")["ok"]
        assert agent.send("to nobody")["error"] == "usage"


def test_ipv6_is_spoken_as_well(agent: Agent) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        try:
            peer.bind(("::1", 0))
        except OSError as exc:
            pytest.skip(f"no ::1 on this machine: {exc}")
        peer.settimeout(LIMIT_S)
        to = list(peer.getsockname()[:2])
        agent.open(to, kind="udp")
        agent.send("hello")
        data, address = peer.recvfrom(100)
        assert data == b"hello"
        peer.sendto(b"hello too", address)
        event = agent.event("received")
        assert (event["text"], event["from"]) == ("hello too", to)
    agent.send("anybody?")
    event = agent.event("error")
    assert (event["error"], event["about"]) == ("refused", to)


def test_icmp_is_an_error_of_that_client_which_goes_on(agent: Agent, peer: socket.socket) -> None:
    """Nobody is bound there: the datagram was sent all the same, the answer comes later, the next one goes out."""
    agent.open(list(peer.getsockname()), kind="udp")
    there = nobody()
    for _ in range(3):
        assert agent.send("is anybody there?", to=there)["ok"]
    for _ in range(3):
        event = agent.event("error")
        assert (event["error"], event["errno"], event["about"]) == ("refused", "ECONNREFUSED", there)
    assert agent.send("hello")["ok"]
    assert peer.recv(100) == b"hello"
    assert agent.status()["state"] == "open"


def test_icmp_is_told_before_sync_is_answered(agent: Agent) -> None:
    """Also of a client that does not read."""
    agent.open(nobody(), kind="udp")
    agent.send("x")
    agent.ask("sync")
    assert agent.seen() == [("error", "a")]
    agent.ask("stall", client="a")
    agent.send("x")
    agent.ask("sync")
    assert agent.seen() == [("error", "a")] * 2


def test_what_the_kernel_does_not_send_is_refused(agent: Agent, peer: socket.socket) -> None:
    """Too long a datagram, a broadcast without leave, an address that another has."""
    agent.open(list(peer.getsockname()), kind="udp")
    answer = agent.ask("send", client="a", chunks=[{"text": "ok"}, {"text": "x", "repeat": 65508}])
    assert (answer["error"], answer["errno"], answer["sent"]) == ("other", "EMSGSIZE", 2)
    assert agent.send("x", to=["127.255.255.255", 9])["error"] == "denied"
    agent.ask("set", client="a", option="broadcast", value=1)
    assert agent.send("x", to=["127.255.255.255", 9])["ok"]
    assert agent.open(nobody(), "b", kind="udp", bind=list(peer.getsockname()))["error"] == "in use"


def test_an_option_takes_effect(agent: Agent, peer: socket.socket) -> None:
    """The datagram arrives with the TTL that was set."""
    ip_recvttl = 12  # <linux/in.h>; Python has no name for it
    peer.setsockopt(socket.IPPROTO_IP, ip_recvttl, 1)
    agent.open(list(peer.getsockname()), kind="udp")
    assert agent.ask("set", client="a", option="ttl", value=7)["ok"]
    agent.send("x")
    _, [(_, _, ttl)], _, _ = peer.recvmsg(10, 100)

    assert int.from_bytes(ttl, "little") == 7


def test_after_sync_everything_that_had_arrived_is_told(agent: Agent, peer: socket.socket) -> None:
    local = tuple(agent.open(list(peer.getsockname()), kind="udp", bind=["127.0.0.1", 0])["local"])
    for size in [0, 1, 1000] * 10:
        with agent.held():
            for _ in range(100):
                peer.sendto(b"x" * size, local)
            number = agent.tell("sync")
        agent.answer(number)
        assert agent.seen() == [("received", "a")] * 100
        agent.events.clear()


def test_the_buffer_holds_a_burst(agent: Agent, peer: socket.socket) -> None:
    """Thousands of datagrams wait in the kernel while the agent has no time for them."""
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    count = min(5000, most // 1000)
    local = tuple(agent.open(list(peer.getsockname()), kind="udp", bind=["127.0.0.1", 0])["local"])
    with agent.held():
        for number in range(count):
            peer.sendto(b"%d" % number, local)
    got = [int(content(agent.event("received"))) for _ in range(count)]

    assert got == list(range(count))
