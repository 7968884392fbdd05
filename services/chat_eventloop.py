#!/usr/bin/env python3
"""Chat server: every line that a client sends goes to all clients, itself too. One thread and an event loop.

The same chat as chat.py, for thousands of clients. No call on a socket waits, so no lock is needed and nobody
can stop anybody. One turn of the loop:

    select -> who is ready -> recv from each -> all their lines in one block -> one send of it to each client

The block is what makes it fast. A hundred clients who say a line each to a hundred clients are 10,000
deliveries; sent one by one they would be 10,000 system calls, as one block they are 100. Under load a turn
brings more lines, the block grows, and the cost of a line falls. When little is said, a block is a line and
goes out at once.

A client whose kernel takes only a part of a block keeps the rest in `pending`: not a copy, but the very block
that the others share, so a thousand clients who do not read cost little more memory than one. Past a bound a
client is dropped.

What it leaves out: names, rooms, history. Compare eventloop.py, the same loop for an echo.

Resource handling: close() closes each connection. Under load: when descriptors or memory run out, the
listener is left alone for a while; those in the room do not notice.
"""

import argparse
import atexit
import collections
import datetime
import errno
import itertools
import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time

NAME = "chat-eventloop"
CHUNK = 131072  # most that one recv_into() takes; TCP is a stream, so the size says nothing about lines
MAX_LINE = 65536  # bytes of text in a line; the sender of a longer one is lost or means no good
MAX_BLOCK = 131072  # with this much said a turn sends it, and goes on: a block is small beside --max-pending
MIB = 1024 * 1024
BACKOFF_S = 0.1  # pause after a failed accept()
LINGER_S = 1.0  # how long a leaver may take for what it is still owed


class Client:
    def __init__(self, connection, peer):
        self.connection = connection
        self.peer = peer
        self.rest = b""  # of a line that has no newline yet
        self.pending = ()  # blocks owed to it, and not yet taken by the kernel; if there are any, a deque
        self.owed = 0  # their bytes
        self.events = 0  # what select() shall look for; 0: not registered
        self.lines = 0
        self.why = None  # it must leave
        self.closed = False


class Room:
    def __init__(self, listener, max_pending, keepalive):
        self.listener = listener
        self.max_pending = max_pending
        self.keepalive = keepalive
        self.selector = selectors.DefaultSelector()  # epoll on Linux; select() ends at descriptor 1,023
        self.buffer = memoryview(bytearray(CHUNK))  # one for all: what was read is taken out before the next
        self.clients = {}  # who is in the room: a dict for its order, lines are sent to the eldest first
        self.said = []  # the lines of this turn, not yet sent to anybody
        self.said_bytes = 0
        self.leaving = []  # who leaves in this turn
        self.lingering = collections.deque()  # (deadline, client): left, but not yet closed; eldest first
        self.accept_failed = False  # and has been logged
        self.accept_again = None  # when, if the listener is left alone until then


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


def keepalive(text):
    """IDLE,INTERVAL,COUNT of --keepalive, in the bounds that the kernel sets."""
    try:
        idle, interval, count = map(int, text.split(","))
    except ValueError:
        idle = interval = count = 0
    if not (1 <= idle <= 32767 and 1 <= interval <= 32767 and 1 <= count <= 127):
        raise argparse.ArgumentTypeError(f"expected IDLE,INTERVAL,COUNT like 30,10,3, got {text!r}")
    return idle, interval, count


def tune(connection, idle, interval, count):
    # A client whose machine lost its power or its cable says nothing for ever. While nothing is on its way to
    # it, the kernel asks whether it is alive: after `idle` seconds of silence every `interval` seconds,
    # `count` times.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    # While something is, the kernel would go on sending it again for a quarter of an hour: the same patience
    # here. It runs, too, while a living client does not read and its buffers are full.
    patience_ms = 1000 * (idle + interval * count)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
    # Nagle's algorithm would hold a line back until the one before it is acknowledged.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reason(error):
    """Why a connection ended, in a word: the peer sent RST, or was silent for too long."""
    words = {errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ETIMEDOUT: "timeout"}
    return words.get(error.errno) or errno.errorcode.get(error.errno, str(error))


