#!/usr/bin/env python3
"""UDP registry: clients say that they are there (#REG) or leave (#DEREG); what one says goes to all of them.

In UDP nobody connects, so the server knows of a client only what the client tells it. A datagram that is
`#REG` and nothing else enters the address it came from, IP *and* port, into the registry; `#DEREG` takes it
out. Any other datagram of a registered address goes to every registered address, the sender too, unchanged.
Compare chat.py: there the kernel knows who is connected, and tells when a client is gone.

A client that dies without #DEREG stays registered. With --lease SECONDS it is dropped after so much silence;
any datagram renews its lease.

The source address of a datagram can be forged. One forged #REG would have us send all that is said to
somebody who never asked, and one datagram in would be a thousand out: an amplifier. With --cookie, #REG is
answered with `#COOKIE <cookie>`, and only `#REG <cookie>` registers: who can send that back does receive what
we send to this address. The cookie is computed from the address, not stored, so that forged requests fill no
memory.

What it leaves out: delivery that is sure. A datagram is lost if a buffer is full, and the server does not
send it again. Under load: what would have to wait for room in the send buffer is thrown away, so that one
unreachable client costs the others nothing.
"""

import argparse
import atexit
import datetime
import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import select
import signal
import socket
import sys
import threading
import time

NAME = "udp-registry"
MAX_DATAGRAM = 65535  # no datagram is longer; a smaller recvfrom() would cut the rest off
BUFFER = 4 * 1024 * 1024  # for bursts; the kernel grants what net.core.rmem_max and wmem_max allow
WHITE_SPACE = b" \t\r\n"  # around a command; a person's `nc -u` sends the newline, too
NOT_REGISTERED = b"not registered: send #REG first"
COOKIE_S = 60  # a cookie holds for one to two of these periods: time for a round trip, short for a thief
BATCH = 1000  # datagrams handled before the leases are looked at again


class Registry:
    def __init__(self, lease, max_peers):
        self.lease = lease  # seconds; 0: for ever
        self.max_peers = max_peers
        self.heard = {}  # registered address -> when it was last heard, in this order: silent longest first


# --- common: start
# The same lines stand in all nine servers: command line, log, signals, ready line, errors of a start.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOG_AS_JSON = os.environ.get("SOCKLAB_LOG") == "json"
log_lock = threading.RLock()  # re-entrant: stop() logs, and a signal may come in the middle of a log line


