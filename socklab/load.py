"""A server under a defined load: started, met by crowds of clients, and asked what it cost. What `socklab bench` is made of.

    Subject ─┐
             ├─▶ measure() ─▶ a lab: the server, and hosts whose agents are crowds (clients/crowd/) ─▶ Measured
    Load ────┘

The load is made and counted inside the agents; only what came of it crosses their control streams.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from socklab import holdings
from socklab.agents import Agent, CommandRefused
from socklab.backends import PROGRAMS, Backend, Lab, LabError, Node
from socklab.history import to_wire
from socklab.hosts import host_of, networks_of
from socklab.servers import NotReady, Server
from socklab.topology import Service, Topology

JOIN_LIMIT = 60.0  # seconds for a crowd to connect
AT_ONCE = 256  # clients that connect at once
FEW_AT_ONCE = 32  # the same where the backlog is not known; whom a shorter one has no room for, the kernel lets in a second later
SETTLED = 5.0  # seconds for a server to take in, or to release, all of a crowd
FIRST_LIMIT = 30.0  # seconds for a server to bring the first line of everyone to everyone: a thousand times a thousand, it may be
BEGINS = 0.2  # seconds until all agents have heard when a load begins that they make together
RAMP = 0.3  # seconds of a load that do not count
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds in which /proc tells processor time
_SCHEDULED = 2  # CPUCLOCK_SCHED (include/linux/posix-timers.h): what the scheduler has given to all threads, ended ones too


@dataclass(frozen=True)
class Speech:
    """How a server is talked to, where that is not plain lines: what members say first and wait for, and what stands around a text
    when it is said and when it is heard. A {number} is the member's. Without `hear` it is learned from the first lines."""

    hello: bytes = b""
    until: bytes = b""
    answered: bool = False
    """Wait for any answer."""
    sender_hello: bytes = b""
    sender_until: bytes = b""
    say: tuple[bytes, bytes] | None = None
    hear: tuple[bytes, bytes] | None = None

    def greeting(self, senders: int) -> dict[str, Any]:
        """The fields of an agent's `open` command."""
        told = {
            "hello": _wire(self.hello),
            "until": _wire(self.until),
            "answered": self.answered,
            "sender_hello": _wire(self.sender_hello or self.hello),
            "sender_until": _wire(self.sender_until or self.until),
            "sender_answered": self.answered,
        }
        return {**told, "senders": senders}

    def around(self) -> dict[str, Any]:
        """The fields of an agent's `fan-out` command."""
        pairs = {name: pair for name, pair in (("say", self.say), ("hear", self.hear)) if pair is not None}
        return {
            f"{name}_{which}": _wire(part)
            for name, pair in pairs.items()
            for which, part in zip(("before", "after"), pair, strict=True)
        }


def plain(size: int) -> Speech:
    return Speech()


def registering(size: int) -> Speech:
    return Speech(hello=b"#REG", answered=True)


def speech_of(contract: str | None) -> Callable[[int], Speech]:
    """How a server that keeps a contract is talked to."""
    return registering if contract == "registry" else plain


