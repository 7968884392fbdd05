"""Print the figures of the README, one line each, with what they are held against.

python -m bench            all of them
python -m bench step agent only these
python -m bench docker     those of Docker
python -m bench swarm      two engines as a swarm (root)
python -m bench scale      what each of ten thousand connections costs (root)
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOCKLAB = [sys.executable, "-m", "socklab.cli"]


def row(what: str, value: str, goal: str) -> None:
    print(f"{what:<58} {value:>24}   goal {goal}", flush=True)


def wall(argv: list[str], runs: int) -> list[float]:
    """Seconds of whole processes, from the shell's point of view."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        times.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return times


def spread(times: list[float], unit: float = 1e3, name: str = "ms") -> str:
    """Median, and minimum to maximum."""
    return f"{statistics.median(times) * unit:.1f} {name} ({min(times) * unit:.1f}–{max(times) * unit:.1f})"


def start() -> None:
    row("socklab --help, whole process", spread(wall([*SOCKLAB, "--help"], 10)), "≤ 150 ms")
    row(
        "import socklab, whole process",
        spread(wall([sys.executable, "-c", "import socklab"], 10)),
        "≤ 150 ms",
    )


FOUR = """\
title: Four clients chat
service: chat
clients: [alice, bob, carol, dave]
steps:
  - connect: everyone
  - send: {alice: hello}
  - expect: {everyone: hello}
  - send: {dave: bye}
  - expect: {everyone: bye}
"""

ROUNDS = 500
STEPS = f"""\
title: {ROUNDS} round trips
service: eventloop
clients: [alice]
steps:
  - connect: alice
  - repeat:
      times: {ROUNDS}
      steps:
        - send: {{alice: "x{{round}};"}}
        - expect: {{alice: "x{{round}};"}}
"""


def play(text: str, runs: int, on: str = "auto") -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.scenario.yaml"
        path.write_text(text)
        return wall(
            [
                *SOCKLAB,
                "play",
                "--quiet",
                "--no-runs",
                "--on",
                on,
                "--compose",
                str(ROOT / "docker-compose.yml"),
                str(path),
            ],
            runs,
        )


def chat() -> None:
    row("a chat scenario with four clients, from the shell prompt", spread(play(FOUR, 10)), "≤ 400 ms")


def library() -> None:
    times = wall([*SOCKLAB, "play", "--quiet", "--no-runs"], 3)
    row("the whole library", spread(times, 1, "s"), "≤ 15 s on two cores")


def step() -> None:
    """A step's cost beyond the round trip: the same 500 round trips by a plain socket, in the same run."""
    whole, empty = play(STEPS, 3), play(STEPS.replace(f"times: {ROUNDS}", "times: 1"), 3)
    lab = (statistics.median(whole) - statistics.median(empty)) / (2 * (ROUNDS - 1))
    bare = _bare_round_trip()
    row("a step (send or expect) of a scenario", f"{lab * 1e3:.2f} ms", "≤ 1 ms beyond the round trip")
    row("  the same round trip by a plain socket", f"{bare * 1e3:.3f} ms", "–")


def _bare_round_trip() -> float:
    import socket

    argv = [sys.executable, "services/eventloop.py", "--port", "0"]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        _, _, host, port = server.stdout.readline().split()
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for number in range(ROUNDS):
                message = f"x{number};".encode()
                began = time.perf_counter()
                client.sendall(message)
                got = b""
                while len(got) < len(message):
                    got += client.recv(4096)
                times.append(time.perf_counter() - began)
        server.terminate()
    return statistics.median(times)


def agent() -> None:
    """The resident set of an idle agent, started on its own; in a lab it is forked and shares most of that."""
    with subprocess.Popen(
        [sys.executable, "clients/agent.py"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert process.stdin is not None
        process.stdin.close()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    row("an idle agent, resident", f"{kib / 1024:.1f} MiB", "≤ 20 MB")


def nodes() -> None:
    from bench import nodes as bench_nodes

    bench_nodes.main()


def gate() -> None:
    from bench import gate as bench_gate

    bench_gate.main()


def docker() -> None:
    from bench import docker as bench_docker

    bench_docker.main()


def viewers() -> None:
    from bench import viewers as bench_viewers

    bench_viewers.main()


def reports() -> None:
    from bench import reports as bench_reports

    bench_reports.main()


def swarm() -> None:
    from bench import swarm as bench_swarm

    bench_swarm.main()


def scale() -> None:
    from bench import scale as bench_scale

    bench_scale.main()


BENCHES: dict[str, Callable[[], None]] = {
    "start": start,
    "agent": agent,
    "nodes": nodes,
    "gate": gate,
    "step": step,
    "chat": chat,
    "library": library,
    "reports": reports,
    "viewers": viewers,
    "docker": docker,
    "swarm": swarm,
    "scale": scale,
}
APART = ("docker", "swarm", "scale")  # they need an engine, or root


def main() -> None:
    wanted = sys.argv[1:] or [name for name in BENCHES if name not in APART]
    for name in wanted:
        if name not in BENCHES:
            sys.exit(f'no figure "{name}"; there are: {", ".join(BENCHES)}')
        BENCHES[name]()


if __name__ == "__main__":
    main()
