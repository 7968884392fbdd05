"""The library in scenarios/: which scenario holds which clause, and that all of it passes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest

from socklab import judge, language, player, topology
from socklab.backends import Backend
from socklab.backends.netns import Netns
from socklab.backends.process import Process
from socklab.conductor import Options
from socklab.contracts import CONTRACTS
from socklab.scenario import Scenario, load
from socklab.verdict import Result, Verdict

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "scenarios").rglob("*.yaml"))

CLAUSES = """
echo.1      what-is-sent-comes-back one-byte-at-a-time a-megabyte-comes-back two-sends-may-arrive-as-one fifty-at-once two-thousand-at-once
            two-programs-of-one-computer a-socket-without-a-network a-partition-delays-a-stream
            a-closed-window a-cut-in-the-middle-of-a-transfer a-long-way a-lossy-stream-arrives-whole a-lost-acknowledgement-costs-nothing a-lost-segment-is-sent-again a-slow-link a-stream-has-an-order a-stream-has-no-doubles a-stream-outlives-a-partition damage-does-not-get-through losses-in-bursts
echo.2      half-close-gets-the-rest what-is-owed-goes-out-before-the-end a-socket-without-a-network
echo.3      two-thousand-at-once nothing-is-left-of-whoever-left rst-ends-one-connection-only rst-in-the-middle-of-a-transfer an-idle-connection-stays
echo.4      whoever-comes-and-goes a-thousand-connections rst-ends-one-connection-only
echo.5      the-second-client-waits the-second-client-is-served-at-once a-slow-reader-delays-nobody fifty-at-once
chat.1      a-line-may-come-in-pieces one-segment-may-hold-many-lines carriage-returns-and-empty-lines a-line-of-64-kib
            a-line-is-delivered-as-it-is the-half-typed-line-blocks-nobody
chat.2      a-crowd-hears-every-line a-line-keeps-its-blanks two-families-one-server two-segments-one-server everyone-hears-a-line everyone-speaks-at-once a-full-room two-clients-on-one-host a-line-is-delivered-as-it-is
chat.3      a-crowd-hears-every-line everyone-hears-a-line everyone-speaks-at-once long-lines-never-interleave
chat.4      nobody-has-to-speak nothing-from-before
chat.5      a-room-that-empties-keeps-nothing quit-leaves only-the-line-quit-is-quit what-comes-behind-quit-is-ignored fin-and-rst-leave-too
            the-last-line-needs-no-newline carriage-returns-and-empty-lines
            carriage-returns-and-empty-lines only-the-line-quit-is-quit
chat.6      some-misbehave-and-the-others-hear-every-line a-slow-consumer-delays-nobody a-cut-off-client-delays-nobody the-half-typed-line-blocks-nobody
            one-is-isolated-the-others-go-on a-slow-consumer-is-dropped a-half-open-peer-is-found-out
chat.7      bytes-pass-through an-endless-line-ends-its-sender
chat.8      some-misbehave-and-the-others-hear-every-line garbage-brings-nothing-down fin-and-rst-leave-too
udp-echo.1  a-datagram-comes-back boundaries-are-kept empty-and-huge-ones-too datagrams-wait-for-a-paused-server from-another-port
            a-fragment-is-lost jitter-and-order
registry.1  nobody-is-there-until-it-says-so twice-is-once a-stranger-may-leave white-space-around-is-ignored
            a-lost-answer a-lost-registration back-from-another-port doubled-datagrams
registry.2  a-crowd-is-registered nobody-is-there-until-it-says-so all-hear-it-the-sender-too a-strangers-words-go-nowhere a-stranger-is-told
            a-partition-loses-datagrams a-refused-member-costs-the-others-nothing two-camps
            a-lost-answer a-lost-registration back-from-another-port doubled-datagrams overtaken-datagrams
registry.3  only-the-exact-commands commands-are-not-delivered
registry.4  two-clients-on-one-host-are-two
registry.5  nothing-that-arrives-brings-it-down a-burst-is-survived a-refused-member-costs-the-others-nothing
registry.6  a-lease-runs-out a-cookie-against-forged-addresses
"""

# Why a scenario asks more than a stranger's server owes: a clause marked † in the contract, the server's log, its exit status,
# a restart on the same address (no clause promises it), how much it carries, or a line without the decoration that chat.2 allows.
ONLY_OURS = """
†           a-slow-consumer-is-dropped a-half-open-peer-is-found-out an-endless-line-ends-its-sender a-stranger-is-told
            a-lease-runs-out a-cookie-against-forged-addresses
log         three-clients-three-threads three-clients-three-processes one-thread-serves-them-all
            whoever-left-is-gone-from-the-list
