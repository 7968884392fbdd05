"""What a failure tells its reader: the limit that the scenario names, the values that were meant, the scenario's own doing."""

from __future__ import annotations

from socklab.conductor import Options
from socklab.verdict import Failure
from tests.conductor.lab import play


def failure(steps: str, service: str = "threaded", options: Options | None = None) -> Failure:
    result = play(steps, service, "[alice, bob, carol, dave]", options)
    assert result.failure is not None, result.reason
    return result.failure


def test_a_limit_is_told_as_the_scenario_says_it_and_as_it_was_waited_for() -> None:
    """check is impatient at first, --patience stretches every limit: the reader looks for the number in the file."""
    steps = "  - connect: alice\n  - expect: {alice: never}\n    within: 500ms\n"

    assert failure(steps).expected == 'alice: "never", within 0.5s'
    hurried, patient = Options(longest=0.1), Options(patience=2.0)
    assert failure(steps, options=hurried).expected == 'alice: "never", within 0.5s (waited 0.1s)'
    assert failure(steps, options=patient).expected == 'alice: "never", within 0.5s (waited 1s)'


def test_what_was_expected_is_told_with_its_values_and_in_which_round_it_failed() -> None:
    told = failure(
        "  - connect: alice\n  - send: {alice: token-7}\n  - expect: {alice: '/token-(.)/'}\n    as: number\n"
        "  - repeat:\n      times: 2\n      steps:\n"
        "        - expect: {alice: {any_order: ['{number} in {round}', '/round-{round}/']}}\n          within: 100ms\n"
    )

    assert told.expected == 'alice: "7 in 1", /round-1/ in any order, within 0.1s'
    assert told.step.endswith("(in round 1 of 2)")


def test_a_text_that_runs_through_numbers_keeps_its_n() -> None:
    told = failure(
        "  - connect: alice\n  - repeat:\n      times: 1\n      steps:\n"
        "        - expect: {alice: {in_order: 'a{round}-{n}', count: 3}}\n          within: 100ms\n"
    )

    assert told.expected == 'alice: "a1-{n}" for n = 1…3, in order, within 0.1s'


def test_a_server_that_the_scenario_has_paused_is_not_said_to_wait_for_anybody() -> None:
    told = failure(
        "  - connect: [alice, bob]\n  - pause: server\n  - send: {alice: hello}\n"
        "  - expect: {alice: hello}\n    within: 100ms\n"
    )

    assert told.cause.startswith("the server is paused")


def test_a_server_that_the_scenario_has_ended_is_not_said_to_be_slow() -> None:
    told = failure("  - connect: alice\n  - kill: server\n  - connect: bob\n")

    assert told.cause.startswith("the server does not run: the scenario has ended it")


def test_a_full_accept_queue_is_told_with_its_size() -> None:
    """A SYN that finds it full is dropped, and to its client the network is silent."""
    told = failure("  - connect: [alice, bob, carol]\n  - connect: dave\n", service="echo-backlog")

    assert told.expected == "dave: a connection to server, within 2s"
    assert told.cause.startswith(
        "the accept queue of the server is full: 2 connections wait for accept(), the backlog of listen() is 1"
    )
