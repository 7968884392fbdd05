"""`socklab check`: what is told of a right server, of wrong ones, and of those that never come to be one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import pseudo_terminal
from tests.judging.conftest import CHAT, ECHO, ROOT, START, Run

WRONG = ROOT / "tests" / "zoo" / "wrong"
PROMPTS = """
import socket, sys, threading
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
clients, lock = {}, threading.Lock()

def say(text, but=None):
    with lock:
        for client in [c for c in clients if c is not but]:
            client.sendall(text)

def serve(client):
    lines = client.makefile("rb")
    client.sendall(b"Welcome! Enter your nickname: ")
    name = lines.readline().strip()
    with lock:
        clients[client] = name
    say(b"*** " + name + b" has joined\\n", client)
    for line in lines:
        if line.rstrip() == b"/exit":
            break
        if line.rstrip():
            say(name + b": " + line.rstrip(b"\\r\\n") + b"\\r\\n", client)
    with lock:
        del clients[client]
    client.shutdown(socket.SHUT_RDWR)

while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def test_a_right_server_gets_all_its_points(run: Run, server: Path, tmp_path: Path) -> None:
    """On a terminal, as JSON, and as JUnit; and the exit code says so."""
    done = run("check", "chat", "--no-runs", "--json", "out.json", "--junit", "out.xml", *START)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert f"right: {report['points']:g} of {report['points']:g} points" in done.stdout
    assert report["points"] == report["possible"] >= 20
    assert {item["category"] for item in report["items"]} >= {
        "framing",
        "fan-out",
        "presence",
        "leaks",
        "concurrency",
    }
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()[0]
    assert (suite.get("failures"), int(suite.get("tests") or 0)) == ("0", len(report["items"]))
    assert not (tmp_path / "runs").exists()


def test_on_a_terminal_it_says_how_far_it_has_come(server: Path, tmp_path: Path) -> None:
    """Of a server that is slow, which scenario it is that takes so long."""
    ours, theirs = pseudo_terminal.opened(columns=100)
    words = ("check", "chat", "--no-runs", "--only", "quit-leaves", *START)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = pseudo_terminal.run(
        [sys.executable, "-m", "socklab", *words], theirs, cwd=tmp_path, env=environment
    )
    said = b""
    while came := pseudo_terminal.read(ours):
        said += came
    os.close(ours)

    assert program.wait() == 0
    assert b"0 of 1 played, now quit-leaves" in said
    assert b": 1 of 1 points" in said.rpartition(b"\033[K")[2]


def test_a_part_of_the_contract_can_be_asked_alone(run: Run, server: Path, tmp_path: Path) -> None:
    """Categories and scenarios by name: what one works on."""
    done = run("check", "chat", "--no-runs", "--json", "out.json", "--only", "framing", "--only", "quit-leaves", *START)  # fmt: skip

    items = json.loads((tmp_path / "out.json").read_text())["items"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert {item["category"] for item in items} == {"framing", "presence"}
    assert [item["scenario"] for item in items if item["category"] == "presence"] == ["quit-leaves"]


def test_a_wrong_server_is_told_what_is_wrong_where_and_why(run: Run, tmp_path: Path) -> None:
    """The evidence: step with file and line, expected, got, the likely cause, and the way to the whole history."""
    done = run("check", "chat", "--", "python3", str(WRONG / "chat-first-line-only.py"), "{host}", "{port}")

    assert done.returncode == 1
    assert "one-segment-may-hold-many-lines.yaml:" in done.stdout
    assert "of several lines in one segment only the first was delivered" in done.stdout
    assert "socklab show runs/" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("wrong: ")
    assert list((tmp_path / "runs").glob("*/history.jsonl"))


UNFINISHED = """
import socket, sys, threading

def serve(client):
    while client.recv(1024):
        pass  # TODO: send it to everybody

listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    threading.Thread(target=serve, args=listener.accept()[:1]).start()
"""


def test_of_a_server_that_sends_nothing_yet_one_failure_speaks_for_all(run: Run, tmp_path: Path) -> None:
    """The first check of somebody who has just begun fits on a screen, and proposes no dialect for what is not there."""
    (tmp_path / "server.py").write_text(UNFINISHED)

    done = run("check", "chat", "--no-runs", "--", "python3", "server.py", "{host}", "{port}")

    assert "no client got a single byte from it, in any scenario" in done.stdout
    assert "✗ Everyone hears a line, once, in order" in done.stdout
    assert done.stdout.count("cause ") == 1
    assert "sends it to nobody" in done.stdout
    assert "--dialect quit" not in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start-loopback-only", ["it listens on 127.0.0.1 only", "it binds the loopback address"]),
        ("start-another-port", ["it listens on port 9999 instead", "--port 9999", "its port is written into the program"]),
        ("start-ipv6-only", ["it listens on IPv6 only", "its socket takes IPv6 only"]),
        ("start-home-address", ["Cannot assign requested address", "one of its author's network"]),
        ("start-asks-for-the-port", ["EOFError", "it asks for something at the keyboard"]),
        ("start-udp-instead", ["its socket on that port is one of UDP", "SOCK_DGRAM"]),
        ("start-crashes", ["ended with status 1 before it listened", "NameError"]),
    ],
)  # fmt: skip
def test_one_that_never_becomes_a_server_is_told_why_in_plain_words(
    run: Run, name: str, words: list[str]
) -> None:
    done = run("check", "echo", "--no-runs", "--on", "netns", "--", "python3", str(WRONG / f"echo-{name}.py"), "{host}", "{port}")  # fmt: skip
    if "network namespaces do not work" in done.stderr:
        pytest.skip(done.stderr)

    assert done.returncode == 1, done.stdout + done.stderr
    assert [word for word in words if word not in done.stdout] == []


