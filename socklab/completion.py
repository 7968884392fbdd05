"""What TAB completes: commands and options from the parser, services and scenarios from where one is.

argcomplete asks the program itself at each TAB, so that services of *this* folder's compose file can be offered; what is generated
once (shtab) cannot know them. It is imported only then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.shell_integration import shellcode

from socklab import BACKENDS, player, topology

PATHS, SERVICES = ("PATH",), ("SERVICE", "HOST:PORT | SERVICE", "SERVICE | HOST:PORT")


def code(shell: str) -> str:
    """What the shell has to run once."""
    return shellcode(["socklab"], shell=shell).strip()


def answer(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks, and end."""
    for action in _actions(parser):
        if action.metavar in PATHS:
            action.completer = paths  # type: ignore[attr-defined]
        elif action.metavar in SERVICES or action.dest == "service":
            action.completer = services  # type: ignore[attr-defined]
        elif action.dest == "on":
            action.completer = lambda **_: BACKENDS  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def services(parsed_args: Any = None, **_more: Any) -> list[str]:
    """The services of the compose file here, or of the one that socklab brings."""
    try:
        named = getattr(parsed_args, "compose", None)
        there = topology.read(named or topology.find_or_ours(Path.cwd())).services
    except topology.TopologyError:
        return []
    return [name for name, service in there.items() if service.command and service.contract]


def paths(prefix: str, **_more: Any) -> list[str]:
    """Folders and scenarios: those here, and where there are none, those of the library."""
    folder, _, _ = prefix.rpartition("/")
    here = Path(folder or ".")
    if not here.is_dir():
        from socklab import places

        here = places.in_library(here) or here
    try:
        entries = sorted(here.iterdir())
    except OSError:
        return []
    before = f"{folder}/" if folder else ("/" if prefix.startswith("/") else "")
    return [
        f"{before}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if not entry.name.startswith(".") and (entry.is_dir() or player.is_scenario(entry.absolute()))
    ]


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
