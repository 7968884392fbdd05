"""`docker compose up` on a real engine: the lab comes up, plays what fits, and is not impressed by strangers."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import copy_project, docker, need_engine

PROJECT = f"socklab-test-{os.getpid()}"
NOBODY = 65534
TOKEN = "for-the-tests"

STRANGER = """
import json, socket
there = json.load(open('/run/socklab/conductor.json'))
host, port = there['at'][0].rsplit(':', 1)
silent = socket.create_connection((host, int(port)))
wrong = socket.create_connection((host, int(port)))
wrong.sendall(json.dumps({'secret': 'guess', 'name': 'x', 'networks': ['lab'], 'gate': None}).encode() + b'\\n')
rude = socket.create_connection((host, int(port)))
rude.sendall(b'\\x00' * 100000)
print('dropped' if wrong.recv(100) == b'' else 'taken in')
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project in a folder of its own that belongs to somebody else, with the lab up and its first plays done."""
    need_engine()
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SOCKLAB_TOKEN", TOKEN)
    monkeypatch.setenv("SOCKLAB_PAGE", "0")  # any port that is free
    try:
        compose(folder, "up", "--detach", limit=400)
        docker("wait", compose(folder, "ps", "--all", "--quiet", "conductor").stdout.strip(), limit=300)
        yield folder
    finally:
        compose(folder, "--profile", "experiments", "down", "--volumes", "--timeout", "1", "--rmi", "local")
        monkeypatch.undo()


def compose(
    folder: Path, *words: str, limit: float = 200, check: bool = True
) -> subprocess.CompletedProcess[str]:
    here = ["compose", "--project-name", PROJECT, "--project-directory", str(folder)]
    done = docker(*here, *words, limit=limit, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.mark.timeout(600)
def test_the_lab_comes_up_and_plays_what_fits(clone: Path) -> None:
    """Nothing fails; what cannot be played here says why; runs/ belongs to the project's owner."""
    container = compose(clone, "ps", "--all", "--quiet", "conductor").stdout.strip()
    status = docker("wait", container, limit=300).stdout.strip()

    results = json.loads((clone / "runs" / "latest.json").read_text())
    wrong = [(r["label"], r["reason"]) for r in results if r["verdict"] not in ("pass", "skip")]
    assert wrong == []
    assert status == "0"
    assert sum(r["verdict"] == "pass" for r in results) >= 130
    assert all(r["reason"] for r in results if r["verdict"] == "skip")
    assert (clone / "runs" / "latest.json").stat().st_uid == clone.stat().st_uid


@pytest.mark.timeout(300)
def test_some_are_played_while_the_lab_is_up(clone: Path) -> None:
    """By a conductor that nobody knew of before; strangers on its port change nothing, and it says who is missing."""
    client = compose(clone, "ps", "--quiet", "client").stdout.split()[0]
    play = subprocess.Popen(
        [
            "docker",
            "compose",
            "--project-name",
            PROJECT,
            "--project-directory",
            str(clone),
            "run",
            "--rm",
            "-T",
            "conductor",
            "play",
            "scenarios/chat",
            "scenarios/isolation",
            "-q",
        ],
        stdin=subprocess.DEVNULL,  # what compose finds there it wants to hand on
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    for _ in range(300):  # until it listens
        said = docker("exec", client, "python", "-c", STRANGER, check=False).stdout
        if said or play.poll() is not None:
            break
    out, err = play.communicate(timeout=200)

    assert play.returncode == 0, out + err
    assert said == "dropped\n"
    assert "0 failed" in out


@pytest.mark.timeout(300)
def test_the_page_plays_and_is_played_by_hand(clone: Path) -> None:
    """Published for this machine alone, and for whoever knows the token; in turns with the conductor."""
    host, _, port = compose(clone, "port", "page", "8071").stdout.strip().rpartition(":")
    assert host == "127.0.0.1"

    def ask(
        method: str, path: str, body: object = None, cookie: str = f"socklab-token={TOKEN}"
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request(method, path, json.dumps(body), {"Cookie": cookie})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    assert ask("GET", "/", cookie="")[0] == 401
    assert ask("GET", "/scenarios", cookie="socklab-token=guess")[0] == 401
    scenarios = json.loads(ask("GET", "/scenarios")[1])
    asked = next(s["id"] for s in scenarios if s["label"] == "everyone-hears-a-line[chat]")
    play = json.loads(ask("POST", "/plays", {"scenario": asked})[1])["id"]
    marks = ask("GET", f"/plays/{play}/marks")[1]  # to its end
    assert '"verdict":"pass"' in marks, marks[-2000:]

    lab = json.loads(ask("POST", "/plays", {"service": "chat"})[1])["id"]
    steps = (
        "connect: everyone",
        "cut: {between: [alice, server]}",
        "send: {bob: hello}",
        "quiet: {alice: 100ms}",
    )
    for step in (*steps, "heal: all", "expect: {alice: hello}"):
        assert ask("POST", f"/plays/{lab}/steps", {"step": step}) == (200, '{"failure":null}')
    status, text = ask("POST", f"/plays/{lab}/steps", {"step": "kill: server"})
    assert (status, "containers that are not ours" in text) == (409, True)
    status, text = ask("POST", f"/plays/{lab}/end")
    ask("GET", f"/plays/{lab}/marks")
    done = compose(
        clone, "run", "--rm", "-T", "conductor", "play", "scenarios/chat/everyone-hears-a-line.yaml", "-q"
    )
    assert "0 failed on joined" in done.stdout


@pytest.mark.timeout(300)
def test_with_gates_a_server_can_refuse(clone: Path) -> None:
    """The profile `experiments`: rules inside the network of a server, without a Docker socket anywhere."""
    gates = ("gate-threaded", "gate-echo", "gate-handler", "gate-forking", "gate-eventloop")
    compose(clone, "--profile", "experiments", "up", "--detach", "--no-recreate", *gates)

    done = compose(
        clone, "run", "--rm", "-T", "conductor", "play", "scenarios/isolation/silence-and-refusal.yaml"
    )

    assert "5 passed, 0 failed on joined" in done.stdout


def test_the_secret_stands_nowhere(clone: Path) -> None:
    """It is in the memory of the lab's own containers and nowhere else; no container has Docker's socket."""
    described = compose(clone, "--profile", "experiments", "config").stdout

    assert "docker.sock" not in described
    assert "secret" not in described.lower()
    assert not any("secret" in p.name for p in (clone / "runs").rglob("*"))
