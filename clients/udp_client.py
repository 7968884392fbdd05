#!/usr/bin/env python3
"""An interactive UDP client: #REG at the start, #DEREG at the end, and each typed line is a datagram.

    udp_client.py HOST PORT        udp_client.py HOST PORT --no-register   (for a UDP echo)

UDP has no connection, so a registry knows only who has said so: #REG. And nobody notices that we are gone, so
we say #DEREG at the end, also when the end is Ctrl-C. Any datagram may be lost; the server answers both, and
if no answer comes we say so.

As in tcp_client.py, the main thread has the keyboard and a daemon thread receives; what arrives is printed
above what is being typed. And as there, input() waits until a key is pressed, so whichever thread learns of
the end ends the whole program: leave().

In a pipe each line of the input is a datagram, and each datagram that comes is printed as a line. What it
leaves out: the cursor is taken to be behind the typed text, for readline does not tell Python where it is.
"""

import argparse
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import time
import unicodedata

try:
    import readline  # line editing and history; and it knows what has been typed so far
except ImportError:  # a Python without it: the typed text cannot be printed again, all else works
    readline = None

PROMPT = "> "
LARGEST = 65535  # a datagram is never longer; what does not fit into recv()'s buffer would be lost
ANSWER_S = 2.0  # how long to wait for the answer to #REG
GOODBYE_S = 0.5  # how long to wait for the answer to #DEREG, or for the next of the last datagrams
LAST_S = 3.0  # how long to wait at the end, however much still comes
POKE = signal.SIGUSR1  # "there is something to show", from another thread to the main thread
POKE_S = 0.05  # how long until it is said again
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # SIGHUP: the terminal's window was closed


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
        self.turn = threading.Lock()  # of the threads that want something shown
        self.arrived = None  # what another thread wants to be shown
        self.shown = threading.Event()
        self.mode = termios.tcgetattr(sys.stdin) if self.terminal else None
        sys.stdin.reconfigure(errors="surrogateescape")  # whatever is typed is bytes in the end
        sys.stdout.reconfigure(errors="backslashreplace")
        if self.terminal:
            signal.signal(POKE, self.poked)

    def show(self, text):
        """Print a text, from any thread; it stands there when this comes back."""
        if not self.terminal or threading.current_thread() is threading.main_thread():
            with self.lock:
                self.put(text)
            return
        with self.turn:
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
        except OSError:
            pass  # nobody reads it, as behind `| head`; but #DEREG is still to be said

    def read(self):
        """The next line from the keyboard, without its newline. Raises EOFError at Ctrl-D."""
        if not self.terminal:
            if line := sys.stdin.buffer.readline():
                return line.removesuffix(b"\n")
            raise EOFError
        if not readline:
            print(PROMPT, end="", flush=True)
        self.typing = True
        try:
            return input(PROMPT if readline else "").encode(errors="surrogateescape")
        except EOFError:
            self.typing = False
            self.show("")  # the next text belongs on a line of its own, not behind the prompt
            raise
        finally:
            self.typing = False

    def close(self):
        """Nothing is shown after this: the lock is not given back."""
        self.lock.acquire(timeout=1.0)  # not for ever: a thread may be stuck in show(), if Ctrl-S was pressed
        if self.terminal:
            try:
                if self.at_prompt():
                    print(file=sys.stderr, flush=True)
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self.mode)  # readline will not come to that
            except (OSError, termios.error):
                pass  # the terminal is gone


class Conversation:
    """What the threads share."""

    def __init__(self, sock, screen, register):
        self.sock = sock
        self.screen = screen
        self.register = register
        self.known = threading.Event()  # that somebody is there, or that nobody is
        self.heard = threading.Event()  # a datagram has come, since this was cleared


def cells(text):
    """How many columns of a terminal a text takes: two for 한, none for an accent set on a letter."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def readable(data):
    """Bytes as text that cannot drive the terminal: what is no UTF-8, and control characters, are escaped."""
    text = data.removesuffix(b"\n").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def receive(talk):
    """The receiving thread: show each datagram. It has no end, for nobody closes anything in UDP."""
    while True:
        try:
            data = talk.sock.recv(LARGEST)
        except ConnectionRefusedError:
            tell_refused(talk)
            continue
        except OSError as error:
            talk.screen.show(f"not received: {error.strerror}")
            continue
        if data.startswith(b"#COOKIE ") and talk.register and not talk.known.is_set():
            # The server asks us to send this back, since only then does it know that our address is ours.
            say(talk, b"#REG " + data.removeprefix(b"#COOKIE "))
            continue
        talk.screen.show(readable(data))
        talk.known.set()
        talk.heard.set()


def say(talk, data):
    """Send one datagram."""
    for _ in range(2):
        try:
            talk.sock.send(data)
            return
        except ConnectionRefusedError:
            tell_refused(talk)  # the answer to an earlier one; this one was not sent
        except OSError as error:
            talk.screen.show(f"not sent: {error.strerror}")
            return


def tell_refused(talk):
    """ICMP "port unreachable" has come for something that we sent; a connected UDP socket is told (udp(7))."""
    talk.screen.show("refused: nobody is bound to that port there")
    talk.known.set()


def leave(talk, status):
    """End the program, from any thread and at any time; but say goodbye."""
    talk.heard.clear()
    if talk.register:
        say(talk, b"#DEREG")
        talk.heard.wait(GOODBYE_S)
    talk.screen.close()
    os._exit(status)


def wait_for_signal(talk):
    """The thread that Ctrl-C comes to.

    A handler would not do: it runs in the main thread when that comes back from a call, and a signal in the
    moment before input() waits would be noticed at the next key.
    """
    leave(talk, 128 + signal.sigwait(SIGNALS))


def converse(talk):
    """The main thread: register, and send what is typed."""
    threading.Thread(target=receive, args=(talk,), daemon=True).start()
    if talk.register:
        say(talk, b"#REG")
        if not talk.known.wait(ANSWER_S):
            talk.screen.show(f"no answer to #REG within {ANSWER_S:g} s: is a registry listening there?")
    try:
        while True:
            say(talk, talk.screen.read())
    except EOFError:
        pass
    # Answers may still be under way. Nobody tells which is the last, so wait until no more come.
    deadline = time.monotonic() + LAST_S
    while talk.heard.wait(GOODBYE_S) and time.monotonic() < deadline:
        talk.heard.clear()
    leave(talk, 0)


def connect(host, port):
    """A UDP socket with a fixed peer, or the end of the program with one line. connect() sends nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.connect(address)  # from here on only that address is heard, and its ICMP errors are told
        return sock
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        sys.exit(f"udp_client: {name_of(host, port)} cannot be reached: {why}: is the address right?")


def name_of(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def main():
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # until #REG is said, Ctrl-C just ends the program
    parser = argparse.ArgumentParser(prog="udp_client", description=__doc__.split("\n\n")[0])
    parser.add_argument("host", help="address or name")
    parser.add_argument("port", type=port_number, help="its port")
    parser.add_argument(
        "--no-register", action="store_true", help="say neither #REG nor #DEREG: the server is no registry"
    )
    arguments = parser.parse_args()
    sock = connect(arguments.host, arguments.port)
    talk = Conversation(sock, Screen(), not arguments.no_register)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # also for the threads that we start
    threading.Thread(target=wait_for_signal, args=(talk,), daemon=True).start()
    if talk.screen.terminal:
        where = name_of(arguments.host, arguments.port)
        print(f"talking to {where} over UDP; Ctrl-D or Ctrl-C to leave")
    converse(talk)


if __name__ == "__main__":
    main()
