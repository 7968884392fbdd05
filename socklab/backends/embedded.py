"""The conductor's side of the keeper: labs made of this machine's own processes. Both embedded backends are made of it."""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from socklab.backends import Apart, CannotStart, Completed, Inside, LabError, Node, OnLine, Program, sockdiag
from socklab.places import AGENT
from socklab.sockets import SocketTable

KEEPER = Path(__file__).with_name("keeper.py")
LONGEST_LINE = 65536  # bytes; a longer one is handed on in pieces
PIPE = 32768  # bytes that surely go into a pipe at once (pipe(7))
ADMIN_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_PACKET = 1 << 20
_TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")  # as the keeper sends them


class Keeper:
    """The keeper process, started with the first lab."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self.labs: set[EmbeddedLab] = set()

    def new_lab(
        self, message: dict[str, Any], lab: EmbeddedLab
    ) -> tuple[socket.socket, asyncio.Future[None]]:
        """Have a lab forked: the control socket to it, and what is done when its process has been reaped."""
        if self._control is None:
            self._start()
        assert self._control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET)
        number = next(self._numbers)
        gone = asyncio.get_running_loop().create_future()
        try:
            _send(self._control, {**message, "lab": number}, [theirs.fileno()])
        except OSError:
            ours.close()
            self._lost()
            raise LabError("the keeper process of the lab is gone; was it killed?") from None
        finally:
            theirs.close()
        self._gone[number] = gone
        self.labs.add(lab)
        return ours, gone

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET)
        # In a session of its own, so that Ctrl-C at the terminal is the conductor's alone to hear.
        argv = [sys.executable, "-I", "-S", str(KEEPER), str(theirs.fileno()), str(AGENT)]
        try:
            self._process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            ours.close()
            raise LabError(f"the keeper process cannot be started: {exc.strerror}") from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._readable)

    def _readable(self) -> None:
        assert self._control is not None
        try:
            message, _ = _receive(self._control)
        except BlockingIOError:
            return
        if message is None:
            self._lost()
            return
        gone = self._gone.pop(message["gone"], None)
        if gone is not None and not gone.done():
            gone.set_result(None)

    def _lost(self) -> None:
        """The keeper has ended, and with it every lab."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        for gone in self._gone.values():
            if not gone.done():
                gone.set_result(None)
        self._gone.clear()
        if self._process is not None:
            self._process.wait()
            self._process = None

    async def close(self) -> None:
        """Stop the labs that are left, then the keeper."""
        for lab in list(self.labs):
            await lab.stop()
        self._lost()


