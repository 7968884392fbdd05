"""Network interfaces by rtnetlink(7), as far as a lab needs them: bridges, veth pairs, addresses.

A process for each `ip` command would cost more than all the rest of a node.
"""

from __future__ import annotations

import os
import socket
import struct

_NEWLINK, _GETLINK, _NEWADDR = 16, 18, 20
_REQUEST, _ACK, _CREATE, _EXCL = 1, 4, 0x400, 0x200
_IFNAME, _MASTER, _OPERSTATE, _LINKINFO, _NET_NS_FD = 3, 10, 16, 18, 28  # IFLA_*
_OPER_UP = 6  # IF_OPER_UP (RFC 2863)
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_SNOOPING = 23  # IFLA_BR_MCAST_SNOOPING
_ADDRESS, _LOCAL = 1, 2  # IFA_*
_NODAD = 2  # IFA_F_NODAD
_UP = 1  # IFF_UP


class Links:
    """The interfaces of the network namespace in which this object was made, wherever the process goes afterwards."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def add_bridge(self, name: str) -> None:
        """`ip link add NAME type bridge mcast_snooping 0`: it asks nobody for groups, so that what passes is the lab's own."""
        quiet = _attribute(_INFO_DATA, _attribute(_SNOOPING, b"\0"))
        info = _attribute(_LINKINFO, _attribute(_INFO_KIND, b"bridge") + quiet)
        self._ask(f"add bridge {name}", _NEWLINK, _CREATE | _EXCL, _link() + _named(name) + info)

    def add_veth(self, name: str, peer: str, namespace: int) -> None:
        """`ip link add NAME type veth peer name PEER netns NAMESPACE`; the namespace by its descriptor."""
        other = _link() + _named(peer) + _attribute(_NET_NS_FD, struct.pack("=i", namespace))
        info = _attribute(_INFO_KIND, b"veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        self._ask(
            f"add veth {name}",
            _NEWLINK,
            _CREATE | _EXCL,
            _link() + _named(name) + _attribute(_LINKINFO, info),
        )

    def up(self, index: int) -> None:
        """`ip link set up`"""
        self._ask("set link up", _NEWLINK, 0, _link(index, up=True))

    def enslave(self, index: int, bridge: int) -> None:
        """`ip link set master BRIDGE up`"""
        self._ask(
            "set master", _NEWLINK, 0, _link(index, up=True) + _attribute(_MASTER, struct.pack("=i", bridge))
        )

    def add_address(self, index: int, address: str) -> None:
        """`ip address add ADDRESS/16`, or for IPv6 /64 `nodad`: nobody is asked whether somebody has it already."""
        family, prefix, flags = (socket.AF_INET6, 64, _NODAD) if ":" in address else (socket.AF_INET, 16, 0)
        packed = socket.inet_pton(family, address)
        body = (
            struct.pack("=BBBBi", family, prefix, flags, 0, index)
            + _attribute(_LOCAL, packed)
            + _attribute(_ADDRESS, packed)
        )
        self._ask(f"add address {address}", _NEWADDR, _CREATE | _EXCL, body)

    def is_up(self, index: int) -> bool:
        """Whether an interface carries packets by now. Until the kernel has noticed that its other end is up too, which it may
        put off for a second, it drops what is sent (and a bridge port forwards nothing); asking makes newer kernels notice."""
        self._sequence += 1
        body = _link(index)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _GETLINK, _REQUEST, self._sequence, 0) + body)
        answer = self._socket.recv(65536)
        kind = struct.unpack_from("=IH", answer)[1]
        if kind != _NEWLINK:
            (error,) = struct.unpack_from("=i", answer, 16)
            raise OSError(-error, f"get link: {os.strerror(-error)}")
        offset = 16 + 16  # struct nlmsghdr, struct ifinfomsg
        while offset < len(answer):
            length, attribute = struct.unpack_from("=HH", answer, offset)
            if attribute == _OPERSTATE:
                return answer[offset + 4] == _OPER_UP
            offset += (length + 3) & ~3
        return False

    def _ask(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, self._sequence, 0)
        self._socket.send(header + body)
        answer = self._socket.recv(65536)
        (error,) = struct.unpack_from("=i", answer, 16)  # struct nlmsgerr; 0 is the acknowledgement
        if error:
            raise OSError(-error, f"{what}: {os.strerror(-error)}")


def _attribute(kind: int, data: bytes) -> bytes:
    """struct rtattr and its data, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _named(name: str) -> bytes:
    return _attribute(_IFNAME, name.encode() + b"\0")


def _link(index: int = 0, up: bool = False) -> bytes:
    """struct ifinfomsg"""
    return struct.pack("=BxHiII", 0, 0, index, _UP if up else 0, _UP if up else 0)
