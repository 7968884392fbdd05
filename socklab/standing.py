"""A lab that stands until it is taken down, to experiment by hand: `socklab up`, `status`, `cut alice chat`, `heal`, `down`.

    socklab up ── starts ──▶ daemon: the lab, its servers, its links
    socklab status, cut, exec, … ── one message on a socket that is the user's alone ──▶ daemon

The daemon holds all of it; with the daemon it ends. Messages are JSON in SOCK_SEQPACKET packets, a program's terminal comes beside
its message (unix(7), SCM_RIGHTS). There is one such lab for each compose file.
"""

from __future__ import annotations

import array
import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from socklab import faults, player, topology
from socklab.backends import LINKS, Lab, LabError, Lacking, Node
from socklab.errors import UserError
from socklab.hosts import host_of, networks_of
from socklab.links import Links
from socklab.scenario import plays
from socklab.servers import STOP_LIMIT, NotReady, Server
from socklab.source import ScenarioError, Source
from socklab.steps import Step

ANSWER_LIMIT = 30.0  # seconds
KEPT = 1000  # lines of each server's output
_PACKET = 1 << 20
_PATH = 107  # bytes of a socket's path, without the null that ends it (unix(7))
_NOBODY = "nobody"  # stands for the server under test, of which there is none here


class NoLab(UserError):
    """There is no standing lab; the message says how to get one."""


class Wrong(UserError):
    """What was asked makes no sense; the message says why."""


