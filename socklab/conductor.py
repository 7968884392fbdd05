"""The conductor plays one scenario: it makes a lab, does the steps in order, and says what came of it.

A step is done when its effect is confirmed, and everything that happens on the way is an event of the history. Waiting is on
events, with a limit; nothing here sleeps for luck.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from socklab import causes, faults, page
from socklab.agents import Agent
from socklab.backends import (
    IMAGES,
    IPV6,
    LINKS,
    NETWORKS,
    PROGRAMS,
    Backend,
    Lab,
    LabError,
    Lacking,
    Network,
    Node,
)
from socklab.capture import Capture
from socklab.diagram import drawn
from socklab.dialect import CHUNKS, PLAIN
from socklab.history import Event, History, to_wire
from socklab.judge import ASSERTING, JOIN_GRACE, LIMIT, Failed, Judge, Limit
from socklab.language import FAULT_VERBS, LINK_VERBS
from socklab.links import Change, Links
from socklab.load import Crowd, percentiles, speech_of, wrong
from socklab.matching import DATAGRAM, LINE, STREAM, Inbox
from socklab.scenario import ConnectOptions, LoadOptions, Payload, Scenario, Step, expand
from socklab.servers import STOP_LIMIT, NotReady, Server
from socklab.sockets import Socket, as_seen
from socklab.topology import Service, Topology, TopologyError
from socklab.verdict import Failure, Result, Verdict, server_log

FLOOD = 8 << 20  # bytes, and eight times what was said to each client: a guest that sends more is ended
FEW = 4  # clients of whom the server's kernel is asked when they got too little
TELLING = 10_000  # events before a failure among which its cause is looked for; rules hold all that was said against all that came
ACCEPT_LIMIT = 0.25  # seconds until a connection that nobody accepts is taken to wait in the queue
ETHERNET_SEGMENT = (
    1448  # bytes; loopback's own 64 KiB do not fit into the small buffer of a client that stalls
)
STALLED_BUFFER = 4096  # bytes of receive buffer of a client that stalls


ECHOES = ("echo", "udp-echo")  # contracts: who speaks hears, and nobody else
DAY = 86400.0
BEGUN = 10.0  # seconds for all of a crowd to hear the first lines of a load, unless the step says
GATHERED = 30.0  # seconds for a crowd to connect, unless the step gives more
NAMED_GAP = 0.1  # seconds for a server to take in a name, or a line that it sends to nobody: nothing tells when it has
SETTLED = 1.0  # seconds for a server to read a line that it sends to nobody
LONG_GAP = JOIN_GRACE * 1.1  # seconds after which whoever connected has joined
PROCESS_VERBS = {"kill", "stop", "pause", "continue", "restart", "steady"}


Undo = Callable[[], Coroutine[Any, Any, None]]
T = TypeVar("T")


@dataclass
class _Client:
    name: str
    agent: Agent
    inbox: Inbox
    of: int = 0
    """It is a crowd of so many."""
    open: bool = False
    six: bool = False
    """Its socket is one of IPv6."""


@dataclass(kw_only=True)
class Options:
    """How to play. `patience` stretches every limit; `seed` decides what chance does to packets; `ipv6`: clients reach servers by IPv6;
    `gap` is the time in seconds from a connect to what is said next, `replay` whether a failure that a longer gap could mend is played
    again with one; `longest` bounds what a step may take, whatever it says; `runs` is where each run gets its folder (None: nowhere)."""

    patience: float = 1.0
    seed: int = 1
    ipv6: bool = False
    gap: float = 0.0
    replay: bool = True
    longest: float | None = None
    runs: Path | None = None
    capture: bool = True
    """Leave the packets of a run beside its history."""
    on_event: Callable[[Event], None] | None = None
    on_history: Callable[[History], None] | None = None
    """Told when the file of a play's history has been made: for a play that is played again, once more."""


def check(scenario: Scenario, topology: Topology) -> None:
    """Whether a scenario and a compose file fit together. Raises ScenarioError or TopologyError, before anything starts."""
    service = topology.service(scenario.service).judged_as(scenario.contract)
    for name in scenario.services:
        topology.service(name)
    _check_links(scenario, topology, service)
    _check_loads(scenario, service)
    scenario.require_connections(datagrams=service.framing == DATAGRAM)
    for client in scenario.clients:
        for network in client.networks:
            if network not in topology.networks:
                known = ", ".join(sorted(topology.networks))
                raise TopologyError(
                    f'{scenario.path}: {client.name} is on network "{network}"; {topology.path.name} has {known}'
                )
        if client.name in (service.name, *scenario.services):
            raise TopologyError(
                f'{scenario.path}: the client "{client.name}" has the name of a service; choose another'
            )


def _check_links(scenario: Scenario, topology: Topology, server: Service) -> None:
    """Where two hosts have no network in common, there is no link on which a fault could be."""
    networks = {
        "server": server.networks,
        **{name: topology.service(name).networks for name in scenario.services},
    }
    for client in scenario.clients:
        own = client.networks or topology.client_networks or server.networks
        networks[client.name] = networks[client.beside] if client.beside else own
    for step in scenario.walk():
        if step.verb in FAULT_VERBS and step.verb not in ("partition", "isolate"):
            for a, b in step.links:
                if not set(networks[a]) & set(networks[b]):
                    raise TopologyError(
                        f"{scenario.path}:{step.line}: there is no link from {a} to {b}: they have no network in common"
                    )


def _check_loads(scenario: Scenario, server: Service) -> None:
    """What is asked of a crowd, and what this server's contract has."""
    echo = server.contract in ECHOES
    for step in scenario.walk():
        at = f"{scenario.path}:{step.line}"
        for name, load in step.loads:
            if echo and load.senders > 1:
                raise TopologyError(
                    f"{at}: senders are of a chat or a registry; to {server.name} all of {name} speak"
                )
            if not echo and load.in_flight > 1:
                raise TopologyError(
                    f"{at}: in-flight is of an echo; {server.name} brings what is said to all"
                )
        inside = [entry for inner in step.walk() for entry in inner.loads]
        if not echo and len(inside) > 1 and step.verb in ("load", "together"):
            raise TopologyError(
                f"{at}: {inside[0][0]} and {inside[1][0]} would hear each other's lines; let one load at a time be at {server.name}"
            )


async def play(
    scenario: Scenario, topology: Topology, backend: Backend, options: Options | None = None
) -> Result:
    """Play a scenario once, and once more with a longer gap where its failure could be a race that the server may lose.

    Raises ScenarioError and TopologyError for what does not fit together; all else is in the result.
    """
    check(scenario, topology)
    options = options or Options()
    began = time.monotonic()
    result, raced = await Play(scenario, topology, backend, options).run()
    if raced and options.replay:
        second, _ = await Play(scenario, topology, backend, replace(options, gap=LONG_GAP)).run()
        note = "a line said within a second of a connect passed a client by, as it may (chat.4); played again with a longer gap"
        result = replace(second, notes=(note,)) if second.verdict is Verdict.PASS else second
    return replace(result, seconds=time.monotonic() - began)


