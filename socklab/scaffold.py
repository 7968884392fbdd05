"""The beginning of a scenario (`new`) and of a whole lab (`init`), for somebody who makes their first one.

What `init` writes are the files of `templates/`, which say themselves what they are; `@port@` and the like in them are filled in, and
`dot-` at the start of a name stands for the dot (so that no tool takes a template for its own configuration).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from socklab import __version__, places
from socklab.contracts import CATEGORIES, CONTRACTS
from socklab.errors import UserError
from socklab.player import is_scenario
from socklab.saved import title_of
from socklab.topology import TopologyError, find, read

SERVER = "server"
"""The service of a lab that `init` makes."""
_STEPS = {
    "chat": """\
  - connect: everyone
  - send: {alice: hello}            # on a line service a newline is added
  - expect: {everyone: hello}       # up to 2s; write within: 5s for another limit
  - close: bob
  - send: {alice: "who is left?"}
  - expect: {alice: "who is left?"}
""",
    "echo": """\
  - connect: alice
  - send: {alice: "hello\\n"}
  - expect: {alice: {exactly: sent}}  # what came is what was sent, whole and once
  - half-close: alice               # FIN: no more to send
  - expect: {alice: eof}
""",
    "udp-echo": """\
  - send: {alice: hello}            # no connect: a datagram needs none
  - expect: {alice: {exactly: sent}}
""",
    "registry": """\
  - send: {everyone: "#REG"}
  - expect: {everyone: any}         # the answer, whatever it says
  - send: {alice: hello}
  - expect: {everyone: hello}