exit        it-ends-when-it-is-asked-to daemon-threads-end-with-main other-threads-outlive-main handle-request-serves-one sigterm-ends-it-cleanly
restart     time-wait-and-the-port the-same-port-again-at-once after-a-restart-the-room-is-empty the-registry-is-empty-after-a-restart
decoration  a-line-is-delivered-as-it-is
load        some-misbehave-and-the-others-hear-every-line a-crowd-hears-every-line two-thousand-at-once a-crowd-is-registered
"""


def table(text: str) -> dict[str, set[str]]:
    """Clause, or reason → its scenarios, as one of the lists above says."""
    held: dict[str, set[str]] = {}
    head = ""
    for line in text.strip().splitlines():
        words = line.split()
        if not line[0].isspace():
            head, *words = words
        held.setdefault(head, set()).update(words)
    return held


@pytest.fixture(scope="module")
def library() -> dict[str, list[Scenario]]:
    """File name → its plays."""
    return {path.stem: load(path) for path in FILES}


def test_every_numbered_clause_has_its_scenario() -> None:
    numbered = {
        f"{contract.name}.{number}"
        for contract in CONTRACTS.values()
        for number in range(1, len(contract.clauses) + 1)
    }

    assert set(table(CLAUSES)) == numbered


def test_the_list_is_what_the_files_declare(library: dict[str, list[Scenario]]) -> None:
    declared: dict[str, set[str]] = defaultdict(set)
    for name, plays in library.items():
        for clause in plays[0].clauses:
            declared[clause].add(name)

    assert dict(declared) == table(CLAUSES)


def test_each_file_says_what_it_shows_and_why(library: dict[str, list[Scenario]]) -> None:
    assert [name for name, plays in library.items() if not plays[0].title or len(plays[0].about) < 40] == []


def test_file_names_are_told_once() -> None:
    assert len({path.stem for path in FILES}) == len(FILES) >= 40


def test_a_strangers_server_is_never_judged_by_its_log(library: dict[str, list[Scenario]]) -> None:
    """What reads a log or an exit status is for the project's own servers alone."""
    reads: dict[str, set[str]] = {"log": set(), "exit": set()}
    for name, plays in library.items():
        for step in plays[0].walk():
            for who, expectation in step.expects:
                if who == "server":
                    reads["log" if expectation.log else expectation.kind].add(name)

    assert reads["log"] | reads["exit"] <= {name for name, plays in library.items() if plays[0].only_ours}
    assert table(ONLY_OURS)["log"] <= reads["log"]
    assert table(ONLY_OURS)["exit"] <= reads["exit"]


def test_whatever_is_for_our_servers_alone_has_its_reason(library: dict[str, list[Scenario]]) -> None:
    reasons = table(ONLY_OURS)

    assert {name for name, plays in library.items() if plays[0].only_ours} == set().union(*reasons.values())
    assert sum(len(names) for names in reasons.values()) == len(set().union(*reasons.values()))


def test_every_service_of_the_compose_file_is_tried(library: dict[str, list[Scenario]]) -> None:
    services = topology.read(ROOT / "docker-compose.yml").services.values()
    servers = {service.name for service in services if service.contract}

    assert {play.service for plays in library.values() for play in plays} == servers


def test_every_verb_is_used_somewhere(library: dict[str, list[Scenario]]) -> None:
    used = {step.verb for plays in library.values() for step in plays[0].walk()}

    assert set(language.VERBS) - used == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "ipv6"),
    [(Netns, False), (Netns, True), (Process, False)],
    ids=["netns", "netns over IPv6", "process"],
)
def test_the_whole_library_passes(kind: type[Netns] | type[Process], ipv6: bool) -> None:
    """On each backend; what a backend cannot do is skipped by name, and on netns nothing is. Judged again from its history, each verdict is the same."""

    async def play() -> tuple[list[Result], str | None]:
        backend: Backend = kind()
        try:
            if reason := await kind.probe(backend):  # type: ignore[arg-type]
                return [], reason
            selection = player.select(FILES)
            assert selection.errors == []
            return [r async for r in player.play_all(selection.scenarios, backend, Options(ipv6=ipv6))], None
        finally:
            await backend.close()

    results, reason = asyncio.run(play())
    if reason:
        pytest.skip(reason)
    wrong = [f"{r.scenario.label}: {r.reason}" for r in results if r.verdict in (Verdict.FAIL, Verdict.ERROR)]
    assert wrong == []
    assert [r.scenario.label for r in results if judge.again(r.events)[0] is not r.verdict] == []
    skipped = {r.scenario.path.stem for r in results if r.verdict is Verdict.SKIP}
    needs_links = {
        r.scenario.path.stem
        for r in results
        if {s.verb for s in r.scenario.walk()} & set(language.LINK_VERBS)
        or any(client.networks for client in r.scenario.clients)
        or any(name == "wire" for step in r.scenario.walk() for name, _ in step.expects)
        or any(options.over for step in r.scenario.walk() for _, options in step.connects)
    }
    assert skipped == (set() if kind is Netns else needs_links)
