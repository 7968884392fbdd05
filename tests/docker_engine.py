"""The Docker engine that tests may use: the `docker` command, and why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
IN_CONTAINERS = (
    *("Dockerfile", ".dockerignore", "docker-compose.yml", "docker-stack.yml"),
    *("services", "clients", "socklab", "scenarios"),
)
"""What of the project the lab in containers needs."""


def docker(*words: str, limit: float = 100, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=limit, check=check)


def need_engine() -> None:
    """Skip unless an engine with Compose answers and the base image is there."""
    try:
        docker("compose", "version")
        docker("version")
        docker("image", "inspect", IMAGE)
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        said = (getattr(exc, "stderr", "") or str(exc)).strip().splitlines()
        pytest.skip(f"no Docker engine with Compose and the base image: {said[-1] if said else exc}")


def copy_project(folder: Path) -> None:
    """What the lab in containers needs, in a folder of its own."""
    for name in IN_CONTAINERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
