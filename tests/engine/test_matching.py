"""What came against what was expected: every kind of expectation, in every framing, however the bytes were cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socklab.dialect import Dialect
from socklab.history import Event, to_wire
from socklab.matching import DATAGRAM, LINE, STREAM, Inbox, State, Watch, difference, shown
from tests.engine.written import expectation, steps_of

MET, FAILED, WAITING = State.MET, State.FAILED, State.WAITING
TOO_MUCH = "met, and then too much came"
Events = list[Event]


def received(data: bytes, t: int = 1) -> Event:
    return Event(t, "received", "alice", dict(to_wire(data)))


def sent(*chunks: bytes) -> Event:
    return Event(0, "sent", "alice", {"chunks": [to_wire(chunk) for chunk in chunks]})


def event(kind: str, t: int = 1, **data: Any) -> Event:
    return Event(t, kind, "alice", data)


CONNECTED, EOF, RESET = event("connected", 0), event("eof", 2), event("reset", 2)
CLOSED_BY_ERROR = event("error", 2, error="timed out", closed=True)
REFUSED = event("error", 2, error="refused")


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut_by(seed: int) -> Callable[[bytes], list[bytes]]:
    """Random cuts, the same ones each time."""

    def random_cuts(data: bytes) -> list[bytes]:
        dice = random.Random(seed)
        places = sorted({0, len(data), *(dice.randrange(len(data) + 1) for _ in range(dice.randrange(9)))})
        return [data[a:b] for a, b in pairwise(places)]

    return random_cuts


CUTS = [whole, byte_by_byte, *(cut_by(seed) for seed in range(5))]


def outcome(inbox: Inbox, watch: Watch, events: Iterable[Event], *, eager: bool = True) -> State | str:
    """What becomes of a watch while events come. Eager: it is asked after each of them, else at the end only."""
    for each in events:
        inbox.feed(each)
        if eager:
            watch.advance()
    state = watch.advance()
    return TOO_MUCH if state is MET and watch.violated() else state


def judged(
    written: str, framing: str, events: Sequence[Event], *, before: Sequence[Event] = (), eager: bool = True
) -> State | str:
    """What becomes of an expectation, as it is written in a scenario, while events come."""
    inbox = Inbox(framing)
    for each in (CONNECTED, *before):
        inbox.feed(each)
    return outcome(inbox, Watch(expectation(written), inbox, {}), events, eager=eager)


# ── every kind, in every framing, in every cut ────────────────────────────────────────────────────────────────────────

LINES = [
    ("hello", b"hello\n", MET),
    ("hello", b"", WAITING),
    ("hello", b"hell", WAITING),
    ("hello", b"hello", WAITING),
    ("hello", b"welcome!\n<alice> hello (12:30)\nbye\n", MET),
    ("a1", b"a10\nba1\na1b\n", WAITING),
    ("a1", b"a10\n[a1]\n", MET),
    ("a1", "äa1 a1ä\n".encode(), WAITING),
    ("hello", b"hello\r\n", MET),
    ("hello", b"\xff\xfehello\x80\n", MET),
    ('"  two  words "', b"  two  words \n", MET),
    ("日本", "<alice> 日本!\n".encode(), MET),
    ("{is: hello}", b"<alice> hello\n", WAITING),
    ("{is: hello}", b"<alice> hello\nhello\r\n", MET),
    ('{is: ""}', b"\n", MET),
    ("{text: eof}", b"eof\n", MET),
    ("{text: hello, count: 2}", b"hello\nhello\n", MET),
    ("{text: hello, count: 3}", b"hello\nhello\n", WAITING),
    ("{text: hello, once: true}", b"hello\nbye\n", MET),
    ("{text: hello, once: true}", b"hello\nbye\nhello\n", TOO_MUCH),
    ("{text: hello, count: 2, once: true}", b"hello\nhello\nhello\n", TOO_MUCH),
    ("/h(.)llo/", b"say hallo\n", MET),
    ("/^h.llo$/", b"say hello\n", WAITING),
    ('"/^é+$/"', "éé\n".encode(), MET),
    ('{bytes: "\\xff\\x00"}', b"a\xff\x00b\n", MET),
    ("{hex: ff 00}", b"a\xffb\x00\n", WAITING),
    ("{base64: aGk=}", b"oh hi there\n", MET),
    ("any", b"\n", MET),
    ("{any: true, count: 3}", b"a\nb\nc\n", MET),
    ("{any: true, once: true}", b"a\nb\n", TOO_MUCH),
    ("[a, b]", b"a\nx\nb\n", MET),
    ("[a, b]", b"b\na\n", WAITING),
    ("[a, b, a]", b"a\nb\na\n", MET),
    ("{in_order: [a, b], once: true}", b"b\na\nb\n", FAILED),
    ("{in_order: [a, b], once: true}", b"a\na\nb\n", FAILED),
    ("{in_order: [a, b], once: true}", b"a\nb\nx\n", MET),
    ("{in_order: [a, b], once: true}", b"a\nb\na\n", TOO_MUCH),
    ('{in_order: "a{n}", count: 3}', b"a1\na2\nb1\na3\n", MET),
    ('{in_order: "a{n}", count: 3}', b"a1\na3\na2\n", WAITING),
    ('{in_order: "a{n}", count: 3, once: true}', b"a1\na3\na2\n", FAILED),
    ('{in_order: "a{n}", count: 3, once: true}', b"a1\na2\na2\na3\n", FAILED),
    ('{in_order: "a{n}", count: 3, once: true}', b"a1\na2\na3\na4\na10\n", MET),
    ('{in_order: "a{n}", count: 3, once: true}', b"a1\na2\na3\na2\n", TOO_MUCH),
    ('{in_order: "{n}", count: 3, once: true}', b"[12:30:02] 1\n[12:30:03] 2\n[12:30:04] 3\n", MET),
    ('{in_order: "{n}-{n}", count: 2}', b"1-1\n1-2\n2-2\n", MET),
    ('{in_order: "/^a{n}(x|y)$/", count: 2}', b"a1x\na2y\n", MET),
    ('{in_order: "/(x|y)a{n}/", count: 2}', b"xa1\nya2\n", MET),
    ("{any_order: [a, b, c]}", b"c\nx\na\nb\n", MET),
    ("{any_order: [a, b]}", b"a\na\n", WAITING),
    ("{any_order: [a, a]}", b"a\na\n", MET),
    ("{any_order: [a, b], once: true}", b"b\nb\na\n", FAILED),
    ("{any_order: [a, b], once: true}", b"b\na\na\n", TOO_MUCH),
    ("{any_order: [a, a b], once: true}", b"a b\na\n", MET),
    ("{any_order: [a, a b, b], once: true}", b"a b\nb\na\n", MET),
    ('{any_order: "a{n}", count: 3, once: true}', b"a3\na1\na2\n", MET),
    ('{any_order: "a{n}", count: 3, once: true}', b"a3\na1\na3\na2\n", FAILED),
    ('{any_order: "{n}", count: 3, once: true}', b"2 says 3\n2 says 2\n2 says 1\n", MET),
    ("{exactly: [a, b]}", b"a\nb\n", MET),
    ("{exactly: [a, b]}", b"a\n", WAITING),
    ("{exactly: [a, b]}", b"a\nx\nb\n", FAILED),
    ("{exactly: [a, b]}", b"welcome\na\nb\n", FAILED),
    ("{exactly: [a, b]}", b"a\nb\nc\n", TOO_MUCH),
    ("{exactly: [/w.*/, b]}", b"welcome\nb\n", MET),
]  # fmt: skip
STREAMS = [
    ("hello", b"well, hello", MET),
    ("a1", b"a10", MET),
    ("hello", b"hell", WAITING),
    ("[one, two]", b"xxone--two", MET),
    ("[one, two]", b"two--one", WAITING),
    ("{any_order: [one, two]}", b"two--one", MET),
    ('{in_order: "a{n}", count: 12}', b"".join(b"a%d" % i for i in range(1, 13)), MET),
    ('{in_order: "a{n}", count: 5, once: true}', b"".join(b"a%d\n" % i for i in range(1, 13)), MET),
    ('{in_order: "a{n}", count: 2, once: true}', b"a1a2a1x", TOO_MUCH),
    ("{text: hello, once: true}", b"hellohello", TOO_MUCH),
    ("{text: hello, count: 2}", b"hellohello", MET),
    ('{bytes: "\\x00\\xff"}', b"\x00\x00\xff", MET),
    ("/h.llo/", b"say hallo", MET),
    ("/é+x/", "ééx".encode(), MET),
    ("/^x/", b"yx", WAITING),
    ("{is: hello}", b"hello", MET),
    ("{is: hello}", b"one\r\nhello\r\nthree\n", MET),
    ("{is: hello}", b"say hello\n", WAITING),
    ("any", b"x", MET),
    ("{any: true, count: 3}", b"ab", WAITING),
    ("{any: true, count: 3}", b"abc", MET),
    ("{any: true, once: true}", b"abc", MET),
    ("{exactly: [one, two]}", b"onetwo", MET),
    ("{exactly: [one, two]}", b"onetw", WAITING),
    ("{exactly: [one, two]}", b"onetwx", FAILED),
    ("{exactly: [one, two]}", b"onetwo!", TOO_MUCH),
    ('{exactly: ["/[0-9]+/", x.y]}', b"123x.y", MET),
    ('{exactly: ["/[0-9]+/", x.y]}', b"123xzy", WAITING),
    ('{exactly: ""}', b"", MET),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("eager", [True, False], ids=["as it comes", "at the end"])
@pytest.mark.parametrize(
    ("framing", "written", "data", "comes_to"), [(LINE, *c) for c in LINES] + [(STREAM, *c) for c in STREAMS]
)
def test_an_expectation_comes_to_the_same_however_the_bytes_are_cut(
    framing: str,
    written: str,
    data: bytes,
    comes_to: State | str,
    eager: bool,
    cut: Callable[[bytes], list[bytes]],
) -> None:
    """TCP keeps no boundaries, so nothing may depend on them, nor on when the judge looks."""
    assert judged(written, framing, [received(part) for part in cut(data)], eager=eager) == comes_to


@pytest.mark.parametrize("eager", [True, False], ids=["as it comes", "at the end"])
@pytest.mark.parametrize(
    ("written", "data", "comes_to"),
    [case for case in LINES if not case[1] or case[1].endswith(b"\n")],
)
def test_datagrams_are_judged_as_lines_are(
    written: str, data: bytes, comes_to: State | str, eager: bool
) -> None:
    """Each datagram is a message as it is; there is no line end to wait for, and none to take off."""
    datagrams = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    assert judged(written, DATAGRAM, [received(d) for d in datagrams], eager=eager) == comes_to


@pytest.mark.parametrize(
    ("written", "datagrams", "comes_to"),
    [
        ("{is: two}", [b"two\n"], WAITING),
        ('{is: "two\\nlines"}', [b"two\nlines"], MET),
        ('{is: ""}', [b""], MET),
        ("hello", [b"hel", b"lo"], WAITING),
    ],
)
def test_a_datagram_has_its_own_borders(written: str, datagrams: list[bytes], comes_to: State) -> None:
    """Nothing is joined and nothing is split."""
    assert judged(written, DATAGRAM, [received(d) for d in datagrams]) == comes_to


# ── exactly what was sent ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize(
    ("echo", "comes_to"),
    [
        (b"abc\x00\xff", MET),
        (b"abc\x00", WAITING),
        (b"abc\xff\x00", FAILED),
        (b"abc\x00\xff!", FAILED),
        (b"", WAITING),
    ],
)
def test_an_echo_is_held_against_what_was_sent(
    echo: bytes, comes_to: State, cut: Callable[[bytes], list[bytes]]
) -> None:
    """Byte by byte: what differs, and what is too much, is told at once."""
    before = [sent(b"ab", b"c"), sent(b"\x00\xff")]
    events = [received(part) for part in cut(echo)]
    assert judged("{exactly: sent}", STREAM, events, before=before, eager=False) == comes_to
    at_once = judged("{exactly: sent}", STREAM, events, before=before)
    assert at_once == comes_to or (comes_to, at_once) == (FAILED, TOO_MUCH)


def test_an_echo_in_two_steps_is_the_whole_connection() -> None:
    """`sent` speaks of all that the client sent on this connection, each time."""
    first = [sent(b"abc"), received(b"abc")]
    assert judged("{exactly: sent}", STREAM, [sent(b"def"), received(b"def")], before=first) == MET
    assert judged("{exactly: sent}", STREAM, [sent(b"def")], before=first) == WAITING
    assert judged("{exactly: sent}", DATAGRAM, [sent(b"def"), received(b"def")], before=first) == MET


@pytest.mark.parametrize(
    ("back", "comes_to"),
    [
        ([b"a", b"b", b"b", b""], MET),
        ([b"", b"b", b"a", b"b"], MET),
        ([b"a", b"b", b"b"], WAITING),
        ([b"ab", b"b", b""], FAILED),
        ([b"a", b"a", b"b", b""], FAILED),
        ([b"a", b"b", b"b", b"", b""], FAILED),
    ],
)
def test_an_echo_over_udp_keeps_borders_and_may_come_in_any_order(back: list[bytes], comes_to: State) -> None:
    """A right server may serve datagrams by threads; it may not join, split, lose or double them."""
    before = [sent(b"a", b"b"), sent(b"b"), sent(b"")]
    events = [received(datagram) for datagram in back]
    assert judged("{exactly: sent}", DATAGRAM, events, before=before, eager=False) == comes_to


# ── positions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def next_states(framing: str, events: Sequence[Event], *written: str) -> list[State]:
    """Each of these expectations in turn, each a step of its own, after the same events."""
    inbox = Inbox(framing)
    for each in (CONNECTED, *events):
        inbox.feed(each)
    return [Watch(expectation(text), inbox, {}).advance() for text in written]


@pytest.mark.parametrize("framing", [LINE, STREAM])
def test_each_pattern_has_its_own_position(framing: str) -> None:
    """Passing over b-lines does not consume them."""
    came = [received(b"b1\na1\nb2\na2\n")]
    assert next_states(framing, came, "a2", "b1", "b2", "a1") == [MET, MET, MET, MET]
    assert next_states(framing, came, '{in_order: "a{n}", count: 2}', '{in_order: "b{n}", count: 2}') == [
        MET,
        MET,
    ]


@pytest.mark.parametrize("framing", [LINE, STREAM])
def test_the_same_expectation_again_waits_for_a_new_message(framing: str) -> None:
    """What it has read once, it does not read again."""
    came = [received(b"hello\nhello\n")]
    assert next_states(framing, came, "hello", "hello", "hello") == [MET, MET, WAITING]
    again = "{any_order: [hello]}" if framing == LINE else "{any_order: [hello, hello]}"
    assert next_states(framing, came, again, again, again)[-1] == WAITING


def test_another_kind_of_pattern_is_another_pattern() -> None:
    """`hello` and {is: hello} each find the same line."""
    assert next_states(LINE, [received(b"hello\n")], "hello", "{is: hello}", "/hello/") == [MET, MET, MET]


def test_any_is_what_no_expectation_has_read() -> None:
    """Also what another one passed over counts as read."""
    came = [received(b"welcome\nhello\nbye\n")]
    assert next_states(LINE, came, "hello", "any", "any") == [MET, MET, WAITING]
    assert next_states(STREAM, [received(b"welcome hello")], "hello", "any") == [MET, WAITING]


def test_exactly_speaks_of_all_since_the_last_exactly() -> None:
    """So that one echo after another can be held against what it should be."""
    inbox = Inbox(STREAM)
    inbox.feed(CONNECTED)
    for text in (b"one", b"two", b"one"):
        inbox.feed(received(text))
        assert Watch(expectation(f"{{exactly: [{text.decode()}]}}"), inbox, {}).advance() == MET


@pytest.mark.parametrize("framing", [LINE, DATAGRAM, STREAM])
def test_a_new_connection_begins_anew(framing: str) -> None:
    """What came on the one before neither meets an expectation nor breaks one."""
    inbox = Inbox(framing)
    for each in (CONNECTED, received(b"hello\n"), event("closed", 5), event("connected", 6)):
        inbox.feed(each)
    assert Watch(expectation("hello"), inbox, {}).advance() == WAITING
    assert Watch(expectation("any"), inbox, {}).advance() == WAITING
    inbox.feed(received(b"hello\n", 7))
    once = Watch(expectation("{text: hello, once: true}"), inbox, {})
    assert outcome(inbox, once, []) == MET


@pytest.mark.parametrize("framing", [LINE, STREAM])
def test_first_words_that_overtake_the_news_of_their_connection_count(framing: str) -> None:
    """A server may greet before the lab has noted that the connection is open."""
    inbox = Inbox(framing)
    for each in (
        CONNECTED,
        received(b"old\n", 1),
        event("closed", 5),
        received(b"welcome\n", 8),
        event("connected", 7),
    ):
        inbox.feed(each)
    assert Watch(expectation("welcome"), inbox, {}).advance() == MET
    assert Watch(expectation("old"), inbox, {}).advance() == WAITING


def test_an_expectation_goes_over_to_the_connection_that_is_made_meanwhile() -> None:
    """In together: one client's wait may begin before it connects again."""
    inbox = Inbox(STREAM)
    for each in (CONNECTED, received(b"long before"), sent(b"long before")):
        inbox.feed(each)
    texts, echo = (
        Watch(expectation("[one, two]"), inbox, {}),
        Watch(expectation("{exactly: sent}"), inbox, {}),
    )
    for each in (event("connected", 6), sent(b"one two"), received(b"one two", 7)):
        inbox.feed(each)
        texts.advance()
    assert texts.advance() == MET
    assert echo.advance() == MET


