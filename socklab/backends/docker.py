"""The `docker` backend: each node is a container, made and removed through the Docker SDK; servers are as Compose would make them.

    node ── a container of our own image: node.py, the agent, nft; it holds the node's network
    server ── the service's own image in that network and process namespace, whatever is or is not installed in it

So a server that is killed leaves its host behind, as in `netns`, and link faults need nothing of its image. What is made
carries the label socklab.lab. A node lives as long as its stream, which the engine closes when we are gone; with a node, as
PID 1, ends its server. What is left then (networks, ended containers) the next run removes, or `socklab down`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool, LogConfig

from socklab import places
from socklab.backends import (
    IMAGES,
    IPV6,
    LINKS,
    NAMES,
    NETWORKS,
    PROGRAMS,
    Apart,
    CannotStart,
    Completed,
    Inside,
    LabError,
    Network,
    Node,
    OnLine,
    Program,
    Unavailable,
)
from socklab.backends.embedded import LineSplitter
from socklab.backends.engine import (
    ANCHOR,
    BUILD_LIMIT,
    LABEL,
    Engine,
    NoSuch,
    Refused,
    abandoned,
    own_socket,
    remove,
)
from socklab.backends.remote import RemoteNode, docker_frames
from socklab.backends.stream import Stream
from socklab.sockets import SocketTable

# What a node brings, or what would make a second server of the same service collide with the first.
_NOT_OURS = [
    "build",
    "networks",
    "network_mode",
    "ports",
    "expose",
    "depends_on",
    "container_name",
    "links",
    "external_links",
    "healthcheck",
    "restart",
    "deploy",
    "profiles",
    "scale",
    "hostname",
    "domainname",
    "dns",
    "dns_opt",
    "dns_search",
    "extra_hosts",
    "mac_address",
    "pid",
    "init",
    "sysctls",
    "tty",
    "stdin_open",
    "develop",
    "attach",
    "ipc",
    "uts",
]


class Docker:
    """socklab.backends.Backend"""

    name = "docker"
    plays = 3
    can = frozenset({NETWORKS, NAMES, LINKS, PROGRAMS, IMAGES, IPV6})

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.engine = Engine()
        self._begin: asyncio.Task[None] | None = None
        self._anchor: RemoteNode | None = None
        self._image = ""
        self._benches: list[_Bench] = []
        self._projects: dict[Path, _Project] = {}
        self._labs: set[DockerLab] = set()

    async def probe(self) -> str | None:
        """None if an engine answers, else why not and what would help."""
        try:
            await self.engine.connect()
        except Unavailable as exc:
            return str(exc)
        return None

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> DockerLab:
        if self._begin is None:
            self._begin = asyncio.ensure_future(self._start())
        await asyncio.shield(self._begin)
        bench = next((b for b in self._benches if not b.taken), None)
        if bench is None:
            bench = _Bench(len(self._benches) + 1)
            self._benches.append(bench)
        bench.taken = True
        lab = DockerLab(self, bench)
        self._labs.add(lab)
        try:
            await lab.start(networks, nodes)
        except BaseException:
            await lab.stop()
            raise
        return lab

    async def close(self) -> None:
        if self._begin is not None and not self._begin.done():
            self._begin.cancel()
            await asyncio.wait([self._begin])
        for lab in list(self._labs):
            await lab.stop()
        for bench in self._benches:
            for pod in bench.pods:
                pod.remote.close()
        if self._anchor is not None:
            self._anchor.close()
        await self.engine.finish(
            lambda client: remove(client, {self.id}) if self._begin is not None else None
        )

    # what all labs share

    async def _start(self) -> None:
        """An engine that answers, what others left removed, our image, and the container that says that we live."""
        await self.engine.connect()
        await self.engine.call(lambda client: remove(client, abandoned(client)))
        self._image = await self._node_image()
        self._anchor = (await self._container("anchor", [], {ANCHOR: "yes"})).remote

    async def _node_image(self) -> str:
        """The image of the nodes, built when what is in it has changed."""
        parts = places.image_parts()
        base = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
        try:
            content = b"".join(path.read_bytes() for path, _ in parts)
        except OSError as exc:
            raise LabError(f"{exc.filename}: {exc.strerror}; is socklab installed whole?") from None
        tag = f"socklab-client:{hashlib.sha256(base.encode() + content).hexdigest()[:12]}"
        try:
            await self.engine.call(lambda client: client.inspect_image(tag))
        except NoSuch:
            argv = ["docker", "build", "--quiet", "--target", "client", "--build-arg", f"PYTHON_IMAGE={base}"]
            with tempfile.TemporaryDirectory(prefix="socklab-image-") as context:
                places.lay_out(parts, Path(context))
                await self.engine.command(
                    [*argv, "--tag", tag, context], "the image of the clients does not build"
                )
        return tag

    async def _container(self, name: str, networks: Sequence[str], labels: Mapping[str, str]) -> _Pod:
        """A node's container, up. `networks` are the engine's ids of them."""

        def make(client: docker.APIClient) -> tuple[str, Any, dict[str, tuple[str, str]]]:
            host = client.create_host_config(
                auto_remove=True,
                network_mode=networks[0] if networks else "none",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN", "NET_RAW"],
                security_opt=["no-new-privileges"],
                sysctls={"net.ipv6.conf.all.keep_addr_on_down": "1"},
                log_config=LogConfig(type="none"),
            )
            container = client.create_container(
                self._image,
                stdin_open=True,
                labels={LABEL: self.id, **labels},
                host_config=host,
            )["Id"]
            for network in networks[1:]:
                client.connect_container_to_network(container, network)
            stream = client.attach_socket(container, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            client.start(container)
            joined = client.inspect_container(container)["NetworkSettings"]["Networks"]
            addresses = {n["NetworkID"]: (n["IPAddress"], n["GlobalIPv6Address"]) for n in joined.values()}
            return container, stream, addresses

        container, stream, addresses = await self.engine.call(make)
        remote = RemoteNode(name, own_socket(stream), docker_frames())
        return _Pod(container, tuple(networks), remote, addresses)

    def project(self, compose: Path) -> _Project:
        return self._projects.setdefault(compose, _Project(compose, self))


@dataclass(eq=False)
class _Pod:
    """The container of a node."""

    id: str
    networks: tuple[str, ...]
    remote: RemoteNode
    addresses: dict[str, tuple[str, str]]
    """Network id → our IPv4 and IPv6 addresses there."""
    touched: bool = False
    """Its network is no longer as it was made: it is not used again."""


@dataclass(eq=False)
class _Bench:
    """Networks, and nodes of clients on them, for one lab after another."""

    number: int
    taken: bool = False
    networks: dict[tuple[str, bool, bool], str] = field(default_factory=dict)
    pods: list[_Pod] = field(default_factory=list)


class DockerLab:
    """socklab.backends.Lab"""

    def __init__(self, backend: Docker, bench: _Bench) -> None:
        self.can = backend.can
        self._backend = backend
        self._bench = bench
        self._engine = backend.engine
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, _Pod] = {}
        self._networks: dict[str, str] = {}
        self._servers: dict[str, str] = {}
        self._devices: dict[str, dict[str, str]] = {}
        self._running: dict[Program, _Output] = {}

    async def start(self, networks: Sequence[Network], nodes: Sequence[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        for network in networks:
            self._networks[network.name] = await self._network(network)
        making = {}
        for node in nodes:
            wanted = tuple(self._networks[name] for name in node.networks)
            free = None
            if node.compose is None:
                free = next(
                    (p for p in self._bench.pods if p.networks == wanted and p.remote.gone is None), None
                )
            if free is not None:
                # A server's host is always a new one: what the last one left in TIME_WAIT could keep it from its port.
                self._bench.pods.remove(free)
                self._pods[node.name] = free
                free.remote.name = node.name
            else:
                making[node.name] = self._backend._container(node.name, wanted, {})
        # Each one is kept as it comes to be, so that stop() finds it also when another one fails.
        results = await asyncio.gather(
            *(self._keep(*item) for item in making.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await asyncio.gather(*(self._pods[n.name].remote.hosts(self._hosts(n)) for n in nodes))

    async def _keep(self, name: str, making: Any) -> None:
        self._pods[name] = await making

    async def _network(self, network: Network) -> str:
        key = (network.name, network.internal, network.ipv6)
        if key not in self._bench.networks:
            name = f"socklab-{self._backend.id}-{self._bench.number}-{network.name}"
            options: dict[str, Any] = {"internal": network.internal, "labels": {LABEL: self._backend.id}}
            if network.ipv6:
                # A network of our own in fd00::/8, by chance as RFC 4193 wants it.
                pool = IPAMPool(
                    subnet=f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"
                )
                options |= {"enable_ipv6": True, "ipam": IPAMConfig(pool_configs=[pool])}
                name += "-6"
            made = await self._engine.call(lambda client: client.create_network(name, "bridge", **options))
            self._bench.networks[key] = made["Id"]
        return self._bench.networks[key]

    def _hosts(self, node: Node) -> str:
        """Names by which a node finds the others, each by its address on the first network that both are on (hosts(5))."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        for other in self._nodes.values():
            shared = [n for n in other.networks if n in node.networks]
            addresses = self._pods[other.name].addresses[self._networks[shared[0]]] if shared else ()
            lines += [" ".join([address, other.name, *other.aliases]) for address in addresses if address]
        return "\n".join(lines) + "\n"

    # what the conductor asks

    def address(self, node: str, network: str | None = None, six: bool = False) -> str:
        mine = self._nodes[node].networks
        if not mine:
            raise LabError(f"{node} is on no network")
        address = self._pods[node].addresses[self._networks[network if network in mine else mine[0]]][six]
        if not address:
            raise LabError(f"{node} has no IPv{6 if six else 4} address")
        return address

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
        """Start the node's service, as its compose file says; on a client's node a program of the image, at a terminal."""
        compose = self._nodes[node].compose
        if compose is None:
            return await self._exec(node, argv, stdio or (0, 1, 2))
        container = self._servers.get(node)
        if container is None:
            template = await self._backend.project(compose).template(node)
            if argv:
                template = _told(template, argv)
            container = self._servers[node] = await self._engine.call(
                lambda client: client.create_container_from_config(self._in_pod(node, template))["Id"]
            )

        def begin(client: docker.APIClient) -> tuple[Any, int]:
            stream = client.attach_socket(container, {"stdout": 1, "stderr": 1, "stream": 1})
            try:
                client.start(container)
            except BaseException:
                own_socket(stream).close()
                raise
            return stream, client.inspect_container(container)["State"]["Pid"]

        try:
            stream, pid = await self._engine.call(begin)
        except Refused as exc:
            raise CannotStart(f"{node} cannot be started: {exc}") from None
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        program = Program(node, tuple(argv), pid if _visible(pid, container) else 0, exited)
        self._running[program] = _Output(own_socket(stream), on_line, lambda: self._ended(program, container))
        return program

    def _in_pod(self, node: str, template: dict[str, Any]) -> dict[str, Any]:
        config, host = dict(template["Config"]), dict(template["HostConfig"])
        pod = f"container:{self._pods[node].id}"
        for key in ("Hostname", "Domainname", "ExposedPorts", "MacAddress"):
            config.pop(key, None)
        mine = {
            k: v for k, v in (config.get("Labels") or {}).items() if not k.startswith("com.docker.compose")
        }
        config.update(
            Labels={**mine, LABEL: self._backend.id},
            Healthcheck={"Test": ["NONE"]},
            Tty=False,
            OpenStdin=False,
        )
        host.update(
            NetworkMode=pod,
            PidMode=pod,
            AutoRemove=False,
            RestartPolicy={"Name": "no"},
            LogConfig={"Type": "none"},
        )
        return {**config, "HostConfig": host}

    async def _exec(self, node: str, argv: Sequence[str], stdio: tuple[int, int, int]) -> Program:
        terminal = ["--tty"] if all(os.isatty(each) for each in stdio[:2]) else []
        command = ["docker", "exec", "--interactive", *terminal, self._pods[node].id, *argv]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2]
        )
        exited = asyncio.ensure_future(process.wait())
        return Program(node, tuple(argv), process.pid, exited)

    def _ended(self, program: Program, container: str) -> None:
        """The engine has closed the program's output, so it has ended: with which status?"""

        async def tell() -> None:
            try:
                status = (await self._engine.call(lambda client: client.wait(container, timeout=20)))[
                    "StatusCode"
                ]
            except LabError:
                status = 128 + signal.SIGKILL  # removed with the lab
            if not program.exited.done():
                # As a shell does, the engine tells a signal's number as 128 more.
                program.exited.set_result(128 - status if status > 128 else status)

        self._engine.task(tell())

    async def inside(self, node: str, program: Inside) -> socket.socket:
        pod = self._pods[node]
        pod.touched |= program == "gate"
        return await pod.remote.inside(program)

    async def capture(self, local: Sequence[str]) -> list[tuple[str, socket.socket]]:
        return [(node, await self.inside(node, "capture")) for node in self._pods]

    async def run(self, node: str, argv: Sequence[str], input: str = "", limit: float = 10.0) -> Completed:
        self._pods[node].touched = True
        return await self._pods[node].remote.run(argv, input, limit)

    async def sockets(self, node: str, *, listening: bool = False) -> SocketTable:
        return await self._pods[node].remote.sockets(listening)

    async def signal(self, program: Program, number: signal.Signals, *, group: bool = False) -> None:
        if program.exited.done():
            return
        if program.node not in self._servers:  # at a terminal: `docker exec` passes on what it gets
            os.kill(program.pid, number)
            return
        container = self._servers[program.node]
        try:
            await self._engine.call(lambda client: client.kill(container, number.name))
        except Refused:
            pass  # it has ended meanwhile

    async def freeze(self, program: Program, frozen: bool, limit: float) -> None:
        if program.exited.done():
            return
        container = self._servers[program.node]
        try:
            await self._engine.call(
                lambda client: client.pause(container) if frozen else client.unpause(container)
            )
        except Refused as exc:
            state = await self._engine.call(lambda client: client.inspect_container(container)["State"])
            if state["Running"] and state["Paused"] is not frozen:
                raise LabError(
                    f"{program.node} cannot be {'paused' if frozen else 'continued'}: {exc}"
                ) from None

    def reachable(self, node: str) -> bool:
        return True

    async def device(self, node: str, network: str) -> str:
        if node not in self._devices:
            self._devices[node] = await self._pods[node].remote.devices()
        return self._devices[node][self.address(node, network)]

    def clocks(self) -> dict[str, Apart]:
        return {}

    async def diagnosis(self) -> str:
        try:
            await self._engine.call(lambda client: client.ping())
        except LabError as exc:
            return str(exc)
        return ""

    async def stop(self) -> None:
        backend, bench = self._backend, self._bench
        if self not in backend._labs:
            return
        backend._labs.discard(self)
        servers, self._servers = list(self._servers.values()), {}
        pods, self._pods = self._pods, {}
        again: list[_Pod] = []
        over: list[_Pod] = []
        for name, pod in pods.items():
            service = self._nodes[name].compose is not None
            (over if service or pod.touched or pod.remote.gone else again).append(pod)
        for pod in over:
            pod.remote.close()
        jobs = [self._remove(server) for server in servers] + [self._calm(pod) for pod in again]
        await asyncio.gather(*jobs)
        for program, output in self._running.items():
            output.close()
            if not program.exited.done():
                program.exited.set_result(-signal.SIGKILL)
        bench.pods += [pod for pod in again if pod.remote.gone is None]
        bench.taken = False

    async def _remove(self, container: str) -> None:
        try:
            await self._engine.call(lambda client: client.remove_container(container, force=True, v=True))
        except LabError:
            pass  # gone already, or the engine is; close() looks again

    async def _calm(self, pod: _Pod) -> None:
        try:
            await pod.remote.alone()
        except LabError:
            pod.remote.close()


