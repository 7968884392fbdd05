"""The states of TCP, from segments: what an end sends and what comes to it say in which state it is (RFC 9293, figures 5 and 12 ff.)."""

from __future__ import annotations

from socklab.tcp_states import TCP

OPENED = {True: ["SYN_SENT", "ESTABLISHED"], False: ["SYN_RECV", "ESTABLISHED"]}


class Wire:
    """A connection whose client begins at 100, its server at 500; a segment a millisecond, each arrives at once unless it is lost."""

    def __init__(self) -> None:
        self.tcp = TCP(0, 100)
        self.now = 0

    def segment(self, end: bool, words: str = "", seq: int = 0, ack: int = 0, *, lost: bool = False) -> Wire:
        self.now += 1
        self.tcp.sent(end, self.now, words.split(), seq, ack, 0)
        if not lost:
            self.tcp.came(end, self.now, words.split(), ack)
        return self

    def opened(self) -> Wire:
        return self.segment(False, "SYN-ACK", 500, 101).segment(True, "", 101, 501)

    def states(self) -> dict[bool, list[str]]:
        return {end: [state for _, state in self.tcp.states(end)] for end in (True, False)}


def after(wire: Wire) -> dict[bool, list[str]]:
    """The states that follow ESTABLISHED."""
    found = wire.states()
    assert {end: states[:2] for end, states in found.items()} == OPENED
    return {end: states[2:] for end, states in found.items()}


def test_who_closes_first_waits_and_the_other_is_gone() -> None:
    wire = Wire().opened().segment(True, "FIN", 101, 501).segment(False, "", 501, 102)
    assert after(wire) == {True: ["FIN_WAIT1", "FIN_WAIT2"], False: ["CLOSE_WAIT"]}

    wire.segment(False, "FIN", 501, 102).segment(True, "", 102, 502)
    assert after(wire) == {
        True: ["FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"],
        False: ["CLOSE_WAIT", "LAST_ACK", "gone"],
    }


def test_both_may_close_at_once() -> None:
    wire = Wire().opened()
    wire.segment(True, "FIN", 101, 501, lost=True).segment(False, "FIN", 501, 101, lost=True)
    wire.segment(True, "", 102, 502, lost=True).segment(False, "", 502, 102)

    assert after(wire)[True] == ["FIN_WAIT1", "CLOSING", "TIME_WAIT"]


def test_what_is_lost_changes_nothing_at_its_end() -> None:
    wire = Wire().opened().segment(True, "FIN", 101, 501, lost=True)
    assert after(wire) == {True: ["FIN_WAIT1"], False: []}
    wire.segment(True, "FIN retransmission", 101, 501)
    assert after(wire) == {True: ["FIN_WAIT1"], False: []}, "until the server acknowledges it"


def test_an_opening_that_is_not_answered_goes_on() -> None:
    assert Wire().segment(True, "SYN retransmission", 100).states() == {True: ["SYN_SENT"], False: []}
    lost = Wire().segment(False, "SYN-ACK", 500, 101, lost=True)
    assert lost.states() == {True: ["SYN_SENT"], False: ["SYN_RECV"]}


def test_rst_ends_both_and_a_closed_port_has_no_socket() -> None:
    assert after(Wire().opened().segment(True, "RST", 101)) == {True: ["gone"], False: ["gone"]}
    assert Wire().segment(False, "RST", 0, 101).states() == {True: ["SYN_SENT", "gone"], False: []}


def test_the_kernels_word_may_come_before_that_of_earlier_segments() -> None:
    wire = Wire().opened()
    wire.tcp.told(True, 9, "FIN_WAIT2")
    wire.tcp.told(False, 9, "gone")
    wire.segment(True, "FIN", 101, 501).segment(False, "", 501, 102)
    wire.tcp.told(True, 10, "ESTABLISHED")  # read before, told late

    assert wire.tcp.states(True)[2:] == [(3, "FIN_WAIT1"), (4, "FIN_WAIT2")]
    assert wire.tcp.states(False)[2:] == [(4, "CLOSE_WAIT"), (9, "gone")]


def test_sequence_numbers_wrap() -> None:
    wire = Wire().opened().segment(True, "FIN", (1 << 32) - 1, 501).segment(False, "", 501, 0)

    assert after(wire)[True] == ["FIN_WAIT1", "FIN_WAIT2"]
