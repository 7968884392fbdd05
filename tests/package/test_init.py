"""`socklab init`: a lab that works at once, and what platforms take. What they would run is run here."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from socklab.cli import PLATFORMS
from socklab.contracts import CONTRACTS
from tests.faces.conftest import ROOT

BIN = Path(sys.executable).parent
RIGHT = {"echo": "eventloop", "chat": "chat", "udp-echo": "udp_echo", "registry": "udp_registry"}
"""Our own servers of each contract."""


def socklab(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "socklab", *words], cwd=where, capture_output=True, text=True, timeout=100, env=environment()
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **more}


def right(contract: str, folder: Path) -> None:
    """Fill the server in."""
    shutil.copy(ROOT / "services" / f"{RIGHT[contract]}.py", folder / "server.py")


def steps(script: list[str], where: Path, **more: str) -> None:
    """Run what a CI file runs, in one bash each; what only the platform has stays out: its packages, and a sudo that asks nobody."""
    shim = where.parent / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (shim / "sudo").chmod(0o755)
    for text in script:
        if re.match(r"pip install|sudo apt-get", text):
            continue
        env = environment(**more)
        env["PATH"] = f"{shim}:{env['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=where, env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


def jobs(path: Path) -> list[str]:
    (job,) = yaml.safe_load(path.read_text())["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_new_lab_says_what_is_to_be_done_and_passes_when_it_is(tmp_path: Path, contract: str) -> None:
    begun = socklab(tmp_path, "init", "lab", "--contract", contract)
    assert begun.returncode == 0, begun.stderr
    assert "cd lab && socklab play" in begun.stdout

    before = socklab(tmp_path / "lab", "play", "--no-runs")
    assert before.returncode == 1, before.stdout + before.stderr
    assert f"scenarios/{contract}-begins.yaml:" in before.stdout
    assert "expected  alice" in before.stdout

    right(contract, tmp_path / "lab")
    after = socklab(tmp_path / "lab", "play", "--no-runs")
    assert after.returncode == 0, after.stdout + after.stderr


def test_check_in_a_new_lab_tells_what_is_wrong(tmp_path: Path) -> None:
    begun = socklab(tmp_path, "init", "--contract", "udp-echo")
    (command,) = re.findall(r"socklab (check .*)", begun.stdout)

    before = socklab(tmp_path, *command.split())
    right("udp-echo", tmp_path)
    after = socklab(tmp_path, *command.split())

    assert (before.returncode, after.returncode) == (1, 0), before.stdout + after.stdout
    assert "wrong" in before.stdout


def test_nothing_is_overwritten_and_nothing_written_beside_it(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("mine")

    done = socklab(tmp_path, "init")

    assert done.returncode == 2
    assert "server.py already, and nothing is overwritten" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["server.py"]
    assert (tmp_path / "server.py").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = socklab(tmp_path, "init", "file/lab")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "file" in done.stderr


def test_editors_find_the_schema(tmp_path: Path) -> None:
    """By the settings of the folder, and by the first line of each scenario."""
    socklab(tmp_path, "init")
    socklab(tmp_path, "new", "scenarios/deep/mine.yaml")

    (schema,) = json.loads((tmp_path / ".vscode/settings.json").read_text())["yaml.schemas"]
    rules = json.loads((tmp_path / schema).read_text())

    assert rules == json.loads((ROOT / "scenario.schema.json").read_text())
    for path in (tmp_path / "scenarios").rglob("*.yaml"):
        found = re.match(r"# yaml-language-server: \$schema=(.*)\n", path.read_text())
        assert found
        assert (path.parent / found[1]).resolve() == (tmp_path / schema).resolve()
        jsonschema.validate(yaml.safe_load(path.read_text()), rules)


def test_a_scenario_begun_in_a_lab_is_about_the_server_of_that_lab(tmp_path: Path) -> None:
    socklab(tmp_path, "init", "--contract", "udp-echo")
    right("udp-echo", tmp_path)

    socklab(tmp_path, "new", "scenarios/mine.yaml", "--contract", "udp-echo")
    done = socklab(tmp_path, "play", "--no-runs", "scenarios/mine.yaml")

    assert "service: server\n" in (tmp_path / "scenarios/mine.yaml").read_text()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_a_platform_takes_is_added_to_a_lab(tmp_path: Path, platform: str) -> None:
    socklab(tmp_path, "init")

    done = socklab(tmp_path, "init", "--for", platform)
    again = socklab(tmp_path, "init", "--for", platform)

    assert done.returncode == 0, done.stderr
    assert again.returncode == 2
    for name in done.stdout.splitlines()[:-1]:
        assert not re.search(r"@[a-z]+@(?!v)", (tmp_path / name).read_text())


def test_ci_plays_and_judges(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    socklab(tmp_path, "init", "lab", "--contract", "udp-echo")
    right("udp-echo", lab)

    steps(jobs(lab / ".github/workflows/socklab.yml"), lab)

    assert list(lab.glob("runs/*/report.html"))
    assert ElementTree.parse(lab / "results.xml").findall(".//testcase")


def test_gitlab_gets_junit(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    socklab(tmp_path, "init", "lab", "--for", "gitlab", "--contract", "udp-echo")
    right("udp-echo", lab)
    job = yaml.safe_load((lab / ".gitlab-ci.yml").read_text())["socklab"]

    steps(job["script"], lab)

    cases = ElementTree.parse(lab / job["artifacts"]["reports"]["junit"]).findall(".//testcase")
    assert cases
    assert not [case for case in cases if case.find("failure") is not None]


@pytest.mark.parametrize("filled_in", [True, False])
def test_github_classroom_gets_points(tmp_path: Path, filled_in: bool, why_no_netns: str | None) -> None:
    """The reporter reads the variable SOCKLAB_RESULTS: base64 of a JSON with tests, their scores, and the highest score."""
    if why_no_netns:
        pytest.skip(why_no_netns)
    lab, output = tmp_path / "lab", tmp_path / "output"
    socklab(tmp_path, "init", "lab", "--contract", "udp-echo")
    socklab(tmp_path, "init", "lab", "--for", "github-classroom", "--contract", "udp-echo")
    if filled_in:
        right("udp-echo", lab)
    path = lab / ".github/workflows/classroom.yml"

    steps(jobs(path), lab, GITHUB_OUTPUT=str(output), RUNNER_TEMP=str(tmp_path / "temp"))

    told = json.loads(base64.b64decode(output.read_text().removeprefix("result=")))
    (job,) = yaml.safe_load(path.read_text())["jobs"].values()
    reporter = job["steps"][-1]
    score = sum(test["score"] for test in told["tests"])
    assert reporter["env"] == {f"{reporter['with']['runners'].upper()}_RESULTS": "${{ steps.grade.outputs.result }}"}  # fmt: skip
    assert (told["status"] == "pass", score == told["max_score"]) == (filled_in, filled_in)
    assert told["max_score"] > 0


def gradescope(
    tmp_path: Path, *, filled_in: bool = True, more: str = "hidden: hidden"
) -> subprocess.CompletedProcess[str]:
    """/autograder as Gradescope lays it out, and its run_autograder run."""
    root = tmp_path / "autograder"
    for name in ("source", "submission", "results"):
        (root / name).mkdir(parents=True)
    socklab(tmp_path, "init", "lab", "--contract", "udp-echo")
    socklab(root, "init", "source", "--for", "gradescope", "--contract", "udp-echo")
    hidden = root / "source" / "hidden"
    hidden.mkdir()
    shutil.copy(
        ROOT / "scenarios/udp-echo/boundaries-are-kept.yaml", hidden / "a-secret-of-ours.scenario.yaml"
    )
    rubric = root / "source" / "rubric.yaml"
    rubric.write_text(f"{rubric.read_text()}{more}\n")
    shutil.copy(tmp_path / "lab/server.py", root / "submission/server.py")
    if filled_in:
        right("udp-echo", root / "submission")
    shutil.copy(root / "source/run_autograder", root / "run_autograder")
    return subprocess.run(
        [root / "run_autograder"],
        cwd=root,
        env=environment(AUTOGRADER=str(root), SOCKLAB=str(BIN / "socklab")),
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("filled_in", [True, False])
def test_gradescope_gets_results(tmp_path: Path, filled_in: bool) -> None:
    done = gradescope(tmp_path, filled_in=filled_in)

    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads((tmp_path / "autograder/results/results.json").read_text())
    secret = [test for test in results["tests"] if "a-secret-of-ours" in test["name"]]
    assert (results["score"] == results["max_score"]) is filled_in
    assert [(test["visibility"], test["output"]) for test in secret] == [("after_published", "")]


def test_where_the_lab_breaks_gradescope_gets_no_points_at_all(tmp_path: Path) -> None:
    """Not even none: a machine that broke is nobody's fault, and the platform has its own word for it."""
    done = gradescope(tmp_path, more="build: [")

    assert done.returncode != 0
    assert not (tmp_path / "autograder/results/results.json").exists()


