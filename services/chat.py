#!/usr/bin/env python3
"""Chat server: every line that a client sends goes to all clients, itself too. Two threads for each client.

The server keeps the socket of each client (N:M), and that is all the difference to an echo. One thread of a
client hears what it says and sends it to everybody, as far as each one's kernel takes it at once. What is
left over for a client who reads slowly is its `pending`, and its second thread sends that when there is room
again:

    alice -> hear -> say -> alice
                       |--> bob
                       '--> carol's pending -> speak -> carol, who reads slowly

Why two? If alice's thread waited until carol reads, bob would wait, too. And `pending` has a bound: a client
who does not read at all is dropped, or the server's memory would be its buffer.

What it leaves out: names, rooms, history. chat_eventloop.py is the same with one thread for all, so that
thousands of clients are not twice as many threads.

Resource handling: serve_client() closes the connection when both threads are done with it. Under load: if no
thread can be started, that client is closed; if no descriptor is free, it waits in the backlog.
"""

import argparse
import atexit
import datetime
import errno
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time

NAME = "chat"
CHUNK = 65536  # most that one recv() takes; TCP is a stream, so the size says nothing about lines
MAX_LINE = 65536  # bytes of text in a line; the sender of a longer one is lost or means no good
MIB = 1024 * 1024
BACKOFF_S = 0.1  # pause after a failed accept()
LINGER_S = 1.0  # how long a leaver may take for what it is still owed

room = threading.Lock()  # held to join, to leave and to say; so what is said has one order for all
clients = set()  # those who are in the room
limits = argparse.Namespace(pending=4 * MIB, keepalive=(30, 10, 3))  # --max-pending, --keepalive


class Client:
    """What the server knows of a client. Only who holds `room` may change `here` and `pending`."""

    def __init__(self, connection, peer):
        self.connection = connection
        self.peer = peer
        self.here = False  # in the room: lines are owed to it
        self.pending = bytearray()  # owed to it, and not yet taken by the kernel
        self.wake = threading.Condition(room)  # for its speaker: something is pending, or the client has left
        self.lines = 0
        self.why = None  # it left


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
    lines = []
    *whole_lines, rest = data.split(b"\n")
    for line in whole_lines:
        line = line.removesuffix(b"\r")
        if line == b"quit":
            return lines, b"", "quit"  # what stands behind it is ignored
        if len(line) > MAX_LINE:
            return lines, b"", "too-long"
        if line:
            lines.append(line)
    if len(rest.removesuffix(b"\r")) > MAX_LINE:
        return lines, b"", "too-long"
    return lines, rest, None


def join(connection, peer):
    """Let a client in: before its thread runs, so that it hears all that is said from now on."""
    client = Client(connection, peer)
    with room:
        clients.add(client)
        client.here = True
        active = len(clients)
    name = f"hear-{peer}"
    log("connected", peer, thread=name, active=active)
    # A signal goes to any thread that does not block it, and only the main thread can act on it. Threads
    # inherit what is blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        threading.Thread(target=serve_client, args=(client,), name=name, daemon=True).start()
    except RuntimeError as error:  # no thread to be had
        leave(client, "no-thread")
        connection.close()
        log("error", peer, text=str(error))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def leave(client, why):
    with room:
        client.why = client.why or why
        client.here = False
        clients.discard(client)
        client.wake.notify()
        active = len(clients)
    thread = threading.current_thread().name
    log("disconnected", client.peer, why=client.why, lines=client.lines, thread=thread, active=active)


def say(client, lines):
    """Send these lines of this client to everybody. Nothing in here waits for a receiver."""
    block = b"".join(line + b"\n" for line in lines)
    with room:
        if not client.here:
            return  # dropped meanwhile
        client.lines += len(lines)
        for each in list(clients):
            each.pending += block
            pay(each)
            if len(each.pending) > limits.pending:
                drop(each, "dropped")


def pay(client):
    """Send what is pending, as far as the client's kernel takes it now; the rest is its speaker's work."""
    try:
        while client.pending:
            # We hold `room`, so we must not wait: send() takes what it can, or nothing with BlockingIOError.
            sent = client.connection.send(client.pending, socket.MSG_DONTWAIT)
            del client.pending[:sent]
    except BlockingIOError:
        client.wake.notify()
    except OSError as error:
        drop(client, reason(error))


def drop(client, why):
    """Give up a client that does not read or has broken off; the thread that hears it will close."""
    client.why = client.why or why
    client.here = False
    clients.discard(client)
    client.pending.clear()
    client.wake.notify()
    try:
        # close() shall send RST and free what the kernel still keeps: the client must not take this for a
        # regular end.
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Its threads may be waiting in recv() and poll(), and close() would not wake them.
        client.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the connection has ended by itself


def hear(client):
    """Read what the client says until it leaves; return why it does."""
    rest, why = b"", None
    while not why and client.here:
        data = client.connection.recv(CHUNK)  # half a line, or a hundred
        if not data:  # the client's FIN: a last line needs no newline, whatever it says
            data, why = rest.removesuffix(b"\r"), "eof"
            lines = [data] if data else []
        else:
            lines, rest, why = split_lines(rest + data)
        if lines:
            say(client, lines)
    return why


def speak(client):
    """Send what is pending when there is room, until the client has left and all is sent; then our FIN."""
    while True:
        with room:
            client.wake.wait_for(lambda: client.pending or not client.here)
            if not client.pending:
                break
        # Not holding `room`: here, and only here, a slow reader is waited for.
        wait_until(client.connection, select.POLLOUT)
        with room:
            pay(client)
    try:
        client.connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the connection has ended by itself


def wait_until(connection, event, seconds=None):
    """Wait until the kernel has something to receive, or room to send; False if the time is over."""
    poll = select.poll()  # select() itself ends at descriptor 1,023
    poll.register(connection, event)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


def serve_client(client):
    """The life of a client: this thread hears, a second one speaks."""
    speaker = threading.Thread(target=speak, args=(client,), name=f"speak-{client.peer}", daemon=True)
    try:
        speaker.start()
        tune(client.connection, *limits.keepalive)
        why = hear(client)
    except OSError as error:
        why = reason(error)
    except RuntimeError:
        speaker, why = None, "no-thread"
    if why == "too-long":
        with room:
            client.pending += b"error: line longer than %d bytes\n" % MAX_LINE
    leave(client, why)
    if speaker:
        linger(client, speaker)
    client.connection.close()


def linger(client, speaker):
    """Let the speaker finish, then read on to the client's FIN; all this for a limited time.

    close() with unread input would send RST, and RST destroys what is still on its way to the client.
    """
    deadline = time.monotonic() + LINGER_S
    speaker.join(LINGER_S)
    try:
        while wait_until(client.connection, select.POLLIN, max(0, deadline - time.monotonic())):
            if not client.connection.recv(CHUNK):
                break
    except OSError:
        pass  # the connection has ended by itself
    try:
        client.connection.shutdown(socket.SHUT_RDWR)  # wakes the speaker if it still waits
    except OSError:
        pass
    speaker.join()


def raise_descriptor_limit():
    # Each client costs a descriptor, and the usual limit is 1,024: take as many as we may.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # then it stays at what it is


def serve(listener):
    while True:
        connection, address = accept(listener)
        join(connection, name_of(address))


def main():
    parser = options(port=6001)
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
    limits.pending, limits.keepalive = args.max_pending, args.keepalive
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