class EmbeddedLab:
    """A lab in the keeper's hands (socklab.backends.Lab)."""

    def __init__(
        self, keeper: Keeper, can: frozenset[str], addresses: Mapping[str, Sequence[Sequence[str]]]
    ) -> None:
        self.can = can
        self.addresses = addresses
        """Node → network, IPv4 and perhaps IPv6 address of each of its interfaces."""
        self._keeper = keeper
        self._control: socket.socket | None = None
        self._gone: asyncio.Future[None] | None = None
        self._up: asyncio.Future[dict[str, Any]]
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._running: dict[int, _Running] = {}
        self._tables: dict[str, list[tuple[str, int]]] = {}
        self._diagnoses: dict[str, socket.socket] = {}

    async def start(self, kind: str, networks: Sequence[str], nodes: Sequence[Node]) -> None:
        """Raises LabError, or OSError for what the kernel refused."""
        loop = asyncio.get_running_loop()
        described = [
            {"name": node.name, "aliases": node.aliases, "addresses": self.addresses[node.name]}
            for node in nodes
        ]
        message = {"do": "lab", "kind": kind, "networks": list(networks), "nodes": described}
        self._control, self._gone = self._keeper.new_lab(message, self)
        self._control.setblocking(False)
        self._up = loop.create_future()
        loop.add_reader(self._control, self._readable)
        try:
            answer = await self._up
        except BaseException:
            await self.stop()
            raise
        if "broken" in answer:
            await self.stop()
            if answer["errno"]:
                raise OSError(answer["errno"], answer["broken"])
            raise LabError(f"the lab could not be made: {answer['broken']}")

    # what the conductor asks

    def address(self, node: str, network: str | None = None, six: bool = False) -> str:
        mine = self.addresses.get(node, ())
        if not mine:
            raise LabError(f"{node} is on no network")
        _, *addresses = next((each for each in mine if each[0] == network), mine[0])
        if six and len(addresses) < 2:
            raise LabError(f"{node} has no IPv6 address")
        return addresses[six]

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
        message = {"argv": list(argv), "env": dict(env), "cwd": cwd, "confined": dict(confined or {})}
        if stdio is not None:
            return await self._start(node, message, stdio, (), None)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            return await self._start_heard(node, message, null, on_line)
        finally:
            os.close(null)

    async def _start_heard(
        self, node: str, message: Mapping[str, Any], stdin: int, on_line: OnLine | None
    ) -> Program:
        """Start a program whose output we read."""
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        try:
            readers = [("stdout", out), ("stderr", err)]
            return await self._start(node, message, (stdin, out_end, err_end), readers, on_line)
        finally:
            for each in (out_end, err_end):
                os.close(each)

    async def _start(
        self,
        node: str,
        message: Mapping[str, Any],
        stdio: tuple[int, int, int],
        readers: Sequence[tuple[str, int]],
        on_line: OnLine | None,
    ) -> Program:
        """Have the lab's process start what the message says. `readers` are our ends of its output, by the name of the stream."""
        argv, number = message["argv"], next(self._numbers)
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        running = self._running[number] = _Running(exited, readers, on_line)
        order = {"do": "spawn", "program": number, "node": node, **message}
        try:
            answer, descriptors = await self._ask(number, order, list(stdio))
            if not answer.get("started"):
                raise CannotStart(_why_not(answer, argv))
        except BaseException:
            self._running.pop(number, None)
            running.close()
            raise
        return Program(node, tuple(argv), self._outer_pid(node, descriptors), exited)

    async def inside(self, node: str, program: Inside) -> socket.socket:
        return await self._inside(node, {"which": program})

    async def capture(self, local: Sequence[str]) -> list[tuple[str, socket.socket]]:
        return [("", await self._inside(None, {"which": "capture", "local": list(local)}))]

    async def _inside(self, node: str | None, which: Mapping[str, Any]) -> socket.socket:
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        try:
            _, descriptors = await self._ask(
                number, {"do": "inside", "program": number, "node": node, **which}, [theirs.fileno()]
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._outer_pid(node, descriptors)
        return ours

    async def run(self, node: str, argv: Sequence[str], input: str = "", limit: float = 10.0) -> Completed:
        lines: dict[str, list[str]] = {"stdout": [], "stderr": []}

        def heard(stream: str, line: bytes, _: int) -> None:
            lines[stream].append(line.decode(errors="replace"))

        message = {"argv": list(argv), "env": {"PATH": ADMIN_PATH, "LANG": "C.UTF-8"}, "cwd": "/"}
        read, write = os.pipe()
        try:
            try:
                program = await self._start_heard(node, message, read, heard)
            finally:
                os.close(read)
            data = input.encode()
            if len(data) > PIPE:
                await asyncio.get_running_loop().run_in_executor(None, _write_all, write, data)
            else:
                _write_all(write, data)
            os.close(write)
            write = -1
            async with asyncio.timeout(limit):
                status = await program.exited
        except TimeoutError:
            raise LabError(f"{' '.join(argv)} on {node} has not ended within {limit:g}s") from None
        finally:
            if write >= 0:
                os.close(write)
        return Completed(tuple(argv), status, "\n".join(lines["stdout"]), "\n".join(lines["stderr"]))

    async def signal(self, program: Program, number: signal.Signals, *, group: bool = False) -> None:
        if program.exited.done() or program.pid <= 0:
            return
        try:
            if group:
                os.killpg(program.pid, number)
            else:
                os.kill(program.pid, number)
        except ProcessLookupError:
            pass

    async def freeze(self, program: Program, frozen: bool, limit: float) -> None:
        await self.signal(program, signal.SIGSTOP if frozen else signal.SIGCONT, group=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while not program.exited.done() and (process_state(program.pid)[0] in ("T", "t")) is not frozen:
            if loop.time() > deadline:
                raise LabError(
                    f"{program.node} was told to {'pause' if frozen else 'continue'}, and did not within {limit:g}s"
                )
            await asyncio.sleep(0.001)

    async def sockets(self, node: str, *, listening: bool = False) -> SocketTable:
        if listening:
            try:
                return SocketTable(sockdiag.listening(self._diagnosis_of(node)))
            except OSError:
                pass  # this kernel has no inet_diag; /proc tells it too
        tables = self._tables.get(node) or self._host_tables()
        return SocketTable.parse((protocol, _read_table(descriptor)) for protocol, descriptor in tables)

    def _diagnosis_of(self, node: str) -> socket.socket:
        if node not in self._diagnoses:
            self._diagnoses[node] = sockdiag.open_here()
        return self._diagnoses[node]

    def _host_tables(self) -> list[tuple[str, int]]:
        """The tables of the network namespace that we are in ourselves, for nodes that have none of their own."""
        if "" not in self._tables:
            paths = [(name.removesuffix("6"), f"/proc/self/net/{name}") for name in _TABLES]
            self._tables[""] = [
                (protocol, os.open(path, os.O_RDONLY)) for protocol, path in paths if os.path.exists(path)
            ]
        return self._tables[""]

    def reachable(self, node: str) -> bool:
        return True

    async def device(self, node: str, network: str) -> str:
        return f"eth{[name for name, *_ in self.addresses[node]].index(network)}"

    def clocks(self) -> dict[str, Apart]:
        return {}

    async def diagnosis(self) -> str:
        return ""

    async def stop(self) -> None:
        self._keeper.labs.discard(self)
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()  # the lab reads its end, and ends
            self._control = None
        for tables in self._tables.values():
            for _, descriptor in tables:
                os.close(descriptor)
        self._tables.clear()
        for diagnosis in self._diagnoses.values():
            diagnosis.close()
        self._diagnoses.clear()
        self._fail("the lab has been stopped")
        if self._gone is not None:
            gone, self._gone = self._gone, None
            await asyncio.shield(gone)

    # the control socket

    async def _ask(
        self, number: int, message: dict[str, Any], descriptors: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        if self._control is None:
            raise LabError("the lab has ended")
        answer: asyncio.Future[tuple[dict[str, Any], list[int]]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            _send(self._control, message, descriptors)
        except BlockingIOError:
            raise LabError("the lab's process does not answer; is the machine out of memory?") from None
        except OSError as exc:
            if exc.errno == 90:  # EMSGSIZE
                raise CannotStart(
                    f"{message['argv'][0]}: its command line and environment are larger than {_PACKET} bytes"
                ) from None
            raise LabError("the lab's process is gone; was it killed?") from None
        try:
            return await answer
        finally:
            self._answers.pop(number, None)

    def _readable(self) -> None:
        assert self._control is not None
        for _ in range(64):
            try:
                message, descriptors = _receive(self._control)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = None, []
            if message is None:
                asyncio.get_running_loop().remove_reader(self._control)
                self._fail("the lab's process is gone; was it killed?")
                return
            self._take(message, descriptors)

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "up" in message or "broken" in message:
            if not self._up.done():
                self._up.set_result(message)
            return
        if "exited" in message:
            running = self._running.pop(message["exited"], None)
            if running is not None:
                running.ended(message["status"])
            return
        answer = self._answers.get(message["program"])
        if answer is not None and not answer.done():
            answer.set_result((message, descriptors))
        else:
            for each in descriptors:
                os.close(each)

    def _fail(self, why: str) -> None:
        if hasattr(self, "_up") and not self._up.done():
            self._up.set_exception(LabError(why))
            self._up.exception()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LabError(why))
        for running in self._running.values():
            running.ended(-signal.SIGKILL)
        self._running.clear()

    def _outer_pid(self, node: str | None, descriptors: list[int]) -> int:
        """The process's number as we see it, from its pidfd (pidfd_open(2)); the tables that came beside it are kept."""
        handle, *rest = descriptors
        if rest and node is not None:
            diagnosis, *tables = rest
            self._diagnoses[node] = socket.socket(fileno=diagnosis)
            self._tables[node] = [
                (name.removesuffix("6"), each) for name, each in zip(_TABLES, tables, strict=False)
            ]
        try:
            for line in Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines():
                if line.startswith("Pid:"):
                    return max(int(line.split()[1]), 0)
            return 0
        finally:
            os.close(handle)


class LineSplitter:
    """Makes lines of what a program prints, and hands them on."""

    def __init__(self, on_line: OnLine | None) -> None:
        self._on_line = on_line
        self._rest: dict[str, bytes] = {}

    def feed(self, stream: str, data: bytes, now: int) -> None:
        *lines, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        for line in lines:
            self._tell(stream, line, now)
        while len(rest) >= LONGEST_LINE:
            self._tell(stream, rest[:LONGEST_LINE], now)
            rest = rest[LONGEST_LINE:]
        self._rest[stream] = rest

    def end(self, now: int, stream: str | None = None) -> None:
        """The last line counts also without its newline. Of one stream, or of all."""
        for name in [stream] if stream else list(self._rest):
            if rest := self._rest.pop(name, b""):
                self._tell(name, rest, now)

    def _tell(self, stream: str, line: bytes, now: int) -> None:
        if self._on_line is not None:
            self._on_line(stream, line, now)


class _Running:
    """What a running program prints, and how it ends."""

    def __init__(
        self, exited: asyncio.Future[int], readers: Sequence[tuple[str, int]], on_line: OnLine | None
    ) -> None:
        self.exited = exited
        self._loop = asyncio.get_running_loop()
        self._lines = LineSplitter(on_line)
        self._streams = {descriptor: stream for stream, descriptor in readers}
        for descriptor in self._streams:
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> bool:
        """Hand on what is there; whether there may be more."""
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        now = time.monotonic_ns()
        stream = self._streams[descriptor]
        if not data:
            self._lines.end(now, stream)
            self._close(descriptor)
            return False
        self._lines.feed(stream, data, now)
        return True

    def _close(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        del self._streams[descriptor]

    def ended(self, status: int) -> None:
        """The main process has ended: hand on what it printed. A grandchild that keeps the pipe open holds nothing up."""
        for descriptor in list(self._streams):
            for _ in range(1000):
                if not self._read(descriptor):
                    break
        if not self.exited.done():
            self.exited.set_result(status)

    def close(self) -> None:
        for descriptor in list(self._streams):
            self._close(descriptor)


def _why_not(answer: dict[str, Any], argv: Sequence[str]) -> str:
    name = argv[0]
    if answer["errno"] == 2 and answer["stage"].startswith("start"):
        return f"{name}: no such program" + ("" if "/" in name else " on the PATH")
    return f"{name}: cannot {answer['stage']}: {answer['reason']}"


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        pass  # it did not want all of it


def _read_table(descriptor: int) -> str:
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(descriptor, 1 << 16, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts).decode(errors="replace")


def _send(control: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    control.sendmsg(
        [json.dumps(message).encode()],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))],
    )


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    data, ancillary, _, _ = control.recvmsg(_PACKET, socket.CMSG_SPACE(16 * 4))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return (json.loads(data) if data else None), list(descriptors)


def process_state(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, the state, on (proc(5)); of a process that is gone, as if it were dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", *"0" * 50]
