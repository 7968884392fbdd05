"""`socklab grade`: a folder of submissions, none of which can see or harm another, nor the one who grades."""

from __future__ import annotations

import csv
import json
import os
import socket
from pathlib import Path

import pytest

from socklab import terminal
from socklab.source import cells
from tests.judging.conftest import CHAT, START, Run

SPY = """
import os, sys
others = [name for name in ("..", "/tmp", "{folder}", "{out}") if os.path.isdir(name) and set(os.listdir(name)) - {{"work"}}]
seen = []
for number in filter(str.isdigit, os.listdir("/proc")):
    try:
        os.listdir(f"/proc/{{number}}/fd")
    except PermissionError:
        continue
    except FileNotFoundError:
        continue
    seen.append(int(number))
for number in filter(str.isdigit, os.listdir("/proc")):
    if int(number) != os.getpid():
        try:
            os.kill(int(number), 9)
        except PermissionError:
            pass
print("others", others, "descriptors", [n for n in seen if n != os.getpid()])
sys.exit(7)
"""
FORKS = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
FILLS = """
import time
for folder in ("/tmp", "/var/tmp", ".", "/dev/shm"):
    try:
        for number in range(1000):
            with open(f"{folder}/big{number}", "wb") as file:
                file.write(b"x" * 60_000_000)
    except OSError as exc:
        print(folder, exc.strerror, flush=True)
time.sleep(60)
"""
PRINTS = "print('x' * 1_000_000_000)\n"
DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n"


@pytest.fixture
def submissions(tmp_path: Path) -> Path:
    folder = tmp_path / "submissions"
    for name, text in {"anna": CHAT, "ben": "def (\n"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "server.py").write_text(text)
    return folder


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["submission"]: row for row in csv.DictReader(file)}


def needs_root() -> None:
    if os.geteuid():
        pytest.skip("submissions get users of their own, which takes root")


def test_each_submission_has_a_row_and_a_report(run: Run, submissions: Path, tmp_path: Path) -> None:
    """A table, and for each what Gradescope and GitHub Classroom take."""
    done = run("grade", "chat", "submissions", "--csv", "t.csv", "--junit", "t.xml", "--classroom", *START)

    assert done.returncode == 0, done.stdout + done.stderr
    table = rows(tmp_path / "t.csv")
    assert (table["anna"]["verdict"], table["ben"]["verdict"]) == ("right", "never started")
    assert table["anna"]["points"] == table["anna"]["possible"] == table["ben"]["possible"]
    assert (table["ben"]["points"], table["ben"]["causes"]) == ("0", "the program has a syntax error")
    scope = json.loads((tmp_path / "grades" / "anna" / "results.json").read_text())
    assert scope["score"] == scope["max_score"] == sum(test["score"] for test in scope["tests"])
    room = json.loads((tmp_path / "grades" / "ben" / "classroom.json").read_text())
    assert (room["version"], room["status"]) == (1, "fail")
    assert "<testsuite" in (tmp_path / "t.xml").read_text()


def test_the_columns_of_the_table_stand_under_one_another_whatever_alphabet_a_name_is_in() -> None:
    """A Korean syllable takes two cells of a terminal; a long cause ends with an ellipsis."""
    lines = [terminal.graded_line(name, 21, 24, "wrong", "why " * 40) for name in ("anna", "김철수", "이 é")]

    assert {cells(line.partition("21 of")[0]) for line in lines} == {cells(lines[0].partition("21 of")[0])}
    assert all(line.endswith("…") for line in lines)


def test_what_was_graded_is_graded_again_only_where_it_changed(run: Run, submissions: Path) -> None:
    assert "graded before" not in run("grade", "chat", "submissions", *START).stdout
    assert "2 graded before" in run("grade", "chat", "submissions", *START).stdout
    (submissions / "ben" / "server.py").write_text("def ((\n")
    assert "1 graded before" in run("grade", "chat", "submissions", *START).stdout
    assert "graded before" not in run("grade", "chat", "submissions", "--again", *START).stdout


def test_a_rubric_says_what_starts_them_and_what_counts(run: Run, submissions: Path, tmp_path: Path) -> None:
    """Points by category and scenario, a build, and hidden scenarios of which only the outcome is told."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "secret.scenario.yaml").write_text(
        "title: A secret\nclauses: [chat.2]\nservice: chat\nclients: [alice]\nsteps:\n"
        "  - connect: alice\n  - send: {alice: secret}\n  - expect: {alice: secret}\n"
    )
    (tmp_path / "rubric.yaml").write_text(
        "start: python3 server.py --host {host} --port {port}\nbuild: python3 -m py_compile server.py\n"
        "points: {framing: 30, fan-out: 20}\nscenarios: {secret: 7}\nhidden: hidden\n"
    )
    (submissions / "clara").mkdir()

    done = run("grade", "chat", "submissions", "--rubric", "rubric.yaml")

    table = rows(tmp_path / "grades" / "grades.csv")
    assert (table["anna"]["points"], table["anna"]["possible"]) == ("57", "57"), done.stdout
    assert "the build failed" in table["ben"]["causes"]
    assert table["clara"]["verdict"] == "never started"
    tests = json.loads((tmp_path / "grades" / "anna" / "results.json").read_text())["tests"]
    (secret,) = [test for test in tests if "secret" in test["name"]]
    assert (secret["visibility"], secret["output"], secret["score"]) == ("after_published", "", 7.0)


def test_a_scenario_of_the_rubrics_own_that_moves_no_point_is_told(
    run: Run, submissions: Path, tmp_path: Path
) -> None:
    """One that says not what of the contract it holds is not played; one whose category has no points counts nothing."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    steps = "service: chat\nclients: [alice]\nsteps:\n  - connect: alice\n  - send: {alice: hi}\n  - expect: {alice: hi}\n"
    for name, clauses in {"none": "", "bytes": "clauses: [chat.7]\n", "all": "clauses: [chat.2]\n"}.items():
        (hidden / f"{name}.scenario.yaml").write_text(f"title: Hidden\n{clauses}{steps}")
    (tmp_path / "rubric.yaml").write_text("points: {fan-out: 20}\nhidden: hidden\n")

    done = run("grade", "chat", "submissions", "--rubric", "rubric.yaml", *START)

    assert done.returncode == 0, done.stdout + done.stderr
    bytes_, none = sorted(line for line in done.stderr.splitlines() if "hidden" in line)
    assert "bytes.scenario.yaml: counts nothing: it belongs to bad input" in bytes_
    assert "scenarios: {bytes: 5}" in bytes_
    assert "none.scenario.yaml: is not played" in none


