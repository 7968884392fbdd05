"""The figures of the docker backend and of `docker compose up`, on an engine that is warm."""

from __future__ import annotations

import json
import os
import statistics
import time

from bench.figures import FOUR, SOCKLAB, output, play, row, spread, step, wall

UP = 3  # pairs


def main() -> None:
    play(FOUR, 1, "docker")  # images are built
    row("on docker: a chat scenario with four clients", spread(play(FOUR, 5, "docker"), 1, "s"), "≤ 5 s")
    row("on docker: a step", f"{step('docker') * 1e3:.2f} ms", "≤ 3 ms beyond the round trip")
    library = wall([*SOCKLAB, "play", "--quiet", "--no-runs", "--on", "docker"], 1)
    row("on docker: the whole library", spread(library, 1, "s"), "≤ 180 s on two cores")
    up()


def up() -> None:
    """`docker compose up -d --wait` of the lab's servers and clients beside the same containers with a no-op command."""
    config = json.loads(_compose("lab", None, "config", "--format", "json"))
    config["services"] = {
        name: {k: v for k, v in service.items() if k not in ("build", "pull_policy", "depends_on")}
        for name, service in config["services"].items()
        if name != "conductor" and "profiles" not in service
    }
    _compose("lab", None, "build", "--quiet")
    idle = json.loads(json.dumps(config))
    for service in idle["services"].values():
        service.update(command=["sleep", "1000"], init=False)
        service.pop("healthcheck", None)
    times: dict[str, list[float]] = {"the lab": [], "no-op": []}
    for _ in range(UP):
        for name, file in (("the lab", config), ("no-op", idle)):
            project = f"socklab-bench-{os.getpid()}"
            text = json.dumps({**file, "name": project})
            try:
                began = time.perf_counter()
                _compose(project, text, "up", "--detach", "--wait")
                times[name].append(time.perf_counter() - began)
            finally:
                _compose(project, text, "down", "--volumes", "--timeout", "0")
    ratio = statistics.median(times["the lab"]) / statistics.median(times["no-op"])
    row("docker compose up -d --wait, healthy", spread(times["the lab"], 1, "s"), "–")
    row(
        "  the same containers with a no-op command",
        spread(times["no-op"], 1, "s"),
        f"ratio {ratio:.2f}, goal ≤ 2",
    )


def _compose(project: str, text: str | None, *words: str) -> str:
    file = ["--project-name", project, "--file", "-"] if text is not None else []
    return output(["docker", "compose", *file, *words], text)