# ── endings ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "events", "comes_to"),
    [
        ("eof", [EOF], MET),
        ("eof", [], WAITING),
        ("eof", [RESET], FAILED),
        ("eof", [CLOSED_BY_ERROR], FAILED),
        ("reset", [RESET], MET),
        ("reset", [EOF], WAITING),
        ("reset", [EOF, RESET], MET),
        ("{error: timed out}", [CLOSED_BY_ERROR], MET),
        ("{error: refused}", [CLOSED_BY_ERROR], WAITING),
        ("hello", [EOF], FAILED),
        ("hello", [RESET], FAILED),
        ("hello", [CLOSED_BY_ERROR], FAILED),
        ("hello", [received(b"hello\n"), EOF], MET),
        ("hello", [received(b"hello"), EOF], MET),
        ("hello", [received(b"hel"), received(b"lo"), RESET], MET),
        ("{exactly: [hello]}", [received(b"hello"), EOF], MET),
        ("{exactly: [hello, bye]}", [received(b"hello\n"), EOF], FAILED),
    ],
)
def test_an_ending_ends_the_wait(written: str, events: list[Event], comes_to: State) -> None:
    """What cannot come any more is not waited for; a last line without a newline is a line."""
    assert judged(written, LINE, events) == comes_to


def test_an_icmp_error_leaves_a_datagram_socket_open() -> None:
    """It is kept until an expectation reads it, and each is read once."""
    assert next_states(DATAGRAM, [REFUSED], "{error: refused}", "{error: refused}", "hello") == [
        MET,
        WAITING,
        WAITING,
    ]


