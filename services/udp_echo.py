#!/usr/bin/env python3
"""UDP echo server: each datagram goes back to where it came from. No listen, no accept, no connection.

One socket serves everybody: recvfrom() tells who sent the datagram, sendto() says who gets the answer. A
datagram arrives whole or not at all, so there is nothing to collect and nothing to keep; the server has no
state, not even which clients there are, and so no line in the log for each of them. Compare echo.py: there a
second client waits until the first has left; here there is no "first" and no "leaving".

What it leaves out: nothing of an echo; but UDP itself loses datagrams, when a buffer on the way is full, and
tells nobody. On a host with several addresses the kernel chooses the one that an answer comes from, mostly,
not always, the one that was asked. udp_registry.py shows how clients of UDP say that they are there.

Under load: what arrives faster than it is answered waits in the receive buffer, and past its end the kernel
throws it away. An answer that would have to wait for room in the send buffer is thrown away here, so that one
unreachable client costs the others nothing.
"""

import argparse
import atexit
import datetime
import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time

NAME = "udp-echo"
MAX_DATAGRAM = 65535  # no datagram is longer; a smaller recvfrom() would cut the rest off
BUFFER = 4 * 1024 * 1024  # for bursts; the kernel grants what net.core.rmem_max and wmem_max allow


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


def serve(sock):
    failures = Failures()
    while True:
        try:
            data, address = sock.recvfrom(MAX_DATAGRAM)  # one call, one datagram; b"" is an empty one, no end
        except OSError as error:  # an ICMP message about an earlier answer, say
            failures.report("-", error)
            continue
        try:
            sock.sendto(data, socket.MSG_DONTWAIT, address)
        except OSError as error:
            failures.report(name_of(address), error)  # unreachable, forbidden, no room: this datagram is lost


def main():
    args = options(port=7001).parse_args()
    try:
        sock = bind(args.host, args.port)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with sock:
        ready("udp", *sock.getsockname()[:2])
        serve(sock)


if __name__ == "__main__":
    run(main)
