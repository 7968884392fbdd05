#!/usr/bin/env python3
"""Echo server, concurrent: one thread and an event loop, by `selectors`.

No call on a socket waits; the only place to wait is select(), which waits for all of them at once and tells
who is ready. What echo.py keeps in its place in the program (which client, what is still to be sent) is kept
here in an object for each client:

    reading    pending is empty   wait until the client has sent: recv, then send at once
    writing    pending has bytes  wait until the client's kernel has room: send the rest, then back to reading

A client is not read while something is owed to it. So a client that sends but does not read fills its own
buffers and must wait, as with echo.py, and it costs the server one chunk of memory, whatever it sends.

What it leaves out: a second processor. Compare threaded.py, where each client's code reads from top to
bottom, and chat_eventloop.py, where what one client says goes to all.

Resource handling: drop() closes each connection. Under load: when descriptors or memory run out, the listener
is left alone for a while; those already served do not notice.
"""

import argparse
import atexit
import datetime
import errno
import json
import os
import resource
import select
import selectors
import signal
import socket
import sys
import threading
import time

NAME = "eventloop"
CHUNK = 65536  # most that one recv() takes; TCP is a stream, so the size says nothing about what was sent
BACKOFF_S = 0.1  # pause after a failed accept()
KEEPALIVE = (30, 10, 3)  # after 30 s of silence ask every 10 s; three times no answer: the peer is gone


class Client:
    def __init__(self, connection, peer):
        self.connection = connection
        self.peer = peer
        self.pending = b""  # received, not yet sent back
        self.events = selectors.EVENT_READ  # what select() looks for; get_key() knows, but is slow to tell
        self.echoed = 0


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
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


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


def raise_descriptor_limit():
    # Each client costs a descriptor, and the usual limit is 1,024: take as many as we may.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # then it stays at what it is


def accept(listener, selector, clients):
    try:
        connection, address = listener.accept()
    except BlockingIOError:
        return  # ready is a hint: nobody is there after all
    client = Client(connection, name_of(address))
    clients.add(client)
    log("connected", client.peer, active=len(clients))
    try:
        connection.setblocking(False)
        tune(connection)
        selector.register(connection, client.events, client)
    except OSError as error:
        drop(client, selector, clients, reason(error))


def serve_client(client, selector, clients):
    """Take one step with a client that is ready: receive if nothing is owed to it, and send what it takes."""
    try:
        if not client.pending:
            client.pending = client.connection.recv(CHUNK)
            if not client.pending:
                # The client's FIN. Nothing is owed to it, or we would not have read: close() sends our FIN.
                drop(client, selector, clients, "eof")
                return
        sent = client.connection.send(client.pending)  # may take only a part; the rest stays pending
        client.pending = client.pending[sent:]
        client.echoed += sent
    except BlockingIOError:
        pass  # nothing there after all, or no room at all
    except OSError as error:
        drop(client, selector, clients, reason(error))
        return
    wanted = selectors.EVENT_WRITE if client.pending else selectors.EVENT_READ
    if client.events != wanted:
        selector.modify(client.connection, wanted, client)
        client.events = wanted


def drop(client, selector, clients, why):
    if client.connection in selector.get_map():
        selector.unregister(client.connection)
    client.connection.close()
    clients.discard(client)
    log("disconnected", client.peer, why=why, bytes=client.echoed, active=len(clients))


def serve(listener):
    selector = selectors.DefaultSelector()  # epoll on Linux; select() itself ends at descriptor 1,023
    clients = set()
    accept_failed = False  # and has been logged
    accept_again = None  # when, if the listener is left alone until then
    selector.register(listener, selectors.EVENT_READ)
    while True:
        timeout = None if accept_again is None else max(0.0, accept_again - time.monotonic())
        for key, _ in selector.select(timeout):
            client = key.data
            if client is not None:
                serve_client(client, selector, clients)
                continue
            try:
                accept(listener, selector, clients)
                accept_failed = False
            except OSError as error:
                # Mostly EMFILE: no descriptor is free. The listener would stay ready and the loop spin: say
                # it once, and look away for a little.
                if not accept_failed:
                    log("accept-failed", error=reason(error), text=error.strerror)
                accept_failed, accept_again = True, time.monotonic() + BACKOFF_S
                selector.unregister(listener)
        if accept_again is not None and time.monotonic() >= accept_again:
            accept_again = None
            selector.register(listener, selectors.EVENT_READ)


def main():
    parser = options(port=5005)
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=1024, help="clients that may wait (default: 1024)"
    )
    args = parser.parse_args()
    raise_descriptor_limit()
    try:
        listener = listen(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with listener:
        ready("tcp", *listener.getsockname()[:2])
        serve(listener)


if __name__ == "__main__":
    run(main)
