"""What all nine files share: one block of lines, the standard library and nothing else, --help."""

import ast
import subprocess
import sys

import pytest
from real_server import LIMIT_S, SERVICES

NAMES = sorted(path.stem for path in SERVICES.glob("*.py"))


def test_the_common_block_is_the_same_in_all_nine():
    """A reader who has understood it once can skip it eight times."""
    blocks = []
    for name in NAMES:
        text = (SERVICES / f"{name}.py").read_text()
        assert text.count("# --- common: start\n") == text.count("# --- common: end\n") == 1, name
        blocks.append(text.partition("# --- common: start\n")[2].partition("# --- common: end\n")[0])
    assert len(blocks) == 9
    assert set(blocks) == {blocks[0]}


@pytest.mark.parametrize("name", NAMES)
def test_only_the_standard_library_is_imported(name):
    """A student copies one file and runs it."""
    imported = set()
    for node in ast.walk(ast.parse((SERVICES / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            imported.add(node.module.partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_what_it_is_and_its_options(name):
    """--help shows the first sentence of the file, and where it listens."""
    result = subprocess.run(
        [sys.executable, SERVICES / f"{name}.py", "--help"], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert "server" in result.stdout or "registry" in result.stdout
    assert "--host" in result.stdout
    assert "--port" in result.stdout
