"""A history as a drawing: what is said of lanes, arrows, bands and lifetimes, and that nothing a server sends can break it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socklab.conductor import Options
from socklab.diagram import TEXT, Drawing, Mark, drawn
from socklab.history import Event
from tests.conductor.lab import play
from tests.seeing.histories import HOSTILE, MS, connected, events, fault, got, play_of, sent


def of_kind(marks: list[Mark], mark: str, **data: Any) -> list[Mark]:
    return [m for m in marks if m["mark"] == mark and all(m.get(k) == v for k, v in data.items())]


def test_servers_stand_in_the_middle_of_their_clients() -> None:
    marks = drawn(events(play_of()))

    assert [m["name"] for m in of_kind(marks, "lane")] == ["alice", "server", "bob"]
    assert [m["title"] for m in of_kind(marks, "lane")] == ["alice", "server (chat)", "bob"]


def test_what_a_client_sends_is_there_at_once_where_the_link_is_whole() -> None:
    marks = drawn(events(play_of(), connected(5, "alice", 4000), sent(10, "alice", "hi\n")))

    (arrow,) = of_kind(marks, "arrow")
    assert (arrow["source"], arrow["target"]) == ("alice", "server")
    assert (arrow["start"], arrow["end"]) == (10 * MS, 10 * MS)
    assert arrow["text"] == '"hi\\n"'


def test_what_a_client_got_left_when_its_packet_left() -> None:
    """Without packets it is not known when; a packet that is sent again is the one that brought it."""
    syn = (6, "", "wire", {"from": "server", "to": "alice", "sport": 1, "dport": 4000, "words": ["SYN-ACK"], "seq": 99, "what": "TCP SYN-ACK"})  # fmt: skip
    left = (20, "", "segment", {"from": "server", "to": "alice", "sport": 1, "dport": 4000, "seq": 100, "size": 3})  # fmt: skip
    again = (50, "", "wire", {"from": "server", "to": "alice", "sport": 1, "dport": 4000, "words": ["retransmission"], "seq": 100, "what": 'TCP 3 bytes "hi."'})  # fmt: skip
    begin = [play_of(), syn, connected(7, "alice", 4000)]

    def start(*told: Any) -> int | None:
        (arrow,) = of_kind(drawn(events(*begin, *told)), "arrow", what="data")
        value: int | None = arrow["start"]
        return value

    assert start(got(60, "alice", "hi\n")) is None
    assert start(left, got(60, "alice", "hi\n")) == 20 * MS
    assert start(got(60, "alice", "hi\n"), left) == 20 * MS, "the two streams come in any order"
    assert start(left, got(60, "alice", "hi\n"), again) == 50 * MS + 1


def test_a_lost_datagram_is_an_arrow_that_ends_on_its_way() -> None:
    head = (
        bytes.fromhex("45000022a52f4000401181080a4700040a470002")
        + (4001).to_bytes(2, "big")
        + bytes.fromhex("1b5a000e14b3")
    )
    packet = {"from": "bob", "to": "server", "fate": "dropped", "by": "cut", "size": 34, "what": "UDP", "head": (head + b"#DEREG").hex()}  # fmt: skip
    marks = drawn(
        events(
            play_of("datagram"),
            connected(5, "bob", 4001, "udp"),
            fault(6, bob_server="cut"),
            sent(10, "bob", "#DEREG"),
            (11, "", "packet", packet),
        )
    )

    (arrow,) = of_kind(marks, "arrow")
    assert (arrow["fate"], arrow["by"]) == ("dropped", "cut")
    assert arrow["end"] is None


def test_a_fault_is_a_band_until_it_is_undone() -> None:
    marks = drawn(
        events(
            play_of(),
            fault(10, alice_server="cut"),
            fault(20, alice_server="cut", bob_server="loss 10%"),
            fault(30),
        )
    )

    bands = [(b["source"], b["text"], b["start"] // MS, b["end"] // MS) for b in of_kind(marks, "band")]
    assert bands == [("alice", "cut", 10, 30), ("bob", "loss 10%", 20, 30)]


def test_a_connection_lives_from_connect_to_its_end() -> None:
    marks = drawn(
        events(
            play_of(),
            connected(5, "alice", 4000),
            (9, "alice", "reset", {}),
            connected(12, "alice", 4002),
            (20, "", "verdict", {"verdict": "pass"}),
        )
    )

    assert [(m["start"] // MS, m["end"] // MS, m["how"]) for m in of_kind(marks, "life")] == [
        (5, 9, "reset"),
        (12, 20, ""),
    ]


def test_both_ends_of_a_connection_have_a_socket_with_its_states(tmp_path: Path) -> None:
    """As the packets of a real play show them; the server's stands on the lane of the thread that serves it."""
    steps = """\
  - connect: alice
  - send: {alice: hello}
  - expect: {alice: hello}
  - half-close: alice
  - expect: {alice: eof}
"""
    marks = drawn(play(steps, service="threaded", options=Options(runs=tmp_path)).events)
    (client,) = of_kind(marks, "life", lane="alice")
    (served,) = of_kind(marks, "life", peer="alice")

    assert [state for _, state in client["states"]][:4] == [
        "SYN_SENT",
        "ESTABLISHED",
        "FIN_WAIT1",
        "FIN_WAIT2",
    ]
    assert [state for _, state in served["states"]] == [
        "SYN_RECV",
        "ESTABLISHED",
        "CLOSE_WAIT",
        "LAST_ACK",
        "gone",
    ]
    assert served["lane"].startswith("thread ")
    times = [at for at, _ in client["states"]]
    assert times == sorted(times)


