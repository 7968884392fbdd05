#!/usr/bin/env python3
"""The scripted client: it does what it is told on many sockets at once, and reports all that happens to them.

It judges nothing. Commands come in and answers and events go out as JSON, one object a line, on stdin and stdout or on one socket:

    → {"id": 1, "do": "open", "client": "alice", "kind": "tcp", "to": ["10.71.0.2", 6001]}
    ← {"id": 1, "ok": true, "t": 81273912, "local": ["10.71.0.3", 40512], "remote": ["10.71.0.2", 6001]}
    → {"id": 2, "do": "send", "client": "alice", "chunks": [{"text": "hello\\n"}]}
    ← {"id": 2, "ok": true, "t": 81274105, "sent": 6}
    ← {"event": "received", "client": "alice", "t": 81274377, "text": "hello\\n"}

Every command is answered once, when it is done; others go on meanwhile. A refusal is {"ok": false, "error": WORD, "errno": …,
"message": …} with WORD one of refused, reset, timed out, unreachable, closed, denied, in use, usage, other. Bytes are {"text": …} if
they are UTF-8, else {"base64": …}. `t` is the monotonic clock in nanoseconds, read right at the call.

One thread, one epoll(7), no blocking call but name look-up. Resource handling: a client's socket is closed by close, abort, a second open, an
error on it, or the end of the control stream. Under load: reading is bounded in each turn, so that a flooding peer does not keep commands waiting;
and while the conductor does not take our reports, nothing more is read, so memory stays bounded.
"""

import base64
import binascii
import collections
import errno
import heapq
import json
import os
import select
import socket
import struct
import sys
import time

VERSION = 1
CHUNK = 65536  # bytes of one recv(); a UDP datagram is never longer
BLOCK = 1 << 20  # a repeated chunk is handed to the kernel in blocks of about this size
TURNS = 16  # recv() calls on one socket before others have their turn
BACKLOG = 4 << 20  # bytes of reports that may wait for the conductor before we stop reading
DATAGRAM_BUFFER = 8 << 20  # asked of the kernel; it gives what net.core.rmem_max allows
IP_RECVERR, IPV6_RECVERR = 11, 25  # ip(7), ipv6(7): ICMP errors go to the socket's error queue

WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EPIPE: "closed",
    errno.ENOTCONN: "closed",
    errno.EBADF: "closed",
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EADDRINUSE: "in use",
}
OPTIONS = {
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "maxseg": (socket.IPPROTO_TCP, socket.TCP_MAXSEG),
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "keepidle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "keepintvl": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "keepcnt": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "rcvbuf": (socket.SOL_SOCKET, socket.SO_RCVBUF),
    "sndbuf": (socket.SOL_SOCKET, socket.SO_SNDBUF),
    "linger": (socket.SOL_SOCKET, socket.SO_LINGER),
    "ttl": (socket.IPPROTO_IP, socket.IP_TTL),
}


class Usage(Exception):
    """A command that cannot be understood; the message says what was expected."""


class Client:
    """One client's socket and what it still has to send."""

    def __init__(self, name, kind, sock):
        self.name = name
        self.kind = kind
        self.sock = sock
        self.state = "connecting"  # then open, eof (the peer's FIN has come), closed
        self.stalled = False
        self.rcvbuf = 0  # the receive buffer to go back to after stall
        self.jobs = collections.deque()  # Send, or (id, "shutdown" | "close"), in order
        self.received = self.sent = 0
        self.mask = 0  # what epoll watches for
        self.opening = None  # the number of the open command that waits


class Send:
    """One send command: its chunks, and how far it has come."""

    def __init__(self, number, chunks, pause, deadline, target):
        self.number = number
        self.chunks = chunks
        self.pause = pause
        self.deadline = deadline
        self.target = target
        self.part = memoryview(b"")
        self.not_before = 0.0
        self.sent = 0


