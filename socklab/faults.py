"""Link faults: what is in force on each direction between two hosts, and what the gate of a host is told of it. Pure.

Faults act at the receiver. A drop in the sender's output hook makes sendto(2) fail with EPERM and throttles TCP, which no
real network does; dropped at the receiver, the packet is gone and nobody hears of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CUT, REJECT, DROP = "cut", "reject", "drop"
BY_KERNEL = (CUT, REJECT)
"""What rules of the kernel do, exactly; all else the gate decides packet by packet."""

Pair = tuple[str, str]
Faults = Mapping[str, Any]
"""Name of a fault → its settings, as the gate takes them; of `drop` a tuple of them, for there may be several."""
Links = Mapping[Pair, Faults]
"""(from, to) → faults, between hosts. A link that is not in it is whole."""

# With IPv4 ARP passes, too: a cut is silence, not a host that nobody finds (RFC 4861).
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
MARK = 0x5AB10000  # as in inside/gate.py
GROUP = 71


@dataclass(frozen=True)
class Interface:
    """One attachment of a node: its device, the network's name, and its address there."""

    device: str
    network: str
    address: str


def put(links: Links, pairs: Iterable[Pair], name: str, settings: Any) -> dict[Pair, Faults]:
    """The links with this fault on some of them. What else is on them stays."""
    result = dict(links)
    for pair in pairs:
        faults = dict(result.get(pair, {}))
        faults[name] = (*faults.get(DROP, ()), settings) if name == DROP else settings
        result[pair] = faults
    return result


def taken(
    links: Links, pairs: Iterable[Pair], name: str, settings: Any, before: Links | None = None
) -> dict[Pair, Faults]:
    """The links without this fault again, where it is still as it was put; then what was there `before` is back."""
    result = dict(links)
    for pair in pairs:
        faults = dict(result.get(pair, {}))
        was = (before or {}).get(pair, {}).get(name)
        if name == DROP and settings in faults.get(DROP, ()):
            rest = list(faults.pop(DROP))
            rest.remove(settings)
            if rest:
                faults[DROP] = tuple(rest)
        elif name != DROP and faults.get(name) == settings:
            del faults[name]
            if was is not None:
                faults[name] = was
        result[pair] = faults
        if not faults:
            del result[pair]
    return result


def healed(links: Links, pairs: Iterable[Pair]) -> dict[Pair, Faults]:
    """The links with these whole again."""
    gone = set(pairs)
    return {pair: faults for pair, faults in links.items() if pair not in gone}


def by_kernel(name: str, settings: Any) -> bool:
    """Whether a rule does it, without the gate looking at each packet."""
    return name in BY_KERNEL and not settings.get("after")


def told(faults: Faults) -> str:
    """For a person: `loss 10%, delay 100ms +- 20ms`."""
    words = []
    for name, settings in sorted(faults.items()):
        each_one = settings if name == DROP else [settings]
        words += [f"{name} {each['told']}" if each.get("told") else name for each in each_one]
    return ", ".join(words)


def key(seed: int, sender: str, receiver: str) -> int:
    """What makes the random numbers of one direction."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed} {sender} {receiver}".encode(), digest_size=8).digest(), "big"
    )


def gated(links: Links, pair: Pair) -> dict[str, Any]:
    """The faults of a link that its gate decides packet by packet."""
    return {name: s for name, s in links.get(pair, {}).items() if name == DROP or not by_kernel(name, s)}


def nft_ruleset(
    receiver: str,
    links: Links,
    interfaces: Mapping[str, tuple[Interface, ...]],
    marks: Mapping[Pair, int],
    closed: Collection[str] = (),
) -> str:
    """For nftables on a node: its whole rules, replaced in one transaction (nft(8)).

    What comes to it is dropped, refused, or marked for its gate; what is dropped is also told, by the link's number in `marks`.
    `closed` are the nodes on which no rules can be set: what this one sends there is dropped as it leaves the interface, which
    sendto(2) does not see either.
    """
    first: list[str] = []
    refusal: list[str] = []
    for pair, faults in sorted(links.items()):
        addresses = [interface.address for interface in interfaces[pair[0]]]
        if pair[1] != receiver or not addresses:
            continue
        mark = marks[pair]
        for source in _sources(addresses):
            if CUT in faults and by_kernel(CUT, faults[CUT]):
                log = f'log prefix "{mark}" group {GROUP} snaplen 160 queue-threshold 1'
                first.append(f'{source} {log} counter drop comment "{CUT} {mark}"')
            elif gated(links, pair):
                first.append(f"{source} meta mark set {MARK + mark:#x}")
            if REJECT in faults and by_kernel(REJECT, faults[REJECT]):
                # One that the gate has judged is counted there.
                note = f'comment "{"refused" if gated(links, pair) else REJECT} {mark}"'
                icmp = "icmpv6" if source.startswith("ip6") else "icmp"
                refusal += [
                    f"{source} meta l4proto tcp counter reject with tcp reset {note}",
                    f"{source} counter reject with {icmp} type port-unreachable {note}",
                ]
    # The chains stay when their rules go: taking a hook away makes the kernel drop all packets that wait for a verdict.
    lines = [
        "table inet socklab {",
        "  chain links { type filter hook prerouting priority -450; policy accept; }",
        "  chain refusal { type filter hook input priority -300; policy accept; }",
        "}",
        "flush table inet socklab",
    ]
    if first:
        # Before the kernel puts fragments together, tracks connections or answers. A copy that the gate makes comes by the loopback.
        lines += _chain("inet", "links", ['iifname "lo" accept', _NEIGHBOURS, *first])
    if refusal:
        # A refusal must itself get through where both directions refuse.
        through = [
            "tcp flags & rst == rst accept",
            "icmp type destination-unreachable accept",
            "icmpv6 type destination-unreachable accept",
            _NEIGHBOURS,
        ]
        lines += _chain("inet", "refusal", [*through, *refusal])
    if closed:
        lines += _away(receiver, links, interfaces, closed)
    return "\n".join(lines) + "\n"


def _chain(family: str, name: str, rules: Iterable[str]) -> list[str]:
    return [
        f"table {family} socklab {{",
        f"  chain {name} {{",
        *(f"    {rule}" for rule in rules),
        "  }",
        "}",
    ]


def _sources(addresses: Iterable[str]) -> list[str]:
    """What a rule says of the sender, for each family of addresses."""
    sorted_ = sorted(addresses)
    found = []
    for family, mine in (
        ("ip", [a for a in sorted_ if ":" not in a]),
        ("ip6", [a for a in sorted_ if ":" in a]),
    ):
        if mine:
            found.append(f"{family} saddr {{ {', '.join(mine)} }}")
    return found


def _away(
    sender: str, links: Links, interfaces: Mapping[str, tuple[Interface, ...]], closed: Collection[str]
) -> list[str]:
    away = sorted(
        i.address
        for (a, b), faults in links.items()
        if a == sender and b in closed and CUT in faults
        for i in interfaces[b]
    )
    devices = ", ".join(f'"{i.device}"' for i in interfaces[sender])
    hook = f"type filter hook egress devices = {{ {devices} }} priority 0; policy accept;"
    lines = ["table netdev socklab {", f"  chain silence {{ {hook} }}", "}", "flush table netdev socklab"]
    return lines + (_chain("netdev", "silence", [f"ip daddr {{ {', '.join(away)} }} drop"]) if away else [])


def pairs_changed(before: Links, after: Links) -> set[Pair]:
    return {pair for pair in {**before, **after} if before.get(pair) != after.get(pair)}
