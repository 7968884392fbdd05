"""The Docker engine that tests may use: the `docker` command, and why there is none."""

from __future__ import annotations

import os
import subprocess

import pytest


def docker(*words: str, limit: float = 100, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=limit, check=check)


def need_engine() -> None:
    """Skip unless an engine with Compose answers and the base image is there."""
    try:
        docker("compose", "version")
        docker("version")
        docker("image", "inspect", os.environ.get("PYTHON_IMAGE", "python:3.13-slim"))
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        said = (getattr(exc, "stderr", "") or str(exc)).strip().splitlines()
        pytest.skip(f"no Docker engine with Compose and the base image: {said[-1] if said else exc}")