@pytest.mark.parametrize(
    ("rubric", "said"),
    [
        ("start: [a]", "rubric.yaml:1:8: expected a text"),
        ("strat: a", 'rubric.yaml:1:1: unknown key "strat" in a rubric. Did you mean "start"?'),
        ("start: a\npoints: {speed: 3}", "rubric.yaml:2:10: expected start and port"),
        ("start: a\nscenarios: {a-full-rom: 3}", 'rubric.yaml:2:13: no scenario "a-full-rom" is played.'),
        ("start: a\nhidden: nowhere", "rubric.yaml:2:9: nowhere: no such file or folder"),
        ("start: a 'b", "rubric.yaml:1:8: cannot be split into words"),
        ("start: a\ndialect: {quit: [x]}", "rubric.yaml:2:17: expected a text"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rubric_is_told_with_its_line(
    run: Run, submissions: Path, tmp_path: Path, rubric: str, said: str
) -> None:
    (tmp_path / "rubric.yaml").write_text(rubric + "\n")

    done = run("grade", "chat", "submissions", "--rubric", "rubric.yaml")

    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "grades").exists()


def test_a_folder_without_submissions_says_what_would_be_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert (
        "is empty; each submission is a folder or a file in it"
        in run("grade", "chat", "empty", *START).stderr
    )
    assert "No such file or directory" in run("grade", "chat", "nowhere", *START).stderr
    assert "how is a submission started?" in run("grade", "chat", "empty").stderr


def test_what_lies_in_a_submission_besides_files_is_left_out(
    run: Run, submissions: Path, tmp_path: Path
) -> None:
    """A pipe, the socket of a server that ran there, links that lead nowhere or out: a program that needs none of them is judged."""
    anna = submissions / "anna"
    os.mkfifo(anna / "pipe")
    (anna / "nowhere").symlink_to("nothing")
    (anna / "out").symlink_to("/etc/hostname")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(anna / "socket"))

    run("grade", "chat", "submissions", "--csv", "t.csv", *START)

    assert rows(tmp_path / "t.csv")["anna"]["verdict"] == "right"


def test_a_submission_that_is_too_large_is_not_copied(run: Run, submissions: Path, tmp_path: Path) -> None:
    """A sparse file takes no room where it was made; its copy would fill the disk of whoever grades."""
    with (submissions / "ben" / "core").open("wb") as file:
        file.truncate(300 << 30)

    done = run("grade", "chat", "submissions", "--csv", "t.csv", *START)

    assert done.returncode == 3
    assert "ben: 307,200 MiB of files, and a submission has 256 at most" in rows(tmp_path / "t.csv")["ben"]["causes"]  # fmt: skip


def test_what_is_kept_of_an_earlier_grading_and_is_none_is_made_anew(run: Run, submissions: Path) -> None:
    (submissions.parent / "grades" / "ben").mkdir(parents=True)
    (submissions.parent / "grades" / "ben" / "report.json").write_text("[]")

    assert run("grade", "chat", "submissions", *START).returncode == 0


def test_no_submission_sees_or_harms_anything(run: Run, submissions: Path, tmp_path: Path) -> None:
    """Not the others' folders, not the grades, not a process that is not its own, not the disk; and each ends as its own verdict."""
    needs_root()
    spy = SPY.format(folder=submissions, out=tmp_path / "grades")
    for name, text in {"spy": spy, "forks": FORKS, "fills": FILLS, "prints": PRINTS, "deaf": DEAF}.items():
        (submissions / name).mkdir()
        (submissions / name / "server.py").write_text(text)

    done = run("grade", "chat", "submissions", *START)

    table = rows(tmp_path / "grades" / "grades.csv")
    assert table["anna"]["verdict"] == "right", done.stdout
    assert {
        name: table[name]["verdict"] for name in ("spy", "forks", "fills", "prints", "deaf")
    } == dict.fromkeys(("spy", "forks", "fills", "prints", "deaf"), "never started")
    spied = json.loads((tmp_path / "grades" / "spy" / "report.json").read_text())["start"]
    assert "others [] descriptors []" in spied["server"]
    assert "status 7" in spied["reason"]
    assert "No space left on device" in json.loads((tmp_path / "grades" / "fills" / "report.json").read_text())["start"]["server"]  # fmt: skip
    assert sorted(p.name for p in submissions.iterdir()) == [
        "anna",
        "ben",
        "deaf",
        "fills",
        "forks",
        "prints",
        "spy",
    ]
    assert [p.name for p in (submissions / "fills").iterdir()] == ["server.py"]
