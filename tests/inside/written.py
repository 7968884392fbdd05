"""Packets written out by hand."""

from __future__ import annotations

import socket
import struct

FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def ip(protocol: int, payload: bytes, source: str = "10.71.0.3", target: str = "10.71.0.2") -> bytes:
    """RFC 791, section 3.1."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0) + addresses + payload
    )


def udp(data: bytes, sport: int = 1000, dport: int = 2000) -> bytes:
    """RFC 768."""
    return ip(17, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data)


def segment(
    flags: str, data: bytes = b"", seq: int = 0, ack: int = 0, window: int = 1000, turned: bool = False
) -> bytes:
    """RFC 9293, section 3.1; `turned`: from the server to the client."""
    bits = sum(FLAGS[each] for each in flags)
    ports = (2000, 1000) if turned else (1000, 2000)
    header = struct.pack("!HHIIBBHHH", *ports, seq, ack, 5 << 4, bits, window, 0, 0)
    ends = ("10.71.0.2", "10.71.0.3") if turned else ("10.71.0.3", "10.71.0.2")
    return ip(6, header + data, *ends)