def split_lines(data):
    """Split what a client sent: (its lines, the rest that has no newline yet, why it must leave or None)."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    *lines, rest = data.split(b"\n")
    why = None
    # To look at all lines at once, several times, is faster than to look once at each: those loops run in C.
    if b"quit" in lines or max(map(len, lines), default=0) > MAX_LINE:
        end = next(n for n, line in enumerate(lines) if line == b"quit" or len(line) > MAX_LINE)
        why = "quit" if lines[end] == b"quit" else "too-long"
        lines, rest = lines[:end], b""  # what stands behind it is ignored
    elif len(rest.removesuffix(b"\r")) > MAX_LINE:
        rest, why = b"", "too-long"
    return list(filter(None, lines)), rest, why


def raise_descriptor_limit():
    # Each client costs a descriptor, and the usual limit is 1,024: take as many as we may.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # then it stays at what it is


def join_all(room):
    """Let in those who wait, after the turn's lines: what was said before they came is not for them."""
    for _ in range(100):  # then the others have their turn
        try:
            connection, address = room.listener.accept()
        except BlockingIOError:
            return  # nobody is left
        except OSError as error:
            # Mostly EMFILE: no descriptor is free. The listener would stay ready and the loop spin: say it
            # once, and look away for a little.
            if not room.accept_failed:
                log("accept-failed", error=reason(error), text=error.strerror)
            room.accept_failed = True
            listen_again(room, time.monotonic() + BACKOFF_S)
            return
        room.accept_failed = False
        join(room, Client(connection, name_of(address)))


def listen_again(room, when):
    """Leave the listener alone until then, or, with None, look at it from now on."""
    room.accept_again = when
    if when:
        room.selector.unregister(room.listener)
    else:
        room.selector.register(room.listener, selectors.EVENT_READ)


def join(room, client):
    room.clients[client] = True
    log("connected", client.peer, active=len(room.clients))
    try:
        client.connection.setblocking(False)
        tune(client.connection, *room.keepalive)
        watch(room, client, selectors.EVENT_READ)
    except OSError as error:
        drop(room, client, reason(error))


def watch(room, client, events):
    """Let select() look for these events of a client; a system call only if that is a change."""
    if events == client.events:
        return
    if not events:
        room.selector.unregister(client.connection)
    elif not client.events:
        room.selector.register(client.connection, events, client)
    else:
        room.selector.modify(client.connection, events, client)
    client.events = events


def hear(room, client):
    """Read what a client says; its lines are sent at the end of the turn."""
    try:
        # Half a line, or a thousand. recv() would take CHUNK bytes of new memory, whatever comes: for so many it
        # asks the kernel and gives them back, three more system calls for each read.
        size = client.connection.recv_into(room.buffer)
    except BlockingIOError:
        return
    except OSError as error:
        drop(room, client, reason(error))
        return
    if client.why:
        if not size:
            close(room, client)  # it has left, and now we have its FIN: nothing can be unread any more
        return  # what stands behind `quit` is ignored
    if size:
        lines, client.rest, client.why = split_lines(client.rest + room.buffer[:size])
    else:  # the client's FIN: a last line needs no newline, whatever it says
        last, client.why = client.rest.removesuffix(b"\r"), "eof"
        lines = [last] if last else []
    client.lines += len(lines)
    room.said += lines
    room.said_bytes += size
    if client.why:
        room.leaving.append(client)


def spread(room):
    """Send what was said in this turn to everybody, as one block; then say goodbye to those who leave."""
    said, room.said, room.said_bytes = room.said, [], 0
    if said:
        block = memoryview(b"\n".join(said) + b"\n")
        size = len(block)
        for client in list(room.clients):
            sent = 0
            if not client.pending:
                try:
                    sent = client.connection.send(block)
                except BlockingIOError:
                    pass  # no room at all
                except OSError as error:
                    drop(room, client, reason(error))
                    continue
            if sent < size:
                owe(room, client, block[sent:])  # a part of a memoryview: copies nothing
    for client in room.leaving:
        if not client.closed:
            leave(room, client)
    room.leaving = []


def owe(room, client, block):
    """Keep for a client what its kernel did not take."""
    try:
        if client.pending and client.owed + len(block) > room.max_pending:
            pay(client)  # select() may not have told us yet that it reads again
    except BlockingIOError:
        pass  # it does not
    except OSError as error:
        drop(room, client, reason(error))
        return
    if client.owed + len(block) > room.max_pending:
        drop(room, client, "dropped")
        return
    keep(client, block)
    watch(room, client, selectors.EVENT_READ | selectors.EVENT_WRITE)


