"""The gate: what becomes of the packets that come to a node, each direction between two hosts by itself.

It acts at the receiver. Silence and refusal are rules of the kernel; for all else a rule marks the packets of a link, and marked
packets wait in an NFQUEUE for our verdict. A link without such a fault is not marked: its packets never leave the kernel. When
this program dies, packets pass (queue bypass).

Orders are JSON lines, answered with their `id`:

    {"id": 1, "do": "probe"}                    what works here, {"silence": "", "queue": "why not", …}, and our pid
    {"id": 2, "do": "put", "rules": TEXT, "links": {MARK: {"name": …, "key": …, "faults": {…}}}}
    {"id": 3, "do": "count"}                    {"links": {name: counts}, "lost": packets that the gate itself lost}

and on its own it tells {"event": "packet", …} of each packet that was lost, doubled, damaged, or overtaken,
and of the first that were delayed, at the moment at which they go on.
"""

from __future__ import annotations

import heapq
import os
import re
import select
import socket
import time
from typing import Any

from socklab.inside.fate import REORDER_LIMIT, Counts, Link, damaged
from socklab.inside.netfilter import Held, Log, Queue, Tables, queue_rule
from socklab.inside.orders import Orders
from socklab.inside.packets import described, parse, with_checksum

MARK = 0x5AB10000  # of packets that are ours to judge; the lower half tells the link
_MARKS = 0xFFFF0000
QUEUE, GROUP = 0, 71
DELAYS = 1_000  # of one link whose end is told
TOLD = 10_000  # packets of one link that are told one by one; then they are only counted
_RAW = 255  # IPPROTO_RAW: the header is ours (raw(7))
_IPV6 = 0x86DD  # ETH_P_IPV6
_HERE = bytes(6)  # the loopback's own hardware address; left out, it is whatever was in memory

_PROBES = {
    "silence": "type filter hook prerouting priority -450; policy accept; ip saddr 192.0.2.1 counter drop",
    "refusal": "type filter hook input priority -301; policy accept; ip saddr 192.0.2.1 reject with icmp type port-unreachable",
    "away": 'type filter hook egress device "lo" priority 0; policy accept; ip daddr 192.0.2.1 drop',
}
# Before the kernel puts fragments together (priority -400), which it does where it tracks connections.
_HOOK = f"""table inet socklab_gate
delete table inet socklab_gate
table inet socklab_gate {{
  chain gate {{
    type filter hook prerouting priority -449; policy accept;
    meta mark & {_MARKS:#x} == {MARK:#x} queue num {QUEUE} bypass
  }}
}}
"""
_HOOK_WITHOUT_QUEUE = f"""table FAMILY socklab_gate
delete table FAMILY socklab_gate
table FAMILY socklab_gate {{
  chain held {{
  }}
  chain gate {{
    type filter hook prerouting priority -449; policy accept;
    meta mark & {_MARKS:#x} == {MARK:#x} jump held
  }}
}}
"""
_COUNTED = re.compile(r'counter packets (\d+) .*comment "(cut|reject|refused) (\d+)"')
_LOGGED = re.compile(r'log prefix "[^"]*" group \d+ snaplen \d+ queue-threshold \d+ ')


class _Packet:
    """A packet in our hands, and what is to be done with it when it is due."""

    __slots__ = ("copy", "data", "due", "gone", "held", "link", "mark", "ordinal")

    def __init__(self, held: Held, mark: int, link: Link, due: float) -> None:
        self.held = held
        self.mark = mark
        self.link = link
        self.ordinal = link.ordinal
        self.due = due
        self.data = b""  # instead of what came
        self.copy = b""  # goes on beside it
        self.gone = False


