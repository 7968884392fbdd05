"""Backends: how the nodes of a lab come to be.

A backend makes labs; a lab is a set of nodes on networks. What the conductor may ask of them is all in this file:

    Backend ── lab(networks, nodes) ──▶ Lab ── spawn / inside / run / signal / sockets / address / stop

Backends know nodes, programs and networks. They know no scenario, no history and no verdict.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from socklab.sockets import SocketTable

# Capabilities: what a scenario may need of a backend. A scenario that needs more is skipped, with the remedy.
LINKS = "links"  # links that can be put under control: cut, loss, delay, … (what its gates can really do, they say themselves)
NETWORKS = "networks"  # networks of its own for each lab, several of them, apart from each other
NAMES = "names"  # a node finds another by its name
PROGRAMS = "programs"  # servers that are started and ended at will, whose output and sockets can be read
IPV6 = "ipv6"  # networks with IPv6
IMAGES = "images"  # a service runs in its image, by the command that the compose file or the image says


class LabError(Exception):
    """The lab itself is broken, or could not be built: never blamed on the server. One or two lines, with the way out."""


class Unavailable(LabError):
    """This backend cannot work on this machine; the message says why and what would help."""


class Lacking(LabError):
    """What this lab does not have, and how to get it: the scenario is skipped."""


class CannotStart(LabError):
    """A program could not be started on its node: not found, not executable, wrong format."""


@dataclass(frozen=True)
class Network:
    """One network of the lab, as the compose file names it. On an `internal` one nothing leads out."""

    name: str
    internal: bool = False
    ipv6: bool = False
    """Its nodes have an IPv6 address as well."""


@dataclass(frozen=True)
class Node:
    """One host of the lab: its name, the networks it is on (the first is its main one), and further names for it."""

    name: str
    networks: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    compose: Path | None = None
    """The compose file whose service of this name runs here; None on the host of a client."""


@dataclass(frozen=True)
class Completed:
    """What a command that ran to its end on a node gave."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Apart:
    """How far the clock of another machine is from ours: nanoseconds of CLOCK_MONOTONIC."""

    host: str
    """What that machine, or the container there, calls itself."""
    ahead: int
    error: int
    """That `ahead` may be wrong, at most."""
    rounds: int
    """Round trips by which it is known."""
    steps: int
    """How often it ran away, so that what was known before did not hold any more."""


Inside = Literal["agent", "gate", "capture"]
"""Our own programs there: the scripted client (clients/agent.py), what judges the packets that come to a node (inside/gate.py), and what
reads all of them (inside/capture.py)."""

OnLine = Callable[[str, bytes, int], None]
"""Called with ("stdout" | "stderr", the line without its newline, monotonic nanoseconds) for each line a program prints."""


@dataclass(eq=False)
class Program:
    """A program that runs, or ran, on a node."""

    node: str
    argv: tuple[str, ...]
    pid: int
    """As seen by this process, so that /proc/PID can be read; 0 where there is none."""
    exited: asyncio.Future[int] = field(repr=False)
    """Done when the main process has ended *and* all it printed has been handed on.
    The value is as in subprocess: 0…255 the exit status, -N ended by signal N."""


class Lab(Protocol):
    """Nodes that exist. All that was made dies with the lab, and the lab dies with the process that asked for it."""

    can: frozenset[str]

    def address(self, node: str, network: str | None = None, six: bool = False) -> str:
        """The IPv4 (or IPv6) address of a node on a network (default: its main one). Raises LabError where it has none."""

    async def spawn(
        self,
        node: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        on_line: OnLine | None = None,
        stdio: tuple[int, int, int] | None = None,
        confined: Mapping[str, Any] | None = None,
    ) -> Program:
        """Start a program on a node, in a session of its own, without a shell.

        `confined`: how many `descriptors` and `processes` it may have, and bytes in a `file` (setrlimit(2)); and its `cell`, where nodes
        have a file system of their own: `uid`, paths to `hide`, `size` of all that it writes; `at_work` in the folder itself,
        else in a copy. An image brings its own.

        `env` is the whole environment. With `stdio` the program gets these descriptors (a terminal, say); otherwise its
        stdin is /dev/null and its output goes to `on_line`, line by line, the last one also without its newline.
        Raises CannotStart when exec fails.
        """

    async def inside(self, node: str, program: Inside) -> socket.socket:
        """Start one of our own programs on a node; the socket is its control stream (JSON lines). Closing it ends the program."""

    async def capture(self, local: Sequence[str]) -> list[tuple[str, socket.socket]]:
        """Begin to read what every node sends; of those in `local` also what their programs say to one another.

        Streams of inside/capture.py, each with the node that it means where it names none. Raises LabError."""

    async def run(self, node: str, argv: Sequence[str], input: str = "", limit: float = 10.0) -> Completed:
        """Run a command inside a node's network, as its administrator, to its end (nft, ip, …).

        Raises CannotStart when there is no such command, LabError when it has not ended within `limit` seconds.
        """

    async def signal(self, program: Program, number: signal.Signals, *, group: bool = False) -> None:
        """Signal a program's main process, or with `group` all of it. Ended already: nothing happens."""

    async def freeze(self, program: Program, frozen: bool, limit: float) -> None:
        """Pause all of a program, or let it go on; done when the kernel says so. LabError if it has not within `limit` seconds."""

    async def sockets(self, node: str, *, listening: bool = False) -> SocketTable:
        """The sockets that the kernel has on a node at this moment, read without touching any of them.

        With `listening` only TCP sockets in LISTEN: much less work for the kernel, so it may be asked often.
        """

    def reachable(self, node: str) -> bool:
        """Whether `run` works on this node; where it does not, faults that concern it are set at the other end."""

    async def device(self, node: str, network: str) -> str:
        """The name of a node's interface on a network."""

    def clocks(self) -> Mapping[str, Apart]:
        """The nodes on other machines. All that is told of them is in the time of ours, as exactly as this says."""

    async def diagnosis(self) -> str:
        """Why the lab as a whole is broken, where that can be known; or nothing."""

    async def stop(self) -> None:
        """End every program, remove every node. May be called twice, and after half a start."""


class Backend(Protocol):
    """A way to make labs. One object serves many labs, at once and one after another."""

    name: str
    can: frozenset[str]
    plays: int
    """How many plays there may well be at once for each core: they mostly wait, for messages and for the kernel."""

    async def probe(self) -> str | None:
        """Whether it works here: None, or why not and what would help."""

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> Lab:
        """Make the nodes. Raises LabError; what was made until then is removed."""

    async def close(self) -> None:
        """Stop all labs that are left."""
