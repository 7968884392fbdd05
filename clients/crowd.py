"""A crowd: thousands of clients in one program, as one. It says what it is told as fast as it may, and checks what each member hears.

A part of the scripted client; agent.py loads it with the first command that concerns a crowd:

    → {"id": 1, "do": "crowd", "what": "open", "crowd": "crowd", "kind": "tcp", "to": ["10.71.0.2", 6002], "count": 5000}
    ← {"id": 1, "ok": true, "t": …, "connected": 5000, "failed": {}}
    → {"id": 2, "do": "crowd", "what": "fan-out", "crowd": "crowd", "senders": 10, "size": 64, "seconds": 2}
    ← {"id": 2, "ok": true, "t": …, "delivered": 81920000, "lost": 0, "doubled": 0, "damaged": 0, "seconds": 2.0, …}

Neither what is said nor what is heard crosses the control stream, so that neither it nor the conductor is what is measured.

What was delivered is checked, every byte of it. A line says who says it and how many lines that member has said:
`~0003.00001234~`, filled up to its size. All of a sender's lines are made beforehand, in a ring, and so is what a receiver must
get of them. When all receivers hear the same in the same order, as they mostly do, one of them is checked line by line, and the
others against it: one comparison of memory for each recv(), whatever the lines are. A receiver that hears another order is
checked by itself from there on. So one process can check tens of millions of deliveries a second.

There are two ways to say it:
- with a window: never more than so many lines ahead of the slowest receiver. That finds the most that a server can do.
- at a rate: each line has its time, whatever came of those before it, and its latency counts from that time, not from when it
  could at last be sent. So a server that stops for a second shows it in a thousand lines, not in one ("coordinated omission").

Between its loads a crowd does not read. Resource handling: "close", another "open", or the end of the agent closes its sockets.
"""

import array
import base64
import bisect
import collections
import errno
import os
import resource
import select
import socket
import struct
import time

SCRATCH = 1 << 18  # bytes that one recv() takes
SLICE_S = 0.02  # of work, before the agent looks at its commands again
RING = 4 << 20  # bytes of a ring of lines, about
LEAST, MOST = 64, 4096  # lines in the ring of a sender
HEAD = len("~0000.00000000~")  # of a line
SPIN_S = 0.002  # before a line's time, we do not sleep: epoll(7) counts in milliseconds
AGAIN_S = (
    0.5  # UDP, or a server that has not taken everybody in yet: after this the first lines are said again
)
AHEAD, KEPT = 2000, 1 << 20  # lines, and bytes, that senders are ahead of the slowest receiver
STILL_S = 2.0  # nothing has come for so long: what is missing is lost
LOST_S = 0.2  # the same for datagrams, which nobody sends again
SENT_AT_ONCE = 1 << 16  # bytes of one send()
PATTERN = 1 << 16  # bytes of the ring that an echo server gets
EXACT_US = 10_000  # latencies up to here are counted to the microsecond, longer ones to a hundredth
RESET = struct.pack("ii", 1, 0)
DATAGRAM_BUFFER = 8 << 20  # asked of the kernel; it gives what net.core.rmem_max allows
SPARE = 64  # descriptors for all else that the agent has open
WANTED = 1 << 17  # descriptors
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT

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

    __slots__ = ("at", "fd", "gone", "lines", "number", "own", "sent", "sock", "unread")

    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.fd = sock.fileno()
        self.gone = None  # why it is not there any more: eof, reset, …
        self.start()

    def start(self):
        """Nothing said and nothing heard, of what is counted next."""
        self.at = 0  # bytes heard
        self.lines = 0  # whole lines heard
        self.sent = 0  # bytes said
        self.own = None  # a Checker, if it hears another order than the rest
        self.unread = bytearray()  # of its greeting, or of a line that has not come whole


class Greeting:
    """What a member says first, with its {number} in six digits, and the answer it waits for: any, if only `answered` is said."""

    def __init__(self, message, prefix):
        self.hello = bytes_of(message, prefix + "hello", "")
        self.until = bytes_of(message, prefix + "until", "")
        self.answered = bool(self.until or message.get(prefix + "answered"))


