"""One install, far from a clone of the repository, brings the same lab."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import socklab
from tests.docker_engine import IMAGE, docker, need_engine
from tests.faces.conftest import ECHO, ROOT
from tests.package.conftest import Run


def test_the_wheel_carries_what_a_clone_has(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    for folder in ("services", "clients", "scenarios"):
        there = {f"socklab/lab/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.[py]*[yl]")}
        assert there
        assert there <= names
    for name in (
        "docker-compose.yml",
        "docker-stack.yml",
        "Dockerfile",
        "scenario.schema.json",
        "docs/contracts.md",
    ):
        assert f"socklab/lab/{name}" in names
    made = r"__pycache__|^tests/|/site/|_build|searchindex"  # by Python, or by make site
    assert [name for name in names if re.search(made, name)] == []


def test_the_index_can_show_its_description(sdist: Path, wheel: Path) -> None:
    """No link into a repository that is not there, no picture of it."""
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", sdist, wheel], capture_output=True, text=True
    )
    (name,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("dist-info/METADATA"))
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(name))

    assert done.returncode == 0, done.stdout
    assert metadata["Version"] == socklab.__version__
    assert metadata["License-Expression"] == "MIT"
    assert re.findall(r"\]\((?!https?://)[^)]*\)", str(metadata.get_payload())) == []


def test_it_says_its_version(run: Run) -> None:
    assert run("--version").stdout == f"socklab {socklab.__version__}\n"
    assert f"## {socklab.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_library_plays_where_there_is_none(run: Run) -> None:
    """The paths of the README hold, and what is told can be typed again."""
    done = run("play", "--no-runs", "scenarios/udp-echo", "scenarios/echo/what-is-sent-comes-back")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass  scenarios/udp-echo/boundaries-are-kept.yaml" in done.stdout
    assert "pass  scenarios/echo/what-is-sent-comes-back.yaml" in done.stdout


def test_without_a_path_the_library_is_meant(run: Run) -> None:
    explained = run("play", "--explain")

    assert explained.returncode == 0, explained.stderr
    assert len(re.findall(r"\(scenarios/|scenarios/[\w-]+/[\w-]+\.yaml", explained.stdout)) >= 100


def test_its_own_scenarios_come_first(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "mine.yaml").write_text(
        "title: Mine\nservice: udp-echo\nclients: [alice]\nsteps:\n  - send: {alice: hi}\n  - expect: {alice: hi}\n"
    )

    done = run("play", "--no-runs")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "Mine" in done.stdout


def test_a_server_of_ones_own_is_judged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(ECHO)

    done = run("check", "echo", "--no-runs", "--", "python3", "server.py", "--host", "{host}", "--port", "{port}")  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout


@pytest.mark.timeout(300)
def test_it_plays_on_the_python_of_a_container(wheel: Path) -> None:
    """Another Python than this one where the image has one. With all rights on namespaces, and with a container's usual ones on processes."""
    need_engine()
    script = """pip install -q --no-cache-dir /wheel/*.whl || exit 77
        set -e
        export PYTHONWARNINGS=error::DeprecationWarning
        socklab play -q --no-runs scenarios/udp-echo scenarios/echo/what-is-sent-comes-back
        setpriv --bounding-set=-all socklab play -q --no-runs scenarios/udp-echo scenarios/echo/what-is-sent-comes-back"""
    options = ("--rm", "--privileged", "--volume", f"{wheel.parent}:/wheel:ro", "--workdir", "/srv")
    done = docker("run", *options, IMAGE, "sh", "-c", script, limit=250, check=False)

    if done.returncode == 77 and "No matching distribution" in done.stderr:
        pytest.skip(f"the package index cannot be reached from a container: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"passed, 0 failed on netns .*passed, 0 failed on process ", done.stdout, re.DOTALL)


def test_a_service_of_the_lab_is_talked_to(run: Run) -> None:
    done = run("talk", "chat", "--on", "process", input="hello\n")

    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout


def test_a_run_is_drawn(run: Run, tmp_path: Path) -> None:
    run("play", "scenarios/udp-echo/boundaries-are-kept")

    done = run("show", "--svg", "run.svg")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.svg").read_text().startswith("<svg")
    assert list(tmp_path.glob("runs/*/report.html"))


def test_the_schema_is_the_one_of_the_clone(run: Run) -> None:
    assert json.loads(run("schema").stdout) == json.loads((ROOT / "scenario.schema.json").read_text())


@pytest.mark.parametrize(
    ("words", "extra"),
    [(["serve"], "web"), (["show", "--png", "run.png"], "png"), (["compare", "--plot", "a.svg", "echo"], "plot")],
)  # fmt: skip
def test_what_an_extra_is_needed_for_is_told_in_a_line(run: Run, words: list[str], extra: str) -> None:
    run("play", "scenarios/udp-echo/boundaries-are-kept")

    done = run(*words)

    assert done.returncode == 2
    assert f"pip install 'socklab[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_whole_lab_can_be_had_without_a_clone(run: Run, tmp_path: Path) -> None:
    """As Compose needs it: with the engine, which its conductor runs."""
    assert run("init", "--whole", "copy").returncode == 0

    done = run("play", "--no-runs", "scenarios/udp-echo", cwd=tmp_path / "copy")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "copy/socklab/templates/lab/docker-compose.yml").is_file()
    assert not (tmp_path / "copy/socklab/lab").exists()


def test_an_installed_init_makes_scripts_that_run(run: Run, tmp_path: Path) -> None:
    """A wheel keeps no modes of files."""
    done = run("init", "--for", "gradescope")

    assert done.returncode == 0, done.stderr
    (guide,) = re.findall(r"\S+/teachers\.md", done.stdout)
    assert Path(guide).is_file()
    assert (tmp_path / "run_autograder").stat().st_mode & 0o111


def test_the_exercises_of_the_course_come_with_it(run: Run, tmp_path: Path) -> None:
    assert run("init", "mine", "--lesson", "7").returncode == 0
    judged = ("check", "echo", "--only", "concurrency", "--no-runs", "--", "python3", "server.py", "{host}", "{port}")  # fmt: skip

    begun = run(*judged, cwd=tmp_path / "mine")
    solution = ROOT / "docs/solutions/07-a-process-for-each/server.py"
    (tmp_path / "mine/server.py").write_bytes(solution.read_bytes())
    done = run(*judged, cwd=tmp_path / "mine")

    assert (begun.returncode, done.returncode) == (1, 0), begun.stdout + done.stdout + done.stderr


def test_a_lesson_that_is_not_there_is_told(run: Run) -> None:
    done = run("init", "mine", "--lesson", "99")

    assert done.returncode == 2
    assert "there is no lesson 99; they are" in done.stderr