@dataclass(frozen=True)
class Subject:
    """A server that is put under load."""

    name: str
    topology: Topology
    service: Service
    speech: Callable[[int], Speech] = plain
    """How it is talked to, with texts of so many bytes."""
    peer: str = ""
    """The package it comes from, if it is somebody else's."""
    most: int = 0
    """So many connections it can have at once, by what is known of it; 0: nothing is known."""
    longest: int = 0
    """Bytes of the longest text that it carries; 0: any."""

    def cannot(self, load: Load) -> str:
        """Why it cannot be put under this load; or nothing."""
        if self.most and load.members > self.most:
            return f"has room for {self.most} connections"
        if self.longest and load.size > self.longest:
            return f"carries texts of {self.longest} bytes at most"
        return ""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a server. `size` is that of a message in bytes, its newline counted."""

    kind: str
    """echo, fan-out, churn or idle"""
    receivers: int
    """Of an echo: the connections."""
    senders: int = 0
    size: int = 64
    in_flight: int = 1
    rate: float = 0.0
    """Messages a second, of all clients together; 0: as many as can be."""
    seconds: float = 2.0
    agents: int = 1

    @property
    def members(self) -> int:
        return self.receivers + self.senders

    @property
    def name(self) -> str:
        at = f", {self.rate:,.0f}/s" if self.rate else ""
        match self.kind:
            case "fan-out":
                return f"{self.senders}→{self.receivers:,}, {self.size} B{at}"
            case "echo":
                ahead = f", {self.in_flight} in flight" if self.in_flight > 1 else ""
                return f"{self.receivers:,} × {self.size} B{ahead}{at}"
            case "churn":
                return f"come and go, {self.receivers} at once{at}"
            case _:
                return f"{self.receivers:,} idle"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of one load. Times in seconds, memory in bytes; None: not known here."""

    subject: str
    load: Load
    per_second: float = 0.0
    """Messages that came, or clients that came and went."""
    processor: float | None = None
    """Seconds of processors that the server took for each million of these."""
    memory: float | None = None
    """That the server took more with the crowd than without; of idle clients: for each."""
    descriptors: int | None = None
    """That it has more than before when the crowd has gone."""
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """p50, p99, p99.9 of the latencies, counted from when each message was due."""
    busy: float = 0.0
    """The share of its processor that the busiest generator took."""
    late: float = 0.0
    """How much later than due the generator said a message, at most."""
    clock_error: float = 0.0
    """How wrong latencies may be, at most, where who says a message and who hears it have the clocks of different machines."""
    unsaid: int = 0
    """Messages that were due and that the server did not take, not even after the end: they are in no latency."""
    wrong: tuple[str, ...] = ()
    """What was not delivered as it ought to be."""
    cannot: str = ""
    """Why there are no figures; where that is the server's fault, it stands in `wrong`, too."""
    printed: str = ""
    """The last line of a server that ended, or never listened."""

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


async def measure(
    subject: Subject, load: Load, backend: Backend, pin: bool = True, patience: float = 1.0
) -> Measured:
    """Start the server, put it under load, end it. Raises LabError when the lab breaks, and TopologyError.

    `pin`: generators on processors of their own, the server on the others, where there are several. `patience` stretches every limit.
    """
    if why := subject.cannot(load):
        return Measured(subject=subject.name, load=load, cannot=why)
    service = subject.service
    names = [f"crowd{number + 1}" for number in range(load.agents)]
    nodes = [host_of(service, subject.topology), *(Node(name, service.networks) for name in names)]
    lab = await backend.lab(networks_of(nodes, subject.topology), nodes)
    printed: list[str] = []

    def record(kind: str, *_: Any, **data: Any) -> None:
        if kind == "log" and data["text"].strip():
            printed[:] = [data["text"]]

    server = Server("server", service, service.name, lab, subject.topology.root, patience, record)
    crowds: list[Crowd] = []
    try:
        await server.start()
        crowds = [Crowd(Agent(name, await lab.inside(name, "agent"), lambda _: None)) for name in names]
        if pin:
            await _pin(server, crowds)
        measured = await _Measurement(subject, load, lab, server, crowds, patience).run()
        return measured if server.running else replace(measured, printed="".join(printed))
    except NotReady as exc:
        told = "".join(printed)
        return Measured(subject=subject.name, load=load, cannot=str(exc), wrong=(str(exc),), printed=told)
    finally:
        for crowd in crowds:
            crowd.agent.close()
        server.close()
        await lab.stop()


