"""Listening TCP sockets by sock_diag(7): what /proc/net/tcp tells too, but there the kernel walks all connections of the machine.

The netlink socket belongs to the network namespace in which it was made, whoever asks through it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from socklab.sockets import STATES, Socket

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_REQUEST, _DUMP = 1, 0x300
_V6ONLY = 11  # INET_DIAG_SKV6ONLY, which comes with each listening socket of IPv6
_LISTEN = 1 << 10  # the bit of TCP_LISTEN
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg


def listening(diagnosis: socket.socket) -> tuple[Socket, ...]:
    """All listening TCP sockets of the namespace, IPv4 and IPv6. Raises OSError where the kernel lacks inet_diag."""
    return tuple(row for family in (socket.AF_INET, socket.AF_INET6) for row in _dump(diagnosis, family))


def _dump(diagnosis: socket.socket, family: int) -> list[Socket]:
    body = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, _LISTEN)
    diagnosis.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body)
    rows: list[Socket] = []
    while True:
        data = diagnosis.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            if kind == _DONE:
                return rows
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", data, offset + _HEADER.size)
                raise OSError(-number, "sock_diag")
            rows.append(_row(family, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3


def _row(family: int, data: bytes) -> Socket:
    _, state, _, _, port, _, source, _, _, _, _, waiting, backlog, _, inode = _MESSAGE.unpack_from(data)
    address = ipaddress.ip_address(source[:4] if family == socket.AF_INET else source)
    port_, v6only = int.from_bytes(port, "big"), _attribute(data, _V6ONLY) == b"\1"
    return Socket("tcp", str(address), port_, "", 0, STATES[state], backlog, waiting, inode, v6only)


def _attribute(data: bytes, wanted: int) -> bytes:
    """An attribute behind the message (netlink(7)); empty where there is none."""
    at = _MESSAGE.size
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if kind == wanted:
            return data[at + 4 : at + length]
        at += max((length + 3) & ~3, 4)
    return b""


def open_here() -> socket.socket:
    """A netlink socket for the namespace that this process is in."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
