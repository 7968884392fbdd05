"""What a server holds: descriptors, threads, children, memory. Read from /proc (proc(5)), compared without a clock.

A leak shows in the difference between two moments at which nobody is connected: so many clients came and went in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

PAGE = os.sysconf("SC_PAGESIZE")
MEMORY = 64 << 20  # bytes of growth that nobody takes for a leak: heaps that are collected now and then
SHARE = 3  # one thing left behind for every third client is a leak; a pool that still grows a little is none


@dataclass(frozen=True)
class Holdings:
    """Of a process and all below it; memory is resident, in bytes."""

    descriptors: int
    threads: int
    children: int
    zombies: int
    memory: int

    def as_data(self) -> dict[str, int]:
        return asdict(self)


def read(pid: int) -> Holdings:
    """What a process and its descendants hold now. Raises PermissionError where that may not be read; a process that ended holds nothing."""
    descriptors = threads = memory = zombies = count = 0
    for each in tree(pid):
        try:
            state = stat(each)[0]
            count += 1
            if state in ("Z", "X"):
                zombies += 1
                continue
            descriptors += len(os.listdir(f"/proc/{each}/fd"))
            threads += len(os.listdir(f"/proc/{each}/task"))
            with open(f"/proc/{each}/statm") as file:
                memory += int(file.read().split()[1]) * PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Holdings(descriptors, threads, max(count - 1, 0), zombies, memory)


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        yield each
        try:
            for task in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{task}/children") as file:
                    waiting += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue


def sockets(pid: int) -> set[int] | None:
    """The inodes of the sockets that a process and those below it have open; None where that may not be read."""
    found = set()
    for each in tree(pid):
        try:
            for name in os.listdir(f"/proc/{each}/fd"):
                target = os.readlink(f"/proc/{each}/fd/{name}")
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
        except PermissionError:
            return None
        except OSError:
            continue
    return found


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, its third. Raises OSError."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def grown(before: Mapping[str, int], now: Mapping[str, int], clients: int) -> dict[str, int]:
    """What is held more than before, by more than `clients` comings and goings explain: what → how much more."""
    least = max(3, clients // SHARE)
    more = {what: now[what] - before[what] for what in ("descriptors", "threads", "zombies", "children")}
    found = {what: number for what, number in more.items() if number >= least}
    if "zombies" in found:
        found.pop("children", None)  # they are the children
    if now["memory"] - before["memory"] >= MEMORY:
        found["memory"] = now["memory"] - before["memory"]
    return found


def told(holdings: Mapping[str, int]) -> str:
    """`4 descriptors, 1 thread, 0 children, 11 MiB`"""
    parts = [
        f"{number} {what if number != 1 else one}"
        for what, one in (("descriptors", "descriptor"), ("threads", "thread"), ("children", "child"))
        if (number := holdings[what]) or what != "children"
    ]
    if holdings["zombies"]:
        parts.append(f"{holdings['zombies']} of them zombies")
    return ", ".join([*parts, f"{holdings['memory'] >> 20} MiB"])


def told_growth(growth: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number >> 20} MiB" if what == "memory" else f"{number} {what}" for what, number in growth.items()
    )
