"""Where the lab's own files are: `services/`, `clients/`, `scenarios/`, `docker-compose.yml`, `Dockerfile`, the schema.

In a clone (and an editable install) they stand beside the package; a wheel carries them inside it, as `socklab/lab/`
(pyproject.toml says which). Nothing else knows of the difference.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_PACKED = PACKAGE / "lab"
PACKED = _PACKED.is_dir()
"""Whether this is a wheel that has been installed."""
ROOT = _PACKED if PACKED else PACKAGE.parent

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
LIBRARY = ROOT / "scenarios"
SERVICES = ROOT / "services"
CLIENTS = ROOT / "clients"
AGENT = CLIENTS / "agent.py"
SCHEMA = ROOT / "scenario.schema.json"
TEACHERS = ROOT / "docs" / "teachers.md"
EXERCISES = ROOT / "docs" / "exercises"
TEMPLATES = PACKAGE / "templates"


def in_library(path: Path) -> Path | None:
    """What a path like `scenarios/chat` means to somebody who is not in a clone: the library's own, where it has that."""
    if path.parts[:1] != (LIBRARY.name,) or ".." in path.parts:
        return None
    return next((p for p in (ROOT / path, ROOT / f"{path}.yaml") if p.exists()), None)


def shown(path: Path, root: Path | None = None) -> Path:
    """The path as a user would type it from `root` (default: here): relative where it lies below, `scenarios/…` of the library
    that came with the package."""
    resolved = path.resolve()
    for base in (root or Path.cwd()).resolve(), *([ROOT] if PACKED else []):
        if resolved.is_relative_to(base):
            return resolved.relative_to(base)
    return path


def image_parts() -> list[tuple[Path, str]]:
    """What the image of the nodes is built of, and where in the build's context the Dockerfile looks for it."""
    package = [PACKAGE / "__init__.py", PACKAGE / "backends" / "node.py", *(PACKAGE / "inside").glob("*.py")]
    parts = [(DOCKERFILE, DOCKERFILE.name)]
    parts += [(path, f"clients/{path.relative_to(CLIENTS)}") for path in CLIENTS.rglob("*.py")]
    parts += [(path, f"socklab/{path.relative_to(PACKAGE)}") for path in package]
    return sorted(parts, key=lambda part: part[1])


def lay_out(parts: list[tuple[Path, str]], folder: Path) -> None:
    """Copy files to their places below a folder. Raises OSError."""
    for path, name in parts:
        target = folder / name
        os.makedirs(target.parent, exist_ok=True)
        shutil.copyfile(path, target)
