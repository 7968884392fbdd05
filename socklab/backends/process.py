"""The `process` backend: plain processes on loopback addresses. No rights needed, no link faults."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from socklab.backends import PROGRAMS, LabError, Network, Node
from socklab.backends.embedded import EmbeddedLab, Keeper


class Process:
    """socklab.backends.Backend"""

    name = "process"
    plays = 4
    can: frozenset[str] = frozenset({PROGRAMS})

    def __init__(self) -> None:
        self._keeper = Keeper()

    async def probe(self) -> str | None:
        """None: it works wherever Linux does."""
        return None

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> ProcessLab:
        claims, addresses = _claim(nodes)
        lab = ProcessLab(self._keeper, self.can, addresses)
        lab.claims = claims
        try:
            await lab.start("process", [network.name for network in networks], nodes)
        except OSError as exc:
            raise LabError(f"the lab's process could not be made: {exc.strerror}") from None
        return lab

    async def close(self) -> None:
        await self._keeper.close()


class ProcessLab(EmbeddedLab):
    """A lab on loopback addresses that no other lab has meanwhile."""

    claims: Sequence[socket.socket] = ()

    async def stop(self) -> None:
        await super().stop()
        for claim in self.claims:
            claim.close()


def _claim(nodes: Sequence[Node]) -> tuple[list[socket.socket], dict[str, list[tuple[str, str]]]]:
    """Loopback ranges that no other lab has: 127.X.Y.0/24 for each 250 nodes.

    Claimed by an abstract AF_UNIX name, which all labs of this network namespace see and which the kernel frees with us
    (unix(7)).
    """
    claims: list[socket.socket] = []
    hosts: list[str] = []
    for _ in range(10_000):
        if len(hosts) >= len(nodes):
            addresses = {
                node.name: [(network, host) for network in node.networks or ("loopback",)]
                for node, host in zip(nodes, hosts, strict=False)
            }
            return claims, addresses
        prefix = f"127.{random.randrange(64, 128)}.{random.randrange(256)}"
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0socklab-{prefix}")
        except OSError:
            claim.close()
            continue
        claims.append(claim)
        hosts += [f"{prefix}.{number}" for number in range(2, 252)]
    for claim in claims:
        claim.close()
    raise LabError("no loopback range is free; are thousands of labs running?")
