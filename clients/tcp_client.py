#!/usr/bin/env python3
"""An interactive TCP client: the keyboard in the main thread, reception in another.

    tcp_client.py HOST PORT        tcp_client.py unix:PATH

Why two threads? input() waits for the keyboard and recv() waits for the network; one thread cannot wait for
both by these calls. What arrives while a line is being typed is printed above it, and the typed text is not
torn apart.

    keyboard ─▶ main thread: input() ─▶ sendall() ─▶ server
      screen ◀─ receiver: show()     ◀─ recv()    ◀─'

Either side may end the conversation. Ctrl-D says FIN and waits for what is still to come; the server's FIN
ends it at once; so does Ctrl-C. But input() waits until a key is pressed, whatever happens in other threads,
so whichever thread learns of the end ends the whole program: leave(). The other threads are daemons, since
none of them may keep it alive.

In a pipe it sends its input as it is and prints each line that comes. What it leaves out: the cursor is taken
to be behind the typed text, for readline does not tell Python where it is.
"""

import argparse
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import unicodedata

try:
    import readline  # line editing and history; and it knows what has been typed so far
except ImportError:  # a Python without it: the typed text cannot be printed again, all else works
    readline = None

PROMPT = "> "
CHUNK = 65536  # most that one recv() takes, and most that is kept of a line without its end
CONNECT_S = 5.0  # the kernel would try for two minutes
PART_S = 0.2  # a line without its newline is shown after this pause
SILENCE_S = 5.0  # after Ctrl-D: how long the server may say nothing and not close
POKE = signal.SIGUSR1  # "there is something to show", from another thread to the main thread
POKE_S = 0.05  # how long until it is said again
SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Screen:
    """Lines that arrive, above the line that is being typed.

    On a terminal the main thread prints them all, in a signal handler: only there is readline at rest. Another
    thread that asked for the typed text could meet it half changed. That thread pokes until its text is shown,
    since a signal that comes just before input() waits would be noticed at the next key.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.typing = False
        self.arrived = None  # what another thread wants to be shown
        self.shown = threading.Event()
        self.mode = termios.tcgetattr(sys.stdin) if self.terminal else None
        sys.stdin.reconfigure(errors="surrogateescape")  # whatever is typed is bytes in the end
        sys.stdout.reconfigure(errors="backslashreplace")
        if self.terminal:
            signal.signal(POKE, self.poked)

    def show(self, text):
        """Print a text, from the main thread or the receiver; it stands there when this comes back."""
        if not self.terminal or threading.current_thread() is threading.main_thread():
            with self.lock:
                self.put(text)
            return
        self.shown.clear()
        self.arrived = text
        signal.pthread_kill(threading.main_thread().ident, POKE)
        while not self.shown.wait(POKE_S):
            signal.pthread_kill(threading.main_thread().ident, POKE)

    def poked(self, *_):
        if not self.lock.acquire(blocking=False):
            return  # the main thread holds it itself; the next poke will do
        if self.arrived is not None:
            text, self.arrived = self.arrived, None
            self.put(text)
            self.shown.set()
        self.lock.release()

    def at_prompt(self):
        """Is a line being typed? Only then readline has the terminal: it takes it before it prints the prompt, and
        gives it back at Return, before input() comes back."""
        try:
            return self.typing and not (readline and termios.tcgetattr(sys.stdin)[3] & termios.ICANON)
        except termios.error:
            return False  # the terminal is gone

    def put(self, text):
        if self.at_prompt():
            typed = PROMPT + (readline.get_line_buffer() if readline else "")
            rows, last = divmod(cells(typed), shutil.get_terminal_size().columns)
            if rows and not last:
                typed += " \r"  # a full row: the cursor stands in the next one, as readline has it
            # Back to the begin of the typed line, erase from there on, print, type it again.
            text = "\r" + "\x1b[A" * rows + "\x1b[J" + text + "\n" + typed
        else:
            text += "\n"
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(128 + signal.SIGPIPE)  # nobody reads what we print, as behind `| head`

    def read(self):
        """The next line from the keyboard, with its newline. Raises EOFError at Ctrl-D."""
        if not self.terminal:
            if line := sys.stdin.buffer.readline():
                return line
            raise EOFError
        if not readline:
            print(PROMPT, end="", flush=True)
        self.typing = True
        try:
            return input(PROMPT if readline else "").encode(errors="surrogateescape") + b"\n"
        except EOFError:
            self.typing = False
            self.show("")  # the next text belongs on a line of its own, not behind the prompt
            raise
        finally:
            self.typing = False

    def close(self, words):
        """Show the last words. Nothing is shown after them: the lock is not given back."""
        self.lock.acquire(timeout=1.0)  # not for ever: a thread may be stuck in show(), if Ctrl-S was pressed
        if self.terminal:
            words = f"\n{words}" if self.at_prompt() else words
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self.mode)  # readline will not come to that
        if words:
            try:
                print(words, file=sys.stderr, flush=True)
            except OSError:
                pass  # nobody is there to read them


def cells(text):
    """How many columns of a terminal a text takes: two for 한, none for an accent set on a letter."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def readable(data):
    """Bytes as text that cannot drive the terminal: what is no UTF-8, and control characters, are escaped."""
    text = data.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def leave(screen, status, words=""):
    """End the program, from any thread and at any time. The kernel closes the connection."""
    screen.close(words)
    os._exit(status)