""",
}
_WHOLE = (
    "docker-compose.yml",
    "docker-stack.yml",
    "Dockerfile",
    ".dockerignore",
    "README.md",
    "scenario.schema.json",
    "clients",
    "docs",
    "scenarios",
    "services",
)
"""What stands beside the engine in a clone, for those who use the lab."""


class Refused(UserError):
    """It cannot be written; the message says why, and what would do."""


def write(path: Path, contract: str) -> Path:
    """Begin a scenario. Raises Refused."""
    if not path.name:
        raise Refused(f"{path}: is no file; name one, like scenarios/chat/my-idea.yaml")
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    if not is_scenario(path.absolute()):
        raise Refused(
            f"{path}: a scenario is a *.yaml under a folder called scenarios/, or a *.scenario.yaml; name it {path.with_suffix('')}.scenario.yaml"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", errors="replace") as file:  # a name need not be UTF-8
            file.write(_scenario(path, contract, _service(path, contract)))
    except FileExistsError:
        raise Refused(f"{path}: is there already; choose another name") from None
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror}") from None
    return path


def lab(folder: Path, contract: str) -> list[Path]:
    """Make a lab for one server of this contract; the files, as they are named in it. Raises Refused."""
    scenario = Path("scenarios", f"{contract}-begins.yaml")
    schema = Path(places.SCHEMA.name)
    files = _template("lab", contract)
    files |= {Path("server.py"): _filled(places.TEMPLATES / "servers" / f"{contract}.py", contract)}
    files |= {schema: _text(json.dumps(json.loads(places.SCHEMA.read_bytes()), separators=(",", ":")) + "\n")}
    files |= {scenario: _text(_scenario(folder / scenario, contract, SERVER, folder / schema))}
    return _lay(folder, files)


def platform(folder: Path, name: str, contract: str) -> list[Path]:
    """Lay out what a platform wants to grade by this contract. Raises Refused."""
    files = _template(name, contract)
    if name in ("github-classroom", "gradescope"):
        files |= {Path("rubric.yaml"): _filled(places.TEMPLATES / "rubric.yaml", contract)}
    return _lay(folder, files)


def lessons() -> dict[int, Path]:
    """The exercises of the course, by the number of their lesson."""
    return {int(path.name[:2]): path for path in sorted(places.EXERCISES.glob("[0-9][0-9]-*"))}


def exercise(folder: Path, lesson: int) -> list[Path]:
    """Lay out the program that is to be finished after a lesson. Raises Refused."""
    known = lessons()
    if lesson not in known:
        raise Refused(f"there is no lesson {lesson}; they are {min(known)} to {max(known)}")
    root = known[lesson]
    return _lay(
        folder, {path.relative_to(root): _copied(path) for path in root.rglob("*") if _is_source(path)}
    )


def whole(folder: Path) -> list[Path]:
    """Copy the lab that socklab brings, servers, clients, scenarios and engine, to be read and changed. Raises Refused."""
    packed = str(places.PACKAGE / "lab")

    def ignore(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or os.path.join(folder, name) == packed]

    copies = {Path(name): places.ROOT / name for name in _WHOLE} | {Path("socklab"): places.PACKAGE}

    def copied(source: Path) -> _Writer:
        if source.is_dir():
            return lambda target: shutil.copytree(source, target, ignore=ignore)
        return _copied(source)

    return _lay(folder, {name: copied(source) for name, source in copies.items()})


def _copied(source: Path) -> _Writer:
    return lambda target: shutil.copyfile(source, target)


def _is_source(path: Path) -> bool:
    return path.is_file() and path.parent.name != "__pycache__"


_Writer = Callable[[Path], object]


def _lay(folder: Path, files: dict[Path, _Writer]) -> list[Path]:
    """Write all of them or none: nothing that is there is overwritten."""
    there = [name for name in sorted(files) if (folder / name).exists()]
    if there:
        names = ", ".join(map(str, there[:3])) + (", …" if len(there) > 3 else "")
        raise Refused(f"{folder}: has {names} already, and nothing is overwritten; name another folder")
    try:
        for name, put in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            put(folder / name)
    except OSError as exc:
        raise Refused(f"{exc.filename or folder}: {exc.strerror or exc}") from None
    return sorted(files)


def _template(name: str, contract: str) -> dict[Path, _Writer]:
    root = places.TEMPLATES / name
    return {
        Path(*(part.replace("dot-", ".", 1) if part.startswith("dot-") else part for part in path.relative_to(root).parts)):
        _filled(path, contract)
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


def _filled(path: Path, contract: str) -> _Writer:
    """The text of a template, executable where the template is."""
    asked = CONTRACTS[contract]
    categories = {clause.category for clause in asked.clauses}
    text = path.read_text(encoding="utf-8")
    for key, value in {
        "contract": contract,
        "protocol": asked.protocol,
        "port": str(asked.port),
        "version": __version__,
        "categories": ", ".join(f"{name}: 10" for name in CATEGORIES if name in categories),
    }.items():
        text = text.replace(f"@{key}@", value)
    # A wheel's installer keeps no modes, so that a script is known by its first line.
    return _text(text, 0o777 if text.startswith("#!") else 0o666)


def _text(text: str, mode: int = 0o666) -> _Writer:
    def put(target: Path) -> None:
        with open(target, "x", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, mode)) as file:
            file.write(text)

    return put


def _service(path: Path, contract: str) -> str:
    """The first service of the lab around the file that keeps the contract, else our own that does."""
    try:
        services = list(read(find(path.absolute().parent)).services.values())
    except TopologyError:
        services = []  # whoever plays it is told
    mine = [service.name for service in services if service.contract == contract]
    model = CONTRACTS[contract].model
    return model if model in mine or not mine else mine[0]


def _scenario(path: Path, contract: str, service: str, schema: Path | None = None) -> str:
    title = title_of(path)
    clients = "[alice]" if contract in ("echo", "udp-echo") else "[alice, bob]"
    where = os.path.relpath(schema or _schema(path), path.absolute().parent)
    return f"""\
# yaml-language-server: $schema={where}
title: {title or "What it shows"}
about: >-
  Why it happens, for whoever reads this in a year.
clauses: [{contract}.1]   # what of the contract it holds; docs/contracts.md
service: {service}
clients: {clients}
steps:
{_STEPS[contract]}"""


def _schema(path: Path) -> Path:
    """The schema that stands in the lab around the file, else the one that socklab brings."""
    for folder in path.absolute().parents:
        if (folder / places.SCHEMA.name).is_file():
            return folder / places.SCHEMA.name
    return places.SCHEMA
