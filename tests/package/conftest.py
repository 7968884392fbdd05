"""What `pip install socklab` gives: a wheel made from the source distribution, in an environment with nothing else in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faces.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


def built(target: str, source: Path, out: Path) -> Path:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(argv, cwd=source, check=True, capture_output=True)
    (made,) = out.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of what the source distribution holds, so that this holds all."""
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    (project,) = source.iterdir()
    return built("wheel", project, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment that has socklab and what it depends on, and no more."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    argv = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "-q", str(wheel)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return home / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """run("play", …) gives what the installed `socklab play …` printed, in an empty folder far from the clone."""

    def run(
        *words: str, cwd: Path | None = None, input: str | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [installed / "socklab", *words],
            cwd=cwd or tmp_path,
            env={**environment, **more},
            input=input,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run
