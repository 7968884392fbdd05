"""The capture: every packet that some nodes send, and what TCP does with them.

Each packet stands in it once, on the interface that it leaves: seen at both ends it would look as if it were sent twice. Only what
comes from somebody else is taken where it arrives.

Packets are read from a ring that the kernel shares with us (packet(7), TPACKET_V2). Orders are JSON lines, answered with their `id`:

    {"id": 1, "do": "begin", "captured": [ADDRESS, …]}    whose packets are taken where they are sent
    {"id": 2, "do": "sync"}                               all that was on the wire by now has been told
    {"id": 3, "do": "count"}                              {"packets": {"node device": n}, "lost": n}

and on its own it tells {"event": "packets", "node": …, "device": …, "data": BASE64 of records, "t": …, "wall": …} (by both clocks, when it
told of them), {"event": "wire", …} of what TCP does, and {"event": "segment", …} of the first packets that carry something, or acknowledge a
SYN or a FIN.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from socklab.inside.orders import Orders
from socklab.inside.packets import TCP, UDP, Packet, described, parse
from socklab.inside.tcp import Watcher

RECORD = struct.Struct("<QIHBx")
"""Of each packet: time (ns since 1970), its length, how much of it follows, direction."""
IN, OUT = 1, 2
FRAME = 2048  # bytes of the ring for one packet, its headers included
RING = 16 << 20  # bytes: 8192 packets may wait for us, 0.4 s at 20,000 a second
BATCH = 256  # packets that are told at once
TOLD = 2_000  # packets with something in them whose moment is told, of one tap: enough to be looked at one by one

_BLOCK = 1 << 17
_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _V2, _IGNORE_OUTGOING = 263, 5, 6, 10, 1, 23
_ETH_P_ALL = 3
_KERNEL, _USER = 0, 1  # whose a frame is
_TO_US, _OUTGOING, _LOOPBACK = 0, 4, 772  # packet types; hardware type of `lo` (packet(7))
_IP = (0x0800, 0x86DD)
_SIOCETHTOOL = 0x8946
_SEGMENTATION = (0x1F, 0x22, 0x24)  # ETHTOOL_STSO, _SUFO, _SGSO (include/uapi/linux/ethtool.h)
_header = struct.Struct("=IIIHHII")  # struct tpacket2_hdr
_link = struct.Struct("=HHiHBB")  # struct sockaddr_ll, 32 bytes behind it


Interface = tuple[str, str]
"""Node and device, as they are told."""


class Tap:
    """Packets of some interfaces of the network namespace in which it is made, from that moment on."""

    def __init__(self, devices: Mapping[str, Interface], ports: bool = False) -> None:
        """`devices` says whose each device here is. `ports`: they are ports of a switch, where what a node sends comes in.

        Raises OSError. The kernel takes some 15 ms for one, and more to be rid of it: have few."""
        # Unbound it takes in whatever device there is; what came until the ring is there is gone.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        if ports or set(devices) == {"lo"}:
            # What a host sends comes in here; each packet once is enough.
            self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self.socket.setsockopt(_SOL_PACKET, _VERSION, _V2)
        request = struct.pack("=IIII", _BLOCK, RING // _BLOCK, FRAME, RING // FRAME)
        self.socket.setsockopt(_SOL_PACKET, _RX_RING, request)
        self.ring = mmap.mmap(self.socket.fileno(), RING, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.interfaces = {socket.if_nametoindex(device): whose for device, whose in devices.items()}
        self.ports = ports
        self.at = 0
        self.watcher = Watcher()
        self.told = 0
        self.lost = 0

    def read(self, captured: frozenset[bytes]) -> tuple[dict[Interface, list[bytes]], list[dict[str, Any]]]:
        """What has come: records of packets by their interface, and what TCP did.

        What comes from an address in `captured` is taken where it is sent."""
        records: dict[Interface, list[bytes]] = {}
        events: list[dict[str, Any]] = []
        ring = self.ring
        for _ in range(BATCH):
            place = self.at * FRAME
            status, length, snapped, start, _net, seconds, nanoseconds = _header.unpack_from(ring, place)
            if not status & _USER:
                break
            _family, protocol, index, hardware, kind, _ = _link.unpack_from(ring, place + 32)
            whose = self.interfaces.get(index)
            local = hardware == _LOOPBACK
            # What a host says to itself passes twice, on its way out and on its way in.
            if whose is not None and not (local and kind == _OUTGOING):
                sent = local or (kind == _OUTGOING) is not self.ports
                data = ring[place + start : place + start + snapped]
                t = seconds * 1_000_000_000 + nanoseconds
                found = None
                if socket.ntohs(protocol) in _IP:
                    found = self.watcher.see(data[14:])
                if sent or (kind == _TO_US and _sender(data) not in captured):
                    record = RECORD.pack(t, length, snapped, OUT if sent else IN)
                    records.setdefault(whose, []).append(record + data)
                    if found and found[1]:
                        events.append(_told(t, whose[0], *found, data[14:]))
                    elif sent and self.told < TOLD:
                        events += self.moment(t, whose[0], data[14:], found is not None)
            _header.pack_into(ring, place, _KERNEL, 0, 0, 0, 0, 0, 0)
            self.at = (self.at + 1) % (RING // FRAME)
        return records, events

    def moment(self, t: int, node: str, data: bytes, answers: bool) -> list[dict[str, Any]]:
        """When a packet left that has something in it, or `answers` a SYN or a FIN."""
        packet = parse(data)
        if packet is None or packet.protocol not in (TCP, UDP) or not packet.sport:
            return []
        if not packet.size and not answers:
            return []
        self.told += 1
        ends = {"from": _text(packet.source), "to": _text(packet.target)}
        ports = {"sport": packet.sport, "dport": packet.dport}
        return [
            {
                "event": "segment",
                "t": t,
                "node": node,
                **ends,
                **ports,
                "seq": packet.seq,
                "ack": packet.ack,
                "size": packet.size,
            }
        ]

    def count(self) -> int:
        """How many packets did not fit into the ring. The kernel's count begins anew each time that it is read."""
        _, dropped = struct.unpack("=II", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        self.lost += dropped
        return self.lost


def as_on_a_wire() -> None:
    """Let the devices of this network namespace cut what is sent into segments of a wire's size (ethtool(8): tso, gso off).

    The loopback stays as it is: with its segments of 64 KiB whole or not at all, a small window would stop a stream for 200 ms a time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for device in (name for _, name in socket.if_nameindex() if name != "lo"):
            for command in _SEGMENTATION:
                value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
                request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
                try:
                    fcntl.ioctl(control, _SIOCETHTOOL, request)
                except OSError:
                    pass  # this kind of device has none


def _sender(frame: bytes) -> bytes:
    """The IP address from which a frame comes; of ARP, too."""
    kind = int.from_bytes(frame[12:14], "big")
    at, length = {0x0800: (26, 4), 0x86DD: (22, 16), 0x0806: (28, 4)}.get(kind, (0, 0))
    return frame[at : at + length]


def _told(t: int, node: str, packet: Packet, words: list[str], data: bytes) -> dict[str, Any]:
    return {
        "event": "wire",
        "t": t,
        "node": node,
        "from": _text(packet.source),
        "to": _text(packet.target),
        "sport": packet.sport,
        "dport": packet.dport,
        "words": words,
        "seq": packet.seq,
        "ack": packet.ack,
        "window": packet.window,
        "what": described(data),
    }


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


class Capture:
    """Some taps, and the stream on which we tell of them."""

    def __init__(self, fd_in: int, fd_out: int, taps: Sequence[Tap]) -> None:
        self.orders = Orders(fd_in, fd_out, self)
        self.taps = taps
        self.packets: dict[str, int] = {}
        self.captured: frozenset[bytes] = frozenset()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.orders, select.POLLIN)
        by_descriptor = {tap.socket.fileno(): tap for tap in self.taps}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in by_descriptor:
                    self.tell(by_descriptor[descriptor])
                elif not self.orders.take():
                    return

    def tell(self, tap: Tap) -> bool:
        """What one tap has. Whether there was something."""
        records, events = tap.read(self.captured)
        for (node, device), packets in records.items():
            name = f"{node} {device}"
            self.packets[name] = self.packets.get(name, 0) + len(packets)
            data = base64.b64encode(b"".join(packets)).decode()
            clocks = {"t": time.monotonic_ns(), "wall": time.time_ns()}
            self.orders.say({"event": "packets", "node": node, "device": device, "data": data, **clocks})
        # The other clock is the one by which everything else is told.
        apart = time.monotonic_ns() - time.time_ns() if events else 0
        for event in events:
            self.orders.say({**event, "t": event["t"] + apart})
        return bool(records)

    def do_begin(self, order: dict[str, Any]) -> dict[str, Any]:
        self.captured = frozenset(
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
            for text in order["captured"]
        )
        return {}

    def do_sync(self, order: dict[str, Any]) -> dict[str, Any]:
        for tap in self.taps:
            while self.tell(tap):
                pass
        return {}

    def do_count(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"packets": self.packets, "lost": sum(tap.count() for tap in self.taps)}


def serve(fd_in: int, fd_out: int, devices: Sequence[str] = ()) -> None:
    """Capture what this network namespace sends until the stream ends, under the name of no node.

    With `devices` only on these: who tells of packets by one must not listen there."""
    try:
        as_on_a_wire()
        tap = Tap({device: ("", device) for device in devices or [name for _, name in socket.if_nameindex()]})
    except OSError as exc:
        _refuse(fd_out, exc)
        return
    Capture(fd_in, fd_out, [tap]).run()


def serve_lab(
    fd: int,
    enter: Callable[[str | None], None],
    ports: Mapping[str, Interface],
    local: Sequence[str],
) -> None:
    """The same for a whole lab on one switch, which `enter(None)` enters; `ports` says whose each of its ports is.

    Of the nodes in `local` also what their programs say to one another."""
    try:
        for node in dict.fromkeys(node for node, _ in ports.values()):
            enter(node)
            as_on_a_wire()
        taps = []
        for node in local:
            enter(node)
            taps.append(Tap({"lo": (node, "lo")}))
        enter(None)
        taps.append(Tap(ports, ports=True))
    except OSError as exc:
        _refuse(fd, exc)
        return
    Capture(fd, fd, taps).run()


def _refuse(fd: int, exc: OSError) -> None:
    """The stream's last words."""
    os.write(fd, json.dumps({"event": "broken", "why": exc.strerror}).encode() + b"\n")
