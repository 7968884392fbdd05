"""The lab on a swarm of two machines: what is played there, how exactly the times are told, and what the overlay costs.

The second machine is a Docker engine of its own in namespaces of its own: network (a veth leads there), host name, mounts, and time, so that
its clock is AHEAD of ours by a number of seconds that we know. All of it is made here and taken down again; the engine that `docker`
means must not be in a swarm.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.figures import ROOT, output, row

AHEAD = 12_345  # seconds
OURS, THEIRS = "10.123.45.1", "10.123.45.2"
STACK = f"socklab-bench-{os.getpid()}"
CLIENTS = 4
ROUNDS = 5
LIMIT = 120.0  # seconds for an engine, or a conductor
PLAYED = ("scenarios/chat", "scenarios/isolation")
GATEWAY = "docker_gwbridge"

SERVE = """
import socket, threading
sink = socket.create_server(("0.0.0.0", 9001))
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", 9002))
def answer():
    while True:
        echo.sendto(*echo.recvfrom(65536))
threading.Thread(target=answer, daemon=True).start()
room = bytearray(1 << 20)
while True:
    stream, _ = sink.accept()
    while stream.recv_into(room):
        pass
    stream.sendall(b"x")
    stream.close()
"""
ASK = """
import json, socket, sys, time
there = sys.argv[1]
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.settimeout(5)
echo.connect((there, 9002))
trips = []
for _ in range(2000):
    began = time.perf_counter()
    echo.send(b"x" * 64)
    echo.recv(100)
    trips.append(time.perf_counter() - began)
stream = socket.create_connection((there, 9001))
block, sent, began = bytes(1 << 18), 0, time.perf_counter()
while time.perf_counter() - began < 1:
    sent += stream.send(block)
