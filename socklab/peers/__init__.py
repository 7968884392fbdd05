"""Servers of others that ours are measured beside: how each is started, and how it is talked to.

Programs of Debian packages, and two in C that are compiled where there is a compiler: what a loop of bare system calls can do.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from socklab.contracts import CONTRACTS
from socklab.guest import Guest, Limits
from socklab.load import Speech, Subject, plain, registering
from socklab.topology import Topology

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNLIMITED = Limits(memory=0, processes=0, descriptors=0, output=0, file=0)
_HERE = Path(__file__).parent
_TOPIC = b"room"


class Missing(Exception):
    """A peer that is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Peer:
    name: str
    contract: str
    package: str
    """Of Debian; empty: a source file beside this one."""
    program: str
    arguments: str
    """With {host}, {port} and {folder}."""
    speech: Callable[[int], Speech] = plain
    """How it is talked to, with texts of so many bytes."""
    files: tuple[tuple[str, str], ...] = ()
    """Names with what stands in them, with {host}, {port} and {folder}."""
    most: int = 0
    longest: int = 0

    def subject(self, folder: Path) -> Subject:
        """Ready to be started; its files go into a folder. Raises Missing."""
        program = self._compiled(folder) if not self.package else shutil.which(self.program, path=_PATH)
        if program is None:
            raise Missing(f"{self.name}: not installed (apt install {self.package})")
        own = folder / self.name.replace(" ", "-").replace("/", "-")
        own.mkdir(exist_ok=True)
        contract = CONTRACTS[self.contract]
        words = [program, *shlex.split(self.arguments)]
        # Files of settings are written by whoever starts it, when it is known where it listens.
        if self.files:
            script = "\n".join(_written(name, text, own) for name, text in self.files)
            words = ["/bin/sh", "-c", f'{script}\nexec "$0" "$@"', *words]
        command = tuple(word.replace("{folder}", str(own)) for word in words)
        guest = Guest(own, limits=UNLIMITED)
        topology = Topology.of_guest(contract, command, guest, contract.port, self.name)
        return Subject(
            self.name,
            topology,
            topology.service(self.name),
            self.speech,
            self.package or "in C",
            self.most,
            self.longest,
        )

    def _compiled(self, folder: Path) -> str:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            raise Missing(f"{self.name}: there is no C compiler (apt install gcc libc6-dev)")
        program = folder / self.program.removesuffix(".c")
        if not program.exists():
            done = subprocess.run(
                [compiler, "-O2", "-o", str(program), str(_HERE / self.program)],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                said = done.stderr.strip().splitlines()
                error = next((line for line in said if "error:" in line), said[-1] if said else "")
                raise Missing(f"{self.name}: cannot be compiled: {error or f'status {done.returncode}'}")
        return str(program)


def _written(name: str, text: str, folder: Path) -> str:
    """A here-document; the shell leaves it as it is."""
    return f"cat > {folder}/{name} <<'END'\n{text}\nEND"


def _redis(size: int) -> Speech:
    wrapped = b"$%d\r\n%s\r\n$%d\r\n" % (len(_TOPIC), _TOPIC, size)
    return Speech(
        hello=b"SUBSCRIBE %s\r\n" % _TOPIC,
        until=b":1\r\n",
        sender_hello=b"PING\r\n",
        sender_until=b"+PONG\r\n",
        say=(b"*3\r\n$7\r\nPUBLISH\r\n" + wrapped, b"\r\n"),
        hear=(b"*3\r\n$7\r\nmessage\r\n" + wrapped, b"\r\n"),
    )


def _nats(size: int) -> Speech:
    connect = b'CONNECT {"verbose":false,"pedantic":false,"echo":true}\r\n'
    return Speech(
        hello=connect + b"SUB %s 1\r\nPING\r\n" % _TOPIC,
        until=b"PONG\r\n",
        sender_hello=connect + b"PING\r\n",
        sender_until=b"PONG\r\n",
        say=(b"PUB %s %d\r\n" % (_TOPIC, size), b"\r\n"),
        hear=(b"MSG %s 1 %d\r\n" % (_TOPIC, size), b"\r\n"),
    )


def _mqtt(size: int) -> Speech:
    """MQTT 3.1.1, QoS 0."""
    topic = len(_TOPIC).to_bytes(2, "big") + _TOPIC
    connect = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06{number}"
    subscribe = b"\x82" + bytes([2 + len(topic) + 1]) + b"\x00\x01" + topic + b"\x00"
    publish = b"\x30" + _variable(len(topic) + size) + topic
    return Speech(
        hello=connect + subscribe,
        until=b"\x90\x03\x00\x01\x00",
        sender_hello=connect,
        sender_until=b"\x20\x02\x00\x00",
        say=(publish, b""),
        hear=(publish, b""),
    )


def _variable(number: int) -> bytes:
    """The length of an MQTT packet: seven bits a byte, the least first."""
    parts = bytearray()
    while True:
        number, low = divmod(number, 128)
        parts.append(low | (0x80 if number else 0))
        if not number:
            return bytes(parts)


def _irc(size: int) -> Speech:
    return Speech(
        hello=b"NICK n{number}\r\nUSER n 0 * :n\r\nJOIN #%s\r\n" % _TOPIC,
        until=b" 366 ",
        say=(b"PRIVMSG #%s :" % _TOPIC, b"\r\n"),
    )


PEERS: Sequence[Peer] = (
    Peer(
        "ncat --broker",
        "chat",
        "ncat",
        "ncat",
        "--listen --broker --max-conns 4000 {host} {port}",
        most=1000,  # it ends itself near 1,024 descriptors (select)
    ),
    Peer(
        "redis",
        "chat",
        "redis-server",
        "redis-server",
        "--bind {host} --port {port} --save '' --appendonly no --maxclients 20000 --protected-mode no --dir {folder} --loglevel warning",
        _redis,
    ),
    Peer(
        "nats",
        "chat",
        "nats-server",
        "nats-server",
        "--addr {host} --port {port} --config {folder}/nats.conf",
        _nats,
        (("nats.conf", 'ping_interval: "10m"\nmax_connections: 65536'),),
    ),
    Peer(
        "mosquitto",
        "chat",
        "mosquitto",
        "mosquitto",
        "-c {folder}/mosquitto.conf",
        _mqtt,
        (
            (
                "mosquitto.conf",
                "listener {port} {host}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\nlog_type error\nuser root",
            ),
        ),
    ),
    Peer(
        "ngircd",
        "chat",
        "ngircd",
        "ngircd",
        "--nodaemon --config {folder}/ngircd.conf",
        _irc,
        (
            (
                "ngircd.conf",
                "[Global]\nName = irc.lab\nInfo = lab\nListen = {host}\nPorts = {port}\nMotdPhrase = lab\nPidFile =\n"
                "[Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nMaxJoins = 0\nMaxNickLength = 9\nMaxPenaltyTime = 0\nPingTimeout = 3600\n"
                "[Options]\nDNS = no\nIdent = no\nPAM = no\nSyslogFacility = local1\n",
            ),
        ),
        longest=400,
    ),
    Peer("C, epoll", "echo", "", "epoll_echo.c", "{host} {port}"),
    Peer(
        "socat",
        "echo",
        "socat",
        "socat",
        "TCP4-LISTEN:{port},bind={host},reuseaddr,fork,backlog=4096,nodelay PIPE",
        most=2000,
    ),
    Peer(
        "ncat -e cat",
        "echo",
        "ncat",
        "ncat",
        "--listen --keep-open --max-conns 4000 --exec /bin/cat {host} {port}",
        most=1000,
    ),
    Peer(
        "xinetd",
        "echo",
        "xinetd",
        "xinetd",
        "-dontfork -f {folder}/xinetd.conf -pidfile {folder}/pid",
        files=(
            (
                "xinetd.conf",
                "defaults\n{\n  log_type = FILE /dev/null\n  cps = 100000 1\n  instances = UNLIMITED\n  per_source = UNLIMITED\n}\n"
                "service echo\n{\n  type = INTERNAL UNLISTED\n  id = echo-stream\n  socket_type = stream\n  protocol = tcp\n"
                "  wait = no\n  user = root\n  bind = {host}\n  port = {port}\n}",
            ),
        ),
        most=2000,
    ),
    Peer("C, sendto", "registry", "", "udp_fan_out.c", "{host} {port}", registering),
)
