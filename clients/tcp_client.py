#!/usr/bin/env python3
"""An interactive TCP client: the keyboard in the main thread, reception in another.

    tcp_client.py HOST PORT        tcp_client.py unix:PATH

Why two threads? input() waits for the keyboard and recv() waits for the network; one thread cannot wait for both by these calls. The main thread keeps
the keyboard, because signals (Ctrl-C) come to it. The receiver is a daemon: it must not keep the program alive when the person has left.

What arrives while a line is being typed is printed above it, and the typed text is not torn apart. Ctrl-D says FIN and waits for what is still to
come; Ctrl-C leaves at once. In a pipe it sends each line of its input and prints each line that comes.
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
CHUNK = 65536
PART_S = 0.2  # a line without its newline is shown after this pause
LAST_WORDS_S = 5.0  # after Ctrl-D: how long to wait for the server's FIN


class Closed(Exception):
    """The server has ended the connection."""


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
    text = data.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def receive(connection, screen, state):
    """The receiving thread: show each line, until the server ends the connection; then wake the main thread."""
    rest = b""
    why = "the server closed the connection"
    try:
        while True:
            connection.settimeout(PART_S if rest else None)
            try:
                data = connection.recv(CHUNK)
            except TimeoutError:
                screen.show(readable(rest))  # an echo server returns no newline if none was sent
                rest = b""
                continue
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                screen.show(readable(line.removesuffix(b"\r")))
    except OSError as error:
        why = f"the connection broke: {error.strerror}"
    if rest:
        screen.show(readable(rest))
    if not state["leaving"]:
        state["why"] = why
        os.kill(os.getpid(), signal.SIGUSR1)  # input() in the main thread is interrupted, and raises Closed


def converse(connection, screen):
    """The main thread: send what is typed, a line at a time. Returns the exit status."""
    state = {"leaving": False, "why": ""}

    def closed(_number, _frame):
        raise Closed

    signal.signal(signal.SIGUSR1, closed)
    receiver = threading.Thread(target=receive, args=(connection, screen, state), daemon=True)
    receiver.start()
    try:
        while True:
            connection.sendall(screen.read().encode(errors="surrogateescape") + b"\n")
    except EOFError:
        state["leaving"] = True
        try:
            connection.shutdown(socket.SHUT_WR)  # FIN: we have said everything, and still listen
        except OSError:
            pass  # the server was faster
        receiver.join(LAST_WORDS_S)
        return 0
    except Closed:
        print(f"{chr(10) if screen.terminal else ''}{state['why']}", file=sys.stderr)
        return 0
    except (BrokenPipeError, ConnectionResetError):
        state["leaving"] = True
        receiver.join(PART_S)
        print("the connection broke: the server closed it", file=sys.stderr)
        return 0


def connect(target, port):
    """A connected socket, or the end of the program with one line that says why."""
    try:
        if target.startswith("unix:"):
            path = target.removeprefix("unix:")
            connection = socket.socket(socket.AF_UNIX)
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
            return connection
        return socket.create_connection((target, port))
    except ConnectionRefusedError:
        sys.exit(f"tcp_client: {where(target, port)} refuses: is a server listening there?")
    except (OSError, UnicodeError) as error:
        sys.exit(
            f"tcp_client: {where(target, port)} cannot be reached: {getattr(error, 'strerror', None) or error}"
        )


def where(target, port):
    return target if port is None else f"{target}:{port}"


def port_number(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def leave(_number, _frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="tcp_client", description=__doc__.split("\n\n")[0])
    parser.add_argument("host", help="address or name, or unix:PATH")
    parser.add_argument("port", type=port_number, nargs="?", help="its port")
    arguments = parser.parse_args()
    if arguments.port is None and not arguments.host.startswith("unix:"):
        parser.error("a port is needed: tcp_client.py HOST PORT")
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)  # also when whoever started us ignores Ctrl-C
    # A signal that comes just before input() begins to wait would be noticed only at the next key: so look twice a second.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    try:
        with connect(arguments.host, arguments.port) as connection:
            screen = Screen()
            if screen.terminal:
                print(
                    f"connected to {where(arguments.host, arguments.port)}; Ctrl-D to say goodbye, Ctrl-C to leave"
                )
            status = converse(connection, screen)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = 130
    sys.stdout.flush()
    os._exit(status)  # the receiver may be in the middle of a recv(); nothing is left to be tidied


if __name__ == "__main__":
    main()
