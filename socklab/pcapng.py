"""Packets and remarks as a pcapng file, which Wireshark, tshark and others open. Pure.

Source: draft-ietf-opsawg-pcapng (PCAP Now Generic). Times are nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_ETHERNET = 1
_END, _COMMENT = 0, 1
_APPLICATION, _NAME, _RESOLUTION, _FLAGS = 4, 2, 9, 2
_RECEIVED, _DROPPED = 4, 5


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode(errors="replace")[:65535])


def section(about: str) -> bytes:
    """The beginning of a file."""
    options = _text(_COMMENT, about) + _text(_APPLICATION, "socklab") + _option(_END, b"")
    return _block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


def interface(name: str, snaplen: int) -> bytes:
    """They count from 0 in the order in which they stand in the file."""
    options = _text(_NAME, name) + _option(_RESOLUTION, b"\x09") + _option(_END, b"")
    return _block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, snaplen) + options)


def packet(
    number: int, t: int, data: bytes, length: int, outbound: bool, comments: Iterable[str] = ()
) -> bytes:
    """One packet on an interface: `data` is what there is of its `length` bytes."""
    options = b"".join(_text(_COMMENT, comment) for comment in comments)
    options += _option(_FLAGS, struct.pack("<I", 2 if outbound else 1)) + _option(_END, b"")
    head = struct.pack("<IIIII", number, t >> 32, t & 0xFFFFFFFF, len(data), length)
    return _block(_PACKET, head + data + b"\0" * (-len(data) % 4) + options)


def statistics(number: int, t: int, received: int, dropped: int) -> bytes:
    """How many packets there were on an interface, and how many of them the capture itself missed."""
    options = _option(_RECEIVED, struct.pack("<Q", received)) + _option(_DROPPED, struct.pack("<Q", dropped))
    return _block(
        _STATISTICS, struct.pack("<III", number, t >> 32, t & 0xFFFFFFFF) + options + _option(_END, b"")
    )
