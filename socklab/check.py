"""Judging a server that a user brings: it takes the place of one of ours, and the library's scenarios of its contract are played.

    Order (what server, which contract) ──▶ topology with the guest in it ──▶ player ──▶ Report

A failure is played again before it counts: a right server must never be called wrong because the machine was busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from socklab import conductor, player, proposals
from socklab.backends import Backend, LabError
from socklab.conductor import LONG_GAP, Options
from socklab.contracts import ITERATIVE, Contract
from socklab.guest import THREADS, Guest
from socklab.places import LIBRARY
from socklab.report import Report, category_of, item, name_of
from socklab.scenario import Scenario
from socklab.source import nearest
from socklab.topology import Topology, TopologyError, is_port
from socklab.topology import read as read_topology
from socklab.verdict import Result, Verdict

SMALL_BYTES, SMALL_CONNECTIONS = 1 << 20, 12
"""What a scenario may send, and how often it may connect, to be played at somebody else's machine."""

IMPATIENT = 3.0  # seconds that a step may take at first; what fails by that is played again with all its time
FEW = 3  # of many that failed, so many are played again to see whether it is worth it

Tell = Callable[[str], None]
"""Called with how far it has come, in words."""
Again = Callable[[Scenario], Coroutine[None, None, Result]]


class UnknownName(ValueError):
    """What is to be played alone is not asked of this server; the message names what is."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be judged."""

    contract: Contract
    guest: Guest
    command: tuple[str, ...] = ()
    port: int | None = None
    iterative: bool = False
    image: str = ""
    scenarios: Sequence[Path] = (LIBRARY,)
    only: tuple[str, ...] = ()
    """Categories, with hyphens, and scenarios by name: the rest is not played. None: all."""
    compose: Path | None = None
    """Of a container image: the compose file that was made for it."""

    @property
    def model(self) -> str:
        return ITERATIVE if self.iterative else self.contract.model

    @property
    def topology(self) -> Topology:
        port = self.port or self.contract.port
        if self.compose is not None:
            return read_topology(self.compose).with_guest(self.model, self.guest)
        return Topology.of_guest(self.contract, self.command, self.guest, port, self.model)

    def check_only(self) -> None:
        """Whether there is all that `only` names. Raises UnknownName and ScenarioError."""
        if not self.only:
            return  # and the library is read once
        plays = [file.plays[0] for file in asked(replace(self, only=()))]
        known = {name for play in plays for name in _names(play)}
        for name in self.only:
            if name not in known:
                categories = ", ".join(sorted({_category(play) for play in plays}))
                raise UnknownName(
                    f'--only: no scenario of {self.contract.name} is called "{name}", and no category: {categories}.{nearest(name, known)}'
                )

    def in_image(self, image: str, folder: Path) -> Order:
        """The same for a container image: its compose file is written into a folder. With a command, the guest's own folder is
        mounted where it runs."""
        port, limits = self.port or self.contract.port, self.guest.limits
        service: dict[str, Any] = {
            "image": image,
            "networks": ["lab"],
            "expose": [f"{port}/{self.contract.protocol}"],
            "labels": {"socklab.contract": self.contract.name},
            "environment": {"HOST": "0.0.0.0", "PORT": str(port)},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": limits.memory,
            "pids_limit": limits.processes * THREADS,
            "ulimits": {"nofile": limits.descriptors},
        }
        if self.command:
            words = self.guest.command(self.command, "0.0.0.0", port)
            service["command"] = [word.replace("$", "$$") for word in words]
            service["volumes"] = [f"{self.guest.folder}:/work:ro"]
            service["working_dir"] = "/work"
        path = folder / "docker-compose.yml"
        path.write_text(
            json.dumps({"services": {self.model: service}, "networks": {"lab": {"internal": True}}}, indent=1)
        )
        return replace(self, compose=path, image=image)

    @property
    def server(self) -> str:
        if self.image:
            return " ".join([f"image {self.image}", *self.command])
        if self.guest.at is not None:
            return f"{self.guest.at[0]}:{self.guest.at[1]}"
        return " ".join(self.command)


