"""`socklab talk`: the interactive clients of clients/, at a server that runs, or at one that is started for it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from socklab import player, standing, topology
from socklab.backends import IMAGES, NETWORKS, Backend, Lab, LabError, Node
from socklab.errors import UserError
from socklab.hosts import host_of, networks_of
from socklab.places import CLIENTS
from socklab.servers import NotReady, Server
from socklab.topology import TopologyError, is_port

YOU = "you"


def command(
    protocol: str,
    host: str,
    port: int | str,
    register: bool,
    python: str = sys.executable,
    clients: str = str(CLIENTS),
) -> list[str]:
    """The command line of the interactive client for a server."""
    if protocol == "udp":
        return [
            python,
            f"{clients}/udp_client.py",
            host,
            str(port),
            *([] if register else ["--no-register"]),
        ]
    if protocol == "unix":
        return [python, f"{clients}/tcp_client.py", f"unix:{port}"]
    return [python, f"{clients}/tcp_client.py", host, str(port)]


def address(target: str) -> tuple[str, int]:
    """The two parts of HOST:PORT. Raises UserError for what is no address."""
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not is_port(port):
        raise UserError(f'"{target}" is no HOST:PORT, such as 127.0.0.1:6001')
    return host, int(port)


def to_address(target: str, udp: bool, register: bool) -> int:
    """Become the client of HOST:PORT. Raises UserError for what is no address."""
    argv = command("udp" if udp else "tcp", *address(target), register)
    os.execv(argv[0], argv)


def through_client(lab_file: topology.Topology, service: topology.Service) -> int:
    """Become the interactive client in a client's container of the lab that `docker compose up` started."""
    argv = command(
        service.protocol,
        service.name,
        service.path or service.port or 0,
        service.contract == "registry",
        "python",
        "clients",
    )
    terminal = [] if sys.stdin.isatty() else ["--no-TTY"]
    try:
        os.execvp(
            "docker",
            ["docker", "compose", "--file", str(lab_file.path), "exec", *terminal, topology.CLIENT, *argv],
        )
    except OSError as exc:
        raise LabError(f"docker: {exc.strerror}; install Docker's command line and Compose") from None


def as_client(name: str, who: str, compose: Path) -> int:
    """Talk from a client's host of the standing lab. Returns the client's exit status. Raises NoLab, LabError, standing.Wrong."""
    service = topology.read(compose).service(name).judged_as(None)
    status = standing.ask(compose, {"do": "status"})
    server = next((node for node in status["nodes"] if node["name"] == name), None)
    if server is None:
        raise standing.Wrong(f'"{name}" is not up; socklab status shows what is')
    there = ("python", "clients") if status["backend"] == "docker" else (sys.executable, str(CLIENTS))
    argv = command(
        service.protocol, name, service.path or service.port or 0, service.contract == "registry", *there
    )
    return standing.execute(compose, who, argv)


async def started(
    backend: Backend,
    lab_file: topology.Topology,
    name: str,
    others: Sequence[Node] = (),
    patience: float = 1.0,
    record: Callable[..., Any] = lambda *_, **__: None,
) -> tuple[Lab, Server]:
    """A lab in which one service listens, and these other nodes are. Raises TopologyError and LabError."""
    service = lab_file.service(name).judged_as(None)
    if not service.command and IMAGES not in backend.can:
        raise TopologyError(
            f'service "{name}" has no command in {lab_file.path.name}: its image brings it, so it needs Docker'
        )
    nodes = [host_of(service, lab_file), *others]
    lab = await backend.lab(networks_of(nodes, lab_file), nodes)
    server = Server(name, service, name, lab, lab_file.root, patience, record)
    try:
        await server.start()
    except NotReady as exc:
        raise LabError(str(exc)) from None
    return lab, server


async def to_service(name: str, on: str, compose: Path | None, patience: float) -> int:
    """Start a service of the compose file on a node, and talk to it from another. Returns the client's exit status."""
    lab_file = topology.read(compose or topology.find_or_ours(Path.cwd()))
    service = lab_file.service(name).judged_as(None)
    if on == "joined":
        return through_client(lab_file, service)
    backend, _ = await player.choose(on)
    try:
        beside = service.protocol == "unix"
        you = [] if beside else [Node(YOU, lab_file.client_networks or service.networks)]
        lab, server = await started(backend, lab_file, name, you, patience, _tell)
        address = service.path if beside else f"{server.address}:{server.port}"
        print(
            f"{name} listens on {address} (backend {backend.name}); you are {'on its host' if beside else lab.address(YOU)}",
            file=sys.stderr,
        )
        host = server.address if NETWORKS not in lab.can or not beside else "127.0.0.1"
        there = ("python", "clients") if IMAGES in lab.can else (sys.executable, str(CLIENTS))
        argv = command(
            service.protocol, host, service.path or server.port or 0, service.contract == "registry", *there
        )
        program = await lab.spawn(
            name if beside else YOU, argv, env=dict(os.environ), cwd=os.getcwd(), stdio=(0, 1, 2)
        )
        # The client is in a session of its own, so the terminal's Ctrl-C comes to us; it goes on to whom it is meant for.
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Future[None]] = []

        def pass_on(number: signal.Signals) -> None:
            tasks.append(asyncio.ensure_future(lab.signal(program, number)))

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH):
            loop.add_signal_handler(number, pass_on, number)
        status = await program.exited
        return status if status >= 0 else 128 - status
    finally:
        await backend.close()


def _tell(kind: str, node: str = "", t: int | None = None, **data: object) -> None:
    """The server's log, beside the conversation."""
    if kind == "log" and data.get("stream") == "stderr" and not sys.stdin.isatty():
        print(f"[{node}] {data['text']}", file=sys.stderr)