@pytest.mark.parametrize(
    ("wanted", "status", "comes_to"),
    [(0, 0, MET), (3, 3, MET), (0, 1, FAILED), (0, -15, FAILED), (15, -15, FAILED)],
)
def test_a_server_ends_with_its_status(wanted: int, status: int, comes_to: State) -> None:
    """Another status, or a signal, is told at once."""
    inbox = Inbox(LINE)
    watch = Watch(steps_of(f"- expect: {{server: {{exit: {wanted}}}}}").steps[-1].expects[0][1], inbox, {})
    assert watch.advance() == WAITING
    inbox.feed(event("exited", 3, status=status))
    assert watch.advance() == comes_to
    inbox.feed(event("spawned", 4))
    assert inbox.status is None


def test_a_log_line_is_found_after_the_server_ended() -> None:
    """Its last words were said before it went; what it did not say will not come."""
    inbox = Inbox(LINE)
    said, unsaid = (
        Watch(steps_of(f"- expect: {{server: {{log: {text}}}}}").steps[-1].expects[0][1], inbox, {})
        for text in ("drained", "more")
    )
    for each in (event("log", text="3 clients\udcff drained"), event("exited", 3, status=0)):
        inbox.feed(each)
    assert (said.advance(), unsaid.advance()) == (MET, FAILED)
    assert "the server has ended" in unsaid.reason


