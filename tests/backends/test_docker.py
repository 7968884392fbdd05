"""The docker backend on a real engine: the library as without Docker, and nothing left behind in any ending."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from socklab import player
from socklab.conductor import Options
from socklab.history import Event
from socklab.verdict import Result, Verdict
from tests.docker_engine import docker, need_engine

ROOT = Path(__file__).resolve().parent.parent.parent
LABEL = "label=socklab.lab"
LONG = """title: It takes long
service: chat
clients: [alice, bob]
steps:
  - connect: [alice, bob]
  - wait: 60s
    note: until somebody ends it
"""


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    need_engine()


def listed(*words: str) -> list[str]:
    """The identifiers that a command of docker lists."""
    return docker(*words).stdout.split()


def left() -> list[str]:
    """What carries the lab's label: containers, networks, volumes."""
    return [
        *listed("ps", "--all", "--quiet", "--filter", LABEL),
        *listed("network", "ls", "--quiet", "--filter", LABEL),
        *listed("volume", "ls", "--quiet", "--filter", LABEL),
    ]


def play(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "socklab", "play", "--on", "docker", "--no-runs", *words]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False)


def start(scenario: Path) -> subprocess.Popen[str]:
    """A play that goes on until somebody ends it, with its server up."""
    argv = [sys.executable, "-m", "socklab", "play", "--on", "docker", "--no-runs", str(scenario)]
    options = ["--compose", str(ROOT / "docker-compose.yml")]
    process = subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 100
    while len(listed("ps", "--quiet", "--filter", LABEL)) < 5:  # anchor, three hosts, the server
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    return process


@pytest.fixture
def long(tmp_path: Path) -> Path:
    path = tmp_path / "long.scenario.yaml"
    path.write_text(LONG)
    return path


def words_heard(events: list[Event]) -> dict[tuple[str, int], bytes]:
    """The bytes that each client received on each of its connections, not how they were cut; of datagrams, which they were.
    Addresses differ from lab to lab."""
    heard: dict[tuple[str, int], list[bytes]] = defaultdict(list)
    number: dict[str, int] = defaultdict(int)
    datagrams = next(e for e in events if e.kind == "play").data["framing"] == "datagram"
    for event in events:
        if event.kind == "connected":
            number[event.node] += 1
        elif event.kind == "received":
            heard[event.node, number[event.node]].append(event.content)
    whole = {key: b"\n".join(sorted(parts)) if datagrams else b"".join(parts) for key, parts in heard.items()}
    return {key: re.sub(rb"[0-9.]+:[0-9]+|cookie \S+", b"ADDRESS", text) for key, text in whole.items()}


@pytest.mark.timeout(600)
def test_the_library_comes_to_the_same_as_without_docker() -> None:
    """The same verdicts and, where a client's bytes are determined by the scenario, the same bytes at each connection."""

    async def results(on: str) -> dict[str, Result]:
        backend, _ = await player.choose(on)
        try:
            selection = player.select(player.find([ROOT / "scenarios"]))
            return {
                r.scenario.label: r async for r in player.play_all(selection.scenarios, backend, Options())
            }
        finally:
            await backend.close()

    here = asyncio.run(results("netns"))
    there = asyncio.run(results("docker"))

    assert {k: str(r.verdict) for k, r in there.items()} == dict.fromkeys(there, "pass"), [
        (k, r.reason) for k, r in there.items() if r.verdict is not Verdict.PASS
    ]
    assert {k: r.verdict for k, r in here.items()} == {k: r.verdict for k, r in there.items()}
    echoes = [k for k, r in here.items() if r.scenario.path.parent.name == "echo" and "slow" not in k]
    assert len(echoes) > 50
    other = [k for k in echoes if words_heard(list(here[k].events)) != words_heard(list(there[k].events))]
    assert other == []
    assert left() == []


