"""Packets as bytes, told apart and told in words."""

from __future__ import annotations

import struct

import pytest

from socklab.inside.packets import checksum, described, parse, with_checksum
from tests.inside.written import ip, segment, udp


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (udp(b"#REG"), 'UDP 4 bytes "#REG"'),
        (udp(b""), "UDP 0 bytes"),
        (udp(b"a\x00\x1b[2Jb"), 'UDP 7 bytes "a..[2Jb"'),
        (udp(b"x" * 30), f'UDP 30 bytes "{"x" * 24}…"'),
        (segment("S"), "TCP SYN"),
        (segment("SA"), "TCP SYN-ACK"),
        (segment("A"), "TCP ACK"),
        (segment("PA", b"hi"), 'TCP 2 bytes "hi"'),
        (segment("FA", b"bye"), 'TCP FIN 3 bytes "bye"'),
        (segment("R"), "TCP RST"),
        (ip(1, b"\x03\x03" + b"\0" * 6), "ICMP"),
        (ip(132, b""), "protocol 132"),
        (b"", "0 bytes"),
        (b"\x45" + b"\0" * 10, "11 bytes"),
        (b"\xf0" + b"\0" * 30, "31 bytes"),
    ],
)
def test_a_packet_in_words(data: bytes, words: str) -> None:
    assert described(data) == words


def test_fragments_are_told_by_their_place() -> None:
    """Only the first one has the ports."""
    whole = bytearray(udp(b"x" * 100))
    struct.pack_into("!H", whole, 6, 0x2000)
    later = bytearray(whole)
    struct.pack_into("!H", later, 6, 0x2000 | 1480 // 8)

    assert described(bytes(whole)) == "UDP first fragment"
    assert described(bytes(later)) == "UDP fragment from byte 1480 on"


def test_ipv6_with_and_without_a_fragment_header() -> None:
    body = struct.pack("!HHHH", 1000, 2000, 10, 0) + b"hi"
    addresses = b"\xfd" + b"\0" * 14 + b"\x01" + b"\xfd" + b"\0" * 14 + b"\x02"
    plain = struct.pack("!IHBB", 0x60000000, len(body), 17, 64) + addresses + body
    extra = struct.pack("!BBHI", 17, 0, 1, 7)
    first = struct.pack("!IHBB", 0x60000000, len(body) + 8, 44, 64) + addresses + extra + body

    assert described(plain) == 'UDP 2 bytes "hi"'
    assert described(first) == "UDP first fragment"
    packet = parse(plain)
    assert packet is not None
    assert (packet.dport, packet.length, packet.size) == (2000, 50, 2)


@pytest.mark.parametrize("data", [udp(b"hello"), udp(b"odd"), segment("PA", b"hello")])
def test_a_checksum_made_right_is_right(data: bytes) -> None:
    """The sum over the pseudo-header and all that follows is then zero (RFC 1071)."""
    packet = parse(data)
    assert packet is not None
    fixed = bytes(with_checksum(bytearray(data)))
    pseudo = packet.source + packet.target + struct.pack("!II", len(fixed) - 20, packet.protocol)

    assert checksum(pseudo + fixed[20:]) == 0


def test_no_packet_breaks_the_parser() -> None:
    """Whatever is cut off, and whatever its bytes say."""
    for data in (udp(b"hello"), segment("PA", b"hello")):
        for end in range(len(data)):
            parse(data[:end])
            described(data[:end])
        for place in range(len(data)):
            for value in (0, 0x60, 0xFF):
                broken = bytearray(data)
                broken[place] = value
                parse(bytes(broken))
                described(bytes(broken))
                with_checksum(broken)