@dataclass
class Asked:
    """The plays of one file."""

    plays: list[Scenario]
    advice: bool = False
    results: list[Result] = field(default_factory=list)
    unsteady: str = ""

    @property
    def failed(self) -> bool:
        return any(result.verdict is Verdict.FAIL for result in self.results)

    async def confirm(self, again: Again) -> None:
        """Play each that failed a second time, with time to join, and a third where the two disagree: what most say counts."""
        for number, first in enumerate(self.results):
            if first.verdict is not Verdict.FAIL:
                continue
            second = await again(first.scenario)
            if second.verdict is Verdict.FAIL:
                self.results[number] = second
                continue
            third = await again(first.scenario)
            times = 1 + (third.verdict is Verdict.FAIL)
            if times == 2:
                self.unsteady = "failed 2 of 3 times"
            else:
                # That it failed once may have been a line said before somebody had joined, which chat.4 allows.
                self.results[number] = replace(
                    second, notes=(*second.notes, f"failed 1 of 3 times: {first.reason}")
                )


def asked(order: Order) -> list[Asked]:
    """What is played: the scenarios that our own server of this kind is played, without what concerns only ours; the
    simplest first. Raises ScenarioError and NoSuchPath."""
    files: dict[Path, Asked] = {}
    contract = order.contract.name
    for scenario in player.scenarios(order.scenarios):
        if scenario.service != order.model or scenario.services:
            continue
        if scenario.contract not in (contract, None) or (scenario.contract is None and not scenario.advice):
            continue
        if scenario.only_ours and not scenario.advice:
            continue
        if any(options.over for step in scenario.walk() for _, options in step.connects):
            continue  # no contract asks for IPv6
        if order.guest.at is not None and not is_local(order.guest.at[0]) and not small(scenario):
            continue
        if order.only and not _names(scenario) & set(order.only):
            continue
        advice = (
            scenario.advice and name_of(scenario) not in order.only
        )  # whoever asks for it by name wants to know
        files.setdefault(scenario.path, Asked([], advice)).plays.append(scenario)
    return sorted(files.values(), key=lambda a: (a.advice, len(list(a.plays[0].walk()))))


def _names(scenario: Scenario) -> set[str]:
    return {name_of(scenario), _category(scenario)}


def _category(scenario: Scenario) -> str:
    return category_of(scenario).replace(" ", "-")


def small(scenario: Scenario) -> bool:
    """Whether a scenario is one that nobody minds on a machine of somebody else's."""
    connections = size = 0
    for step in scenario.walk():
        connections += len(step.connects)
        for _, payloads in step.sends:
            for p in payloads:
                size += max(len(p.text or ""), len(p.raw)) * p.repeat * (p.lines or 1)
    rounds = max((step.times for step in scenario.walk()), default=1)
    return connections * rounds <= SMALL_CONNECTIONS and size * rounds <= SMALL_BYTES and rounds <= 10


def is_local(host: str) -> bool:
    """Whether an address is one of this machine's own."""
    return host.startswith("127.")


def resolve(text: str) -> tuple[str, int]:
    """`HOST:PORT` as an IPv4 address and a port. Raises TopologyError; LabError where nobody is called so."""
    host, sign, port = text.rpartition(":")
    if not sign or not host or not is_port(port):
        raise TopologyError(f'"{text}" is no HOST:PORT, like 127.0.0.1:6001')
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:  # UnicodeError: no name at all, to IDNA
        why = exc.strerror if isinstance(exc, OSError) else "no name of a host"
        raise LabError(f"{host}: {why}; is it an IPv4 address, or a name that has one?") from None
    return str(found[0][4][0]), int(port)


