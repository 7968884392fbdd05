"""A server that a user brings, in the place of one of ours. Pure data.

It is a program, started as its user would start it, a container image, or something that runs already at an address.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socklab.dialect import PLAIN, Dialect

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
class Guest:
    folder: Path
    """Where it is started."""
    dialect: Dialect = PLAIN
    limits: Limits = Limits()
    at: tuple[str, int] | None = None
    """Where it runs already."""
    fixed: bool = False
    """It listens on a port that it is not told."""

    def told_where(self, command: tuple[str, ...]) -> bool:
        """Whether its command says on which address to listen."""
        return any(HOST in word for word in command)

    def command(self, command: tuple[str, ...], host: str, port: int) -> tuple[str, ...]:
        return tuple(word.replace(HOST, host).replace(PORT, str(port)) for word in command)
