"""Link faults held against packets that were counted at both ends: what was asked, what came of it.

On a link of its own, with packets of its own: two hosts, datagrams from one to the other, and a few the other way, which no fault
concerns. `socklab doctor --measure` prints it; the tests hold every fault and every pair of faults against it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from socklab import faults
from socklab.agents import Agent
from socklab.backends import Backend, Lab, Network, Node
from socklab.links import Links

PACKETS = 300
BACK = 20  # packets in the direction that has no fault
PORT = 9
SIZE = 64  # bytes of each datagram, of which 28 are headers
LATE = 0.25  # seconds that a packet may be late on a busy machine before the measurement says so

FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"cut": {}},
    "reject": {"reject": {}},
    "drop": {"drop": ({"nth": 7, "told": "the 7th"},)},
    "loss": {"loss": {"is": 0.1, "told": "10%"}},
    "delay": {"delay": {"is": 0.05, "jitter": 0.02, "reordering": True, "told": "50ms +- 20ms"}},
    "duplicate": {"duplicate": {"is": 0.1, "told": "10%"}},
    "reorder": {"reorder": {"is": 0.2, "told": "20%"}},
    "corrupt": {"corrupt": {"is": 0.1, "told": "10%"}},
    "rate": {"rate": {"is": 1e6, "told": "1000kbit"}},
}


@dataclass(frozen=True)
class Measured:
    """What came of one fault, or of several at once."""

    asked: str
    sent: int
    arrived: list[int]
    """The numbers of the packets that came, in the order in which they came."""
    waits: list[float]
    """Seconds on the way, of each that came."""
    lasted: float
    """Seconds from the first that was sent to the last that came."""
    answered: int
    """How many of the packets in the other direction came."""
    refused: bool
    """The sender was told by ICMP that nobody is there."""
    counts: Mapping[str, Any]
    """What the gate counted."""

    def __str__(self) -> str:
        lost = self.sent - len(set(self.arrived))
        twice = len(self.arrived) - len(set(self.arrived))
        swapped = sum(a > b for a, b in zip(self.arrived, self.arrived[1:], strict=False))
        median = sorted(self.waits)[len(self.waits) // 2] * 1e3 if self.waits else math.nan
        waited = f", {median:.1f} ms on the way" if self.waits else ""
        return f"{self.asked}: of {self.sent} packets {lost} lost, {twice} twice, {swapped} behind a later one{waited}"

    def wrong(self, put: faults.Faults) -> list[str]:
        """What is not as it was asked; nothing where all is."""
        counts = {
            name: self.counts.get(name, 0)
            for name in ("seen", "dropped", "duplicated", "corrupted", "refused")
        }
        found = []
        if self.answered != BACK:
            found.append(f"the other direction lost {BACK - self.answered} of {BACK} packets")
        if counts["seen"] != self.sent:
            found.append(f"the gate saw {counts['seen']} of {self.sent} packets")
        gone = 0 if "cut" in put or "reject" in put else self.sent - counts["dropped"] + counts["duplicated"]
        # A damaged packet does not get past its checksum, nor does a copy of it.
        at_least = gone - (2 if "duplicate" in put else 1) * counts["corrupted"]
        if not max(at_least, 0) <= len(self.arrived) <= gone - (counts["corrupted"] if gone else 0):
            found.append(f"{len(self.arrived)} came, and by the gate's counts it were {gone}")
        # Beside other faults none may be left: the kernel sends few of them a second (icmp(7), icmp_ratelimit).
        if list(put) == ["reject"] and not self.refused:
            found.append("the sender was not told of the refusal")
        for name, what in (("loss", "dropped"), ("duplicate", "duplicated"), ("corrupt", "corrupted")):
            through = self.sent - (counts["dropped"] if name != "loss" else 0)
            if name in put and "cut" not in put and not _fits(counts[what], through, put[name]["is"]):
                found.append(f"{name}: {counts[what]} of {through} packets, {put[name]['is']:.0%} asked")
        return found + self._wrong_times(put)

    def _wrong_times(self, put: faults.Faults) -> list[str]:
        found = []
        if self.waits and "delay" in put:
            least, most = (put["delay"]["is"] + way * put["delay"]["jitter"] for way in (-1, 1))
            slack = LATE + (math.inf if "rate" in put or "reorder" in put else 0)
            if min(self.waits) < least or max(self.waits) > most + slack:
                found.append(f"on the way for {min(self.waits) * 1e3:.1f} to {max(self.waits) * 1e3:.1f} ms")
        if self.waits and "rate" in put:
            through = max(self.arrived) - self.counts.get("dropped", 0)
            least = through * SIZE * 8 / put["rate"]["is"] * 0.9
            if self.lasted < least:
                found.append(f"all of it came within {self.lasted:.3f} s, {least:.3f} s is the rate")
        if "reorder" in put and self.arrived == sorted(self.arrived) and len(self.arrived) > PACKETS / 4:
            found.append("none was overtaken")
        return found


def _fits(count: int, of: int, share: float) -> bool:
    """Within five standard deviations of what chance makes of it."""
    return abs(count - of * share) <= 5 * math.sqrt(of * share * (1 - share)) + 2


async def measure(backend: Backend, cases: Sequence[faults.Faults], seed: int = 1) -> list[Measured]:
    """Measure each of these, one after another, on a lab of two hosts, one direction and the other in turn. Raises LabError."""
    nodes = [Node("here", ("measured",)), Node("there", ("measured",))]
    lab = await backend.lab([Network("measured")], nodes)
    ends: dict[str, _End] = {}
    links = Links(lab, nodes, {"here": "here", "there": "there"}, seed, lambda _: None)
    try:
        both = (("here", "there"), ("there", "here"))
        await links.prepare(
            (pair, name, _one(settings)) for pair in both for put in cases for name, settings in put.items()
        )
        for node in nodes:
            ends[node.name] = await _End.open(lab, node.name)
        return [await _measure(lab, links, ends, put, both[number % 2]) for number, put in enumerate(cases)]
    finally:
        for end in ends.values():
            end.agent.close()
        links.close()
        await lab.stop()


async def _measure(
    lab: Lab, links: Links, ends: Mapping[str, _End], put: faults.Faults, pair: faults.Pair
) -> Measured:
    here, there = (ends[name] for name in pair)
    link = links.told(pair)
    before = (await links.counts()).get(link, {})
    await links.change(lambda _: {pair: put})
    here.forget()
    there.forget()
    back, address = ([lab.address(name), PORT] for name in pair)
    await asyncio.gather(here.send(address, PACKETS), there.send(back, BACK))
    await there.settle(PACKETS)
    await here.settle(BACK)
    after = (await links.counts())[link]
    await links.change(lambda _: {})
    counts = {
        name: value - before.get(name, 0) for name, value in after.items() if isinstance(value, int | float)
    }
    came = [(number, t) for number, t in there.came]
    return Measured(
        f"{link} {faults.told(put)}",
        PACKETS,
        [number for number, _ in came],
        [(t - here.said[number]) / 1e9 for number, t in came if number in here.said],
        (max(t for _, t in came) - here.said[0]) / 1e9 if came else 0.0,
        len({number for number, _ in here.came}),
        here.refused,
        counts,
    )


def _one(settings: Any) -> Any:
    return settings[0] if isinstance(settings, tuple) else settings


class _End:
    """One end of the measured link: a datagram socket, what it said and what came to it."""

    def __init__(self) -> None:
        self.agent: Agent
        self.came: list[tuple[int, int]] = []
        self.said: dict[int, int] = {}
        self.refused = False
        self._event = asyncio.Event()

    @classmethod
    async def open(cls, lab: Lab, node: str) -> _End:
        end = cls()
        end.agent = Agent(node, await lab.inside(node, "agent"), end._heard)
        await end.agent.ask(
            "open", client="end", kind="udp", bind=["0.0.0.0", PORT], to=[lab.address(node), PORT]
        )
        return end

    def forget(self) -> None:
        self.came, self.said, self.refused = [], {}, False

    def _heard(self, message: dict[str, Any]) -> None:
        if message["event"] == "received":
            number = message.get("text", "")[:6]
            if number.isdigit():
                self.came.append((int(number), message["t"]))
        elif message["event"] == "error":
            self.refused = True
        self._event.set()

    async def send(self, to: list[Any], packets: int) -> None:
        """One at a time, so that each has its own moment."""
        for number in range(packets):
            text = f"{number:06}".ljust(SIZE - 28, ".")
            answer = await self.agent.ask("send", client="end", to=to, chunks=[{"text": text}])
            self.said[number] = answer["t"]

    async def settle(self, wanted: int) -> None:
        """Until all have come, or nothing more comes."""
        while len({number for number, _ in self.came}) < wanted:
            self._event.clear()
            try:
                async with asyncio.timeout(0.4 if self.came else 0.25):
                    await self._event.wait()
            except TimeoutError:
                return


def cases() -> list[dict[str, Any]]:
    """Every fault in either direction, and every pair of faults."""
    names = list(FAULTS)
    alone = [FAULTS[name] for name in names]
    pairs = [{**FAULTS[a], **FAULTS[b]} for i, a in enumerate(names) for b in names[i + 1 :]]
    return alone + alone + pairs  # they are odd in number, so each of them comes to either direction
