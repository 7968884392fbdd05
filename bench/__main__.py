"""Print the figures of the README, one line each, with what they are held against.

python -m bench            all of them
python -m bench step agent only these
python -m bench docker     those of Docker
python -m bench swarm      two engines as a swarm (root)
python -m bench scale      what each of ten thousand connections costs (root)
python -m bench tricks     what each trick of our servers is worth
python -m bench peers      ours beside servers of Debian's packages (--short; --keep writes what it found into docs/)
"""

from __future__ import annotations

import importlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import figures
from bench.figures import FOUR, ROOT, ROUNDS, SOCKLAB, play, row, spread, wall


def start() -> None:
    row("socklab --help, whole process", spread(wall([*SOCKLAB, "--help"], 10)), "≤ 150 ms")
    row(
        "import socklab, whole process",
        spread(wall([sys.executable, "-c", "import socklab"], 10)),
        "≤ 150 ms",
    )


def chat() -> None:
    row("a chat scenario with four clients, from the shell prompt", spread(play(FOUR, 10)), "≤ 400 ms")


def step() -> None:
    """A step's cost beyond the round trip: the same 500 round trips by a plain socket, in the same run."""
    lab = figures.step()
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


def module(name: str) -> Callable[[], None]:
    """A bench with a file of its own, which is read when it is asked for."""
    return lambda: importlib.import_module(f"bench.{name}").main()


BENCHES: dict[str, Callable[[], None]] = {
    "start": start,
    "agent": agent,
    "lab": module("lab"),
    "gate": module("gate"),
    "step": step,
    "growth": module("growth"),
    "chat": chat,
    "library": module("library"),
    "reports": module("reports"),
    "viewers": module("viewers"),
    "docker": module("docker"),
    "swarm": module("swarm"),
    "scale": module("scale"),
    "peers": module("peers"),
    "tricks": module("tricks"),
}
APART = ("docker", "swarm", "scale", "peers", "tricks")
"""What needs an engine or root, or takes long."""


def main() -> None:
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__.strip(), f"\nFigures: {', '.join(BENCHES)}.", sep="\n")
        return
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    if unknown := [name for name in wanted if name not in BENCHES]:
        sys.exit(f'no figure "{unknown[0]}"; there are: {", ".join(BENCHES)}')
    for name in wanted or [name for name in BENCHES if name not in APART]:
        BENCHES[name]()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends quietly behind `| head`
    main()