def place(compose: Path) -> Path:
    """The socket of the lab of a compose file, in a folder that is the user's alone. Raises LabError."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "socklab") if runtime else Path(f"/tmp/socklab-{os.geteuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat()
    except OSError as exc:
        raise LabError(f"{folder}: {exc.strerror}") from None
    if owner.st_uid != os.geteuid() or owner.st_mode & 0o077:
        raise LabError(f"{folder}: is not ours alone; remove it, or set XDG_RUNTIME_DIR")
    path = folder / (hashlib.sha256(str(compose.resolve()).encode()).hexdigest()[:16] + ".socket")
    if (length := len(os.fsencode(path))) > _PATH:
        raise LabError(
            f"{path}: {length} bytes, and the kernel takes {_PATH} for a socket; set XDG_RUNTIME_DIR to a shorter path"
        )
    return path


# ── the side of the commands ──────────────────────────────────────────────────────────────────────────────────────────


def up(
    compose: Path, services: Sequence[str], clients: Sequence[str], on: str, patience: float
) -> dict[str, Any]:
    """Start the daemon and wait until its servers listen; its status. Raises LabError and Wrong."""
    path = place(compose)
    if _listens(path):
        raise Wrong("this lab is up already; socklab status shows it, socklab down ends it")
    read, write = os.pipe()
    order = {
        "socket": str(path),
        "compose": str(compose.resolve()),
        "services": list(services),
        "clients": list(clients),
        "on": on,
        "patience": patience,
    }
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "socklab.standing", str(write), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[write],
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
    os.close(write)
    with os.fdopen(read) as told:
        answer = told.readline()
    if not answer:
        daemon.wait()
        said = log.read_text(errors="replace").strip().splitlines()
        raise LabError(f"the lab ended at its start: {said[-1] if said else f'status {daemon.returncode}'}")
    status: dict[str, Any] = json.loads(answer)
    if "wrong" in status:
        daemon.wait()
        raise (Wrong if status["usage"] else LabError)(status["wrong"])
    return status


def ask(compose: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    """Have the daemon do something; its answer. Raises NoLab, LabError and Wrong."""
    with _dial(compose) as control:
        control.settimeout(ANSWER_LIMIT)
        control.send(json.dumps(order).encode())
        return _answer(control)


def wait_down(compose: Path, limit: float = 20.0) -> None:
    """Until the daemon is gone. Raises LabError."""
    path = place(compose)
    deadline = time.monotonic() + limit
    while path.exists():
        if time.monotonic() > deadline:
            raise LabError(f"the lab has not ended within {limit:g}s")
        time.sleep(0.01)


def execute(compose: Path, node: str, argv: Sequence[str]) -> int:
    """Run a program on a node, at our terminal; its exit status as a shell has it. Raises NoLab, LabError and Wrong."""
    with _dial(compose) as control:
        order = {"do": "exec", "node": node, "argv": list(argv), "cwd": os.getcwd(), "env": dict(os.environ)}
        terminal = array.array("i", [0, 1, 2])
        control.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, terminal)])
        _answer(control)
        # It is in a session of its own, so the terminal's Ctrl-C comes to us; it goes on to whom it is meant for.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH):
            signal.signal(number, lambda n, _: control.send(json.dumps({"signal": n}).encode()))
        status = int(_answer(control)["exited"])
        return status if status >= 0 else 128 - status


def _dial(compose: Path) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.connect(str(place(compose)))
    except OSError:
        control.close()
        raise NoLab("no lab is up here; socklab up starts one") from None
    return control


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _answer(control: socket.socket) -> dict[str, Any]:
    try:
        data = control.recv(_PACKET)
    except TimeoutError:
        raise LabError(f"the lab has not answered within {ANSWER_LIMIT:g}s; socklab down ends it") from None
    if not data:
        raise LabError("the lab has ended")
    answer: dict[str, Any] = json.loads(data)
    if "wrong" in answer:
        raise (Wrong if answer["usage"] else LabError)(answer["wrong"])
    return answer


# ── what a fault on the command line means ────────────────────────────────────────────────────────────────────────────


def fault(
    verb: str, words: Sequence[str], nodes: Iterable[str], servers: Iterable[str], one_way: bool
) -> Step:
    """`delay alice chat 100ms` as a step of a scenario. Raises Wrong with what was expected.

    Words are the two ends (`alice chat`, or `alice-chat`), what the fault is (`100ms`), and settings (`burst=3`)."""
    names, servers = list(nodes), list(servers)
    ends = _ends(list(words), names)
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words[ends[0] :] if "=" not in word]
    if plain:
        settings["is"] = plain.pop(0)
    if plain:
        raise Wrong(f'"{plain[0]}": one word too many')
    a, b = ends[1]
    link = {"from": a, "to": b} if one_way else {"between": [a, b]}
    text = json.dumps({verb: {**link, **{key: _scalar(value) for key, value in settings.items()}}})
    clients = [name for name in names if name not in servers]
    return _step(text, clients, servers)


def _ends(words: list[str], names: Sequence[str]) -> tuple[int, tuple[str, str]]:
    """How many words name the two ends of a link, and the ends."""
    if len(words) >= 2 and words[0] in names and words[1] in names:
        return 2, (words[0], words[1])
    first = words[0] if words else ""
    for at, char in enumerate(first):
        if char == "-" and first[:at] in names and first[at + 1 :] in names:
            return 1, (first[:at], first[at + 1 :])
    known = ", ".join(names)
    unknown = next((word for word in words[:2] if word not in names), "")
    raise Wrong(f'a link has two ends, like alice chat; "{unknown}" is none of {known}')


def _scalar(text: str) -> Any:
    """As YAML would take it without quotes."""
    return {"true": True}.get(text, int(text) if text.isdecimal() and len(text) < 100 else text)


def _step(text: str, clients: Sequence[str], servers: Sequence[str]) -> Step:
    head = {"title": "by hand", "service": _NOBODY, "services": list(servers), "clients": list(clients)}
    try:
        source = Source.parse(json.dumps(head)[:-1] + f', "steps": [{text}]}}', Path("command"))
        (scenario,) = plays(source)
    except ScenarioError as exc:
        raise Wrong(exc.message) from None
    return scenario.steps[0]


# ── the daemon ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Standing:
    """The lab in the daemon's hands."""

    def __init__(
        self, lab: Lab, backend: str, nodes: Sequence[Node], servers: Mapping[str, topology.Service]
    ) -> None:
        self.lab = lab
        self.backend = backend
        self.nodes = {node.name: node for node in nodes}
        self.links = Links(lab, nodes, {node.name: node.name for node in nodes}, 1, self._packet)
        self.services = servers
        self.servers: dict[str, Server] = {}
        self.troubles: dict[str, str] = {}
        self.lines: dict[str, deque[str]] = {name: deque(maxlen=KEPT) for name in servers}
        self.over = asyncio.Event()

    async def start(self, root: Path, patience: float) -> None:
        """Start the servers; one that does not come up is told of, and the others stand."""
        for name, service in self.services.items():
            self.servers[name] = Server(name, service, name, self.lab, root, patience, self._record)
        await asyncio.gather(*(self._start(server) for server in self.servers.values()))

    async def _start(self, server: Server) -> None:
        try:
            await server.start()
        except (NotReady, LabError) as exc:
            self.troubles[server.name] = str(exc)

    def _record(self, kind: str, node: str = "", t: int | None = None, **data: Any) -> None:
        if kind == "log":
            self.lines[node].append(str(data["text"]))
        elif kind == "exited":
            status = int(data["status"])
            self.troubles[node] = f"ended {f'by signal {-status}' if status < 0 else f'with status {status}'}"

    def _packet(self, message: dict[str, Any]) -> None:
        """What gates tell of single packets is counted by them as well."""

    # what is asked

    async def do_status(self, order: Mapping[str, Any]) -> dict[str, Any]:
        nodes = []
        for name, node in self.nodes.items():
            addresses = [f"{self.lab.address(name, network)} on {network}" for network in node.networks]
            what = "client"
            if name in self.servers:
                server = self.servers[name]
                where = server.service.path or f"{server.service.protocol} {server.port}"
                what = self.troubles.get(name, f"listens on {where}")
            nodes.append({"name": name, "addresses": addresses, "what": what})
        in_force = {self.links.told(pair): faults.told(put) for pair, put in sorted(self.links.now.items())}
        return {
            "backend": self.backend,
            "nodes": nodes,
            "faults": in_force,
            "counts": await self.links.counts(),
        }

    async def do_fault(self, order: Mapping[str, Any]) -> dict[str, Any]:
        step = fault(order["verb"], order["words"], self.nodes, self.servers, order["one_way"])
        settings = dict(step.fault)
        if "match" in settings:
            settings["match"] = settings["match"].encode(errors="surrogateescape").hex()
        await self.links.prepare((pair, step.verb, settings) for pair in step.links)
        await self.links.change(lambda now: faults.put(now, step.links, step.verb, settings))
        return await self.do_status(order)

    async def do_heal(self, order: Mapping[str, Any]) -> dict[str, Any]:
        words = order["words"]
        for word in words:
            if word not in self.nodes and len(words) != 1:
                raise Wrong(f'"{word}" is none of {", ".join(self.nodes)}')
        if len(words) == 1 and words[0] in self.nodes:
            pairs = [pair for pair in self.links.now if words[0] in pair]
        elif words:
            _, (a, b) = _ends(list(words), list(self.nodes))
            pairs = [(a, b), (b, a)]
        else:
            pairs = list(self.links.now)
        await self.links.change(lambda now: faults.healed(now, pairs))
        return await self.do_status(order)

    async def do_logs(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if order["service"] not in self.lines:
            raise Wrong(f'no server "{order["service"]}" here; there are {", ".join(self.lines)}')
        return {"lines": list(self.lines[order["service"]])}

    async def do_down(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self.over.set()
        return {}

    async def do_restart(self, order: Mapping[str, Any]) -> dict[str, Any]:
        name = order["service"]
        if name not in self.servers:
            raise Wrong(f'no server "{name}" here; there are {", ".join(self.servers)}')
        self.troubles.pop(name, None)
        try:
            await self.servers[name].restart(STOP_LIMIT)
        except NotReady as exc:
            raise LabError(str(exc)) from None
        self.troubles.pop(name, None)
        return await self.do_status(order)

    # who asks

    async def serve(self, listener: socket.socket) -> None:
        """Answer until somebody says down, or until we are told to end."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        tasks: set[asyncio.Task[None]] = set()
        over = asyncio.ensure_future(self.over.wait())
        try:
            while not self.over.is_set():
                accept = asyncio.ensure_future(loop.sock_accept(listener))
                await asyncio.wait([accept, over], return_when=asyncio.FIRST_COMPLETED)
                if not accept.done():
                    accept.cancel()
                    break
                control, _ = accept.result()
                control.setblocking(False)
                task = asyncio.ensure_future(self._answer(control))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        finally:
            over.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)  # who said down gets an answer
            for task in tasks:
                task.cancel()

    async def _answer(self, control: socket.socket) -> None:
        with control:
            try:
                order, terminal = await _receive(control)
                if order is None:
                    return
                try:
                    if order["do"] == "exec":
                        answer = await self._exec(control, order, terminal)
                    else:
                        answer = await getattr(self, "do_" + order["do"])(order)
                except (Wrong, LabError) as exc:
                    answer = {"wrong": str(exc), "usage": isinstance(exc, (Wrong, Lacking))}
                finally:
                    for each in terminal:
                        os.close(each)
                await asyncio.get_running_loop().sock_sendall(control, json.dumps(answer).encode())
            except (OSError, ValueError):
                pass  # who asked has gone

    async def _exec(
        self, control: socket.socket, order: Mapping[str, Any], terminal: Sequence[int]
    ) -> dict[str, Any]:
        node = order["node"]
        if node not in self.nodes:
            raise Wrong(f'no node "{node}" here; there are {", ".join(self.nodes)}')
        if len(terminal) != 3:
            raise Wrong("a program needs a terminal, or what stands for it")
        stdin, stdout, stderr = terminal
        program = await self.lab.spawn(
            node, order["argv"], env=order["env"], cwd=order["cwd"], stdio=(stdin, stdout, stderr)
        )
        await asyncio.get_running_loop().sock_sendall(control, b"{}")
        listening = asyncio.ensure_future(self._pass_on(control, program))
        try:
            status = await program.exited
        finally:
            listening.cancel()
        return {"exited": status}

    async def _pass_on(self, control: socket.socket, program: Any) -> None:
        """Signals that come from the terminal; and when who started it has gone, its end."""
        while True:
            order, _ = await _receive(control)
            if order is None:
                await self.lab.signal(program, signal.SIGHUP, group=True)
                return
            await self.lab.signal(program, signal.Signals(order["signal"]))


async def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and the descriptors beside it; None at the end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    while True:
        try:
            data, ancillary, _, _ = control.recvmsg(_PACKET, socket.CMSG_SPACE(3 * 4))
            break
        except BlockingIOError:
            readable.clear()
            loop.add_reader(control, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(control)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return (json.loads(data) if data else None), list(descriptors)


def _lay_out(
    lab_file: topology.Topology, wanted: Sequence[str], clients: Sequence[str]
) -> tuple[list[Node], dict[str, topology.Service]]:
    """The nodes, and the services that are started on them."""
    names = wanted or [name for name, service in lab_file.services.items() if service.contract]
    servers = {name: lab_file.service(name).judged_as(None) for name in names}
    nodes = [host_of(service, lab_file) for service in servers.values()]
    networks = lab_file.client_networks or next(iter(servers.values())).networks
    for client in clients:
        if client in servers:
            raise Wrong(f'"{client}" is the name of a service; choose another name for the client')
        nodes.append(Node(client, networks))
    _step('{"note": "names"}', clients, list(servers))  # are they such as a scenario could have?
    return nodes, servers


async def _hold(order: Mapping[str, Any], listener: socket.socket, told: int) -> None:
    """Make the lab, say that it stands, and hold it."""
    lab_file = topology.read(Path(order["compose"]))
    nodes, servers = _lay_out(lab_file, order["services"], order["clients"])
    backend, instead = await player.choose(order["on"])
    try:
        if LINKS not in backend.can:
            raise LabError(f"a lab to experiment with needs a network: {instead or 'play it --on netns'}")
        lab = await backend.lab(networks_of(nodes, lab_file), nodes)
        standing = Standing(lab, backend.name, nodes, servers)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, standing.over.set)
        try:
            await standing.start(lab_file.root, order["patience"])
            _say(told, await standing.do_status({}))
            await standing.serve(listener)
        finally:
            standing.links.close()
    finally:
        await backend.close()


def _say(told: int, message: Mapping[str, Any]) -> None:
    os.write(told, json.dumps(message).encode() + b"\n")
    os.close(told)


def main() -> None:
    """The daemon: a descriptor on which it says that it stands, or why not; and its order."""
    told, order = int(sys.argv[1]), json.loads(sys.argv[2])
    path = Path(order["socket"])
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        os.umask(0o077)
        listener.bind(str(path))
        listener.listen(16)
        try:
            asyncio.run(_hold(order, listener, told))
        except (LabError, UserError) as exc:
            _say(told, {"wrong": str(exc), "usage": not isinstance(exc, LabError)})
        finally:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
