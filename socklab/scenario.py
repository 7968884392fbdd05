"""Scenarios: from a YAML file to its plays, and from a play back to a text that is played by hand.

source (what is written) ──▶ language (what may stand where) ──▶ reader (clients and steps) ──▶ a Scenario for each service and each
combination of the matrix. Nothing here knows sockets or backends.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from socklab.grammar import MapOf
from socklab.language import SCENARIO
from socklab.reader import Reader
from socklab.source import Map, Mark, Problem, ScenarioError, Seq, Source, Tree
from socklab.steps import Client, Step
from socklab.texts import substitute


@dataclass(frozen=True)
class Scenario:
    """One play: a file, one of its services, one combination of its matrix."""

    path: Path
    title: str
    about: str
    clauses: tuple[str, ...]
    only_ours: bool
    advice: bool
    """It asks for more than the contract, in a way that means something to any server."""
    fresh: bool
    """It needs a server that nobody used before."""
    service: str
    services: tuple[str, ...]
    clients: tuple[Client, ...]
    steps: tuple[Step, ...]
    values: tuple[tuple[str, str], ...] = ()
    several: bool = False
    """The file names more than one service."""
    unconnected: tuple[tuple[str, Mark, str], ...] = ()
    """Clients used without a connect: fine over UDP, an error over TCP, and which it is the compose file tells."""
    source: Source = field(repr=False, kw_only=True)

    def require_connections(self, datagrams: bool = False) -> None:
        """Raises ScenarioError at the first step of a client that never connects. With datagrams, only a crowd has to."""
        for name, mark, verb in self.unconnected:
            if datagrams and verb != "load":
                continue
            raise self.source.error(
                Problem(mark, f"{verb}: {name} is not connected; put `connect: {name}` before it")
            )

    @property
    def contract(self) -> str | None:
        return self.clauses[0].partition(".")[0] if self.clauses else None

    @property
    def variant(self) -> str:
        """What tells this play from the others of its file: `chat`, or `chat, size=10`; may be empty."""
        parts = [self.service] if self.several else []
        return ", ".join(parts + [f"{name}={value}" for name, value in self.values])

    @property
    def label(self) -> str:
        """The file's name without its ending, and the variant in brackets."""
        name = self.path.name
        for ending in (".scenario.yaml", ".scenario.yml", ".yaml", ".yml"):
            name = name.removesuffix(ending)
        return f"{name}[{self.variant}]" if self.variant else name

    def grown(self, step: str) -> Scenario:
        """This play with one step more at its end, given as lines of the file (`as_item`). Raises ScenarioError."""
        source = Source.parse(self.source.text + step, self.path)
        result = variant(source, self.service, dict(self.values))
        if len(result.steps) != len(self.steps) + 1:
            raise ScenarioError("one step at a time", self.path)
        return result

    def walk(self) -> Iterator[Step]:
        """Every step, also those inside others."""
        for step in self.steps:
            yield from step.walk()


def load(path: Path) -> list[Scenario]:
    """The plays of one file: one for each service and each combination of the matrix. Raises ScenarioError."""
    return plays(Source.read(path))


def plays(source: Source) -> list[Scenario]:
    """The plays of a source that has been read."""
    try:
        return [scenario for values in _matrix(source.tree) for scenario in _combined(source, values)]
    except Problem as problem:
        raise source.error(problem) from None


def _combined(source: Source, values: tuple[tuple[str, str], ...]) -> list[Scenario]:
    """Those with one combination of the matrix's values: one for each service. Raises Problem."""
    record = SCENARIO.parse(substitute(source.tree, dict(values)) if values else source.tree)
    reader = Reader(source, record, values)
    steps = reader.read()
    return [
        Scenario(
            path=source.path,
            title=str(record["title"]),
            about=str(record.get("about", "")),
            clauses=tuple(map(str, record.get("clauses", []))),
            only_ours="only" in record or reader.only_ours,
            advice=record.get("only") == "advice",
            fresh="needs" in record,
            service=str(service),
            services=tuple(str(name) for name in reader.further if name != service),
            clients=tuple(reader.clients.values()),
            steps=steps,
            values=values,
            several=len(reader.services) > 1,
            unconnected=tuple((name, mark, verb) for name, (mark, verb) in reader.unconnected.items()),
            source=source,
        )
        for service in reader.services
    ]


def variant(source: Source, service: str, values: Mapping[str, str]) -> Scenario:
    """The play of a source that is about this service, with these values of its matrix. Raises ScenarioError, and LookupError for none."""
    found = [s for s in plays(source) if s.service == service and dict(s.values) == dict(values)]
    return found[0]


def by_hand(service: str, clients: Sequence[str], services: Sequence[str] = ()) -> Scenario:
    """A scenario that begins, and to which a person adds a step at a time. Raises ScenarioError for names that cannot be."""
    head = {"title": f"{service} by hand", "service": service, "services": services, "clients": clients}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items() if value]
    return plays(_begun("\n".join(lines), Path("by-hand.yaml")))[0]


def taken_apart(scenario: Scenario) -> tuple[Scenario, list[str]]:
    """The same scenario at its beginning, as `by_hand` has it, and its steps as they stand in the file. Raises ScenarioError."""
    source = scenario.source
    assert isinstance(source.tree, Map)
    starts = [key.mark.line - 1 for key, _ in source.tree.items]
    steps = source.tree.get("steps")
    if (
        not isinstance(steps, Seq)
        or len(set(starts)) < len(starts)
        or len({s.mark.line for s in steps.items}) < len(steps.items)
    ):
        raise ScenarioError("has several keys or steps in one line, so it cannot be taken apart", source.path)
    begin = next(key.mark.line for key, _ in source.tree.items if key.text == "steps") - 1
    end = min((line for line in starts if line > begin), default=len(source.lines))
    borders = [*(step.mark.line - 1 for step in steps.items), end]
    texts = ["\n".join(source.lines[a:b]).rstrip() for a, b in itertools.pairwise(borders)]
    head = "\n".join([*source.lines[:begin], *source.lines[end:]])
    return variant(_begun(head, source.path), scenario.service, dict(scenario.values)), texts


def _begun(head: str, path: Path) -> Source:
    return Source.parse(f"{head}\nsteps:\n{as_item('note: by hand')}", path)


def as_item(step: str) -> str:
    """A step as a person types it, with or without its dash, as an item of `steps:`."""
    lines = textwrap.dedent(re.sub(r"^(\s*)-(?= )", r"\1 ", step.strip("\r\n"))).rstrip().splitlines() or [""]
    return (
        "\n".join(["  - " + lines[0], *("    " + line if line.strip() else "" for line in lines[1:])]) + "\n"
    )


def _matrix(tree: Tree) -> list[tuple[tuple[str, str], ...]]:
    """All combinations of the matrix's values; one empty combination where there is none."""
    matrix = tree.get("matrix") if isinstance(tree, Map) else None
    if matrix is None:
        return [()]
    parsed = cast(MapOf, SCENARIO.fields["matrix"].type).parse(matrix)
    combinations = 1
    for name, values in parsed.items():
        if name in ("n", "round"):
            raise Problem(name.mark, f'"{name}" counts by itself; choose another name')
        combinations *= len(values)
    if combinations > 1000:
        raise Problem(matrix.mark, f"{combinations} combinations; at most 1000")
    return [
        tuple(zip(map(str, parsed), map(str, values), strict=True))
        for values in itertools.product(*parsed.values())
    ]
