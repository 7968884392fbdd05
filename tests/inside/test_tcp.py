"""What a host sees TCP do, from segments written out by hand."""

from __future__ import annotations

import pytest

from socklab.inside.tcp import Watcher
from tests.inside.written import ip, segment, udp


def told(*segments: bytes) -> list[list[str]]:
    watcher = Watcher()
    found = (watcher.see(data) for data in segments)
    return [each[1] if each else [] for each in found]


def test_a_connection_from_its_beginning_to_its_end() -> None:
    """What carries data is nothing to tell of."""
    assert told(
        segment("S", seq=100),
        segment("SA", seq=500, ack=101, turned=True),
        segment("A", seq=101, ack=501),
        segment("PA", b"hello", seq=101, ack=501),
        segment("A", seq=501, ack=106, turned=True),
        segment("FA", seq=106, ack=501),
        segment("FA", seq=501, ack=107, turned=True),
        segment("A", seq=107, ack=502),
    ) == [["SYN"], ["SYN-ACK"], [], [], [], ["FIN"], ["FIN"], []]


@pytest.mark.parametrize(
    ("first", "again", "words"),
    [
        (segment("S", seq=7), segment("S", seq=7), ["SYN", "retransmission"]),
        (segment("PA", b"hello", seq=7), segment("PA", b"hello", seq=7), ["retransmission"]),
        (segment("PA", b"hello", seq=7), segment("PA", b"lo and more", seq=10), ["retransmission"]),
        (segment("FA", seq=7), segment("FA", seq=7), ["FIN", "retransmission"]),
        (segment("A", seq=7), segment("A", seq=7), []),
        (segment("S", seq=7), segment("S", seq=9000), ["SYN"]),
        (segment("PA", b"abc", seq=0xFFFFFFFE), segment("PA", b"abc", seq=0xFFFFFFFE), ["retransmission"]),
        (segment("PA", b"abc", seq=0xFFFFFFFE), segment("PA", b"abc", seq=1), []),
        (segment("RA", seq=7), segment("RA", seq=7), ["RST"]),
    ],
)
def test_what_was_sent_before_is_a_retransmission(first: bytes, again: bytes, words: list[str]) -> None:
    """Also in part, and where the numbers wrap. A bare ACK and a new connection are none."""
    assert told(first, again)[1] == words


def test_a_probe_of_an_idle_connection_and_of_a_closed_window() -> None:
    """Both repeat the byte before the next one; what the other end said last tells them apart."""
    probe = segment("A", seq=105, ack=1)
    sent = segment("PA", b"hello", seq=101, ack=1)
    closed = segment("A", seq=1, ack=106, window=0, turned=True)

    assert told(sent, segment("A", seq=1, ack=106, turned=True), probe)[2] == ["keepalive"]
    assert told(sent, segment("A", b"o", seq=105, ack=1))[1] == ["keepalive"]
    assert told(sent, closed, probe) == [[], ["zero-window"], ["window-probe"]]


def test_a_window_closes_and_opens_once() -> None:
    windows = [1000, 0, 0, 0, 500, 1000]

    assert told(*(segment("A", window=window) for window in windows)) == [
        [], ["zero-window"], [], [], ["window-open"], []
    ]  # fmt: skip


def test_icmp_says_who_cannot_be_reached_and_udp_says_nothing() -> None:
    assert told(ip(1, b"\x03\x03" + b"\0" * 30), ip(1, b"\x08\x00" + b"\0" * 30), udp(b"x")) == [
        ["unreachable"], [], []
    ]  # fmt: skip


def test_nothing_that_passes_breaks_it() -> None:
    for data in (segment("PA", b"hello"), udp(b"x"), ip(1, b"\x03")):
        for end in range(len(data)):
            told(data[:end])
