#!/usr/bin/env python3
"""Echo server, concurrent: a process for each client, by `socketserver.ForkingMixIn`.

The same echo as handler.py, with one step replaced: process_request() forks. The child has a copy of
everything, so it serves the client with the very same code; the parent closes its own copy of the connection
and accepts the next.

    parent   accept, fork, close(connection), accept, ...            waitpid() for children that ended
    child    close(listener), recv, send, recv, ..., close, _exit

What it leaves out: anything that clients share. A child's variables are its own, so a chat could not be
written this way. Compare threaded.py, where all workers see the same memory.

Resource handling: each process closes what it does not use; a listener left open in a child would keep the
port taken. An ended child is a zombie until the parent waits for it, so the parent looks ten times a second.
SIGTERM and Ctrl-C end the children, too; SIGKILL gives the parent no chance to, and its children go on until
their clients leave. Under load: if no process can be forked, that client is closed; if no descriptor is free,
it waits in the backlog.
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
import socketserver
import sys
import threading
import time

NAME = "forking"
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
        # The child's copy of the parent's set was made before it was added itself.
        active = len(self.server.active_children or ()) + 1
        log("connected", name_of(self.client_address), process=os.getpid(), active=active)

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
        log(
            "disconnected", name_of(self.client_address), why=self.why, bytes=self.echoed, process=os.getpid()
        )


class EchoServer(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True  # SO_REUSEADDR: the port may be bound though old connections are in TIME_WAIT

    def __init__(self, host, port, backlog):
        # The library asks for IPv4 unless told otherwise; getaddrinfo() says what the host is.
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.request_queue_size = backlog  # listen()'s argument; the library's own is 5
        self.active_children = set()  # their process ids
        self.accept_failed = False
        super().__init__(address, EchoHandler)  # socket, bind, listen

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
        """Fork. In the child this never returns."""
        # A signal right after fork() would run the parent's stop() in the child: keep signals waiting
        # meanwhile.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            super().process_request(request, client_address)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def finish_request(self, request, client_address):
        """Serve the client; this runs in the child."""
        self.socket.close()  # the listener, or the port would stay taken while this client stays
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # a child just ends
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        super().finish_request(request, client_address)

    def collect_children(self, *, blocking=False):
        """Wait for ended children, so that no zombies stay; serve_forever() calls this in every turn.

        The library's own asks for each child by its id, in every turn, and stops the server while there are
        40 of them (max_children). Here -1 asks for any that has ended, and there is no such limit.
        """
        while self.active_children:
            try:
                child, status = os.waitpid(-1, 0 if blocking else os.WNOHANG)
            except ChildProcessError:
                self.active_children.clear()
                return
            if child == 0:
                return  # there are children, but none has ended
            self.active_children.discard(child)
            status = os.waitstatus_to_exitcode(status)  # below 0: the signal that killed it
            log("reaped", process=child, status=status, active=len(self.active_children))

    def handle_error(self, request, client_address):
        """Called if a handler raises or fork() fails; the library's own prints a traceback."""
        log("error", name_of(client_address), text=repr(sys.exception()), process=os.getpid())

    def server_close(self):
        """End the children, close the listener, and wait until all children are gone."""
        for child in self.active_children:
            try:
                os.kill(child, signal.SIGTERM)
                os.kill(child, signal.SIGCONT)  # a stopped process would not see SIGTERM
            except ProcessLookupError:
                pass  # our own signal came between waitpid() and discard()
        super().server_close()


def main():
    parser = options(port=5004)
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=1024, help="clients that may wait (default: 1024)"
    )
    args = parser.parse_args()
    try:
        server = EchoServer(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with server:
        ready("tcp", *server.server_address[:2])
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    run(main)
