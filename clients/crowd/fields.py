"""The fields of a command, and why it cannot be done."""

import base64
import errno
import socket


class Refused(ValueError):
    """A command that cannot be done: the message says why, for whoever gave it."""

    word = "usage"


class Unheard(Refused):
    """The server did not do what the load needs to begin with."""

    word = "unheard"


def peer_of(message):
    """(kind, family, address) of whom to talk to."""
    kind = message.get("kind", "tcp")
    if kind not in ("tcp", "udp"):
        raise Refused(f'"kind" is tcp or udp, not {kind!r:.80}')
    match message.get("to"):
        case [str(host), int(port)] if 0 <= port < 65536 and "\0" not in host:
            pass
        case other:
            raise Refused(f'"to" is [host, port], such as ["127.0.0.1", 5000]; got {other!r:.80}')
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        )
    except socket.gaierror as exc:
        raise OSError(errno.EHOSTUNREACH, f"{host}: {exc.strerror}") from None
    return kind, found[0][0], found[0][4]


def whole(message, key, least, most, default=None):
    value = message.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise Refused(f'"{key}" is a whole number from {least} to {most}, not {value!r:.80}')
    return value


def number_of(message, key, default):
    value = message.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise Refused(f'"{key}" is a number from 0 on, not {value!r:.80}')
    return float(value)


def bytes_of(message, key, default):
    """A field that is text, or {"base64": …}."""
    value = message.get(key, default)
    try:
        return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value.encode()
    except (ValueError, LookupError, AttributeError, TypeError):
        raise Refused(f'"{key}" is a text or {{"base64": …}}, not {value!r:.80}') from None
