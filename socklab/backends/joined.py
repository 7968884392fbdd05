"""The `joined` backend: nodes that exist already, in containers of their own, and dial the conductor (`docker compose up`).

    the conductor writes /run/socklab/conductor.json: a secret made at its start, and where it listens
    a client, or a gate that shares a server's network, reads that, dials, and is a node of the lab while its stream lasts

The folder is a volume in memory that only containers of the lab mount. Where they are on several machines (docker-stack.yml), no volume is
theirs together: the secret is made beforehand and given to all, and the conductor is found by its name. What such a client tells of
moments is by the clock of its machine, and is told on in the time of ours (clock.py). The servers run in containers that are not ours: they
are found by name, and neither started nor ended here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import json
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socklab.backends import (
    IMAGES,
    LINKS,
    NAMES,
    NETWORKS,
    Apart,
    Completed,
    Inside,
    LabError,
    Lacking,
    Network,
    Node,
    OnLine,
    Program,
    Unavailable,
)
from socklab.backends.clock import Clock
from socklab.backends.node import notice_its_end, which_clock
from socklab.backends.remote import RemoteNode
from socklab.sockets import SocketTable

FOLDER = Path("/run/socklab")
PORT = 4000
HELLO_LIMIT = 5.0  # seconds; somebody who says nothing is shown the door
HELLO_SIZE = 4096  # bytes
GATHER = 15.0  # seconds at most for the first client to come
SETTLE = 1.0  # seconds without a new one, after which all that will come have come
START = 60.0  # seconds in which containers on several machines start: clients that are waited for, names that are not known yet
AGAIN = 0.2  # seconds between two looks for a name; nothing tells when it comes
FIRST_ROUNDS = 16  # round trips by which the clock of another machine is known at the start of a play
COMPARED_EVERY = 1.0  # seconds; then it is compared again
_AT_WORK = "another conductor is at work in this lab; wait until it is done, or end its container"


@dataclass(eq=False)
class _Joined:
    """A client or a gate that has joined."""

    name: str
    networks: tuple[str, ...]
    gate: str | None
    remote: RemoteNode
    control: str
    """Its address on the control network."""
    machine: str
    """Which clock is its own."""
    taken: bool = False


class Joined:
    """socklab.backends.Backend"""

    name = "joined"
    plays = 4
    can = frozenset({NETWORKS, NAMES, LINKS, IMAGES})

    def __init__(
        self,
        folder: Path = FOLDER,
        port: int = PORT,
        secret: str = "",
        wanted: Mapping[str, int] | None = None,
    ) -> None:
        """With a `secret` that clients were given, nothing is written into the folder, and they find us by our name. `wanted`: network →
        how many clients there are to be waited for at the start; without, those are taken who come."""
        self.folder = folder
        self.apart = bool(secret)
        """Clients and servers are on several machines."""
        self._port = port
        self._secret = secret or secrets.token_urlsafe(32)
        self._wanted = wanted or {}
        self._began = time.monotonic()
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._here: list[_Joined] = []
        self._left: set[str] = set()
        self._strangers = False
        self._came = asyncio.Event()
        self._turn = asyncio.Lock()

    @classmethod
    def configured(cls, environment: Mapping[str, str]) -> Joined:
        """As the conductor's container says: $SOCKLAB_SECRET, the file of the secret that all were given, and $SOCKLAB_GATHER, whom to
        wait for (`lab=4 far=2`). Raises Unavailable."""
        secret, wanted = "", {}
        if path := environment.get("SOCKLAB_SECRET"):
            try:
                secret = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise Unavailable(f"$SOCKLAB_SECRET: {path}: cannot be read: {exc}") from None
            if not secret:
                raise Unavailable(
                    f"$SOCKLAB_SECRET: {path}: is empty; openssl rand -hex 32 | docker secret create socklab -"
                )
        for word in environment.get("SOCKLAB_GATHER", "").split():
            network, _, count = word.partition("=")
            if not count.isdecimal():
                raise Unavailable(
                    f'$SOCKLAB_GATHER: "{word}" says not how many clients on which network: lab=4'
                )
            wanted[network] = int(count)
        return cls(secret=secret, wanted=wanted)

    async def probe(self) -> str | None:
        """Listen, and wait for the clients. None, or why it cannot be."""
        try:
            await self._open()
        except Unavailable as exc:
            return str(exc)
        await self._gather()
        return None

    async def _open(self) -> None:
        try:
            if self.apart:
                self._listeners = [self._listener()]
            else:
                self._open_in_folder()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise Unavailable(_AT_WORK) from None
            raise Unavailable(
                f"{exc.filename or self.folder}: {exc.strerror}; --on joined is for the conductor's container: docker compose up"
            ) from None
        for listener in self._listeners:
            listener.setblocking(False)
            self._task(self._accept(listener))

    def _listener(self) -> socket.socket:
        return socket.create_server(("0.0.0.0", self._port), backlog=128)

    def _open_in_folder(self) -> None:
        place = self.folder / "conductor.json"
        path = self.folder / "control"
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
            raise Unavailable(_AT_WORK)
        except OSError:
            path.unlink(missing_ok=True)  # nobody listens there any more
        self._listeners = [self._listener()]
        local = socket.socket(socket.AF_UNIX)
        self._listeners.append(local)
        local.bind(str(path))
        path.chmod(0o666)
        local.listen(128)
        at = [f"{address}:{self._port}" for address in _own_addresses()]
        draft = self.folder / "conductor.json.new"
        draft.write_text(json.dumps({"secret": self._secret, "at": [*at, f"unix:{path}"]}))
        draft.chmod(0o644)  # the volume is the lab's alone
        draft.replace(place)

    async def _gather(self) -> None:
        """Until those have come who are waited for, or some have come, and then no more come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (START if self._wanted else GATHER)
        while (left := deadline - loop.time()) > 0:
            if self._wanted and all(self._on(name) >= count for name, count in self._wanted.items()):
                return
            self._came.clear()
            settled = self._here and not self._wanted
            try:
                async with asyncio.timeout(min(SETTLE, left) if settled else left):
                    await self._came.wait()
            except TimeoutError:
                if self._here:
                    return

    def _on(self, network: str) -> int:
        return sum(j.gate is None and network in j.networks for j in self._here)

    def _task(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                stream, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(0.1)  # out of descriptors, say; it may pass
                continue
            stream.setblocking(False)
            self._task(self._welcome(stream))

    async def _welcome(self, stream: socket.socket) -> None:
        """Who knows the secret is a node; anybody else is dropped, whatever they said."""
        try:
            async with asyncio.timeout(HELLO_LIMIT):
                data = b""
                while not data.endswith(b"\n"):
                    part = await asyncio.get_running_loop().sock_recv(stream, HELLO_SIZE)
                    data += part
                    if not part or len(data) > HELLO_SIZE:
                        raise ValueError("no hello")
            hello = json.loads(data)
            if not hmac.compare_digest(str(hello["secret"]).encode(), self._secret.encode()):
                self._strangers = True
                raise ValueError("wrong secret")
            name, gate = str(hello["name"]), hello.get("gate")
            networks = tuple(str(n) for n in hello["networks"])
            clock = str(hello.get("clock", ""))
            control = ""
            if stream.family != socket.AF_UNIX:
                control = stream.getpeername()[0]
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                notice_its_end(stream)
        except (OSError, ValueError, KeyError, TypeError, TimeoutError):
            stream.close()
            return
        joined = _Joined(
            name, networks, None if gate is None else str(gate), RemoteNode(name, stream), control, clock
        )
        if clock and clock != which_clock():
            joined.remote.clock = Clock()
        joined.remote.on_end = lambda: self._gone(joined)
        self._here.append(joined)
        self._left.discard(name)
        self._came.set()

    def _gone(self, joined: _Joined) -> None:
        if joined in self._here:
            self._here.remove(joined)
            self._left.add(joined.name)

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> JoinedLab:
        # The servers are the same for all, so one plays at a time.
        await self._turn.acquire()
        lab = JoinedLab(self)
        try:
            await lab.start(nodes)
        except BaseException:
            await lab.stop()
            raise
        return lab

    def take(self, node: Node) -> _Joined | None:
        """A free client on the node's networks, if there is one, on the machine that has the fewest at work."""
        free = [
            j for j in self._here if j.gate is None and not j.taken and set(node.networks) <= set(j.networks)
        ]
        at_work = Counter(j.machine for j in self._here if j.taken)
        joined = min(free, key=lambda j: at_work[j.machine], default=None)
        if joined is not None:
            joined.taken = True
        return joined

    def on(self, network: str) -> _Joined | None:
        """Any client on this network."""
        return next((j for j in self._here if j.gate is None and network in j.networks), None)

    def gate(self, service: str) -> _Joined | None:
        return next((j for j in self._here if j.gate == service), None)

    def counted(self, nodes: Sequence[Node]) -> str:
        """Why these clients cannot all be had, and how to get them."""
        left = f" ({len(self._left)} more were here and have gone)" if self._left else ""
        if self._strangers and not self._here:
            left += " (somebody came with another secret than ours: docker service update --force what has an old one)"
        for networks in dict.fromkeys(n.networks for n in nodes if n.compose is None):
            wanted = sum(n.compose is None and n.networks == networks for n in nodes)
            here = sum(j.gate is None and set(networks) <= set(j.networks) for j in self._here)
            if here < wanted:
                where = ", ".join(networks)
                more = (
                    f"docker {'service scale STACK_' if self.apart else 'compose up --scale '}client={wanted}"
                )
                return (
                    f"needs {wanted} clients on {where}, and {here} have joined there{left}: "
                    f"{more} (or the service whose clients are on {where})"
                )
        return f"needs clients that are with another play{left}"

    async def resolve(self, asker: RemoteNode, name: str) -> str:
        """A server's address. On several machines it may still be starting, and its name comes when it is healthy."""
        while True:
            try:
                return await asker.resolve(name)
            except LabError:
                if not self.apart or time.monotonic() - self._began > START:
                    raise
                await asyncio.sleep(AGAIN)

    def done(self) -> None:
        self._turn.release()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for joined in list(self._here):
            joined.remote.on_end = None
            joined.remote.close()
        for listener in self._listeners:
            listener.close()
        if self._listeners and not self.apart:
            for name in ("conductor.json", "control"):
                (self.folder / name).unlink(missing_ok=True)


class JoinedLab:
    """socklab.backends.Lab"""

    def __init__(self, backend: Joined) -> None:
        self.can = backend.can
        self._backend = backend
        self._nodes: dict[str, Node] = {}
        self._joined: dict[str, _Joined] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        self._devices: dict[str, dict[str, str]] = {}
        self._touched: set[str] = set()
        self._comparing: asyncio.Task[None] | None = None
        self._over = False

    async def start(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        for node in nodes:
            if node.compose is not None:
                if gate := self._backend.gate(node.name):
                    self._joined[node.name] = gate
                continue
            client = self._backend.take(node)
            if client is None:
                raise Lacking(self._backend.counted(nodes))
            self._joined[node.name] = client
        for node in nodes:
            if node.compose is None:
                await self._find_client(node)
            else:
                for network in node.networks:
                    if asker := self._backend.on(network):
                        self._addresses[node.name, network] = await self._backend.resolve(
                            asker.remote, node.name
                        )
        foreign = [joined.remote for joined in self._joined.values() if joined.remote.clock is not None]
        await asyncio.gather(*(_compare_clocks(remote, FIRST_ROUNDS) for remote in foreign))
        for joined in self._joined.values():
            if (clock := joined.remote.clock) is not None:
                clock.worst = 0  # of this play
        if foreign:
            self._comparing = asyncio.ensure_future(self._go_on_comparing(foreign))

    async def _go_on_comparing(self, foreign: Sequence[RemoteNode]) -> None:
        while True:
            await asyncio.sleep(COMPARED_EVERY)
            # One after another, so that their round trips do not lengthen one another.
            for remote in foreign:
                with contextlib.suppress(LabError):  # it is gone, and whoever needs it will be told
                    await _compare_clocks(remote, 1)

    async def _find_client(self, node: Node) -> None:
        """A client's address: the one that is not its end of the control stream."""
        joined = self._joined[node.name]
        self._devices[node.name] = await joined.remote.devices()
        mine = [a for a in self._devices[node.name] if not a.startswith("127.") and a != joined.control]
        if len(node.networks) > 1 or len(mine) != 1:
            raise LabError(
                f"{node.name} is to be on {', '.join(node.networks)}; a client that joins is on one network beside its control network"
            )
        self._addresses[node.name, node.networks[0]] = mine[0]

    # what the conductor asks

    def address(self, node: str, network: str | None = None, six: bool = False) -> str:
        if six:
            raise LabError(f"{node} has no IPv6 address")
        mine = self._nodes[node].networks
        wanted = network if network in mine else mine[0]
        if (node, wanted) not in self._addresses:
            raise LabError(
                f"the address of {node} on {wanted} is known to nobody: no client has joined on that network"
            )
        return self._addresses[node, wanted]

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
        raise LabError(f"{node}: nothing is started in containers that are not ours")

    async def inside(self, node: str, program: Inside) -> socket.socket:
        if node not in self._joined:
            raise LabError(f"{node} has no gate; start it: docker compose --profile experiments up")
        if program == "gate":
            self._touched.add(node)
        return await self._joined[node].remote.inside(program)

    async def capture(self, local: Sequence[str]) -> list[tuple[str, socket.socket]]:
        streams = []
        for node, joined in self._joined.items():
            devices = [await self.device(node, network) for network in self._nodes[node].networks]
            streams.append((node, await joined.remote.inside("capture", ["lo", *devices])))
        return streams

    async def run(self, node: str, argv: Sequence[str], input: str = "", limit: float = 10.0) -> Completed:
        self._touched.add(node)
        return await self._joined[node].remote.run(argv, input, limit)

    def reachable(self, node: str) -> bool:
        return node in self._joined

    async def device(self, node: str, network: str) -> str:
        if node not in self._devices:
            self._devices[node] = await self._joined[node].remote.devices()
        return self._devices[node][self.address(node, network)]

    async def signal(self, program: Program, number: signal.Signals, *, group: bool = False) -> None:
        raise LabError(f"{program.node} is not ours to signal")

    async def freeze(self, program: Program, frozen: bool, limit: float) -> None:
        raise LabError(f"{program.node} is not ours to pause")

    async def sockets(self, node: str, *, listening: bool = False) -> SocketTable:
        return await self._joined[node].remote.sockets(listening) if node in self._joined else SocketTable(())

    def clocks(self) -> dict[str, Apart]:
        return {
            name: Apart(
                joined.name,
                clock.ahead,
                max(clock.worst, clock.error(time.monotonic_ns())),
                clock.rounds,
                clock.steps,
            )
            for name, joined in self._joined.items()
            if (clock := joined.remote.clock) is not None
        }

    async def diagnosis(self) -> str:
        return ""

    async def stop(self) -> None:
        if self._over:
            return
        self._over = True
        if self._comparing is not None:
            self._comparing.cancel()
        try:
            await asyncio.gather(*(self._leave(name, joined) for name, joined in self._joined.items()))
        finally:
            self._backend.done()

    async def _leave(self, name: str, joined: _Joined) -> None:
        """As it was before: no program of ours, no rules. The gate's hook stays; without a gate it lets all pass."""
        try:
            await joined.remote.alone()
            if name in self._touched:
                wipe = [
                    line
                    for f in ("inet", "netdev")
                    for line in (f"table {f} socklab", f"delete table {f} socklab")
                ]
                await joined.remote.run(["nft", "-f", "-"], "\n".join(wipe) + "\n")
                for device in set(self._devices.get(name, {}).values()) - {"lo"}:
                    await joined.remote.run(["ip", "link", "set", "dev", device, "up"])
        except LabError:
            joined.remote.close()  # it dials again, as a new one
        joined.taken = False


async def _compare_clocks(remote: RemoteNode, rounds: int) -> None:
    for _ in range(rounds):
        await remote.compare_clocks()


def _own_addresses() -> list[str]:
    """Ours, as other containers reach us: of a container with one network, its one address."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
