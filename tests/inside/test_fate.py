"""What becomes of packets on a link: as asked, again the same with the same key, and each fault beside the others."""

from __future__ import annotations

from typing import Any

import pytest

from socklab.inside.fate import RATE_QUEUE, REORDER_LIMIT, Fate, Link, chance, damaged
from socklab.inside.packets import checksum, parse
from tests.inside.written import segment, udp

MANY = 20_000


def fates(faults: dict[str, Any], packets: int = MANY, key: int = 7, apart: float = 0.001) -> list[Fate]:
    """The fates of so many equal packets, one each millisecond."""
    link = Link(key)
    link.put(faults)
    data = udp(b"hello")
    return [link.decide(number * apart, data, len(data)) for number in range(packets)]


def lost(faults: dict[str, Any], **more: Any) -> list[bool]:
    return [fate.due is None for fate in fates(faults, **more)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_about_as_many_are_lost_as_asked(share: float) -> None:
    """Within four standard deviations of a fair coin of that weight."""
    gone = sum(lost({"loss": {"is": share}}))

    assert abs(gone - share * MANY) < 4 * (share * (1 - share) * MANY) ** 0.5


def test_all_are_lost_at_a_hundred_percent() -> None:
    assert all(lost({"loss": {"is": 1.0}}, packets=1000))


def test_the_same_key_gives_the_same_fates() -> None:
    """And another one gives others."""
    assert lost({"loss": {"is": 0.5}}, key=1) == lost({"loss": {"is": 0.5}}, key=1)
    assert lost({"loss": {"is": 0.5}}, key=1) != lost({"loss": {"is": 0.5}}, key=2)


def test_another_fault_on_the_link_changes_no_fate_of_the_first() -> None:
    """Each fault has random numbers of its own."""
    both = {"loss": {"is": 0.3}, "delay": {"is": 0.1, "jitter": 0.05}, "duplicate": {"is": 0.5}}

    assert lost(both) == lost({"loss": {"is": 0.3}})


def test_chance_is_even() -> None:
    """Each tenth of the range gets a tenth of the numbers, within four standard deviations."""
    tenths = [0] * 10
    for number in range(MANY):
        tenths[int(chance(99, number, 1) * 10)] += 1

    assert all(abs(each - MANY / 10) < 4 * (MANY * 0.09) ** 0.5 for each in tenths)


@pytest.mark.parametrize("burst", [3, 10])
def test_losses_come_in_bursts(burst: int) -> None:
    """As many as asked in all, and on average as many in a row."""
    gone = lost({"loss": {"is": 0.1, "burst": burst}}, packets=4 * MANY)
    runs = [run for run in "".join("x" if each else " " for each in gone).split() if run]

    assert 0.07 < sum(gone) / len(gone) < 0.13
    assert 0.8 * burst < sum(map(len, runs)) / len(runs) < 1.2 * burst


def test_delay_holds_each_for_as_long() -> None:
    assert [fate.due for fate in fates({"delay": {"is": 0.1}}, packets=3)] == pytest.approx(
        [0.1, 0.101, 0.102]
    )


def test_jitter_keeps_the_order_unless_asked_otherwise() -> None:
    """It varies as far as asked and no further; with reordering some come before those ahead of them."""
    varied = {"is": 0.1, "jitter": 0.05}
    kept = [fate.due or 0 for fate in fates({"delay": varied})]
    free = [fate.due or 0 for fate in fates({"delay": {**varied, "reordering": True}})]

    assert kept == sorted(kept)
    assert free != sorted(free)
    waits = [due - number * 0.001 for number, due in enumerate(free)]
    assert 0.05 <= min(waits) < 0.06 < 0.14 < max(waits) <= 0.15


def test_a_slow_link_takes_packets_one_after_another() -> None:
    """33 bytes at 264 bits a second: one a second."""
    dues = [fate.due for fate in fates({"rate": {"is": 264.0}}, packets=4, apart=0)]

    assert dues == [1, 2, 3, 4]


def test_a_slow_link_loses_what_does_not_fit_into_its_queue() -> None:
    assert lost({"rate": {"is": 264.0, "queue": 3}}, packets=5, apart=0) == [False] * 3 + [True] * 2
    assert sum(lost({"rate": {"is": 264.0}}, packets=RATE_QUEUE + 5, apart=0)) == 5


def test_delay_comes_behind_the_rate() -> None:
    dues = [fate.due for fate in fates({"rate": {"is": 264.0}, "delay": {"is": 10}}, packets=2, apart=0)]

    assert dues == [11, 12]


def test_the_nth_that_fits_is_dropped_and_no_other() -> None:
    link = Link(1)
    link.put({"drop": ({"nth": 2, "match": b"#REG".hex()},)})
    packets = [b"#REG", b"hello", b"say #REG", b"#REG", b"#reg"]

    gone = [link.decide(0, udp(each), 100).due is None for each in packets]

    assert gone == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ({"flags": "SYN"}, {"SYN"}),
        ({"flags": "SYN-ACK"}, {"SYN-ACK"}),
        ({"flags": "FIN"}, {"FIN"}),
        ({"flags": "RST"}, {"RST"}),
        ({"flags": "ACK"}, {"ACK"}),
        ({"data": True}, {"data"}),
        ({"data": True, "nth": 2}, set()),
        ({}, {"SYN", "SYN-ACK", "ACK", "data", "FIN", "RST"}),
    ],
)
def test_segments_are_dropped_by_what_they_are(wanted: dict[str, Any], kinds: set[str]) -> None:
    link = Link(1)
    link.put({"drop": (wanted,)})
    segments = {
        "SYN": segment("S"),
        "SYN-ACK": segment("SA"),
        "ACK": segment("A"),
        "data": segment("PA", b"x"),
        "FIN": segment("FA"),
        "RST": segment("RA"),
    }

    assert {kind for kind, data in segments.items() if link.decide(0, data, 100).due is None} == kinds


