"""Why a program did not become a server. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from socklab.causes.server import last_error
from socklab.history import Event
from socklab.matching import shown


def of_start(events: Iterable[Event], why: str) -> str:
    """Why a program did not become a server: `why` is what was seen of it, the rest it printed."""
    listed = list(events)
    if excess := next((e.data["excess"] for e in listed if e.data.get("excess")), ""):
        return f"before it listened, it {excess}"
    printed = "\n".join([str(e.data["text"])[:400] for e in listed if e.kind == "log"][-40:])
    for pattern, cause in _AT_THE_START:
        if re.search(pattern, printed):
            return cause
    if "listens on IPv6 only" in why:
        return "its socket takes IPv6 only"
    if "listens on 127." in why or "listens on ::1" in why:
        return "it binds the loopback address, which nobody else reaches"
    if "listens on port" in why:
        return "its port is written into the program: it does not take the one that it is told"
    if "its socket on that port is one of UDP" in why:
        return "it opens a UDP socket (SOCK_DGRAM) where a TCP one (SOCK_STREAM) is wanted"
    if "its socket on that port is one of TCP" in why:
        return "it opens a TCP socket (SOCK_STREAM) where a UDP one (SOCK_DGRAM) is wanted"
    if "does not listen" in why:
        return (
            _asks_a_question(printed)
            or "it never listens: listen() is missing, or it waits for something else first"
        )
    return last_error(listed)


_AT_THE_START = (
    (r"EOFError|NoSuchElementException|end of file when reading", "it asks for something at the keyboard, and nobody sits there: take host and port from the command line"),
    (r"[Cc]annot assign requested address|EADDRNOTAVAIL", "it binds an address that this host does not have, one of its author's network: bind 0.0.0.0"),
    (r"[Aa]ddress already in use|EADDRINUSE", "its port is taken: a second socket of its own on it, or SO_REUSEADDR is not set"),
    (r"SyntaxError|IndentationError", "the program has a syntax error"),
    (r"ModuleNotFoundError: (.*)|ImportError: (.*)", "a module that it imports is not installed here"),
    (r"IndexError: list index out of range|[Uu]sage:|ArrayIndexOutOfBounds", "it wants other arguments than it got: put {host} and {port} where it takes them"),
    (r"can't open file|No such file or directory|Cannot find module|ClassNotFoundException|Could not find or load", "a file that it needs is not there"),
    (r"[Pp]ermission denied|EACCES", "it may not have what it asks for: a port below 1024, or a file"),
    (r"NameError|TypeError|AttributeError|UnboundLocalError", "it fails before it listens, by an error of its own"),
)  # fmt: skip


def _asks_a_question(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.strip()]
    if lines and re.search(r"[?:>]\s*$", lines[-1]):
        return f"it asks at the keyboard ({shown(lines[-1].encode(), 40)}), and nobody sits there"
    return ""