async def answers(at: tuple[str, int], limit: float) -> None:
    """Whether a TCP server takes a connection. Raises LabError."""
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(*at)
    except TimeoutError:
        raise LabError(f"{at[0]}:{at[1]} does not answer within {limit:g}s; is a firewall between?") from None
    except OSError as exc:
        raise LabError(
            f"nothing listens at {at[0]}:{at[1]} ({exc.strerror}); start the server first"
        ) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def check(
    order: Order,
    backend: Backend,
    options: Options,
    jobs: int | None = None,
    tell: Tell = lambda _: None,
) -> Report:
    """Play all that a contract asks of this server. Raises LabError, ScenarioError, TopologyError."""
    began = time.monotonic()
    report = Report(order.contract, order.server, backend.name)
    files = asked(order)
    topology = order.topology
    at_once = jobs or player.at_once(backend)
    if order.guest.at is not None or (order.guest.fixed and backend.name == "process"):
        at_once = 1  # one server for all plays, or one port
    gate = asyncio.Semaphore(at_once)
    progress = _Progress(sum(len(each.plays) for each in files), tell)

    async def play(scenario: Scenario, gap: float = 0.0, longest: float | None = IMPATIENT) -> Result:
        how = replace(options, gap=gap, replay=False, longest=longest)
        async with gate:
            with progress.of(name_of(scenario)):
                return await conductor.play(scenario, topology, backend, how)

    async def again(scenario: Scenario) -> Result:
        progress.total += 1
        return await play(scenario, LONG_GAP if order.contract.name == "chat" else 0.0, None)

    first = await play(files[0].plays[0])
    if first.verdict is Verdict.ERROR or (first.failure is not None and first.failure.start):
        report.never_started = first
        report.seconds = time.monotonic() - began
        return report
    report.ready_after = _ready_after(first)

    async def whole(asked: Asked) -> None:
        rest = asked.plays[1:] if asked is files[0] else asked.plays
        asked.results = [first] if asked is files[0] else []
        asked.results += await asyncio.gather(*map(play, rest))

    async with asyncio.TaskGroup() as group:
        for each in files:
            group.create_task(whole(each))
    await _confirm([each for each in files if each.failed and not each.advice], len(files), again)
    for each in files:
        report.items.append(item(each.results, each.advice, each.unsteady))
    report.silent = not any(_heard(result) for each in files for result in each.results)
    if not report.silent:  # or there is nothing by which a dialect is known
        counted = [result for each in files if not each.advice for result in each.results]
        report.notes += proposals.proposed(counted, order.guest.dialect)
    report.seconds = time.monotonic() - began
    return report


class _Progress:
    """How many plays are over, and which go on."""

    def __init__(self, total: int, tell: Tell) -> None:
        self.total = total
        self._tell = tell
        self._over = 0
        self._now: list[str] = []

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """While a play goes on."""
        self._now.append(name)
        self._say()
        try:
            yield
        finally:
            self._now.remove(name)
            self._over += 1
            self._say()

    def _say(self) -> None:
        now = f", now {', '.join(self._now)}" if self._now else ""
        self._tell(f"{self._over} of {self.total} played{now}")


async def _confirm(failed: list[Asked], of: int, again: Again) -> None:
    """Play again what failed. Where more than half of all failed, a few tell whether the rest need it: a machine that was busy,
    or a server that takes its time to let somebody join, does not fail those twice."""
    if len(failed) * 2 > of:
        failed = sorted(failed, key=lambda each: sum(result.seconds for result in each.results))
        few = failed[:FEW]
        await asyncio.gather(*(each.confirm(again) for each in few))
        if all(each.failed for each in few):
            return
        failed = failed[FEW:]
    await asyncio.gather(*(each.confirm(again) for each in failed))


def _heard(result: Result) -> bool:
    """Whether a client got anything from the server."""
    return any(event.kind == "received" and event.content for event in result.events)


def _ready_after(result: Result) -> float | None:
    moments: dict[str, int] = {}
    for event in result.events:
        if event.kind in ("spawned", "ready"):
            moments.setdefault(event.kind, event.t)
    return (moments["ready"] - moments["spawned"]) / 1e9 if len(moments) == 2 else None
