"""The rig of one play: its lab with the servers, agents, gates and the capture in it, and the history in which all is told that happens.

    backend ──▶ lab ──▶ servers, agents, gates, capture ── what happens ──▶ Rig.record ──▶ history, judge, whoever looks on

What is done on it is up to the performer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socklab import runs
from socklab.agents import Agent
from socklab.backends import LINKS, Backend, Lab, LabError, Lacking
from socklab.capture import Capture
from socklab.history import Event, History
from socklab.judge import Judge
from socklab.layout import Layout
from socklab.links import Links
from socklab.matching import DATAGRAM, Inbox
from socklab.servers import Server
from socklab.sockets import Socket
from socklab.tasks import together, unhurried

FLOOD = 8 << 20  # bytes, and eight times what was said to each client: a guest that sends more is ended


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


@dataclass
class Actor:
    """A client of the scenario, or a crowd, and the agent that is told what it does."""

    name: str
    agent: Agent
    inbox: Inbox
    of: int = 0
    """It is a crowd of so many."""
    open: bool = False
    six: bool = False
    """Its socket is one of IPv6."""
    ports: tuple[int, int] | None = None
    """Of its latest connection over TCP: its own port and the server's."""


class Rig:
    """Between `set_up` and `close`, the lab stands."""

    def __init__(self, layout: Layout, backend: Backend, options: Options, judge: Judge) -> None:
        self.layout = layout
        self.backend = backend
        self.options = options
        self.judge = judge
        self.history = History()
        self.folder: Path | None = None
        """Of what this play leaves."""
        self.clients: dict[str, Actor] = {}
        self.agents: dict[str, Agent] = {}
        """Host → its agent."""
        self.servers: dict[str, Server] = {}
        self.links: Links
        self.capture: Capture | None = None
        self.over = False
        """There is a verdict, and nothing more is told."""
        self.said = 0
        """Bytes that clients said, times how many they are."""
        self._came = 0
        """Bytes that clients got."""
        self._flooded = False
        self._lab: Lab | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._called: dict[str, str] = {}

    @property
    def lab(self) -> Lab:
        assert self._lab is not None, "there is no lab before set_up()"
        return self._lab

    # from its beginning to its end

    async def set_up(self) -> None:
        """The lab, its servers ready, its agents there. Raises NotReady, LabError, and Lacking for what this lab cannot."""
        layout = self.layout
        if self.options.runs is not None:
            self.folder, self.history = runs.begin(self.options.runs, layout.scenario.label)
            if self.options.on_history:
                self.options.on_history(self.history)
        self._lab = lab = await self.backend.lab(layout.networks, list(layout.nodes.values()))
        self.links = Links(
            lab, layout.nodes.values(), layout.names, self.options.seed, self._packet, layout.ipv6
        )
        if reason := layout.lacks_here(lab):
            raise Lacking(reason)
        self._tell_play()
        self.tell_clocks()
        for name, service in layout.services.items():
            self.servers[name] = Server(
                name,
                service,
                service.name,
                lab,
                layout.topology.root,
                self.options.patience,
                self.record,
                self.options.ipv6,
                "::"
                if layout.ipv6
                else None,  # both families, as Linux has it by default (ipv6(7), IPV6_V6ONLY)
            )
        hosts = dict.fromkeys(layout.hosts[client.name] for client in layout.scenario.clients)
        await together(
            [
                *(server.start() for server in self.servers.values()),
                *(self._start_agent(host) for host in hosts),
                self.links.prepare(layout.link_faults(layout.scenario.walk())),
                self._begin_capture(),
            ]
        )
        for client in layout.scenario.clients:
            agent = self.agents[layout.hosts[client.name]]
            self.clients[client.name] = Actor(client.name, agent, self.judge.inboxes[client.name], client.of)

    async def close(self) -> None:
        """End all that was made."""
        for agent in self.agents.values():
            agent.close()
        for server in self.servers.values():
            server.close()
        if self._lab is not None:
            self.links.close()
            await unhurried(self._lab.stop())
        self.history.close()

    async def _start_agent(self, host: str) -> None:
        stream = await self.lab.inside(host, "agent")
        self.agents[host] = Agent(host, stream, self._agent_event)

    async def diagnosis(self) -> str:
        """Why the lab as a whole is broken, where that can be known; or nothing."""
        return await self._lab.diagnosis() if self._lab is not None else ""

    # events

    def record(self, kind: str, node: str = "", t: int | None = None, **data: Any) -> Event:
        event = Event(time.monotonic_ns() if t is None else t, kind, node, data)
        if self.over:
            return event  # what the end of the lab does to its programs is no part of the play
        self.history.add(event)
        self.judge.feed(event)
        if self.options.on_event:
            self.options.on_event(event)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        return event

    async def until(self, done: Callable[[], bool], limit: float) -> bool:
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

    async def sync(self, clients: Iterable[str] | None = None) -> None:
        """Afterwards the history has all that the clients' kernels had received before."""
        wanted = [self.clients[c].agent for c in clients] if clients is not None else self.agents.values()
        await together(agent.ask("sync") for agent in dict.fromkeys(wanted))

    def _tell_play(self) -> None:
        layout, scenario = self.layout, self.layout.scenario
        self.record(
            "play",
            scenario=scenario.source.text,
            path=str(scenario.path),
            title=scenario.title,
            service=scenario.service,
            values=dict(scenario.values),
            backend=self.backend.name,
            framing=layout.framing,
            clients=[c.name for c in scenario.clients],
            nodes={
                name: self.lab.address(host, six=self.options.ipv6)
                for name, host in layout.hosts.items()
                if layout.nodes[host].networks
            },
            networks={name: list(layout.nodes[host].networks) for name, host in layout.hosts.items()},
            patience=self.options.patience,
            seed=self.options.seed,
            gap=self.options.gap,
            dialect=layout.dialect.as_data(),
        )

    def tell_clocks(self) -> None:
        """How exactly the times of hosts on other machines are known."""
        for host, apart in (self._lab.clocks() if self._lab is not None else {}).items():
            side = "behind" if apart.ahead < 0 else "ahead of"
            steps = f", which was set or slewed ({apart.steps} times found where it could not be)"
            text = (
                f"is on another machine ({apart.host}), whose clock is {abs(apart.ahead) / 1e9:.6f} s {side} ours"
                f"{steps if apart.steps else ''}; its times are told by ours, ± {apart.error / 1e6:.3f} ms"
            )
            facts = {"ahead": apart.ahead, "error": apart.error, "rounds": apart.rounds, "steps": apart.steps}
            self.record("note", self.layout.names.get(host, host), text=text, clock=facts)

    def _agent_event(self, message: dict[str, Any]) -> None:
        client, kind, t = str(message.pop("client", "")), str(message.pop("event")), int(message.pop("t", 0))
        if kind == "error" and self.layout.framing != DATAGRAM:
            message["closed"] = True
        if kind == "received" and self._flooded:
            return  # what was under way when the flood was ended: megabytes for each connection
        event = self.record(kind, client, t or None, **message)
        if kind == "received" and self.layout.guest is not None:
            self._came += len(event.content)
            if self._came > FLOOD + 8 * self.said and not self._flooded and self.servers["server"].running:
                self._flooded = True
                self.servers["server"].end_for(
                    f"sent {self._came >> 20} MiB, where {self.said:,} bytes had been said to it"
                )

    def _packet(self, message: dict[str, Any]) -> None:
        """What a gate tells of a packet that did not just pass."""
        sender, _, receiver = message["link"].partition("→")
        facts = {k: v for k, v in message.items() if k not in ("event", "t", "link") and v is not None}
        self.record("packet", t=message["t"], **{"from": sender, "to": receiver}, **facts)

    async def count(self) -> None:
        """What the gates counted, where there were any."""
        if counts := await self.links.counts():
            self.record("counted", links=counts)

    # packets

    async def _begin_capture(self) -> None:
        """Read all packets from here on, where that is possible and somebody wants them."""
        layout, asked = self.layout, self.layout.asks_the_wire
        wanted = asked or (self.folder is not None and self.options.capture)
        if not wanted or LINKS not in self.lab.can:
            return
        if not asked and any(client.of for client in layout.scenario.clients):
            self.record("note", text="no capture: a crowd says too much (expect: {wire: …} asks for one)")
            return
        addresses = [
            address
            for host, node in layout.nodes.items()
            for network in node.networks
            if self.lab.reachable(host)
            for address in self._addresses(host, network)
        ]
        local = {layout.hosts[client.name] for client in layout.scenario.clients if client.beside}
        capture = Capture(self._wire, self.folder if self.options.capture else None)
        try:
            await capture.begin(self.lab, addresses, sorted(local))
        except LabError as exc:
            capture.close()
            if asked:
                raise Lacking(f"needs to see the wire: {exc}") from None
            self.record("note", text=f"no capture: {exc}")
            return
        self.capture = capture

    def _wire(self, message: dict[str, Any]) -> None:
        """What a capture tells of TCP."""
        facts = {k: v for k, v in message.items() if k not in ("event", "t", "node")}
        for end in ("from", "to"):
            facts[end] = self._host_of(message[end], message["node"])
        self.record(message["event"], t=message["t"], **facts)

    def _host_of(self, address: str, seen_by: str) -> str:
        """What the host with this address is called; somebody outside the lab by the address itself."""
        if not self._called:
            self._called = {
                address: self.layout.names[host]
                for host, node in self.layout.nodes.items()
                for network in node.networks
                for address in self._addresses(host, network)
            }
        if address.startswith("127.") or address == "::1":
            return self.layout.names[seen_by]
        return self._called.get(address, address)

    def _addresses(self, host: str, network: str) -> list[str]:
        """All of a host's on a network."""
        families = (False, True) if self.layout.ipv6 else (False,)
        return [self.lab.address(host, network, six) for six in families]

    async def hear_packets(self) -> None:
        """Afterwards the history has all that was on the wire before: nothing is told behind a verdict."""
        if self.capture is not None:
            with contextlib.suppress(LabError):  # that it is broken is told at the end
                await self.capture.sync()

    async def keep_packets(self) -> str:
        """Leave them beside the history, also of a play that was broken off. What is missing, in words; or nothing."""
        if self.capture is None:
            return ""
        try:
            lost = await self.capture.finish()
            if self.folder is not None and self.options.capture:
                self.capture.write(self.folder / "capture.pcapng", self.history, self.layout.names)
            return f"the capture missed {lost} packets" if lost else ""
        except LabError as exc:
            return f"no capture: {exc}"
        except OSError as exc:
            return f"no capture: {exc.strerror}"
        finally:
            self.capture.close()

    # sockets

    async def rows(self, who: str, peer: str) -> list[Socket]:
        """The sockets by which a client or server is connected to another, or a server listens."""
        if peer == "listen":
            return await self.servers[who].listening()
        client = self.clients.get(peer if who in self.servers else who)
        if client is None or client.ports is None:
            return []
        local, remote = client.ports
        table = await self.lab.sockets(self.layout.hosts[who])
        ends = (remote, local) if who in self.servers else (local, remote)
        return [
            row for row in table.rows if row.protocol == "tcp" and ends == (row.local_port, row.remote_port)
        ]