def _told(template: dict[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """The template with this command, where the compose file's own is to be changed (another --host)."""
    entry = template["Config"].get("Entrypoint") or []
    return {**template, "Config": {**template["Config"], "Cmd": list(argv)[len(entry) :]}}


class _Output:
    """What a server prints, from `docker attach`."""

    def __init__(self, sock: socket.socket, on_line: OnLine | None, ended: Callable[[], None]) -> None:
        self._decode = docker_frames()
        self._lines = LineSplitter(on_line)
        self._ended = ended
        self._stream = Stream(sock, self._data, self._end)
        self.close = self._stream.close

    def _data(self, data: bytes) -> None:
        now = time.monotonic_ns()
        for name, part in self._decode(data):
            self._lines.feed(name, part, now)

    def _end(self, problem: OSError | None) -> None:
        self._lines.end(time.monotonic_ns())
        self._ended()


class _Project:
    """A compose file, and for each of its services a container that was never started: Compose's own reading of it."""

    def __init__(self, compose: Path, backend: Docker) -> None:
        self.path = compose
        self._backend = backend
        self._lock = asyncio.Lock()
        self._config: dict[str, Any] = {}
        self._templates: dict[str, dict[str, Any]] = {}
        self._built: set[str] = set()

    async def template(self, service: str) -> dict[str, Any]:
        async with self._lock:
            if service not in self._templates:
                self._templates[service] = await self._make(service)
            return self._templates[service]

    async def _make(self, service: str) -> dict[str, Any]:
        engine = self._backend.engine
        here = ["docker", "compose", "--file", str(self.path), "--profile", "*"]
        if not self._config:
            text = await engine.command(
                [*here, "config", "--format", "json"], f"{self.path}: Compose does not take it"
            )
            self._config = json.loads(text)
        services = self._config["services"]
        if service not in services:
            raise LabError(f'{self.path}: Compose sees no service "{service}" there')
        image = self._image_of(service)
        builder = next(
            (n for n, s in services.items() if s.get("build") and self._image_of(n) == image), None
        )
        if builder is not None and image not in self._built:
            await engine.command(
                [*here, "build", "--quiet", builder],
                f"{self.path}: the image of {service} does not build",
                BUILD_LIMIT,
            )
            self._built.add(image)
        project = f"socklab-{self._backend.id}-{len(self._backend._projects)}"
        wanted = {k: v for k, v in services[service].items() if k not in _NOT_OURS}
        label = {LABEL: self._backend.id}
        wanted.update(image=image, network_mode="none", labels={**(wanted.get("labels") or {}), **label})
        derived: dict[str, Any] = {"name": project, "services": {service: wanted}}
        for kind in ("secrets", "configs"):
            if kind in self._config:
                derived[kind] = self._config[kind]
        if volumes := self._config.get("volumes"):
            # Volumes of our own: what the user keeps in his is nothing to play with. An external one is asked for by name.
            derived["volumes"] = {
                name: options
                if (options or {}).get("external")
                else {**{k: v for k, v in (options or {}).items() if k != "name"}, "labels": label}
                for name, options in volumes.items()
            }
        wrong = f"{self.path}: {service} cannot be made"
        try:
            await engine.command(
                ["docker", "compose", "--project-name", project, "--file", "-", "create", service],
                wrong,
                BUILD_LIMIT,
                json.dumps(derived),
            )
        except LabError as exc:
            if builder is not None or await self._is_here(image):
                raise
            missing = f"{service}: the image {image} is not on this engine, and does not come from a registry"
            raise LabError(f"{missing}{str(exc).removeprefix(wrong)}") from None
        filters = {
            "label": [f"com.docker.compose.project={project}", f"com.docker.compose.service={service}"]
        }

        def look(client: docker.APIClient) -> dict[str, Any]:
            found = client.containers(all=True, filters=filters)
            return dict(client.inspect_container(found[0]["Id"]))

        template: dict[str, Any] = await engine.call(look)
        return template

    async def _is_here(self, image: str) -> bool:
        try:
            await self._backend.engine.command(["docker", "image", "inspect", image], image)
        except LabError:
            return False
        return True

    def _image_of(self, service: str) -> str:
        return str(self._config["services"][service].get("image") or f"{self._config['name']}-{service}")


def _visible(pid: int, container: str) -> bool:
    """Whether the engine's number of a process is ours too: it runs on this machine, not in a virtual one."""
    try:
        return pid > 0 and container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False
