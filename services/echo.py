#!/usr/bin/env python3
"""Echo server, iterative: the bare socket calls, one client at a time.

Every byte that a client sends comes back to it. While one client is served, the next ones wait: the kernel
completes their handshakes and keeps them in the backlog, so they connect and may even send, but nobody
answers yet.

What it leaves out: serving two clients at once. handler.py is the same server by `socketserver`; threaded.py,
forking.py and eventloop.py are three ways to be concurrent. With --unix PATH it serves programs of this
computer only, by a file's name in place of address and port; all calls but the first two stay the same.

Resource handling: one connection is open at a time, and serve_client() closes it. Under load: when
descriptors or memory run out, accept() fails; the client waits in the backlog and accept() is tried again.
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
import stat
import struct
import sys
import threading
import time

NAME = "echo"
CHUNK = 65536  # most that one recv() takes; TCP is a stream, so the size says nothing about what was sent
BACKOFF_S = 0.1  # pause after a failed accept()
KEEPALIVE = (30, 10, 3)  # after 30 s of silence ask every 10 s; three times no answer: the peer is gone


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


def listen(host, port, backlog):
    # getaddrinfo() turns names, IPv4 and IPv6 into what the calls below want; the first answer is taken.
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # Connections of a server that just ended stay in TIME_WAIT for a minute; the port may be bound
        # nevertheless.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # From here on the kernel shakes hands for us and keeps up to `backlog` clients until we accept them.
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def listen_unix(path, backlog):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("@"):
            # The abstract namespace of Linux: a name that is no file and vanishes with its socket.
            listener.bind("\0" + path[1:])
        else:
            remove_stale(path)
            listener.bind(path)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def remove_stale(path):
    """Remove the file of a server that is no more: it is a socket, and nobody answers on it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # somebody's file: leave it, and let bind() say that the name is taken
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a server with a full backlog would keep us waiting
            probe.connect(path)
        return  # somebody answers
    except ConnectionRefusedError:
        pass
    except OSError:
        return  # no such file, or a server that is busy
    try:
        os.unlink(path)
    except OSError:
        pass  # the folder is not ours; bind() will say that the name is taken


def accept(listener):
    """Wait for the next client, whatever happens: an error of accept() is never the listener's own."""
    failed = False
    while True:
        try:
            return listener.accept()
        except OSError as error:
            # Mostly EMFILE: no descriptor is free. The client stays in the backlog, so the next accept()
            # would fail at once, again and again: say it once, and wait a little.
            if not failed:
                log("accept-failed", error=reason(error), text=error.strerror)
            failed = True
            time.sleep(BACKOFF_S)


def peer_of(connection, address):
    if connection.family != socket.AF_UNIX:
        return name_of(address)
    # The other end of an AF_UNIX connection mostly has no name, but the kernel knows which process it is.
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return f"pid:{struct.unpack('3i', credentials)[0]}"


def tune(connection):
    # A client whose machine lost its power or its cable says nothing for ever: let the kernel ask whether it
    # is alive. (It asks while nothing is on its way to the client. Else it sends that again and again, and
    # gives up after a quarter of an hour; a shorter limit would hit a living client that makes a pause.)
    idle, interval, count = KEEPALIVE
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    # Nagle's algorithm would hold a small answer back until the one before it is acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reason(error):
    """Why a connection ended, in a word: the peer sent RST, or was silent for too long."""
    words = {errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timeout"}
    return words.get(error.errno) or errno.errorcode.get(error.errno, str(error))


def serve_client(connection, address):
    peer, echoed, why = peer_of(connection, address), 0, "eof"
    log("connected", peer, active=1)
    try:
        if connection.family != socket.AF_UNIX:
            tune(connection)
        # recv() waits for the next bytes, however few. No bytes at all are the client's FIN: it has said
        # everything.
        while data := connection.recv(CHUNK):
            # send() may take only a part when the client reads slowly; sendall() goes on until the kernel has
            # all.
            connection.sendall(data)
            echoed += len(data)
    except OSError as error:
        why = reason(error)
    finally:
        # Nothing is unread here, so close() sends FIN behind the last echoed byte. (With unread input it
        # would send RST, and RST destroys what is still on its way to the client.)
        connection.close()
    log("disconnected", peer, why=why, bytes=echoed, active=0)


def serve(listener):
    while True:
        connection, address = accept(listener)
        serve_client(connection, address)


def main():
    parser = options(port=5001)
    parser.add_argument(
        "--unix", metavar="PATH", help="serve this AF_UNIX path instead; @NAME: the abstract namespace"
    )
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=128, help="clients that may wait (default: 128)"
    )
    args = parser.parse_args()
    if args.unix in ("", "@"):
        parser.error("argument --unix: expected a path or @NAME")
    place = args.unix or name_of((args.host, args.port))
    try:
        if args.unix:
            listener = listen_unix(args.unix, args.backlog)
        else:
            listener = listen(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(place, error, "choose another --unix path" if args.unix else None)
    try:
        if args.unix:
            ready("unix", args.unix)
        else:
            ready("tcp", *listener.getsockname()[:2])
        serve(listener)
    finally:
        listener.close()
        if args.unix and not args.unix.startswith("@"):
            remove_stale(args.unix)  # nobody answers on it any more, unless another server has taken the path


if __name__ == "__main__":
    run(main)
