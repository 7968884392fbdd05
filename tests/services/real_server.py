"""A server of services/ as a real process: start it, talk to it, look at it through /proc, end it."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

SERVICES = Path(__file__).resolve().parents[2] / "services"
LIMIT_S = 20.0  # for what happens at once on an idle machine; reaching it is a failure, so it may be generous


def until(condition, what):
    """Wait until condition() is true, and return what it returned; fail with `what` if it never is."""
    deadline = time.monotonic() + LIMIT_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)  # between two looks; nothing tells us when a process's /proc entry changes
    return result


class Server:
    """One running server. Its standard error is a file: never full, and readable at any time."""

    def __init__(self, name, log_path, *options, env=None, preexec=None, python=sys.executable):
        self.name = name
        self.log_path = log_path
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(
                [python, SERVICES / f"{name}.py", "--port", "0", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "SOCKLAB_LOG": "json", **(env or {})},
                preexec_fn=preexec,
                start_new_session=True,
            )
        self.pid = self.process.pid
        words = self._ready_line().split()
        assert words[:1] == ["ready"], f"{name} is not ready: {self.log_text()}"
        self.kind = words[1]
        self.address = words[2] if self.kind == "unix" else (words[2], int(words[3]))

    def _ready_line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
        return self.process.stdout.readline().decode() if readable else ""

    def connect(self, **buffers):
        """A connected socket; `receive` and `send` set its buffers' sizes."""
        family = {"unix": socket.AF_UNIX}.get(self.kind) or (
            socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        )
        client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(LIMIT_S)
        if "receive" in buffers:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers["receive"])
        if "send" in buffers:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers["send"])
        address = self.address
        if self.kind == "unix" and address.startswith("@"):
            address = "\0" + address[1:]
        try:
            client.connect(address)
            if self.kind == "tcp":
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            client.close()
            raise
        return client

    def datagram_socket(self):
        """A UDP socket whose peer is the server."""
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.settimeout(LIMIT_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        client.connect(self.address)
        return client

    # What it says.

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    def events(self, event, **facts):
        """The log's entries of this event with these facts."""
        lines = self.log_text().split("\n")[:-1]  # the last one may be half written
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [e for e in entries if e["event"] == event and facts.items() <= e.items()]

    def logged(self, event, count=1, **facts):
        """Wait until the log has this many of these entries."""
        what = f"{self.name} logged {count} x {event} {facts}"
        return until(
            lambda: (found := self.events(event, **facts))[: len(found) >= count and len(found)], what
        )

    # What the kernel knows of it.

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def sockets(self):
        """How many of its descriptors are sockets."""
        found = 0
        for number in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                found += os.readlink(f"/proc/{self.pid}/fd/{number}").startswith("socket:")
            except FileNotFoundError:
                pass  # closed between the two looks
        return found

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def children(self):
        """The process ids of its children, zombies too; all are forked by its main thread."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def holdings(self):
        """What a server could leak: descriptors, threads, children (zombies too)."""
        return {"fds": self.descriptors(), "threads": self.threads(), "children": len(self.children())}

    def holds_again(self, before):
        until(lambda: self.holdings() == before, f"{self.name} holds {before} again, not {self.holdings()}")

    def memory(self):
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def mapped(self):
        """The size of its address space, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[0]) * resource.getpagesize()

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_descriptors(self, soft):
        """Change how many descriptors the running process may have; returns the limits that it had."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        return resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def highest_descriptor(self):
        return max(int(number) for number in os.listdir(f"/proc/{self.pid}/fd"))

    def ignores_no(self, number):
        """Does it do what a signal does by default? (Bit masks of /proc: caught and ignored signals.)"""
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        return not (int(status["SigIgn"], 16) | int(status["SigCgt"], 16)) >> (number - 1) & 1

    # Its end.

    def end(self, number=signal.SIGTERM):
        """Send a signal and wait; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def clean_up(self):
        """Leave nothing of it behind, whatever the test did."""
        if self.process.poll() is None:
            children = self.children()
            self.process.kill()
            for child in children:  # one that served its client may have ended since it was listed
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self.process.wait(LIMIT_S)
        self.process.stdout.close()


def read_exactly(client, size):
    """The next `size` bytes of a connection, however they arrive."""
    data = bytearray()
    while len(data) < size:
        more = client.recv(min(65536, size - len(data)))
        assert more, f"the connection ended after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


def read_to_end(client):
    """All that comes until the server's FIN. A reset raises ConnectionResetError."""
    data = bytearray()
    while more := client.recv(65536):
        data += more
    return bytes(data)


def reset(client):
    """End a connection with RST: close() with a linger time of 0 throws away what is unsent and says so."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def fill(client, data=b"x" * 65536):
    """Send without reading until no side takes any more, or the server gives up; returns how many bytes."""
    client.setblocking(False)
    sent = 0
    while select.select([], [client], [], 0.2)[1]:  # 0.2 s without room: the buffers of both sides are full
        try:
            sent += client.send(data)
        except BlockingIOError:
            continue
        except ConnectionError:
            break
    client.settimeout(LIMIT_S)
    return sent
