"""The kernel's packet filter as the gate uses it: rules, packets that wait for a verdict, packets that were dropped.

Rules go in by libnftables, which takes well under a millisecond where starting nft(8) takes ten. Queue and log are read from
netlink sockets (netlink(7); include/uapi/linux/netfilter/nfnetlink_queue.h, nfnetlink_log.h), without a library.
Everything acts on the network namespace in which it is made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

HEADERS = 160  # bytes of a packet that tell whose it is
WHOLE = 0xFFFF

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NO_ENOBUFS = 270, 5
_SO_RCVBUFFORCE = 33
_BUFFER = 64 << 20  # bytes that may wait for us in the kernel, where we may have so many
_QUEUE, _LOG, _TABLES = 3, 4, 10  # subsystems of nfnetlink
_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_NESTED = 0x8000
_ERROR = 2
_DROP, _ACCEPT = 0, 1
_QUEUE_LENGTH = 1 << 18  # packets that may be held

_message = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_BURST = 512  # packets that are read before what is due goes on


def _attr(kind: int, content: bytes) -> bytes:
    return _attribute.pack(4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each attribute's kind, and where its content begins and ends."""
    while at + 4 <= end:
        length, kind = _attribute.unpack_from(data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, at + 4, at + length
        at += (length + 3) & ~3


def _generic(kind: int, flags: int, family: int, number: int, attributes: bytes) -> bytes:
    """A message of nfnetlink, with its struct nfgenmsg."""
    body = struct.pack("!BBH", family, 0, number) + attributes
    message = _message.pack(16 + len(body), kind, flags, 0, 0) + body
    return message + b"\0" * (-len(message) % 4)


def _refused(answer: bytes) -> None:
    """Raises OSError with what the kernel says in an acknowledgement."""
    if struct.unpack_from("=H", answer, 4)[0] == _ERROR:
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))


