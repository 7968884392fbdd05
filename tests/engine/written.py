"""Scenario files for these tests, as short as what they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from socklab.scenario import Scenario, plays
from socklab.source import ScenarioError, Source
from socklab.steps import Expectation

PATH = Path("lesson.yaml")


def scenario_file(*steps: str, **head: str) -> str:
    """A whole file: `title`, `service` and `clients` unless given, then what else is given, then the steps."""
    given = {"title": "A lesson", "service": "chat", "clients": "[alice, bob, carol]", **head}
    lines = [f"{key}: {value}" for key, value in given.items()]
    return "\n".join([*lines, "steps:", *(f"  {line}" for step in steps for line in step.splitlines()), ""])


def read(text: str) -> list[Scenario]:
    return plays(Source.parse(text, PATH))


def steps_of(*steps: str, **head: str) -> Scenario:
    """The one play of a file with these steps, after a connect of everyone."""
    (scenario,) = read(scenario_file("- connect: everyone", *steps, **head))
    return scenario


def expectation(written: str, values: str = "") -> Expectation:
    """What `expect: {alice: …}` means with this in place of the dots; `values` names captures made before."""
    caught = [f"- {{expect: {{bob: any}}, as: {name}}}" for name in values.split()]
    return steps_of(*caught, f"- expect: {{alice: {written}}}").steps[-1].expects[0][1]


def refusal(text: str) -> ScenarioError:
    """The error with which a file is refused."""
    with pytest.raises(ScenarioError) as caught:
        read(text)
    return caught.value


def refused_step(*steps: str, **head: str) -> ScenarioError:
    """The error for a file with these steps, after a connect of everyone."""
    return refusal(scenario_file("- connect: everyone", *steps, **head))


def marked(error: ScenarioError) -> str:
    """What stands above the caret of an error, to the end of the line."""
    _, shown, caret = str(error).split("\n")
    return shown[caret.index("^") :]