def keep(client, block):
    if not client.pending:
        client.pending = collections.deque()  # only now: empty ones would be most of an idle room's memory
    client.pending.append(block)
    client.owed += len(block)


def pay(client):
    """Send what is pending, as far as the client's kernel takes it."""
    while client.pending:
        blocks = list(itertools.islice(client.pending, 100))
        sent = client.connection.sendmsg(blocks)  # all of them in one system call
        client.owed -= sent
        while sent:
            block = client.pending.popleft()
            if sent < len(block):
                client.pending.appendleft(block[sent:])
            sent -= min(sent, len(block))
    client.pending = ()


def pay_ready(room, client):
    """Called if the client's kernel has room again."""
    try:
        pay(client)
    except BlockingIOError:
        return
    except OSError as error:
        drop(room, client, reason(error))
        return
    if client not in room.clients:
        finish(room, client)
    else:
        watch(room, client, selectors.EVENT_READ)


def leave(room, client):
    """Out of the room; the connection stays until what is owed is paid, for a limited time."""
    del room.clients[client]
    log("disconnected", client.peer, why=client.why, lines=client.lines, active=len(room.clients))
    if client.why == "too-long":
        keep(client, memoryview(b"error: line longer than %d bytes\n" % MAX_LINE))
    room.lingering.append((time.monotonic() + LINGER_S, client))
    if client.pending:
        watch(room, client, selectors.EVENT_WRITE)  # pays, then finishes
    else:
        finish(room, client)


def finish(room, client):
    """All is paid. After the client's FIN nothing is unread, so close; else send our FIN and wait for its.

    close() with unread input would send RST, and RST destroys what is still on its way to the client.
    """
    try:
        client.connection.shutdown(socket.SHUT_WR)
    except OSError:
        client.why = "eof"  # the connection has ended by itself
    if client.why == "eof":
        close(room, client)
    else:
        watch(room, client, selectors.EVENT_READ)


def drop(room, client, why):
    """Give up a client that does not read or has broken off, at once."""
    if client in room.clients:
        client.why = why
        del room.clients[client]
        log("disconnected", client.peer, why=why, lines=client.lines, active=len(room.clients))
    if why == "dropped":
        # close() shall send RST and free what the kernel still keeps: the client must not take this for a
        # regular end.
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(room, client)


def close(room, client):
    watch(room, client, 0)
    client.pending = ()
    client.connection.close()
    client.closed = True


def close_late(room):
    """Close those who left and took too long."""
    while room.lingering and (room.lingering[0][1].closed or room.lingering[0][0] <= time.monotonic()):
        _, client = room.lingering.popleft()
        if not client.closed:
            close(room, client)


def next_deadline(room):
    """How long select() may wait: for ever, unless someone lingers or the listener is left alone."""
    deadlines = [deadline for deadline, _ in itertools.islice(room.lingering, 1)]
    if room.accept_again:
        deadlines.append(room.accept_again)
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


def serve(room):
    listen_again(room, None)
    while True:
        somebody_waits = False
        for key, events in room.selector.select(next_deadline(room)):
            client = key.data
            if client is None:
                somebody_waits = True
                continue
            if events & selectors.EVENT_WRITE and not client.closed:
                pay_ready(room, client)
            if events & selectors.EVENT_READ and not client.closed:
                hear(room, client)
            if room.said_bytes >= MAX_BLOCK:
                spread(room)
        spread(room)
        close_late(room)
        if somebody_waits:
            join_all(room)
        elif room.accept_again and room.accept_again <= time.monotonic():
            listen_again(room, None)


def main():
    parser = options(port=6002)
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=1024, help="clients that may wait (default: 1024)"
    )
    parser.add_argument(
        "--max-pending",
        type=whole(MIB, 1024 * MIB),
        default=4 * MIB,
        metavar="BYTES",
        help="kept for a client that does not read; past it, the client is dropped (default: 4 MiB)",
    )
    parser.add_argument(
        "--keepalive",
        type=keepalive,
        default="30,10,3",
        metavar="IDLE,INTERVAL,COUNT",
        help="when to give up a silent peer, in seconds (default: 30,10,3)",
    )
    args = parser.parse_args()
    raise_descriptor_limit()
    try:
        listener = listen(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with listener:
        ready("tcp", *listener.getsockname()[:2])
        serve(Room(listener, args.max_pending, args.keepalive))


if __name__ == "__main__":
    run(main)
