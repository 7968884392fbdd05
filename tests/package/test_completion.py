"""TAB, in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faces.conftest import ROOT

BIN = Path(sys.executable).parent


def tab(line: str, where: Path) -> list[str]:
    """What bash offers when TAB is pressed at the end of this line."""
    program = f"""
eval "$(socklab completion bash)"
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"; [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p socklab | sed 's/.*-F \\([^ ]*\\).*/\\1/') socklab "${{COMP_WORDS[COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", program], cwd=where, env=environment, capture_output=True, text=True, timeout=60
    )
    assert not done.stderr, done.stderr
    return [word.rstrip() for word in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("socklab che", "check"),
        ("socklab check ", "udp-echo"),
        ("socklab play --on n", "netns"),
        ("socklab play --exp", "--explain"),
        ("socklab talk mych", "mychat"),
        ("socklab up mych", "mychat"),
        ("socklab play --service mych", "mychat"),
        ("socklab play mine.", "mine.scenario.yaml"),
        ("socklab play scenarios/ec", "scenarios/echo/"),
        ("socklab play scenarios/chat/a-full", "scenarios/chat/a-full-room.yaml"),
        ("socklab init --for grade", "gradescope"),
    ],
)
def test_bash_completes(line: str, offered: str, tmp_path: Path) -> None:
    """Services and scenarios are those of the folder, and the library's where it has none."""
    (tmp_path / "docker-compose.yml").write_text(
        "services: {mychat: {command: ./mychat --port 6000, labels: {socklab.contract: chat}}}\n"
    )
    (tmp_path / "mine.scenario.yaml").write_text("")

    assert offered in tab(line, tmp_path)


def test_nothing_but_scenarios_and_folders_is_offered_to_play(tmp_path: Path) -> None:
    for name in ("a.scenario.yaml", "notes.txt", "docker-compose.yml"):
        (tmp_path / name).write_text("")
    (tmp_path / "more").mkdir()

    assert sorted(tab("socklab play ", tmp_path)) == ["a.scenario.yaml", "more/"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_code(shell: str) -> None:
    done = subprocess.run([BIN / "socklab", "completion", shell], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0
    assert "socklab" in done.stdout