class Gate:
    """One node's gate, from the beginning of its stream to the end."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self.orders = Orders(fd_in, fd_out, self)
        self.tables = Tables()
        self.queue: Queue | None = None
        self.log: Log | None = None
        self.links: dict[int, Link] = {}
        self.names: dict[int, str] = {}
        self.rules_before: dict[tuple[str, int], int] = {}
        """What rules that are gone have counted."""
        self.told: dict[int, int] = {}
        self.heap: list[tuple[float, int, _Packet]] = []
        self.pushed = 0
        self.to_be_overtaken: dict[int, _Packet] = {}
        self.injector: dict[bool, socket.socket] = {}

    def run(self) -> None:
        while True:
            wait = max(self.heap[0][0] - time.monotonic(), 0.0) if self.heap else None
            sources: list[Any] = [self.orders, *(s for s in (self.queue, self.log) if s is not None)]
            ready, _, _ = select.select(sources, [], [], wait)
            if self.queue in ready:
                self.judge()
            if self.heap:
                self.let_go(time.monotonic())
            if self.log in ready:
                self.dropped_by_rules()
            if self.orders in ready and not self.orders.take():
                return

    # orders

    def do_probe(self, order: dict[str, Any]) -> dict[str, Any]:
        can = {}
        for what, rule in _PROBES.items():
            table = f"{'netdev' if what == 'away' else 'inet'} socklab_probe"
            try:
                self.tables.run(
                    f"table {table} {{\n chain probe {{\n {rule}\n }}\n}}\ndelete table {table}\n"
                )
                can[what] = ""
            except OSError as exc:
                can[what] = str(exc.strerror)
        try:
            self.open_queue()
            can["queue"] = ""
        except OSError as exc:
            can["queue"] = str(exc.strerror)
        return {"can": can, "pid": os.getpid()}

    def do_put(self, order: dict[str, Any]) -> dict[str, Any]:
        wanted = {int(mark): link for mark, link in order["links"].items()}
        for mark, asked in wanted.items():
            if mark not in self.links:
                self.links[mark] = Link(asked["key"])
                self.names[mark] = asked["name"]
            self.links[mark].put(asked["faults"])
        if any(link.faults for link in self.links.values()):
            self.open_queue().copy_whole(any(link.whole_packets for link in self.links.values()))
        rules = order["rules"] if self.opened_log() else _LOGGED.sub("", order["rules"])
        for key, packets in self.counted_by_rules().items():
            self.rules_before[key] = self.rules_before.get(key, 0) + packets
        self.tables.run(rules)
        return {}

    def do_count(self, order: dict[str, Any]) -> dict[str, Any]:
        now = self.counted_by_rules()
        links = {}
        for mark, link in self.links.items():
            counts = Counts(**vars(link.counts))
            by_rules = {
                kind: self.rules_before.get((kind, mark), 0) + now.get((kind, mark), 0)
                for kind in ("cut", "reject", "refused")
            }
            counts.seen += by_rules["cut"] + by_rules["reject"]
            counts.dropped += by_rules["cut"]
            counts.refused += by_rules["reject"] + by_rules["refused"]
            links[self.names[mark]] = counts.to_json()
        return {"links": links, "lost": self.queue.lost() if self.queue is not None else 0}

    def open_queue(self) -> Queue:
        """Hang ourselves into the way of marked packets."""
        if self.queue is None:
            queue = Queue(QUEUE)
            try:
                self._hook()
            except OSError:
                queue.close()
                raise
            self.queue = queue
        return self.queue

    def _hook(self) -> None:
        try:
            self.tables.run(_HOOK)
        except OSError:
            for name, family in (("ip", socket.AF_INET), ("ip6", socket.AF_INET6)):
                self.tables.run(_HOOK_WITHOUT_QUEUE.replace("FAMILY", name))
                queue_rule(family, "socklab_gate", "held", QUEUE)

    def opened_log(self) -> bool:
        """Whether the kernel tells us what rules drop. Where it does not, they are only counted."""
        if self.log is None:
            try:
                self.log = Log(GROUP)
            except OSError:
                return False
        return True

    def counted_by_rules(self) -> dict[tuple[str, int], int]:
        """(cut, reject or, of packets that we had judged before, refused; mark) → packets, of the rules in force."""
        try:
            listed = self.tables.run("list table inet socklab\n")
        except OSError:
            return {}  # there are none yet
        found: dict[tuple[str, int], int] = {}
        for packets, kind, mark in _COUNTED.findall(listed):
            key = (kind, int(mark))
            found[key] = found.get(key, 0) + int(packets)
        return found

    # packets

    def judge(self) -> None:
        """Decide the fate of all packets that have come."""
        queue = self.queue
        assert queue is not None
        now = time.monotonic()
        for held in queue.packets():
            mark = held.mark & ~_MARKS
            link = self.links.get(mark)
            if link is None or not link.faults:
                queue.accept(held.id)  # healed while it was on its way here
                continue
            fate = link.decide(now, held.data, held.size)
            if fate.due is None:
                queue.drop(held.id)
                self.tell(mark, held.data, held.size, "dropped", fate.by, link.ordinal)
                continue
            packet = _Packet(held, mark, link, fate.due)
            if fate.bit is not None:
                changed = damaged(held.data, fate.bit)
                packet.data = bytes(with_checksum(changed) if fate.silently else changed)
                self.tell(mark, held.data, held.size, "corrupted", fate.by, link.ordinal)
            if fate.twice:
                packet.copy = packet.data or held.data
                self.tell(mark, held.data, held.size, "duplicated", fate.by, link.ordinal)
            overtaken = self.to_be_overtaken.pop(mark, None)
            if fate.swaps and overtaken is None:
                packet.due += REORDER_LIMIT
                self.to_be_overtaken[mark] = packet
            self.push(packet)
            if overtaken is not None and not overtaken.gone:
                overtaken.due = packet.due  # right behind this one
                link.counts.reordered += 1
                self.tell(
                    mark, overtaken.held.data, overtaken.held.size, "overtaken", "reorder", overtaken.ordinal
                )
                self.push(overtaken)
        self.let_go(now)

    def push(self, packet: _Packet) -> None:
        self.pushed += 1
        heapq.heappush(self.heap, (packet.due, self.pushed, packet))

    def let_go(self, now: float) -> None:
        """Let all go on whose time has come."""
        queue, heap = self.queue, self.heap
        assert queue is not None
        copies = []
        while heap and heap[0][0] <= now:
            _, _, packet = heapq.heappop(heap)
            if packet.gone:
                continue
            packet.gone = True
            queue.accept(packet.held.id, packet.data)
            counts, waited = packet.link.counts, now - packet.held.at
            if waited > 0:
                counts.delayed += 1
                counts.held += waited
                counts.late = max(counts.late, now - packet.due)
                if counts.delayed <= DELAYS:
                    self.tell(
                        packet.mark, packet.held.data, packet.held.size, "delayed", "delay", packet.ordinal
                    )
            if packet.copy:
                copies.append(packet.copy)
        queue.flush()
        for copy in copies:
            self.inject(copy)

    def inject(self, data: bytes) -> None:
        """A packet more, as if it had come from outside: to ourselves, and so by the loopback.

        IPv4 by a raw socket (raw(7)), for as a frame it would be a martian there. IPv6 as a frame (packet(7)): what a raw socket sends
        keeps the network namespace from going for a minute."""
        four = data[0] >> 4 == 4
        try:
            if self.injector.get(four) is None:
                self.injector[four] = (
                    socket.socket(socket.AF_INET, socket.SOCK_RAW, _RAW)
                    if four
                    else socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
                )
            place: Any = (socket.inet_ntoa(data[16:20]), 0) if four else ("lo", _IPV6, 0, 0, _HERE)
            self.injector[four].sendto(data, place)
        except OSError:
            pass  # the host is full, or just unplugged: then this copy is one that was lost

    def dropped_by_rules(self) -> None:
        assert self.log is not None
        for prefix, data in self.log.packets():
            packet = parse(data)
            self.tell(int(prefix), data, packet.length if packet else len(data), "dropped", "cut", None)

    def tell(self, mark: int, data: bytes, size: int, fate: str, by: str, ordinal: int | None) -> None:
        """Of a packet that did not just pass."""
        told = self.told[mark] = self.told.get(mark, 0) + 1
        if told > TOLD:
            return
        self.orders.say(
            {
                "event": "packet",
                "t": time.monotonic_ns(),
                "link": self.names[mark],
                "fate": fate,
                "by": by,
                "ordinal": ordinal,
                "size": size,
                "what": described(data),
                "head": data[:40].hex(),
            }
        )


def serve(fd_in: int, fd_out: int) -> None:
    """Work until the stream ends."""
    Gate(fd_in, fd_out).run()