def test_sockets_of_a_server_without_threads_stand_beside_each_other(tmp_path: Path) -> None:
    played = play("  - connect: everyone\n", "chat-eventloop", "[alice, bob]", Options(runs=tmp_path))
    marks = drawn(played.events)

    assert sorted(m["beside"] for m in of_kind(marks, "life", lane="server")) == [0, 1]


def test_who_serves_a_client_has_a_lane_beside_the_server() -> None:
    """An echo comes from the thread or process that serves it; a line of a chat from the server."""
    log = (6, "server", "log", {"text": "10:00:00.000 connected 10.71.0.3:4000 thread=Thread-1 active=1"})

    for framing, source in (("stream", "thread Thread-1"), ("line", "server")):
        marks = drawn(
            events(
                play_of(framing),
                connected(5, "alice", 4000),
                log,
                sent(7, "alice", "x"),
                got(8, "alice", "x"),
            )
        )
        assert [m["title"] for m in of_kind(marks, "lane", role="worker")] == ["alice's thread"]
        assert [(m["source"], m["target"]) for m in of_kind(marks, "arrow")] == [
            ("alice", "thread Thread-1"),
            (source, "alice"),
        ]


def test_what_happens_belongs_to_the_step_in_which_it_happens() -> None:
    def step(ms: int, path: str, phase: str) -> tuple[int, str, str, dict[str, Any]]:
        return ms, "", "step", {"line": 3, "path": path, "verb": "send", "text": "send", "phase": phase}

    marks = drawn(
        events(
            play_of(),
            step(1, "1", "begin"),
            step(2, "1.1", "begin"),
            sent(3, "alice", "a"),
            step(4, "1.1", "end"),
            sent(5, "alice", "b"),
            step(6, "1", "failed"),
        )
    )

    outer, inner = of_kind(marks, "step")
    assert [m["step"] for m in of_kind(marks, "arrow")] == [inner["id"], outer["id"]]
    assert (outer["phase"], inner["phase"]) == ("failed", "end")


def test_marks_come_as_events_come_and_replace_those_before() -> None:
    """A live page that applies what `feed` returns has the same drawing as a report of the whole."""
    told = events(
        play_of(),
        connected(1, "alice", 4000),
        fault(2, alice_server="cut"),
        sent(3, "alice", "x"),
        fault(4),
        (5, "", "verdict", {"verdict": "pass"}),
    )
    drawing, seen = Drawing(), {}
    for event in told:
        seen |= {mark["id"]: json.dumps(mark) for mark in drawing.feed(event)}

    assert seen == {mark["id"]: json.dumps(mark) for mark in drawn(told)}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_was_sent_is_short_and_printable_in_a_drawing(text: str) -> None:
    marks = drawn(
        events(
            play_of(),
            connected(1, "alice", 4000),
            sent(2, "alice", text),
            got(3, "bob", text),
            (4, "server", "log", {"text": text}),
        )
    )

    for mark in (m for m in marks if m["mark"] in ("arrow", "point")):
        assert len(mark["text"]) <= TEXT + 60
    for mark in of_kind(marks, "arrow"):
        assert mark["text"].isprintable()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["sent", "received", "connected", "eof", "log", "fault", "exited", "note", "unheard-of"]
            ),
            st.sampled_from(["", "alice", "server", "zoe"]),
        )
    )
)
def test_any_order_of_events_can_be_drawn(order: list[tuple[str, str]]) -> None:
    data = {
        "chunks": [{"text": "x"}],
        "size": 1,
        "text": "x",
        "links": {"alice→bob": "cut"},
        "status": 1,
        "local": ["h", 1],
        "error": "e",
    }
    told = [Event(i, kind, node, {**data, "protocol": "tcp"}) for i, (kind, node) in enumerate(order)]

    json.dumps(drawn(told))


def test_an_arrow_takes_as_long_as_the_link_delays_it() -> None:
    """On real namespaces: 60 ms each way, for what goes and for what comes."""
    result = play(
        "  - delay: {between: [alice, server], is: 60ms}\n  - send: {alice: hello}\n  - expect: {alice: hello}\n",
        clients="[alice]",
        options=Options(),
    )

    there, back = of_kind(drawn(result.events), "arrow", what="datagram")
    assert 55 * MS < there["end"] - there["start"] < 160 * MS
    if back["start"] is not None:  # where packets are read
        assert 55 * MS < back["end"] - back["start"] < 160 * MS


def test_what_became_of_a_packet_may_be_told_before_the_packet() -> None:
    """Then it is one arrow all the same; what was lost before is another."""
    head = (
        bytes.fromhex("4500002a00004000400600000a4700020a470004")
        + (6001).to_bytes(2, "big")
        + (4001).to_bytes(2, "big")
    )
    head += (700).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes.fromhex("5018004000000000")
    lost = {"from": "server", "to": "bob", "fate": "dropped", "by": "cut", "size": 42, "what": 'TCP 2 bytes "hi"', "head": (head + b"hi").hex()}  # fmt: skip
    again = {"from": "server", "to": "bob", "sport": 6001, "dport": 4001, "words": ["retransmission"], "seq": 700, "ack": 1, "what": 'TCP 2 bytes "hi"'}  # fmt: skip
    marks = drawn(
        events(
            play_of(),
            connected(5, "bob", 4001),
            fault(6, server_bob="cut"),
            (10, "", "packet", lost),
            (32, "", "packet", lost),
            (30, "", "wire", again),
        )
    )

    arrows = [(a["start"] // MS, a["what"], a["fate"]) for a in of_kind(marks, "arrow")]
    assert arrows == [(10, "packet", "dropped"), (30, "retransmission", "dropped")]
