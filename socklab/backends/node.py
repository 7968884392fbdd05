"""The program of a node that is a container: it runs the scripted client, the gate, and commands in the node's network.

    conductor ── one stream ── node ─┬─ agent (clients/agent.py, a fork)
                                     ├─ gate, capture (socklab/inside, forks)
                                     └─ ip

Standard library only; started as `node.py AGENT_FILE` on stdin and stdout, where it ends with the stream and, as PID 1, takes
along all that is in the container; or with `--join` on a connection to the conductor, one conductor after another: found by what it
writes into a FOLDER that it shares with us, or at a HOST:PORT, where both were given the same secret.

Each line on the stream begins with the letter of whom it belongs to: `a` the agent, `g` the gate, `c` the capture (their own JSON lines,
passed on as they are), `n` the node: {"id": 1, "do": …} is answered by {"id": 1, "ok": …}.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")
FULL = 1 << 20  # bytes that may wait to be written before we stop to read what makes more of them
LISTEN = " 0A "  # the state of a listening socket in /proc/net/tcp (include/net/tcp_states.h)
Serve = dict[str, Callable[..., None]]
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to reach the conductor
KEEPALIVE = (  # tcp(7): that the other machine is gone is known within 25 s
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
)
BOOT = "/proc/sys/kernel/random/boot_id"


class Inside:
    """One of our own programs, and our end of its stream."""

    def __init__(self, letter: bytes, stream: socket.socket, pid: int) -> None:
        self.letter = letter
        self.stream = stream
        self.pid = pid


class Node:
    """One stream, from its beginning to its end."""

    def __init__(self, fd_in: int, fd_out: int, serve: Serve) -> None:
        """`serve` is what each of our own programs runs, by its name."""
        self.fd_in, self.fd_out = fd_in, fd_out
        self.serve = serve
        self.inside: dict[bytes, Inside] = {}
        self.selector = selectors.DefaultSelector()
        self.partial: dict[int, bytes] = {}
        self.waiting: dict[int, bytearray] = {fd_out: bytearray()}
        self.interest: dict[int, int] = {}
        self.ending: list[int] = []
        """Children that were killed, and are to be reaped."""

    def run(self) -> None:
        for descriptor in {self.fd_in, self.fd_out}:
            os.set_blocking(descriptor, False)
        self.partial[self.fd_in] = b""
        try:
            while True:
                self.wish()
                # A second, so that orphans that came to us as PID 1 are reaped.
                for key, mask in self.selector.select(1.0):
                    if mask & selectors.EVENT_WRITE:
                        self.flush(key.fd)
                    if mask & selectors.EVENT_READ and not self.read(key.fd):
                        return
                self.reap()
        except (BrokenPipeError, ConnectionResetError):
            return  # whom we worked for is gone
        finally:
            self.alone()
            self.selector.close()

    def wish(self) -> None:
        """What to wait for: reading stops while what it leads to cannot be written."""
        wanted = dict.fromkeys(self.waiting, 0)
        wanted.setdefault(self.fd_in, 0)
        theirs = [program.stream.fileno() for program in self.inside.values()]
        if all(len(self.waiting[each]) < FULL for each in theirs):
            wanted[self.fd_in] |= selectors.EVENT_READ
        if len(self.waiting[self.fd_out]) < FULL:
            for each in theirs:
                wanted[each] |= selectors.EVENT_READ
        for descriptor, data in self.waiting.items():
            if data:
                wanted[descriptor] |= selectors.EVENT_WRITE
        for descriptor in {*self.interest, *wanted}:
            now, was = wanted.get(descriptor, 0), self.interest.get(descriptor, 0)
            if now and was and now != was:
                self.selector.modify(descriptor, now)
            elif now and not was:
                self.selector.register(descriptor, now)
            elif was and not now:
                self.selector.unregister(descriptor)
        self.interest = {descriptor: mask for descriptor, mask in wanted.items() if mask}

    def flush(self, descriptor: int) -> None:
        data = self.waiting.get(descriptor)
        if not data:
            return
        try:
            del data[: os.write(descriptor, data[:262144])]
        except BlockingIOError:
            pass
        except OSError:
            if descriptor == self.fd_out:
                raise BrokenPipeError from None
            data.clear()  # the program ended; its own end of the stream says so

    def say(self, letter: bytes, line: bytes) -> None:
        self.waiting[self.fd_out] += letter + line + b"\n"
        self.flush(self.fd_out)

    def read(self, descriptor: int) -> bool:
        """Take what came. False when the stream has ended."""
        if descriptor not in self.partial:
            return True  # the program was ended while its event was on the way
        try:
            data = os.read(descriptor, 262144)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        program = next((i for i in self.inside.values() if i.stream.fileno() == descriptor), None)
        if not data:
            if program is None:
                return False
            self.end(program)
            self.say(b"n", json.dumps({"ended": program.letter.decode()}).encode())
            return True
        *lines, self.partial[descriptor] = (self.partial[descriptor] + data).split(b"\n")
        for line in lines:
            if program is not None:
                self.say(program.letter, line)
            elif line[:1] == b"n":
                self.order(json.loads(line[1:]))
            elif line[:1] in self.inside:
                theirs = self.inside[line[:1]].stream.fileno()
                self.waiting[theirs] += line[1:] + b"\n"
                self.flush(theirs)
        return True

    # what the conductor orders

    def order(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"ok": True}
        try:
            match message["do"]:
                case "inside":
                    self.start(message["program"], message["arguments"])
                case "alone":
                    self.alone()
                case "run":
                    answer = self.command(message)
                case "sockets":
                    answer = {"ok": True, "tables": tables(message["listening"])}
                case "hosts":
                    with open("/etc/hosts", "w") as file:
                        file.write(message["text"])
                case "clock":
                    answer = {"ok": True, "t": time.monotonic_ns()}
                case "resolve":
                    found = socket.getaddrinfo(message["name"], None, socket.AF_INET, socket.SOCK_STREAM)
                    answer = {"ok": True, "address": found[0][4][0]}
                case other:
                    answer = {"ok": False, "error": f"no such order: {other}"}
        except (OSError, KeyError, ValueError) as exc:
            answer = {"ok": False, "error": str(exc)}
        self.say(b"n", json.dumps({"id": message.get("id"), **answer}).encode())

    def start(self, name: str, arguments: list[Any]) -> None:
        """Start a program of ours, that knows nothing of the one that was here before it."""
        serve = self.serve[name]
        letter = name[:1].encode()
        if letter in self.inside:
            self.end(self.inside[letter])
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                self.selector.close()
                for each in (ours, *(program.stream for program in self.inside.values())):
                    each.close()
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                serve(theirs.fileno(), theirs.fileno(), *arguments)
            finally:
                os._exit(0)
        theirs.close()
        ours.setblocking(False)
        self.inside[letter] = Inside(letter, ours, pid)
        self.partial[ours.fileno()] = b""
        self.waiting[ours.fileno()] = bytearray()

    def alone(self) -> None:
        """End our own programs."""
        for program in list(self.inside.values()):
            self.end(program)

    def end(self, program: Inside) -> None:
        descriptor = program.stream.fileno()
        if self.interest.pop(descriptor, 0):
            self.selector.unregister(descriptor)
        del self.partial[descriptor], self.waiting[descriptor], self.inside[program.letter]
        program.stream.close()
        try:
            os.kill(program.pid, signal.SIGKILL)
            if program.letter == b"c":
                self.ending.append(
                    program.pid
                )  # the kernel takes its time over packet sockets, and nobody waits for that
            else:
                os.waitpid(program.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def command(self, message: dict[str, Any]) -> dict[str, Any]:
        argv = message["argv"]
        try:
            done = subprocess.run(
                argv,
                input=message["input"].encode(),
                capture_output=True,
                timeout=message["limit"],
                check=False,
            )
        except FileNotFoundError:
            return {
                "ok": False,
                "missing": True,
                "error": f"{argv[0]}: no such program in the node's container",
            }
        except subprocess.TimeoutExpired:
            return {"ok": False, "error": f"{' '.join(argv)} has not ended within {message['limit']:g}s"}
        stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return {"ok": True, "status": done.returncode, "stdout": stdout, "stderr": stderr}

    def reap(self) -> None:
        """Those that were killed; and orphans, which come to PID 1, where nobody else waits for them."""
        self.ending = [pid for pid in self.ending if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        if os.getpid() != 1:
            return
        try:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if any(ended.si_pid == program.pid for program in self.inside.values()) or self.ending:
                    return  # end() does that
                os.waitpid(ended.si_pid, 0)
        except ChildProcessError:
            pass


def tables(listening: bool) -> dict[str, str]:
    """The kernel's lists of the sockets of this network namespace (proc(5)); with `listening` only TCP in LISTEN."""
    found = {}
    for name in ("tcp", "tcp6") if listening else TABLES:
        try:
            with open(f"/proc/net/{name}", errors="replace") as file:
                lines = file.readlines()
        except OSError:
            continue  # no IPv6 here
        found[name] = "".join(lines[:1] + [x for x in lines[1:] if LISTEN in x] if listening else lines)
    return found


