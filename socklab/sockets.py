"""The kernel's own list of a node's sockets, as /proc/net/tcp and its siblings show it (proc(5), "net/tcp").

Reading it touches no socket: a probe by connecting would spend a connection of the server under test, a UDP probe would
register a ghost.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STATES = {
    0x01: "ESTABLISHED",
    0x02: "SYN_SENT",
    0x03: "SYN_RECV",
    0x04: "FIN_WAIT1",
    0x05: "FIN_WAIT2",
    0x06: "TIME_WAIT",
    0x07: "CLOSE",
    0x08: "CLOSE_WAIT",
    0x09: "LAST_ACK",
    0x0A: "LISTEN",
    0x0B: "CLOSING",
    0x0C: "NEW_SYN_RECV",
}
GONE = "gone"
_UNIX_LISTENING = 0x10000  # __SO_ACCEPTCON in /proc/net/unix


@dataclass(frozen=True)
class Socket:
    """One row. For a listening TCP socket `rx_queue` is the number of connections that wait for accept(), `tx_queue` the backlog
    given to listen(), where sock_diag(7) tells it.

    For `unix`, the path stands in `local` (abstract ones begin with @), and the port is 0.
    """

    protocol: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    state: str
    tx_queue: int
    rx_queue: int
    inode: int
    v6only: bool = False
    """A listening socket of IPv6 that takes no IPv4 (ipv6(7), IPV6_V6ONLY); only sock_diag(7) tells."""


@dataclass(frozen=True)
class SocketTable:
    """All sockets of one network namespace at one moment."""

    rows: tuple[Socket, ...]

    def listening(self, protocol: str, port: int) -> list[Socket]:
        """The sockets that serve a port: TCP in LISTEN, UDP bound and unconnected (v4 or v6)."""
        wanted = "LISTEN" if protocol == "tcp" else "CLOSE"
        return [r for r in self.rows if r.protocol == protocol and r.local_port == port and r.state == wanted]

    def listening_unix(self, path: str) -> list[Socket]:
        """The AF_UNIX sockets that listen on a path (`@name`: the abstract namespace)."""
        return [r for r in self.rows if r.protocol == "unix" and r.local == path and r.state == "LISTEN"]

    @classmethod
    def parse(cls, tables: Iterable[tuple[str, str]]) -> SocketTable:
        """From pairs of (protocol, the text of /proc/net/{tcp,tcp6,udp,udp6,unix}); protocol is tcp, udp or unix."""
        return cls(tuple(row for protocol, text in tables for row in _rows(protocol, text)))


def fits(wanted: Mapping[str, str], seen: Mapping[str, Any]) -> bool:
    """Whether a socket is as a scenario wants it: its state, and its queues as numbers or bounds (`> 0`)."""
    for name, value in wanted.items():
        if name == "state":
            if seen["state"] != value:
                return False
        elif not _holds(value, int(seen.get(name, 0))) or seen["state"] == GONE:
            return False
    return True


def _holds(bound: str, number: int) -> bool:
    sign = bound.rstrip("0123456789").strip()
    limit = int(bound.lstrip("<>= "))
    return {
        "": number == limit,
        ">": number > limit,
        "<": number < limit,
        ">=": number >= limit,
        "<=": number <= limit,
    }[sign]


def as_seen(rows: Iterable[Socket]) -> dict[str, Any]:
    """What is told of one socket; of none: that it is gone."""
    row = next(iter(rows), None)
    if row is None:
        return {"state": GONE}
    if row.state == "LISTEN":
        backlog = {"backlog": row.tx_queue} if row.tx_queue else {}
        return {"state": row.state, "accept-queue": row.rx_queue, **backlog}
    return {"state": row.state, "send-q": row.tx_queue, "recv-q": row.rx_queue}


def told(seen: Mapping[str, Any]) -> str:
    """`ESTABLISHED, send-q 4096`"""
    queues = [
        f"{name} {value}" for name, value in seen.items() if name.endswith(("-q", "-queue")) and value != 0
    ]
    return ", ".join([str(seen["state"]), *queues] if "state" in seen else queues)


def told_bounds(wanted: Mapping[str, str]) -> str:
    """`ESTABLISHED with send-q > 0`"""
    state = wanted.get("state", "")
    queues = " and ".join(f"{name} {value}" for name, value in wanted.items() if name != "state")
    return f"{state} with {queues}" if state and queues else state or f"with {queues}"


def _rows(protocol: str, text: str) -> Iterator[Socket]:
    lines = text.splitlines()[1:]
    for line in lines:
        column = line.split()
        if protocol == "unix":
            if len(column) >= 8:  # nameless sockets have no path column
                state = "LISTEN" if int(column[3], 16) & _UNIX_LISTENING else "ESTABLISHED"
                yield Socket("unix", column[7], 0, "", 0, state, 0, 0, int(column[6]))
            continue
        local, local_port = _endpoint(column[1])
        remote, remote_port = _endpoint(column[2])
        tx, rx = (int(part, 16) for part in column[4].split(":"))
        state = STATES.get(int(column[3], 16), column[3])
        yield Socket(protocol, local, local_port, remote, remote_port, state, tx, rx, int(column[9]))


def _endpoint(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    raw = bytes.fromhex(address)
    # The kernel prints each 32-bit word as a number of this machine's byte order.
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return str(ipaddress.ip_address(raw)), int(port, 16)