def test_advice_costs_nothing_unless_it_is_asked_for_by_name(run: Run, tmp_path: Path) -> None:
    """A server that cannot start again at once, without SO_REUSEADDR: the step and the cause, and that it did start before."""
    text = ECHO.replace("socket.SO_REUSEADDR, 1", "socket.SO_REUSEADDR, 0")
    assert text != ECHO
    (tmp_path / "server.py").write_text(text)
    name = "the-same-port-again-at-once"
    for only, code, words in (
        ("shutdown", 3, "✗ shutdown         advice"),
        (name, 1, "✗ shutdown         0 of 1"),
    ):
        done = run("check", "echo", "--no-runs", "--only", only, *START)

        assert done.returncode == code, done.stdout + done.stderr
        assert words in done.stdout
        assert "✓ start and port" in done.stdout
        assert f"{name}.yaml:13: restart: server" in done.stdout
        assert "SO_REUSEADDR is not set" in done.stdout


def test_a_port_that_is_written_into_the_program_can_be_named(run: Run) -> None:
    """--port says where it listens; on one loopback the plays then come one after another."""
    wrong = str(WRONG / "echo-start-another-port.py")
    for backend in ("auto", "process"):
        done = run(
            "check",
            "echo",
            "--no-runs",
            "--on",
            backend,
            "--port",
            "9999",
            "--",
            "python3",
            wrong,
            "{host}",
            "1",
        )

        assert "right: " in done.stdout, done.stdout + done.stderr


def test_a_server_on_the_loopback_is_judged_by_clients_on_its_own_host(run: Run) -> None:
    """As students write it: address and port in the program. Without links there are no link faults, and points for them."""
    program = "import socketserver\n" + (
        "class H(socketserver.BaseRequestHandler):\n"
        " def handle(self):\n"
        "  while data := self.request.recv(65536): self.request.sendall(data)\n"
        "class S(socketserver.ThreadingTCPServer): allow_reuse_address = True; request_queue_size = 128\n"
        "S(('127.0.0.1', 9999), H).serve_forever()\n"
    )
    done = run("check", "echo", "--port", "9999", "--", "python3", "-c", program)
    assert done.returncode == 1
    assert "listens on 127.0.0.1 only; bind 0.0.0.0, or say --loopback" in done.stdout

    done = run("check", "echo", "--port", "9999", "--loopback", "-v", "--", "python3", "-c", program)
    assert done.returncode == 0, done.stdout
    assert "with --loopback there is no link" in done.stdout


def test_an_iterative_server_is_asked_for_what_it_can_do(run: Run) -> None:
    words = ["--", "python3", str(ROOT / "services" / "echo.py"), "--host", "{host}", "--port", "{port}"]

    assert run("check", "echo", "--no-runs", "--iterative", *words).returncode == 0
    assert "it serves one client at a time" in run("check", "echo", "--no-runs", *words).stdout


