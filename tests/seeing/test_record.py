"""`socklab record`: a session between a real client and a server becomes a scenario that passes, and nothing on the way is changed."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from socklab.matching import LINE, STREAM
from socklab.recorded import Moment, scenario
from socklab.scenario import plays
from socklab.source import Source

ROOT = Path(__file__).resolve().parents[2]


class Session:
    """A running `socklab record`."""

    def __init__(self, folder: Path, to: str, *options: str) -> None:
        self.file = folder / "session.scenario.yaml"
        compose = str(ROOT / "docker-compose.yml")
        command = [
            sys.executable,
            "-m",
            "socklab",
            "record",
            str(self.file),
            "--to",
            to,
            "--compose",
            compose,
            *options,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith("connect to 127.0.0.1 "), first
        self.port = int(first.split()[3])

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def until(self, text: str) -> None:
        """Until it has told this."""
        assert self.process.stdout is not None
        assert any(line.strip() == text for line in self.process.stdout)

    def end(self, interrupt: bool = True) -> tuple[int, str]:
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        text, _ = self.process.communicate(timeout=30)
        return self.process.returncode, text


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def begin(to: str, *options: str) -> Session:
        made.append(Session(tmp_path, to, *options))
        return made[-1]

    yield begin
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def read(sock: socket.socket, wanted: bytes) -> None:
    got = b""
    while len(got) < len(wanted):
        got += sock.recv(65536)
    assert got == wanted


def test_a_chat_of_two_becomes_a_scenario_that_passes(session: Callable[..., Session]) -> None:
    """Also with braces, other alphabets, several lines at once, and what is no text."""
    recorded = session("chat", "--once")
    alice, bob = recorded.connect(), recorded.connect()
    recorded.until("bob → connected")  # else it is a matter of luck whether he hears the first line
    alice.sendall(b"am I here\n")
    read(alice, b"am I here\n")
    bob.sendall(b"bob too\n")
    read(alice, b"bob too\n")
    for line in ("{x} at 12:30\n", "안녕 é\n", "one\ntwo\n", "\xff\x00\n"):
        data = line.encode("latin-1") if "\xff" in line else line.encode()
        alice.sendall(data)
        read(alice, data)
    alice.sendall(b"quit\n")
    assert alice.recv(10) == b""
    alice.close()
    bob.close()

    status, text = recorded.end(interrupt=False)
    assert status == 0, text
    written = recorded.file.read_text()
    assert '- send: {alice: "안녕 é"}' in written
    assert "- expect: {alice: eof}" in written
    assert "pass  " in text


def test_a_server_that_knows_its_port_itself_has_it_again_when_the_scenario_is_played(
    session: Callable[..., Session], tmp_path: Path
) -> None:
    """Nobody can tell it another port, and it was just recorded at this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "upper.py").write_text(
        f"import socket\nlistener = socket.create_server(('', {port}))\n"
        "while True:\n"
        "    client, _ = listener.accept()\n"
        "    while data := client.recv(1024):\n"
        "        client.sendall(data.upper())\n"
        "    client.close()\n"
    )
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(f"services:\n  upper:\n    command: python3 upper.py\n    expose: ['{port}']\n")
    recorded = session("upper", "--once", "--compose", str(compose))
    with recorded.connect() as alice:
        alice.sendall(b"hello\n")
        read(alice, b"HELLO\n")

    status, text = recorded.end(interrupt=False)
    assert status == 0, text
    assert "pass  " in text


