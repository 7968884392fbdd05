"""The `netns` backend: a Linux network namespace for each node, bridges for the networks, all in namespaces of its own.

As root, or as an ordinary user by way of a user namespace (user_namespaces(7)).
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from socklab.backends import (
    IPV6,
    LINKS,
    NAMES,
    NETWORKS,
    PROGRAMS,
    LabError,
    Network,
    Node,
    Unavailable,
)
from socklab.backends.embedded import EmbeddedLab, Keeper


class Netns:
    """socklab.backends.Backend"""

    name = "netns"
    plays = 4
    can = frozenset({NETWORKS, NAMES, PROGRAMS, LINKS, IPV6})

    def __init__(self) -> None:
        self._keeper = Keeper()

    async def probe(self) -> str | None:
        """Make a small lab and remove it. None if that works, else why not, and what would help."""
        try:
            lab = await self._make([Network("probe")], [Node("probe", ("probe",))])
            await lab.stop()
        except Unavailable as exc:
            return str(exc)
        return None

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> EmbeddedLab:
        return await self._make(networks, nodes)

    async def close(self) -> None:
        await self._keeper.close()

    async def _make(self, networks: Sequence[Network], nodes: Sequence[Node]) -> EmbeddedLab:
        lab = EmbeddedLab(self._keeper, self.can, _addresses(networks, nodes))
        try:
            await lab.start("netns", [network.name for network in networks], nodes)
        except OSError as exc:
            raise Unavailable(_remedy(exc)) from None
        return lab


def _addresses(networks: Sequence[Network], nodes: Sequence[Node]) -> dict[str, list[list[str]]]:
    """10.71.0.0/16 for the first network, 10.72.0.0/16 for the next; nodes from .0.2 on. The same in fd00:71::/64 (RFC 4193)."""
    if len(networks) > 180:
        raise LabError(f"{len(networks)} networks; a lab has at most 180")
    numbers = {network.name: number for number, network in enumerate(networks, 71)}
    with_ipv6 = {network.name for network in networks if network.ipv6}
    free = dict.fromkeys(numbers, 2)
    addresses: dict[str, list[list[str]]] = {node.name: [] for node in nodes}
    for node in nodes:
        for network in node.networks:
            host, free[network] = free[network], free[network] + 1
            mine = [network, str(ipaddress.IPv4Address(f"10.{numbers[network]}.0.0") + host)]
            if network in with_ipv6:
                mine.append(str(ipaddress.IPv6Address(f"fd00:{numbers[network]}::") + host))
            addresses[node.name].append(mine)
    return addresses


def _remedy(exc: OSError) -> str:
    """What the kernel refused, and what would help."""
    what = str(exc.strerror)
    text = f"network namespaces do not work here ({what})"
    if exc.errno in (errno.EPERM, errno.EACCES):
        if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1" and os.geteuid() != 0:
            return f"{text}: AppArmor takes the rights from user namespaces; as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        if _setting("kernel/unprivileged_userns_clone") == "0" and os.geteuid() != 0:
            return f"{text}: user namespaces are for root only; as root: sysctl kernel.unprivileged_userns_clone=1"
        if os.geteuid() == 0:
            return f"{text}: this root may not make them; is this a container? Give it --privileged, or play --on process"
        return f"{text}: this user may not make them; play as root, or --on process"
    if exc.errno in (errno.ENOSPC, errno.EUSERS):
        return f"{text}: the limit on namespaces is reached; as root: sysctl user.max_user_namespaces=10000 user.max_net_namespaces=10000"
    if exc.errno in (errno.EOPNOTSUPP, errno.ENODEV):
        return f"{text}: this kernel lacks bridge or veth; as root: modprobe bridge veth"
    return f"{text}; play --on process"


def _setting(name: str) -> str:
    try:
        return Path(f"/proc/sys/{name}").read_text().strip()
    except OSError:
        return ""
