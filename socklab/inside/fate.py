"""The fate of packets on one directed link: dropped, held, doubled, damaged, or passed as they came. Pure.

It is a function of the link's key (made of seed and direction) and the packet's ordinal: how many packets the gate has seen in
this direction before. A retransmission is a packet like any other and shifts the ordinals behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from socklab.inside.packets import ACK, FIN, RST, SYN, parse

REORDER_LIMIT = 0.05  # seconds that a packet waits for the one that is to overtake it
RATE_QUEUE = 1000  # packets that wait for a slow link before more of them are lost
_MASK = (1 << 64) - 1
# What each random number of a packet is for.
_LOSS, _BURST, _JITTER, _DUPLICATE, _REORDER, _CORRUPT, _BIT = range(1, 8)


def chance(key: int, ordinal: int, use: int) -> float:
    """A number from 0 to 1 that only these three decide (splitmix64: Steele, Lea, Flood, OOPSLA 2014)."""
    z = (key + (ordinal * 8 + use) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


@dataclass
class Counts:
    """What became of the packets of a link, as far as the gate saw them."""

    seen: int = 0
    dropped: int = 0
    delayed: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    refused: int = 0
    held: float = 0.0
    """Seconds that packets were held, all together."""
    late: float = 0.0
    """Seconds by which the worst of them came later than it should."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value or name == "seen"}


@dataclass(slots=True)
class Fate:
    """What is to become of one packet. `due` is when it goes on (seconds, the clock of `decide`); None: never."""

    due: float | None
    by: str = ""
    """The fault that decided, where one did more than hold it."""
    twice: bool = False
    bit: int | None = None
    """Which bit of it is flipped."""
    silently: bool = False
    """The checksum is made to fit the damage."""
    swaps: bool = False
    """The next packet is to overtake it."""