def test_gradescopes_setup_is_bash(tmp_path: Path) -> None:
    """It installs packages as root, so here it is only read."""
    socklab(tmp_path, "init", "--for", "gradescope")

    assert os.access(tmp_path / "setup.sh", os.X_OK)
    assert subprocess.run(["bash", "-n", tmp_path / "setup.sh"]).returncode == 0


def test_a_devcontainer_may_make_network_namespaces(tmp_path: Path) -> None:
    socklab(tmp_path, "init", "--for", "devcontainer")
    text = (tmp_path / ".devcontainer/devcontainer.json").read_text()

    settings = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))

    assert {"--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"} <= set(settings["runArgs"])


def test_the_whole_lab_can_be_had_to_change_it(tmp_path: Path) -> None:
    done = socklab(tmp_path, "init", "copy", "--whole")
    copy = tmp_path / "copy"
    (copy / "services/udp_echo.py").write_text((ROOT / "services/chat.py").read_text())

    played = socklab(copy, "play", "--no-runs", "scenarios/udp-echo/boundaries-are-kept.yaml")

    assert done.returncode == 0, done.stderr
    assert played.returncode == 1, "it plays its own servers"
    for name in ("docker-compose.yml", "docker-stack.yml", "Dockerfile", ".dockerignore"):
        assert (copy / name).read_text() == (ROOT / name).read_text()
    assert (copy / "socklab/inside/gate.py").is_file()