def options(port):
    parser = argparse.ArgumentParser(NAME, "%(prog)s [options]", __doc__.split("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="name or address here (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole(0, 65535), default=port, help=f"0: a free one (default: {port})")
    return parser


def whole(least, most):
    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return parse


def refuse(where, error, way_out=None):
    ways_out = {errno.EADDRINUSE: "choose another --port", errno.EACCES: "choose a --port above 1023"}
    if isinstance(error, UnicodeError):  # a label of more than 63 characters, say
        error = OSError(errno.EINVAL, "not a host name")
    why, way_out = error.strerror or str(error), way_out or ways_out.get(error.errno, "choose another --host")
    sys.exit(f"{NAME}: cannot listen on {where}: {why[:1].lower()}{why[1:]}; {way_out}")


def name_of(address):
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def log(event, peer="-", **facts):
    """Log an event on stderr, in one line: TIME EVENT PEER key=value ..., or JSON if SOCKLAB_LOG=json."""
    with log_lock:  # so that the lines of several threads stand in the order of their times
        if LOG_AS_JSON:
            line = json.dumps({"t": time.monotonic(), "event": event, "peer": peer, **facts})
        else:
            pairs = (f"{key}={json.dumps(fact) if ' ' in str(fact) else fact}" for key, fact in facts.items())
            line = " ".join([f"{datetime.datetime.now():%H:%M:%S.%f}"[:-3], event, peer, *pairs])
        emit(sys.stderr, line)


def emit(stream, line):
    """Write a line at once. A closed stream, or a full one that nobody reads, must not stop a server."""
    try:
        if stream and select.select([], [stream], [], 0)[1]:
            os.write(stream.fileno(), os.fsencode(line + "\n"))
    except (OSError, ValueError):
        pass  # the line is lost, and there is nobody to tell


def ready(kind, *place):
    log("listening", name_of(place) if len(place) == 2 else place[0], kind=kind, process=os.getpid())
    atexit.register(log, "stopped")  # at the very end: threads may outlive main()
    # Python looks for signals before a system call and after it. One that comes in the instant between would
    # wait for the call's end, on an idle server for ever: interrupt such a call twice a second.
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    emit(sys.stdout, " ".join(["ready", kind, *map(str, place)]))


def stop(number, _frame):
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second one would hit the middle of the ending
    log("stopping", signal=signal.Signals(number).name)
    raise KeyboardInterrupt


def run(main):
    """Call main(); SIGTERM ends it as Ctrl-C does, both with exit status 0."""
    for each in STOP_SIGNALS:
        signal.signal(each, stop)
    try:
        main()
    except KeyboardInterrupt:
        pass  # main() has closed what it opened on the way out
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# --- common: end


def bind(host, port):
    # getaddrinfo() turns names, IPv4 and IPv6 into what the calls below want; the first answer is taken.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        # No SO_REUSEADDR: UDP has no TIME_WAIT, and with it two servers could share the port, each missing
        # datagrams.
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class Failures:
    """Logs failed sends, one line a second at most: a burst to an unreachable client would flood the log."""

    def __init__(self):
        self.count = 0
        self.reported = -1.0

    def report(self, peer, error):
        self.count += 1
        if time.monotonic() - self.reported >= 1:
            self.reported = time.monotonic()
            log("send-failed", peer, error=errno.errorcode.get(error.errno, str(error)), failures=self.count)


def cookie_for(address, secret, period):
    text = f"{address[0]} {address[1]} {period}"
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:16].encode()


def is_cookie(cookie, address, secret):
    """Is this the cookie that we gave this address in this period or the one before?"""
    now = int(time.monotonic() // COOKIE_S)
    # compare_digest() takes the same time wherever the first difference is, so nobody can guess byte by byte.
    return any(hmac.compare_digest(cookie, cookie_for(address, secret, period)) for period in (now, now - 1))


def register(registry, address):
    new = address not in registry.heard
    if new and len(registry.heard) >= registry.max_peers:
        log("refused", name_of(address), why="full", active=len(registry.heard))
        return b"full: %d registered, try again later" % len(registry.heard)
    registry.heard[address] = time.monotonic()
    if new:
        log("registered", name_of(address), active=len(registry.heard))
    return f"registered {name_of(address)}, {len(registry.heard)} here".encode()


def deregister(registry, address, why):
    if registry.heard.pop(address, None) is not None:
        log("deregistered", name_of(address), why=why, active=len(registry.heard))
    return b"deregistered"


def expire(registry):
    """Drop those who were silent for longer than the lease; the one silent longest stands first."""
    while registry.lease and registry.heard:
        address, heard = next(iter(registry.heard.items()))
        if time.monotonic() - heard <= registry.lease:
            return
        deregister(registry, address, "lease")


def next_expiry(registry):
    """How long to wait for a datagram: until the first lease ends, or for ever."""
    if not (registry.lease and registry.heard):
        return None
    return max(0.0, next(iter(registry.heard.values())) + registry.lease - time.monotonic()) + 0.001


def handle(registry, data, address, secret):
    """What one datagram does: returns (what to send, to which addresses)."""
    if address in registry.heard:
        del registry.heard[address]  # out and in again: to the end of the order
        registry.heard[address] = time.monotonic()
    words = data.strip(WHITE_SPACE)
    if words == b"#DEREG":
        return deregister(registry, address, "asked"), [address]
    if words == b"#REG" and (secret is None or address in registry.heard):
        return register(registry, address), [address]
    if words == b"#REG":
        # Not `#REG <cookie>`, ready to send back: an echo server at a forged address would do just that.
        return b"#COOKIE " + cookie_for(address, secret, int(time.monotonic() // COOKIE_S)), [address]
    claim = re.fullmatch(rb"#REG[ \t]+([0-9a-f]{16})", words) if secret else None
    if claim and (address in registry.heard or is_cookie(claim[1], address, secret)):
        return register(registry, address), [address]
    if address in registry.heard:
        return data, list(registry.heard)
    # Say so; but not in answer to the same words, or two registries could go on for ever.
    return NOT_REGISTERED, [] if data == NOT_REGISTERED else [address]


def serve(sock, registry, secret):
    failures = Failures()
    while True:
        # Wait for a datagram or for the end of a lease, whichever comes first.
        select.select([sock], [], [], next_expiry(registry))
        for _ in range(BATCH):
            try:
                data, address = sock.recvfrom(MAX_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break  # nothing waits any more
            except OSError as error:  # an ICMP message about an earlier datagram, say
                failures.report("-", error)
                continue
            answer, receivers = handle(registry, data, address, secret)
            for receiver in receivers:
                try:
                    sock.sendto(answer, socket.MSG_DONTWAIT, receiver)
                except OSError as error:
                    failures.report(name_of(receiver), error)  # lost for this receiver; the others get theirs
        expire(registry)  # after the batch: a renewal may have been waiting in it


def seconds(text):
    value = float(text)
    if not 0 <= value <= 1e6:
        raise ValueError
    return value


def main():
    parser = options(port=7002)
    parser.add_argument(
        "--lease", type=seconds, default=0, help="drop who is silent for so many seconds (default: 0, off)"
    )
    parser.add_argument("--cookie", action="store_true", help="register only who can receive at its address")
    parser.add_argument(
        "--max-peers",
        type=whole(1, 1_000_000),
        default=10_000,
        metavar="N",
        help="most that may be registered, since each is one more send for each datagram (default: 10000)",
    )
    args = parser.parse_args()
    try:
        sock = bind(args.host, args.port)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with sock:
        ready("udp", *sock.getsockname()[:2])
        serve(sock, Registry(args.lease, args.max_peers), secrets.token_bytes(32) if args.cookie else None)


if __name__ == "__main__":
    run(main)
