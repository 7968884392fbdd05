"""Play the library, from a wheel and out of an empty folder, on every supported Python that this machine has, and say which were missing.

A version is declared in pyproject.toml only where it has been run, so this reads the list from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def supported() -> list[str]:
    """The versions that pyproject.toml declares: ["3.11", …]."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [found[1] for text in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", text))]


def interpreter(version: str) -> Path | None:
    """A Python of this version: on the PATH, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        answer = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        if answer.stdout.strip() == version:
            return Path(candidate)
    return None


def play(version: str, python: Path) -> int:
    """The exit code of `socklab play` in an environment of its own."""
    home = ROOT / f".venv-{version}"
    if not (home / "bin/python").exists():
        subprocess.run([python, "-m", "venv", home], check=True)
    subprocess.run(
        [home / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade", ROOT],
        check=True,
    )
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run([home / "bin/socklab", "play", "--quiet", "--no-runs"], cwd=empty).returncode


def main() -> int:
    worst = 0
    for version in supported():
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: not on this machine, not played")
            continue
        print(f"Python {version} ({python}):", flush=True)
        worst = max(worst, play(version, python))
    return worst


if __name__ == "__main__":
    sys.exit(main())
