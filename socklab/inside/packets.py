"""IP packets as bytes: whose they are, what TCP says in them, and in a few words what they are. Pure.

RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768 (UDP).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
_FRAGMENT = 44
_NAMES = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMP6: "ICMP"}


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet, or as much of it as there is."""

    source: bytes
    target: bytes
    protocol: int
    length: int
    """Bytes of the whole packet, by its header."""
    fragment: int = 0
    """Where in the whole datagram this one begins, in bytes."""
    more: bool = False
    """More fragments follow."""
    sport: int = 0
    dport: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    window: int = 0
    header: int = 0
    """Where the transport's header begins."""
    body: int = 0
    """Where what the program sent begins."""
    size: int = 0
    """Bytes of what the program sent."""


def parse(data: bytes) -> Packet | None:
    """The packet, or None for what is no IP packet. A packet that is cut short tells what it can."""
    if len(data) < 20:
        return None
    version = data[0] >> 4
    fragment, more = 0, False
    if version == 4:
        header = (data[0] & 15) * 4
        length, _, offset, _, protocol = struct.unpack_from("!HHHBB", data, 2)
        fragment, more = (offset & 0x1FFF) * 8, bool(offset & 0x2000)
        source, target = data[12:16], data[16:20]
    elif version == 6 and len(data) >= 40:
        header = 40
        length, protocol = struct.unpack_from("!HB", data, 4)
        length += 40
        source, target = data[8:24], data[24:40]
        while protocol in (*_EXTENSIONS, _FRAGMENT) and len(data) >= header + 8:
            following, extra = data[header], data[header + 1]
            if protocol == _FRAGMENT:
                (offset,) = struct.unpack_from("!H", data, header + 2)
                fragment, more, extra = offset & 0xFFF8, bool(offset & 1), 0
            header += (extra + 1) * 8
            protocol = following
    else:
        return None
    if fragment:
        return Packet(
            source,
            target,
            protocol,
            length,
            fragment,
            more,
            0,
            0,
            0,
            0,
            0,
            0,
            header,
            header,
            length - header,
        )
    if protocol == TCP and len(data) >= header + 20:
        sport, dport, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", data, header)
        body = header + (offset >> 4) * 4
        return Packet(
            source,
            target,
            protocol,
            length,
            0,
            more,
            sport,
            dport,
            flags,
            seq,
            ack,
            window,
            header,
            body,
            max(length - body, 0),
        )
    if protocol == UDP and len(data) >= header + 8:
        sport, dport = struct.unpack_from("!HH", data, header)
        body = header + 8
        return Packet(
            source, target, protocol, length, 0, more, sport, dport, 0, 0, 0, 0, header, body, length - body
        )
    return Packet(
        source, target, protocol, length, fragment, more, 0, 0, 0, 0, 0, 0, header, header, length - header
    )


def flags_of(flags: int) -> str:
    """SYN, SYN-ACK, FIN, RST or ACK: the one word by which people name a segment; empty for none of them."""
    if flags & RST:
        return "RST"
    if flags & SYN:
        return "SYN-ACK" if flags & ACK else "SYN"
    if flags & FIN:
        return "FIN"
    return "ACK" if flags & ACK else ""


def described(data: bytes) -> str:
    """A packet in a few words: `TCP SYN`, `TCP 5 bytes "hello"`, `UDP 4 bytes "#REG"`."""
    packet = parse(data)
    if packet is None:
        return f"{len(data)} bytes"
    name = _NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    if packet.fragment:
        return f"{name} fragment from byte {packet.fragment} on"
    if packet.more:
        return f"{name} first fragment"
    words = [name]
    if packet.protocol == TCP:
        said = flags_of(packet.flags)
        if said != "ACK" or not packet.size:
            words.append(said)
    if packet.size and packet.protocol in (TCP, UDP):
        text = data[packet.body : packet.body + 24].decode(errors="replace")
        safe = "".join(c if c.isprintable() else "." for c in text)
        words.append(f'{packet.size} bytes "{safe}{"…" if packet.size > 24 else ""}"')
    elif packet.protocol == UDP:
        words.append("0 bytes")
    return " ".join(word for word in words if word)


def checksum(data: bytes, start: int = 0) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_checksum(data: bytearray) -> bytearray:
    """The packet with the checksum of its transport made right again."""
    packet = parse(bytes(data))
    if packet is None or packet.fragment or packet.more or packet.protocol not in (TCP, UDP):
        return data
    place = packet.header + (16 if packet.protocol == TCP else 6)
    data[place : place + 2] = b"\0\0"
    segment = bytes(data[packet.header : packet.length])
    pseudo = packet.source + packet.target + struct.pack("!II", len(segment), packet.protocol)
    value = checksum(pseudo + segment)
    if packet.protocol == UDP:
        value = value or 0xFFFF  # zero would say that there is none
    struct.pack_into("!H", data, place, value)
    return data