stream.shutdown(socket.SHUT_WR)
stream.recv(1)
took = time.perf_counter() - began
trips.sort()
print(json.dumps({"trip": trips[len(trips) // 2], "rate": sent / took}))
"""

Docker = Callable[..., str]


def engine(*options: str) -> Docker:
    def docker(*words: str, input: str = "", limit: float = 300) -> str:
        return output(["docker", *options, *words], input, limit).strip()

    return docker


def main() -> None:
    docker = engine()
    if os.geteuid() != 0:
        raise SystemExit("bench swarm: makes a second engine in namespaces of its own: run it as root")
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        raise SystemExit("bench swarm: this engine is in a swarm; docker swarm leave, if that is not in use")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="socklab-bench-")))
        second = stack.enter_context(second_engine(folder))
        stack.enter_context(images(docker, second))
        stack.enter_context(swarm(docker, second))
        project = folder / "lab"
        for name in ("docker-compose.yml", "docker-stack.yml", "Dockerfile"):
            project.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, project)
        for name in ("socklab", "services", "clients", "scenarios"):
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        stack.enter_context(deployed(docker, project))
        played(docker, project)
        heard(docker, project)
        links(docker, second)


@contextmanager
def second_engine(folder: Path) -> Iterator[Docker]:
    data, socket_ = folder / "engine", folder / "docker.sock"
    refuses = folder / "resolv.conf"
    # Where nobody listens: what the engine looks up in vain fails at once.
    refuses.write_text("nameserver 127.0.0.1\n")
    begin = (
        "hostname second; ip link set lo up; "
        f"mount --bind {refuses} /etc/resolv.conf; mount -t tmpfs tmpfs /run/docker; read _; "
        f"exec dockerd --data-root {data} --exec-root {folder}/exec --pidfile {folder}/pid -H unix://{socket_} "
        "--userland-proxy=false --default-address-pool base=172.24.0.0/14,size=24"
    )
    with (folder / "log").open("w") as log:
        machine = subprocess.Popen(
            [
                *("unshare", "--net", "--uts", "--mount", "--time", f"--monotonic={AHEAD}", "--kill-child"),
                *("sh", "-c", begin),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        inside = until(lambda: child_elsewhere(machine.pid), "the namespaces are there")
        for line in (
            f"link add socklab-bench type veth peer name eth0 netns {inside}",
            f"addr add {OURS}/24 dev socklab-bench",
            "link set socklab-bench up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        there = ["nsenter", "--target", str(inside), "--net", "ip"]
        subprocess.run([*there, "addr", "add", f"{THEIRS}/24", "dev", "eth0"], check=True)
        subprocess.run([*there, "link", "set", "eth0", "up"], check=True)
        assert machine.stdin is not None
        machine.stdin.write(b"\n")
        machine.stdin.close()
        docker = engine("--host", f"unix://{socket_}")
        until(lambda: socket_.exists() and answers(socket_), "the second engine answers")
        yield docker
    finally:
        if pid := child_elsewhere(machine.pid):
            os.kill(pid, 15)
            try:
                machine.wait(30)
            except subprocess.TimeoutExpired:
                pass
        machine.kill()
        machine.wait()
        subprocess.run(["ip", "link", "delete", "socklab-bench"], check=False, capture_output=True)


def child_elsewhere(pid: int) -> int:
    """The child of a process, once it is in a network namespace of its own; 0 before."""
    try:
        child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return child if os.readlink(f"/proc/{child}/ns/net") != os.readlink("/proc/self/ns/net") else 0
    except (OSError, IndexError):
        return 0


def answers(socket_: Path) -> bool:
    return not subprocess.run(
        ["docker", "--host", f"unix://{socket_}", "info"], capture_output=True
    ).returncode


def until(done: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + LIMIT
    while not (value := done()):
        if time.monotonic() > deadline:
            raise SystemExit(f"bench swarm: not within {LIMIT:g} s: {what}")
        time.sleep(0.2)  # nothing tells
    return value


@contextmanager
def images(docker: Docker, second: Docker) -> Iterator[None]:
    """Built here and carried to the second engine: there is no registry."""
    docker("compose", "--project-name", STACK, "--project-directory", str(ROOT), "build", "--quiet")
    names = [f"{STACK}-{name}" for name in ("services", "client", "conductor")]
    try:
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            docker("save", "--output", file.name, *names[:2])
            second("load", "--input", file.name)
        yield
    finally:
        docker("rmi", "--force", *names)


@contextmanager
def swarm(docker: Docker, second: Docker) -> Iterator[None]:
    before = docker("network", "ls", "--format", "{{.Name}}").split()
    docker("swarm", "init", "--advertise-addr", OURS, "--listen-addr", f"{OURS}:2377")
    try:
        token = docker("swarm", "join-token", "--quiet", "worker")
        began = time.perf_counter()
        second("swarm", "join", "--token", token, "--advertise-addr", THEIRS, f"{OURS}:2377")
        row("a second machine joins the swarm", f"{time.perf_counter() - began:.1f} s", "–")
        yield
    finally:
        second("swarm", "leave")
        docker("swarm", "leave", "--force")
        if GATEWAY not in before:
            docker("network", "rm", GATEWAY)


@contextmanager
def deployed(docker: Docker, project: Path) -> Iterator[None]:
    compose = ["compose", "--project-name", STACK, "--project-directory", str(project)]
    for name in ("docker-compose.yml", "docker-stack.yml"):
        compose += ["--file", str(project / name)]
    config = yaml.safe_load(docker(*compose, "config"))
    del config["name"]
    for service in config["services"].values():
        service.pop("pull_policy", None)
    config["services"]["conductor"]["command"] = ["play", "--results", "runs/latest.json", *PLAYED]
    docker("secret", "create", "socklab", "-", input=secrets.token_hex(32))
    try:
        docker("stack", "deploy", "--resolve-image", "never", "-c", "-", STACK, input=yaml.safe_dump(config))
        yield
    finally:
        docker("stack", "rm", STACK)
        mine = ("--quiet", "--filter", f"label=com.docker.stack.namespace={STACK}")
        until(
            lambda: not docker("ps", "--all", *mine) + docker("network", "ls", *mine),
            "the stack is gone",
        )


def played(docker: Docker, project: Path) -> None:
    """What came of the plays, and whether the times are told as exactly as it is said."""
    began = time.perf_counter()
    until(lambda: has_ended(docker), "all is played")
    took = time.perf_counter() - began
    results = json.loads((project / "runs" / "latest.json").read_text())
    verdicts = [r["verdict"] for r in results]
    if wrong := [r["label"] for r in results if r["verdict"] not in ("pass", "skip")]:
        raise SystemExit(
            f"bench swarm: {', '.join(wrong)}\n{docker('service', 'logs', f'{STACK}_conductor')}"
        )
    row(
        f"two machines: deployed and {len(results)} plays",
        f"{took:.0f} s, {verdicts.count('pass')} pass, {verdicts.count('skip')} skip",
        "0 fail",
    )
    clocks = [
        event["clock"]
        for history in (project / "runs").glob("*/history.jsonl")
        for event in map(json.loads, history.read_text().splitlines())
        if "clock" in event
    ]
    wrong_by = sorted(abs(clock["ahead"] - AHEAD * 10**9) / 1e3 for clock in clocks)
    stated = sorted(clock["error"] / 1e3 for clock in clocks)
    outside = sum(abs(c["ahead"] - AHEAD * 10**9) > c["error"] for c in clocks)
    row(
        f"a clock {AHEAD:,} s apart, told {len(clocks)} times: stated error",
        f"{statistics.median(stated):.0f} µs ({stated[0]:.0f}–{stated[-1]:.0f})",
        "–",
    )
    row(
        "  its true error",
        f"{statistics.median(wrong_by):.0f} µs (≤ {wrong_by[-1]:.0f}), {outside} outside",
        "0 outside of what is stated",
    )


def has_ended(docker: Docker) -> bool:
    """The conductor's latest task."""
    states = docker("service", "ps", f"{STACK}_conductor", "--format", "{{.CurrentState}}")
    return states.startswith(("Complete", "Failed", "Rejected"))


def heard(docker: Docker, project: Path) -> None:
    """A chat whose lines an agent on one machine says, and clients on both hear: all of them, and by clocks that are apart."""
    words = "--on joined --no-pin --clients 2x40 --rate 500 --agents 2 --seconds 2 --rounds 1 --json runs/bench.json"
    update = ("service", "update", "--detach", "--force", "--args", f"bench chat chat-eventloop {words}")
    docker(*update, f"{STACK}_conductor")
    file = project / "runs" / "bench.json"
    until(lambda: file.exists() and has_ended(docker), "the chat over both machines is measured")
    ((measured,),) = (each["rounds"] for each in json.loads(file.read_text()))
    if measured["wrong"] or measured["cannot"]:
        raise SystemExit(f"bench swarm: a chat over two machines: {measured['wrong'] or measured['cannot']}")
    latency, error = measured["percentiles"]["p50"], measured["clock_error"]
    row(
        "a chat over both machines, 20,000/s: latency",
        f"{latency * 1e6:.0f} µs ± {error * 1e6:.0f} of the clocks",
        "nothing lost; error known",
    )


def links(docker: Docker, second: Docker) -> None:
    """Round trip and throughput between two containers on a bridge, on an overlay, and across machines; in turns."""
    bridge, overlay = f"{STACK}_bridge", f"{STACK}_lab"
    docker("network", "create", "--internal", bridge)
    with ExitStack() as stack:
        stack.callback(docker, "network", "rm", bridge)
        ways = {
            "a bridge of one machine": (docker, docker, bridge),
            "an overlay on one machine": (docker, docker, overlay),
            "an overlay between two": (docker, second, overlay),
        }
        pairs = {}
        for number, (way, (here, there, network)) in enumerate(ways.items()):
            names = [f"{STACK}-{end}-{number}" for end in ("asks", "serves")]
            for where, name, program in (
                (here, names[0], "import time; time.sleep(3600)"),
                (there, names[1], SERVE),
            ):
                run = ("run", "--detach", "--rm", "--init", "--name", name, "--network", network)
                where(*run, f"{STACK}-client", "python", "-c", program)
                stack.callback(where, "rm", "--force", name)
            address = there(
                "inspect", names[1], "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            )
            pairs[way] = (here, names[0], address)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, (here, name, address) in pairs.items():
                found[way].append(json.loads(here("exec", name, "python", "-c", ASK, address)))
    base = {
        key: statistics.median(each[key] for each in found["a bridge of one machine"])
        for key in ("trip", "rate")
    }
    for way, each in found.items():
        trip, rate = (statistics.median(one[key] for one in each) for key in ("trip", "rate"))
        row(
            f"{way}: 64-byte round trip; TCP",
            f"{trip * 1e6:.0f} µs ({trip / base['trip']:.2f} ×); {rate * 8e-9:.1f} Gbit/s ({rate / base['rate']:.2f} ×)",
            "–",
        )
