"""What TCP itself does, read from packets as they pass: connections that begin and end, what is sent again, windows that close. Pure.

Each host sees what it sends and what comes to it; what it tells of is what it sends. RFC 9293; keepalive probes: RFC 9293, section 3.8.4.
"""

from __future__ import annotations

from socklab.inside.packets import ACK, FIN, ICMP, ICMP6, RST, SYN, TCP, Packet, flags_of, parse

_HALF = 1 << 31
_UNREACHABLE = {ICMP: 3, ICMP6: 1}


def _behind(a: int, b: int) -> bool:
    """Whether a sequence number is before another (they wrap: RFC 9293, section 3.4)."""
    return a != b and (b - a) & 0xFFFFFFFF < _HALF


class _Direction:
    """What one end of a connection has sent so far."""

    __slots__ = ("next", "owed", "window")

    def __init__(self, next_: int) -> None:
        self.next = next_  # the sequence number behind all that was sent
        self.owed: int | None = None  # behind its SYN or FIN, until the other end has acknowledged it
        self.window = -1


class Watcher:
    """What one host sees of its connections."""

    def __init__(self) -> None:
        self._directions: dict[tuple[bytes, int, bytes, int], _Direction] = {}

    def see(self, data: bytes) -> tuple[Packet, list[str]] | None:
        """What is worth telling of a packet: SYN, SYN-ACK, FIN, RST, retransmission, keepalive, zero-window, window-open,
        window-probe, unreachable; no word: it is the ACK of a SYN or a FIN. None where it is nothing of these."""
        packet = parse(data)
        if packet is None or packet.fragment:
            return None
        if packet.protocol != TCP:
            at = packet.header
            if _UNREACHABLE.get(packet.protocol) == (data[at] if at < len(data) else -1):
                return packet, ["unreachable"]
            return None
        if not packet.body:
            return None
        answers = self._answers(packet)
        words = self._segment(packet)
        return (packet, words) if words or answers else None

    def _answers(self, packet: Packet) -> bool:
        """Whether it is the first to acknowledge what began or ended the other end's stream."""
        theirs = self._directions.get((packet.target, packet.dport, packet.source, packet.sport))
        if (
            theirs is None
            or theirs.owed is None
            or not packet.flags & ACK
            or _behind(packet.ack, theirs.owed)
        ):
            return False
        theirs.owed = None
        return True

    def _segment(self, packet: Packet) -> list[str]:
        key = (packet.source, packet.sport, packet.target, packet.dport)
        flags = packet.flags
        length = packet.size + bool(flags & SYN) + bool(flags & FIN)
        end = (packet.seq + length) & 0xFFFFFFFF
        words = [word] if (word := flags_of(flags)) != "ACK" and word else []
        mine = self._directions.get(key)
        if flags & RST:
            self._directions.pop(key, None)
            return words
        if mine is None or (flags & SYN and packet.seq != (mine.next - 1) & 0xFFFFFFFF):
            mine = self._directions[key] = _Direction(end)
        elif self._probes(packet, mine, length):
            theirs = self._directions.get((packet.target, packet.dport, packet.source, packet.sport))
            words.append("window-probe" if theirs is not None and theirs.window == 0 else "keepalive")
        elif length and _behind(packet.seq, mine.next):
            words.append("retransmission")
        if _behind(mine.next, end):
            mine.next = end
        if flags & (SYN | FIN) and "retransmission" not in words:
            mine.owed = end
        if flags & ACK and not flags & SYN:
            if packet.window == 0 and mine.window != 0:
                words.append("zero-window")
            elif packet.window and mine.window == 0:
                words.append("window-open")
            mine.window = packet.window
        return words

    @staticmethod
    def _probes(packet: Packet, mine: _Direction, length: int) -> bool:
        """A probe repeats the byte before the next one, or says nothing at its place: whoever gets it must answer."""
        before = packet.seq == (mine.next - 1) & 0xFFFFFFFF
        return before and not packet.flags & (SYN | FIN) and (length == 0 or length == 1 == packet.size)
