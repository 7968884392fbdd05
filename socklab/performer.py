"""The performer does the steps of a scenario on a rig, in order. A step is done when its effect is confirmed.

Waiting is on events, with a limit; nothing here sleeps for luck. Whether what came is what was expected, the judge says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from socklab import faults
from socklab.backends import NETWORKS, PROGRAMS, LabError
from socklab.dialect import CHUNKS
from socklab.history import size_of, to_wire
from socklab.judge import ASSERTING, LIMIT, Failed, Limit
from socklab.language import FAULT_VERBS
from socklab.layout import ECHOES, fault_of
from socklab.links import Change
from socklab.load import Crowd, percentiles, speech_of, wrong
from socklab.matching import DATAGRAM, LINE
from socklab.rig import Actor, Rig
from socklab.servers import STOP_LIMIT, Server
from socklab.sockets import as_seen
from socklab.steps import ConnectOptions, LoadOptions, Payload, Step
from socklab.tasks import end_all, together
from socklab.texts import expand

ACCEPT_LIMIT = 0.25  # seconds until a connection that nobody accepts is taken to wait in the queue
ETHERNET_SEGMENT = (
    1448  # bytes; loopback's own 64 KiB do not fit into the small buffer of a client that stalls
)
STALLED_BUFFER = 4096  # bytes of receive buffer of a client that stalls
DAY = 86400.0
IMPATIENT_STEPS = 20  # a repeat may take as long as so many steps, where a play is impatient
BEGUN = 10.0  # seconds for all of a crowd to hear the first lines of a load, unless the step says
GATHERED = 30.0  # seconds for a crowd to connect, unless the step gives more
NAMED_GAP = 0.1  # seconds for a server to take in a name, or a line that it sends to nobody: nothing tells when it has
SETTLED = 1.0  # seconds for a server to read a line that it sends to nobody

_DONE = {
    "half-close": "half-closed",
    "close": "closed",
    "abort": "aborted",
    "stall": "stalled",
    "read": "reading",
}
"""Verb → the event that tells of it."""

Undo = Callable[[], Coroutine[Any, Any, None]]


class Performer:
    """Does steps. What it does and what comes of it is told on the rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.judge = rig.judge
        self.record = rig.record
        self.clients = rig.clients
        self.servers = rig.servers
        layout = rig.layout
        self.hosts = layout.hosts
        self.services = layout.services
        self.framing = layout.framing
        self.dialect = layout.dialect
        self.patience = rig.options.patience
        self.limit = LIMIT * self.patience
        self.step: Step | None = None
        """The one that was begun last."""
        self._ending: list[asyncio.Task[None]] = []
        """What will undo faults that last for a while."""

    async def take_places(self) -> None:
        """Before the first step: over UDP each client has a socket, and no server knows of it."""
        if self.framing == DATAGRAM:
            await together(
                self._open_datagram(client, ConnectOptions())
                for client in self.clients.values()
                if not client.of
            )

    def conclude(self) -> None:
        """When all steps are done. Raises LabError where a fault could not be undone."""
        for task in self._ending:
            if task.done():
                task.result()

    async def end(self) -> None:
        """Undo nothing any more."""
        await end_all(self._ending)

    # steps

    async def play(self, steps: Sequence[Step], path: str = "") -> None:
        for number, step in enumerate(steps, 1):
            if step.verb not in ASSERTING and (watched := _to_be_quiet(steps[number:])):
                await self.rig.sync(
                    watched
                )  # what has come before this step shall not be taken for its effect
            await self.play_one(step, f"{path}{number}")

    async def play_one(self, step: Step, path: str) -> None:
        self._tell_step(step, path, "begin")
        self.step = step
        try:
            undo = await self._do(step, path)
            if step.during:
                await self.play(step.during, f"{path}.")
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
        self.record("step", line=step.line, path=path, verb=step.verb, text=step.text, phase=phase)

    async def _do(self, step: Step, path: str) -> Undo | None:
        """Do a step; what undoes it, where it is one that can be undone."""
        limit = self._limit(step)
        match step.verb:
            case "connect":
                await self._connect_all(step, limit)
            case "send":
                await together(
                    self._send(self.clients[name], payloads, limit) for name, payloads in step.sends
                )
            case "expect":
                await self._expect(step, limit)
            case "load":
                begun = self._limit(step, BEGUN)
                await together(
                    self._load(self.clients[name], load, begun.waited) for name, load in step.loads
                )
                self.judge.conclude_load(step)
            case "sockets":
                await self._sockets(step, limit)
            case "steady":
                await self._steady(step, limit.waited)
            case "quiet":
                await together(self._quiet(name, window, step) for name, window in step.windows)
            case "set":
                await self._set(step)
            case "half-close" | "close" | "abort" | "stall" | "read":
                await self._client_verb(step)
                if step.verb == "stall":
                    return lambda: together(self._ask(self.clients[name], "read") for name in step.names)
            case "kill":
                await together(self.servers[name].kill() for name in step.names)
            case "stop" | "restart":
                grace = (STOP_LIMIT if step.within is None else step.within) * self.patience
                servers = [self.servers[name] for name in step.names]
                await together(s.stop(grace) if step.verb == "stop" else s.restart(grace) for s in servers)
            case "pause" | "continue":
                await together(
                    self.servers[name].freeze(step.verb == "pause", self.limit) for name in step.names
                )
                if step.verb == "pause":
                    return lambda: together(
                        self.servers[name].freeze(False, self.limit) for name in step.names
                    )
            case verb if verb in FAULT_VERBS:
                return await self._fault(step)
            case "unplug" | "plug":
                await together(self._plug(name, step.verb == "plug") for name in step.names)
                if step.verb == "unplug":
                    return lambda: together(self._plug(name, True) for name in step.names)
            case "heal":
                pairs = self.rig.layout.pairs(step.links)
                await self._set_links(lambda now: faults.healed(now, pairs) if step.links else {})
            case "together":
                await together(self.play_one(inner, f"{path}.{i}") for i, inner in enumerate(step.steps, 1))
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
        """Round after round. A limit is one for all of them; impatience shortens it to that of so many steps."""
        longest = self.rig.options.longest
        bound = DAY if longest is None else longest * IMPATIENT_STEPS
        limit = None if step.within is None else Limit(step.within, min(step.within, bound) * self.patience)
        done = 0
        try:
            async with asyncio.timeout(limit.waited if limit else None) as time_limit:
                for number in range(1, step.times + 1):
                    self.judge.values["round"] = str(number)
                    try:
                        await self.play(step.steps, f"{path}.{number}.")
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

    def _limit(self, step: Step, usual: float = LIMIT) -> Limit:
        """How long a step may take; `usual`: in seconds, where it does not say."""
        asked = usual if step.within is None else step.within
        return Limit(asked, min(asked, self.rig.options.longest or DAY) * self.patience)

    def _later(self, seconds: float, undo: Undo) -> None:
        """Undo a fault after so long, whatever is done meanwhile."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await undo()

        self._ending.append(asyncio.ensure_future(wait()))

    # connect

    async def _connect_all(self, step: Step, limit: Limit) -> None:
        """One after another, so that an iterative server takes the first one first; then all must be accepted."""
        reached = []
        for name, options in step.connects:
            if self.clients[name].of:
                gathered = Limit(max(limit.asked, GATHERED), max(limit.waited, GATHERED * self.patience))
                await self._gather(self.clients[name], options, gathered)
            elif pair := await self._connect(self.clients[name], options, limit):
                reached.append(pair)
                client, server = pair
                if server is self.servers["server"]:
                    await self._introduce(client)  # now: it may wait for a name before it accepts the next
        await together(self._accepted(*pair) for pair in reached)
        if gap := max(self.rig.options.gap, NAMED_GAP if self.dialect.join else 0.0):
            await asyncio.sleep(gap)

    async def _connect(
        self, client: Actor, options: ConnectOptions, limit: Limit
    ) -> tuple[Actor, Server] | None:
        """The client and the server that has yet to accept it; None where there is nothing to accept."""
        name = client.name
        if self.framing == DATAGRAM and (options.to is None or self.services[options.to].protocol == "udp"):
            await self._open_datagram(client, options)
            return None
        if client.open and client.inbox.ended is None:
            # The end of the connection may be on its way: of a server that was just stopped, say.
            await self.rig.until(lambda: client.inbox.ended is not None, 0.2 * self.patience)
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
        self, client: Actor, server: Server, options: ConnectOptions, limit: float
    ) -> dict[str, Any]:
        kind = server.service.protocol
        client.six = self._six(options)
        to: Any = (
            server.service.path
            if kind == "unix"
            else [self._address(client, server, client.six), options.port or server.port]
        )
        arguments: dict[str, Any] = {"client": client.name, "kind": kind, "to": to}
        if kind != "udp":
            arguments["limit"] = limit
        if kind == "tcp" and (
            NETWORKS not in self.rig.lab.can or self.hosts[client.name] == self.hosts["server"]
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
                    client.ports = reply["local"][1], reply["remote"][1]
                self.record(
                    "connected", client.name, int(reply["t"]), **facts, connection=client.inbox.connection + 1
                )
            else:
                facts = {"error": reply["error"], "message": reply.get("message", ""), "remote": to}
                self.record("refused", client.name, int(reply["t"]), **facts)

        return await client.agent.ask("open", opened, **arguments)

    async def _open_datagram(self, client: Actor, options: ConnectOptions) -> None:
        """A datagram socket for a client: nothing is sent, the server does not know of it."""
        if client.open:
            await self._ask(client, "close")
        reply = await self._open(client, self.servers[options.to or "server"], options, self.limit)
        if not reply["ok"]:
            raise LabError(f"no datagram socket for {client.name}: {reply.get('message')}")

    def _six(self, options: ConnectOptions) -> bool:
        return options.over == "ipv6" if options.over else self.rig.options.ipv6

    def _address(self, client: Actor, server: Server, six: bool) -> str:
        """The address by which a client reaches a server: on a network that both are on, if there is one."""
        host = self.hosts[client.name]
        if NETWORKS not in self.rig.lab.can:
            return server.address
        if host == server.node:
            return "::1" if six else "127.0.0.1"
        nodes = self.rig.layout.nodes
        shared = [n for n in nodes[server.node].networks if n in nodes[host].networks]
        return self.rig.lab.address(server.node, shared[0] if shared else None, six)

    def _bind(self, client: Actor, options: ConnectOptions) -> list[Any] | None:
        if NETWORKS not in self.rig.lab.can:  # all on one loopback: the client's address is what it binds
            return [self.rig.lab.address(self.hosts[client.name]), options.source_port or 0]
        anywhere = "::" if self._six(options) else "0.0.0.0"
        return [anywhere, options.source_port] if options.source_port else None

    async def _accepted(self, client: Actor, server: Server) -> None:
        """Until the server's accept queue is empty, so that a script does not race its accept(). One that takes nobody else
        for now (an iterative server) leaves the client waiting there, which is no failure."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ACCEPT_LIMIT * self.patience
        pause = 0.0005
        while server.running and await server.waiting():
            if loop.time() > deadline:
                self.record(
                    "note",
                    client.name,
                    text="connected, and waits in the server's accept queue",
                    waiting=True,
                )
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.01)

    async def _introduce(self, client: Actor) -> None:
        """What the server's dialect wants to hear first of everybody: a name, mostly."""
        for line in self.dialect.first_lines(client.name):
            chunks = [to_wire(line)]
            self.record("sent", client.name, chunks=chunks, size=len(line), to="server", join=True)
            await client.agent.ask("send", client=client.name, chunks=chunks, limit=self.limit)

    # send

    async def _send(self, client: Actor, payloads: Sequence[Payload], limit: Limit) -> None:
        for payload in payloads:
            if payload.text == "quit" and self.dialect.quit is None and self.framing == LINE:
                self.record("half-closed", client.name)  # where there is no word for it, a client leaves so
                await self._ask(client, "shutdown")
            else:
                await self._send_one(client, payload, limit)

    async def _send_one(self, client: Actor, payload: Payload, limit: Limit) -> None:
        chunks = self._chunks(payload)
        arguments: dict[str, Any] = {"client": client.name, "chunks": chunks, "limit": limit.waited}
        if payload.pause:
            arguments["pause"] = payload.pause
            arguments["limit"] = limit.waited + payload.pause * len(chunks)
        server = self.servers[payload.to or "server"]
        udp = server.service.protocol == "udp"
        if udp:
            arguments["to"] = [self._address(client, server, client.six), server.port]
        elif payload.to is not None:
            raise LabError(
                f"to: goes with UDP; over TCP a client talks to whom it is connected ({payload.to} is TCP)"
            )
        size = size_of(chunks)
        self.rig.said += size * max(len(self.clients), 1)
        self.record("sent", client.name, chunks=chunks, size=size, to=server.name)
        reply = await client.agent.ask("send", **arguments)
        if reply["ok"]:
            return
        link = (self.hosts[client.name], server.node)
        if udp and faults.CUT in self.rig.links.now.get(link, {}):
            # Dropped as it leaves: told as ENOBUFS to a socket with IP_RECVERR, which is ours, and to no other (ip(7)).
            return
        # A peer that closes while we send is no failure of this step: what it owed is expected elsewhere.
        self.record(
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
        if not await self.rig.until(waiting.settled, limit.waited):
            # What lies in the clients' kernels by now was in time; on a busy machine the agent may not have read it yet.
            await self.rig.sync([name for name, _ in waiting.watches if name in self.clients])
            if self.rig.capture is not None and any(name == "wire" for name, _ in waiting.watches):
                await self.rig.capture.sync()
        self.judge.conclude(waiting, limit)
        if not self.dialect.echo and self.framing == LINE:
            names = [name for name, _ in waiting.watches if name in self.clients and self.clients[name].ports]
            if len(names) == 1:
                await self._taken_in(names[0])

    async def _taken_in(self, client: str) -> None:
        """Where nobody hears itself, what a client alone expects of its own lines tells nothing of the server: wait until it has read
        them, and a moment for what it does with them."""
        if PROGRAMS in self.rig.lab.can:
            deadline = time.monotonic() + SETTLED * self.patience
            rows = await self.rig.rows("server", client)
            while any(row.rx_queue for row in rows) and time.monotonic() < deadline:
                await self.rig.until(lambda: False, 0.002)
                rows = await self.rig.rows("server", client)
        await self.rig.until(lambda: False, NAMED_GAP * self.patience)

    async def _quiet(self, name: str, window: float, step: Step) -> None:
        """Nothing comes from the beginning of the last step that did something until the window is over."""
        self.judge.may_be_quiet(name, step)
        await self.rig.until(lambda: self.judge.broke_silence(name), window)
        await self.rig.sync([name])
        self.judge.conclude_quiet(name, window, step)

    async def _sockets(self, step: Step, limit: Limit) -> None:
        """Ask the kernels again and again, for they tell nobody when a state changes."""
        deadline = time.monotonic() + limit.waited
        pause = 0.001
        seen: dict[tuple[str, str], Any] = {}
        while True:
            for who, peer, _ in step.sockets:
                now = as_seen(await self.rig.rows(who, peer))
                if seen.get((who, peer)) != now:
                    seen[who, peer] = now
                    self.record("sockets", who, peer=peer, **now)
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
                self.record("holdings", name, **self.servers[name].holdings().as_data())
            if not any(self.judge.growth(name) for name in step.names) or time.monotonic() > deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
        self.judge.conclude_steady(step)

    # crowds

    async def _gather(self, client: Actor, options: ConnectOptions, limit: Limit) -> None:
        """Connect a crowd; done when the server has accepted all of it."""
        server = self.servers[options.to or "server"]
        six = self._six(options)
        to = [self._address(client, server, six), options.port or server.port]
        greeting = speech_of(server.service.contract)(0).greeting(0)
        crowd = Crowd(client.agent, client.name)
        connected, why = await crowd.gather(server, to, client.of, greeting, limit.waited)
        self.record("crowd", client.name, connected=connected, of=client.of, remote=to)
        client.open = True
        if why:
            raise Failed(
                f"{client.name}: {client.of:,} connections to {server.name}, {limit}",
                f"{client.name}: {connected:,} connected; {why}",
                [client.name],
            )

    async def _load(self, client: Actor, load: LoadOptions, limit: float) -> None:
        """Let a crowd speak for a while, and record what came of it."""
        service = self.services["server"]
        kind = "echo" if service.contract in ECHOES else "fan-out"
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
            found = wrong([reply], service.protocol)
            listening = client.of - (load.senders if kind == "fan-out" else 0)
            if reply["receivers"] < listening and not reply["gone"]:
                found.append(f"{listening - reply['receivers']:,} of them had gone before")
            said, heard, times = reply["said"], reply["heard"], percentiles(reply["times"])
            speed = reply["delivered"] / reply["seconds"]
        elif reply["error"] == "unheard":
            found, said, heard, times, speed = [reply["message"]], 0, 0, {}, 0.0
        else:
            raise LabError(f"{client.name}: {reply['message']}")
        self.record(
            "load",
            client.name,
            said=said,
            heard=heard,
            per_second=round(speed),
            latency=times,
            wrong=found,
        )

    # other verbs of clients

    async def _set(self, step: Step) -> None:
        await together(
            self._ask(self.clients[name], "set", option=option, value=value)
            for name, wanted in step.options
            for option, value in wanted
        )
        for name, wanted in step.options:
            self.record("set", name, options=dict(wanted))

    async def _client_verb(self, step: Step) -> None:
        arguments = {"rcvbuf": STALLED_BUFFER} if step.verb == "stall" else {}
        verb = {"half-close": "shutdown"}.get(step.verb, step.verb)
        for name in step.names:
            self.record(_DONE[step.verb], name)
        for name in step.names:
            if self.clients[name].of:
                await Crowd(self.clients[name].agent, name).ask("close", abort=step.verb == "abort")
        names = [name for name in step.names if not self.clients[name].of]
        await together(self._ask(self.clients[name], verb, **arguments) for name in names)
        if step.verb in ("close", "abort"):
            for name in step.names:
                self.clients[name].open = False

    async def _ask(self, client: Actor, do: str, **arguments: Any) -> None:
        reply = await client.agent.ask(do, client=client.name, **arguments)
        if not reply["ok"] and reply["error"] not in ("closed", "reset"):
            raise LabError(f"{client.name}: {do}: {reply.get('message') or reply['error']}")
        if not reply["ok"]:
            self.record("note", client.name, text=f"{do}: the connection was gone already ({reply['error']})")

    # links

    async def _fault(self, step: Step) -> Undo:
        """Put a fault on links; what takes it off again and leaves what else has changed since."""
        name = fault_of(step)
        pairs, before, settings = (
            self.rig.layout.pairs(step.links),
            self.rig.links.now,
            self._filled(step.fault),
        )
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
        await self.rig.links.change(change)
        told = {
            self.rig.links.told(pair): faults.told(put) for pair, put in sorted(self.rig.links.now.items())
        }
        self.record("fault", links=told)

    async def _order(self, host: str, argv: tuple[str, ...]) -> None:
        done = await self.rig.lab.run(host, argv)
        if done.status:
            raise LabError(
                f"{' '.join(argv)} failed on {host}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else done.status}"
            )

    async def _plug(self, name: str, back: bool) -> None:
        """Take the interfaces of a host away, or give them back; done when the kernel says so (ip-link(8))."""
        host = self.hosts[name]
        devices = [
            await self.rig.lab.device(host, network) for network in self.rig.layout.nodes[host].networks
        ]
        for device in devices:
            await self._order(host, ("ip", "link", "set", "dev", device, "up" if back else "down"))
        deadline = time.monotonic() + self.limit
        for device in devices if back else ():
            while (
                "state UP" not in (await self.rig.lab.run(host, ["ip", "link", "show", "dev", device])).stdout
            ):
                if time.monotonic() > deadline:
                    raise LabError(f"{device} of {name} is not up {self.limit:g}s after it was plugged in")
        self.record("plugged" if back else "unplugged", name)


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
