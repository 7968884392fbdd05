"""The states of both ends of a TCP connection, as its segments show them (RFC 9293, figure 5). Pure.

What an end sends tells what has come to it: who acknowledges a FIN has it. Only where an end says nothing more (the last ACK of the
opening, and of the end) it is told that a segment has arrived. States are named as the kernel does (proc(5), "net/tcp").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from socklab.sockets import GONE

_HALF = 1 << 31
_STAGES = (
    ("SYN_SENT",),
    ("SYN_RECV",),
    ("ESTABLISHED",),
    ("FIN_WAIT1", "CLOSE_WAIT"),
    ("FIN_WAIT2", "CLOSING", "LAST_ACK"),
    ("TIME_WAIT",),
    (GONE,),
)
_STAGE = {state: n for n, states in enumerate(_STAGES) for state in states}
"""How far a connection has come; it never goes back."""
_RESET = {state: GONE for states in _STAGES[:-2] for state in states}
"""What an RST does; in TIME_WAIT none is waited for."""


class TCP:
    """One connection. Its ends are called True, which opened it, and False."""

    def __init__(self, at: int, seq: int) -> None:
        """From the SYN on, sent at `at` with this sequence number."""
        self.seq = seq
        self._seen: dict[bool, list[tuple[int, str]]] = {True: [(at, "SYN_SENT")], False: []}
        """As segments show it."""
        self._told: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
        """As the kernel says, whose word may come before that of segments which were earlier."""
        self._fin: dict[bool, int] = {}
        """The sequence number behind an end's FIN."""
        self._acked: dict[bool, int] = {}
        """What an end has acknowledged."""

    def states(self, end: bool) -> list[tuple[int, str]]:
        """When an end came into which state, in the order of time."""
        states: list[tuple[int, str]] = []
        stage = -1
        for at, state in sorted([*self._seen[end], *self._told[end]], key=lambda each: each[0]):
            if _STAGE.get(state, -1) > stage:
                stage = _STAGE[state]
                states.append((at, state))
        return states

    def sent(self, end: bool, at: int, words: Collection[str], seq: int, ack: int, size: int) -> None:
        """An end sent a segment: `words` as socklab/inside/tcp.py has them, `size` bytes in it."""
        if "SYN" in words:
            return
        if "SYN-ACK" in words:
            self._go(end, at, {"": "SYN_RECV", "SYN_SENT": "SYN_RECV"})
            return
        if "RST" in words:
            self._go(end, at, _RESET)
            return
        self._go(end, at, {"SYN_SENT": "ESTABLISHED", "SYN_RECV": "ESTABLISHED"})
        self._acked[end] = ack
        if self._has(not end, ack):
            closing = "TIME_WAIT" if self._has(end, self._acked.get(not end)) else "CLOSING"
            self._go(end, at, {"ESTABLISHED": "CLOSE_WAIT", "FIN_WAIT1": closing, "FIN_WAIT2": "TIME_WAIT"})
        if "FIN" in words:
            self._fin[end] = (seq + size + 1) % (1 << 32)
            self._go(end, at, {"ESTABLISHED": "FIN_WAIT1", "CLOSE_WAIT": "LAST_ACK"})

    def came(self, end: bool, at: int, words: Collection[str], ack: int) -> None:
        """A segment that an end sent has come to the other."""
        other = not end
        if "RST" in words:
            self._go(other, at, _RESET)
        elif "SYN" not in words and "SYN-ACK" not in words:
            self._go(other, at, {"SYN_RECV": "ESTABLISHED"})
            if self._has(other, ack):
                self._go(other, at, {"FIN_WAIT1": "FIN_WAIT2", "CLOSING": "TIME_WAIT", "LAST_ACK": GONE})

    def told(self, end: bool, at: int, state: str) -> None:
        """The kernel says what state an end is in."""
        self._told[end].append((at, state))

    def _go(self, end: bool, at: int, ways: Mapping[str, str]) -> None:
        seen = self._seen[end]
        if (state := ways.get(seen[-1][1] if seen else "")) is not None:
            seen.append((max(at, seen[-1][0]) if seen else at, state))

    def _has(self, end: bool, ack: int | None) -> bool:
        """Whether this acknowledges an end's FIN."""
        return ack is not None and end in self._fin and (ack - self._fin[end]) % (1 << 32) < _HALF