def load(path: str) -> Any:
    """A module of ours from its file."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def which_clock() -> str:
    """Which CLOCK_MONOTONIC is ours: programs that say the same have the same one (random(4), time_namespaces(7))."""
    with open(BOOT) as file:
        boot = file.read().strip()
    try:
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return boot  # a kernel without them


def dial(find: Callable[[], tuple[list[str], str]], hello: dict[str, Any], serve: Serve) -> None:
    """Reach the conductor at one of the places that `find` gives, tell it the secret and who we are, serve it until it goes; then the
    next one."""
    pause, told = FIRST_PAUSE, False
    while True:
        try:
            places, secret = find()
            control = reach(places)
        except (OSError, ValueError, KeyError) as exc:
            if not told:
                print(f"no conductor yet ({exc}); looking again", file=sys.stderr, flush=True)
                told = True
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
            continue
        pause, told = FIRST_PAUSE, False
        try:
            with control:
                control.settimeout(None)
                control.sendall(json.dumps({**hello, "secret": secret}).encode() + b"\n")
                Node(control.fileno(), control.fileno(), serve).run()
        except OSError:
            pass  # it went while we said hello
        time.sleep(FIRST_PAUSE)


def in_folder(folder: str) -> tuple[list[str], str]:
    """Where the conductor is, and its secret, as it wrote it there itself."""
    with open(f"{folder}/conductor.json") as file:
        there = json.load(file)
    return there["at"], there["secret"]


def read_secret(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def reach(places: list[str]) -> socket.socket:
    """A connection to the first place that can be reached. Raises OSError."""
    problem: OSError | None = None
    for place in places:
        try:
            if place.startswith("unix:"):
                control = socket.socket(socket.AF_UNIX)
                control.connect(place.removeprefix("unix:"))
            else:
                host, _, port = place.rpartition(":")
                control = socket.create_connection((host, int(port)), timeout=2)
                control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                notice_its_end(control)
            return control
        except OSError as exc:
            problem = exc
    raise problem or OSError("it says no place")


def notice_its_end(stream: socket.socket) -> None:
    """Have a stream end when the machine at its other end is gone."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        stream.setsockopt(socket.IPPROTO_TCP, option, value)