class Agent:
    def __init__(self, fd_in, fd_out):
        self.fd_in = fd_in
        self.fd_out = fd_out
        self.epoll = select.epoll()
        self.clients = {}
        self.by_fd = {}
        self.timers = []  # (when, number, function)
        self.count = 0
        self.partial = []  # of a command line that has not come whole
        self.out = bytearray()
        self.full = False  # the conductor takes nothing more for now
        self.running = True

    # the control stream

    def run(self):
        for fd in {self.fd_in, self.fd_out}:
            os.set_blocking(fd, False)
        self.epoll.register(self.fd_in, select.EPOLLIN)
        self.say(
            {
                "event": "hello",
                "agent": VERSION,
                "pid": os.getpid(),
                "python": sys.version.split()[0],
                "t": now(),
            }
        )
        try:
            while self.running:
                self.flush()
                for fd, events in self.epoll.poll(self.until_next_timer()):
                    if fd == self.fd_in and events & ~select.EPOLLOUT:
                        self.hear()
                    elif fd in self.by_fd:
                        self.ready(self.by_fd[fd], events)
                self.run_timers()
            self.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the conductor is gone, so nobody needs us
        finally:
            for client in list(self.clients.values()):
                self.drop(client)
            self.epoll.close()

    def hear(self):
        try:
            data = os.read(self.fd_in, 1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
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
        if rest:
            self.partial.append(rest)

    def say(self, message):
        self.out += json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def flush(self):
        """Hand our reports to the conductor. While it takes none, nothing is read from the clients' sockets."""
        try:
            while self.out:
                del self.out[: os.write(self.fd_out, self.out)]
        except BlockingIOError:
            pass
        full = len(self.out) > BACKLOG
        if self.fd_in == self.fd_out:
            self.epoll.modify(self.fd_in, select.EPOLLIN | (select.EPOLLOUT if self.out else 0))
        elif self.out:
            self.at(now_s() + 0.005, lambda: None)  # a pipe's other end: look again soon
        if full != self.full:
            self.full = full
            for client in self.clients.values():
                self.watch(client)

    # time

    def at(self, when, function):
        self.count += 1
        heapq.heappush(self.timers, (when, self.count, function))

    def until_next_timer(self):
        return -1 if not self.timers else max(0.0, self.timers[0][0] - now_s())

    def run_timers(self):
        while self.timers and self.timers[0][0] <= now_s():
            heapq.heappop(self.timers)[2]()

    # commands

    def command(self, line):
        number = None
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise Usage("a command is a JSON object")
            number = message.get("id")
            do = getattr(self, "do_" + str(message.get("do")), None)
            if do is None:
                known = ", ".join(sorted(name[3:] for name in dir(self) if name.startswith("do_")))
                raise Usage(f"unknown command {message.get('do')!r}; known: {known}")
            do(number, message)
        except OSError as exc:
            self.refuse(number, exc)
        except Usage as exc:
            self.answer(number, ok=False, error="usage", message=str(exc))
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as exc:
            self.answer(number, ok=False, error="usage", message=f"{type(exc).__name__}: {exc}")

    def answer(self, number, **fields):
        self.say({"id": number, "ok": True, "t": now(), **fields})

    def refuse(self, number, exc, **fields):
        self.answer(
            number,
            ok=False,
            error=word(exc),
            errno=errno.errorcode.get(exc.errno),
            message=exc.strerror or str(exc),
            **fields,
        )

    def client_of(self, message):
        client = self.clients.get(message["client"])
        if client is None or client.state == "closed":
            raise OSError(errno.ENOTCONN, f"{message['client']} has no open socket")
        return client

    def do_open(self, number, message):
        name, kind, to = message["client"], message["kind"], message["to"]
        if kind not in ("tcp", "udp", "unix"):
            raise Usage(f"kind {kind!r} is none of tcp, udp, unix")
        if name in self.clients:
            self.drop(self.clients[name])
        if kind == "unix":
            family, address = socket.AF_UNIX, "\0" + to[1:] if to.startswith("@") else to
        else:
            family, address = look_up(to, kind)
        sock = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        sock.setblocking(False)
        client = Client(name, kind, sock)
        try:
            self.prepare(client, message)
            if kind == "udp":
                client.state = "open"
            else:
                problem = sock.connect_ex(address)
                if problem == errno.EAGAIN:  # AF_UNIX: its backlog is full, and no event tells when it is not
                    self.connect_later(number, client, address, message.get("limit"))
                elif problem not in (0, errno.EINPROGRESS):
                    raise OSError(problem, os.strerror(problem))
        except BaseException:
            sock.close()
            raise
        self.clients[name] = client
        self.by_fd[sock.fileno()] = client
        self.epoll.register(sock.fileno(), 0)
        if kind == "udp" or (kind == "unix" and problem == 0):
            self.opened(number, client)
        elif kind == "tcp" or problem != errno.EAGAIN:
            client.opening = number
            if message.get("limit"):
                self.at(now_s() + message["limit"], lambda: self.connect_too_late(client))
            self.watch(client)

    def prepare(self, client, message):
        sock, bind = client.sock, message.get("bind")
        if client.kind == "tcp":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client.kind == "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        for option, value in (message.get("options") or {}).items():
            set_option(sock, option, value)
        if bind:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if client.kind == "tcp" else 0)
            sock.bind((bind[0], bind[1]))
        elif client.kind == "udp":
            sock.bind(("::" if sock.family == socket.AF_INET6 else "0.0.0.0", 0))

    def connect_later(self, number, client, address, limit):
        deadline = now_s() + (limit or 60)

        def again():
            if client.state != "connecting":
                return
            problem = client.sock.connect_ex(address)
            if problem == 0:
                self.opened(number, client)
            elif problem == errno.EAGAIN and now_s() < deadline:
                self.at(now_s() + 0.005, again)
            else:
                problem = errno.ETIMEDOUT if problem == errno.EAGAIN else problem
                self.drop(client)
                self.refuse(number, OSError(problem, os.strerror(problem)))

        self.at(now_s() + 0.005, again)

    def connect_too_late(self, client):
        if client.state == "connecting" and self.clients.get(client.name) is client:
            self.drop(client)
            self.answer(
                client.opening,
                ok=False,
                error="timed out",
                errno="ETIMEDOUT",
                message="no answer within the limit",
            )

    def opened(self, number, client):
        client.state = "open"
        local = client.sock.getsockname()
        fields = {"local": place(local)}
        if client.kind != "udp":
            fields["remote"] = place(client.sock.getpeername())
        self.answer(number, **fields)
        self.watch(client)

    def do_send(self, number, message):
        client = self.client_of(message)
        if client.state == "connecting":
            raise OSError(errno.ENOTCONN, f"{client.name} is not connected yet")
        chunks = collections.deque(decode(chunk, client.kind == "udp") for chunk in message["chunks"])
        target = None
        if client.kind == "udp":
            if not message.get("to"):
                raise Usage('a datagram needs "to": [host, port]')
            _, target = look_up(message["to"], "udp")
        limit = message.get("limit")
        deadline = now_s() + limit if limit else None
        client.jobs.append(Send(number, chunks, message.get("pause") or 0.0, deadline, target))
        if deadline:
            self.at(deadline, lambda: self.work(client))
        self.work(client)

    def do_shutdown(self, number, message):
        client = self.client_of(message)
        client.jobs.append((number, "shutdown"))
        self.work(client)

    def do_close(self, number, message):
        client = self.client_of(message)
        client.jobs.append((number, "close"))
        self.work(client)

    def do_abort(self, number, message):
        client = self.client_of(message)
        client.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # close() sends RST
        self.drop(client)
        self.answer(number)

    def do_stall(self, number, message):
        client = self.client_of(message)
        if message.get("rcvbuf"):
            # socket(7): the kernel doubles what is set, and tells the double.
            client.rcvbuf = client.rcvbuf or client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, message["rcvbuf"])
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
        set_option(self.client_of(message).sock, message["option"], message["value"])
        self.answer(number)

    def do_sync(self, number, message):
        for client in list(self.clients.values()):
            for _ in range(1000):
                if client.state not in ("open", "eof") or client.stalled or not self.receive(client):
                    break
        self.answer(number)

    def do_status(self, number, message):
        self.answer(number, clients={name: self.describe(client) for name, client in self.clients.items()})

    def describe(self, client):
        facts = {"kind": client.kind, "state": client.state, "received": client.received, "sent": client.sent}
        if client.state != "closed":
            facts["local"] = place(client.sock.getsockname())
        facts["unsent"] = sum(
            len(job.part) + sum(len(data) * times for data, times in job.chunks)
            for job in client.jobs
            if isinstance(job, Send)
        )
        return facts

    def do_bye(self, number, message):
        self.answer(number)
        self.running = False

    # sockets

    def watch(self, client):
        """Tell epoll what we want to know of a socket; errors and hang-ups it tells in any case."""
        if client.state == "closed":
            return
        mask = 0
        if client.state == "connecting" or (
            client.jobs and isinstance(client.jobs[0], Send) and client.jobs[0].not_before <= now_s()
        ):
            mask |= select.EPOLLOUT
        if client.state == "open" and not client.stalled and not self.full:
            mask |= select.EPOLLIN
        if mask != client.mask:
            self.epoll.modify(client.sock.fileno(), mask)
            client.mask = mask

    def ready(self, client, events):
        if client.state == "connecting":
            self.connected(client)
            return
        if (
            events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP)
            and client.state == "open"
            and not client.stalled
        ):
            for _ in range(TURNS):
                if not self.receive(client):
                    break
        elif events & (select.EPOLLERR | select.EPOLLHUP):
            self.broke(client)
        if client.state != "closed" and events & select.EPOLLOUT:
            self.work(client)

    def connected(self, client):
        problem = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self.drop(client)
            self.refuse(client.opening, OSError(problem, os.strerror(problem)))
            return
        self.opened(client.opening, client)

    def receive(self, client):
        """Report one chunk or datagram, or the end; whether there may be more."""
        try:
            if client.kind == "udp":
                data, source = client.sock.recvfrom(CHUNK)
            else:
                data, source = client.sock.recv(CHUNK) if client.state == "open" else b"", None
                if client.state != "open":
                    return False
        except BlockingIOError:
            return False
        except OSError as exc:
            if client.kind == "udp":
                return self.icmp(client, exc)
            self.failed(client, exc)
            return False
        t = now()
        if client.kind != "udp" and not data:
            client.state = "eof"
            self.say({"event": "eof", "client": client.name, "t": t})
            self.watch(client)
            return False
        client.received += len(data)
        event = {"event": "received", "client": client.name, "t": t, **encode(data)}
        if source:
            event["from"] = place(source)
        self.say(event)
        return True

    def icmp(self, client, exc):
        """A datagram of ours was answered by ICMP: the error queue tells all of them (ip(7), IP_RECVERR)."""
        found = False
        while True:
            try:
                _, ancillary, _, address = client.sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
            except OSError:
                break
            for _, kind, content in ancillary:
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(content) >= 16:
                    found = True
                    (number,) = struct.unpack_from("=I", content)
                    self.tell_error(
                        client,
                        OSError(number, os.strerror(number)),
                        about=place(address) if address else None,
                    )
        if not found:
            self.tell_error(client, exc)
        return True

    def tell_error(self, client, exc, **fields):
        event = {
            "event": "error",
            "client": client.name,
            "t": now(),
            "error": word(exc),
            "errno": errno.errorcode.get(exc.errno),
        }
        self.say({**event, "message": exc.strerror, **{key: value for key, value in fields.items() if value}})

    def failed(self, client, exc):
        """The connection is broken: say so, once, and close the socket."""
        if exc.errno in (errno.ECONNRESET, errno.EPIPE):
            self.say({"event": "reset", "client": client.name, "t": now()})
        else:
            self.tell_error(client, exc)
        self.drop(client, word(exc))

    def broke(self, client):
        """An error or a hang-up on a socket that we do not read just now."""
        if client.kind == "udp":
            self.icmp(
                client,
                OSError(
                    client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.EIO,
                    "an error without a name",
                ),
            )
            return
        problem = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self.failed(client, OSError(problem, os.strerror(problem)))
        elif client.state == "eof":
            self.forget(client)  # both sides have said FIN: nothing more can happen
        elif client.stalled:
            # RST has come while we do not look; what is unread goes with it.
            self.failed(client, OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def forget(self, client):
        """Watch the socket no more; it stays open until it is closed."""
        fd = client.sock.fileno()
        if self.by_fd.pop(fd, None):
            self.epoll.unregister(fd)
        client.mask = -1

    def drop(self, client, why="closed"):
        """Close a socket, and answer what was still to be sent on it."""
        if client.state != "closed":
            fd = client.sock.fileno()
            if self.by_fd.pop(fd, None):
                self.epoll.unregister(fd)
            client.sock.close()
            client.state = "closed"
        while client.jobs:
            job = client.jobs.popleft()
            number, sent = (job.number, {"sent": job.sent}) if isinstance(job, Send) else (job[0], {})
            self.answer(number, ok=False, error=why, message="the connection has ended", **sent)

    # sending

    def work(self, client):
        """Go on with what a client has to send, as far as the kernel takes it."""
        while client.jobs and client.state != "closed":
            job = client.jobs[0]
            if isinstance(job, tuple):
                client.jobs.popleft()
                self.finish(client, *job)
            elif not self.send_some(client, job):
                break
        if client.state != "closed" and client.mask >= 0:
            self.watch(client)

    def finish(self, client, number, what):
        if what == "shutdown":
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError as exc:
                self.refuse(number, exc)
                return
            self.answer(number)
            return
        while client.state == "open" and not client.stalled and self.receive(client):
            pass  # close() with unread input would send RST instead of FIN
        self.drop(client)
        self.answer(number)

    def send_some(self, client, job):
        """Whether the job is done, or has failed; else it goes on when the socket or the clock allows."""
        while job.part or job.chunks:
            if job.deadline and now_s() >= job.deadline:
                client.jobs.popleft()
                self.answer(
                    job.number,
                    ok=False,
                    error="timed out",
                    errno="ETIMEDOUT",
                    message="not taken within the limit",
                    sent=job.sent,
                )
                return True
            if not job.part:
                if now_s() < job.not_before:
                    self.at(job.not_before, lambda: self.work(client))
                    return False
                job.part = next_part(job.chunks, whole=job.target is not None)
            try:
                if job.target:
                    sent = self.send_datagram(client, job)
                    job.part = memoryview(b"")
                else:
                    sent = client.sock.send(job.part)
                    job.part = job.part[sent:]
            except BlockingIOError:
                return False
            except OSError as exc:
                client.jobs.popleft()
                self.refuse(job.number, exc, sent=job.sent)
                if client.kind != "udp" and exc.errno == errno.ECONNRESET:
                    # This call has eaten the error, and recv() would now say "end of file".
                    while client.state == "open" and self.receive_before_reset(client):
                        pass
                    self.failed(client, exc)
                return True
            job.sent += sent
            client.sent += sent
            if not job.part and job.pause:
                job.not_before = now_s() + job.pause
        client.jobs.popleft()
        self.answer(job.number, sent=job.sent)
        return True

    def receive_before_reset(self, client):
        try:
            data = client.sock.recv(CHUNK)
        except OSError:
            return False
        if data:
            self.say({"event": "received", "client": client.name, "t": now(), **encode(data)})
        return bool(data)

    def send_datagram(self, client, job):
        try:
            return client.sock.sendto(job.part, job.target)
        except BlockingIOError:
            raise
        except OSError as exc:
            if exc.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET):
                raise
            # It may be an answer to an earlier datagram, told at this call; this one was then not sent.
            self.icmp(client, exc)
            return client.sock.sendto(job.part, job.target)


