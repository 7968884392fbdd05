#!/usr/bin/env python3
"""Echo server, concurrent: a thread for each client, by `socketserver.ThreadingMixIn`.

The same echo as handler.py, with one step replaced: process_request() starts a thread, and the client is
served there. serve_forever() runs in a thread of its own, too, so the main thread is free; here it waits for
a signal.

    main thread        waits; ends when SIGTERM or Ctrl-C comes
    acceptor           serve_forever(): accept, start a worker, accept, ...
    Thread-1, -2, ...  one worker for each client: recv, send, recv, ...

--daemon-threads shows who outlives whom. A process lives until its last thread that is not a daemon ends.
With `yes` the workers are daemons: the main thread's end is the end of all. With `no` the listener is closed
and the main thread ends, but the process stays until the last client has left (a second Ctrl-C kills it).

What it leaves out: a limit. Ten thousand clients are ten thousand threads; eventloop.py serves them with one.

Resource handling: shutdown_request() closes each connection, in its worker. Under load: if no thread can be
started, that client is closed; if no descriptor is free, it waits in the backlog.
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
import socketserver
import sys
import threading
import time

NAME = "threaded"
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


class EchoHandler(socketserver.BaseRequestHandler):
    """One for each client: self.request is its socket, self.client_address where it is."""

    def setup(self):
        self.echoed, self.why = 0, "stopped"
        log("connected", name_of(self.client_address), **self.server.facts())

    def handle(self):
        try:
            tune(self.request)
            # recv() waits for the next bytes, however few. No bytes at all are the client's FIN: it has said
            # everything.
            while data := self.request.recv(CHUNK):
                # send() may take only a part when the client reads slowly; sendall() goes on until the kernel
                # has all.
                self.request.sendall(data)
                self.echoed += len(data)
            self.why = "eof"
        except OSError as error:
            self.why = reason(error)

    def finish(self):
        self.server.served.discard(self.request)
        facts = {"why": self.why, "bytes": self.echoed, **self.server.facts()}
        log("disconnected", name_of(self.client_address), **facts)


class EchoServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True  # SO_REUSEADDR: the port may be bound though old connections are in TIME_WAIT
    block_on_close = False  # server_close() must not wait for workers: they may stay long

    def __init__(self, host, port, backlog):
        # The library asks for IPv4 unless told otherwise; getaddrinfo() says what the host is.
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.request_queue_size = backlog  # listen()'s argument; the library's own is 5
        self.served = set()  # the connections of the clients being served
        self.accept_failed = False
        super().__init__(address, EchoHandler)  # socket, bind, listen

    def facts(self):
        # The library names its threads "Thread-1 (process_request_thread)".
        name = threading.current_thread().name.split()[0]
        return {"thread": name, "active": len(self.served), "threads": threading.active_count()}

    def get_request(self):
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            # Mostly EMFILE: no descriptor is free. The client stays in the backlog, so the next accept()
            # would fail at once, again and again: say it once, and wait a little. The library ignores the
            # error and comes back.
            if not self.accept_failed:
                log("accept-failed", error=reason(error), text=error.strerror)
            self.accept_failed = True
            time.sleep(BACKOFF_S)
            raise
        self.accept_failed = False
        return connection, address

    def process_request(self, request, client_address):
        self.served.add(request)  # before its thread starts, or the thread might be done before
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """Called if a handler raises or no thread can be started; the library's own prints a traceback."""
        self.served.discard(request)
        log("error", name_of(client_address), text=repr(sys.exception()), **self.facts())


def raise_descriptor_limit():
    # Each client costs a descriptor, and the usual limit is 1,024: take as many as we may.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # then it stays at what it is


def main():
    parser = options(port=5003)
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=1024, help="clients that may wait (default: 1024)"
    )
    parser.add_argument(
        "--daemon-threads",
        choices=["yes", "no"],
        default="yes",
        help="do workers end with main? (default: yes)",
    )
    args = parser.parse_args()
    raise_descriptor_limit()
    try:
        server = EchoServer(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    server.daemon_threads = args.daemon_threads == "yes"
    # poll_interval: how long shutdown() may have to wait. The acceptor is a daemon; it never keeps the
    # process alive.
    acceptor = threading.Thread(target=server.serve_forever, args=(0.1,), name="acceptor", daemon=True)
    # A signal goes to any thread that does not block it, and only the main thread can act on it. Threads
    # inherit what is blocked, so block here for all, and wait in the main thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    acceptor.start()
    ready("tcp", *server.server_address[:2])
    try:
        stop(signal.sigwait(STOP_SIGNALS), None)  # the main thread is free; only a signal ends this wait
    finally:
        server.shutdown()  # ends serve_forever(); called in its own thread it would wait for itself
        server.server_close()
        log("stopping", note="main thread ends", daemon_threads=args.daemon_threads, **server.facts())
        if not server.daemon_threads:  # workers may stay for ever: a second signal ends them
            for each in STOP_SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


if __name__ == "__main__":
    run(main)