def test_a_fault_may_begin_behind_a_packet() -> None:
    """Behind the nth that fits; that one itself passes."""
    link = Link(1)
    link.put({"cut": {"after": {"nth": 2, "match": b"go".hex()}}})

    gone = [link.decide(0, udp(each), 100).due is None for each in (b"go", b"x", b"go", b"x", b"go")]

    assert gone == [False, False, False, True, True]


def test_what_stays_goes_on_counting_when_another_fault_is_put() -> None:
    link = Link(1)
    drop = {"drop": ({"nth": 2},)}
    link.put(drop)
    link.decide(0, udp(b"1"), 100)
    link.put({**drop, "delay": {"is": 1}})

    assert link.decide(0, udp(b"2"), 100).due is None
    assert link.decide(0, udp(b"3"), 100).due == 1


def test_some_come_twice_and_some_are_overtaken() -> None:
    both = fates({"duplicate": {"is": 0.2}, "reorder": {"is": 0.1}})

    assert 0.18 < sum(fate.twice for fate in both) / MANY < 0.22
    assert 0.08 < sum(fate.swaps for fate in both) / MANY < 0.12
    assert REORDER_LIMIT > 0


@pytest.mark.parametrize("silently", [True, False])
def test_a_damaged_packet_differs_in_one_bit(silently: bool) -> None:
    """Silently: in what the program sent; else anywhere behind the IP header."""
    data = udp(b"hello")
    for fate in fates({"corrupt": {"is": 1.0, "silently": silently}}, packets=300):
        assert fate.bit is not None
        assert (28 if silently else 20) * 8 <= fate.bit < len(data) * 8
        assert sum((a ^ b).bit_count() for a, b in zip(data, damaged(data, fate.bit), strict=True)) == 1


def test_it_counts_what_it_did() -> None:
    link = Link(1)
    link.put({"loss": {"is": 1.0}})
    for _ in range(3):
        link.decide(0, udp(b""), 28)
    link.put({})

    assert link.counts.to_json() == {"seen": 3, "dropped": 3}
    assert parse(udp(b"x")) is not None
    assert (
        checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0x220D
    )  # RFC 1071, section 3: the complement of ddf2
