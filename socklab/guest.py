"""A server that a user brings, in the place of one of ours. Pure data.

It is a program, started as its user would start it, a container image, or something that runs already at an address.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from socklab.dialect import PLAIN, Dialect

THREADS = (
    5  # the kernel counts threads as processes; a server may have so many for each process that it may have
)
FIRST_UID = 200_000  # of the users in cells: far from those of people
HOST, PORT = "{host}", "{port}"


@dataclass(frozen=True)
class Limits:
    """What a guest may take; 0: as much as there is. Memory and output in bytes."""

    memory: int = 1 << 30
    processes: int = 200
    descriptors: int = 4096
    output: int = 4 << 20
    file: int = 64 << 20


@dataclass(frozen=True)
class Cell:
    """How a stranger's program is kept apart: it sees a copy of its folder (or, `at_work`, the folder itself) and nothing that is
    hidden, runs as a user of its own, and can write nowhere but there. Only where nodes have a file system of their own (netns)."""

    uid: int
    hide: tuple[str, ...] = ()
    at_work: bool = False
    size: int = 256 << 20
    """Bytes that it may write."""


@dataclass(frozen=True)
class Guest:
    folder: Path
    """Where it is started."""
    dialect: Dialect = PLAIN
    limits: Limits = Limits()
    at: tuple[str, int] | None = None
    """Where it runs already."""
    cell: Cell | None = None
    fixed: bool = False
    """It listens on a port that it is not told."""
    loopback: bool = False
    """It binds 127.0.0.1, so its clients live on its own host."""

    @property
    def confined(self) -> dict[str, Any]:
        """What the one that starts it has to know (socklab.backends.Lab.spawn)."""
        limits = {
            "descriptors": self.limits.descriptors,
            "file": self.limits.file,
            "processes": self.limits.processes * THREADS,
        }
        return {**limits, **({"cell": asdict(self.cell)} if self.cell else {})}

    def told_where(self, command: tuple[str, ...]) -> bool:
        """Whether its command says on which address to listen."""
        return any(HOST in word for word in command)

    def command(self, command: tuple[str, ...], host: str, port: int) -> tuple[str, ...]:
        return tuple(word.replace(HOST, host).replace(PORT, str(port)) for word in command)