def test_a_server_that_runs_already_is_judged_and_left_running(run: Run, tmp_path: Path) -> None:
    """Nothing of it can be started, so what would need that is not played."""
    (tmp_path / "server.py").write_text(CHAT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "server.py", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        server.stdout.readline()  # ready
        try:
            done = run("check", "chat", "--no-runs", "--address", f"127.0.0.1:{port}")
            assert server.poll() is None
        finally:
            server.send_signal(signal.SIGTERM)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "it runs already" in done.stdout
    assert "not played" in done.stdout


def test_another_machine_is_not_tested_before_the_user_says_that_it_may(run: Run) -> None:
    done = run("check", "chat", "--address", "192.0.2.1:6001")

    assert done.returncode == 2
    assert "192.0.2.1 is another machine" in done.stderr
    assert "--i-may-test-this-host" in done.stderr


def test_a_dialect_is_proposed_and_then_obeyed(run: Run, tmp_path: Path) -> None:
    """A prompt for a name, another quit word, no echo to the sender, who joined: data, not another scenario."""
    (tmp_path / "prompts.py").write_text(PROMPTS)
    start = ("--", "python3", "prompts.py", "{host}", "{port}")

    plain = run("check", "chat", "--no-runs", *start)
    assert plain.returncode == 1
    assert 'it asks "Welcome! Enter your nickname: " first' in plain.stdout

    (tmp_path / "class.dialect.yaml").write_text(
        "join: '{name}'\nquit: /exit\necho: off\nignore: ['^Welcome', '^[*]{3} ']\n"
    )
    told = run("check", "chat", "--no-runs", "--json", "out.json", "--dialect", "class.dialect.yaml", *start)
    report = json.loads((tmp_path / "out.json").read_text())
    passed = {item["scenario"] for item in report["items"] if item["verdict"] == "pass"}
    assert {"everyone-hears-a-line", "quit-leaves", "nobody-has-to-speak", "one-segment-may-hold-many-lines"} <= passed, told.stdout  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chat"], "what server? Name a command"),
        (["chat", "python3", "server.py"], "the command that starts a server stands behind --"),
        (["chat", "--iterative", "--", "x"], "--iterative is a way to echo"),
        (["chat", "--address", "1.2.3.4"], 'is no HOST:PORT'),
        (["chat", "--address", "127.0.0.1:1", "--", "x"], "either --address"),
        (["chat", "--port", "70000", "--", "x"], "is no port from 1 to 65535"),
        (["chat", "--dialect", "quit", "--", "x"], "cannot be read"),
        (["chat", "--dialect", "frames=u7", "--", "x"], "expected lines, chunks"),
        (["chat", "--dialect", "ignore=(", "--", "x"], "not a regular expression"),
        (["chat", "--dialect", "ignore=a{99999999999}", "--", "x"], "not a regular expression"),
        (["chat", "--dialect", "ignore=", "--", "x"], "every line would be ignored"),
        (["chat", "--dialect", "join=\udcff", "--", "x"], "is not UTF-8"),
        (["chat", "--", "", "x"], "begins with nothing; is a variable empty?"),
        (["chat", "--address", "a..b:80"], "a..b: no name of a host"),
        (["chat", "--address", "127.0.0.1:²"], "is no HOST:PORT"),
        (["chat", "--image", "x", "--on", "netns"], "an image is started by Docker"),
        (["chat", "--on", "docker", "--", "x"], "name one with --image"),
        (["chat", "--only", "framming", "--", "x"], 'Did you mean "framing"?'),
        (["chat", "--", "no-such-program"], "no such program on the PATH"),
        (["chat", "--address", "127.0.0.1:1"], "nothing listens at 127.0.0.1:1"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_a_line_with_the_way_out(run: Run, words: list[str], said: str) -> None:
    done = run("check", *words)

    assert done.returncode in (2, 3)
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_what_a_length_cannot_say_is_not_asked(run: Run, tmp_path: Path) -> None:
    """A line of 64 KiB has one byte more than two bytes of length can say."""
    (tmp_path / "any.py").write_text(CHAT)
    words = ("--dialect", "frames=u16be", "--only", "a-line-of-64-kib", "--", "python3", "any.py", "{host}", "{port}")  # fmt: skip
    done = run("check", "chat", "-v", "--no-runs", *words)

    assert "says 65,536 bytes at once, and this server's messages have 65,535 at most (u16be)" in done.stdout


def test_an_address_that_is_none_is_usage_and_one_where_nobody_listens_is_not(run: Run) -> None:
    assert [run("check", "chat", "--address", each).returncode for each in ("foo", "127.0.0.1:1")] == [2, 3]


def test_a_guest_that_takes_too_much_is_ended_and_that_is_the_cause(run: Run, tmp_path: Path) -> None:
    """Memory is watched, so that it ends as its own verdict, and not as the machine's."""
    (tmp_path / "hungry.py").write_text("x = []\nwhile True:\n    x.append(bytearray(50_000_000))\n")

    done = run("check", "echo", "--no-runs", "--", "python3", "hungry.py")

    assert done.returncode == 1
    assert "MiB of memory, and may take 1024" in done.stdout


def test_a_program_of_ones_own_plays_any_scenario_of_a_contract(run: Run, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(ECHO)
    path = str(ROOT / "scenarios" / "echo" / "what-is-sent-comes-back.yaml")

    done = run("play", "--no-runs", path, *START)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


# A right chat, but for its words: it wants a name, in the accept loop as many write it, has no word for quit, and greets without a newline.
NAMES = """
import socket, sys, threading
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=3)
clients, lock = set(), threading.Lock()

def serve(client, lines):
    for line in lines:
        if line.strip(b"\\r\\n"):
            with lock:
                for each in clients:
                    each.outbox.put(line if line.endswith(b"\\n") else line + b"\\n")
    with lock:
        clients.discard(client)
    client.outbox.put(b"")

class Client:
    def __init__(self, conn):
        import queue
        self.conn, self.outbox = conn, queue.SimpleQueue()
        threading.Thread(target=self.write, daemon=True).start()
    def write(self):
        try:
            while line := self.outbox.get():
                self.conn.sendall(line)
            self.conn.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.conn.close()

def lines_of(conn):
    rest = b""
    try:
        while data := conn.recv(65536):
            *lines, rest = (rest + data).split(b"\\n")
            yield from (line + b"\\n" for line in lines)
        yield rest
    except OSError:
        pass

while True:
    conn, _ = listener.accept()
    conn.sendall(b"Hello there")
    lines = lines_of(conn)
    next(lines, b"")  # the name; the next client waits for it
    client = Client(conn)
    with lock:
        clients.add(client)
    threading.Thread(target=serve, args=(client, lines), daemon=True).start()
"""


def test_a_name_in_the_accept_loop_no_quit_and_a_greeting_without_newline_are_a_dialect(
    run: Run, tmp_path: Path
) -> None:
    """Each client says its name right behind its own connect, and leaves by FIN where there is no word for it."""
    (tmp_path / "names.py").write_text(NAMES)
    start = ("--", sys.executable, "names.py", "{host}", "{port}")
    words = ("--dialect", "join={name}", "--dialect", "quit=none", "--dialect", "ignore=^Hello")
    done = run("check", "chat", "--no-runs", "--json", "out.json", *words, *start)

    report = json.loads((tmp_path / "out.json").read_text())
    wrong = [item["scenario"] for item in report["items"] if item["verdict"] == "fail" and item["possible"]]
    assert wrong == [], done.stdout
    played = {item["scenario"] for item in report["items"] if item["verdict"] == "pass"}
    assert {"a-full-room", "a-room-that-empties-keeps-nothing", "everyone-hears-a-line"} <= played


def test_a_server_that_sends_without_end_is_ended_and_that_is_the_cause(run: Run, tmp_path: Path) -> None:
    (tmp_path / "flood.py").write_text(
        "import socket, sys, threading\n"
        "listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)\n"
        "def serve(conn):\n"
        "    conn.recv(1)\n"
        "    while True: conn.sendall(b'x' * 65536)\n"
        "while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()\n"
    )
    done = run("check", "echo", "--", sys.executable, "flood.py", "{host}", "{port}")

    assert done.returncode == 1
    assert "the server sent 8 MiB, where" in done.stdout
    sizes = [path.stat().st_size for path in (tmp_path / "runs").glob("*/history.jsonl")]
    assert max(sizes) < 100 << 20
