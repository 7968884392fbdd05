"""What 100,000 clients on ten machines rests on: what an agent, a server and their kernels take for each connection (docs/swarm.md).

Both run in a network namespace of their own, so that the ports they take are nobody else's, each in a memory cgroup of its own, so that the
kernel's share is known for each end.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.figures import ROOT, row
from socklab import holdings, load

CLIENTS = 10_000
FEW = 5_000  # ports; all that there are, 28,232, take more descriptors than many machines give
CGROUP = Path("/sys/fs/cgroup/memory")
SLABS = Path("/proc/slabinfo")
OF_SOCKETS = ("TCP", "sock_inode_cache", "dentry", "eventpoll_epi", "filp", "lsm_inode_cache")
PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("bench scale: makes a network namespace and raises limits: run it as root")
    inside = "ip link set lo up; exec \"$0\" -c 'from bench import scale; scale.inside()'"
    subprocess.run(["unshare", "--net", "sh", "-c", inside, sys.executable], cwd=ROOT, check=True)


def inside() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CLIENTS + 100:
        raise SystemExit(f"bench scale: needs {CLIENTS + 100:,} descriptors, and has {hard:,} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle()
    deliveries()
    ports()


def slabs() -> dict[str, int]:
    """Bytes in use of each of the kernel's caches (slabinfo(5)); the whole machine's, so nobody else should connect meanwhile."""
    lines = SLABS.read_text().splitlines()[2:]
    return {name: int(used) * int(size) for name, used, _, size, *_ in map(str.split, lines)}


class Memory:
    """The memory cgroup of one process."""

    def __init__(self, name: str) -> None:
        self.path = CGROUP / f"socklab-bench-{os.getpid()}-{name}"
        self.path.mkdir()

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text("0")

    def kernel(self) -> int:
        """Bytes that the kernel holds for it: sockets, descriptors, what epoll knows of them."""
        return int((self.path / "memory.kmem.usage_in_bytes").read_text())


class Process:
    """A server or an agent, and what it holds."""

    def __init__(self, name: str, *argv: str) -> None:
        self.cgroup = Memory(name) if (CGROUP / "memory.kmem.usage_in_bytes").exists() else None
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", *argv],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=self.cgroup.enter if self.cgroup else None,
        )

    def look(self) -> tuple[int, float]:
        """Bytes of its own, and of its kernel; no number where no memory cgroup (of the first version) tells them."""
        return holdings.read(self.process.pid).memory, self.cgroup.kernel() if self.cgroup else math.nan

    def spent(self) -> float:
        """Seconds of a processor."""
        return load.processor_time(self.process.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.cgroup:
            with suppress(OSError):  # the kernel frees what it held in its own time
                self.cgroup.path.rmdir()


class Server(Process):
    def __init__(self, name: str) -> None:
        super().__init__(name, f"services/{name}.py", "--port", "0", "--backlog", "4096")
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[3])


class Agent(Process):
    def __init__(self) -> None:
        super().__init__("agent", "clients/agent.py")
        self.told = self.asked = 0
        """Bytes of its control stream, from it and to it."""
        self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.told += len(line)
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        order = json.dumps({"id": 1, "do": do, **arguments}).encode() + b"\n"
        self.asked += len(order)
        self.process.stdin.write(order)
        self.process.stdin.flush()
        while "id" not in (message := self._hear()):
            pass
        if not message["ok"]:
            raise SystemExit(f"bench scale: {do}: {message}")
        return message

    def crowd(self, what: str, **arguments: Any) -> dict[str, Any]:
        return self.ask("crowd", what=what, crowd="crowd", **arguments)

    def open(self, server: Server, count: int) -> dict[str, Any]:
        return self.crowd("open", kind="tcp", to=["127.0.0.1", server.port], count=count, limit=120)


@contextmanager
def pair(name: str) -> Iterator[tuple[Server, Agent]]:
    with ExitStack() as stack:
        server = Server(name)
        stack.callback(server.close)
        agent = Agent()
        stack.callback(agent.close)
        yield server, agent


def idle() -> None:
    with pair("chat_eventloop") as (server, agent):
        agent.open(server, 1)  # what is read and made once
        before = [each.look() for each in (agent, server)]
        slabs_before = slabs()
        told = agent.told + agent.asked
        reply = agent.open(server, CLIENTS)
        assert reply["connected"] == CLIENTS, reply
        agent.crowd("look")
        told = agent.told + agent.asked - told
        grown = {name: size - slabs_before.get(name, 0) for name, size in slabs().items()}
        after = [each.look() for each in (agent, server)]
        for who, (own, kernel), (own_now, kernel_now) in zip(
            ("an agent", "chat_eventloop"), before, after, strict=True
        ):
            each = (
                f"{(own_now - own) / CLIENTS / 1024:.2f} + {(kernel_now - kernel) / CLIENTS / 1024:.2f} KiB"
            )
            row(f"{who}, each of {CLIENTS:,} idle connections: own + kernel", each, "–")
        # A cgroup is charged for what its own calls make; the sockets of a server are made by packets that come.
        per_client = {name: grown.get(name, 0) / CLIENTS for name in OF_SOCKETS}
        parts = ", ".join(
            f"{name} {size:.0f}" for name, size in sorted(per_client.items(), key=lambda x: -x[1])
        )
        row("  the kernel, both ends together", f"{sum(per_client.values()) / 1024:.2f} KiB", "–")
        print(f"    ({parts} bytes)")
        row("  the agent as a whole: own, kernel", " + ".join(f"{x / 2**20:.0f} MiB" for x in after[0]), "–")
        row("  on its control stream", f"{told:,} bytes, {told / CLIENTS:.2f} a client", "–")
        row("  connected in", f"{reply['seconds']:.1f} s", "–")


def deliveries() -> None:
    """What one agent checks; in processor time, so that a busy machine does not count."""
    with pair("chat_eventloop") as (server, agent):
        for senders in (1, 10):
            agent.open(server, CLIENTS + senders)
            name = f"{senders}→{CLIENTS:,}, 64 B"
            measured(name, server, agent, "fan-out", senders=senders, size=64, seconds=2, window=2000)
        agent.open(server, CLIENTS + 1)
        name = f"1→{CLIENTS:,}, 64 B, the next line when all have the last"
        measured(name, server, agent, "fan-out", senders=1, size=64, seconds=2, window=1)
    with pair("eventloop") as (server, agent):
        agent.open(server, CLIENTS)
        measured(f"echo, {CLIENTS:,} × 64 B", server, agent, "echo", size=64, seconds=2)
        agent.ask("open", client="alice", kind="tcp", to=["127.0.0.1", server.port])
        told = agent.told + agent.asked
        for _ in range(100):
            agent.ask("send", client="alice", chunks=[{"text": "x" * 64}])
            agent.ask("sync")
        row(
            "a scripted client: a round trip of 64 bytes, on its control stream",
            f"{(agent.told + agent.asked - told) / 100:.0f} bytes",
            "–",
        )


def measured(name: str, server: Server, agent: Agent, what: str, **how: Any) -> None:
    spent = [each.spent() for each in (agent, server)]
    reply = agent.crowd(what, **how)
    assert not reply["lost"] + reply["doubled"] + reply["damaged"], reply
    each = [
        (now.spent() - was) / reply["heard"] * 1e6 for now, was in zip((agent, server), spent, strict=True)
    ]
    at = f"{reply['delivered'] / reply['seconds'] / 1e3:,.0f} k/s"
    row(f"{name}: delivered", at, "–")
    row("  s of a processor a million: agent + server", f"{each[0]:.2f} + {each[1]:.2f}", "–")


def ports() -> None:
    """From one address to one other, each connection has a port of its own."""
    first = int(PORTS.read_text().split()[0])
    PORTS.write_text(f"{first} {first + FEW - 1}")
    with pair("eventloop") as (server, agent):
        reply = agent.open(server, FEW + 100)
        row(
            f"connections to one server from one address with {FEW:,} ports",
            f"{reply['connected']:,}, then: {', '.join(reply['failed'])}",
            f"{FEW - 1:,}: one is the server's",
        )
