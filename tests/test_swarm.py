"""`docker stack deploy` on a real swarm of one machine: the same lab, joined by a secret and the conductor's name."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker_engine import copy_project, docker, need_engine

STACK = f"socklab-test-{os.getpid()}"
CONDUCTOR = f"{STACK}_conductor"
GATEWAY = "docker_gwbridge"  # the engine makes it with its first swarm, and leaves it
PLAYED = tuple(
    f"scenarios/{name}.yaml"
    for name in (
        *("chat/everyone-hears-a-line", "chat/a-crowd-hears-every-line", "echo/two-thousand-at-once"),
        *("isolation/two-segments-one-server", "isolation/requests-arrive-answers-do-not"),
    )
)


@pytest.fixture(scope="module")
def swarm() -> Iterator[None]:
    """This engine as a swarm of one, which nobody else reaches."""
    need_engine()
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}").stdout.strip() != "inactive":
        pytest.skip("this engine is in a swarm already: docker swarm leave --force, if that is not in use")
    before = networks()
    docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
    try:
        yield
    finally:
        docker("swarm", "leave", "--force")
        if GATEWAY not in before:
            docker("network", "rm", GATEWAY, check=False)


@pytest.fixture(scope="module")
def clone(swarm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project, and its lab as a stack."""
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    compose = ("compose", "--project-name", STACK, "--project-directory", str(folder))
    try:
        docker(*compose, "build", "--quiet", limit=300)
        given("secret", "create", "socklab", "-", text=secrets.token_hex(32))
        config = yaml.safe_load(docker(*compose, *files(folder), "config").stdout)
        del config["name"]  # which `docker stack` does not take, nor this
        for service in config["services"].values():
            service.pop("pull_policy", None)
        config["services"]["conductor"]["command"] = [
            "play",
            "--patience",
            "3",
            "--results",
            "runs/latest.json",
            *PLAYED,
        ]
        given("stack", "deploy", "--resolve-image", "never", "-c", "-", STACK, text=yaml.safe_dump(config))
        yield folder
    finally:
        docker("stack", "rm", STACK, check=False)
        until(lambda: not left(), 120, "the stack's containers and networks are gone")
        docker("secret", "rm", "socklab", check=False)
        images = [f"{STACK}-{name}" for name in ("services", "client", "conductor")]
        docker("rmi", "--force", *images, check=False)


def files(folder: Path) -> tuple[str, ...]:
    return ("--file", str(folder / "docker-compose.yml"), "--file", str(folder / "docker-stack.yml"))


def given(*words: str, text: str) -> None:
    done = subprocess.run(["docker", *words], input=text, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def networks() -> set[str]:
    return set(docker("network", "ls", "--format", "{{.Name}}").stdout.split())


def left() -> list[str]:
    """What of the stack is still there."""
    mine = f"label=com.docker.stack.namespace={STACK}"
    containers = docker("ps", "--all", "--quiet", "--filter", mine).stdout.split()
    return containers + docker("network", "ls", "--quiet", "--filter", mine).stdout.split()


def until(done: Any, limit: float, what: str) -> None:
    deadline = time.monotonic() + limit
    while not done():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.3)  # the engine's events do not tell of all of these


def conducted() -> None:
    """Wait until the conductor's newest task has ended, as it should."""

    def states() -> list[str]:
        return docker("service", "ps", CONDUCTOR, "--format", "{{.CurrentState}}").stdout.splitlines()

    ended = ("Complete", "Failed", "Rejected")
    until(lambda: states()[0].startswith(ended) if states() else False, 240, "all is played")
    said = docker("service", "logs", "--raw", CONDUCTOR, check=False)
    assert states()[0].startswith("Complete"), said.stdout[-3000:] + said.stderr[-1000:]


@pytest.mark.timeout(600)
def test_the_same_lab_plays_as_a_stack(clone: Path) -> None:
    """Clients are there before the first play, servers are found when they are healthy, and nothing fails."""
    conducted()

    results = json.loads((clone / "runs" / "latest.json").read_text())
    assert [(r["label"], r["reason"]) for r in results if r["verdict"] not in ("pass", "skip")] == []
    assert sum(r["verdict"] == "pass" for r in results) >= 6
    assert any("two-segments" in r["label"] and r["verdict"] == "pass" for r in results)


@pytest.mark.timeout(300)
def test_agents_of_several_clients_add_up_to_a_load(clone: Path) -> None:
    """The conductor conducts again, something else: `docs/swarm.md` promises that."""
    load = "bench echo eventloop --on joined --no-pin --load idle --clients 300 --agents 3 --rounds 1"
    docker(
        "service",
        "update",
        "--quiet",
        "--detach",
        "--force",
        "--args",
        f"{load} --json runs/load.json",
        CONDUCTOR,
    )
    until(lambda: (clone / "runs" / "load.json").exists(), 100, "the load was carried")
    conducted()

    (row,) = json.loads((clone / "runs" / "load.json").read_text())
    assert (row["subject"], row["median"], row["rounds"][0]["wrong"]) == ("eventloop", 300, [])


@pytest.mark.timeout(100)
def test_the_secret_is_dockers_and_stands_in_no_container(clone: Path) -> None:
    """In memory below /run/secrets of clients and conductor; not in their environment, their commands, or the runs."""
    client = docker("ps", "--quiet", "--filter", f"name={STACK}_client.1").stdout.strip()
    secret = docker("exec", client, "cat", "/run/secrets/socklab").stdout.strip()
    described = docker("inspect", client).stdout
    chat = docker("ps", "--quiet", "--filter", f"name={STACK}_chat.1").stdout.strip()

    assert len(secret) == 64
    assert secret not in described
    assert "tmpfs /run/secrets/socklab" in docker("exec", client, "cat", "/proc/mounts").stdout
    assert docker("exec", chat, "ls", "/run/secrets", check=False).returncode != 0
    assert not any(secret in p.read_text(errors="replace") for p in (clone / "runs").rglob("*.json*"))