class _Netlink:
    """A socket to one subsystem of nfnetlink, for one queue or group of it."""

    def __init__(self, subsystem: int, number: int) -> None:
        self.subsystem = subsystem
        self.number = number
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # in a user namespace: as much as the administrator allows
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)

    def message(self, kind: int, attributes: bytes, flags: int = _REQUEST) -> bytes:
        return _generic(self.subsystem << 8 | kind, flags, 0, self.number, attributes)

    def ask(self, kind: int, attributes: bytes) -> None:
        """Raises OSError with what the kernel says. Only before packets come, or their messages would stand before the answer."""
        self.socket.send(self.message(kind, attributes, _REQUEST | _ACK))
        _refused(self.socket.recv(65536))

    def messages(self, kind: int) -> Iterator[tuple[bytes, int, int]]:
        """What waits to be read: the data, and where the attributes of each message begin and end."""
        wanted = self.subsystem << 8 | kind
        for _ in range(_BURST):
            try:
                data = self.socket.recv(1 << 17, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            at = 0
            while at + 20 <= len(data):
                length, found = struct.unpack_from("=IH", data, at)
                if found == wanted:
                    yield data, at + 20, at + length
                at += max((length + 3) & ~3, 16)

    def close(self) -> None:
        self.socket.close()


@dataclass(slots=True)
class Held:
    """A packet that waits for its verdict. Without GSO of ours the kernel cuts it into segments of a wire before."""

    id: int
    mark: int
    data: bytes
    size: int
    """Bytes of the whole packet, of which `data` may be the beginning."""
    at: float
    """When we read it (seconds, monotonic)."""


class Queue:
    """NFQUEUE: packets wait here for a verdict. Raises OSError where the kernel has no such thing."""

    def __init__(self, number: int) -> None:
        self._netlink = _Netlink(_QUEUE, number)
        self._whole = False
        try:
            self._netlink.ask(2, _attr(1, struct.pack("!BxH", 1, 0)))  # bind
            self._netlink.ask(2, _attr(2, struct.pack("!IB", HEADERS, 2)))  # copies of packets
            self._netlink.ask(2, _attr(3, struct.pack("!I", _QUEUE_LENGTH)))
        except OSError:
            self.close()
            raise
        self._verdicts: list[bytes] = []

    def fileno(self) -> int:
        return self._netlink.socket.fileno()

    def copy_whole(self, whole: bool) -> None:
        """Whether we get all of each packet from here on, or its headers."""
        if whole != self._whole:
            self._whole = whole
            parameters = struct.pack("!IB", WHOLE if whole else HEADERS, 2)
            self._netlink.socket.send(self._netlink.message(2, _attr(2, parameters)))

    def packets(self) -> Iterator[Held]:
        """All that wait to be read."""
        now = time.monotonic()
        for data, at, end in self._netlink.messages(0):
            number = mark = size = 0
            content = b""
            for kind, begin, stop in _attributes(data, at, end):
                if kind == 1:
                    number = int.from_bytes(data[begin : begin + 4], "big")
                elif kind == 3:
                    mark = int.from_bytes(data[begin : begin + 4], "big")
                elif kind == 10:
                    content = data[begin:stop]
                elif kind == 13:
                    size = int.from_bytes(data[begin : begin + 4], "big")
            if number:
                yield Held(number, mark, content, size or len(content), now)

    def drop(self, number: int) -> None:
        self._verdict(number, _DROP, b"")

    def accept(self, number: int, data: bytes = b"") -> None:
        """Let it go on; with `data`, as this packet instead."""
        self._verdict(number, _ACCEPT, _attr(10, data) if data else b"")

    def _verdict(self, number: int, verdict: int, more: bytes) -> None:
        self._verdicts.append(self._netlink.message(1, _attr(2, struct.pack("!II", verdict, number)) + more))

    def flush(self) -> None:
        """Hand the verdicts to the kernel, many in one call."""
        verdicts, self._verdicts = self._verdicts, []
        batch: list[bytes] = []
        size = 0
        for each in verdicts:
            if size + len(each) > 65536 and batch:
                self._netlink.socket.send(b"".join(batch))
                batch, size = [], 0
            batch.append(each)
            size += len(each)
        if batch:
            self._netlink.socket.send(b"".join(batch))

    def lost(self) -> int:
        """Packets that the kernel dropped because we did not keep up."""
        try:
            with open("/proc/self/net/netfilter/nfnetlink_queue") as file:
                for line in file:
                    fields = line.split()
                    if int(fields[0]) == self._netlink.number:
                        return int(fields[5]) + int(fields[6])
        except (OSError, ValueError, IndexError):
            pass
        return 0

    def close(self) -> None:
        self._netlink.close()


class Log:
    """NFLOG: what a rule with `log group` saw. Raises OSError where the kernel has no such thing."""

    def __init__(self, group: int) -> None:
        self._netlink = _Netlink(_LOG, group)
        try:
            self._netlink.ask(1, _attr(1, struct.pack("!B", 1)))  # bind
            self._netlink.ask(1, _attr(2, struct.pack("!IBx", HEADERS, 2)))  # copies of packets
            self._netlink.ask(1, _attr(5, struct.pack("!I", 1)))  # each one at once
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._netlink.socket.fileno()

    def packets(self) -> Iterator[tuple[str, bytes]]:
        """The rule's prefix, and the beginning of the packet."""
        for data, at, end in self._netlink.messages(0):
            prefix, content = "", b""
            for kind, begin, stop in _attributes(data, at, end):
                if kind == 10:
                    prefix = data[begin:stop].rstrip(b"\0").decode(errors="replace")
                elif kind == 9:
                    content = data[begin:stop]
            yield prefix, content

    def close(self) -> None:
        self._netlink.close()


class Tables:
    """nftables: text in, as for nft(8)."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError:
            return  # told when it is wanted
        library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._library = library

    def run(self, text: str) -> str:
        """Do all of this or nothing, and give what it prints. Raises OSError with nft's first line of complaint."""
        if self._library is None:
            raise OSError(errno.ENOENT, "there is no libnftables.so.1")
        if self._library.nft_run_cmd_from_buffer(self._context, text.encode()) != 0:
            said = self._library.nft_ctx_get_error_buffer(self._context) or b""
            raise OSError(errno.EINVAL, _first_line(said.decode(errors="replace")))
        return (self._library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")


def queue_rule(family: int, table: str, chain: str, number: int) -> None:
    """Add the rule `queue num NUMBER bypass` to a chain of an ip or ip6 table. Raises OSError.

    By the target of iptables(8), which kernels have whose nftables knows no queue (include/uapi/linux/netfilter/nf_tables.h,
    nf_tables_compat.h; xt_NFQUEUE.h, revision 3)."""
    bypass = struct.pack("=HHH", number, 1, 1)
    target = _text(1, "NFQUEUE") + _attr(2, struct.pack("!I", 3)) + _attr(3, bypass)
    expression = _text(1, "target") + _attr(2 | _NESTED, target)
    rule = _text(1, table) + _text(2, chain) + _attr(4 | _NESTED, _attr(1 | _NESTED, expression))
    begin, end = (_generic(kind, _REQUEST, 0, _TABLES, b"") for kind in (0x10, 0x11))
    new = _generic(_TABLES << 8 | 6, _REQUEST | _ACK | _CREATE | _APPEND, family, 0, rule)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as control:
        control.bind((0, 0))
        control.send(begin + new + end)
        _refused(control.recv(65536))


def _text(kind: int, text: str) -> bytes:
    return _attr(kind, text.encode() + b"\0")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