def test_another_projects_compose_file_is_played(tmp_path: Path) -> None:
    """Its image, its own command, nothing of ours installed in it."""
    (tmp_path / "Dockerfile").write_text(
        f'FROM {os.environ.get("PYTHON_IMAGE", "python:3.13-slim")}\nCOPY shout.py /\nCMD ["python", "/shout.py"]\n'
    )
    (tmp_path / "shout.py").write_text(
        "import socketserver\n"
        "class Shout(socketserver.BaseRequestHandler):\n"
        "    def handle(self):\n"
        "        while data := self.request.recv(4096): self.request.sendall(data)\n"
        "socketserver.ThreadingTCPServer(('0.0.0.0', 4444), Shout).serve_forever()\n"
    )
    (tmp_path / "docker-compose.yml").write_text(
        "services:\n  shout:\n    build: .\n    expose: ['4444']\n    labels: {socklab.contract: echo}\n"
    )
    scenario = tmp_path / "shout.scenario.yaml"
    scenario.write_text(
        "title: It answers\nservice: shout\nclients: [alice]\n"
        "steps:\n  - connect: alice\n  - send: {alice: hello}\n  - expect: {alice: hello}\n"
        "  - cut: {from: server, to: alice}\n    during:\n      - send: {alice: again}\n      - quiet: {alice: 200ms}\n"
        "  - expect: {alice: again}\n"
    )

    done = play(str(scenario))

    assert done.returncode == 0, done.stdout + done.stderr
    assert left() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_play_that_is_interrupted_leaves_nothing(long: Path, number: signal.Signals, status: int) -> None:
    process = start(long)

    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == status
    assert left() == []


def test_after_sigkill_the_hosts_are_gone_and_the_next_run_removes_the_rest(long: Path) -> None:
    """Nothing of it runs on: the engine closes the streams of a conductor that is gone."""
    process = start(long)

    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while listed("ps", "--quiet", "--filter", LABEL):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert play("scenarios/echo/what-is-sent-comes-back.yaml", "--service", "echo").returncode == 0
    assert left() == []


def test_a_run_leaves_the_lab_of_another_alone(long: Path) -> None:
    """Two at once do not meet, and the clean-up of one is not the end of the other."""
    process = start(long)
    before = set(listed("ps", "--quiet", "--filter", LABEL))

    assert play("scenarios/echo/what-is-sent-comes-back.yaml", "--service", "echo").returncode == 0

    assert set(listed("ps", "--quiet", "--filter", LABEL)) == before
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert left() == []


@pytest.mark.parametrize(
    ("compose", "said"),
    [
        ("services: {s: {build: ., expose: ['1']}}", "does not build"),
        (
            "services: {s: {image: 'socklab-no-such-image:1', expose: ['1']}}",
            "s: the image socklab-no-such-image:1 is not on this engine",
        ),
        ("services: {s: {image: IMAGE, command: /no/such/program, expose: ['1']}}", "cannot be started"),
        ("services: {s: {image: IMAGE, nonsense: 1, expose: ['1']}}", "Compose does not take it"),
    ],
    ids=["no Dockerfile", "no image", "no program", "a wrong key"],
)
def test_what_cannot_be_made_is_an_error_of_the_lab(tmp_path: Path, compose: str, said: str) -> None:
    """With the engine's own words, exit code 3, nothing left."""
    image = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    (tmp_path / "compose.yml").write_text(compose.replace("IMAGE", image))
    scenario = tmp_path / "x.scenario.yaml"
    scenario.write_text("title: x\nservice: s\nclients: [a]\nsteps:\n  - connect: a\n")

    done = play(str(scenario))

    assert done.returncode == 3, done.stdout + done.stderr
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert left() == []


def test_a_server_that_ends_at_once_has_failed(tmp_path: Path) -> None:
    """Its image is there and its program starts: that it does not serve is its own fault, and its last words are shown."""
    image = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    (tmp_path / "compose.yml").write_text(
        f"services: {{s: {{image: '{image}', command: [python, -c, 'raise SystemExit(\"no config\")'], expose: ['1']}}}}"
    )
    scenario = tmp_path / "x.scenario.yaml"
    scenario.write_text("title: x\nservice: s\nclients: [a]\nsteps:\n  - connect: a\n")

    done = play(str(scenario))

    assert done.returncode == 1
    assert "ended with status 1 before it listened" in done.stdout
    assert "no config" in done.stdout