# ── captures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("framing", [LINE, STREAM])
@pytest.mark.parametrize(
    ("written", "caught"),
    [
        ('"/cookie=([a-z]+)[^a-z]/"', "abc"),
        ('"/c[a-z]+=/"', "cookie="),
        ("cookie=abc", "cookie=abc"),
        ('{any_order: ["/([a-z]+)!/"]}', "abc"),
    ],
)
def test_a_capture_is_what_matched(
    written: str, caught: str, framing: str, cut: Callable[[bytes], list[bytes]]
) -> None:
    """The first group of a regex where it has one; the same however the bytes were cut."""
    inbox = Inbox(framing)
    watch = Watch(expectation(written), inbox, {})
    assert outcome(inbox, watch, [CONNECTED, *(received(part) for part in cut(b"your cookie=abc!\n"))]) == MET
    assert watch.captured == caught


def test_a_caught_text_is_filled_in_as_it_is() -> None:
    """Also into a regex, where it is no regex."""
    inbox = Inbox(LINE)
    for each in (CONNECTED, received(b"xay\nx.y\n")):
        inbox.feed(each)
    values = {"token": "x.y"}
    watches = [
        Watch(expectation(text, values="token"), inbox, values) for text in ('"{token}"', '"/^{token}$/"')
    ]
    values["token"] = "something else by now"
    assert [(watch.advance(), watch.captured) for watch in watches] == [(MET, "x.y"), (MET, "x.y")]


