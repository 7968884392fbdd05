"""A server under test, as the conductor handles it: started, waited for, signalled, and watched."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from socklab import holdings
from socklab.backends import IMAGES, NETWORKS, PROGRAMS, Lab, LabError, Lacking, Program
from socklab.backends.embedded import process_state
from socklab.guest import THREADS, Guest, Limits
from socklab.sockets import Socket, SocketTable
from socklab.topology import Service, with_option

READY_LIMIT = 10.0  # seconds; a JVM on a busy machine takes some
STOP_LIMIT = 2.0  # seconds between SIGTERM and SIGKILL where a server does not end, unless the scenario says

ELSEWHERE_LIMIT = (
    3.0  # seconds until a guest that listens, but not where it should, is not waited for any longer
)
WATCHED_EVERY = 0.1  # seconds between two looks at what a guest takes; nothing tells of it
PORTS = range(20_000, 32_000)  # below those that the kernel gives to clients (ip-sysctl, ip_local_port_range)

CLEAN_PATH = "/usr/local/bin:/usr/bin:/bin"
LOOPBACK = "127.0.0.1"
DOCKER_DNS = "127.0.0.11"  # in every container, for the names of its networks
PF_EXITING = 0x4  # in the kernel's flags of a task (include/linux/sched.h)

Record = Callable[..., object]


class NotReady(Exception):
    """The program under test did not become a server: it ended at the start, or never listened where it should."""


class Server:
    """One server on its node. `name` is what the scenario calls it: `server`, or the service's name."""

    def __init__(
        self,
        name: str,
        service: Service,
        node: str,
        lab: Lab,
        root: Path,
        patience: float,
        record: Record,
        six: bool = False,
        host: str | None = None,
    ) -> None:
        """`six`: it is reached by IPv6. `host` stands for the `--host` of its command."""
        self.name = name
        self.service = service
        self.node = node
        self.lab = lab
        self.root = root
        self.patience = patience
        self.record = record
        self.six = six
        self.host = host
        self.port = service.port
        self.program: Program | None = None
        self.ending_expected = False
        self._argv: tuple[str, ...] = ()
        self._claim: socket.socket | None = None
        self._printed = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        guest = self.service.guest
        if guest is not None and guest.loopback:
            return "::1" if self.six else LOOPBACK
        if guest is not None and NETWORKS not in self.lab.can:
            if guest.at is not None:
                return guest.at[0]
            if not guest.told_where(self.service.command):
                return LOOPBACK  # it binds what it likes, and this is where it will be found
        return self.lab.address(self.node, six=self.six)

    @property
    def running(self) -> bool:
        if PROGRAMS not in self.lab.can:
            return True
        return self.program is not None and not self.program.exited.done()

    async def start(self) -> None:
        """Start the program and wait until its kernel has the socket ready. Raises NotReady or LabError."""
        if PROGRAMS not in self.lab.can:
            self._is_ready()  # it runs already, in somebody else's hands
            return
        if not self._argv:
            self._argv = self._command()
        self.ending_expected = False
        guest = self.service.guest
        self.program = await self.lab.spawn(
            self.node,
            self._argv,
            env=self._environment(),
            cwd=str(guest.folder if guest else self.root),
            on_line=self._line,
            confined=guest.confined if guest else None,
        )
        self.record("spawned", self.name, argv=list(self._argv), pid=self.program.pid)
        self.program.exited.add_done_callback(self._ended)
        if guest is not None and self.program.pid:
            self._watcher = asyncio.ensure_future(self._watch(self.program, guest.limits))
        await self._ready()

    def close(self) -> None:
        """Look no more. What runs ends with its lab."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._claim is not None:
            self._claim.close()

    def _environment(self) -> dict[str, str]:
        common = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        if self.service.guest is not None:
            host = self.address if NETWORKS not in self.lab.can else self._anywhere
            own = {"HOME": "/tmp", "PATH": CLEAN_PATH} if self.service.guest.cell else os.environ
            return {**own, **common, "HOST": host, "PORT": str(self.port)}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            **common,
            **self.service.environment,
        }

    @property
    def _anywhere(self) -> str:
        return self.host or "0.0.0.0"

    def _guest_command(self, guest: Guest) -> tuple[str, ...]:
        argv = self.service.command
        if NETWORKS not in self.lab.can:
            if not guest.fixed:
                self.port = self._claimed_port()
            elif not self._is_free(self.port or 0):
                raise LabError(_why_taken(self.service.protocol, self.port or 0))
        host = self.address if NETWORKS not in self.lab.can else self._anywhere
        argv = guest.command(argv, host, self.port or 0)
        if argv[0] == "python" and shutil.which("python") is None:
            argv = (sys.executable, *argv[1:])
        return argv

    def _claimed_port(self) -> int:
        """A port that is free, and that no other lab of this machine will take meanwhile: its number is claimed by an abstract
        AF_UNIX name (unix(7))."""
        for port in random.sample(PORTS, 200):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0socklab-port-{port}")
            except OSError:
                claim.close()
                continue
            if self._is_free(port):
                self._claim = claim
                return port
            claim.close()
        raise LabError(f"no free port for {self.service.name}; name one with --port")

    def _is_free(self, port: int) -> bool:
        kind = socket.SOCK_DGRAM if self.service.protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
        return True

    async def _watch(self, program: Program, limits: Limits) -> None:
        """End a guest that takes more than it may."""
        while not program.exited.done():
            try:
                now = holdings.read(program.pid)
            except PermissionError:
                return
            excess = ""
            if limits.processes and now.children > limits.processes:
                ended = (
                    f", {now.zombies} of which have ended, and nobody waits for them (waitpid)"
                    if now.zombies
                    else ""
                )
                excess = f"has {now.children} children{ended}, and may have {limits.processes}"
            elif limits.processes and max(now.children, now.threads) >= limits.processes * THREADS:
                excess = f"has {now.children} children and {now.threads} threads"
            elif limits.memory and now.memory > limits.memory:
                excess = f"took {now.memory >> 20} MiB of memory, and may take {limits.memory >> 20}"
            if excess:
                self.end_for(excess)
            await asyncio.wait([program.exited], timeout=WATCHED_EVERY if not excess else 0.01)

    def end_for(self, excess: str) -> None:
        """End a guest that does what it may not: `excess` completes the sentence that begins with "it"."""
        self.record("note", self.name, text=f"it {excess}: ended", excess=excess)
        if self.program is not None and self.program.pid:
            for pid in holdings.tree(self.program.pid):
                _kill(pid)

    def _command(self) -> tuple[str, ...]:
        argv = self.service.command
        guest = self.service.guest
        if guest is not None and IMAGES not in self.lab.can:
            return self._guest_command(guest)
        if self.host is not None:
            argv = with_option(argv, "--host", self.host)
        if IMAGES in self.lab.can:
            return argv if argv != self.service.command else ()
        if not argv:
            raise LabError(
                f'service "{self.service.name}" has no command in the compose file; its image brings it, so only Docker can start it'
            )
        if argv[0] in ("python", "python3"):
            argv = (sys.executable, *argv[1:])
        if NETWORKS not in self.lab.can:
            # Plain processes share one loopback: an address of its own for the node, and a port that is free there.
            self.port = self._free_port()
            argv = with_option(with_option(argv, "--host", self.address), "--port", str(self.port))
        return argv

    def _free_port(self) -> int:
        kind = socket.SOCK_DGRAM if self.service.protocol == "udp" else socket.SOCK_STREAM
        for wanted in (self.service.port or 0, 0):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # As our servers do: connections in TIME_WAIT leave the port free, a listener does not.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.address, wanted))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise LabError(f"no free port on {self.address} for {self.service.name}")

    def _line(self, stream: str, line: bytes, t: int) -> None:
        guest = self.service.guest
        if guest is not None and guest.limits.output:
            before, self._printed = self._printed, self._printed + len(line) + 1
            if self._printed > guest.limits.output:
                if before <= guest.limits.output:
                    text = f"it printed more than {guest.limits.output >> 10} KiB; the rest is not kept"
                    self.record("note", self.name, text=text)
                return
        self.record("log", self.name, t=t, stream=stream, text=line.decode(errors="surrogateescape"))

    def _ended(self, exited: asyncio.Future[int]) -> None:
        if not exited.cancelled() and exited.exception() is None:
            self.record("exited", self.name, status=exited.result(), expected=self.ending_expected)

    # readiness

    async def listening(self) -> list[Socket]:
        """Its sockets in LISTEN (UDP: bound) that a client could reach, from the kernel's table."""
        table = await self.lab.sockets(self.node, listening=self.service.protocol == "tcp")
        if self.service.protocol == "unix":
            return table.listening_unix(self.service.path or "")
        if self.port is None:
            rows = [
                r
                for r in table.rows
                if r.protocol == self.service.protocol and r.state in ("LISTEN", "CLOSE")
            ]
        else:
            rows = table.listening(self.service.protocol, self.port)
        anywhere = {"::"} if self.six else {"0.0.0.0", "::"}
        return [
            r
            for r in rows
            if r.local in (self.address, f"::ffff:{self.address}", *anywhere) and (self.six or not r.v6only)
        ]

    async def waiting(self) -> int:
        """How many connections wait for accept(); 0 where that cannot be known."""
        if not self.lab.reachable(self.node):
            return 0
        return sum(row.rx_queue for row in await self.listening()) if self.service.protocol == "tcp" else 0

    async def _ready(self) -> None:
        assert self.program is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_LIMIT * self.patience
        soon = loop.time() + ELSEWHERE_LIMIT * self.patience if self.service.guest else deadline
        pause = 0.001
        while not (rows := await self.listening()):
            if self.program.exited.done():
                raise NotReady(f"{self.end} before it listened")
            if loop.time() > deadline:
                raise NotReady(await self._elsewhere(READY_LIMIT))
            if loop.time() > soon and (await self._own_sockets()):
                raise NotReady(await self._elsewhere(ELSEWHERE_LIMIT))
            # The kernel tells nobody that a socket began to listen, so its table is read again, soon.
            await asyncio.wait([self.program.exited], timeout=pause)
            pause = min(pause * 1.3, 0.01)
        if self.port is None:
            self.port = rows[0].local_port
        self._is_ready()

    def _is_ready(self) -> None:
        protocol, address = self.service.protocol, self.service.path or self.address
        self.record("ready", self.name, protocol=protocol, address=address, port=self.port or 0)

    @property
    def _called(self) -> str:
        """A guest stands under the name of the one whose place it has, which would say nothing to its author."""
        return "the server" if self.service.guest else self.service.name

    @property
    def end(self) -> str:
        """How its process ended."""
        assert self.program is not None
        status = self.program.exited.result()
        return f"{self._called} ended {f'by signal {-status}' if status < 0 else f'with status {status}'}"

    async def _elsewhere(self, limit: float) -> str:
        """Where it listens instead, and what would help."""
        protocol, port = self.service.protocol, self.port
        where = self.service.path or f"{protocol} port {port}"
        text = f"{self._called} runs, but does not listen on {where} within {limit * self.patience:g}s"
        rows = await self._own_sockets()
        here = [r for r in rows if r.local_port == port]
        if same := [r for r in here if r.protocol == protocol]:
            if any(r.v6only for r in same):
                return f"{text}: it listens on IPv6 only; bind 0.0.0.0, or switch IPV6_V6ONLY off"
            or_ = ", or say --loopback, and its clients live on its host" if self.service.guest else ""
            return f"{text} where others reach it: it listens on {same[0].local} only; bind {'::' if self.six else '0.0.0.0'}{or_}"
        if here:
            return f"{text}: its socket on that port is one of {here[0].protocol.upper()}"
        if other := next((r for r in rows if r.protocol == protocol), None):
            if self.service.guest is None:
                return f"{text}; it listens on port {other.local_port} instead"
            return f"{text}; it listens on port {other.local_port} instead: put {{port}} into its command, or name its own with --port {other.local_port}"
        return text

    async def _own_sockets(self) -> list[Socket]:
        """Those of its process that listen, or are bound, anywhere."""
        tables = [await self.lab.sockets(self.node), await self.lab.sockets(self.node, listening=True)]
        rows = {
            (r.protocol, r.local, r.local_port): r
            for table in tables
            for r in table.rows
            if (r.state == "LISTEN" or (r.protocol == "udp" and r.state == "CLOSE"))
            and r.protocol in ("tcp", "udp")
            and r.local != DOCKER_DNS
        }
        pid = self.program.pid if self.program is not None else 0
        own = holdings.sockets(pid) if pid else None
        return [row for row in rows.values() if own is None or row.inode in own]

    # process faults

    async def signal(self, number: signal.Signals, *, group: bool) -> None:
        if self.program is not None and self.running:
            # First told, then done: on Docker the end of the process may be heard of before the signal's answer.
            self.record("signalled", self.name, signal=number.name, group=group)
            await self.lab.signal(self.program, number, group=group)

    async def kill(self) -> None:
        self.ending_expected = True
        await self.signal(signal.SIGKILL, group=True)
        await self.ended()

    async def stop(self, limit: float) -> None:
        """SIGTERM; done when it listens no more. One that goes on listening is killed at the limit (seconds)."""
        await self._ask_to_end()
        if not await self._gone(limit):
            await self._kill_one_that("still listens", limit)

    async def _gone(self, limit: float) -> bool:
        assert self.program is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while self.running and await self.listening():
            if loop.time() > deadline:
                return False
            await asyncio.wait([self.program.exited], timeout=0.005)
        if self.running:
            # Nearly always the process ends right behind its listener; one whose workers go on does not.
            await asyncio.wait([self.program.exited], timeout=min(0.05, limit))
        return True

    async def restart(self, limit: float) -> None:
        """SIGTERM, and start it again when its process has ended: one that saves something first may do so. One that goes on is
        killed at the limit (seconds)."""
        if self.program is not None and self.running:
            await self.freeze(False, limit)  # a paused one would not hear SIGTERM
            await self._ask_to_end()
            await asyncio.wait([self.program.exited], timeout=limit)
            if self.running:
                await self._kill_one_that("still runs", limit)
        await self.start()

    async def _ask_to_end(self) -> None:
        self.ending_expected = True
        await self.signal(signal.SIGTERM, group=False)

    async def _kill_one_that(self, goes_on: str, limit: float) -> None:
        self.record("note", self.name, text=f"{goes_on} {limit:g}s after SIGTERM, so it was killed")
        await self.kill()

    async def freeze(self, frozen: bool, limit: float) -> None:
        """Pause or continue; done when the kernel says so."""
        if self.program is not None and self.running:
            await self.lab.freeze(self.program, frozen, limit)
            self.record("signalled", self.name, signal="SIGSTOP" if frozen else "SIGCONT", group=True)

    def holdings(self) -> holdings.Holdings:
        """What its process holds now. Raises Lacking where that cannot be seen."""
        pid = self.program.pid if self.program is not None else 0
        try:
            if pid:
                return holdings.read(pid)
        except PermissionError:
            pass
        raise Lacking(f"needs to look into the process of {self.service.name}: play it as root")

    @property
    def dying(self) -> bool:
        """Its process is on its way out: its sockets are closed already, and its end is not told yet."""
        if self.program is None or not self.running or not self.program.pid:
            return False
        state, *_, flags = process_state(self.program.pid)[:7]
        return state in ("X", "Z") or bool(int(flags) & PF_EXITING)

    async def ended(self) -> None:
        if self.program is not None:
            await asyncio.wait([self.program.exited])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def _why_taken(protocol: str, port: int) -> str:
    """Of a port of this machine that cannot be bound, with the way out."""
    try:
        table = SocketTable.parse([(protocol, Path(f"/proc/net/{protocol}").read_text())])
    except OSError:
        table = SocketTable(())
    mine = [row for row in table.rows if row.local_port == port]
    if mine and all(row.state == "TIME_WAIT" for row in mine):
        return (
            f"port {port} is kept for a minute by connections that have ended (TIME_WAIT), for the server did not set SO_REUSEADDR; "
            "play it --on netns, where each play has a host of its own"
        )
    return f"port {port} is taken by another program of this machine; end that one, or play it --on netns"
