#!/usr/bin/env python3
"""The scripted client: it does what it is told on many sockets at once, and reports all that happens to them.

It judges nothing. Commands come in, answers and events go out, as JSON, one object a line: on stdin and
stdout, or on one socket.

    → {"id": 1, "do": "open", "client": "alice", "kind": "tcp", "to": ["10.71.0.2", 6001]}
    ← {"id": 1, "ok": true, "t": 81273912, "local": ["10.71.0.3", 40512], "remote": ["10.71.0.2", 6001]}
    → {"id": 2, "do": "send", "client": "alice", "chunks": [{"text": "hello\\n"}]}
    ← {"id": 2, "ok": true, "t": 81274105, "sent": 6}
    ← {"event": "received", "client": "alice", "t": 81274377, "text": "hello\\n"}

Every command is answered once, when it is done; others go on meanwhile. A refusal is {"ok": false,
"error": WORD, "errno": …, "message": …} with WORD one of refused, reset, timed out, unreachable, closed,
denied, in use, usage, other. Bytes are {"text": …} if they are UTF-8, else {"base64": …}. `t` is the
monotonic clock in nanoseconds, read right at the call.

What a client goes through; the events are received, eof, reset and error:

    open ─▶ connecting ─▶ open ─(the peer's FIN)─▶ eof        sends may go on
                 │          └──────────┴─(RST, error, close, abort)─▶ closed
                 └─(refused, limit)─▶ closed

One thread, one epoll(7); no call blocks but the look-up of a name. Resource handling: a client's socket is
closed by close, abort, a second open, an error on it, or the end of the control stream. Under load: what is
read and sent in one turn is bounded, so that no peer keeps commands or other clients waiting; and while
nobody takes our reports, nothing more is read, so that memory stays bounded.
"""

import base64
import collections
import errno
import fcntl
import heapq
import importlib.util
import json
import os
import select
import socket
import struct
import sys
import termios
import time

VERSION = 1
CHUNK = 65536  # bytes of one recv(); a UDP datagram is never longer
LONGEST = 1 << 40  # bytes of a repeated chunk
BLOCK = 1 << 20  # a repeated chunk is handed to the kernel in blocks of about this size
TURNS = 16  # recv() calls on one socket before others have their turn
SENDS = 256  # send() calls likewise; and no more than BLOCK bytes
BACKLOG = 4 << 20  # bytes of reports that may wait for the conductor before we stop reading
DATAGRAM_BUFFER = 8 << 20  # asked of the kernel; it gives what net.core.rmem_max allows
RETRY_S = 0.005  # AF_UNIX: between two looks whether its backlog has room; no event tells
LONGEST_S = 86400  # a day; for any time in a command
LAST_WORDS_S = 5.0  # for the conductor to take the answer to `bye`
IP_RECVERR, IPV6_RECVERR = 11, 25  # ip(7), ipv6(7): ICMP errors go to the socket's error queue
SO_MEMINFO = 55  # <linux/sock_diag.h>: first of all, how much memory the unread datagrams take
DATAGRAM_COST = 512  # bytes of that which even an empty datagram takes, at least
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() throws away what is unsent and sends RST

WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.ENOENT: "unreachable",  # the path of an AF_UNIX socket
    errno.EPIPE: "closed",
    errno.ENOTCONN: "closed",
    errno.EBADF: "closed",
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EADDRINUSE: "in use",
}
OPTIONS = {
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "cork": (socket.IPPROTO_TCP, socket.TCP_CORK),
    "maxseg": (socket.IPPROTO_TCP, socket.TCP_MAXSEG),
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "keepidle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "keepintvl": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "keepcnt": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "rcvbuf": (socket.SOL_SOCKET, socket.SO_RCVBUF),
    "sndbuf": (socket.SOL_SOCKET, socket.SO_SNDBUF),
    "linger": (socket.SOL_SOCKET, socket.SO_LINGER),  # over 0, close() may block, and with it the whole agent
    "oobinline": (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    "broadcast": (socket.SOL_SOCKET, socket.SO_BROADCAST),
    "ttl": (socket.IPPROTO_IP, socket.IP_TTL),
}
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
BROKEN = select.EPOLLERR | select.EPOLLHUP  # epoll tells these two, asked or not

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Usage(Exception):
    """A command that cannot be understood; the message says what was expected."""


class Gone(Exception):
    """The conductor has left, so nobody needs us."""


class Client:
    """One client's socket, and what it still has to do."""

    def __init__(self, name, kind, sock):
        self.name = name
        self.kind = kind
        self.sock = sock
        self.state = "connecting"
        self.local = self.remote = None  # addresses, as Python has them; for UDP, where datagrams go
        self.opening = None  # the open command that is not answered yet: (number, timer of its limit)
        self.stalled = False
        self.rcvbuf = 0  # the receive buffer to go back to after stall
        self.shut = False  # our FIN is said
        self.hung_up = False  # epoll says so again and again
        self.jobs = collections.deque()  # Send, or (number, "shutdown" | "close"), in order
        self.received = self.sent = 0
        self.datagrams = 0  # received
        self.mask = None  # what epoll watches for; None: it does not know the socket


class Send:
    """One send command: its chunks, and how far it has come."""

    def __init__(self, number, chunks, pause, target):
        self.number = number
        self.chunks = chunks  # [data, times], the first one being sent
        self.pause = pause
        self.target = target  # of a datagram
        self.part = None  # of the first chunk, in hand and not yet taken by the kernel
        self.not_before = 0.0
        self.limit = self.wake = None  # timers
        self.sent = 0

    def next_part(self):
        """The next bytes for one call of the kernel: a datagram whole, a long repetition in blocks."""
        data, times = self.chunks[0]
        if not self.target:
            times = min(times, max(1, BLOCK // max(1, len(data))))
        self.chunks[0][1] -= times
        return memoryview(data * times)

    def unsent(self):
        return len(self.part or b"") + sum(len(data) * times for data, times in self.chunks)


class Agent:
    def __init__(self, fd_in, fd_out):
        self.fd_in = fd_in
        self.fd_out = fd_out
        self.epoll = select.epoll()
        self.is_file = False  # commands come from a file: epoll knows none, for it is always readable
        self.clients = {}
        self.by_fd = {}
        self.timers = []  # a heap of [when, number, function]; a cancelled one has None for a function
        self.count = 0
        self.partial = []  # of a command line that has not come whole
        self.out = bytearray()
        self.waits_for_room = False  # in the control stream
        self.full = False  # the conductor takes nothing for now, so no client is read
        self.syncs = collections.deque()  # (number, clients still to be read) of each sync command
        self.crowds = None  # thousands of clients as one: crowd/, once there are any
        self.running = True

    # The control stream.

    def run(self):
        blocking = {fd: os.get_blocking(fd) for fd in (self.fd_in, self.fd_out)}
        try:
            for fd in blocking:
                os.set_blocking(fd, False)
            self.listen_to_conductor()
            hello = {"event": "hello", "agent": VERSION, "pid": os.getpid()}
            self.say({**hello, "python": sys.version.split()[0], "t": now()})
            while self.running:
                self.flush()
                self.go_on_with_syncs()
                self.turn()
        except Gone:
            pass
        finally:
            for client in self.clients.values():
                self.drop(client)
            if self.crowds:
                self.crowds.close()
            self.epoll.close()
            for fd, was in blocking.items():
                os.set_blocking(fd, was)  # a terminal is shared with whoever started us

    def listen_to_conductor(self):
        try:
            self.epoll.register(self.fd_in, READABLE)
        except PermissionError:
            self.is_file = True
        if self.fd_out != self.fd_in:
            try:
                self.epoll.register(self.fd_out, 0)
            except PermissionError:
                pass  # a file: it takes everything at once

    def turn(self):
        """Wait for what happens next, and deal with it."""
        commands = self.is_file
        busy = bool(self.crowds and self.crowds.jobs)
        for fd, events in self.epoll.poll(0 if commands or busy else self.until_next_timer()):
            if fd in self.by_fd:
                self.ready(self.by_fd[fd], events)
            elif fd == self.fd_in and events & ~WRITABLE:
                commands = True
            elif fd == self.fd_out and events & BROKEN:
                self.running = False
        # Commands last: one may close a socket, and its number may be another's in the next moment.
        if commands and self.running:
            self.hear()
        while self.running and self.timers and self.timers[0][0] <= now_s():
            if function := heapq.heappop(self.timers)[2]:
                function()
        if busy and self.running:
            self.crowds.work()

    def hear(self):
        try:
            data = os.read(self.fd_in, 1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.running = False
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.partial.append(line)
            whole = b"".join(self.partial)
            self.partial.clear()
            if whole.strip():
                self.command(whole)
            if not self.running:
                return
        if rest:
            self.partial.append(rest)

    def say(self, message):
        try:
            line = to_json(message).encode()
        except UnicodeEncodeError:  # half a surrogate pair, from a command
            line = json.dumps(message).encode()
        self.out += line
        self.out += b"\n"

    def flush(self):
        """Hand our reports to the conductor. While it takes none, nothing is read from the clients."""
        try:
            while self.out:
                del self.out[: os.write(self.fd_out, self.out)]
        except BlockingIOError:
            pass
        except OSError:
            raise Gone from None
        if self.waits_for_room != bool(self.out):
            self.waits_for_room = bool(self.out)
            reads = READABLE if self.fd_in == self.fd_out else 0
            self.epoll.modify(self.fd_out, reads | (WRITABLE if self.out else 0))
        full = len(self.out) > (BACKLOG // 2 if self.full else BACKLOG)
        if full != self.full:
            self.full = full
            for client in self.clients.values():
                self.watch(client)

    def is_crowded(self):
        return len(self.out) > BACKLOG

    # Time.

    def at(self, when, function):
        self.count += 1
        timer = [when, self.count, function]
        heapq.heappush(self.timers, timer)
        return timer

    def until_next_timer(self):
        while self.timers and self.timers[0][2] is None:
            heapq.heappop(self.timers)
        return max(0.0, self.timers[0][0] - now_s()) if self.timers else -1

    # Commands.

    def command(self, line):
        number = None
        try:
            message = parse(line)
            number = message["id"] if type(message.get("id")) is int else None
            if number is None:
                raise Usage('a command has "id", a whole number')
            do = getattr(self, f"do_{message.get('do')}", None)
            if do is None:
                known = ", ".join(name[3:] for name in dir(self) if name.startswith("do_"))
                raise Usage(f"unknown command {message.get('do')!r}; known: {known}")
            do(number, message)
        except OSError as exc:
            self.refuse(number, exc)
        except Usage as exc:
            self.answer(number, ok=False, error="usage", message=str(exc))
        except (ValueError, OverflowError, struct.error) as exc:
            # What the checks below let through and the socket calls do not, such as a path with a NUL.
            self.answer(number, ok=False, error="usage", message=str(exc))

    def answer(self, number, ok=True, **fields):
        self.say({"id": number, "ok": ok, "t": now(), **fields})

    def refuse(self, number, exc, **fields):
        self.answer(number, ok=False, **reason(exc), **fields)

    def client_of(self, message, connected=False):
        """The client that a command names, if it has a socket (that is connected)."""
        name = need(message, "client", str, "a name")
        client = self.clients.get(name)
        if client is None or client.state == "closed":
            raise OSError(errno.ENOTCONN, f"{name} has no open socket")
        if connected and client.state == "connecting":
            raise OSError(errno.ENOTCONN, f"{name} is not connected yet")
        return client

    def do_open(self, number, message):
        name = need(message, "client", str, "a name")
        kind = need(message, "kind", str, "tcp, udp or unix")
        if kind not in ("tcp", "udp", "unix"):
            raise Usage(f"unknown kind {kind!r}; known: tcp, udp, unix")
        limit = seconds(message, "limit")
        bind = place_of(message, "bind") if message.get("bind") else None
        if kind == "unix":
            if bind:
                raise Usage('"bind" goes with tcp and udp; an AF_UNIX client has no address')
            path = need(message, "to", str, "a path, or @ and an abstract name")
            family, address = socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path
        elif kind == "udp" and not message.get("to"):
            family, address = socket.AF_INET6 if bind and ":" in bind[0] else socket.AF_INET, None
        else:
            family, address = look_up(place_of(message, "to"), kind, bind)
        if name in self.clients:
            self.drop(self.clients[name])
        sock = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            client = Client(name, kind, sock)
            client.remote = address
            prepare(client, message.get("options") or {}, bind)
            # The kernel goes on with a TCP connect (EINPROGRESS); AF_UNIX says EAGAIN if the backlog is full.
            problem = 0 if kind == "udp" else sock.connect_ex(address)
            if problem not in (0, errno.EINPROGRESS, errno.EAGAIN):
                raise OSError(problem, os.strerror(problem))
            client.local = sock.getsockname()
        except BaseException:
            sock.close()
            raise
        self.clients[name] = client
        timer = self.at(now_s() + limit, lambda: self.connect_too_late(client)) if limit else None
        client.opening = number, timer
        if problem == errno.EAGAIN:
            self.at(now_s() + RETRY_S, lambda: self.connect_again(client, address))
        elif problem == errno.EINPROGRESS:
            self.watch(client)
        else:
            self.opened(client)

    def connect_again(self, client, address):
        if client.state != "connecting":
            return
        problem = client.sock.connect_ex(address)
        if problem == errno.EAGAIN:
            self.at(now_s() + RETRY_S, lambda: self.connect_again(client, address))
        elif problem:
            self.drop(client, OSError(problem, os.strerror(problem)))
        else:
            self.opened(client)

    def connect_too_late(self, client):
        if client.state == "connecting":
            self.drop(client, OSError(errno.ETIMEDOUT, "no answer within the limit"))

    def opened(self, client):
        (number, timer), client.opening = client.opening, None
        cancel(timer)
        client.state = "open"
        fields = {"local": place(client.local)}
        if client.kind != "udp":
            fields["remote"] = place(client.remote)
        self.answer(number, **fields)
        self.watch(client)

    def do_send(self, number, message):
        client = self.client_of(message, connected=True)
        chunks = need(message, "chunks", list, "a list of chunks")
        chunks = collections.deque(chunk_of(chunk, client.kind) for chunk in chunks)
        pause, limit = seconds(message, "pause"), seconds(message, "limit")
        target = None
        if client.kind == "udp":
            target = client.remote
            if message.get("to"):
                _, target = look_up(place_of(message, "to"), "udp", client.local)
            elif target is None:
                raise Usage('a datagram needs "to": [host, port], in send or in open')
        elif message.get("to"):
            raise Usage('"to" goes with udp; a connection has its peer')
        job = Send(number, chunks, pause, target)
        client.jobs.append(job)
        self.work(client)
        if limit and job in client.jobs:
            job.limit = self.at(now_s() + limit, lambda: self.send_too_late(client, job))

    def send_too_late(self, client, job):
        client.jobs.remove(job)
        self.sent(job, OSError(errno.ETIMEDOUT, "not taken within the limit"))
        self.work(client)

    def sent(self, job, exc=None):
        """Answer a send command: it is done, or has failed."""
        cancel(job.limit)
        cancel(job.wake)
        if exc:
            self.refuse(job.number, exc, sent=job.sent)
        else:
            self.answer(job.number, sent=job.sent)

    def do_shutdown(self, number, message):
        client = self.client_of(message, connected=True)
        client.jobs.append((number, "shutdown"))
        self.work(client)

    def do_close(self, number, message):
        client = self.client_of(message)
        client.jobs.append((number, "close"))
        self.work(client)

    def do_abort(self, number, message):
        client = self.client_of(message)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.drop(client)
        self.answer(number)

    def do_stall(self, number, message):
        client = self.client_of(message)
        if message.get("rcvbuf"):
            # socket(7): the kernel doubles what is set, and tells the double.
            client.rcvbuf = client.rcvbuf or client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
            set_option(client.sock, "rcvbuf", message["rcvbuf"])
        client.stalled = True
        self.watch(client)
        self.answer(number)

    def do_read(self, number, message):
        client = self.client_of(message)
        client.stalled = False
        if client.rcvbuf:
            # A buffer smaller than a segment would let the window open only now and then.
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, client.rcvbuf)
            client.rcvbuf = 0
        self.watch(client)
        self.answer(number)

    def do_set(self, number, message):
        client = self.client_of(message)
        set_option(client.sock, need(message, "option", str, "a name"), message.get("value"))
        self.answer(number)

    def do_sync(self, number, message):
        marks = [
            (client, mark(client)) for client in self.clients.values() if client.state in ("open", "eof")
        ]
        self.syncs.append((number, collections.deque(marks)))
        self.go_on_with_syncs()

    def go_on_with_syncs(self):
        """Read what each sync command found waiting, at the pace at which the conductor takes our reports."""
        while self.syncs:
            number, marks = self.syncs[0]
            while marks:
                if self.is_crowded():
                    self.flush()
                if self.is_crowded() or not self.read_to(*marks[0]):
                    return
                marks.popleft()
            self.syncs.popleft()
            self.answer(number)

    def do_status(self, number, message):
        self.answer(number, clients={name: describe(client) for name, client in self.clients.items()})

    def do_crowd(self, number, message):
        if self.crowds is None:
            self.crowds = beside("crowd").Crowds(self.answer)
        self.crowds.command(number, message)

    def do_pin(self, number, message):
        """Run on these processors only (sched_setaffinity(2))."""
        processors = need(message, "processors", list, "a list of their numbers")
        if not all(type(each) is int for each in processors):
            raise Usage(f'"processors" is a list of numbers, not {processors!r:.80}')
        os.sched_setaffinity(0, processors)
        self.answer(number)

    def do_bye(self, number, message):
        for client in self.clients.values():
            self.drop(client)  # so that whatever is under way has its answer, too
        for unfinished, _ in self.syncs:
            self.answer(unfinished)
        if self.crowds:
            self.crowds.close()
        self.answer(number)
        self.running = False
        deadline = now_s() + LAST_WORDS_S
        room = select.poll()
        room.register(self.fd_out, select.POLLOUT)
        self.flush()
        while self.out and (left := deadline - now_s()) > 0:
            room.poll(left * 1000)
            self.flush()

    # Sockets.

    def watch(self, client):
        """Let epoll watch a socket for what can be done on it now."""
        mask = 0
        if client.state == "connecting" or wants_to_send(client):
            mask |= WRITABLE
        if client.state == "open" and not client.stalled and not self.full:
            mask |= READABLE
        if client.hung_up and not mask:
            mask = None  # or it would be told in every turn
        if client.state == "closed" or (client.state == "connecting" and client.kind == "unix"):
            mask = None  # before it is connected, an AF_UNIX socket counts as hung up
        if mask == client.mask:
            return
        fd = client.sock.fileno()
        if mask is None:
            self.epoll.unregister(fd)
            del self.by_fd[fd]
        elif client.mask is None:
            self.epoll.register(fd, mask)
            self.by_fd[fd] = client
        else:
            self.epoll.modify(fd, mask)
        client.mask = mask

    def ready(self, client, events):
        if client.state == "connecting":
            self.connected(client)
            return
        client.hung_up = bool(events & select.EPOLLHUP)
        if client.kind == "udp" and events & select.EPOLLERR:
            self.icmp(client)
        if client.mask & READABLE and events & (READABLE | BROKEN):
            for _ in range(TURNS):
                if self.is_crowded() or not self.receive(client):
                    break
        elif events & BROKEN:
            self.look_for_error(client)
        if events & WRITABLE:
            self.work(client)
        self.watch(client)

    def connected(self, client):
        problem = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        exc = OSError(problem, os.strerror(problem))
        if problem in (0, errno.ECONNRESET, errno.EPIPE):
            self.opened(client)
            if problem:
                # Not the connect was answered by RST (that is ECONNREFUSED), but the connection, and at once.
                self.broke(client, exc)
        else:
            self.drop(client, exc)

    def receive(self, client):
        """Report one chunk or datagram, or the end; whether there may be more."""
        if client.state != "open":
            return False
        try:
            data, source = client.sock.recvfrom(CHUNK)
        except BlockingIOError:
            return False
        except OSError as exc:
            if client.kind == "udp":
                return self.icmp(client) or self.tell_error(client, exc)
            self.broke(client, exc)
            return False
        if client.kind == "udp":
            self.tell_received(client, data, {"from": place(source)})
        elif data:
            self.tell_received(client, data)
        else:
            client.state = "eof"
            self.say({"event": "eof", "client": client.name, "t": now()})
            self.watch(client)
        return client.state == "open"

    def tell_received(self, client, data, source=()):
        self.say({"event": "received", "client": client.name, "t": now(), **to_wire(data), **dict(source)})
        client.received += len(data)
        client.datagrams += 1

    def tell_error(self, client, exc, **fields):
        self.say({"event": "error", "client": client.name, "t": now(), **reason(exc), **fields})
        return True

    def read_to(self, client, mark, crowd=False):
        """Read on to the mark, and the end or error if that is next. If it is not done, we are crowded."""
        while client.state == "open" and not client.stalled:
            if self.is_crowded() and not crowd:
                return False
            if not self.receive(client) or progress(client) > mark:
                return True
        if client.state in ("open", "eof"):
            self.look_for_error(client)
        return True

    def look_for_error(self, client):
        """An error on a socket that we do not read just now: RST has come, or ICMP."""
        if client.kind == "udp":
            self.icmp(client)
        elif problem := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.broke(client, OSError(problem, os.strerror(problem)))

    def icmp(self, client):
        """Report the ICMP answers to our datagrams (ip(7), IP_RECVERR). Whether there were any."""
        found = False
        while True:
            try:
                _, ancillary, _, address = client.sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return found
            for _, kind, content in ancillary:
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(content) >= 16:
                    (number,) = struct.unpack_from("=I", content)
                    about = {"about": place(address)} if address else {}  # where the datagram was sent
                    found = self.tell_error(client, OSError(number, os.strerror(number)), **about)

    def broke(self, client, exc):
        """The connection is broken: say so, once, and close the socket."""
        if client.state == "open" and not client.stalled:
            try:
                # What had come before is still there; the error may not be, and then b"" looks like a FIN.
                while data := client.sock.recv(CHUNK):
                    self.tell_received(client, data)
            except OSError:
                pass
        if exc.errno in (errno.ECONNRESET, errno.EPIPE):
            self.say({"event": "reset", "client": client.name, "t": now()})
            exc = OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        else:
            self.tell_error(client, exc)
        self.drop(client, exc)

    def drop(self, client, exc=None):
        """Close a socket, and answer the commands that wait for it."""
        if client.state == "closed":
            return
        exc = exc or OSError(errno.ENOTCONN, "the socket was closed before that")
        client.state = "closed"
        self.watch(client)
        client.sock.close()
        if client.opening:
            (number, timer), client.opening = client.opening, None
            cancel(timer)
            self.refuse(number, exc)
        while client.jobs:
            job = client.jobs.popleft()
            if isinstance(job, Send):
                self.sent(job, exc)
            else:
                self.refuse(job[0], exc)

    # Sending.

    def work(self, client):
        """Go on with what a client has to do, in order, as far as the kernel takes it."""
        while client.jobs and client.state != "closed":
            job = client.jobs[0]
            if isinstance(job, Send):
                if not self.send_some(client, job):
                    break
            else:
                client.jobs.popleft()
                self.end(client, *job)
        self.watch(client)

    def end(self, client, number, what):
        if what == "shutdown":
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError as exc:
                self.refuse(number, exc)
                return
            client.shut = True
        else:
            if client.state == "open" and client.kind != "udp":
                self.read_to(client, mark(client), crowd=True)  # close() with unread input says RST, not FIN
            self.drop(client)
        self.answer(number)

    def send_some(self, client, job):
        """Whether the job is done, or has failed; if not, it goes on when the socket or the clock allows."""
        calls, most = 0, job.sent + BLOCK
        while job.part is not None or job.chunks:
            if calls == SENDS or job.sent > most:
                return False
            if job.part is None:
                if now_s() < job.not_before:
                    cancel(job.wake)
                    job.wake = self.at(job.not_before, lambda: self.work(client))
                    return False
                job.part = job.next_part()
            try:
                sent = self.send_datagram(client, job) if job.target else client.sock.send(job.part)
            except BlockingIOError:
                return False
            except OSError as exc:
                client.jobs.popleft()
                self.sent(job, exc)
                if client.kind == "tcp" and exc.errno in WORDS and not client.shut:
                    self.broke(client, exc)  # this call has taken the error, and nobody else will tell of it
                return True
            calls += 1
            job.sent += sent
            client.sent += sent
            job.part = job.part[sent:] if len(job.part) > sent else None
            if job.part is None and not job.chunks[0][1]:
                job.chunks.popleft()
                job.not_before = now_s() + job.pause if job.pause else 0.0
        client.jobs.popleft()
        self.sent(job)
        return True

    def send_datagram(self, client, job):
        try:
            return client.sock.sendto(job.part, job.target)
        except BlockingIOError:
            raise
        except OSError:
            # It may be the answer to an earlier datagram, told at this call; this one was then not sent.
            if not self.icmp(client):
                raise
            return client.sock.sendto(job.part, job.target)


def beside(name):
    """A package of this program that stands beside this file, and is read when it is needed first."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, path)
    package = sys.modules[name] = importlib.util.module_from_spec(spec)  # there its parts look for each other
    spec.loader.exec_module(package)
    return package


def now():
    return time.monotonic_ns()


def now_s():
    return time.monotonic()


def cancel(timer):
    if timer:
        timer[2] = None


def word(exc):
    return WORDS.get(exc.errno, "other")


def reason(exc):
    """An error for JSON."""
    return {
        "error": word(exc),
        "errno": errno.errorcode.get(exc.errno),
        "message": exc.strerror or str(exc),
    }


def place(address):
    """An address for JSON: [host, port], or a path."""
    if isinstance(address, bytes):  # AF_UNIX, abstract
        address = address.decode(errors="replace")
    if isinstance(address, str):
        return "@" + address[1:] if address.startswith("\0") else address
    return list(address[:2])


def look_up(to, kind, beside=None):
    """Family and address of [host, port], in the family of the address beside it if there is one."""
    family = socket.AF_UNSPEC
    if beside:
        family = socket.AF_INET6 if ":" in beside[0] else socket.AF_INET
    try:
        found = socket.getaddrinfo(
            *to, family=family, type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        )
    except socket.gaierror as exc:
        raise OSError(errno.EHOSTUNREACH, f"{to[0]}: {exc.strerror}") from None
    return found[0][0], found[0][4]


def prepare(client, options, bind):
    """Give a new socket its options and its own address."""
    sock = client.sock
    if client.kind == "tcp":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a chunk is a segment, if it fits
        if bind:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    elif client.kind == "udp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        bind = bind or (("::", 0) if sock.family == socket.AF_INET6 else ("0.0.0.0", 0))
    if not isinstance(options, dict):
        raise Usage('"options" is an object, such as {"nodelay": 0}')
    for option, value in options.items():
        set_option(sock, option, value)
    if bind:
        sock.bind(bind)


def set_option(sock, option, value):
    if option not in OPTIONS:
        raise Usage(f"unknown option {option!r}; known: {', '.join(OPTIONS)}")
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise Usage(f"the value of {option} is a whole number from 0 on, not {value!r:.80}")
    level, number = OPTIONS[option]
    if option == "ttl" and sock.family == socket.AF_INET6:
        level, number = socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS
    sock.setsockopt(level, number, struct.pack("ii", 1, value) if option == "linger" else value)


def wants_to_send(client):
    """Is there something for the kernel now, and not after a pause?"""
    if not client.jobs or not isinstance(client.jobs[0], Send):
        return False
    return client.jobs[0].part is not None or client.jobs[0].not_before <= now_s()


def progress(client):
    """What has been read of a socket, in the measure of mark()."""
    return client.received + (DATAGRAM_COST * client.datagrams if client.kind == "udp" else 0)


def mark(client):
    """How far to read, at most, until nothing is left of what the kernel has now."""
    if client.kind == "udp":  # FIONREAD would tell of the first datagram only
        waiting = client.sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)[:4]
    else:
        waiting = fcntl.ioctl(client.sock, termios.FIONREAD, bytes(4))
    return progress(client) + struct.unpack("i", waiting)[0]


def describe(client):
    return {
        "kind": client.kind,
        "state": client.state,
        "local": place(client.local),
        "remote": place(client.remote) if client.remote else None,
        "received": client.received,
        "sent": client.sent,
        "unsent": sum(job.unsent() for job in client.jobs if isinstance(job, Send)),
    }


# What commands are made of.


def parse(line):
    """A command line as an object."""
    try:
        message = json.loads(line.decode())
    except UnicodeDecodeError:
        raise Usage("a command is UTF-8") from None
    except (ValueError, RecursionError) as exc:
        raise Usage(f"a command is JSON: {exc}") from None
    if not isinstance(message, dict):
        raise Usage('a command is an object, such as {"id": 1, "do": "status"}')
    return message


def need(message, key, kind, what):
    """A field that a command must have."""
    value = message.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Usage(f'{message.get("do")} needs "{key}", {what}; got {value!r:.80}')
    return value


def seconds(message, key):
    """A field that is a time, or 0."""
    value = message.get(key) or 0.0
    if not isinstance(value, int | float) or not 0 <= value <= LONGEST_S:
        raise Usage(f'"{key}" is a number of seconds, at most {LONGEST_S}, not {value!r:.80}')
    return value


def place_of(message, key):
    """A field that is [host, port]."""
    match message.get(key):
        case [str(host), int(port)] if 0 <= port < 65536 and "\0" not in host:
            return host, port
        case other:
            raise Usage(f'"{key}" is [host, port], such as ["127.0.0.1", 5000]; got {other!r:.80}')


def chunk_of(chunk, kind):
    """[data, times] of a chunk of a send command."""
    try:
        data = chunk["text"].encode() if "text" in chunk else base64.b64decode(chunk["base64"], validate=True)
        times = chunk.get("repeat", 1)
    except (TypeError, ValueError, LookupError, AttributeError):
        raise Usage('a chunk is {"text": …} or {"base64": …}, with "repeat": n if it is long') from None
    if type(times) is not int or not 0 <= len(data) * times <= LONGEST:
        raise Usage(f'"repeat" is a whole number, for {LONGEST} bytes at most; got {times!r:.80}')
    if kind == "udp" and len(data) * times > CHUNK:
        data, times = bytes(CHUNK), 1  # the kernel refuses it in any case
    return [data, times if data else 1]


def to_wire(data):
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def serve(fd_in, fd_out):
    """Do what is said on one descriptor and report on the other, until the first one ends."""
    Agent(fd_in, fd_out).run()


def main():
    import argparse
    import signal

    parser = argparse.ArgumentParser(
        description="The scripted client of socklab: JSON lines in, JSON lines out."
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT | unix:PATH",
        help="speak on a connection to there, not on stdin and stdout",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A terminal's Ctrl-C is for the conductor, which then closes our stream.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not arguments.connect:
        serve(0, 1)
        return
    try:
        if arguments.connect.startswith("unix:"):
            control = socket.socket(socket.AF_UNIX)
            control.connect(arguments.connect.removeprefix("unix:"))
        else:
            host, _, port = arguments.connect.rpartition(":")
            control = socket.create_connection((host.strip("[]"), int(port)))
            control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, ValueError) as exc:
        sys.exit(f"agent: cannot reach {arguments.connect}: {exc}; is the conductor listening there?")
    with control:
        serve(control.fileno(), control.fileno())


if __name__ == "__main__":
    main()
