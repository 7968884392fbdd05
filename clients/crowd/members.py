"""The members of a crowd: they come, are greeted, and go. A crowd that is open and under no load is an idle one."""

import collections
import errno
import os
import resource
import select
import socket
import struct
from time import monotonic as now

from .fields import Unheard, bytes_of, number_of, whole

SCRATCH = 1 << 18  # bytes that one recv() takes
SLICE_S = 0.02  # of work, before the agent looks at its commands again
SPIN_S = 0.002  # before a line's time, we do not sleep: epoll(7) counts in milliseconds
DATAGRAMS = 64  # of one socket, before others have their turn
DATAGRAM_BUFFER = 8 << 20  # asked of the kernel; it gives what net.core.rmem_max allows
SPARE = 64  # descriptors for all else that the agent has open
WANTED = 1 << 17  # descriptors
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)  # the next one cannot come either

WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EMFILE: "no descriptor",
    errno.ENFILE: "no descriptor",
    errno.EADDRNOTAVAIL: "no port",
}


class Member:
    """One client of a crowd."""

    __slots__ = ("at", "connected", "fd", "gone", "heard", "lines", "number", "own", "sent", "sock", "unread")

    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.fd = sock.fileno()
        self.connected = False
        self.gone = None  # why it is not there any more: eof, reset, …
        self.start()

    def start(self):
        """Nothing said and nothing heard, of what is counted next."""
        self.at = 0  # bytes heard
        self.lines = 0  # whole lines that came, of whatever kind; of datagrams those before the next one
        self.heard = 0  # of them those of the load, each once; only for one with a Checker of its own
        self.sent = 0  # bytes said
        self.own = None  # a Checker, if it hears another order than the rest
        self.unread = bytearray()  # of its greeting, or of a line that has not come whole


class Greeting:
    """What a member says first, with its {number} in six digits, and the answer it waits for: any, if only `answered` is said."""

    def __init__(self, message, prefix=""):
        self.hello = bytes_of(message, prefix + "hello", "")
        self.until = bytes_of(message, prefix + "until", "")
        self.answered = bool(self.until or message.get(prefix + "answered"))

    def of(self, number):
        return [part.replace(b"{number}", b"%06d" % number) for part in (self.hello, self.until)]


