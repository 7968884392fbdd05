"""For those who write scenarios: `new`, `play --explain`; and architectures side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from socklab import explain
from socklab.contracts import CONTRACTS
from socklab.scenario import load
from tests.judging.conftest import ROOT, Run

LIBRARY = sorted((ROOT / "scenarios").rglob("*.yaml"))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_new_scenario_plays_as_it_is(run: Run, tmp_path: Path, contract: str) -> None:
    begun = run("new", "scenarios/my-idea.yaml", "--contract", contract)
    assert begun.returncode == 0, begun.stderr

    done = run("play", "--no-runs", "--compose", str(ROOT / "docker-compose.yml"), "scenarios/my-idea.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "My idea" in done.stdout


def test_new_overwrites_nothing_and_knows_what_a_scenario_is_called(run: Run, tmp_path: Path) -> None:
    run("new", "a.scenario.yaml")
    before = (tmp_path / "a.scenario.yaml").read_text()

    assert "is there already" in run("new", "a.scenario.yaml", "--contract", "echo").stderr
    assert (tmp_path / "a.scenario.yaml").read_text() == before
    assert "name it b.scenario.yaml" in run("new", "b").stderr


@pytest.mark.parametrize(("name", "status"), [("", 2), ("/", 2), ("nowhere/\udcff.yaml", 2)])
def test_new_takes_any_name_that_a_file_can_have(run: Run, name: str, status: int) -> None:
    done = run("new", name)

    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_each_step_of_the_library_can_be_explained(path: Path) -> None:
    """A line at least for each step, with its line in the file."""
    play = load(path)[0]
    told = "\n".join(explain.scenario(play))

    assert [step.line for step in play.walk() if f"{step.line:>3}: " not in told] == []


def test_who_speaks_in_a_load_and_who_listens_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "crowd.scenario.yaml"
    file.write_text(
        "title: t\nclauses: [chat.2]\nservice: chat\nclients: [{crowd: {of: 50}}]\nsteps:\n"
        "  - connect: crowd\n  - load: {crowd: {senders: 5, lasts: 2s}}\n"
    )
    assert (
        "5 of crowd's 50 say 64-byte messages for 2s; the other 45 listen, and each must hear every message once, whole and in order"
        in "\n".join(explain.scenario(load(file)[0]))
    )


def test_explain_plays_nothing(run: Run) -> None:
    done = run("play", "--explain", str(ROOT / "scenarios" / "wire" / "a-lost-syn.yaml"))

    assert done.returncode == 0
    assert "drop the 1st SYN on alice→server; it holds before the next step begins" in done.stdout
    assert "passed" not in done.stdout


def test_architectures_stand_side_by_side(run: Run, tmp_path: Path) -> None:
    """Who waits behind a silent client, and what each client costs."""
    done = run("compare", "--compose", str(ROOT / "docker-compose.yml"), "--json", "c.json", "echo", "threaded", "forking", "eventloop")  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["service"]: row for row in json.loads((tmp_path / "c.json").read_text())}
    assert rows["echo"]["behind_silent"] is None
    assert rows["echo"]["served_at_once"] == 1
    for name in ("threaded", "forking", "eventloop"):
        assert rows[name]["served_at_once"] == 50
        assert 0 < rows[name]["behind_silent"] < 2
    assert (rows["threaded"]["threads"], rows["threaded"]["processes"]) == (1, 0)
    assert (rows["forking"]["threads"], rows["forking"]["processes"]) == (0, 1)
    assert (rows["eventloop"]["threads"], rows["eventloop"]["processes"]) == (0, 0)
