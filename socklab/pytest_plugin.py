"""pytest collects scenario files as tests.

It does nothing in projects that did not ask for it: switch it on with `socklab = true` in pytest's configuration or with
`--socklab` on the command line. Then every play of every scenario file is an item: `scenarios/chat/fan-out.yaml::chat`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from socklab import BACKENDS

if TYPE_CHECKING:
    import asyncio

    from socklab.backends import Backend
    from socklab.scenario import Scenario
    from socklab.topology import Topology
    from socklab.verdict import Result


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("socklab", "scenarios for socket servers")
    group.addoption(
        "--socklab",
        action="store_true",
        help="collect scenario files (*.yaml under scenarios/, *.scenario.yaml elsewhere)",
    )
    group.addoption(
        "--socklab-on",
        choices=BACKENDS,
        default="auto",
        help="the backend that plays them",
    )
    group.addoption(
        "--socklab-patience",
        type=float,
        default=1.0,
        metavar="X",
        help="stretch every limit, for slow machines",
    )
    group.addoption(
        "--socklab-compose",
        type=Path,
        metavar="FILE",
        help="the compose file (default: found beside the scenario or above it)",
    )
    group.addoption("--socklab-runs", type=Path, metavar="DIR", help="leave each run's history there")
    parser.addini("socklab", "collect scenario files as tests", type="bool", default=False)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    if not (parent.config.getoption("--socklab") or parent.config.getini("socklab")):
        return None
    from socklab import player

    return ScenarioFile.from_parent(parent, path=file_path) if player.is_scenario(file_path) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    stage = session.config.stash.get(_STAGE, None)
    if stage is not None:
        stage.close()


class ScenarioFile(pytest.File):
    """One file; its items are its plays, one for each service and each combination of its matrix."""

    def collect(self) -> Iterator[pytest.Item]:
        from socklab import player

        selection = player.select([self.path], self.config.getoption("--socklab-compose"))
        if selection.errors:
            raise self.CollectError("\n".join(selection.errors))
        for scenario, topology in selection.scenarios:
            yield ScenarioItem.from_parent(
                self, name=scenario.variant or scenario.service, scenario=scenario, topology=topology
            )


class ScenarioItem(pytest.Item):
    def __init__(self, *, scenario: Scenario, topology: Topology, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scenario = scenario
        self.topology = topology

    def runtest(self) -> None:
        from socklab.verdict import Verdict

        stage = self.config.stash.get(_STAGE, None)
        if stage is None:
            stage = self.config.stash[_STAGE] = _Stage(self.config)
        result = stage.play(self.scenario, self.topology)
        for note in result.notes:
            self.add_report_section("call", "socklab", note)
        if result.verdict is Verdict.SKIP:
            pytest.skip(result.reason)
        if result.verdict is not Verdict.PASS:
            raise _NotPassed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if not isinstance(excinfo.value, _NotPassed):
            return super().repr_failure(excinfo, style)
        from socklab import terminal

        result = excinfo.value.result
        if result.failure is None:
            return f"the lab broke, this says nothing of the server: {result.reason}"
        lines = terminal.failure_lines(result, self.config.rootpath)
        return "\n".join([*lines, *([f"history   socklab show {result.folder}"] if result.folder else [])])

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.scenario.title} [{self.name}]"


class _NotPassed(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__(result.reason)
        self.result = result


class _Stage:
    """The backend of a pytest session (of a worker, under xdist): started with the first play, closed with the session."""

    def __init__(self, config: pytest.Config) -> None:
        import asyncio

        from socklab import player
        from socklab.conductor import Options

        self._options = Options(
            patience=config.getoption("--socklab-patience"), runs=config.getoption("--socklab-runs")
        )
        self._runner: asyncio.Runner = asyncio.Runner()
        self._backend: Backend
        try:
            self._backend, _ = self._runner.run(player.choose(config.getoption("--socklab-on")))
        except BaseException:
            self._runner.close()
            raise

    def play(self, scenario: Scenario, topology: Topology) -> Result:
        from socklab import conductor

        return self._runner.run(conductor.play(scenario, topology, self._backend, self._options))

    def close(self) -> None:
        self._runner.run(self._backend.close())
        self._runner.close()


_STAGE: pytest.StashKey[_Stage] = pytest.StashKey()
