#!/usr/bin/env python3
"""An interactive UDP client: it says #REG at the start and #DEREG at the end, and each typed line is a datagram.

    udp_client.py HOST PORT                    udp_client.py HOST PORT --no-register   (for a UDP echo)

UDP has no connection, so a registry knows only who has said so: #REG at the start. And nobody notices that we are gone, so #DEREG at the end, also when the end is
Ctrl-C. Each of these datagrams may be lost; the server answers both, and without an answer we say so.

As in tcp_client.py the main thread has the keyboard and a daemon thread receives; what arrives is printed above what is being typed.
"""

import argparse
import os
import shutil
import signal
import socket
import sys
import threading

try:
    import readline  # line editing and history; and it knows what has been typed so far
except ImportError:  # a Python without it: the typed text cannot be printed again, all else works
    readline = None

PROMPT = "> "
LARGEST = 65535  # a datagram is never longer; what does not fit into recv()'s buffer would be lost
ANSWER_S = 2.0  # how long to wait for the answer to #REG
GOODBYE_S = 0.5  # and to #DEREG


class Screen:
    """Lines that arrive, above the line that is being typed. Used by both threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.typing = False

    def show(self, text):
        with self.lock:
            if self.terminal and self.typing:
                typed = PROMPT + (readline.get_line_buffer() if readline else "")
                rows = max(0, len(typed) - 1) // shutil.get_terminal_size().columns
                # Back to the first column (and row) of the typed line, erase to the end of the screen, print, type it again.
                sys.stdout.write("\r" + "\x1b[A" * rows + "\x1b[J" + text + "\n" + typed)
            else:
                sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def read(self):
        """The next line from the keyboard. Raises EOFError at Ctrl-D."""
        if not self.terminal:
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            return line.removesuffix("\n")
        self.typing = True
        try:
            return input(PROMPT)
        finally:
            self.typing = False


def readable(data):
    """Bytes as text that cannot drive the terminal: what is no UTF-8, and control characters, are shown escaped."""
    text = data.decode(errors="backslashreplace").removesuffix("\n")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def receive(sock, screen, answered):
    """The receiving thread: show each datagram. It never ends by itself, for nobody says goodbye in UDP."""
    while True:
        try:
            data = sock.recv(LARGEST)
        except ConnectionRefusedError:
            # ICMP "port unreachable" has come back for something that we sent; a connected UDP socket is told (udp(7)).
            screen.show("refused: nobody is bound to that port there")
            continue
        except OSError as error:
            screen.show(f"cannot receive: {error.strerror}")
            if sock.fileno() < 0:
                return
            continue
        screen.show(readable(data))
        answered.set()


def say(sock, screen, data):
    """Send one datagram. An error here may be an answer to an earlier one, so it ends nothing."""
    try:
        sock.send(data)
    except ConnectionRefusedError:
        screen.show("refused: nobody is bound to that port there")
    except OSError as error:
        screen.show(f"not sent: {error.strerror}")


def converse(sock, screen, register):
    answered = threading.Event()
    threading.Thread(target=receive, args=(sock, screen, answered), daemon=True).start()
    try:
        if register:
            say(sock, screen, b"#REG")
            if not answered.wait(ANSWER_S):
                screen.show(f"no answer to #REG within {ANSWER_S:g} s: is a registry listening there?")
        while True:
            say(sock, screen, screen.read().encode(errors="surrogateescape"))
    finally:
        # However we leave: by Ctrl-D, Ctrl-C or SIGTERM. A second Ctrl-C must not keep us from saying it.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        if register:
            answered.clear()
            say(sock, screen, b"#DEREG")
        answered.wait(GOODBYE_S)


def connect(host, port):
    """A UDP socket with a fixed peer, or the end of the program with one line. Nothing is sent by this connect()."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.connect(address)  # from here on only that address is heard, and its ICMP errors are told
        return sock
    except (OSError, UnicodeError) as error:
        sys.exit(f"udp_client: {host}:{port} cannot be reached: {getattr(error, 'strerror', None) or error}")


def port_number(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def leave(_number, _frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="udp_client", description=__doc__.split("\n\n")[0])
    parser.add_argument("host", help="address or name")
    parser.add_argument("port", type=port_number, help="its port")
    parser.add_argument(
        "--no-register", action="store_true", help="say neither #REG nor #DEREG: the server is no registry"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)  # also when whoever started us ignores Ctrl-C
    # A signal that comes just before input() begins to wait would be noticed only at the next key: so look twice a second.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    status = 0
    with connect(arguments.host, arguments.port) as sock:
        screen = Screen()
        if screen.terminal:
            print(f"talking to {arguments.host}:{arguments.port} over UDP; Ctrl-D or Ctrl-C to leave")
        try:
            converse(sock, screen, not arguments.no_register)
        except EOFError:
            pass
        except KeyboardInterrupt:
            status = 130
            print(file=sys.stderr)
        sys.stdout.flush()
        os._exit(status)  # the receiver may be in the middle of a recv(); nothing is left to be tidied


if __name__ == "__main__":
    main()