# ── what a person is told ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "data", "told"),
    [
        ("{text: hello, once: true}", b"hello\nhello\n", '"hello" came twice'),
        ("{text: hello, count: 2, once: true}", b"hello\nhello\nhello\n", "one more came"),
        ('{in_order: "a{n}", count: 2, once: true}', b"a1\na2\na1\n", '"a1" came twice'),
        ("{any_order: [a, b], once: true}", b"b\na\nb\n", '"b" came twice'),
        ("{exactly: [a]}", b"a\n\x1b[2J\n", '"\\x1b[2J" came on top'),
    ],
)
def test_too_much_is_told(written: str, data: bytes, told: str) -> None:
    """What came, and that it came too often."""
    inbox = Inbox(LINE)
    watch = Watch(expectation(written), inbox, {})
    outcome(inbox, watch, [CONNECTED, received(data)])
    assert watch.violated() == told


@pytest.mark.parametrize(
    ("framing", "written", "events", "told"),
    [
        (
            LINE,
            '{in_order: "a{n}", count: 9}',
            [received(b"a1\na2\n")],
            '2 of 9 came; missing: "a3", "a4", "a5", …',
        ),
        (LINE, "{any_order: [a, b, c]}", [received(b"b\n")], '1 of 3 came; missing: "a", "c"'),
        (LINE, "{text: x, count: 3}", [received(b"x\n")], '"x" came 1 times of 3'),
        (LINE, "{any: true, count: 3}", [received(b"x\n")], "any message came 1 times of 3"),
        (LINE, "{exactly: [a, b]}", [received(b"a\n")], "1 of 2 messages came"),
        (STREAM, "{exactly: sent}", [sent(b"abcdef"), received(b"abc")], "3 of 6 bytes came back"),
        (DATAGRAM, "{exactly: sent}", [sent(b"a", b"b"), received(b"b")], "1 of 2 datagrams came back"),
    ],
)
def test_what_is_missing_is_told(framing: str, written: str, events: list[Event], told: str) -> None:
    """How much came, and the first that did not."""
    inbox = Inbox(framing)
    watch = Watch(expectation(written), inbox, {})
    assert outcome(inbox, watch, [CONNECTED, *events], eager=False) == WAITING
    assert watch.missing() == told


