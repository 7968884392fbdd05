"""Pictures for slides: SVG that any viewer takes, Mermaid text that says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from socklab.conductor import Options
from socklab.diagram import drawn
from socklab.picture import mermaid, svg
from tests.conductor.lab import play
from tests.seeing.histories import HOSTILE, connected, events, fault, got, play_of, sent

TOLD = events(
    play_of(),
    connected(5, "alice", 4000),
    connected(6, "bob", 4001),
    fault(8, server_bob="cut"),
    sent(10, "alice", "hello\n"),
    got(12, "alice", "hello\n"),
    fault(40),
    (50, "", "verdict", {"verdict": "pass"}),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_has_a_lane_for_each_node_and_an_arrow_for_each_message() -> None:
    root = ElementTree.fromstring(svg(drawn(TOLD), ["messages"]))

    names = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "name"]
    assert names == ["alice", "server (chat)"], "who neither sends nor gets anything has none"
    assert [g.get("class") for g in root.iter(f"{SVG}g")] == ["message", "back"]


def test_a_picture_can_be_of_some_nodes_and_some_kinds() -> None:
    marks = drawn(TOLD)

    assert "connected" not in svg(marks, ["messages"])
    assert "connected" in svg(marks, ["messages", "other"])
    assert "hello" not in svg(marks, ["messages"], ["bob"])


def test_faults_that_are_alike_are_one_band() -> None:
    cut = {"alice_bob": "cut", "bob_alice": "cut", "bob_server": "cut", "server_bob": "cut"}
    told = events(
        play_of(), fault(8, **cut, alice_server="loss 10%"), sent(9, "bob", "x"), sent(10, "alice", "x")
    )
    root = ElementTree.fromstring(svg(drawn(told)))

    texts = [t.text for t in root.iter(f"{SVG}text") if "fault" in str(t.get("class"))]
    assert texts == ["bob ↔ alice, server: cut", "alice → server: loss 10%"]


def test_a_socket_has_its_states_where_packets_are_shown(tmp_path: Path) -> None:
    steps = "  - connect: alice\n  - send: {alice: hi}\n  - expect: {alice: hi}\n  - close: alice\n  - expect: {wire: {from: server, to: alice, flags: FIN}}\n"  # fmt: skip
    marks = drawn(play(steps, "eventloop", "[alice]", Options(runs=tmp_path)).events)
    root = ElementTree.fromstring(svg(marks, ["messages", "wire"]))

    states = {t.text for t in root.iter(f"{SVG}text") if "state" in str(t.get("class"))}
    told = " ".join(filter(None, states))
    assert all(state in told for state in ("SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "LAST_ACK"))
    assert "ESTABLISHED" not in svg(marks, ["messages"])


def test_mermaid_says_the_same_in_order() -> None:
    lines = [line.strip() for line in mermaid(drawn(TOLD), ["messages"]).splitlines()]

    assert lines[0] == "sequenceDiagram"
    assert lines[1:4] == [
        "participant n0 as alice",
        "participant n1 as server (chat)",
        "participant n2 as bob",
    ]
    assert lines[4:] == [
        "Note over n1,n2: server → bob cut",
        "n0->>n1: #34;hello\\n#34;",
        "n1->>n0: #34;hello\\n#34;",
        "Note over n1,n2: server → bob whole again",
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_was_sent_is_text_in_a_picture(text: str) -> None:
    marks = drawn(events(play_of(title=text[:500]), connected(1, "alice", 4000), sent(2, "alice", text), (4, "server", "log", {"text": text[:9999]})))  # fmt: skip

    root = ElementTree.fromstring(svg(marks))
    assert {e.tag for e in root.iter()} <= {
        SVG + t for t in ("svg", "title", "style", "rect", "text", "line", "g", "path", "circle")
    }
    assert "\x1b" not in mermaid(marks)
    assert all("<" not in line for line in mermaid(marks).splitlines())


def show(folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "socklab", "show", str(folder), *options], capture_output=True, timeout=60
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "history.jsonl").write_text("".join(event.to_json() + "\n" for event in TOLD))
    return tmp_path


def test_show_draws_a_recorded_run(run: Path) -> None:
    done = show(run, "--html", str(run / "a.html"), "--svg", str(run / "a.svg"), "--mermaid", "-")

    assert done.returncode == 0, done.stderr
    assert b"sequenceDiagram" in done.stdout
    assert (run / "a.svg").read_text().startswith("<svg")
    assert "<title>A play · socklab</title>" in (run / "a.html").read_text()


def test_show_makes_pixels(run: Path) -> None:
    pytest.importorskip("resvg_py", reason="PNG needs resvg-py (socklab[png])")

    assert show(run, "--png", str(run / "a.png")).returncode == 0
    assert (run / "a.png").read_bytes().startswith(b"\x89PNG")


def test_show_tells_events_as_json_lines(run: Path) -> None:
    assert show(run, "--json").stdout == (run / "history.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--svg", "-", "--only", "arrows"],
            "--only arrows: there is no arrows; there are messages, wire, log, other",
        ),
        (
            ["--svg", "-", "--nodes", "zoe"],
            "--nodes zoe: there is no zoe in this run; there are alice, server, bob",
        ),
        (["--svg", "/nowhere/a.svg"], "/nowhere/a.svg: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(run: Path, options: list[str], message: str) -> None:
    done = show(run, *options)

    assert done.returncode == 2
    assert done.stderr.decode().strip() == message
