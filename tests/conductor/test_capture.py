"""capture.pcapng: every packet once, in its time, with what the scenario did and what became of the packet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from socklab.conductor import Options
from socklab.verdict import Result, Verdict
from tests.conductor.lab import play

TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (apt install tshark)")


def captured(folder: Path, steps: str, service: str, clients: str = "[alice, bob]") -> tuple[Result, Path]:
    result = play(steps, service, clients, Options(runs=folder))
    assert result.verdict is Verdict.PASS, result.reason
    assert result.notes == ()
    assert result.folder is not None
    return result, result.folder / "capture.pcapng"


def read(path: Path, *fields: str, only: str = "") -> list[list[str]]:
    """What tshark reads in it; it has nothing to complain of."""
    assert TSHARK is not None
    wanted = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        [TSHARK, "-n", "-r", str(path), "-Y", only, "-T", "fields", *wanted],
        capture_output=True,
        text=True,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if line and 'Running as user "root"' not in line]
    assert complaints == []
    return [line.split("\t") for line in done.stdout.splitlines()]


@needs_tshark
def test_it_shows_each_packet_once_with_steps_and_fates(tmp_path: Path) -> None:
    _, path = captured(
        tmp_path,
        "  - drop: {from: alice, to: server, nth: 2}\n"
        "  - send: {alice: [one, two]}\n  - expect: {alice: one}\n"
        "  - send: {bob: three}\n  - expect: {bob: three}\n",
        "udp-echo",
    )

    rows = read(path, "frame.interface_name", "data.text", "udp.payload", "frame.comment", only="udp")
    shown = [(row[0], bytes.fromhex(row[2]).decode()) for row in rows]
    assert sorted(shown) == [
        ("alice eth0", "one"),
        ("alice eth0", "two"),
        ("bob eth0", "three"),
        ("server eth0", "one"),
        ("server eth0", "three"),
    ]
    comments = {text: row[3] for row, (_, text) in zip(rows, shown, strict=True) if row[0] != "server eth0"}
    assert comments["two"] == "dropped on its way to server (drop)"
    said = [row[0] for row in read(path, "frame.comment") if row[0]]
    assert said[0].startswith("5: drop: {from: alice, to: server, nth: 2}")
    assert any("8: send: {bob: three}" in each for each in said)


@needs_tshark
def test_a_retransmission_is_one_to_wireshark_too_and_nothing_else_is(tmp_path: Path) -> None:
    """Packets that were seen at both ends would all look like that."""
    result, path = captured(
        tmp_path,
        "  - connect: alice\n  - drop: {from: alice, to: server, nth: 1, data: true}\n"
        "  - send: {alice: hello}\n  - expect: {alice: hello}\n",
        "threaded",
    )

    assert len(read(path, "frame.number", only="tcp.analysis.retransmission")) == 1
    told = [e.data["words"] for e in result.events if e.kind == "wire"]
    assert told.count(["retransmission"]) == 1


@needs_tshark
def test_what_two_programs_on_one_host_say_is_there_once(tmp_path: Path) -> None:
    _, path = captured(
        tmp_path,
        "  - send: {alice: hello}\n  - expect: {alice: hello}\n",
        "udp-echo",
        "[{alice: {beside: server}}]",
    )

    assert [row[0] for row in read(path, "frame.interface_name", only="udp")] == ["server lo", "server lo"]


@needs_tshark
def test_segments_are_no_larger_than_a_wire_carries(tmp_path: Path) -> None:
    """Not 64 KiB, as the kernel would hand them from host to host; and all of them are there."""
    _, path = captured(
        tmp_path,
        "  - connect: alice\n  - send: {alice: {text: x, repeat: 1000000}}\n"
        "  - expect: {alice: {exactly: sent}}\n    within: 20s\n",
        "eventloop",
    )

    rows = read(path, "frame.len", "tcp.len", "ip.src", only="tcp")
    assert max(int(row[0]) for row in rows) <= 1514
    for source in {row[2] for row in rows}:
        assert sum(int(row[1]) for row in rows if row[2] == source) >= 1_000_000


@needs_tshark
@pytest.mark.timeout(120)
def test_a_flood_is_captured_whole(tmp_path: Path) -> None:
    """20,000 datagrams at 20,000 a second at most, and their echoes."""
    result, path = captured(
        tmp_path,
        '  - send: {alice: {text: "n{n}", lines: 20000, pause: 50us}}\n    within: 20s\n'
        "  - send: {bob: done}\n  - expect: {bob: done}\n    within: 10s\n",
        "udp-echo",
    )

    rows = read(path, "frame.interface_name", only="udp.dstport == 7001")
    assert [row[0] for row in rows].count("alice eth0") == 20_000
    assert result.notes == ()


def test_without_a_folder_nothing_is_left_and_the_wire_is_still_seen() -> None:
    result = play("  - connect: alice\n  - expect: {wire: {from: alice, flags: SYN}}\n", "threaded")

    assert result.verdict is Verdict.PASS, result.reason
    assert result.folder is None


def test_no_capture_leaves_only_the_history(tmp_path: Path) -> None:
    result = play(
        "  - send: {alice: hello}\n  - expect: {alice: hello}\n",
        options=Options(runs=tmp_path, capture=False),
    )

    assert result.folder is not None
    assert sorted(p.name for p in result.folder.iterdir()) == ["history.jsonl", "report.html", "server.log"]
