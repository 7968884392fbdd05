"""The contracts: what every server of a kind promises, clause by clause (docs/contracts.md has the whole text).

Pure data. The language takes the clause names from here, the report their words, `check` what to play.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["tcp", "udp"]

CATEGORIES = (
    "start and port",
    "exact echo",
    "framing",
    "concurrency",
    "fan-out",
    "presence",
    "registration",
    "bad input",
    "vanished peers",
    "loss",
    "leaks",
    "shutdown",
)
"""What a verdict is grouped by, in the order in which it is told. What is played under a link fault belongs to `loss`, what looks
for leaks to `leaks`, the rest to the category of its first clause."""


@dataclass(frozen=True)
class Clause:
    category: str
    text: str


@dataclass(frozen=True)
class Contract:
    name: str
    protocol: Protocol
    port: int
    """Where a server listens that is told its port."""
    model: str
    """Our service that a stranger stands in for: it is played what this one is played."""
    clauses: tuple[Clause, ...]


_ECHO = (
    Clause("exact echo", "every byte comes back to its sender alone: unchanged, in order, once"),
    Clause("exact echo", "when the client half-closes, everything still owed comes, then the end"),
    Clause("vanished peers", "a client that vanishes ends its own connection only, and is released"),
    Clause("vanished peers", "the server stays up, through 1,000 connections too"),
    Clause("concurrency", "a client is served at once, whatever the others do"),
)

CONTRACTS = {
    "echo": Contract("echo", "tcp", 5001, "eventloop", _ECHO),
    "chat": Contract(
        "chat",
        "tcp",
        6001,
        "chat",
        (
            Clause("framing", "a line ends with \\n, however it is cut into segments, up to 64 KiB"),
            Clause("fan-out", "each line is delivered to every client, the sender too, exactly once"),
            Clause("fan-out", "lines stay whole and in their sender's order"),
            Clause("presence", "who is connected is a member, from then on and without a word"),
            Clause("presence", "who leaves (quit, FIN, RST) is released; the others hear everything"),
            Clause("concurrency", "a client that does not read, or is cut off, delays nobody"),
            Clause("bad input", "bytes that are no UTF-8 pass through as they are"),
            Clause("bad input", "no client can bring the server down"),
        ),
    ),
    "udp-echo": Contract(
        "udp-echo",
        "udp",
        7001,
        "udp-echo",
        (Clause("exact echo", "each datagram goes back to where it came from, whole and unchanged"),),
    ),
    "registry": Contract(
        "registry",
        "udp",
        7002,
        "udp-registry",
        (
            Clause(
                "registration", "#REG and #DEREG put an address in and take it out, once, and are answered"
            ),
            Clause(
                "fan-out", "what a member sends goes to every member once, what a stranger sends to nobody"
            ),
            Clause("registration", "only the exact commands are commands, and they are not delivered"),
            Clause("registration", "two clients on one host are two clients"),
            Clause("bad input", "nothing that arrives brings it down or deregisters somebody else"),
            Clause("registration", "leases and cookies, where they are asked for"),
        ),
    ),
}
ITERATIVE = "echo"
"""The model of an echo server that serves one client at a time."""


def clause(name: str) -> Clause:
    """The clause with a name like chat.2."""
    contract, _, number = name.partition(".")
    return CONTRACTS[contract].clauses[int(number) - 1]