def now():
    return time.monotonic_ns()


def now_s():
    return time.monotonic()


def word(exc):
    return WORDS.get(exc.errno, "other")


def place(address):
    """An address for JSON: [host, port], or a path."""
    if isinstance(address, tuple):
        return [address[0], address[1]]
    if isinstance(address, bytes):
        return (
            "@" + address[1:].decode(errors="replace")
            if address[:1] == b"\0"
            else address.decode(errors="replace")
        )
    return address


def look_up(to, kind):
    """Family and address of [host, port]. A name is looked up as the node's system does it."""
    host, port = to[0], to[1]
    kind = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except socket.gaierror as exc:
        raise OSError(errno.EHOSTUNREACH, f"{host}: {exc.strerror}") from None
    return found[0][0], found[0][4]


def set_option(sock, option, value):
    if option not in OPTIONS:
        raise Usage(f"unknown option {option!r}; known: {', '.join(OPTIONS)}")
    level, number = OPTIONS[option]
    sock.setsockopt(level, number, struct.pack("ii", 1, value) if option == "linger" else value)


def encode(data):
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def decode(chunk, whole):
    """(data, times) of a chunk of a send command."""
    try:
        data = chunk["text"].encode() if "text" in chunk else base64.b64decode(chunk["base64"], validate=True)
    except (KeyError, binascii.Error):
        raise Usage('a chunk is {"text": …} or {"base64": …}') from None
    return data, chunk.get("repeat", 1)


def next_part(chunks, whole):
    """The next bytes to hand to the kernel in one call; a long repetition comes in blocks, a datagram whole."""
    data, times = chunks.popleft()
    if whole or len(data) * times <= BLOCK:
        return memoryview(data * times)
    block = max(1, BLOCK // len(data))
    if times > block:
        chunks.appendleft((data, times - block))
    return memoryview(data * min(block, times))


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
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal's Ctrl-C is for the conductor, which then closes our stream
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
        sys.exit(f"agent: cannot reach {arguments.connect}: {exc}")
    with control:
        serve(control.fileno(), control.fileno())


if __name__ == "__main__":
    main()