class Picker:
    """Which packets are meant: those with these flags, with data, with these bytes in it; of these the nth, or each."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.nth: int | None = wanted.get("nth")
        self._match = bytes.fromhex(wanted["match"]) if "match" in wanted else None
        self._flags: str | None = wanted.get("flags")
        self._data = bool(wanted.get("data"))
        self.fitting = 0

    def picks(self, data: bytes) -> bool:
        """Whether this packet fits and, where nth is asked, is the nth that does."""
        if (self._match or self._flags or self._data) and not self._fits(data):
            return False
        self.fitting += 1
        return self.nth is None or self.fitting == self.nth

    def _fits(self, data: bytes) -> bool:
        packet = parse(data)
        if packet is None:
            return False
        if self._flags is not None and not has_flags(packet.flags, packet.size, self._flags):
            return False
        if self._data and not packet.size:
            return False
        return self._match is None or self._match in data[packet.body :]


def has_flags(flags: int, size: int, word: str) -> bool:
    """Whether a segment is what people call a SYN, SYN-ACK, FIN, RST, or a bare ACK."""
    match word:
        case "SYN":
            return bool(flags & SYN) and not flags & ACK
        case "SYN-ACK":
            return bool(flags & SYN) and bool(flags & ACK)
        case "FIN":
            return bool(flags & FIN)
        case "RST":
            return bool(flags & RST)
        case _:
            return bool(flags & ACK) and not flags & (SYN | FIN | RST) and not size


@dataclass
class Link:
    """One direction between two hosts. `faults` are those in force, by name, as `socklab.faults` writes them."""

    key: int
    faults: dict[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.ordinal = 0
        self._bad = False  # in a burst of losses
        self._last = 0.0  # when the last packet in order goes on
        self._free = 0.0  # when a slow link is free again
        self._leaving: deque[float] = deque()
        self._pickers: dict[str, Picker] = {}

    def put(self, faults: dict[str, Any]) -> None:
        """Put exactly these in force. What stays as it was goes on counting where it was."""
        wanted = {}
        for name, value in faults.items():
            for number, entry in enumerate(value) if name == "drop" else [(0, value.get("after"))]:
                if entry is not None:
                    wanted[f"{name} {number} {entry}"] = entry
        self._pickers = {k: self._pickers.get(k) or Picker(entry) for k, entry in wanted.items()}
        if "rate" not in faults:
            self._leaving.clear()
        self.faults = faults

    @property
    def whole_packets(self) -> bool:
        """Whether more than the headers is needed to decide, or to do, what is to be done."""
        return any(name in self.faults for name in ("drop", "duplicate", "corrupt")) or any(
            "after" in value for value in self.faults.values() if isinstance(value, dict)
        )

    def decide(self, now: float, data: bytes, size: int) -> Fate:
        """The fate of the next packet: `data` is what we have of it, `size` its whole length in bytes."""
        self.ordinal += 1
        counts = self.counts
        counts.seen += 1
        begun = {
            name: value
            for name, value in self.faults.items()
            if name == "drop" or self._begun(name, value, data)
        }
        if by := self._lost(begun, now, data):
            counts.dropped += 1
            return Fate(None, by)
        fate = Fate(self._due(begun, now, size))
        if "duplicate" in begun and self._falls(begun["duplicate"]["is"], _DUPLICATE):
            fate.twice, fate.by = True, "duplicate"
            counts.duplicated += 1
        if "corrupt" in begun and self._falls(begun["corrupt"]["is"], _CORRUPT):
            self._damage(fate, data, begun["corrupt"])
        if "reorder" in begun and self._falls(begun["reorder"]["is"], _REORDER):
            fate.swaps, fate.by = True, "reorder"
        return fate

    def _begun(self, name: str, value: dict[str, Any], data: bytes) -> bool:
        """A fault with `after` begins behind the packet that it names."""
        after = value.get("after")
        if not after:
            return True
        picker = self._pickers[f"{name} 0 {after}"]
        if picker.fitting >= (picker.nth or 1):
            return True
        picker.picks(data)
        return False

    def _falls(self, share: float, use: int) -> bool:
        return chance(self.key, self.ordinal, use) < share

    def _lost(self, faults: dict[str, Any], now: float, data: bytes) -> str:
        """By what it is lost, if it is."""
        if "cut" in faults:
            return "cut"
        # Each of them counts, also where another has taken the packet already.
        picked = [
            self._pickers[f"drop {number} {entry}"].picks(data)
            for number, entry in enumerate(faults.get("drop", ()))
        ]
        if any(picked):
            return "drop"
        if "loss" in faults and self._loses(faults["loss"]):
            return "loss"
        if "rate" in faults:
            while self._leaving and self._leaving[0] <= now:
                self._leaving.popleft()
            if len(self._leaving) >= faults["rate"].get("queue", RATE_QUEUE):
                return "rate"
        return ""

    def _loses(self, loss: dict[str, Any]) -> bool:
        """Alone, or in bursts (Gilbert, 1960: a good and a bad state, in the bad one all is lost)."""
        share, burst = loss["is"], loss.get("burst")
        if not burst or share >= 1:
            return self._falls(share, _LOSS)
        leaves = 1 / burst
        enters = min(share * leaves / (1 - share), 1.0)
        self._bad = not self._falls(leaves, _BURST) if self._bad else self._falls(enters, _BURST)
        return self._bad

    def _due(self, faults: dict[str, Any], now: float, size: int) -> float:
        due = now
        if rate := faults.get("rate"):
            self._free = max(self._free, now) + size * 8 / rate["is"]
            self._leaving.append(self._free)
            due = self._free
        if delay := faults.get("delay"):
            due += delay["is"]
            if jitter := delay.get("jitter"):
                due += jitter * (2 * chance(self.key, self.ordinal, _JITTER) - 1)
            if not delay.get("reordering"):
                due = max(due, self._last)
        self._last = max(due, self._last)
        return due

    def _damage(self, fate: Fate, data: bytes, corrupt: dict[str, Any]) -> None:
        """One bit of what the program sent, or of the transport's header where the checksum may tell."""
        packet = parse(data)
        if packet is None:
            return
        begin = packet.body if corrupt.get("silently") else packet.header
        bits = (len(data) - begin) * 8
        if bits > 0:
            fate.bit = begin * 8 + int(chance(self.key, self.ordinal, _BIT) * bits)
            fate.by, fate.silently = "corrupt", bool(corrupt.get("silently"))
            self.counts.corrupted += 1


def damaged(data: bytes, bit: int) -> bytearray:
    """The packet with one bit flipped."""
    result = bytearray(data)
    result[bit // 8] ^= 1 << (bit % 8)
    return result
