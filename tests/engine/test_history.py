"""The history of a play: what is written can be read again, and what is no history is refused by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socklab.history import Event, History, from_wire, joined, read, size_of, to_wire

EVENTS = [
    Event(1, "play", "", {"scenario": "title: x\n", "values": {}, "framing": "line"}),
    Event(2, "connected", "alice", {"local": ["10.0.0.2", 5], "connection": 1}),
    Event(3, "sent", "alice", {"chunks": [{"text": "ä\n", "repeat": 3}, {"base64": "/w=="}]}),
    Event(4, "received", "bob", {"text": "line\r\n\u2028\x1b[2J"}),
    Event(5, "log", "server", {"stream": "stderr", "text": "not UTF-8: \udcff"}),
    Event(6, "fault", "", {"links": {"alice→server": "drop"}}),
    Event(7, "verdict", "", {"verdict": "pass", "reason": "", "line": 0}),
]


def written(path: Path) -> Path:
    history = History(path / "history.jsonl")
    for event in EVENTS:
        history.add(event)
    history.close()
    return path / "history.jsonl"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """One event a line, whatever stands in it."""
    path = written(tmp_path)
    assert read(path) == EVENTS
    assert path.read_bytes().count(b"\n") == len(EVENTS)


def test_a_history_without_a_path_stays_in_memory() -> None:
    """And is iterated in the order in which it was told."""
    history = History()
    for event in EVENTS:
        history.add(event)
    assert list(history) == EVENTS


def test_a_full_disk_does_not_end_a_play() -> None:
    """The first failure is kept for the verdict; the events are still there."""
    history = History(Path("/dev/full"))
    for event in EVENTS * 1000:
        history.add(event)
    history.close()
    assert history.write_error is not None
    assert history.write_error.strerror == "No space left on device"
    assert list(history) == EVENTS * 1000


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_long_history_is_read_again_from_its_file(on_disk: bool, tmp_path: Path) -> None:
    """With a path or without one, while it goes on and when it has ended, as often as one likes."""
    history = History(tmp_path / "history.jsonl" if on_disk else None, kept=10)
    for event in EVENTS * 10:
        history.add(event)
    assert list(history) == list(history) == EVENTS * 10
    history.add(EVENTS[0])
    history.close()
    assert list(history) == [*EVENTS * 10, EVENTS[0]]
    assert len(history) == 71
    assert history.ends() == [EVENTS[0], *(EVENTS * 10)[61:], EVENTS[0]]


def test_of_a_long_history_on_a_full_disk_the_newest_are_left() -> None:
    """And the play's verdict tells that they are not all."""
    history = History(Path("/dev/full"), kept=10)
    for event in EVENTS * 10:
        history.add(event)
    history.close()
    assert list(history) == (EVENTS * 10)[-10:]
    assert history.write_error is not None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(), repeat=st.integers(0, 5))
def test_bytes_survive_the_way_through_json(data: bytes, repeat: int) -> None:
    """As text where they are UTF-8, so that people can read them; else as base64."""
    on_the_wire = json.loads(json.dumps(to_wire(data)))
    assert from_wire(on_the_wire) == data
    assert from_wire({**on_the_wire, "repeat": repeat}) == data * repeat
    assert size_of([on_the_wire, {**on_the_wire, "repeat": repeat}]) == len(data) * (1 + repeat)
    assert joined([on_the_wire, {"text": "x"}]) == data + b"x"


def test_bytes_that_nobody_sent_in_one_piece_are_refused() -> None:
    """A history may come from somebody else: no line of it takes all memory."""
    with pytest.raises(ValueError, match="bytes in one piece"):
        from_wire({"text": "x", "repeat": 10**15})


def test_a_line_without_end_is_no_event() -> None:
    """It is not read any further than an event could be long."""
    with pytest.raises(ValueError, match="/dev/zero:1: is no event: longer than"):
        read(Path("/dev/zero"))


KEYS = st.text(max_size=5).filter(lambda key: key not in ("t", "kind", "node"))
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=5), max_size=2)
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    t=st.integers(0, 2**63),
    kind=st.text(max_size=5),
    node=st.text(max_size=5),
    data=st.dictionaries(KEYS, VALUES, max_size=3),
)
def test_any_event_survives_the_way_through_json(t: int, kind: str, node: str, data: dict[str, Any]) -> None:
    """Its own keys and those of its kind."""
    event = Event(t, kind, node, data)
    assert "\n" not in event.to_json()
    assert Event.from_json(event.to_json()) == event


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "not an event: it needs t and kind"),
        ("{}", "not an event: it needs t and kind"),
        ('{"t": "1", "kind": "x"}', "not an event: it needs t and kind"),
        ('{"t": true, "kind": "x"}', "not an event: it needs t and kind"),
        ('{"t": 1, "kind": 2}', "not an event: it needs t and kind"),
        ("[" * 100_000, "not an event: nested too deep"),
        ('{"t": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str, said: str) -> None:
    """With the file and the number of the line."""
    path = tmp_path / "history.jsonl"
    path.write_text(EVENTS[0].to_json() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    at=st.integers(0, 600),
    drop=st.integers(0, 40),
    put=st.binary(max_size=6) | st.sampled_from([b"\n", b"}", b'"', b"\xff", b"9" * 5000, b"{" * 2000]),
)
def test_any_file_is_a_history_or_refused(at: int, drop: int, put: bytes, tmp_path: Path) -> None:
    """A history that was cut or overwritten is a ValueError, or still a list of events."""
    raw = written(tmp_path).read_bytes()
    path = tmp_path / "mutated.jsonl"
    path.write_bytes(raw[:at] + put + raw[at + drop :])
    try:
        events = read(path)
    except ValueError as error:
        said = str(error)
    else:
        said = f"{path}:"
        assert all(isinstance(event, Event) for event in events)
    assert said.startswith(f"{path}:")
