"""Scenarios that the lab has written: where one may be put, and putting it there."""

from __future__ import annotations

from pathlib import Path

from socklab import player
from socklab.errors import UserError
from socklab.scenario import Scenario, load
from socklab.source import MAX_FILE


class NotSaved(UserError):
    """It was not written; the message says why, and the way out."""


def may_be(path: Path) -> None:
    """Whether a new scenario may stand there. Raises NotSaved."""
    if not player.is_scenario(path.absolute()):
        raise NotSaved(
            f"{path}: a scenario is a *.yaml under a folder called scenarios/, or a *.scenario.yaml; name it so"
        )
    if path.exists():
        raise NotSaved(f"{path}: is there already; name another file")


def title_of(path: Path) -> str:
    """`what-nc-said.scenario.yaml` → `What nc said`."""
    return path.name.partition(".")[0].replace("-", " ").replace("_", " ").strip().capitalize()


def save(path: Path, text: str) -> Scenario:
    """Write it; the scenario as it is read again. Raises NotSaved, and ScenarioError for what we wrote wrongly."""
    may_be(path)
    if len(text.encode()) > MAX_FILE:
        size, most = len(text.encode()) >> 10, MAX_FILE >> 10
        raise NotSaved(
            f"{path}: this session would be {size} KiB of scenario, and one has {most} at most; record a shorter one"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise NotSaved(f"{path}: {exc.strerror}") from None
    return load(path)[0]