def test_fin_is_passed_on_as_fin_and_rst_as_rst(session: Callable[..., Session]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    recorded = session(f"127.0.0.1:{listener.getsockname()[1]}", "--contract", "echo")
    client = recorded.connect()
    server, _ = listener.accept()
    client.sendall(b"all I have")
    client.shutdown(socket.SHUT_WR)
    read(server, b"all I have")
    assert server.recv(10) == b""
    server.sendall(b"the answer")
    read(client, b"the answer")
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    other = recorded.connect()
    server, _ = listener.accept()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    server.settimeout(10)
    with pytest.raises(ConnectionResetError):
        server.recv(10)
    for each in (listener, client, server):
        each.close()

    status, text = recorded.end()
    assert status == 0, text
    steps = [line.strip() for line in recorded.file.read_text().splitlines()[4:]]
    assert steps == [
        "- connect: alice",
        '- send: {alice: "all I have"}',
        "- half-close: alice",
        '- expect: {alice: "the answer"}',
        "- expect: {alice: reset}",
        "- connect: bob",
        "- abort: bob",
    ]


def test_a_megabyte_goes_through_whole(session: Callable[..., Session]) -> None:
    recorded = session("threaded", "--once")
    client = recorded.connect()
    data = bytes(range(256)) * 4096
    writer = threading.Thread(target=client.sendall, args=(data,))
    writer.start()
    read(client, data)
    writer.join()
    client.shutdown(socket.SHUT_WR)
    assert client.recv(10) == b""
    client.close()

    status, text = recorded.end(interrupt=False)
    assert status == 2
    assert text.splitlines()[-1].endswith("record a shorter one")
    assert not recorded.file.exists()


class Peer:
    """A UDP client of a recorded session."""

    def __init__(self, session: Session) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", session.port))

    def says(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.socket.send(datagram)

    def hears(self, *datagrams: bytes) -> None:
        assert [self.socket.recv(65536) for _ in datagrams] == list(datagrams)


@pytest.fixture
def peer() -> Iterator[Callable[[Session], Peer]]:
    made: list[Peer] = []

    def come(session: Session) -> Peer:
        made.append(Peer(session))
        return made[-1]

    yield come
    for each in made:
        each.socket.close()


def test_datagrams_are_kept_one_by_one(
    session: Callable[..., Session], peer: Callable[[Session], Peer]
) -> None:
    """Also empty ones, large ones, and what is no text."""
    recorded = session("udp-echo")
    alice, bob = peer(recorded), peer(recorded)
    for datagram in (b"hello", b"", b"two\nlines\n", b"\xff\x00{n}", b"x" * 9000):
        alice.says(datagram)
        alice.hears(datagram)
    bob.says(b"one", b"two")
    bob.hears(b"one", b"two")

    status, text = recorded.end()
    assert status == 0, text
    written = recorded.file.read_text()
    assert written.count("- send: {alice") == 5
    assert '- send: {alice: {bytes: ""}}' in written
    assert "- expect: {bob: {exactly: sent}}" in written
    assert "pass  " in text


def test_what_a_registry_fans_out_is_expected_of_each_who_got_it(
    session: Callable[..., Session], peer: Callable[[Session], Peer]
) -> None:
    recorded = session("udp-registry")
    alice, bob = peer(recorded), peer(recorded)
    for each, answer in ((alice, b"1 here"), (bob, b"2 here")):
        each.says(b"#REG")
        assert each.socket.recv(65536).endswith(answer)
    bob.says(b"first")
    assert alice.socket.recv(65536).endswith(b"first")
    bob.socket.recv(65536)
    alice.says(b"second")
    assert bob.socket.recv(65536).endswith(b"second")

    status, text = recorded.end()
    assert status == 0, text
    written = recorded.file.read_text()
    assert re.search(r"expect: .*alice: \S*first.*\n.*second", written), written
    assert "pass  " in text


def test_a_server_that_is_not_there_is_written_down_as_one(
    session: Callable[..., Session], peer: Callable[[Session], Peer]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recorded = session(f"127.0.0.1:{port}", "--contract", "udp-echo")
    peer(recorded).says(b"anybody?")
    recorded.until("alice ← refused")

    status, text = recorded.end()
    assert status == 0, text
    assert "- expect: {alice: {error: refused}}" in recorded.file.read_text()


def test_what_differs_from_play_to_play_is_expected_loosely() -> None:
    text = scenario(
        "t",
        "chat",
        LINE,
        [Moment("alice", "connected"), Moment("alice", "got", b"[12:30:01] 10.0.0.7:41234 came\n")],
    )
    (play,) = plays(Source.parse(text, Path("t.yaml")))

    ((_, expectation),) = play.steps[1].expects
    (pattern,) = expectation.patterns
    assert pattern.kind == "regex"
    assert re.search(str(pattern.value), "[9:01] 172.16.0.1:5 came")
    assert not re.search(str(pattern.value), "[9:01] somebody came")


@pytest.mark.parametrize("framing", [LINE, STREAM])
def test_any_bytes_can_be_written_down(framing: str) -> None:
    for data in (
        b"\xff\xfe\n",
        b'"\\\n',
        b"{n}\n",
        b"/a/\n",
        b" \n",
        b"\n",
        b"x: [y\n",
        "é\u2028\n".encode(),
        b"#REG\n",
        bytes(range(256)) + b"\n",
    ):
        moments = [Moment("alice", "connected"), Moment("alice", "said", data), Moment("alice", "got", data)]
        plays(
            Source.parse(
                scenario('a "title": x', "chat" if framing == LINE else "echo", framing, moments),
                Path("t.yaml"),
            )
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["x.yaml", "--to", "chat"],
            "x.yaml: a scenario is a *.yaml under a folder called scenarios/, or a *.scenario.yaml; name it so",
        ),
        (["there.scenario.yaml", "--to", "chat"], "there.scenario.yaml: is there already; name another file"),
        (
            ["x.scenario.yaml", "--to", "127.0.0.1:9"],
            "--to 127.0.0.1:9 says nothing of how it speaks: add --contract, one of",
        ),
        (["x.scenario.yaml", "--to", "chta"], 'no service "chta"'),
        (["x.scenario.yaml", "--to", "chat", "--listen", "x"], "--listen x: is no [HOST:]PORT"),
        (["x.scenario.yaml", "--to", "echo-unix"], "echo-unix speaks UNIX; only TCP and UDP can be recorded"),
        (["x.scenario.yaml", "--to", "udp-echo", "--once"], "--once goes with TCP"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "there.scenario.yaml").write_text("title: x\n")
    command = [
        sys.executable,
        "-m",
        "socklab",
        "record",
        *words,
        "--compose",
        str(ROOT / "docker-compose.yml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=30)

    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
