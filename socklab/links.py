"""The links of a lab under control: which faults are in force, and the gates that make it so.

Links ── put / taken / healed ──▶ faults (what it means for each host) ──▶ the gate of each receiver (inside/gate.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from socklab import faults
from socklab.agents import Agent
from socklab.backends import Lab, LabError, Lacking, Node
from socklab.faults import Pair

OnPacket = Callable[[dict[str, Any]], None]
Change = Callable[[faults.Links], faults.Links]

NEEDS = {
    "silence": "needs nftables to lose packets: apt install nftables (or make deps)",
    "refusal": "needs nftables to refuse packets: apt install nftables (or make deps)",
    "away": "needs nftables' egress rules (Linux 5.16) towards a server without a gate",
    "queue": "needs NFQUEUE to judge packets one by one: apt install nftables (or make deps), and as root modprobe -a nfnetlink_queue nft_queue",
}


class Links:
    """All links between the hosts of one lab."""

    def __init__(
        self,
        lab: Lab,
        nodes: Iterable[Node],
        names: Mapping[str, str],
        seed: int,
        on_packet: OnPacket,
        ipv6: bool = False,
    ) -> None:
        """`names` is what each host is called where packets are told. `ipv6`: the hosts have such addresses, too."""
        self.now: faults.Links = {}
        self._lab = lab
        self._nodes = {node.name: node for node in nodes}
        self.names = names
        self._seed = seed
        self._families = (False, True) if ipv6 else (False,)
        self._on_packet = on_packet
        self._closed = {name for name in self._nodes if not lab.reachable(name)}
        self._gates: dict[str, Agent] = {}
        self._can: dict[str, dict[str, str]] = {}
        self._marks: dict[Pair, int] = {}
        self._asked: dict[Pair, dict[str, None]] = {}
        self._interfaces: dict[str, tuple[faults.Interface, ...]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def prepare(self, wanted: Iterable[tuple[Pair, str, Any]]) -> None:
        """Have the gates ready that these faults (link, name, settings) will need. Raises Lacking where one cannot work."""
        needs: dict[str, set[str]] = {}
        for pair, name, settings in wanted:
            host, need = self._where(pair, name, settings)
            needs.setdefault(host, set()).add(need)
        await asyncio.gather(*(self._gate(host) for host in needs))
        for host, each in needs.items():
            for need in sorted(each):
                if why := self._can[host][need]:
                    raise Lacking(f"{NEEDS[need]} (on {host}: {why})")

    def _where(self, pair: Pair, name: str, settings: Any) -> tuple[str, str]:
        """At which host a fault acts, and what it needs there."""
        sender, receiver = pair
        if receiver not in self._closed:
            if faults.by_kernel(name, settings):
                return receiver, "silence" if name == faults.CUT else "refusal"
            return receiver, "queue"
        if name != faults.CUT or not faults.by_kernel(name, settings):
            raise Lacking(
                f"needs {name} at {receiver}, where its gate does it; start the gates: docker compose --profile experiments up"
            )
        return sender, "away"

    async def change(self, change: Change) -> None:
        """Put exactly what `change` makes of the faults in force; done when each gate says so. Raises LabError."""
        async with self._one_at_a_time:  # a host's rules are set whole, so an older set must not come last
            before, self.now = self.now, change(self.now)
            for pair, put in self.now.items():
                self._marks.setdefault(pair, len(self._marks) + 1)
                self._asked.setdefault(pair, {})[faults.told(put)] = None
            changed = faults.pairs_changed(before, self.now)
            hosts = sorted({a if b in self._closed else b for a, b in changed})
            for host in {name for pair in changed for name in pair}:
                await self._know(host)
            await asyncio.gather(*(self._put(host) for host in hosts))

    async def _put(self, host: str) -> None:
        gate = await self._gate(host)
        mine = {pair: mark for pair, mark in self._marks.items() if pair[1] == host}
        links = {
            mark: {
                "name": self.told(pair),
                "key": faults.key(self._seed, *(self.names[name] for name in pair)),
                "faults": faults.gated(self.now, pair),
            }
            for pair, mark in mine.items()
        }
        rules = faults.nft_ruleset(host, self.now, self._interfaces, self._marks, self._closed)
        answer = await gate.ask("put", rules=rules, links=links)
        if not answer["ok"]:
            raise LabError(f"the link faults of {host} could not be set: {answer['error']}")

    async def counts(self) -> dict[str, dict[str, Any]]:
        """What became of the packets on each link that had a fault. Raises LabError where a gate has died, or lost some itself."""
        counts: dict[str, dict[str, Any]] = {}
        answers = await asyncio.gather(*(gate.ask("count") for gate in self._gates.values()))
        for host, answer in zip(self._gates, answers, strict=True):
            if answer["lost"]:
                raise LabError(
                    f"the gate of {host} did not keep up and lost {answer['lost']} packets; send fewer at once"
                )
            counts |= answer["links"]
        asked = {self.told(pair): ", then ".join(each) for pair, each in self._asked.items()}
        return {link: {**of, "asked": asked[link]} for link, of in counts.items()}

    def told(self, pair: Pair) -> str:
        return "→".join(self.names[name] for name in pair)

    async def _gate(self, host: str) -> Agent:
        if host not in self._gates:
            stream = await self._lab.inside(host, "gate")
            gate = self._gates[host] = Agent(host, stream, self._on_packet, "gate")
            self._can[host] = (await gate.ask("probe"))["can"]
        return self._gates[host]

    async def _know(self, host: str) -> None:
        """Its devices and addresses; of a closed host only these."""
        if host not in self._interfaces:
            self._interfaces[host] = tuple(
                [
                    faults.Interface(
                        "" if host in self._closed else await self._lab.device(host, network),
                        network,
                        self._lab.address(host, network, six),
                    )
                    for network in self._nodes[host].networks
                    for six in self._families
                ]
            )

    def close(self) -> None:
        """End the gates."""
        for gate in self._gates.values():
            gate.close()


async def what_links_can(lab: Lab, node: str) -> dict[str, str]:
    """What a gate can do to the packets that come to a node: `silence`, `refusal`, `away`, `queue` → nothing, or why not."""
    gate = Agent(node, await lab.inside(node, "gate"), lambda _: None, "gate")
    try:
        can: dict[str, str] = (await gate.ask("probe"))["can"]
        return can
    finally:
        gate.close()
