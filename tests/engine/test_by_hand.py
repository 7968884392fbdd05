"""A scenario taken apart, to be played a step at a time, is the same scenario."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from socklab import player
from socklab.scenario import Scenario, as_item, plays, taken_apart
from socklab.source import ScenarioError, Source
from socklab.steps import Step

ROOT = Path(__file__).resolve().parents[2]


def meant(steps: Iterable[Step]) -> list[Step]:
    """Steps without where and how they were written."""
    return [
        replace(step, line=0, text="", steps=tuple(meant(step.steps)), during=tuple(meant(step.during)))
        for step in steps
    ]


@pytest.mark.parametrize("scenario", player.scenarios([ROOT / "scenarios"]), ids=lambda s: s.label)
def test_every_scenario_can_be_played_by_hand(scenario: Scenario) -> None:
    begun, rest = taken_apart(scenario)
    for text in rest:
        begun = begun.grown(as_item(text))

    assert meant(begun.steps[1:]) == meant(scenario.steps)
    assert (begun.clients, begun.services, begun.values) == (
        scenario.clients,
        scenario.services,
        scenario.values,
    )


def test_keys_behind_the_steps_stay() -> None:
    text = "title: t\nservice: chat\nsteps:\n- connect: alice\n# a remark\n- send:\n    alice: hi\nclients: [alice]\n"
    (scenario,) = plays(Source.parse(text, Path("t.scenario.yaml")))
    begun, rest = taken_apart(scenario)

    assert rest == ["- connect: alice\n# a remark", "- send:\n    alice: hi"]
    assert [c.name for c in begun.grown(as_item(rest[0])).grown(as_item(rest[1])).clients] == ["alice"]


def test_a_scenario_in_one_line_is_said_to_be_one() -> None:
    text = "{title: t, service: chat, clients: [alice], steps: [connect: alice]}"
    (scenario,) = plays(Source.parse(text, Path("t.scenario.yaml")))

    with pytest.raises(ScenarioError, match="cannot be taken apart"):
        taken_apart(scenario)


@pytest.mark.parametrize(
    "typed",
    [
        "connect: alice",
        "- connect: alice",
        "  - connect: alice\n",
        "connect:\n  alice",
        "- connect:\n    alice",
    ],
)
def test_a_step_is_taken_as_it_is_typed_or_copied(typed: str) -> None:
    (scenario,) = plays(
        Source.parse("title: t\nservice: chat\nclients: [alice]\nsteps:\n  - note: x\n", Path("t.yaml"))
    )

    assert scenario.grown(as_item(typed)).steps[-1].connects[0][0] == "alice"
