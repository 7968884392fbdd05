"""Dependencies point one way. Read from the source, so that a wrong import is found before it runs."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PURE = (
    "causes",
    "contracts",
    "dialect",
    "errors",
    "guest",
    "places",
    "explain",
    "holdings",
    "proposals",
    "rubric",
    "report",
    "source",
    "grammar",
    "language",
    "texts",
    "endless",
    "steps",
    "reader",
    "scenario",
    "history",
    "matching",
    "judge",
    "verdict",
    "faults",
    "topology",
    "sockets",
    "tcp_states",
    "terminal",
    "words",
    "diagram",
    "page",
    "picture",
    "recorded",
    "inside.packets",
)
CROWD = (
    "commands",
    "churn",
    "echo",
    "fan_out",
    "first_lines",
    "senders",
    "receivers",
    "stream",
    "lines",
    "load",
    "members",
    "fields",
)
FACES = ("live", "web", "record", "shell", "cli", "pytest_plugin", "talk", "doctor", "standing", "__main__")


def imports(path: Path, at_once: bool = False) -> set[str]:
    """The modules that a file names in import statements; also inside functions, unless only those count that are imported `at_once`."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = "." * node.level + node.module
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def own(path: Path) -> set[str]:
    names = {name.removeprefix("socklab.") for name in imports(path) if name.startswith("socklab.")}
    return {"inside.packets" if name.startswith("inside.packets") else name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("services/*.py"), *ROOT.glob("clients/*.py")]), ids=lambda p: p.name
)
def test_servers_and_clients_need_nothing_but_python(path: Path) -> None:
    """Each is one complete program: no engine, no sibling, no library."""
    outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names

    assert outside == set()


@pytest.mark.parametrize("name", CROWD)
def test_a_part_of_a_crowd_needs_python_and_those_that_stand_below_it(name: str) -> None:
    """In the order of the drawing in its first file."""
    found = imports(ROOT / "clients" / "crowd" / f"{name}.py")
    outside = {each.split(".")[0] for each in found if not each.startswith(".")}
    parts = {each.split(".")[1] for each in found if each.startswith(".")}

    assert outside <= sys.stdlib_module_names
    assert parts <= set(CROWD[CROWD.index(name) + 1 :])
    assert name not in ("stream", "lines") or not outside & {"socket", "select", "time"}


def test_every_part_of_a_crowd_is_in_that_order() -> None:
    assert {path.stem for path in ROOT.glob("clients/crowd/*.py")} == {"__init__", *CROWD}


@pytest.mark.parametrize("name", PURE)
def test_the_pure_modules_touch_no_socket_process_or_clock(name: str) -> None:
    """What a file means, what matches and what the verdict is can be known without a lab."""
    path = ROOT / "socklab" / name.replace(".", "/")
    for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
        found = imports(file)
        assert (
            found & {"socket", "subprocess", "asyncio", "time", "random", "threading", "selectors"} == set()
        )
        assert own(file) <= set(PURE)


@pytest.mark.parametrize("path", sorted(ROOT.glob("socklab/inside/*.py")), ids=lambda p: p.name)
def test_what_runs_inside_a_node_needs_nothing_but_itself(path: Path) -> None:
    """It runs in containers that have only these files and Python."""
    foreign = {name for name in imports(path) if not name.startswith("socklab.inside")}

    assert {name.split(".")[0] for name in foreign} - sys.stdlib_module_names == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("socklab/backends/*.py")), ids=lambda p: p.name)
def test_backends_know_no_scenario_and_no_verdict(path: Path) -> None:
    assert own(path) <= {"backends", "places", "sockets"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("socklab/**/*.py")), ids=lambda p: p.name)
def test_nothing_imports_the_faces(path: Path) -> None:
    """Except that the command line calls talk and doctor."""
    if path.relative_to(ROOT / "socklab").parts[0].removesuffix(".py") in FACES:
        return

    assert own(path) & set(FACES) == set()


@pytest.mark.parametrize("name", ["load.py", "bench.py", "peers/__init__.py"])
def test_a_server_under_load_knows_no_scenario_and_no_verdict(name: str) -> None:
    found = own(ROOT / "socklab" / name)

    assert (
        found
        & {
            "scenario",
            "language",
            "reader",
            "steps",
            "matching",
            "judge",
            "verdict",
            "layout",
            "rig",
            "conductor",
            "player",
            "check",
        }
        == set()
    )
    assert name == "bench.py" or "bench" not in found


def test_no_module_needs_itself() -> None:
    """What is imported when a module is read, also by way of others, never leads back to it."""
    files = {
        path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("socklab/**/*.py")
    }
    modules = {
        name.removesuffix(".__init__"): path for path, name in files.items() if "templates" not in name
    }
    needs = {
        name: imports(path, at_once=True) & set(modules) - {"socklab", name} for name, path in modules.items()
    }

    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        pytest.fail(" → ".join(exc.args[1]))


def test_only_the_plugin_knows_pytest() -> None:
    assert [p.stem for p in ROOT.glob("socklab/**/*.py") if "pytest" in imports(p)] == ["pytest_plugin"]