class Crowd:
    """Clients of one agent that are one actor (clients/crowd/)."""

    def __init__(self, agent: Agent, name: str = "crowd") -> None:
        self.agent = agent
        self.name = name

    async def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        return await self.agent.ask("crowd", what=what, crowd=self.name, **arguments)

    async def gather(
        self, server: Server, to: Sequence[Any], count: int, greeting: Mapping[str, Any], limit: float
    ) -> tuple[int, str]:
        """Connect so many clients, not faster than the server accepts them, within `limit` seconds.

        How many are connected, and why no more are, if they are not all.
        """
        deadline = time.monotonic() + limit
        connected, what, room = 0, "open", await _room(server)
        while connected < count:
            wanted = min(count - connected, room)
            left = max(0.001, deadline - time.monotonic())
            reply = await self.ask(
                what, kind=server.service.protocol, to=to, count=wanted, limit=left, **greeting
            )
            if not reply["ok"]:
                raise LabError(f"the crowd cannot be opened: {reply['message']}")
            connected, what = reply["connected"], "more"
            if reply["failed"]:
                why = ", ".join(f"{number:,} {word}" for word, number in reply["failed"].items())
                may = f" (the client may have {reply['descriptors']:,}: ulimit -n)"
                return connected, why + (may if "no descriptor" in reply["failed"] else "")
            if not await _accepted(server, deadline):
                return connected, f"the server does not accept them within {limit:g}s"
        return connected, ""