class Script:
    """What the senders say, and how receivers get it: rings of lines, made beforehand."""

    def __init__(self, senders, size, say, hear=None):
        """`say`: what stands around a line of `size` bytes, its newline not counted, when it is said; `hear`: when it is heard. Both may
        have a {sender}. Without `hear` it is learned from the first lines, one a sender: a server may decorate them."""
        self.size = size
        self.senders = senders
        self.count = max(LEAST, min(MOST, RING // (senders * max(1, size))))
        self.say = say
        self.said = [self.ring(sender) for sender in range(senders)]
        self.say_size = len(self.said[0]) // self.count
        self.heard = [None] * senders
        if hear:
            for sender in range(senders):
                self.learn(sender, *(part.replace(b"{sender}", b"%04x" % sender) for part in hear))

    def ring(self, sender):
        return b"".join(self.wrapped(sender, self.line(sender, number)) for number in range(self.count))

    def wrapped(self, sender, text):
        """A line as it is said."""
        before, after = (part.replace(b"{sender}", b"%04x" % sender) for part in self.say)
        return before + text + after

    def line(self, sender, number):
        """The text of a line; `number` is taken round the ring."""
        return (b"~%04x.%08d~" % (sender, number % self.count)).ljust(self.size, b".")

    def first(self, sender, attempt):
        """The text of a line before those that count: as long as they are, and unlike all of them."""
        return (b"~%04x.x%07d~" % (sender, attempt)).ljust(self.size, b".")

    def learn(self, sender, before, after):
        self.heard[sender] = (
            before,
            b"".join(before + self.line(sender, number) + after for number in range(self.count)),
            len(before) + self.size + len(after),
        )

    def begin(self):
        """Everything is learned: what a checker asks for."""
        self.rings = [memoryview(ring) for _, ring, _ in self.heard]
        self.lengths = [length for _, _, length in self.heard]
        self.heads = sorted({len(before) for before, _, _ in self.heard})
        self.before = [len(before) for before, _, _ in self.heard]
        self.reach = self.heads[-1] + HEAD  # bytes that tell whose line it is

    def sender_at(self, data, at):
        """Whose line begins here; None: nobody's."""
        for head in self.heads:
            text = data[at + head : at + head + HEAD]
            if text[0] == text[14] == 0x7E and text[5] == 0x2E:
                try:
                    sender = int(text[1:5], 16)
                except ValueError:
                    continue
                if sender < self.senders and self.before[sender] == head:
                    return sender
        return None


class Checker:
    """Checks a stream of lines: each sender's in order, once, whole. What is no line of a sender is passed over and counted."""

    def __init__(self, script, expected=None):
        self.script = script
        self.next = list(expected or [0] * script.senders)  # the number of each sender's next line
        self.doubled = self.damaged = self.foreign = 0
        self.example = ""  # of the first that was wrong

    def check(self, data, at, tell):
        """Go over the whole lines of data[at:]; where the first one begins that is not whole.

        `tell(sender, number, lines, end, good)` is called for each run of lines of one sender, `number` that of the first.
        """
        script = self.script
        while at + script.reach <= len(data):
            sender = script.sender_at(data, at)
            if sender is None:
                end = data.find(b"\n", at) + 1
                if not end:
                    return at
                self.foreign += 1
                at = end
                tell(0, 0, 1, at, False)
                continue
            length = script.lengths[sender]
            whole = (len(data) - at) // length
            if not whole:
                return at
            number = self.next[sender]
            place = number % script.count
            lines = run(data, at, script.rings[sender], place, min(whole, script.count - place), length)
            if lines:
                good = True
                self.next[sender] = number + lines
            else:
                lines, good = 1, self.out_of_order(data, at, sender, length)
                number = self.next[sender] - 1
            at += lines * length
            tell(sender, number, lines, at, good)
        return at

    def out_of_order(self, data, at, sender, length):
        """A line that is not the one expected: lines before it were lost (then it is a good one), or it came before, or it is damaged."""
        count = self.script.count
        line = bytes(data[at : at + length])
        head = self.script.before[sender]
        digits = line[head + 6 : head + 14]
        number = int(digits) if digits.isdigit() else count
        gap = (number - self.next[sender]) % count
        if number >= count or line != self.script.rings[sender][number * length : (number + 1) * length]:
            self.damaged += 1
            what = "is damaged"
        elif gap > count // 2:
            self.doubled += 1
            what = "had come before"
        else:
            self.next[sender] += gap + 1
            what = f"came, and {gap} before it had not"
        self.example = self.example or f"{line[:80].decode(errors='replace')!r} {what}"
        return what.startswith("came")


def run(data, at, ring, place, most, length):
    """How many lines from data[at] on are those of the ring from `place` on, at most `most`."""
    start = place * length
    if data.startswith(ring[start : start + most * length], at):
        return most
    fits, step = 0, 1
    while step and fits < most:
        more = min(step, most - fits)
        here = start + fits * length
        if data.startswith(ring[here : here + more * length], at + fits * length):
            fits += more
            step *= 2
        else:
            step = more // 2
    return fits


class Stream:
    """What all receivers hear, as far as it is the same for all: checked once, kept until the slowest one has heard it."""

    def __init__(self, script, due=None):
        """`due(sender, number, lines)`: when lines ought to have been said, where they have a time."""
        self.checker = Checker(script)
        self.data = bytearray()
        self.base = 0  # the place of data[0] in the stream
        self.checked = 0  # bytes of data that are whole, checked lines
        self.ends = array.array("Q")  # where each line ends that is in data
        self.passed = 0  # lines before data
        self.bad = []  # where lines end that are nobody's, doubled or damaged
        self.runs = (
            collections.deque()
        )  # (the place of its end in lines, sender, number, lines, good), of the lines in data
        self.next = [0] * script.senders  # each sender's next line, at data[0]
        self.due = due
        self.dues = array.array("d")

    def add(self, part):
        self.data += part
        self.checked = self.checker.check(self.data, self.checked, self.tell)

    def tell(self, sender, number, lines, end, good):
        end += self.base
        if not good:
            self.bad.append(end)
        length = self.checker.script.lengths[sender]
        self.ends.extend(range(end - (lines - 1) * length, end + 1, length) if lines > 1 else (end,))
        self.runs.append((self.passed + len(self.ends), sender, number, lines, good))
        if self.due:
            self.dues.extend(self.due(sender, number, lines))

    def lines_at(self, place):
        """How many lines end up to this place."""
        return self.passed + bisect.bisect_right(self.ends, place)

    def good_at(self, place):
        return self.lines_at(place) - bisect.bisect_right(self.bad, place)

    def forget(self, place):
        """Everybody has heard it up to here."""
        lines = bisect.bisect_right(self.ends, place)
        if not lines:
            return
        size = self.ends[lines - 1] - self.base
        del self.data[:size], self.ends[:lines], self.dues[:lines]
        self.base += size
        self.checked -= size
        self.passed += lines
        while self.runs and self.runs[0][0] <= self.passed:
            _, sender, number, lines, good = self.runs.popleft()
            if good:
                self.next[sender] = number + lines

    def apart(self, place):
        """For a receiver that heard something else behind this place: a checker for it, and the begun line before that place."""
        heard = self.lines_at(place)
        expected = list(self.next)
        for end, sender, number, lines, good in self.runs:
            first = end - lines
            if first >= heard:
                break
            if good:
                expected[sender] = number + min(lines, heard - first)
        begin = self.ends[heard - self.passed - 1] if heard > self.passed else self.base
        return Checker(self.checker.script, expected), self.data[begin - self.base : place - self.base]


class Times:
    """Latencies in microseconds, each with how often it came: exact up to EXACT_US, then to a hundredth."""

    def __init__(self):
        self.counts = collections.Counter()

    def add(self, seconds):
        us = int(seconds * 1e6)
        if us > EXACT_US:
            step = 10 ** (len(str(us)) - 3)
            us -= us % step
        self.counts[us] += 1

    def as_data(self):
        return sorted(self.counts.items())


class Refused(ValueError):
    """A command that cannot be done: the message says why, for whoever gave it."""

    word = "usage"


class Unheard(Refused):
    """The server did not do what the load needs to begin with."""

    word = "unheard"


class Crowds:
    """All crowds of an agent. One thing is done after another, in slices, so that the agent hears its commands meanwhile."""

    def __init__(self, answer):
        """`answer(number, **fields)` is called when a command is done."""
        self.answer = answer
        self.crowds = {}
        self.jobs = (
            collections.deque()
        )  # (number, generator): each yields after a slice, and returns the fields of its answer

    def command(self, number, message):
        """Raises Refused."""
        what, name = message.get("what"), message.get("crowd")
        if not isinstance(name, str):
            raise Refused('a crowd command has "crowd", a name')
        if what in ("open", "churn"):
            self.crowds.pop(name, Crowd()).close()
            self.crowds[name] = Crowd()
        elif name not in self.crowds:
            raise Refused(f"no crowd is called {name!r}; open it first")
        crowd = self.crowds[name]
        known = {
            "open": crowd.open,
            "more": crowd.open,
            "fan-out": crowd.fan_out,
            "echo": crowd.echo,
            "churn": crowd.churn,
            "say": crowd.say,
            "look": crowd.look,
            "close": crowd.leave,
        }
        if what not in known:
            raise Refused(f'"what" is one of {", ".join(known)}, not {what!r}')
        self.jobs.append((number, known[what](message)))

    def work(self):
        """Go on with the first thing that is to be done, for a slice of time."""
        number, job = self.jobs[0]
        try:
            next(job)
        except StopIteration as done:
            self.jobs.popleft()
            self.answer(number, **done.value)
        except Refused as exc:
            self.jobs.popleft()
            self.answer(number, ok=False, error=exc.word, message=str(exc))
        except OSError as exc:
            self.jobs.popleft()
            self.answer(
                number, ok=False, error=WORDS.get(exc.errno, "other"), message=exc.strerror or str(exc)
            )

    def close(self):
        for crowd in self.crowds.values():
            crowd.close()


class Crowd:
    def __init__(self):
        self.epoll = select.epoll()
        self.members = []
        self.by_fd = {}
        self.kind = "tcp"
        self.to = None
        self.scratch = bytearray(SCRATCH)
        self.view = memoryview(self.scratch)

    def close(self, abort=False):
        for member in self.members:
            if abort and self.kind == "tcp":
                member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            member.sock.close()
        self.members, self.by_fd = [], {}
        self.epoll.close()

    def wait(self, until):
        """Who is ready: (descriptor, events). Waits until something is, a time has come, or the slice is over; not at all just before
        that time."""
        left = min(until - now(), SLICE_S)
        return self.epoll.poll(left if left > SPIN_S else 0)

    # Coming and going.

    def open(self, message):
        """Connect so many (with "more": so many besides); answers how many are connected, and why others are not."""
        count = whole(message, "count", 1, 1_000_000)
        at_once = whole(message, "at_once", 1, 100_000, 256)
        deadline = now() + number_of(message, "limit", 30.0)
        senders = whole(message, "senders", 0, 65535, 0)
        greetings = [Greeting(message, ""), Greeting(message, "sender_") if senders else None]
        self.kind, self.to = message.get("kind", "tcp"), tuple(message["to"])
        failed = collections.Counter()
        before = len(self.members)
        if (most := raise_descriptor_limit()) < before + count + SPARE:
            failed["no descriptor"] = min(count, before + count + SPARE - most)
        waiting = {}  # those that are being connected, or greeted
        left = iter(range(before, before + count - failed["no descriptor"]))
        began, rest = now(), True
        while (rest or waiting) and now() < deadline:
            while rest and len(waiting) < at_once:
                number = next(left, None)
                if number is None:
                    rest = False
                    break
                try:
                    member = self.begin(number, message)
                except OSError as exc:
                    failed[word(exc)] += 1
                    rest = exc.errno not in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
                    failed[word(exc)] += 0 if rest else len(list(left))
                    continue
                waiting[member.fd] = member
            for fd, _ in self.wait(deadline):
                member = waiting.get(fd)
                if member is None:
                    continue
                try:
                    if self.greeted(member, greetings[member.number < senders]):
                        del waiting[fd]
                        self.join(member)
                except OSError as exc:
                    del waiting[fd]
                    member.sock.close()
                    failed[word(exc)] += 1
            yield
        self.members.sort(key=lambda member: member.number)  # the first ones are those who say something
        for member in waiting.values():
            member.sock.close()
        failed["timed out"] += len(waiting) + len(list(left))
        fields = {"connected": len(self.members), "failed": dict(+failed), "seconds": now() - began}
        return {"ok": True, **fields, "descriptors": most}

    def begin(self, number, message):
        stream = self.kind == "tcp"
        family = socket.AF_INET6 if ":" in self.to[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if stream:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
            if "rcvbuf" in message:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, message["rcvbuf"])
            problem = sock.connect_ex(self.to)
            if problem not in (0, errno.EINPROGRESS):
                raise OSError(problem, os.strerror(problem))
            self.epoll.register(sock, WRITABLE)
        except OSError:
            sock.close()
            raise
        return Member(number, sock)

    def greeted(self, member, greeting):
        """Whether a member is connected, has said what it has to say first, and heard what it must hear then."""
        if member.lines == 0:  # not connected yet
            if problem := member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            member.lines = 1
            self.epoll.modify(member.fd, READABLE)
            if greeting.hello:
                member.sock.send(greeting.hello.replace(b"{number}", b"%06d" % member.number))
            return not greeting.answered
        data = member.sock.recv(SCRATCH)
        if not data:
            raise OSError(errno.ECONNRESET, "closed at once")
        member.unread += data
        return greeting.until in member.unread

    def join(self, member):
        member.start()
        self.members.append(member)
        self.by_fd[member.fd] = member

    def say(self, message):
        """Let each member (or the first `count`) say these bytes once; what a kernel does not take is not said."""
        data, said = bytes_of(message, "bytes", ""), 0
        for member in self.members[: whole(message, "count", 1, 1_000_000, 1_000_000)]:
            try:
                said += member.sock.send(data) == len(data)
            except OSError:
                pass
        yield
        return {"ok": True, "said": said}

    def look(self, _message):
        """What has become of the members: how many are there, and how the others ended. What has come for them is thrown away."""
        ended = collections.Counter()
        for member in self.members:
            while member.gone is None:
                try:
                    if not member.sock.recv_into(self.scratch) and self.kind == "tcp":
                        member.gone = "eof"
                except BlockingIOError:
                    break
                except OSError as exc:
                    member.gone = word(exc)
            ended[member.gone or "there"] += 1
        yield
        return {"ok": True, **{key: ended[key] for key in ("there", "eof", "reset")}, "ended": dict(ended)}

    def leave(self, message):
        count = len(self.members)
        self.close(abort=bool(message.get("abort")))
        yield
        return {"ok": True, "closed": count}

    # Saying and hearing.

    def there(self, least=1):
        members = [member for member in self.members if member.gone is None]
        if len(members) < least:
            raise Unheard(f"{least} members are needed, and {len(members)} are there; open a crowd of more")
        return members

    def fan_out(self, message):
        """The first members say lines, the others hear them all. Answers what was said, what was delivered, and how long that took."""
        senders = whole(message, "senders", 1, 65535, 1)
        members = self.there(senders + 1)
        size = whole(message, "size", HEAD, 60_000, 63)
        datagrams = self.kind == "udp"
        around = ("say_before", "say_after", "" if datagrams else "\n")
        hear = None
        if datagrams or "hear_before" in message:
            hear = (bytes_of(message, "hear_before", ""), bytes_of(message, "hear_after", ""))
        script = Script(
            senders, size, (bytes_of(message, around[0], ""), bytes_of(message, around[1], around[2])), hear
        )
        load = (DatagramFanOut if datagrams else FanOut)(self, script, members, message)
        yield from load.first_lines()
        return (yield from load.all_lines())

    def echo(self, message):
        members = self.there()
        return (yield from Echo(self, members, message).run())

    def churn(self, message):
        return (yield from Churn(self, message).run())


class FanOut:
    """Some members say lines, the others hear every one of them."""

    grain = 8  # a sender waits until it may say so much of its window (a part of it): fewer, longer sends
    still_s = STILL_S

    def __init__(self, crowd, script, members, message):
        self.crowd = crowd
        self.script = script
        self.senders, self.receivers = members[: script.senders], members[script.senders :]
        self.speaking = {member.fd: number for number, member in enumerate(self.senders)}
        self.seconds = number_of(message, "seconds", 2.0)
        self.ramp = number_of(message, "ramp", 0.2)
        self.limit = number_of(message, "limit", 10.0)
        self.rate = number_of(message, "rate", 0.0)  # lines a second, of all senders together
        # In lines, of all senders together: no more bytes than a server has to keep for a receiver that is slow.
        ahead = max(script.senders, min(AHEAD, KEPT // script.size))
        self.window = whole(message, "window", script.senders, 1 << 30, ahead)
        self.times = Times() if self.rate else None
        self.late = 0.0  # seconds that a line was said after its time, at most
        self.began = self.last = now()
        self.aside = 0  # bytes that senders heard
        self.sharing = list(self.receivers)
        self.watched = set()  # senders whose kernel has no room
        for member in members:
            member.start()

    # The first lines.

    def first_lines(self):
        """Everybody has joined, and it is known how lines look, when all have heard one line of every sender."""
        script, deadline = self.script, now() + self.limit
        attempt = 0
        while True:
            attempt += 1
            texts = [script.first(number, attempt) for number in range(script.senders)]
            missing = {member.fd: set(range(script.senders)) for member in self.receivers if not member.gone}
            lines = [script.wrapped(number, text) for number, text in enumerate(texts)]
            again = now() + AGAIN_S
            while missing and now() < min(again, deadline):
                for number, member in enumerate(self.senders):
                    lines[number] = lines[number][self.try_to_send(member, lines[number]) :]
                for fd, _ in self.crowd.wait(again):
                    member = self.crowd.by_fd[fd]
                    if (data := self.take(member)) is None:
                        missing.pop(fd, None)
                    elif fd in missing:
                        self.first_heard(member, data, texts, missing[fd])
                        if not missing[fd]:
                            del missing[fd]
                            again = (
                                now() + AGAIN_S
                            )  # it goes on, if slowly: saying more would only make it slower
                yield
            if not missing:
                break
            if now() > deadline:
                raise Unheard(
                    f"{len(missing)} of {len(self.receivers)} receivers did not hear the first line of every sender within {self.limit:g} s"
                )
        script.begin()
        for member in (*self.senders, *self.receivers):
            member.start()

    def first_heard(self, member, data, texts, missing):
        """`missing`: the senders of whom this member has heard nothing yet."""
        member.unread += data
        for sender in list(missing):
            at = member.unread.find(texts[sender])
            behind = at + len(texts[sender])
            if at < 0:
                continue
            if self.script.heard[sender] is None:
                end = member.unread.find(b"\n", behind) + 1
                if not end:
                    continue
                begin = member.unread.rfind(b"\n", 0, at) + 1
                self.script.learn(sender, bytes(member.unread[begin:at]), bytes(member.unread[behind:end]))
            before, _, length = self.script.heard[sender]
            if len(member.unread) >= at - len(before) + length:
                missing.discard(sender)

    def take(self, member):
        """What has come for a member; None when it has ended."""
        try:
            data = member.sock.recv(SCRATCH)
        except BlockingIOError:
            return b""
        except OSError as exc:
            return self.end(member, word(exc))
        return data if data or self.crowd.kind != "tcp" else self.end(member, "eof")

    def end(self, member, why):
        member.gone = why
        self.crowd.epoll.unregister(member.fd)
        if member in self.sharing:
            self.sharing.remove(member)

    def try_to_send(self, member, data):
        """How many bytes the kernel takes now."""
        if not data or member.gone:
            return 0
        try:
            return member.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                return 0
            self.end(member, word(exc))
            return 0

    # All other lines.

    def all_lines(self):
        self.stream = Stream(self.script, self.due if self.rate else None)
        self.began = self.last = began = now()
        first, last = began + self.ramp, began + self.ramp + self.seconds
        before = after = None
        usage = None
        slice_ends = began + SLICE_S
        while True:
            t = now()
            if before is None and t >= first:
                before, usage = (t, self.delivered()), os.times()
            elif after is None and t >= last:
                after, usage = (t, self.delivered()), busy(usage, os.times(), t - before[0])
            if after is None:
                self.say(t)
            elif self.all_heard() or t - self.last > self.still_s or not self.receivers:
                break
            else:
                self.finish_lines()
            self.hear(self.next_time(t, last if after is None else t + self.still_s))
            if t > slice_ends:
                yield
                slice_ends = now() + SLICE_S
        return self.figures(before, after, usage)

    def due(self, sender, number, lines):
        """The times of a run of lines."""
        senders, rate = self.script.senders, self.rate
        return [self.began + (n * senders + sender) / rate for n in range(number, number + lines)]

    def next_time(self, t, end):
        """Until when we may sleep if nothing comes."""
        if not self.rate:
            return end
        return min(end, max(t, self.began + self.said() / self.rate))

    def say(self, t):
        senders = self.script.senders
        if self.rate:
            due = int((t - self.began) * self.rate) + 1
            for number, member in enumerate(self.senders):
                lines = max(0, (due - number + senders - 1) // senders)
                size = self.script.say_size
                if member.sent < lines * size:
                    ((time_of, *_),) = (self.due(number, member.sent // size, 1),)
                    if time_of >= self.began + self.ramp:
                        self.late = max(self.late, t - time_of)
                    self.send(number, member, lines * size)
            return
        lines = (self.least() + self.window) // senders
        grain = max(1, self.window // senders // self.grain)
        for number, member in enumerate(self.senders):
            size = self.script.say_size
            if lines * size - member.sent >= grain * size and member.fd not in self.watched:
                self.send(number, member, lines * size)

    def finish_lines(self):
        """Say the rest of the lines that are begun."""
        for number, member in enumerate(self.senders):
            if rest := -member.sent % self.script.say_size:
                self.send(number, member, member.sent + rest)

    def send(self, number, member, end):
        """Say what the kernel takes, up to so many bytes since the beginning."""
        ring = memoryview(self.script.said[number])
        while member.sent < end and not member.gone:
            at = member.sent % len(ring)
            part = ring[at : at + min(SENT_AT_ONCE, end - member.sent)]
            sent = self.try_to_send(member, part)
            member.sent += sent
            if sent < len(part):
                self.watch(member, True)
                return
        self.watch(member, False)

    def watch(self, member, for_room):
        if for_room != (member.fd in self.watched) and not member.gone:
            (self.watched.add if for_room else self.watched.discard)(member.fd)
            self.crowd.epoll.modify(member.fd, READABLE | (WRITABLE if for_room else 0))

    def hear(self, until):
        crowd, speaking = self.crowd, self.speaking
        heard = False
        for fd, events in crowd.wait(until):
            if fd in speaking:
                if events & WRITABLE:
                    self.watch(crowd.by_fd[fd], False)
                if events & ~WRITABLE:
                    self.aside += len(self.take(crowd.by_fd[fd]) or b"")
            else:
                self.hear_one(crowd.by_fd[fd])
                heard = True
        if heard:
            self.last = now()
            self.forget()

    def forget(self):
        if self.sharing:
            self.stream.forget(min([member.at for member in self.sharing]))

    def hear_one(self, member):
        crowd, stream = self.crowd, self.stream
        try:
            size = member.sock.recv_into(crowd.scratch)
        except BlockingIOError:
            return
        except OSError as exc:
            self.end(member, word(exc))
            return
        if not size:
            self.end(member, "eof")
            return
        if member.own is not None:
            self.hear_alone(member, crowd.view[:size])
            return
        at = member.at - stream.base
        known = min(size, len(stream.data) - at)
        if known and not stream.data.startswith(crowd.view[:known], at):
            member.lines = stream.good_at(member.at)
            member.own, member.unread = stream.apart(member.at)
            self.sharing.remove(member)
            self.hear_alone(member, crowd.view[:size])
            return
        if size > known:
            stream.add(crowd.view[known:size])
        member.at += size
        if self.times:
            t, before, member.lines = now(), member.lines, stream.lines_at(member.at)
            self.count_times(t, stream.dues[before - stream.passed : member.lines - stream.passed])

    def hear_alone(self, member, part):
        """For a receiver that hears another order than the rest."""
        member.unread += part
        t = now()

        def tell(sender, number, lines, _end, good):
            member.lines += lines if good else 0
            if self.times and good:
                self.count_times(t, self.due(sender, number, lines))

        del member.unread[: member.own.check(member.unread, 0, tell)]

    def count_times(self, t, dues):
        first, add = self.began + self.ramp, self.times.add
        for due in dues:
            if due >= first:
                add(t - due)

    # What came of it.

    def heard_by(self, member):
        """How many lines a receiver has heard, each once."""
        return member.lines if member.own is not None else self.stream.good_at(member.at)

    def least(self):
        """Lines that everybody has heard who is there."""
        alone = [member.lines for member in self.receivers if member.own is not None and not member.gone]
        shared = [self.stream.good_at(min([member.at for member in self.sharing]))] if self.sharing else []
        return min([*alone, *shared], default=0)

    def said(self):
        return sum(member.sent // self.script.say_size for member in self.senders)

    def delivered(self):
        return sum(self.heard_by(member) for member in self.receivers)

    def all_heard(self):
        begun = any(member.sent % self.script.say_size for member in self.senders)
        return not begun and self.least() >= self.said()

    def figures(self, before, after, usage):
        said, delivered = self.said(), self.delivered()
        checkers = [member.own for member in self.receivers if member.own is not None]
        checkers += [self.stream.checker] * sum(member.own is None for member in self.receivers)
        total = {name: sum(getattr(c, name) for c in checkers) for name in ("doubled", "damaged", "foreign")}
        gone = collections.Counter(m.gone for m in (*self.senders, *self.receivers) if m.gone)
        # What a receiver that has ended did not hear is not lost: the server dropped it, and `gone` tells of it.
        left = [member for member in self.receivers if not member.gone]
        return {
            "ok": True,
            "seconds": after[0] - before[0],
            "delivered": after[1] - before[1],
            "said": said,
            "heard": delivered,
            "lost": sum(said - self.heard_by(member) for member in left),
            **total,
            "example": next((c.example for c in checkers if c.example), ""),
            "receivers": len(left),
            "gone": dict(gone),
            "own_order": sum(member.own is not None for member in self.receivers),
            "busy": usage,
            "late_us": int(self.late * 1e6),
            "times": self.times.as_data() if self.times else [],
        }


class DatagramFanOut(FanOut):
    """The same, a datagram for a line. What is lost is not sent again, and the window goes on after LOST_S."""

    grain = 2

    def __init__(self, crowd, script, members, message):
        super().__init__(crowd, script, members, message)
        self.given_up = 0  # lines that are not waited for any more
        self.sharing = []

    def all_lines(self):
        for member in self.receivers:
            member.own = Checker(self.script)
        return (yield from super().all_lines())

    def say(self, t):
        if not self.rate and t - self.last > LOST_S:
            self.given_up = self.said() - super().least()
            self.last = t
        super().say(t)

    def least(self):
        return super().least() + self.given_up

    def send(self, number, member, end):
        ring, size = memoryview(self.script.said[number]), self.script.say_size
        while member.sent < end and not member.gone:
            at = member.sent % len(ring)
            if not self.try_to_send(member, ring[at : at + size]):
                return
            member.sent += size

    def hear_one(self, member):
        script, own, scratch = self.script, member.own, self.crowd.scratch
        for _ in range(64):
            try:
                size = member.sock.recv_into(scratch)
            except BlockingIOError:
                return
            except OSError as exc:
                self.end(member, word(exc))
                return
            sender = script.sender_at(scratch, 0) if size >= HEAD else None
            if sender is None or size != script.lengths[sender]:
                own.foreign += 1
                continue
            number = own.next[sender]
            place = number % script.count * size
            if scratch.startswith(script.rings[sender][place : place + size]):
                own.next[sender] = number + 1
            elif not own.out_of_order(scratch, 0, sender, size):
                continue
            member.lines += 1
            if self.times:
                self.count_times(now(), self.due(sender, own.next[sender] - 1, 1))


class Echo:
    """Each member sends messages, and hears them come back. Those of a stream have no borders: bytes are compared with those sent."""

    def __init__(self, crowd, members, message):
        self.crowd = crowd
        self.members = members
        self.datagrams = crowd.kind == "udp"
        self.size = whole(
            message, "size", 24 if self.datagrams else 1, 65507 if self.datagrams else PATTERN, 64
        )
        self.in_flight = whole(message, "in_flight", 1, 65536, 1)
        self.seconds = number_of(message, "seconds", 2.0)
        self.ramp = number_of(message, "ramp", 0.2)
        self.rate = number_of(message, "rate", 0.0)  # messages a second, of all members together
        self.times = Times() if self.rate else None
        self.late = 0.0
        self.damaged = self.lost = self.given = 0
        self.last = self.began = now()
        block = b"".join(b"%07d." % number for number in range(PATTERN // 8))
        self.pattern = memoryview(block * (2 + SCRATCH // PATTERN))
        self.index = {member.fd: place for place, member in enumerate(members)}
        for member in members:
            member.start()

    def run(self):
        self.began = self.last = began = now()
        first, last = began + self.ramp, began + self.ramp + self.seconds
        before = after = usage = None
        checked = slice_ends = began + SLICE_S
        hear = self.hear_datagrams if self.datagrams else self.hear
        if not self.rate:
            for member in self.members:
                self.top_up(member)
        while True:
            t = now()
            if before is None and t >= first:
                before, usage = (t, self.count()), os.times()
            elif after is None and t >= last:
                after, usage = (t, self.count()), busy(usage, os.times(), t - before[0])
            if after is not None and (self.all_back() or t - self.last > STILL_S):
                break
            until = last if after is None else t + STILL_S
            if self.rate and after is None:
                until = min(until, self.say(t))
            for fd, _ in self.crowd.wait(until):
                member = self.crowd.by_fd[fd]
                hear(member)
                if after is None and not self.rate:
                    self.top_up(member)
            if t > slice_ends:
                if self.datagrams and t - checked > LOST_S and after is None and not self.rate:
                    checked = t
                    self.give_up()
                yield
                slice_ends = now() + SLICE_S
        gone = collections.Counter(member.gone for member in self.members if member.gone)
        missing = sum((member.sent - member.at) // self.size for member in self.members if not member.gone)
        return {
            "ok": True,
            "seconds": after[0] - before[0],
            "delivered": after[1] - before[1],
            "said": sum(member.sent // self.size for member in self.members),
            "heard": self.count(),
            "lost": self.lost + missing,
            "doubled": 0,
            "damaged": self.damaged,
            "foreign": 0,
            "example": "",
            "receivers": sum(not member.gone for member in self.members),
            "gone": dict(gone),
            "busy": usage,
            "late_us": int(self.late * 1e6),
            "times": self.times.as_data() if self.times else [],
        }

    def count(self):
        return sum(member.at // self.size for member in self.members) - self.lost

    def all_back(self):
        return all(member.at >= member.sent or member.gone for member in self.members)

    def say(self, t):
        """Say what is due; when the next message is."""
        count, due = len(self.members), int((t - self.began) * self.rate)
        while self.given <= due:
            member = self.members[self.given % count]
            self.given += 1
            member.lines += 1  # that ought to be said
            self.top_up(member)
            time_of = self.began + (self.given - 1) / self.rate
            if time_of >= self.began + self.ramp:
                self.late = max(self.late, t - time_of)
        return self.began + self.given / self.rate

    def top_up(self, member):
        """Say what may be said now; where a kernel has no room, the rest goes when something has come back."""
        size = self.size
        end = member.lines * size if self.rate else member.at - member.at % size + self.in_flight * size
        while member.sent < end and not member.gone:
            if self.datagrams:
                part = self.datagram(member, member.sent // size)
            else:
                at = (member.sent + member.number * 97) % PATTERN
                part = self.pattern[at : at + min(end - member.sent, SCRATCH)]
            try:
                sent = member.sock.send(part)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    self.end(member, word(exc))
                return
            member.sent += sent
            if sent < len(part):
                return

    def hear(self, member):
        crowd = self.crowd
        try:
            size = member.sock.recv_into(crowd.scratch)
        except BlockingIOError:
            return
        except OSError as exc:
            self.end(member, word(exc))
            return
        if not size:
            self.end(member, "eof")
            return
        at = (member.at + member.number * 97) % PATTERN
        if member.at + size > member.sent or not crowd.scratch.startswith(self.pattern[at : at + size]):
            self.damaged += 1
            self.end(member, "damaged")
            return
        self.came(member, size)

    def came(self, member, size):
        before = member.at // self.size
        member.at += size
        self.last = t = now()
        if self.times:
            place, count = self.index[member.fd], len(self.members)
            for number in range(before, member.at // self.size):
                due = self.began + (number * count + place) / self.rate
                if due >= self.began + self.ramp:
                    self.times.add(t - due)

    def datagram(self, member, number):
        return (b"~%08x.%08d~" % (member.number, number)).ljust(self.size, b".")

    def hear_datagrams(self, member):
        for _ in range(64):
            try:
                size = member.sock.recv_into(self.crowd.scratch)
            except BlockingIOError:
                return
            except OSError as exc:
                self.end(member, word(exc))
                return
            number = member.at // self.size
            data = bytes(self.crowd.view[:size])
            if data == self.datagram(member, number):
                self.came(member, self.size)
                continue
            digits = data[10:18]
            ahead = (int(digits) if digits.isdigit() else -1) - number
            if ahead > 0 and data == self.datagram(member, number + ahead):
                self.lost += ahead
                member.at += ahead * self.size
                self.came(member, self.size)
            elif ahead >= 0 or not digits.isdigit():
                self.damaged += 1

    def give_up(self):
        """Datagrams that have not come back by now are lost."""
        if now() - self.last > LOST_S:
            for member in self.members:
                if member.at < member.sent and not member.gone:
                    self.lost += (member.sent - member.at) // self.size
                    member.at = member.sent
                    self.top_up(member)

    def end(self, member, why):
        member.gone = why
        self.crowd.epoll.unregister(member.fd)


class Churn:
    """Clients come, say something, hear an answer, and go; as many as can in a time."""

    def __init__(self, crowd, message):
        self.crowd = crowd
        self.message = message
        self.seconds = number_of(message, "seconds", 2.0)
        self.at_once = whole(message, "at_once", 1, 100_000, 16)
        self.greeting = Greeting({"hello": "hello\n", "until": "hello", **message}, "")
        self.abort = bool(message.get("abort"))
        self.rate = number_of(message, "rate", 0.0)  # clients a second

    def run(self):
        crowd, times, failed = self.crowd, Times(), collections.Counter()
        began, usage = now(), os.times()
        last, limit = began + self.seconds, began + self.seconds + STILL_S
        here, count, number, late = {}, 0, 0, 0.0
        while (t := now()) < last or (here and t < limit):
            while (
                t < last and len(here) < self.at_once and (not self.rate or number <= (t - began) * self.rate)
            ):
                due = began + number / self.rate if self.rate else t
                number += 1
                try:
                    member = crowd.begin(number, self.message)
                except OSError as exc:
                    failed[word(exc)] += 1
                    break
                late = max(late, t - due)
                here[member.fd] = member, due
            until = min(last if t < last else limit, began + number / self.rate if self.rate else limit)
            for fd, _ in crowd.wait(until):
                member, due = here.get(fd, (None, 0.0))
                if member is None:
                    continue
                try:
                    if not crowd.greeted(member, self.greeting):
                        continue
                    count += 1
                    times.add(now() - due)
                    if self.abort:
                        member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError as exc:
                    failed[word(exc)] += 1
                del here[fd]
                member.sock.close()
            yield
        failed["timed out"] += len(here)
        for member, _ in here.values():
            member.sock.close()
        seconds = min(now(), last) - began
        return {
            "ok": True,
            "seconds": seconds,
            "delivered": count,
            "failed": dict(+failed),
            "busy": busy(usage, os.times(), seconds),
            "late_us": int(late * 1e6) if self.rate else 0,
            "times": times.as_data(),
        }


def now():
    return time.monotonic()


def busy(before, after, seconds):
    """The share of a processor that this process had."""
    return (after.user + after.system - before.user - before.system) / seconds if seconds else 0.0


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


# What commands are made of.


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
    except (ValueError, LookupError, AttributeError):
        raise Refused(f'"{key}" is a text or {{"base64": …}}, not {value!r:.80}') from None
