"""Rubrics: how submissions are started, what counts how much, and which further scenarios there are. A YAML file, read with the line
of everything in it. Pure but for reading files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from socklab.contracts import CATEGORIES
from socklab.dialect import DIALECT, PLAIN, Dialect
from socklab.dialect import put as put_dialect
from socklab.grammar import Field, Fields, ListOf, MapOf, Number, Shapes, Text, Word, choice
from socklab.report import Item, Report
from socklab.source import Problem, Source, nearest

POINTS = Number(0, 100_000, "points")
_PATHS = Shapes("a path or a list of paths", scalar=Text(), seq=ListOf(Text()))

RUBRIC = Fields(
    {
        "start": Field(Text(), "the command that starts a submission, with {host}, {port}, and {file} for one of a single file"),
        "build": Field(Text(), "a command that is run first, once for each submission"),
        "port": Field(Number(1, 65535, "a port"), "where submissions listen that are not told one"),
        "points": Field(
            MapOf(choice(*CATEGORIES), POINTS, "categories with points"),
            "category → points, shared equally by its scenarios; without it each scenario is worth one",
        ),
        "scenarios": Field(
            MapOf(Word(r"[\w.-]+", "a scenario's name"), POINTS, "scenarios with points"),
            "scenario → points, whatever its category says; 0: it is not played",
        ),
        "advice": Field(POINTS, "what each scenario that is only advice is worth (default: nothing)"),
        "public": Field(_PATHS, "further scenarios, files or folders beside the rubric"),
        "hidden": Field(_PATHS, "the same, of which a submission's report tells only whether they passed"),
        "dialect": Field(DIALECT, "how all submissions deviate from the contract's words"),
    },
    "a rubric",
)  # fmt: skip


@dataclass(frozen=True)
class Rubric:
    start: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    port: int | None = None
    points: dict[str, int] = field(default_factory=dict)
    scenarios: dict[str, int] = field(default_factory=dict)
    advice: int = 0
    public: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    dialect: Dialect = PLAIN
    text: str = ""

    def weighed(self, report: Report) -> Report:
        """The report with the points that this rubric gives."""
        items = [item for item in report.items if self.scenarios.get(item.name) != 0]
        shared = {
            category: [i for i in items if i.category == category and self._counts(i)]
            for category in self.points
        }
        return replace(report, items=[self._weighed(item, shared) for item in items])

    def _counts(self, item: Item) -> bool:
        """Whether it has a share of its category's points."""
        return item.name not in self.scenarios and (not item.advice or bool(self.advice))

    def _weighed(self, item: Item, shared: dict[str, list[Item]]) -> Item:
        if item.name in self.scenarios:
            return replace(item, worth=float(self.scenarios[item.name]), advice=False)
        if item.advice:
            return replace(item, worth=float(self.advice), advice=not self.advice)
        if self.points:
            several = shared.get(item.category, ())
            return replace(item, worth=self.points[item.category] / len(several) if several else 0.0)
        return item


def read(path: Path) -> Rubric:
    """Raises ScenarioError with file and line."""
    source = Source.read(path)
    try:
        record = RUBRIC.parse(source.tree)
        for name in ("public", "hidden"):
            value = record.get(name, [])
            for each in value if isinstance(value, list) else [value]:
                if not (path.parent / each).exists():
                    raise Problem(each.mark, f"{path.parent / each}: no such file or folder")
        dialect = put_dialect(PLAIN, record["dialect"]) if "dialect" in record else PLAIN
        for name in ("start", "build"):
            if name in record:
                _split(record[name])
    except Problem as problem:
        raise source.error(problem) from None
    beside = {
        name: tuple(path.parent / str(each) for each in _listed(record.get(name, ())))
        for name in ("public", "hidden")
    }
    return Rubric(
        start=tuple(_split(record["start"])) if "start" in record else (),
        build=tuple(_split(record["build"])) if "build" in record else (),
        port=record.get("port"),
        points={str(k): v for k, v in record.get("points", {}).items()},
        scenarios={str(k): v for k, v in record.get("scenarios", {}).items()},
        advice=record.get("advice", 0),
        public=beside["public"],
        hidden=beside["hidden"],
        dialect=dialect,
        text=source.text,
    )


def check_names(path: Path, known: Sequence[str]) -> None:
    """Whether there are the scenarios that it gives points for. Raises ScenarioError."""
    source = Source.read(path)
    record = RUBRIC.parse(source.tree)
    for name in record.get("scenarios", {}):
        if name not in known:
            raise source.error(Problem(name.mark, f'no scenario "{name}" is played.{nearest(name, known)}'))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as exc:
        mark = getattr(text, "mark", None)
        assert mark is not None
        raise Problem(mark, f"cannot be split into words: {exc}") from None


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]