class Crowd:
    """Clients of one server, and one epoll(7) for all of them."""

    def __init__(self, kind, family, to):
        self.is_stream = kind == "tcp"
        self.family = family
        self.to = to
        self.epoll = select.epoll()
        self.members = []
        self.by_fd = {}
        self.scratch = bytearray(SCRATCH)
        self.view = memoryview(self.scratch)
        self.met = None  # a load whose first lines are said, and that others make, too

    def close(self, abort=False):
        for member in self.members:
            if abort and self.is_stream:
                member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            member.sock.close()
        self.members, self.by_fd = [], {}
        self.epoll.close()

    def there(self, least=1):
        members = [member for member in self.members if member.gone is None]
        if len(members) < least:
            raise Unheard(f"{least} members are needed, and {len(members)} are there")
        return members

    # What the sockets of members do.

    def wait(self, until):
        """Who is ready: (descriptor, events). Waits until something is, a time has come, or the slice is over; not at all just before
        that time."""
        return self.epoll.poll(max(0.0, min(until - now(), SLICE_S) - SPIN_S))

    def receive(self, member):
        """How many bytes of what has come for a member are in `scratch` now; None: nothing has come, or it has ended."""
        try:
            size = member.sock.recv_into(self.scratch)
        except BlockingIOError:
            return None
        except OSError as exc:
            self.end(member, word(exc))
            return None
        if not size and self.is_stream:
            self.end(member, "eof")
            return None
        return size

    def send(self, member, data):
        """How many bytes the kernel takes now."""
        try:
            return member.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                self.end(member, word(exc))
            return 0

    def end(self, member, why):
        """A member is not there any more; its socket stays open until the crowd is closed."""
        member.gone = why
        self.epoll.unregister(member.fd)

    # Coming.

    def buffer_of(self, message):
        return whole(message, "rcvbuf", 0, 1 << 30, 0 if self.is_stream else DATAGRAM_BUFFER)

    def connect(self, number, buffer):
        """A member whose connecting has begun. Raises OSError."""
        sock = socket.socket(self.family, socket.SOCK_STREAM if self.is_stream else socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if self.is_stream:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            problem = sock.connect_ex(self.to)
            if problem not in (0, errno.EINPROGRESS):
                raise OSError(problem, os.strerror(problem))
            self.epoll.register(sock, WRITABLE)
        except Exception:
            sock.close()
            raise
        return Member(number, sock)

    def greeted(self, member, greeting):
        """Whether a member that is ready is connected, has said what it has to say first, and heard what it must hear then.

        Raises OSError when it cannot be.
        """
        hello, until = greeting.of(member.number)
        if not member.connected:
            if problem := member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            member.connected = True
            self.epoll.modify(member.fd, READABLE)
            if hello:
                member.sock.send(hello)
            return not greeting.answered
        try:
            size = member.sock.recv_into(self.scratch)
        except BlockingIOError:
            return False
        if not size and self.is_stream:
            raise OSError(errno.ECONNRESET, "closed at once")
        member.unread += self.view[:size]
        return until in member.unread

    def join(self, member):
        """It is here, and under no load."""
        member.start()
        self.members.append(member)
        self.by_fd[member.fd] = member

    # While they are idle.

    def say(self, message):
        """Let each member (or the first `count`) say these bytes once; what a kernel does not take is not said."""
        data, said = bytes_of(message, "bytes", ""), 0
        for member in self.members[: whole(message, "count", 1, 1_000_000, 1_000_000)]:
            try:
                said += member.gone is None and member.sock.send(data) == len(data)
            except OSError:
                pass
        yield
        return {"said": said}

    def look(self):
        """What has become of the members: how many are there, and how the others ended. What has come for them is thrown away."""
        slice_ends = now() + SLICE_S
        for member in self.members:
            self.throw_away(member)
            if now() > slice_ends:
                yield
                slice_ends = now() + SLICE_S
        yield
        ended = collections.Counter(member.gone or "there" for member in self.members)
        return {**{key: ended[key] for key in ("there", "eof", "reset")}, "ended": dict(ended)}

    def throw_away(self, member):
        for _ in range(DATAGRAMS):  # no more, of one to whom somebody talks on and on
            if member.gone or self.receive(member) is None:
                return

    def leave(self, message):
        count = len(self.members)
        self.close(abort=bool(message.get("abort")))
        yield
        return {"closed": count}


class Opening:
    """Members on their way into a crowd: so many, no more than `at_once` of them being connected or greeted at the same time."""

    def __init__(self, crowd, message):
        """`first`: the number of the first one, where members of several crowds must not bear the same; behind members who are there it
        is the next."""
        self.crowd = crowd
        count = whole(message, "count", 1, 1_000_000)
        self.at_once = whole(message, "at_once", 1, 100_000, 256)
        self.began = now()
        self.deadline = self.began + number_of(message, "limit", 30.0)
        self.senders = whole(message, "senders", 0, 65535, 0)  # members below this number are greeted as such
        self.of_sender, self.of_receiver = Greeting(message, "sender_"), Greeting(message)
        self.buffer = crowd.buffer_of(message)
        first = crowd.members[-1].number + 1 if crowd.members else whole(message, "first", 0, 1_000_000, 0)
        self.descriptors = raise_descriptor_limit()
        missing = len(crowd.members) + count + SPARE - self.descriptors
        self.failed = collections.Counter({"no descriptor": min(count, max(0, missing))})
        self.left = collections.deque(range(first, first + count - self.failed["no descriptor"]))
        self.waiting = {}  # descriptor: a member that is being connected, or greeted

    def run(self):
        """Answers how many are connected, and why others are not."""
        try:
            while (self.left or self.waiting) and now() < self.deadline:
                self.connect_some()
                for fd, _ in self.crowd.wait(self.deadline):
                    if fd in self.waiting:  # and not one of those that are here already
                        self.greet(self.waiting[fd])
                yield
        finally:
            for member in self.waiting.values():
                member.sock.close()
        self.crowd.members.sort(
            key=lambda member: member.number
        )  # the first ones are those who say something
        self.failed["timed out"] += len(self.waiting) + len(self.left)
        return {
            "connected": len(self.crowd.members),
            "failed": dict(+self.failed),
            "seconds": now() - self.began,
            "descriptors": self.descriptors,
        }

    def connect_some(self):
        while self.left and len(self.waiting) < self.at_once:
            try:
                member = self.crowd.connect(self.left.popleft(), self.buffer)
            except OSError as exc:
                self.failed[word(exc)] += 1
                if exc.errno in EXHAUSTED:
                    self.failed[word(exc)] += len(self.left)
                    self.left.clear()
                continue
            self.waiting[member.fd] = member

    def greet(self, member):
        of_whom = self.of_sender if member.number < self.senders else self.of_receiver
        try:
            if not self.crowd.greeted(member, of_whom):
                return
            self.crowd.join(member)
        except OSError as exc:
            member.sock.close()
            self.failed[word(exc)] += 1
        del self.waiting[member.fd]


def gone(members):
    """Why members are not there any more, and how many of them each time."""
    return dict(collections.Counter(member.gone for member in members if member.gone))


def word(exc):
    return WORDS.get(exc.errno) or errno.errorcode.get(exc.errno, str(exc))


def raise_descriptor_limit():
    """Each client costs a descriptor: take as many as we may, as root more than that. How many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, WANTED), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (OSError, ValueError):
            continue
        return most
    return soft
