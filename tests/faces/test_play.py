"""`socklab play`: exit codes, what is printed, what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from socklab.cli import main
from tests.faces.conftest import ECHO, ROOT, SCENARIO, Folder

WRONG = ECHO.replace("recv(CHUNK)", "recv(CHUNK).upper()")


def test_a_right_server_passes_and_its_story_is_told(folder: Folder, backend: str) -> None:
    """One play is told step by step; the exit code is 0 and the run leaves its history and the server's log."""
    done = folder.run("play", "--on", backend, "echo.scenario.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass  echo.scenario.yaml  What is sent comes back" in done.stdout
    assert 'alice ←            "hello"' in done.stdout
    assert f"1 passed, 0 failed on {backend}" in done.stdout
    (run,) = (folder.path / "runs").iterdir()
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [events[0]["kind"], events[-1]["kind"], events[-1]["verdict"]] == ["play", "verdict", "pass"]
    assert "listening" in (run / "server.log").read_text()


def test_a_wrong_server_fails_in_five_lines(folder: Folder, backend: str) -> None:
    """Step with file and line, expected, got, the server's log, and the way to the whole history; exit code 1."""
    assert WRONG != ECHO
    folder.service("echo", WRONG)

    done = folder.run("play", "--on", backend, "-q", "echo.scenario.yaml")

    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[1] == "echo.scenario.yaml:7: expect: {alice: hello} within: 1s"
    assert lines[2] == 'expected  alice: "hello", within 1s'
    assert lines[3].startswith('got       alice: "HELLO"')
    assert lines[4].startswith("server    ")
    assert "connected" in lines[4]
    assert any(line.startswith("history   socklab show runs/") for line in lines)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_server_that_dies_at_the_start_fails_at_once_with_its_stderr(folder: Folder, backend: str) -> None:
    """Nobody waits for a port that will never be there."""
    folder.service("echo", "import sys\nsys.exit('no configuration file')\n")

    done = folder.run("play", "--on", backend, "-q", "echo.scenario.yaml")

    assert done.returncode == 1
    assert "echo ended with status 1 before it listened" in done.stdout
    assert "no configuration file" in done.stdout


def test_a_server_that_dies_in_the_middle_is_told_of(folder: Folder, backend: str) -> None:
    """The cause line says that the process ended, with its last words."""
    folder.service("echo", ECHO.replace("recv(CHUNK)", "recv(1/0)"))

    done = folder.run("play", "--on", backend, "-q", "echo.scenario.yaml")

    assert done.returncode == 1
    assert "ended" in done.stdout
    assert "ZeroDivisionError" in done.stdout


def test_a_missing_program_is_an_error_of_the_lab(folder: Folder, backend: str) -> None:
    """Not the server's fault: verdict error, exit code 3, and the program's name."""
    folder.service("echo", "", command="./no-such-program --port 5000")

    done = folder.run("play", "--on", backend, "-q", "echo.scenario.yaml")

    assert done.returncode == 3
    assert "no-such-program" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_program_with_a_protocol_of_its_own_takes_the_servers_place(folder: Folder, backend: str) -> None:
    """No compose file knows it and no clause says what it keeps: it speaks lines over TCP, where it is told to listen."""
    folder.scenario(SCENARIO.replace("service: echo", "service: mine"))

    done = folder.run(
        "play", "--on", backend, "echo.scenario.yaml", "--",
        "python", "echo.py", "--host", "{host}", "--port", "{port}",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert 'alice →            "hello\\n"' in done.stdout


def test_an_invalid_scenario_is_refused_at_its_place_and_leaves_nothing(folder: Folder) -> None:
    """file:line:column, a caret, a near miss; exit code 2; nothing was started or written."""
    folder.scenario(SCENARIO.replace("expect: {alice", "expect: {alcie"))

    done = folder.run("play", "echo.scenario.yaml")

    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == 'echo.scenario.yaml:7:14: no client "alcie". Did you mean "alice"?'
    assert done.stderr.splitlines()[2].index("^") == done.stderr.splitlines()[1].index("alcie")
    assert not (folder.path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["play", "nowhere"], "nowhere: no such file or folder"),
        (["play", "echo.scenari.yaml"], 'Did you mean "echo.scenario.yaml"?'),
        (["play", "/proc/1"], "no scenario in this folder"),
        (["play", "--on", "moon"], "is none of auto, netns"),
        (["play", "--patience", "0"], "no factor"),
        (["play", "--compose", "none.yml", "echo.scenario.yaml"], "none.yml"),
        (["show", "nowhere"], "nowhere"),
        (["frobnicate"], "invalid choice"),
        ([], "required"),
        (["talk", "nobody"], 'no service "nobody"'),
        (["talk", "host:99999"], "no HOST:PORT"),
        (["talk", "echo", "--as", "alice"], "no lab is up here"),
        (["shell", "nobody"], 'no service "nobody"'),
        (["compare", "nobody"], 'no service "nobody"'),
        (["compare", "--compose", "none.yml", "echo"], "none.yml"),
        (["serve", "nowhere"], "nowhere: no such file or folder"),
        (["record", "there.yaml", "--to", "echo"], "name it so"),
        (["record", "new.scenario.yaml", "--to", "nobody"], 'no service "nobody"'),
        (["record", "new.scenario.yaml", "--to", "127.0.0.1:1"], "add --contract"),
        (["new", "echo.scenario.yaml"], "is there already"),
        (["init", "--lesson", "99"], "there is no lesson 99"),
        (["grade", "echo", "nowhere", "--", "true"], "nowhere"),
        (["logs", "echo"], "no lab is up here"),
        (["exec", "alice"], "exec needs a command"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(folder: Folder, arguments: list[str], words: str) -> None:
    """One or two lines, what was found and the way out, and never a traceback."""
    done = folder.run(*arguments)

    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.stdout == ""


def test_an_unknown_service_names_those_that_are_there(folder: Folder) -> None:
    folder.scenario(SCENARIO.replace("service: echo", "service: ehco"))

    done = folder.run("play", "echo.scenario.yaml")

    assert done.returncode == 2
    assert 'Did you mean "echo"?' in done.stderr


def test_beside_an_invalid_file_the_others_are_played(folder: Folder) -> None:
    """2 comes before 1 and 0, and what could be played was."""
    folder.scenario("title: nothing\n", "bad.scenario.yaml")

    done = folder.run("play", "--on", "process", ".")

    assert done.returncode == 2
    assert "1 passed, 0 failed, 1 invalid" in done.stdout


def test_what_a_backend_cannot_do_is_skipped_with_the_remedy(folder: Folder) -> None:
    """A skip alone is exit code 3: nothing was played."""
    folder.scenario(SCENARIO + "  - cut: {from: alice, to: server}\n")

    done = folder.run("play", "--on", "process", "echo.scenario.yaml")

    assert done.returncode == 3
    assert "needs link faults (cut), and the backend process has none: play it --on netns" in done.stdout


def test_runs_that_cannot_be_written_are_said_so(folder: Folder) -> None:
    """A file where the folder should be: an error of the lab, with the way out."""
    (folder.path / "runs").write_text("")

    done = folder.run("play", "--on", "process", "-q", "echo.scenario.yaml")

    assert done.returncode == 3
    assert "--runs" in done.stdout


def test_a_full_disk_is_said_so(folder: Folder) -> None:
    """The play goes on to its end; that its history is not whole makes the verdict an error."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system in a namespace of its own")
    (folder.path / "runs").mkdir()
    folder.scenario(
        SCENARIO.replace("{alice: hello}\n  - expect", "{alice: {text: hello, repeat: 20000}}\n  - expect")
    )
    script = f"mount -t tmpfs -o size=8k tmpfs runs && exec {sys.executable} -m socklab play --on process -q echo.scenario.yaml"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=folder.path, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 3, done.stdout + done.stderr
    assert "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_all_that_was_started(folder: Folder, backend: str, number: signal.Signals) -> None:
    """Exit code 130, no traceback, no process left. So does an order to end, and a terminal that is closed, which says so twice."""
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    folder.service(
        "echo",
        ECHO + f"# {mark}\n",
        command=f"python echo.py --host 0.0.0.0 --port 5000 --backlog 7{os.getpid() % 1000:03d}",
    )
    folder.scenario(SCENARIO + "  - wait: 60s\n    note: long enough for Ctrl-C\n")
    argv = [sys.executable, "-m", "socklab", "play", "--on", backend, "echo.scenario.yaml"]
    with subprocess.Popen(
        argv, cwd=folder.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # The keeper, the lab (in a PID namespace of its own: two), server, agent and, on netns, the capture.
        _until(lambda: len(_descendants(process.pid)) >= (6 if backend == "netns" else 4), process)
        before = _descendants(process.pid)
        process.send_signal(number)
        if number == signal.SIGHUP:
            process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert process.returncode == 128 + number, out + err
    assert "Traceback" not in err
    assert [pid for pid in before if _alive(pid)] == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_what_a_terminal_cannot_show_comes_as_an_escape(folder: Folder, encoding: str) -> None:
    """An arrow where there is only ASCII, the bytes of a file's name where they are no text."""
    env = {"PYTHONIOENCODING": encoding}
    played = folder.run("play", "--on", "process", "--no-runs", "echo.scenario.yaml", env=env)
    begun = folder.run("new", "caf\udce9.scenario.yaml", env=env)

    assert (played.returncode, begun.returncode) == (0, 0), played.stderr + begun.stderr
    assert "1 passed" in played.stdout
    assert "caf\\udce9.scenario.yaml: play it with" in begun.stdout


def test_whoever_reads_no_further_ends_the_plays(folder: Folder, backend: str) -> None:
    """`socklab play | head -1`: what is being played when the pipe breaks is ended, quietly, and nothing is left."""
    for number in range(12):
        folder.scenario(
            SCENARIO + f"  - wait: {number % 4 + 1}00ms\n    note: so that several are playing\n",
            f"scenarios/{number:02}.yaml",
        )
    argv = [sys.executable, "-m", "socklab", "play", "--jobs", "4", "--on", backend, "scenarios"]
    with subprocess.Popen(
        argv, cwd=folder.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("pass")
        before = _descendants(process.pid)
        process.stdout.close()
        process.wait(timeout=30)
        err = process.stderr.read()

    assert (process.returncode, err) == (3, "")
    assert [pid for pid in before if _alive(pid)] == []


def _until(done: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in list(found):
        found += _descendants(child)
    return found


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_recorded_run_is_told_again(folder: Folder) -> None:
    """`show` prints from history.jsonl alone what `play` printed."""
    played = folder.run("play", "--on", "process", "echo.scenario.yaml").stdout
    (run,) = (folder.path / "runs").iterdir()

    shown = folder.run("show", f"runs/{run.name}")

    assert shown.returncode == 0
    assert shown.stdout.splitlines() == played.splitlines()[: len(shown.stdout.splitlines())]


def test_a_recorded_run_drives_no_terminal(folder: Folder) -> None:
    """Whoever wrote it: names, addresses and faults come as text."""
    folder.run("play", "--on", "process", "-q", "echo.scenario.yaml")
    (run,) = (folder.path / "runs").iterdir()
    history = run / "history.jsonl"
    history.write_text(history.read_text().replace("alice", "\\u001b[2Jalice"))

    shown = folder.run("show")

    assert shown.returncode == 0
    assert "\\x1b[2Jalice" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_newest_run_is_found_beside_what_is_none(folder: Folder) -> None:
    folder.run("play", "--on", "process", "-q", "echo.scenario.yaml")
    (folder.path / "runs" / "cleaned-up").mkdir()
    (folder.path / "runs" / "cleaned-up" / "history.jsonl").symlink_to("nowhere")

    assert folder.run("show").returncode == 0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a" * 300, "File name too long; a run is a folder with a history.jsonl in it"),
        ("broken", "broken: No such file or directory; a run is a folder with a history.jsonl in it"),
    ],
)
def test_a_path_that_leads_to_no_run_is_said_so(folder: Folder, path: str, said: str) -> None:
    (folder.path / "broken").symlink_to("nowhere")

    done = folder.run("show", path)

    assert done.returncode == 2
    assert done.stderr.strip().endswith(said)


def test_a_link_that_leads_nowhere_is_said_so(folder: Folder) -> None:
    (folder.path / "mine.scenario.yaml").symlink_to("yours.scenario.yaml")

    done = folder.run("play", "mine.scenario.yaml")

    assert done.returncode == 2
    assert done.stderr == "mine.scenario.yaml: is a link that leads nowhere, to yours.scenario.yaml\n"


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_changes_nothing(folder: Folder, streams: str) -> None:
    """Neither what comes of a play nor where its sockets and files are."""
    command = f"{sys.executable} -m socklab play --on process echo.scenario.yaml {streams}"
    done = subprocess.run(["sh", "-c", command], cwd=folder.path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = (folder.path / "runs").iterdir()
    assert json.loads((run / "history.jsonl").read_text().splitlines()[-1])["verdict"] == "pass"


@pytest.mark.parametrize("words", ["play --on process --no-runs echo.scenario.yaml", "schema", "show"])
def test_output_for_which_there_is_no_room_is_said_so(folder: Folder, words: str) -> None:
    """In one line, with exit code 3; a message that cannot be written either leaves the exit code."""
    folder.run("play", "--on", "process", "-q", "echo.scenario.yaml")
    for streams, said in ((">/dev/full", "No space left on device"), (">/dev/full 2>/dev/full", "")):
        command = f"{sys.executable} -m socklab {words} {streams}"
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder.path, capture_output=True, text=True, timeout=60
        )

        assert done.returncode == 3
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == bool(said)


def test_whoever_reads_no_further_is_told_nothing(folder: Folder) -> None:
    """`socklab play | head -1`: the play is ended in order, and nothing is left."""
    command = f"{sys.executable} -m socklab schema | head -1; {sys.executable} -m socklab play --on process -v echo.scenario.yaml | true"
    done = subprocess.run(["sh", "-c", command], cwd=folder.path, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_regular_expression_without_end_is_said_so(folder: Folder) -> None:
    """`(a+)+` tries 2^40 ways to read a line of forty a and something else. The server is not blamed, and the play ends."""
    folder.scenario(
        SCENARIO.replace("hello}\n    within", "'/^(a+)+$/'}\n    within").replace("hello", "a" * 40 + "!")
    )

    done = folder.run("play", "--on", "process", "-q", "echo.scenario.yaml")

    assert done.returncode == 3
    assert "echo.scenario.yaml:7: alice: /^(a+)+$/: this regular expression comes to no end" in done.stdout


def test_the_schema_beside_the_scenarios_is_the_current_one() -> None:
    """scenario.schema.json is what `socklab schema` prints; `make schema` writes it anew."""
    printed = subprocess.run(
        [sys.executable, "-m", "socklab", "schema"], capture_output=True, text=True, check=True
    ).stdout

    assert json.loads(printed) == json.loads((ROOT / "scenario.schema.json").read_text())


def test_every_command_has_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert {"play", "cut", "loss", "check"} <= set(commands)

    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"socklab {command}" in capsys.readouterr().out