def wait_for_signal(screen):
    """The thread that Ctrl-C comes to.

    A handler would not do: it runs in the main thread when that comes back from a call, and a signal in the
    moment before input() waits would be noticed at the next key.
    """
    leave(screen, 128 + signal.sigwait(SIGNALS))


def receive(connection, screen, heard, said_fin):
    """The receiving thread: show each line, until the server ends the connection; then end the program."""
    rest = b""
    try:
        while True:
            connection.settimeout(PART_S if rest else None)
            try:
                data = connection.recv(CHUNK)
            except TimeoutError:
                data = None  # an echo server sends no newline if it has got none
            if data == b"":
                break
            if data:
                heard.set()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    screen.show(readable(line.removesuffix(b"\r")))
            if rest and (data is None or len(rest) >= CHUNK):
                screen.show(readable(rest))
                rest = b""
    except OSError as error:
        leave(screen, 1, f"the connection broke: {error.strerror}")
    if rest:
        screen.show(readable(rest))
    leave(screen, 0, "" if said_fin.is_set() else "the server closed the connection")


def converse(connection, screen):
    """The main thread: send what is typed, a line at a time."""
    heard = threading.Event()  # something has come, since this was cleared
    said_fin = threading.Event()
    receiver = threading.Thread(target=receive, args=(connection, screen, heard, said_fin), daemon=True)
    receiver.start()
    try:
        while True:
            connection.sendall(screen.read())
    except EOFError:
        said_fin.set()
        try:
            connection.shutdown(socket.SHUT_WR)  # FIN: we have said everything, and still listen
        except OSError:
            pass  # the server was faster, and the receiver knows
    except OSError as error:
        receiver.join(PART_S)  # it ends the program if the server has closed
        leave(screen, 1, f"the connection broke: {error.strerror}")
    heard.set()
    while heard.is_set():
        heard.clear()
        receiver.join(SILENCE_S)  # it ends the program at the server's FIN
    leave(screen, 1, f"the server does not close, and has said nothing for {SILENCE_S:g} s")


def connect(host, port):
    """A connected socket, or the end of the program with one line that says why."""
    try:
        if host.startswith("unix:"):
            path = host.removeprefix("unix:")
            connection = socket.socket(socket.AF_UNIX)
            connection.connect("\0" + path[1:] if path.startswith("@") else path)
        else:
            connection = socket.create_connection((host, port), CONNECT_S)
    except ConnectionRefusedError:
        sys.exit(f"tcp_client: {name_of(host, port)} refuses: is a server listening there?")
    except ConnectionResetError as error:
        sys.exit(f"the connection broke: {error.strerror}")  # it was there, but only for a moment
    except TimeoutError:
        sys.exit(f"tcp_client: {name_of(host, port)} does not answer: is the address right, the network up?")
    except FileNotFoundError:
        sys.exit(f"tcp_client: {name_of(host, port)}: no such socket: is the server running, at this path?")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        sys.exit(f"tcp_client: {name_of(host, port)} cannot be reached: {why}: is the address right?")
    connection.settimeout(None)
    return connection


def name_of(host, port):
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def main():
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # until we are connected, Ctrl-C just ends the program
    parser = argparse.ArgumentParser(prog="tcp_client", description=__doc__.split("\n\n")[0])
    parser.add_argument("host", help="address or name, or unix:PATH")
    parser.add_argument("port", type=port_number, nargs="?", help="its port")
    arguments = parser.parse_args()
    if (arguments.port is None) != arguments.host.startswith("unix:"):
        parser.error("expected HOST PORT, or unix:PATH")
    connection = connect(arguments.host, arguments.port)
    screen = Screen()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # also for the threads that we start
    threading.Thread(target=wait_for_signal, args=(screen,), daemon=True).start()
    if screen.terminal:
        where = name_of(arguments.host, arguments.port)
        print(f"connected to {where}; Ctrl-D to say goodbye, Ctrl-C to leave")
    converse(connection, screen)


if __name__ == "__main__":
    main()
