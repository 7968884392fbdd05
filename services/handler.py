#!/usr/bin/env python3
"""Echo server, iterative, by plain `socketserver`: a handler class in place of the loop around accept().

The same echo as echo.py. socketserver.TCPServer calls socket, bind, listen and accept for us, and runs each
client through the same steps:

    get_request -> verify_request -> process_request -> Handler.setup, .handle, .finish -> shutdown_request

A program overrides the step it cares about. process_request() serves the client at once, in the only thread
there is, so the next client waits; threaded.py and forking.py replace just that step.

serve_forever() serves one client after another until it is stopped; with --once, handle_request() serves one
client and the program ends.

Resource handling: shutdown_request() closes each connection. Under load: the library would call a failing
accept() again at once, without end and silently; get_request() below waits and says so.
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

NAME = "handler"
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
        log("connected", name_of(self.client_address), active=1)

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
        log("disconnected", name_of(self.client_address), why=self.why, bytes=self.echoed, active=0)


class EchoServer(socketserver.TCPServer):
    allow_reuse_address = True  # SO_REUSEADDR: the port may be bound though old connections are in TIME_WAIT

    def __init__(self, host, port, backlog):
        # The library asks for IPv4 unless told otherwise; getaddrinfo() says what the host is.
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.request_queue_size = backlog  # listen()'s argument; the library's own is 5
        super().__init__(address, EchoHandler)  # socket, bind, listen

    def get_request(self):
        """Wait for the next client, whatever happens: an error of accept() is never the listener's own."""
        failed = False
        while True:
            try:
                return self.socket.accept()
            except OSError as error:
                # Mostly EMFILE: no descriptor is free, and the client stays in the backlog. Say it once, wait
                # a little.
                if not failed:
                    log("accept-failed", error=reason(error), text=error.strerror)
                failed = True
                time.sleep(BACKOFF_S)

    def handle_error(self, request, client_address):
        """Called if a handler raises; the library's own prints a traceback."""
        log("error", name_of(client_address), text=repr(sys.exception()))


def main():
    parser = options(port=5002)
    parser.add_argument(
        "--backlog", type=whole(0, 65535), default=128, help="clients that may wait (default: 128)"
    )
    parser.add_argument("--once", action="store_true", help="serve one client by handle_request(), then end")
    args = parser.parse_args()
    try:
        server = EchoServer(args.host, args.port, args.backlog)
    except (OSError, UnicodeError) as error:
        refuse(name_of((args.host, args.port)), error)
    with server:
        ready("tcp", *server.server_address[:2])
        if args.once:
            server.handle_request()
        else:
            server.serve_forever()


if __name__ == "__main__":
    run(main)