@pytest.mark.parametrize(
    ("framing", "written", "events", "told"),
    [
        (LINE, "hello", [EOF], '"hello" did not come; the connection was closed by the server, so it cannot come any more'),
        (LINE, "eof", [RESET], "the connection was reset (RST) instead of closed (FIN)"),
        (LINE, "{in_order: [a, b], once: true}", [received(b"b\n")], '"b" came before "a"'),
        (LINE, "{exactly: [a]}", [received(b"welcome\n")], 'message 1 was to be exactly "a", and "welcome" came'),
        (STREAM, "{exactly: sent}", [sent(b"abc"), received(b"aXc")], 'byte 1 differs: "bc" was expected, "Xc" came'),
        (STREAM, "{exactly: sent}", [sent(b"abc"), received(b"abcd")], '"d" came on top of the 3 bytes that were sent'),
        (DATAGRAM, "{exactly: sent}", [sent(b"abc"), received(b"ab")], '"ab" came and was not sent'),
        (DATAGRAM, "{exactly: sent}", [sent(b"a", b"b"), received(b"a"), received(b"a")], '"a" came once too often'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(framing: str, written: str, events: list[Event], told: str) -> None:
    """Enough to mend the server."""
    inbox = Inbox(framing)
    watch = Watch(expectation(written), inbox, {})
    assert outcome(inbox, watch, [CONNECTED, *events], eager=False) == FAILED
    assert watch.reason == told


def test_bytes_are_shown_readable_and_drive_no_terminal() -> None:
    """What a server sends is foreign input."""
    assert shown(b"hello") == '"hello"'
    assert shown(b"\x1b[2J\xff\n") == '"\\x1b[2J\\xff\\n"'
    assert shown(b"x" * 100) == f'"{"x" * 60}"… (100 bytes)'
    assert difference(b"abc", b"ab\x00") == 'byte 2 differs: "c" was expected, "\\x00" came'


# ── what was to come once, and what is said afterwards ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("framing", "written", "said", "concerned"),
    [
        (LINE, "{text: hello, once: true}", b"hello\n", True),
        (LINE, "{text: hello, once: true}", b"hello\r\n", True),
        (LINE, "{is: hello, once: true}", b"hello\r\n", True),
        (LINE, "{text: hello, once: true}", b"bye\n", False),
        (LINE, "{text: hello, once: true}", b"hel", True),
        (LINE, "{text: /^.alice. hello$/, once: true}", b"hello\n", True),
        (LINE, '{in_order: "a{n}", count: 3, once: true}', b"a2\n", True),
        (LINE, '{in_order: "a{n}", count: 3, once: true}', b"b2\n", False),
        (LINE, "{exactly: [a]}", b"b\n", True),
        (DATAGRAM, "{is: one, once: true}", b"onetwo", True),
        (DATAGRAM, "{text: one, once: true}", b"two", False),
        (STREAM, "{text: hello, once: true}", b"hel", True),
    ],
)
def test_a_message_that_may_rightly_come_again_is_recognised(
    framing: str, written: str, said: bytes, concerned: bool
) -> None:
    """In doubt it may: the borders of messages, and how a server decorates them, cannot be told from what is said."""
    assert Watch(expectation(written), Inbox(framing), {}).concerns(said) is concerned


def test_what_came_once_may_come_on_a_new_connection_again() -> None:
    """A server that greets is not blamed for greeting twice."""
    inbox = Inbox(LINE)
    watch = Watch(expectation("{exactly: [welcome]}"), inbox, {})
    events = [
        CONNECTED,
        received(b"welcome\n"),
        event("closed", 5),
        event("connected", 6),
        received(b"welcome\n", 7),
    ]
    assert outcome(inbox, watch, events) == MET


# ── quiet ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("framing", "left"), [(LINE, []), (DATAGRAM, []), (STREAM, [b"\n"])], ids=[LINE, DATAGRAM, STREAM]
)
def test_silence_is_broken_by_what_came_since_and_nobody_read(framing: str, left: list[bytes]) -> None:
    """What was read, or passed over, or came before, is no noise; of a stream, each byte counts."""
    inbox = Inbox(framing)
    for each in (CONNECTED, received(b"early\n", 3), received(b"welcome\n", 5), received(b"hello\n", 6)):
        inbox.feed(each)
    assert len(inbox.since(5)) == 2
    assert Watch(expectation("hello"), inbox, {}).advance() == MET
    assert [message.data for message in inbox.since(5)] == left
    inbox.feed(received(b"half a li", 8))
    assert [message.data for message in inbox.since(8)] == [b"half a li"]


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(30)
@pytest.mark.parametrize("framing", [LINE, DATAGRAM, STREAM])
@pytest.mark.parametrize("order", ["in_order", "any_order"])
def test_ten_thousand_messages_are_matched(order: str, framing: str) -> None:
    """Waiting costs what comes, not what has come: looked at after each message, this ends far within the limit."""
    numbers = list(range(1, 10_001))
    if order == "any_order":
        random.Random(1).shuffle(numbers)
    events = [received(b"<alice> a%d\n" % n) for n in numbers]
    written = f'{{{order}: "a{{n}}", count: 10000, once: true}}'
    # Asked each time where a person would wait; a stream is asked less often, as its chunks are larger.
    inbox = Inbox(framing)
    watch = Watch(expectation(written), inbox, {})
    if framing == STREAM:
        events = [received(b"".join(e.content for e in events[i : i + 500])) for i in range(0, 10_000, 500)]
    assert outcome(inbox, watch, [CONNECTED, *events]) == MET


@pytest.mark.timeout(30)
def test_a_line_that_never_ends_costs_what_comes() -> None:
    """A broken server may send megabytes without a newline."""
    inbox = Inbox(LINE)
    watch = Watch(expectation("hello"), inbox, {})
    assert outcome(inbox, watch, [CONNECTED, *[received(b"x" * 1000)] * 20_000]) == WAITING


@pytest.mark.timeout(30)
def test_a_text_at_the_end_of_a_long_stream_is_found() -> None:
    """What has been searched once is not searched again."""
    inbox = Inbox(STREAM)
    watch = Watch(expectation("the end"), inbox, {})
    events = [CONNECTED, *[received(b"x" * 10_000)] * 2000, received(b"the e"), received(b"nd")]
    assert outcome(inbox, watch, events) == MET


# ── no right server is blamed ─────────────────────────────────────────────────────────────────────────────────────────

DECORATIONS = [
    "{}",
    "<alice> {}",
    "[12:30:05] 10.71.0.4:51234: {}",
    "{} (from alice)",
    "#7 {}",
    "alice:{}",
    "日本 {}",
]
ENDS = ["\n", "\r\n"]
OWN_WORDS = ["welcome to the chat", "*** bob joined", "", "7 clients", "\udcff\udcfe", "* 3"]


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_right_chat_server_is_blamed(data: st.DataObject) -> None:
    """It decorates lines, says things of its own, mixes speakers as it likes, and its bytes arrive in any cuts."""
    count = data.draw(st.integers(1, 12))
    decoration, end = data.draw(st.sampled_from(DECORATIONS)), data.draw(st.sampled_from(ENDS))
    speakers = {name: [f"{name}{n}" for n in range(1, count + 1)] for name in ("a", "b")}
    lines: list[str] = []
    while any(speakers.values()):
        name = data.draw(st.sampled_from([name for name, left in speakers.items() if left]))
        lines.append(decoration.format(speakers[name].pop(0)))
        if data.draw(st.integers(0, 3)) == 0:
            lines.append(data.draw(st.sampled_from(OWN_WORDS)))
    stream = "".join(line + end for line in lines).encode(errors="surrogateescape")
    places = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=20))})
    inbox = Inbox(LINE)
    watches = [
        Watch(expectation(written.replace("COUNT", str(count))), inbox, {})
        for written in (
            '{in_order: "a{n}", count: COUNT, once: true}',
            '{any_order: "b{n}", count: COUNT, once: true}',
            "{text: a1, once: true}",
            "{any_order: [b1, a1], once: true}",
            '{text: "/b1(?![0-9])/", once: true}',
        )
    ]
    for part in [CONNECTED, *(received(stream[a:b]) for a, b in pairwise(places))]:
        inbox.feed(part)
        for watch in watches:
            watch.advance()
    assert [(watch.advance(), watch.violated()) for watch in watches] == [(MET, None)] * len(watches)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_order_is_met_by_every_order(data: st.DataObject) -> None:
    """Also where some texts stand in others, so that a line fits several of them."""
    texts = data.draw(
        st.lists(st.sampled_from(["a", "b", "a b", "b a", "a b c", "c"]), min_size=1, max_size=7)
    )
    order = data.draw(st.permutations(texts))
    written = f"{{any_order: [{', '.join(texts)}], once: true}}"
    assert judged(written, LINE, [received(f"<x> {text}\n".encode()) for text in order]) == MET


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(payload=st.binary(min_size=1, max_size=60), places=st.lists(st.integers(0, 60), max_size=10))
def test_no_right_echo_is_blamed_and_no_wrong_one_passes(payload: bytes, places: list[int]) -> None:
    """Whatever bytes, in whatever cuts; one byte less, more or other is never taken for right."""

    def comes_to(echo: bytes) -> State | str:
        cuts = sorted({0, len(echo), *(p for p in places if p < len(echo))})
        parts = [received(echo[a:b]) for a, b in pairwise(cuts)]
        return judged("{exactly: sent}", STREAM, parts, before=[sent(payload)], eager=False)

    assert comes_to(payload) == MET
    assert comes_to(payload[:-1]) == WAITING
    assert comes_to(payload + b"x") == FAILED
    assert comes_to(bytes([payload[0] ^ 1]) + payload[1:]) == FAILED


def test_where_nobody_hears_itself_an_empty_line_ends_nothing() -> None:
    """In a dialect with no word for quit, none is quit: what a client says behind an empty line counts as heard, too."""
    inbox = Inbox(LINE, Dialect(echo=False, quit=None))
    inbox.feed(CONNECTED)
    inbox.feed(sent(b"\r\nhello\r\n\nworld\r\n"))

    assert [message.data for message in inbox.messages] == [b"hello", b"world"]


def test_a_greeting_without_a_newline_is_passed_over_and_the_first_line_stays() -> None:
    inbox = Inbox(LINE, Dialect(ignore=("^Hello",)))
    for each in (CONNECTED, received(b"Hello there"), received(b"alice: hi\n", 2)):
        inbox.feed(each)

    assert [message.data for message in inbox.messages] == [b"alice: hi"]