def main() -> None:
    parser = argparse.ArgumentParser(description="The program of a socklab node that is a container.")
    parser.add_argument("agent", metavar="AGENT_FILE", help="clients/agent.py")
    parser.add_argument(
        "--join",
        metavar="FOLDER | HOST:PORT",
        help="dial the conductor that says in this folder where it is, or that is there",
    )
    parser.add_argument("--secret", metavar="FILE", help="with HOST:PORT: the conductor's secret")
    parser.add_argument(
        "--networks", metavar="NAMES", default="", help="the networks that we are on, for the conductor"
    )
    parser.add_argument("--gate", metavar="SERVICE", help="we share the network of this server")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the conductor's to hear
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # where socklab/ is, in the image
    serve: Serve = {"agent": load(arguments.agent).serve}
    for name in ("capture", "gate"):
        serve[name] = importlib.import_module(f"socklab.inside.{name}").serve
    if arguments.join:
        hello = {
            "name": socket.gethostname(),
            "networks": arguments.networks.split(),
            "gate": arguments.gate,
            "clock": which_clock(),
        }
        if arguments.secret:
            try:
                secret = read_secret(arguments.secret)
            except OSError as exc:
                sys.exit(f"--secret {arguments.secret}: cannot be read: {exc.strerror}")
            dial(lambda: ([arguments.join], secret), hello, serve)
        else:
            dial(lambda: in_folder(arguments.join), hello, serve)
    else:
        Node(0, 1, serve).run()


if __name__ == "__main__":
    main()
