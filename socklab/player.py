"""Playing many scenarios: which files there are, on which backend, several at once. What every face of socklab calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from socklab import conductor, layout, places, topology
from socklab.backends import Backend, Unavailable
from socklab.conductor import Options
from socklab.contracts import CONTRACTS
from socklab.errors import UserError
from socklab.guest import Guest
from socklab.history import Event
from socklab.scenario import Scenario, load
from socklab.source import ScenarioError, nearest
from socklab.verdict import Result

ENDINGS = (".yaml", ".yml")


class NoSuchPath(UserError):
    """A path that leads to no scenario; the message says what would."""


def is_scenario(path: Path) -> bool:
    """Every *.yaml under a folder called scenarios/, and elsewhere every *.scenario.yaml."""
    if path.suffix not in ENDINGS:
        return False
    return "scenarios" in path.parent.parts or path.name.endswith((".scenario.yaml", ".scenario.yml"))


def find(paths: Iterable[Path]) -> list[Path]:
    """The scenario files that these paths mean, sorted within each folder. Raises NoSuchPath."""
    found: dict[Path, None] = {}
    for path in paths:
        if os.path.isdir(path):
            files = sorted(_below(path))
            if not files:
                raise NoSuchPath(
                    f"{path}: no scenario in this folder; a scenario is a *.yaml under scenarios/, or a *.scenario.yaml"
                )
            found.update(dict.fromkeys(files))
        elif os.path.exists(path):
            found[path] = None
        else:
            found.update(dict.fromkeys(_meant(path)))
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    """The scenario files of a folder and the folders in it; hidden ones, and those that may not be read, are passed over."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            file
            for name in names
            if is_scenario((file := Path(root, name)).absolute()) and os.path.isfile(file)
        )


def _meant(path: Path) -> list[Path]:
    """A path without its ending, the same in the library that socklab brings (`scenarios/…`), or a near miss."""
    for ending in (*ENDINGS, ".scenario.yaml"):
        candidate = path.with_name(path.name + ending)
        if os.path.isfile(candidate):
            return [candidate]
    if (ours := places.in_library(path)) is not None:
        return find([ours])
    if os.path.islink(path):
        raise NoSuchPath(f"{path}: is a link that leads nowhere, to {os.readlink(path)}")
    try:
        there = os.listdir(path.parent)
    except OSError:
        there = []  # then no near miss is told
    raise NoSuchPath(f"{path}: no such file or folder.{nearest(path.name, there)}")


def scenarios(paths: Iterable[Path]) -> list[Scenario]:
    """All plays of the files that these paths mean. Raises NoSuchPath and ScenarioError."""
    return [scenario for file in find(paths) for scenario in load(file)]


@dataclass
class Selection:
    """What is to be played, and what could not be read."""

    scenarios: list[tuple[Scenario, topology.Topology]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def select(files: Iterable[Path], compose: Path | None = None, service: str | None = None) -> Selection:
    """Read and check every file before anything starts. With `service`, that service is put under test in each."""
    selection = Selection()
    read: dict[Path, topology.Topology] = {}
    for file in files:
        try:
            scenarios = load(file)
            where = compose or topology.find_or_ours(file)
            if where not in read:
                read[where] = topology.read(where)
            if service is not None:
                scenarios = [s for s in scenarios if s.service == service]
            for scenario in scenarios:
                layout.check(scenario, read[where])
            selection.scenarios += [(scenario, read[where]) for scenario in scenarios]
        except (ScenarioError, topology.TopologyError) as exc:
            if str(exc) not in selection.errors:
                selection.errors.append(str(exc))
    return selection


OWN_PORT = 9000
"""Where a server listens that is told its port, and keeps no contract of ours."""


def select_for_guest(
    files: Iterable[Path], command: tuple[str, ...], port: int | None, service: str | None = None
) -> Selection:
    """The plays of these files with a program of the user's as the server under test, once for each file and its matrix."""
    selection = Selection()
    seen: set[tuple[Path, tuple[tuple[str, str], ...]]] = set()
    for file in files:
        try:
            for scenario in load(file):
                if (file, scenario.values) in seen or service not in (None, scenario.service):
                    continue
                seen.add((file, scenario.values))
                contract = CONTRACTS.get(scenario.contract or "")
                if scenario.services:
                    raise topology.TopologyError(
                        f"{file}: starts further services, so a program of yours cannot take the server's place in it; put it into a compose file"
                    )
                guest = Guest(Path.cwd(), fixed=port is not None)
                at = port or (contract.port if contract else OWN_PORT)
                where = topology.Topology.of_guest(contract, command, guest, at, scenario.service)
                layout.check(scenario, where)
                selection.scenarios.append((scenario, where))
        except (ScenarioError, topology.TopologyError) as exc:
            selection.errors.append(str(exc))
    return selection


async def choose(on: str) -> tuple[Backend, str]:
    """A backend by its name (`socklab.BACKENDS`); `auto` is netns where it works, else process. Also: why not netns.

    Raises Unavailable."""
    chosen = backend("netns" if on == "auto" else on)
    reason = await chosen.probe()
    if reason is None:
        return chosen, ""
    await chosen.close()
    if on != "auto":
        raise Unavailable(reason)
    return backend("process"), reason


def backend(name: str) -> Backend:
    """A backend by its own name; what it imports is imported only then. Raises Unavailable."""
    match name:
        case "process":
            from socklab.backends.process import Process

            return Process()
        case "docker":
            try:
                from socklab.backends.docker import Docker
            except ImportError as exc:
                raise Unavailable(
                    f"playing on Docker needs a Python package: pip install {exc.name}"
                ) from None
            return Docker()
        case "joined":
            from socklab.backends.joined import Joined

            return Joined.configured(os.environ)
        case _:
            from socklab.backends.netns import Netns

            return Netns()


def at_once(backend: Backend) -> int:
    """How many plays there may well be at once."""
    return backend.plays * len(os.sched_getaffinity(0))


async def play_all(
    scenarios: Sequence[tuple[Scenario, topology.Topology]],
    backend: Backend,
    options: Options,
    jobs: int | None = None,
    watch: Callable[[Scenario], Callable[[Event], None]] | None = None,
) -> AsyncGenerator[Result, None]:
    """Play these, up to `jobs` at once; the results come in the order of the scenarios. `watch`: what is told the events of a play."""
    gate = asyncio.Semaphore(jobs or at_once(backend))

    async def one(scenario: Scenario, where: topology.Topology) -> Result:
        async with gate:
            own = replace(options, on_event=watch(scenario)) if watch is not None else options
            return await conductor.play(scenario, where, backend, own)

    tasks = [asyncio.ensure_future(one(*pair)) for pair in scenarios]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