class Play:
    """One play: a lab of its own, from its start to its end."""

    def __init__(self, scenario: Scenario, topology: Topology, backend: Backend, options: Options) -> None:
        self.scenario = scenario
        self.topology = topology
        self.backend = backend
        self.options = options
        self.gap = options.gap
        self.patience = options.patience
        self.limit = LIMIT * options.patience
        self.services = {
            "server": topology.service(scenario.service).judged_as(scenario.contract),
            **{name: topology.service(name).judged_as(None) for name in scenario.services},
        }
        self.service = self.services["server"]
        self.framing = self.service.framing
        self.guest = self.service.guest
        self.dialect = self.guest.dialect if self.guest else PLAIN
        self.over = {o.over for step in scenario.walk() for _, o in step.connects if o.over}
        self.ipv6 = options.ipv6 or "ipv6" in self.over
        """Whether there is IPv6 in this lab; IPv4 always is."""
        self.hosts, self.nodes = self._lay_out()
        self.history = History()
        self.judge = Judge(scenario, self.framing, self.dialect)
        self.clients: dict[str, _Client] = {}
        self.agents: dict[str, Agent] = {}
        self.servers: dict[str, Server] = {}
        self.links: Links
        self.capture: Capture | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.folder: Path | None = None
        self._lab: Lab | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._came = 0
        """Bytes that clients got."""
        self._said = 0
        """Bytes that clients said, times how many they are."""
        self._flooded = False
        self._over = False
        self._called: dict[str, str] = {}
        self._ports: dict[str, tuple[int, int]] = {}
        """Of each client's latest connection: its own port and the server's."""
        self._step: Step | None = None

    @property
    def lab(self) -> Lab:
        assert self._lab is not None, "there is no lab before set_up()"
        return self._lab

    # ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> tuple[Result, bool]:
        """The result, and whether it is a failure that a longer gap might mend."""
        raced = False
        try:
            await self.set_up()
            await self._steps(self.scenario.steps, "")
            await self.conclude()
            result = self._result(Verdict.PASS)
        except Exception as exc:
            raced = isinstance(exc, Failed) and exc.raced and not self.gap
            result = await self.came_to(exc)
        finally:
            # Also when this task is cancelled: what was made goes first.
            missing = await self.tear_down()
        return self._noted(result, missing), raced

    async def set_up(self) -> None:
        """The lab, its servers ready, its agents there. Raises NotReady, LabError, and Lacking for what this backend cannot."""
        if reason := self._cannot(self.backend.can):
            raise Lacking(reason)
        self._make_folder()
        self._lab = lab = await self.backend.lab(self._networks(), list(self.nodes.values()))
        names = {host: "server" if host == self.service.name else host for host in self.nodes}
        self.links = Links(lab, self.nodes.values(), names, self.options.seed, self._packet, self.ipv6)
        if reason := self._cannot_here(lab):
            raise Lacking(reason)
        await self._prepare()

    async def conclude(self) -> None:
        """When all steps are done: what is only known at the end. Raises Failed and LabError."""
        await self._last_look()
        for task in self._ending:
            if task.done():
                task.result()  # a fault that could not be undone
        await self._count()

    async def came_to(self, exc: Exception) -> Result:
        """The result of a play that an exception has ended."""
        match exc:
            case NotReady():
                step = self._step  # a restart; None: it never came up
                failure = Failure(
                    f"{self.scenario.path}:{step.line if step else 1}",
                    step.text if step else f"start of {self.scenario.service}",
                    "a server that listens",
                    str(exc),
                    server_log(self.history),
                    causes.of_start(self.history, str(exc)) if self.guest else "",
                    start=step is None,
                )
                return self._result(Verdict.FAIL, str(exc), failure)
            case Failed():
                await self._last_words(exc)
                return self._result(Verdict.FAIL, str(exc), self._failure(exc))
            case Lacking():
                return self._result(Verdict.SKIP, str(exc))
            case LabError():
                where = f"{self.scenario.path}:{self._step.line}: " if self._step else ""
                whole = await self._lab.diagnosis() if self._lab is not None else ""
                return self._result(Verdict.ERROR, f"{where}{whole or exc}")
            case OSError():
                return self._result(Verdict.ERROR, f"{exc.filename or 'the lab'}: {exc.strerror or exc}")
            case _:  # a defect of ours is never the server's fault, and no traceback for the user
                return self._result(
                    Verdict.ERROR,
                    f"a defect in socklab itself ({type(exc).__name__}: {exc}){self._keep_traceback()}",
                )

    async def tear_down(self) -> tuple[str, ...]:
        """End all that was made, and leave the packets and the report. What could not be left, in words."""
        missing = await _unhurried(self._keep_packets()) if self.capture is not None else ""
        for agent in self.agents.values():
            agent.close()
        await _end(self._ending)
        for server in self.servers.values():
            server.close()
        if self._lab is not None:
            self.links.close()
            await _unhurried(self._lab.stop())
        self.history.close()
        lacking = await _unhurried(asyncio.to_thread(self._write_report))  # other plays go on meanwhile
        return tuple(filter(None, (missing, lacking)))

    def _noted(self, result: Result, missing: tuple[str, ...]) -> Result:
        """With what could not be kept of the play."""
        result = replace(result, notes=(*result.notes, *missing))
        if self.history.write_error and result.verdict is Verdict.PASS:
            exc = self.history.write_error
            return replace(
                result,
                verdict=Verdict.ERROR,
                reason=f"{self.folder}/history.jsonl: {exc.strerror}; free some space, or play with --runs elsewhere",
            )
        return result

    def _cannot(self, can: frozenset[str]) -> str:
        """What the scenario needs and this backend does not have, with the remedy; or nothing."""
        verbs = {step.verb for step in self.scenario.walk()}
        name = self.backend.name
        if NETWORKS not in can and any(client.networks for client in self.scenario.clients):
            return f"needs networks of its own, and the backend {name} has none: play it --on netns"
        if PROGRAMS not in can and self.guest is not None:
            asked = any(who in self.services for step in self.scenario.walk() for who, _ in step.expects)
            if self.scenario.fresh or asked or verbs & PROCESS_VERBS or "sockets" in verbs:
                return "needs to start the server, or to look into it, and this one runs already: give its command instead of its address"
        elif PROGRAMS not in can:
            if self.scenario.fresh:
                return "needs a server that nobody used before, and these servers serve one play after another: play it --on docker, on the host"
            if needed := verbs & PROCESS_VERBS:
                return f"needs a server that can be started and ended ({', '.join(sorted(needed))}), and these servers run in containers that are not ours: play it --on docker, on the host"
            if any(who in self.services for step in self.scenario.walk() for who, _ in step.expects):
                return "reads the server's log or exit status, and its container is not ours: play it --on docker, on the host"
        if self.guest is not None and self.guest.loopback:
            if faulty := verbs & set(LINK_VERBS):
                return (
                    f"needs link faults ({', '.join(sorted(faulty))}), and with --loopback there is no link"
                )
            if self._asks_the_wire:
                return "needs to see the wire, and with --loopback there is none"
        if LINKS not in can and verbs & set(LINK_VERBS):
            return f"needs link faults ({', '.join(sorted(verbs & set(LINK_VERBS)))}), and the backend {name} has none: play it --on netns"
        if self.ipv6 and IPV6 not in can:
            return f"needs networks with IPv6, and the backend {name} has none: play it --on netns"
        if LINKS not in can and self._asks_the_wire:
            return f"needs to see the wire, and the backend {name} has none: play it --on netns"
        if reason := self._not_in_this_dialect():
            return reason
        for service in self.services.values():
            if self.guest is not None and self.guest.at is not None:
                continue
            if not service.command and IMAGES not in can:
                return f'service "{service.name}" has no command in {self.topology.path.name}: its image brings it: play it --on docker'
            if service.protocol == "unix" and any(
                self.hosts[c.name] != self.hosts["server"] for c in self.scenario.clients
            ):
                return f"{service.name} listens on an AF_UNIX socket, which only programs on its own host reach: give each client beside: server"
        return ""

    def _not_in_this_dialect(self) -> str:
        payloads = [p for step in self.scenario.walk() for _, each in step.sends for p in each]
        return self.dialect.lacks(
            raw=any(p.text is None for p in payloads),
            cut=any(p.pieces for p in payloads),
            quits=any(p.text is None and re.search(rb"(?m)^quit\r?$", p.raw) for p in payloads),
        )

    @property
    def _asks_the_wire(self) -> bool:
        return any(name == "wire" for step in self.scenario.walk() for name, _ in step.expects)

    def _cannot_here(self, lab: Lab) -> str:
        """What needs rules, or a client, on a node of this lab on which nothing can be run."""
        gates = "start the gates: docker compose --profile experiments up"
        for client in self.scenario.clients:
            if not lab.reachable(self.hosts[client.name]):
                return f"needs {client.name} on the server's own host, where its gate is; {gates}"
        for step in self.scenario.walk():
            faulty = self._hosts(step.links) if step.verb in FAULT_VERBS else []
            if self._asks_the_wire and any(not lab.reachable(receiver) for _, receiver in faulty):
                # What is cut towards such a server is gone before a capture sees it.
                return f"looks at the wire to a server that is cut off, where its gate does that; {gates}"
            asked = [self.hosts[who] for who, _, _ in step.sockets]
            if any(not lab.reachable(host) for host in asked):
                return f"asks the kernel of a server, which its gate does; {gates}"
            if step.verb in ("unplug", "plug") and any(not lab.reachable(self.hosts[n]) for n in step.names):
                return f"needs to unplug a server, which its gate does; {gates}"
        return ""

    def _make_folder(self) -> None:
        """runs/<time>-<name>/ for this play. Raises LabError with the way out."""
        if self.options.runs is None:
            return
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = "".join(c if c.isalnum() or c in "-._" else "-" for c in self.scenario.label).strip("-")
        for attempt in range(1000):
            folder = self.options.runs / (f"{stamp}-{name}" + (f"-{attempt + 1}" if attempt else ""))
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if folder.is_dir():
                    continue
                raise LabError(
                    f"{self.options.runs}: is no folder; name another with --runs, or --no-runs"
                ) from None
            except OSError as exc:
                raise LabError(
                    f"{folder}: cannot be made: {exc.strerror}; name another place with --runs, or --no-runs"
                ) from None
            self.folder = folder
            try:
                self.history = History(folder / "history.jsonl")
            except OSError as exc:
                folder.rmdir()
                raise LabError(
                    f"{folder}/history.jsonl: cannot be written: {exc.strerror}; name another place with --runs, or --no-runs"
                ) from None
            if self.options.on_history:
                self.options.on_history(self.history)
            return
        raise LabError(f"{self.options.runs}: too many runs of {name} in this second")

    def _result(self, verdict: Verdict, reason: str = "", failure: Failure | None = None) -> Result:
        line = int(failure.where.rpartition(":")[2]) if failure else (self._step.line if self._step else 0)
        told = {k: getattr(failure, k) for k in ("expected", "got", "cause")} if failure else {}
        self._tell_clocks()
        self._record("verdict", verdict=str(verdict), reason=reason, line=line, **told)
        self._over = True
        self._write_logs()
        return Result(
            self.scenario,
            self.backend.name,
            verdict,
            reason,
            failure,
            folder=self.folder,
            events=self.history,
        )

    def _write_report(self) -> str:
        """The drawing of what happened, beside its history, also of a play that was broken off. What is wrong with it, in words."""
        if self.folder is None or len(self.history) < 2:
            return ""
        try:
            text = page.report(drawn(self.history, page.MOST))
            (self.folder / "report.html").write_text(text, encoding="utf-8")
        except OSError:
            pass  # the disk is full: the history says so
        except Exception as exc:  # what came of the play is known all the same
            return (
                f"no report: a defect in socklab itself ({type(exc).__name__}: {exc}){self._keep_traceback()}"
            )
        return ""

    def _keep_traceback(self) -> str:
        import traceback

        if self.folder is None:
            return "; play it again with --runs DIR to keep the traceback"
        place = self.folder / "defect.txt"
        try:
            place.write_text(traceback.format_exc())
        except OSError as exc:
            return f"; its traceback could not be kept: {exc.strerror}"
        return f"; please report it with {place}"

    def _write_logs(self) -> None:
        """The servers' own output, as they printed it, beside the history."""
        if self.folder is None:
            return
        for name in self.servers:
            lines = (str(e.data["text"]) for e in self.history if e.kind == "log" and e.node == name)
            try:
                with (self.folder / f"{name}.log").open(
                    "w", encoding="utf-8", errors="surrogateescape"
                ) as file:
                    file.writelines(line + "\n" for line in lines)
            except OSError as exc:
                self.history.write_error = self.history.write_error or exc

    # ── the lab ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _lay_out(self) -> tuple[dict[str, str], dict[str, Node]]:
        """Which host each client and server lives on, and the hosts. Clients beside one another share theirs."""
        hosts = {name: service.name for name, service in self.services.items()}
        nodes = {
            s.name: Node(s.name, s.networks, s.aliases, self.topology.path.resolve())
            for s in self.services.values()
        }
        for client in self.scenario.clients:
            beside = "server" if self.guest is not None and self.guest.loopback else client.beside
            hosts[client.name] = hosts[beside] if beside else client.name
            if beside is None:
                networks = client.networks or self.topology.client_networks or self.service.networks
                nodes[client.name] = Node(client.name, networks)
        return hosts, nodes

    def _networks(self) -> list[Network]:
        used = {network for node in self.nodes.values() for network in node.networks}
        return [
            Network(name, internal, self.ipv6)
            for name, internal in self.topology.networks.items()
            if name in used
        ]

    async def _prepare(self) -> None:
        """Servers up and ready, agents there."""
        self._record(
            "play",
            scenario=self.scenario.source.text,
            path=str(self.scenario.path),
            title=self.scenario.title,
            service=self.scenario.service,
            values=dict(self.scenario.values),
            backend=self.backend.name,
            framing=self.framing,
            clients=[c.name for c in self.scenario.clients],
            nodes={
                name: self.lab.address(host, six=self.options.ipv6)
                for name, host in self.hosts.items()
                if self.nodes[host].networks
            },
            networks={name: list(self.nodes[host].networks) for name, host in self.hosts.items()},
            patience=self.patience,
            seed=self.options.seed,
            gap=self.gap,
            dialect=self.dialect.as_data(),
        )
        self._tell_clocks()
        for name, service in self.services.items():
            self.servers[name] = Server(
                name,
                service,
                service.name,
                self.lab,
                self.topology.root,
                self.patience,
                self._record,
                self.options.ipv6,
                "::"
                if self.ipv6
                else None,  # both families, as Linux has it by default (ipv6(7), IPV6_V6ONLY)
            )
        hosts = dict.fromkeys(self.hosts[client.name] for client in self.scenario.clients)
        await _all(
            [
                *(server.start() for server in self.servers.values()),
                *(self._start_agent(host) for host in hosts),
                self.links.prepare(self._link_faults(self.scenario.walk())),
                self._begin_capture(),
            ]
        )
        for client in self.scenario.clients:
            agent = self.agents[self.hosts[client.name]]
            self.clients[client.name] = _Client(
                client.name, agent, self.judge.inboxes[client.name], client.of
            )
        if self.framing == DATAGRAM:
            await _all(
                self._open_datagram(client, ConnectOptions())
                for client in self.clients.values()
                if not client.of
            )

    def _tell_clocks(self) -> None:
        """How exactly the times of hosts on other machines are known."""
        for host, apart in (self._lab.clocks() if self._lab is not None else {}).items():
            side = "behind" if apart.ahead < 0 else "ahead of"
            steps = f", which was set or slewed ({apart.steps} times found where it could not be)"
            text = (
                f"is on another machine ({apart.host}), whose clock is {abs(apart.ahead) / 1e9:.6f} s {side} ours"
                f"{steps if apart.steps else ''}; its times are told by ours, ± {apart.error / 1e6:.3f} ms"
            )
            facts = {"ahead": apart.ahead, "error": apart.error, "rounds": apart.rounds, "steps": apart.steps}
            self._record("note", self.links.names.get(host, host), text=text, clock=facts)

    async def _start_agent(self, host: str) -> None:
        stream = await self.lab.inside(host, "agent")
        self.agents[host] = Agent(host, stream, self._agent_event)

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, kind: str, node: str = "", t: int | None = None, **data: Any) -> Event:
        event = Event(time.monotonic_ns() if t is None else t, kind, node, data)
        if self._over:
            return event  # what the end of the lab does to its programs is no part of the play
        self.history.add(event)
        self.judge.feed(event)
        if self.options.on_event:
            self.options.on_event(event)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        return event

    def _agent_event(self, message: dict[str, Any]) -> None:
        client, kind, t = str(message.pop("client", "")), str(message.pop("event")), int(message.pop("t", 0))
        if kind == "error" and self.framing != DATAGRAM:
            message["closed"] = True
        if kind == "received" and self._flooded:
            return  # what was under way when the flood was ended: megabytes for each connection
        event = self._record(kind, client, t or None, **message)
        if kind == "received" and self.guest is not None:
            self._came += len(event.content)
            if self._came > FLOOD + 8 * self._said and not self._flooded and self.servers["server"].running:
                self._flooded = True
                self.servers["server"].end_for(
                    f"sent {self._came >> 20} MiB, where {self._said:,} bytes had been said to it"
                )

    def _packet(self, message: dict[str, Any]) -> None:
        """What a gate tells of a packet that did not just pass."""
        sender, _, receiver = message["link"].partition("→")
        facts = {k: v for k, v in message.items() if k not in ("event", "t", "link") and v is not None}
        self._record("packet", t=message["t"], **{"from": sender, "to": receiver}, **facts)

    async def _count(self) -> None:
        """What the gates counted, where there were any."""
        if counts := await self.links.counts():
            self._record("counted", links=counts)

    async def _begin_capture(self) -> None:
        """Read all packets from here on, where that is possible and somebody wants them."""
        asked = self._asks_the_wire
        wanted = asked or (self.folder is not None and self.options.capture)
        if not wanted or LINKS not in self.lab.can:
            return
        if not asked and any(client.of for client in self.scenario.clients):
            self._record("note", text="no capture: a crowd says too much (expect: {wire: …} asks for one)")
            return
        addresses = [
            address
            for host, node in self.nodes.items()
            for network in node.networks
            if self.lab.reachable(host)
            for address in self._addresses(host, network)
        ]
        local = {self.hosts[client.name] for client in self.scenario.clients if client.beside}
        capture = Capture(self._wire, self.folder if self.options.capture else None)
        try:
            await capture.begin(self.lab, addresses, sorted(local))
        except LabError as exc:
            capture.close()
            if asked:
                raise Lacking(f"needs to see the wire: {exc}") from None
            self._record("note", text=f"no capture: {exc}")
            return
        self.capture = capture

    def _wire(self, message: dict[str, Any]) -> None:
        """What a capture tells of TCP."""
        facts = {k: v for k, v in message.items() if k not in ("event", "t", "node")}
        for end in ("from", "to"):
            facts[end] = self._host_of(message[end], message["node"])
        self._record(message["event"], t=message["t"], **facts)

    def _host_of(self, address: str, seen_by: str) -> str:
        """What the host with this address is called; somebody outside the lab by the address itself."""
        if not self._called:
            self._called = {
                address: self.links.names[host]
                for host, node in self.nodes.items()
                for network in node.networks
                for address in self._addresses(host, network)
            }
        if address.startswith("127.") or address == "::1":
            return self.links.names[seen_by]
        return self._called.get(address, address)

    def _addresses(self, host: str, network: str) -> list[str]:
        """All of a host's on a network."""
        return [self.lab.address(host, network, six) for six in ([False, True] if self.ipv6 else [False])]

    async def _hear_packets(self) -> None:
        """Afterwards the history has all that was on the wire before: nothing is told behind a verdict."""
        if self.capture is not None:
            with contextlib.suppress(LabError):  # that it is broken is told at the end
                await self.capture.sync()

    async def _keep_packets(self) -> str:
        """Leave them beside the history, also of a play that was broken off. What is missing, in words."""
        assert self.capture is not None
        try:
            lost = await self.capture.finish()
            if self.folder is not None and self.options.capture:
                self.capture.write(self.folder / "capture.pcapng", self.history, self.links.names)
            return f"the capture missed {lost} packets" if lost else ""
        except LabError as exc:
            return f"no capture: {exc}"
        except OSError as exc:
            return f"no capture: {exc.strerror}"
        finally:
            self.capture.close()

    async def _until(self, done: Callable[[], bool], limit: float) -> bool:
        """Wait for events until `done()`, at most `limit` seconds. Whether it came to be."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while not done():
            left = deadline - loop.time()
            if left <= 0:
                return False
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._waiters.discard(waiter)
        return True

    async def _sync(self, clients: Iterable[str] | None = None) -> None:
        """Afterwards the history has all that the clients' kernels had received before."""
        wanted = [self.clients[c].agent for c in clients] if clients is not None else self.agents.values()
        await _all(agent.ask("sync") for agent in dict.fromkeys(wanted))

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _steps(self, steps: Sequence[Step], path: str) -> None:
        for number, step in enumerate(steps, 1):
            if step.verb not in ASSERTING and (watched := _to_be_quiet(steps[number:])):
                await self._sync(watched)  # what has come before this step shall not be taken for its effect
            await self._one(step, f"{path}{number}")

    async def _one(self, step: Step, path: str) -> None:
        self._tell_step(step, path, "begin")
        self._step = step
        try:
            undo = await self._do(step, path)
            if step.during:
                await self._steps(step.during, f"{path}.")
            if undo is not None and step.lasts is not None:
                self._later(step.lasts, undo)
            elif undo is not None and step.during:
                await undo()
        except Failed as exc:
            exc.step = exc.step or step
            self._tell_step(step, path, "failed")
            raise
        except (LabError, asyncio.CancelledError):
            self._tell_step(step, path, "broken off")
            raise
        self._tell_step(step, path, "end")

    def _tell_step(self, step: Step, path: str, phase: str) -> None:
        self._record("step", line=step.line, path=path, verb=step.verb, text=step.text, phase=phase)

    async def _do(self, step: Step, path: str) -> Undo | None:
        """Do a step; what undoes it, where it is one that can be undone."""
        limit = self._limit(step, LIMIT)
        match step.verb:
            case "connect":
                # One after another, so that an iterative server takes the first one first; then all must be accepted.
                reached = []
                for name, options in step.connects:
                    if self.clients[name].of:
                        await self._gather(self.clients[name], options, self._gathering(limit))
                        continue
                    pair = await self._connect(self.clients[name], options, limit)
                    reached.append(pair)
                    if pair and pair[1] is self.servers["server"]:
                        await self._introduce(
                            pair[0]
                        )  # now: a server may wait for a name before it accepts the next
                await _all(self._accepted(*pair) for pair in reached if pair)
                await self._joined()
            case "send":
                await _all(self._send(self.clients[name], payloads, limit) for name, payloads in step.sends)
            case "expect":
                await self._expect(step, limit)
            case "load":
                begun = self._limit(step, BEGUN)
                await _all(self._load(self.clients[name], load, begun.waited) for name, load in step.loads)
                self.judge.conclude_load(step)
            case "sockets":
                await self._sockets(step, limit)
            case "steady":
                await self._steady(step, limit.waited)
            case "quiet":
                await _all(self._quiet(name, window, step) for name, window in step.windows)
            case "half-close" | "close" | "abort" | "stall" | "read" | "set":
                await self._client_verb(step)
                if step.verb == "stall":
                    return lambda: _all(self._ask(self.clients[name], "read") for name in step.names)
            case "kill":
                await _all(self.servers[name].kill() for name in step.names)
            case "stop":
                await _all(self.servers[name].stop(self._ending_limit(step)) for name in step.names)
            case "pause" | "continue":
                await _all(self.servers[name].freeze(step.verb == "pause", self.limit) for name in step.names)
                if step.verb == "pause":
                    return lambda: _all(self.servers[name].freeze(False, self.limit) for name in step.names)
            case "restart":
                await _all(self.servers[name].restart(self._ending_limit(step)) for name in step.names)
            case "partition" | "isolate" | "cut":
                return await self._fault(step, faults.CUT)
            case verb if verb in FAULT_VERBS:
                return await self._fault(step, verb)
            case "unplug" | "plug":
                await _all(self._plug(name, step.verb == "plug") for name in step.names)
                if step.verb == "unplug":
                    return lambda: _all(self._plug(name, True) for name in step.names)
            case "heal":
                pairs = self._hosts(step.links)
                await self._set_links(lambda now: faults.healed(now, pairs) if step.links else {})
            case "together":
                await _all(self._one(inner, f"{path}.{i}") for i, inner in enumerate(step.steps, 1))
            case "repeat":
                await self._repeat(step, path)
            case "wait":
                await asyncio.sleep(step.seconds)
            case "note":
                pass
            case _:
                raise LabError(f"the verb {step.verb} is not played yet")

        return None

    async def _repeat(self, step: Step, path: str) -> None:
        """Round after round. A limit is one for all of them, and no impatience shortens it."""
        limit = Limit(step.within, step.within * self.patience) if step.within else None
        done = 0
        try:
            async with asyncio.timeout(limit.waited if limit else None) as time_limit:
                for number in range(1, step.times + 1):
                    self.judge.values["round"] = str(number)
                    try:
                        await self._steps(step.steps, f"{path}.{number}.")
                    except Failed as exc:
                        if step.times > 1:
                            exc.rounds.insert(0, f"round {number:,} of {step.times:,}")
                        raise
                    done = number
        except TimeoutError:
            if not time_limit.expired():
                raise
            names = dict.fromkeys(name for inner in step.walk() for name, _ in inner.connects)
            raise Failed(f"{step.times:,} rounds, {limit}", f"{done:,} rounds", list(names)) from None

    def _limit(self, step: Step, usual: float) -> Limit:
        """How long a step may take; `usual`: in seconds, where it does not say."""
        asked = step.within or usual
        return Limit(asked, min(asked, self.options.longest or DAY) * self.patience)

    def _ending_limit(self, step: Step) -> float:
        """Seconds that a server has from SIGTERM to SIGKILL, even where a play is impatient: what it does then is its own."""
        return (STOP_LIMIT if step.within is None else step.within) * self.patience

    def _gathering(self, limit: Limit) -> Limit:
        """The same for a crowd to connect."""
        return Limit(max(limit.asked, GATHERED), max(limit.waited, GATHERED * self.patience))

    def _later(self, seconds: float, undo: Undo) -> None:
        """Undo a fault after so long, whatever is done meanwhile."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await undo()

        task = asyncio.ensure_future(wait())
        self._ending.add(task)

    # connect

    async def _connect(
        self, client: _Client, options: ConnectOptions, limit: Limit
    ) -> tuple[_Client, Server] | None:
        """The client and the server that has yet to accept it; None where there is nothing to accept."""
        name = client.name
        if self.framing == DATAGRAM and (options.to is None or self.services[options.to].protocol == "udp"):
            await self._open_datagram(client, options)
            return None
        if client.open and client.inbox.ended is None:
            # The end of the connection may be on its way: of a server that was just stopped, say.
            await self._until(lambda: client.inbox.ended is not None, 0.2 * self.patience)
        if client.open and client.inbox.ended is None:
            raise LabError(f"{name} is connected already; close: {name} first")
        if client.open:
            await self._ask(client, "close")
        server = self.servers[options.to or "server"]
        reply = await self._open(client, server, options, limit.waited)
        if options.fails:
            if reply["ok"]:
                raise Failed(
                    f"{name}: the connect to fail ({options.fails})", f"{name}: it was connected", [name]
                )
            if reply["error"] != options.fails:
                raise Failed(
                    f"{name}: the connect to fail ({options.fails})",
                    f"{name}: it failed otherwise ({reply['error']})",
                    [name],
                )
            return None
        if not reply["ok"]:
            late = f", {limit}" if reply["error"] == "timed out" else ""
            raise Failed(
                f"{name}: a connection to {server.name}{late}",
                f"{name}: {reply['error']} ({reply.get('message', '')})",
                [name],
            )
        return client, server

    async def _open(
        self, client: _Client, server: Server, options: ConnectOptions, limit: float
    ) -> dict[str, Any]:
        kind = server.service.protocol
        to: Any = (
            server.service.path
            if kind == "unix"
            else [self._address(client, server, self._six(options)), options.port or server.port]
        )
        client.six = self._six(options)
        arguments: dict[str, Any] = {"client": client.name, "kind": kind, "to": to}
        if kind != "udp":
            arguments["limit"] = limit
        if kind == "tcp" and (
            NETWORKS not in self.lab.can or self.hosts[client.name] == self.hosts["server"]
        ):
            arguments["options"] = {"maxseg": ETHERNET_SEGMENT}
        if kind != "unix" and (bind := self._bind(client, options)):
            arguments["bind"] = bind

        def opened(reply: dict[str, Any]) -> None:
            # Recorded at once: what the server says first must not stand before the connection in the history.
            client.open = bool(reply["ok"])
            if reply["ok"]:
                facts = {"protocol": kind, "local": reply.get("local"), "remote": reply.get("remote", to)}
                if kind == "tcp":
                    self._ports[client.name] = (reply["local"][1], reply["remote"][1])
                self._record(
                    "connected", client.name, int(reply["t"]), **facts, connection=client.inbox.connection + 1
                )
            else:
                facts = {"error": reply["error"], "message": reply.get("message", ""), "remote": to}
                self._record("refused", client.name, int(reply["t"]), **facts)

        return await client.agent.ask("open", opened, **arguments)

    async def _open_datagram(self, client: _Client, options: ConnectOptions) -> None:
        """A datagram socket for a client: nothing is sent, the server does not know of it."""
        if client.open:
            await self._ask(client, "close")
        reply = await self._open(client, self.servers[options.to or "server"], options, self.limit)
        if not reply["ok"]:
            raise LabError(f"no datagram socket for {client.name}: {reply.get('message')}")

    def _six(self, options: ConnectOptions) -> bool:
        return options.over == "ipv6" if options.over else self.options.ipv6

    def _address(self, client: _Client, server: Server, six: bool) -> str:
        """The address by which a client reaches a server: on a network that both are on, if there is one."""
        host = self.hosts[client.name]
        if NETWORKS not in self.lab.can:
            return server.address
        if host == server.node:
            return "::1" if six else "127.0.0.1"
        shared = [n for n in self.nodes[server.node].networks if n in self.nodes[host].networks]
        return self.lab.address(server.node, shared[0] if shared else None, six)

    def _bind(self, client: _Client, options: ConnectOptions) -> list[Any] | None:
        if NETWORKS not in self.lab.can:  # all on one loopback: the client's address is what it binds
            return [self.lab.address(self.hosts[client.name]), options.source_port or 0]
        anywhere = "::" if self._six(options) else "0.0.0.0"
        return [anywhere, options.source_port] if options.source_port else None

    async def _accepted(self, client: _Client, server: Server) -> None:
        """Until the server's accept queue is empty, so that a script does not race its accept(). One that takes nobody else
        for now (an iterative server) leaves the client waiting there, which is no failure."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ACCEPT_LIMIT * self.patience
        pause = 0.0005
        while server.running and await server.waiting():
            if loop.time() > deadline:
                self._record(
                    "note",
                    client.name,
                    text="connected, and waits in the server's accept queue",
                    waiting=True,
                )
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.01)

    async def _introduce(self, client: _Client) -> None:
        """What the server's dialect wants to hear first of everybody: a name, mostly."""
        for line in self.dialect.first_lines(client.name):
            chunks = [to_wire(line)]
            self._record("sent", client.name, chunks=chunks, size=len(line), to="server", join=True)
            await client.agent.ask("send", client=client.name, chunks=chunks, limit=self.limit)

    async def _joined(self) -> None:
        if gap := max(self.gap, NAMED_GAP if self.dialect.join else 0.0):
            await asyncio.sleep(gap)

    # send

    async def _send(self, client: _Client, payloads: Sequence[Payload], limit: Limit) -> None:
        for payload in payloads:
            if payload.text == "quit" and self.dialect.quit is None and self.framing == LINE:
                self._record("half-closed", client.name)  # where there is no word for it, a client leaves so
                await self._ask(client, "shutdown")
                continue
            chunks = self._chunks(payload)
            arguments: dict[str, Any] = {"client": client.name, "chunks": chunks, "limit": limit.waited}
            if payload.pause:
                arguments["pause"] = payload.pause
                arguments["limit"] = limit.waited + payload.pause * len(chunks)
            target = payload.to or "server"
            if self.services[target].protocol == "udp":
                server = self.servers[target]
                arguments["to"] = [self._address(client, server, client.six), server.port]
            elif payload.to is not None:
                raise LabError(
                    f"to: goes with UDP; over TCP a client talks to whom it is connected ({payload.to} is TCP)"
                )
            size = sum(len(str(c.get("text", c.get("base64", "")))) * int(c.get("repeat", 1)) for c in chunks)
            self._said += size * max(len(self.clients), 1)
            self._record("sent", client.name, chunks=chunks, size=size, to=target)
            reply = await client.agent.ask("send", **arguments)
            if reply["ok"]:
                continue
            link = (self.hosts[client.name], self.servers[target].node)
            if self.services[target].protocol == "udp" and faults.CUT in self.links.now.get(link, {}):
                # Dropped as it leaves: told as ENOBUFS to a socket with IP_RECVERR, which is ours, and to no other (ip(7)).
                continue
            # A peer that closes while we send is no failure of this step: what it owed is expected elsewhere.
            self._record(
                "note",
                client.name,
                int(reply["t"]),
                text=f"only {reply.get('sent', 0)} bytes were sent: {reply['error']}",
                error=reply["error"],
            )
            if reply["error"] == "timed out":
                raise Failed(
                    f"{client.name}: the server to take {size} bytes {limit}",
                    f"{client.name}: it took {reply.get('sent', 0)}",
                    [client.name],
                )
            if reply["error"] not in ("reset", "closed", "refused", "unreachable"):
                raise LabError(f"{client.name} cannot send: {reply.get('message') or reply['error']}")

    def _chunks(self, payload: Payload) -> list[dict[str, Any]]:
        """What the agent hands to the kernel, each chunk in a call of its own."""
        lines = self.framing == LINE or self.dialect.frames == CHUNKS
        newline = payload.text is not None and (lines or (payload.lines and self.framing != DATAGRAM))
        if payload.text is None:
            messages = [payload.raw] * (payload.lines or 1)
        else:
            numbers = range(1, (payload.lines or 1) + 1)
            messages = [
                expand(payload.text, {**self.judge.values, "n": str(n)}).encode(errors="surrogateescape")
                for n in numbers
            ]
        if payload.repeat > 1 and not payload.pieces and not newline:
            return [{**to_wire(m), "repeat": payload.repeat} for m in messages]
        messages = [m * payload.repeat for m in messages]
        if newline:
            messages = [self.dialect.line(m) for m in messages]
        elif lines:
            messages = [self.dialect.raw(m) for m in messages]
        if not payload.pieces:
            if payload.lines and not payload.pause and self.framing != DATAGRAM:
                return [to_wire(b"".join(messages))]  # at once: the stream has no message borders anyway
            return [to_wire(m) for m in messages]
        return [to_wire(piece) for message in messages for piece in _cut(message, payload.pieces)]

    # expect

    async def _expect(self, step: Step, limit: Limit) -> None:
        waiting = self.judge.expect(step)
        if not await self._until(waiting.settled, limit.waited):
            # What lies in the clients' kernels by now was in time; on a busy machine the agent may not have read it yet.
            await self._sync([name for name, _ in waiting.watches if name in self.clients])
            if self.capture is not None and any(name == "wire" for name, _ in waiting.watches):
                await self.capture.sync()
        self.judge.conclude(waiting, limit)
        if not self.dialect.echo and self.framing == LINE:
            names = [name for name, _ in waiting.watches if name in self._ports]
            if len(names) == 1:
                await self._taken_in(names[0])

    async def _taken_in(self, client: str) -> None:
        """Where nobody hears itself, what a client alone expects of its own lines tells nothing of the server: wait until it has read
        them, and a moment for what it does with them."""
        if PROGRAMS in self.lab.can:
            deadline = time.monotonic() + SETTLED * self.patience
            rows = await self._rows("server", client)
            while any(row.rx_queue for row in rows) and time.monotonic() < deadline:
                await self._until(lambda: False, 0.002)
                rows = await self._rows("server", client)
        await self._until(lambda: False, NAMED_GAP * self.patience)

    async def _quiet(self, name: str, window: float, step: Step) -> None:
        """Nothing comes from the beginning of the last step that did something until the window is over."""
        self.judge.may_be_quiet(name, step)
        await self._until(lambda: self.judge.broke_silence(name), window)
        await self._sync([name])
        self.judge.conclude_quiet(name, window, step)

    async def _sockets(self, step: Step, limit: Limit) -> None:
        """Ask the kernels again and again, for they tell nobody when a state changes."""
        deadline = time.monotonic() + limit.waited
        pause = 0.001
        seen: dict[tuple[str, str], Any] = {}
        while True:
            for who, peer, _ in step.sockets:
                now = as_seen(await self._rows(who, peer))
                if seen.get((who, peer)) != now:
                    seen[who, peer] = now
                    self._record("sockets", who, peer=peer, **now)
            if not self.judge.unlike(step) or time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        self.judge.conclude_sockets(step, limit)

    async def _steady(self, step: Step, limit: float) -> None:
        """Look at the servers' processes until they hold no more than before, or the limit is over."""
        deadline = time.monotonic() + limit
        pause = 0.005
        while True:
            for name in step.names:
                self._record("holdings", name, **self.servers[name].holdings().as_data())
            if not any(self.judge.growth(name) for name in step.names) or time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
        self.judge.conclude_steady(step)

    async def _rows(self, who: str, peer: str) -> list[Socket]:
        """The sockets by which a client or server is connected to another, or a server listens."""
        if peer == "listen":
            return await self.servers[who].listening()
        client = peer if who in self.servers else who
        if client not in self._ports:
            return []
        (local, remote) = self._ports[client]
        table = await self.lab.sockets(self.hosts[who])
        ends = (remote, local) if who in self.servers else (local, remote)
        return [
            row for row in table.rows if row.protocol == "tcp" and ends == (row.local_port, row.remote_port)
        ]

    # crowds

    async def _gather(self, client: _Client, options: ConnectOptions, limit: Limit) -> None:
        """Connect a crowd; done when the server has accepted all of it."""
        server = self.servers[options.to or "server"]
        six = self._six(options)
        to = [self._address(client, server, six), options.port or server.port]
        greeting = speech_of(server.service.contract)(0).greeting(0)
        crowd = Crowd(client.agent, client.name)
        connected, why = await crowd.gather(server, to, client.of, greeting, limit.waited)
        self._record("crowd", client.name, connected=connected, of=client.of, remote=to)
        client.open = True
        if why:
            raise Failed(
                f"{client.name}: {client.of:,} connections to {server.name}, {limit}",
                f"{client.name}: {connected:,} connected; {why}",
                [client.name],
            )

    async def _load(self, client: _Client, load: LoadOptions, limit: float) -> None:
        """Let a crowd speak for a while, and record what came of it."""
        contract = self.service.contract
        kind = "echo" if contract in ECHOES else "fan-out"
        newline = kind == "fan-out" and self.framing == LINE
        reply = await Crowd(client.agent, client.name).ask(
            kind,
            size=load.size - newline,
            seconds=load.lasts,
            ramp=0.0,
            rate=load.rate,
            limit=limit,
            **(
                {"in_flight": load.in_flight}
                if kind == "echo"
                else {"senders": load.senders, "messages": load.messages}
            ),
        )
        if reply["ok"]:
            found = wrong([reply], self.service.protocol)
            listening = client.of - (load.senders if kind == "fan-out" else 0)
            if reply["receivers"] < listening and not reply["gone"]:
                found.append(f"{listening - reply['receivers']:,} of them had gone before")
            said, heard, times = reply["said"], reply["heard"], percentiles(reply["times"])
            speed = reply["delivered"] / reply["seconds"]
        elif reply["error"] == "unheard":
            found, said, heard, times, speed = [reply["message"]], 0, 0, {}, 0.0
        else:
            raise LabError(f"{client.name}: {reply['message']}")
        self._record(
            "load",
            client.name,
            said=said,
            heard=heard,
            per_second=round(speed),
            latency=times,
            wrong=found,
        )

    # other verbs of clients

    async def _client_verb(self, step: Step) -> None:
        done = {
            "half-close": "half-closed",
            "close": "closed",
            "abort": "aborted",
            "stall": "stalled",
            "read": "reading",
        }
        if step.verb == "set":
            await _all(
                self._ask(self.clients[name], "set", option=option, value=value)
                for name, wanted in step.options
                for option, value in wanted
            )
            for name, wanted in step.options:
                self._record("set", name, options=dict(wanted))
            return
        arguments = {"rcvbuf": STALLED_BUFFER} if step.verb == "stall" else {}
        verb = {"half-close": "shutdown"}.get(step.verb, step.verb)
        for name in step.names:
            self._record(done[step.verb], name)
        for name in step.names:
            if self.clients[name].of:
                await Crowd(self.clients[name].agent, name).ask("close", abort=step.verb == "abort")
        names = [name for name in step.names if not self.clients[name].of]
        await _all(self._ask(self.clients[name], verb, **arguments) for name in names)
        if step.verb in ("close", "abort"):
            for name in step.names:
                self.clients[name].open = False

    async def _ask(self, client: _Client, do: str, **arguments: Any) -> None:
        reply = await client.agent.ask(do, client=client.name, **arguments)
        if not reply["ok"] and reply["error"] not in ("closed", "reset"):
            raise LabError(f"{client.name}: {do}: {reply.get('message') or reply['error']}")
        if not reply["ok"]:
            self._record(
                "note", client.name, text=f"{do}: the connection was gone already ({reply['error']})"
            )

    # links

    def _hosts(self, links: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return list(dict.fromkeys((self.hosts[a], self.hosts[b]) for a, b in links))

    def _link_faults(self, steps: Iterable[Step]) -> Iterable[tuple[faults.Pair, str, Any]]:
        """Every link fault of these steps: on which link, which, and with what settings."""
        for step in steps:
            if step.verb in FAULT_VERBS:
                name = faults.CUT if step.verb in ("partition", "isolate") else step.verb
                yield from ((pair, name, step.fault) for pair in self._hosts(step.links))

    async def _fault(self, step: Step, name: str) -> Undo:
        """Put a fault on links; what takes it off again and leaves what else has changed since."""
        pairs, before, settings = self._hosts(step.links), self.links.now, self._filled(step.fault)
        await self._set_links(lambda now: faults.put(now, pairs, name, settings))
        return lambda: self._set_links(lambda now: faults.taken(now, pairs, name, settings, before))

    def _filled(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """With the values of {placeholders} in what packets are to match, and that as the gate takes it."""
        result = dict(settings)
        if "match" in result:
            result["match"] = (
                expand(result["match"], self.judge.values).encode(errors="surrogateescape").hex()
            )
        if "after" in result:
            result["after"] = self._filled(result["after"])
        return result

    async def _set_links(self, change: Change) -> None:
        await self.links.change(change)
        told = {self.links.told(pair): faults.told(put) for pair, put in sorted(self.links.now.items())}
        self._record("fault", links=told)

    async def _order(self, host: str, argv: tuple[str, ...], text: str = "") -> None:
        done = await self.lab.run(host, argv, text)
        if done.status:
            raise LabError(
                f"{' '.join(argv)} failed on {host}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else done.status}"
            )

    async def _plug(self, name: str, back: bool) -> None:
        """Take the interfaces of a host away, or give them back; done when the kernel says so (ip-link(8))."""
        host = self.hosts[name]
        devices = [await self.lab.device(host, network) for network in self.nodes[host].networks]
        for device in devices:
            await self._order(host, ("ip", "link", "set", "dev", device, "up" if back else "down"))
        deadline = time.monotonic() + self.limit
        for device in devices if back else ():
            while "state UP" not in (await self.lab.run(host, ["ip", "link", "show", "dev", device])).stdout:
                if time.monotonic() > deadline:
                    raise LabError(f"{device} of {name} is not up {self.limit:g}s after it was plugged in")
        self._record("plugged" if back else "unplugged", name)

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _last_look(self) -> None:
        """When all steps are done: what came too much since, and whether the server is still there."""
        await self._sync()
        await self._hear_packets()
        for server in self.servers.values():
            if server.dying:  # or only its main thread is: then it stays, and is not waited for
                await self._until(lambda s=server: not s.running, 0.2 * self.patience)  # type: ignore[misc]
        self.judge.conclude_play()

    async def _last_words(self, exc: Failed) -> None:
        """A connection that broke may be the first sign of a server that is dying: give its end a moment to arrive."""
        if "came before" in exc.got:
            # Is what was passed over lost, or only late? That decides about the cause.
            await self._until(lambda: False, 0.3 * self.patience)
        elif self.framing == STREAM:
            # What is wrong from its first byte on is better told with what comes behind it.
            await self._until(lambda: False, 0.1 * self.patience)
        if refused := exc.step is not None and exc.step.verb == "connect":
            await self._unaccepted(exc.step)
            self._look_inside()
        elif exc.step is not None and exc.step.verb == "repeat":
            self._look_inside()
        else:
            await self._unread(exc.clients)
        await self._hear_packets()
        if refused or any(self.judge.inboxes[name].ended for name in exc.clients):
            moment = (1.0 if refused else 0.4) * self.patience
            await self._until(lambda: any(not server.running for server in self.servers.values()), moment)
            await asyncio.sleep(0)  # an end is recorded one turn of the loop after it is known

    async def _unaccepted(self, step: Step) -> None:
        """Of a connect that failed, how many wait before it: the kernel drops who finds the accept queue full (listen(2))."""
        names = dict.fromkeys(options.to or "server" for _, options in step.connects)
        await self._bound(self.servers[name] for name in names if self.services[name].protocol == "tcp")

    async def _bound(self, servers: Iterable[Server]) -> None:
        """What waits in the sockets on which these are reached."""
        for server in servers:
            if self.lab.reachable(server.node):
                with contextlib.suppress(LabError, OSError):  # it is only to explain
                    self._record("sockets", server.name, peer="listen", **as_seen(await server.listening()))

    def _look_inside(self) -> None:
        """What a server holds that has become slow: that may be what it does not give back."""
        server = self.servers["server"]
        if PROGRAMS in self.lab.can and server.running:
            with contextlib.suppress(LabError):  # it is only to explain
                self._record("holdings", "server", **server.holdings().as_data())

    async def _unread(self, clients: Sequence[str]) -> None:
        """Of a few clients, what the server has not read: that tells one that does not read from one that reads and does not send."""
        server = self.servers["server"]
        if PROGRAMS not in self.lab.can or not server.running:
            return
        if server.service.protocol == "udp":
            await self._bound([server])
            return
        for client in clients[:FEW]:
            if client in self._ports:
                try:
                    if rows := await self._rows("server", client):
                        self._record("sockets", "server", peer=client, **as_seen(rows))
                except (LabError, OSError):
                    return  # it was only to explain

    def _failure(self, exc: Failed) -> Failure:
        step = exc.step
        where = f"{self.scenario.path}:{step.line if step else self.scenario.steps[-1].line}"
        concerned = [c for c in exc.clients if c in self.clients and not self.clients[c].of]
        cause = causes.likely(
            self.history.ends(TELLING), concerned, self.framing, self.dialect, step, self.judge.asked_to_end
        )
        in_round = f"  (in {', '.join(exc.rounds)})" if exc.rounds else ""
        return Failure(
            where,
            (step.text if step else "end of the scenario") + in_round,
            exc.expected,
            exc.got,
            server_log(e for e in self.history if e.node in self.servers),
            cause,
        )


def _to_be_quiet(steps: Sequence[Step]) -> list[str]:
    """Whose silence is asked for before the next step that does something."""
    names: list[str] = []
    for step in steps:
        if step.verb not in ASSERTING:
            break
        names += [name for name, _ in step.windows]
    return names


def _cut(message: bytes, pieces: Sequence[str]) -> list[bytes]:
    """A message in pieces of the given sizes; what is left over is one more."""
    if pieces == ("each",):
        return [message[i : i + 1] for i in range(len(message))]
    result, at = [], 0
    for piece in pieces:
        end = len(message) if piece == "rest" else at + int(piece)
        if message[at:end]:
            result.append(message[at:end])
        at = end
    return [*result, message[at:]] if message[at:] else result


async def _all(coroutines: Iterable[Coroutine[Any, Any, None] | Any]) -> None:
    """Run these at once; the first that fails ends the others, and its exception is raised as it is."""
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these, and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _unhurried(coroutine: Coroutine[Any, Any, T]) -> T:
    """Finish this even when the task is cancelled meanwhile; the cancellation goes on afterwards."""
    task = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