async def _room(server: Server) -> int:
    """How many may connect at once: half of what may wait for accept(2), for the kernel drops who comes then."""
    if server.service.protocol == "udp" or not server.lab.reachable(server.node):
        return AT_ONCE
    backlog = max((row.tx_queue for row in await server.listening()), default=0)
    return max(1, min(AT_ONCE, backlog // 2)) if backlog else FEW_AT_ONCE


async def _accepted(server: Server, deadline: float) -> bool:
    """Wait until nobody waits for accept(2), as far as that can be known."""
    pause = 0.0005
    while await server.waiting():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause)  # the kernel does not tell
        pause = min(pause * 1.5, 0.02)
    return True


class _Measurement:
    """One load at one server."""

    def __init__(
        self,
        subject: Subject,
        load: Load,
        lab: Lab,
        server: Server,
        crowds: Sequence[Crowd],
        patience: float,
    ) -> None:
        self.subject = subject
        self.load = load
        self.crowds = crowds
        self.patience = patience
        self.speech = subject.speech(load.size)
        self.protocol = subject.service.protocol
        self.server = server
        self.to = [server.address, server.port]
        self.lab = lab
        self.clock_error = 0.0
        self.pid = server.program.pid if PROGRAMS in lab.can and server.program is not None else 0

    async def run(self) -> Measured:
        load = self.load
        before = self._held()
        if load.kind != "churn" and (trouble := await self._connect()):
            return Measured(subject=self.subject.name, load=load, cannot=trouble)
        if load.kind == "idle":
            return await self._idle(before)
        is_one = load.kind == "fan-out" and len(self.crowds) > 1
        spent = self._spent()
        try:
            replies = await (self._together() if is_one else self._each())
        except CommandRefused as exc:  # more than a generator can do; what was measured before stays
            return Measured(subject=self.subject.name, load=load, cannot=str(exc))
        spent = self._spent() - spent
        if refused := [reply for reply in replies if not reply["ok"]]:
            why = refused[0]["message"]
            # Who has not heard the first line yet has not been heard by a server that is slow, or wrong.
            found = (why,) if refused[0]["error"] == "unheard" else ()
            return Measured(subject=self.subject.name, load=load, cannot=why, wrong=found)
        held = self._held()
        await asyncio.gather(*(crowd.ask("close") for crowd in self.crowds if load.kind != "churn"))
        heard = sum(reply.get("heard", reply["delivered"]) for reply in replies)
        return Measured(
            subject=self.subject.name,
            load=load,
            per_second=sum(reply["delivered"] / reply["seconds"] for reply in replies),
            processor=spent / heard * 1e6 if self.pid and heard and self.server.running else None,
            memory=held.memory - before.memory if held and before else None,
            descriptors=await self._left_behind(before),
            percentiles=percentiles([pair for reply in replies for pair in reply["times"]])
            if load.rate or load.kind == "churn"
            else {},
            busy=max(reply["busy"] for reply in replies),
            late=max(reply["late_us"] for reply in replies) / 1e6,
            clock_error=self.clock_error,
            unsaid=sum(reply.get("unsaid", 0) for reply in replies),
            wrong=(*wrong(replies, self.protocol), *(() if self.server.running else (self.server.end,))),
        )

    async def _connect(self) -> str:
        """Open the crowds. Why it could not be done; or nothing."""
        load, total = self.load, 0
        for number, crowd in enumerate(self.crowds):
            senders = load.senders if number == 0 else 0
            count = _share(load.receivers, number, len(self.crowds)) + senders
            limit = JOIN_LIMIT * self.patience
            greeting = {**self.speech.greeting(senders), "first": total}
            connected, why = await crowd.gather(self.server, self.to, count, greeting, limit)
            total += connected
            if why:
                return f"{total:,} of {load.members:,} clients connected: {why}"
        return ""

    async def _each(self) -> list[dict[str, Any]]:
        """Each crowd has its share of the load."""
        return await asyncio.gather(
            *(crowd.ask(self.load.kind, **self._told(number)) for number, crowd in enumerate(self.crowds))
        )

    async def _together(self) -> list[dict[str, Any]]:
        """All crowds make one load, of what goes to all: the first one speaks and listens, the others listen."""
        asked: dict[str, Any] = {}
        while True:
            replies = await asyncio.gather(
                *(
                    crowd.ask("meet", **self._told(number), **asked)
                    for number, crowd in enumerate(self.crowds)
                )
            )
            if not all(reply["ok"] for reply in replies):
                return replies
            if not (missing := {sender for reply in replies for sender in reply["missing"]}):
                break
            asked = {"asked": sorted(missing)}
        # An agent's answers bear the time of its machine, or, where there are several, that of ours.
        clocks, begin = self.lab.clocks(), max(reply["t"] for reply in replies) / 1e9 + BEGINS
        self.clock_error = max((clock.error for clock in clocks.values()), default=0) / 1e9
        ahead = [
            clocks[crowd.agent.node].ahead / 1e9 if crowd.agent.node in clocks else 0.0
            for crowd in self.crowds
        ]
        replies = await asyncio.gather(
            *(crowd.ask("fan-out", at=begin + more) for crowd, more in zip(self.crowds, ahead, strict=True))
        )
        # Those who only listen take for said what was due. What the server did not take, or a sender that it dropped did not say, is not lost.
        if all(reply["ok"] for reply in replies):
            said = sum(reply["said"] for reply in replies)
            for reply in replies:
                reply["lost"] -= (reply["owed"] - said) * reply["receivers"]
        return replies

    def _told(self, number: int) -> dict[str, Any]:
        """The load, as the crowd of this number takes it."""
        load, count = self.load, len(self.crowds)
        rate = load.rate if load.kind == "fan-out" else load.rate / count
        told: dict[str, Any] = {"seconds": load.seconds, "ramp": RAMP, "rate": rate}
        match load.kind:
            case "echo":
                told |= {"size": load.size, "in_flight": load.in_flight}
            case "churn":
                told |= {
                    "kind": self.protocol,
                    "to": self.to,
                    "at_once": _share(load.receivers, number, count),
                }
                # Its number tells a client its own answer from what others say; in a short text it has no room.
                text = "{number}".ljust(load.size + 1, "x") if load.size > 6 else "x" * max(1, load.size - 1)
                told |= {"hello": text + "\n", "until": text}
            case _:
                # The newline is the text's, as a line is counted; a datagram has none.
                size = load.size - (self.protocol == "tcp" and not self.speech.say)
                told |= {"senders": load.senders, "size": size, "limit": FIRST_LIMIT * self.patience}
                told |= {"elsewhere": number > 0, **self.speech.around()}
        return told

    async def _idle(self, before: holdings.Holdings | None) -> Measured:
        """What the server holds for clients who say nothing, once it has taken them all in."""
        load = self.load
        deadline = time.monotonic() + SETTLED * self.patience
        held = self._held()
        while held and before and time.monotonic() < deadline:
            if held.descriptors - before.descriptors >= load.receivers or self.protocol == "udp":
                break
            await asyncio.sleep(0.05)  # nothing tells when a server has accepted
            held = self._held()
        memory = (held.memory - before.memory) / load.receivers if held and before else None
        replies = await asyncio.gather(*(crowd.ask("look") for crowd in self.crowds))
        there = sum(reply["there"] for reply in replies)
        await asyncio.gather(*(crowd.ask("close") for crowd in self.crowds))
        return Measured(
            subject=self.subject.name,
            load=load,
            per_second=there,
            memory=memory,
            descriptors=await self._left_behind(before),
            wrong=(f"{load.receivers - there} of {load.receivers} were not kept",)
            if there < load.receivers
            else (),
        )

    def _held(self) -> holdings.Holdings | None:
        try:
            return holdings.read(self.pid) if self.pid else None
        except PermissionError:
            return None

    def _spent(self) -> float:
        return processor_time(self.pid) if self.pid else 0.0

    async def _left_behind(self, before: holdings.Holdings | None) -> int | None:
        """Descriptors that stay when the crowd has gone, after a moment for the server to notice."""
        deadline = time.monotonic() + SETTLED * self.patience
        while before and (held := self._held()):
            more = held.descriptors - before.descriptors
            if more <= 0 or time.monotonic() > deadline:
                return more
            await asyncio.sleep(0.02)
        return None


def processor_time(pid: int) -> float:
    """Seconds that a process, those below it, and those of them that have ended and been waited for have had of processors.

    The clock of a process counts in nanoseconds (clock_getcpuclockid(3)), where /proc tells full ticks of 10 ms: a hundred children of
    9 ms each would have had nothing. What goes uncounted: a child that nobody waits for (SIGCHLD ignored), and one that has been given
    to another parent, because its own has ended.
    """
    spent = 0.0
    for each in holdings.tree(pid):
        try:
            spent += time.clock_gettime(~each << 3 | _SCHEDULED)
            spent += sum(int(field) for field in holdings.stat(each)[13:15]) * _TICK
        except OSError:
            continue
    return spent


async def _pin(server: Server, crowds: Sequence[Crowd]) -> None:
    """The generators on the last processors, the server on the others; nothing where there is but one."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        return
    of_crowds = processors[-min(len(crowds), len(processors) - 1) :]
    for number, crowd in enumerate(crowds):
        await crowd.agent.ask("pin", processors=[of_crowds[number % len(of_crowds)]])
    if server.program is not None and server.program.pid:
        left = [processor for processor in processors if processor not in of_crowds]
        for pid in holdings.tree(server.program.pid):
            with suppress(OSError):  # it has ended meanwhile
                for task in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setaffinity(int(task), left)


def wrong(replies: Sequence[dict[str, Any]], protocol: str) -> list[str]:
    """What crowds say was not as it ought to be. No order is owed to datagrams."""
    faults = ("lost", "doubled", "damaged", *(("reordered",) if protocol == "tcp" else ()))
    total = {what: sum(reply.get(what, 0) for reply in replies) for what in faults}
    found = [f"{number:,} {what}" for what, number in total.items() if number]
    ended: dict[str, int] = {}
    for reply in replies:
        for why, number in {**reply.get("gone", {}), **reply.get("failed", {})}.items():
            ended[why] = ended.get(why, 0) + number
    ended.pop("damaged", None)  # an echo says so already
    found += [f"{number:,} client{'s' if number > 1 else ''}: {why}" for why, number in ended.items()]
    if found and (example := next((reply["example"] for reply in replies if reply.get("example")), "")):
        found.append(f"the first: {example}")
    return found


def percentiles(times: Sequence[tuple[int, int]]) -> dict[str, float]:
    """p50, p99, p99.9 and the longest, in seconds, of (microseconds, how often)."""
    ordered = sorted((us, count) for us, count in times)
    total = sum(count for _, count in ordered)
    wanted = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    found: dict[str, float] = {}
    passed = 0
    for us, count in ordered:
        passed += count
        for name, share in wanted.items():
            if name not in found and passed >= share * total:
                found[name] = us / 1e6
    return found


def _share(whole: int, number: int, of: int) -> int:
    return whole // of + (number < whole % of)


def _wire(data: bytes) -> Any:
    """As an agent's crowd takes bytes: a text, or {"base64": …}."""
    told = to_wire(data)
    return told.get("text", told)


def of_service(name: str, topology: Topology) -> Subject:
    """A service of the compose file. Raises TopologyError."""
    service = topology.service(name).judged_as(None)
    return Subject(name, topology, service, speech_of(service.contract))
