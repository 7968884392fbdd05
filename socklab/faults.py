"""Link faults: which directed links are silent or refuse, and what a node must be told to make it so. Pure.

Faults act at the receiver. A drop in the sender's output hook makes sendto(2) fail with EPERM and throttles TCP, which no
real network does; dropped at the receiver, the packet is gone and nobody hears of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

DROP, REJECT = "drop", "reject"

Links = Mapping[tuple[str, str], str]
"""(from, to) → drop or reject, between hosts. A link that is not in it is whole."""

_NOWHERE = "02:00:00:00:de:ad"  # a locally administered address that no interface of a lab has


@dataclass(frozen=True)
class Interface:
    """One attachment of a node: its device, the network's name, and its address there."""

    device: str
    network: str
    address: str


def changed(links: Links, pairs: Iterable[tuple[str, str]], kind: str | None) -> dict[tuple[str, str], str]:
    """The links with some of them set to a fault, or healed (None). The others stay as they are."""
    result = dict(links)
    for pair in pairs:
        if kind is None:
            result.pop(pair, None)
        else:
            result[pair] = kind
    return result


def nft_ruleset(
    receiver: str,
    links: Links,
    interfaces: Mapping[str, tuple[Interface, ...]],
    closed: Collection[str] = (),
) -> str:
    """For `nft -f -` on a node: its whole tables, replaced in one transaction (nft(8)).

    What it receives is dropped or refused in its input. `closed` are the nodes on which no rules can be set: what it sends
    to one of them is dropped as it leaves the interface, which sendto(2) does not see either.
    """
    drop, reject = (_sources(receiver, links, interfaces, kind) for kind in (DROP, REJECT))
    away = {
        i.address for (a, b), kind in links.items() if a == receiver and b in closed for i in interfaces[b]
    }
    lines = ["table inet socklab", "delete table inet socklab"]
    if closed:
        lines += ["table netdev socklab", "delete table netdev socklab"]
    if away:
        devices = ", ".join(f'"{i.device}"' for i in interfaces[receiver])
        lines += [
            "table netdev socklab {",
            "  chain silence {",
            f"    type filter hook egress devices = {{ {devices} }} priority 0; policy accept;",
            f"    ip daddr {{ {', '.join(sorted(away))} }} drop",
            "  }",
            "}",
        ]
    if not drop and not reject:
        return "\n".join(lines) + "\n"
    lines.append("table inet socklab {")
    if drop:
        # Before connection tracking and before anything could answer.
        lines += [
            "  chain silence {",
            "    type filter hook prerouting priority -300; policy accept;",
            f"    ip saddr {{ {drop} }} drop",
            "  }",
        ]
    if reject:
        # A refusal must itself get through where both directions refuse.
        lines += [
            "  chain refusal {",
            "    type filter hook input priority -300; policy accept;",
            "    tcp flags & rst == rst accept",
            "    icmp type destination-unreachable accept",
            f"    ip saddr {{ {reject} }} meta l4proto tcp reject with tcp reset",
            f"    ip saddr {{ {reject} }} reject with icmp type port-unreachable",
            "  }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _sources(receiver: str, links: Links, interfaces: Mapping[str, tuple[Interface, ...]], kind: str) -> str:
    senders = sorted(a for (a, b), fault in links.items() if b == receiver and fault == kind)
    return ", ".join(i.address for sender in senders for i in interfaces[sender])


def neighbour_batch(
    sender: str, before: Links, after: Links, interfaces: Mapping[str, tuple[Interface, ...]]
) -> str:
    """For `ip -batch -` on the sender, where there is no nft: silence by a neighbour entry that leads nowhere.

    The frames leave and nobody takes them; sendto(2) sees nothing of it. The entry is permanent, so that ARP does not mend it
    (ip-neighbour(8)).
    """
    lines = []
    for a, b in {**before, **after}:
        now, was = after.get((a, b)), before.get((a, b))
        if a != sender or (now == DROP) == (was == DROP):
            continue
        for mine in interfaces[a]:
            for theirs in interfaces[b]:
                if mine.network == theirs.network:
                    if now == DROP:
                        lines.append(
                            f"neigh replace {theirs.address} lladdr {_NOWHERE} nud permanent dev {mine.device}"
                        )
                    else:
                        lines.append(f"neigh del {theirs.address} dev {mine.device}")
    return "\n".join(lines) + "\n" if lines else ""


def hosts_changed(before: Links, after: Links, closed: Collection[str] = ()) -> list[str]:
    """The hosts that must be told of a change: the receivers, or the senders to a node on which nothing can be set."""
    pairs = {pair for pair in {**before, **after} if before.get(pair) != after.get(pair)}
    return sorted({a if b in closed else b for a, b in pairs})
