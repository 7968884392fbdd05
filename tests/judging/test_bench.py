"""`socklab bench` from the command line: what it prints, what it leaves, and what it says of wrong servers and wrong orders."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from socklab import bench, load
from socklab.bench import Row
from socklab.load import Load, Measured, Subject
from tests.clients.agent_process import until
from tests.judging.conftest import ECHO, ROOT, START, Run

WRONG = ROOT / "tests" / "zoo" / "wrong"
RIGHT = ROOT / "tests" / "zoo" / "right"
SHORT = ("--seconds", "0.2", "--rounds", "1")


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A right echo server of somebody's, server.py."""
    (tmp_path / "server.py").write_text(ECHO)
    return tmp_path / "server.py"


def figures(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def test_servers_stand_side_by_side_and_each_load_has_its_table(run: Run, tmp_path: Path) -> None:
    """The figures of a table stand in the file, too, with all that they were made of."""
    done = run("bench", "chat", "--clients", "1x5,2x5", *SHORT, "--json", "out.json")

    assert done.returncode == 0, done.stdout + done.stderr
    tables = done.stdout.strip().split("\n\n")
    assert [table.split("  ")[0] for table in tables] == ["1→5, 64 B", "2→5, 64 B"]
    for table in tables:
        assert [line.split()[0] for line in table.splitlines()[1:3]] == ["chat", "chat-eventloop"]
        assert re.search(r"deliveries/s +server, s a million deliveries +generator", table)
    rows = figures(tmp_path / "out.json")
    assert [(row["subject"], row["load"]) for row in rows] == [
        (name, name_of) for name_of in ("1→5, 64 B", "2→5, 64 B") for name in ("chat", "chat-eventloop")
    ]
    for row in rows:
        (each,) = row["rounds"]
        assert each["wrong"] == []
        assert each["per_second"] > 0
        assert each["processor"] > 0
        assert each["descriptors"] <= 0


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (("echo", "eventloop", "--clients", "5", "--in-flight", "4"), "5 × 64 B, 4 in flight"),
        (("echo", "eventloop", "--clients", "5", "--rate", "200"), "5 × 64 B, 200/s"),
        (("echo", "threaded", "--clients", "4", "--agents", "2"), "4 × 64 B"),
        (("echo", "forking", "--load", "churn", "--clients", "3"), "come and go, 3 at once"),
        (("chat", "chat", "--load", "churn", "--clients", "3", "--size", "2"), "come and go, 3 at once"),
        (("chat", "chat-eventloop", "--load", "idle", "--clients", "30"), "30 idle"),
        (("registry", "--clients", "1x5", "--rate", "100"), "1→5, 64 B, 100/s"),
        (("udp-echo", "--clients", "5"), "5 × 64 B"),
        (("registry", "--load", "idle", "--clients", "20"), "20 idle"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_every_load_has_its_figures(run: Run, tmp_path: Path, words: tuple[str, ...], shows: str) -> None:
    done = run("bench", *words, *SHORT, "--json", "out.json")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[0].startswith(shows)
    assert done.stderr == ""
    (row,) = figures(tmp_path / "out.json")
    measured = row["rounds"][0]
    assert measured["per_second"] > 0
    if "--rate" in words or "churn" in words:
        assert set(measured["percentiles"]) == {"p50", "p99", "p99.9", "max"}
        assert "p99.9" in done.stdout
    if "idle" in words:
        assert measured["per_second"] == measured["load"]["receivers"]
        assert "memory a client" in done.stdout
    else:
        assert measured["processor"] > 0


def test_a_server_of_ones_own_stands_beside_ours_and_peers(run: Run, echo: Path, tmp_path: Path) -> None:
    """Ratios are to the best peer; a C compiler makes one."""
    words = ("echo", "eventloop", "--peers", "--clients", "5", *SHORT, "--json", "out.json")
    done = run("bench", *words, *START, PATH=os.environ["PATH"])

    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {"eventloop", "yours"} <= set(lines)
    skipped = re.findall(r"skipped: (.*?): (.*)", done.stderr)
    names = {row["subject"] for row in figures(tmp_path / "out.json")}
    for name, why in skipped:
        assert name not in names
        assert "apt install" in why
    if peers := names - {"eventloop", "yours"}:
        assert "× best peer" in done.stdout
        assert any(re.search(r" 1\.00 ", lines[peer]) for peer in peers)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler (apt install gcc libc6-dev)")
@pytest.mark.parametrize(
    "source", [*ROOT.glob("socklab/peers/*.c"), *RIGHT.glob("*.c")], ids=lambda path: path.name
)
def test_what_is_in_c_can_be_compiled_by_stricter_compilers(source: Path, tmp_path: Path) -> None:
    """What one warns of, such as a call that no header declares, the next version refuses."""
    done = subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "program", source],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


def test_peers_that_are_missing_are_skipped_by_name(run: Run, tmp_path: Path) -> None:
    """Where there is no compiler, what is compiled here; the others are measured."""
    (tmp_path / "bin").mkdir()
    done = run(
        "bench", "registry", "--peers", "--clients", "1x3", *SHORT, PATH=str(tmp_path / "bin")
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped: C, sendto: there is no C compiler (apt install gcc libc6-dev)" in done.stderr
    assert "udp-registry" in done.stdout


@pytest.mark.parametrize(
    ("contract", "name", "clients", "says"),
    [
        ("echo", "echo-upper-case", "3", r"3 damaged; the first: client \d heard b'.*' at byte \d+, not b'"),
        (
            "echo",
            "echo-start-crashes",
            "3",
            r"ended with status 1 before it listened\s+yours: its last line: \w+Error",
        ),
        (
            "chat",
            "chat-first-line-only",
            "1x3",
            r"lost; the first: '~0000.*' came, and \d+ before it had not",
        ),
        ("chat", "chat-order-is-lost", "1x3", "reordered"),
        ("registry", "registry-adds-a-name", "1x3", r"lost; \d+ damaged"),
        ("udp-echo", "udp-echo-cuts-at-1024", "3", r"(\d+) lost; \1 damaged"),
    ],
)
def test_what_a_server_of_ones_own_does_wrong_is_said(
    run: Run, contract: str, name: str, clients: str, says: str
) -> None:
    """With exit code 1, and the first that was wrong."""
    command = ("--", "python3", str(WRONG / f"{name}.py"), "{host}", "{port}")
    done = run("bench", contract, "--clients", clients, "--size", "1200", *SHORT, *command)

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(says, done.stdout), done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("echo", "--clients", "1x5"), '--clients: "1x5" is no list of numbers'),
        (("chat", "--clients", "5"), '--clients "5": here it is SENDERSxRECEIVERS, like 10x100'),
        (("chat", "--clients", "0x5"), '--clients "0x5"'),
        (("chat", "--size", "15"), "has 16 bytes at least"),
        (("udp-echo", "--size", "18"), "has 19 bytes at least"),
        (("echo", "--size", "0"), "no list of numbers from 1 to"),
        (("echo", "--rate", "0"), "no number of messages a second"),
        (("echo", "--seconds", "0.01"), "no number of seconds"),
        (
            ("echo", "--clients", "1", "--agents", "2"),
            "so many generators have not one client each (--clients 1)",
        ),
        (("chat", "--agents", "2"), "needs a --rate"),
        (
            ("chat", "--agents", "2", "--rate", "5", "--clients", "1x1"),
            "so many generators have not one listener each (--clients 1x1)",
        ),
        (("chat", "--in-flight", "2"), "--in-flight is for an echo"),
        (("echo", "--load", "idle", "--rate", "5"), "--rate says nothing of clients who only stay"),
        (("registry", "--load", "churn"), "over UDP nobody connects"),
        (("echo", "chat"), "chat is a server of the contract chat, not of echo"),
        (("echo", "nobody"), "nobody"),
        (("echo", "--json", "nowhere/out.json"), "there is no folder nowhere"),
        (("echo", "--json", "/"), "/: is a folder; name another file"),
        (("echo", "--address", "here"), '"here" is no HOST:PORT'),
        (("telegraph",), "invalid choice"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    run: Run, words: tuple[str, ...], says: str
) -> None:
    done = run("bench", *words)

    assert done.returncode == 2
    assert says in done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert 1 <= len(told) <= 2
    assert done.stdout == ""


def test_a_plot_without_its_library_is_said_before_anything_is_measured(run: Run, tmp_path: Path) -> None:
    """Not after minutes of measuring."""
    blocked = "import sys\nsys.modules['matplotlib'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocked)
    done = run("bench", "echo", "eventloop", "--plot", "out.svg", PYTHONPATH=f"{tmp_path}:{ROOT}")

    assert done.returncode == 2
    assert "--plot needs matplotlib: pip install 'socklab[plot]'" in done.stderr
    assert done.stdout == ""


def test_nothing_that_can_be_measured_is_three(run: Run, tmp_path: Path) -> None:
    """A file to which nothing can be written, or what cannot be started."""
    done = run("bench", "echo", "eventloop", "--clients", "1", *SHORT, "--json", "/dev/full")
    assert done.returncode == 3
    assert "the figures cannot be left there" in done.stderr

    done = run("bench", "echo", "--clients", "1", *SHORT, "--", "./no-such-program", "{host}", "{port}")
    assert done.returncode in (1, 3)
    assert "no-such-program" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_where_nobody_listens_is_told_once(run: Run) -> None:
    done = run("bench", "chat", "--address", "127.0.0.1:1")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("nothing listens at 127.0.0.1:1")
    assert done.stderr.count("\n") == 1


def test_a_load_that_no_generator_can_make_takes_no_figures_with_it(run: Run) -> None:
    """What was measured before it is told."""
    done = run("bench", "chat", "chat-eventloop", "--clients", "1x2,200x1", "--size", "60000", *SHORT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^chat-eventloop +\d", done.stdout, re.MULTILINE), done.stdout
    assert "200 senders of 59999 bytes take" in done.stdout


def test_namespaces(run: Run, why_no_netns: str | None) -> None:
    """Server and generator as hosts of their own."""
    if why_no_netns:
        pytest.skip(why_no_netns)
    done = run("bench", "chat", "chat-eventloop", "--clients", "2x5", "--on", "netns", *SHORT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"chat-eventloop +[\d.,]+", done.stdout)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(tmp_path: Path, echo: Path, number: int, status: int) -> None:
    """In the middle of a load: the server and the generator end, too, and the folder for files goes."""
    (tmp_path / "tmp").mkdir()
    argv = [sys.executable, "-m", "socklab", "bench", "echo", "--seconds", "60", *START]
    os.mkfifo(tmp_path / "began")
    began = "import os\nopen('began', 'w').write(str(os.getpid()))\nimport argparse"
    echo.write_text(ECHO.replace("import argparse", began, 1))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(
        argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pid = int((tmp_path / "began").read_text())  # waits for the server, which is about to listen
    clock = ~pid << 3 | 2  # clock_getcpuclockid(3)
    until(lambda: time.clock_gettime(clock) > 0.3, "the server is under load")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == status
    assert not any((tmp_path / "tmp").iterdir())
    assert "Traceback" not in err
    assert out == ""
    assert not Path(f"/proc/{pid}").exists()


# Rows and tables, as they are made of measurements.


def measured(per_second: float, **more: Any) -> Measured:
    return Measured(subject="yours", load=LOAD, per_second=per_second, processor=1e-6, **more)


LOAD = Load(kind="echo", receivers=5)


def row(subject: str, *rounds: Measured, peer: str = "") -> Row:
    """No server is started."""
    return Row(Subject(subject, None, None, peer=peer), rounds[0].load, rounds)  # type: ignore[arg-type]


def test_a_row_has_the_median_and_the_spread_of_its_rounds() -> None:
    one = row("yours", measured(100), measured(300), measured(200))
    best = row("other", measured(400), peer="a package")
    table = list(bench.tables([one, best]))

    assert re.search(r"^yours +200 \(100–300\) +0\.50 ", table[2])
    assert re.search(r"^other +400 +1\.00 ", table[3])


def test_a_generator_without_time_says_that_the_server_may_do_more() -> None:
    table = "\n".join(bench.tables([row("yours", measured(100, busy=0.99))]))

    assert "≥ 100" in table
    assert "the generator had no time left; the server may do more" in table
    assert "≥" not in "\n".join(bench.tables([row("yours", measured(100, busy=0.5))]))


def test_a_peer_that_delivered_nothing_is_no_measure() -> None:
    table = list(bench.tables([row("yours", measured(100)), row("other", measured(0), peer="a package")]))

    assert "× best peer" not in table[1]


def test_what_was_due_and_not_taken_is_told() -> None:
    table = "\n".join(bench.tables([row("yours", measured(100, unsaid=1234))]))

    assert "yours: did not take 1,234 messages that were due; they are in no latency" in table


def test_percentiles_are_of_all_that_came() -> None:
    """(microseconds, how often), of several generators, in any order."""
    found = load.percentiles([(1000, 1), (10, 989), (500, 10)])

    assert found == {"p50": 10e-6, "p99": 500e-6, "p99.9": 500e-6, "max": 1e-3}
    assert load.percentiles([]) == {}


def test_the_processor_time_of_children_counts() -> None:
    """Of those that are there, and of those that have been waited for; each has had less than a tick of 10 ms."""
    program = (
        "import os, sys, time\n"
        "for ends in (True, False) * 20:\n"
        "    if (pid := os.fork()) == 0:\n"
        "        while time.process_time() < 0.005: pass\n"
        "        os._exit(0) if ends else (sys.stdin.read(), os._exit(0))\n"
        "    if ends: os.waitpid(pid, 0)\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        until(lambda: load.processor_time(process.pid) >= 40 * 0.005, "all children have had their time")
        process.stdin.close()
