"""A crowd: thousands of clients in one program, as one. It says what it is told as fast as it may, and checks what each member hears.

A part of the scripted client; agent.py loads it with the first command that concerns a crowd:

    → {"id": 1, "do": "crowd", "what": "open", "crowd": "crowd", "kind": "tcp", "to": ["10.71.0.2", 6002], "count": 5000}
    ← {"id": 1, "ok": true, "t": …, "connected": 5000, "failed": {}, …}
    → {"id": 2, "do": "crowd", "what": "fan-out", "crowd": "crowd", "senders": 10, "size": 63, "seconds": 2}
    ← {"id": 2, "ok": true, "t": …, "delivered": 81920000, "lost": 0, "doubled": 0, "damaged": 0, "seconds": 2.0, …}

Crowds of several agents can make one load at a rate: one of them has the senders, the others ("elsewhere": true) only listen. They need
not talk to each other, for every line and its time are known beforehand. What they are told is whose first line somebody has not heard
yet ("meet", round by round until nobody misses any), and when the load begins, by their own clock:

    → {"id": 2, "do": "crowd", "what": "meet", "crowd": "crowd", "senders": 10, "elsewhere": true, "size": 63, "rate": 1000, "seconds": 2}
    ← {"id": 2, "ok": true, "t": …, "missing": []}
    → {"id": 3, "do": "crowd", "what": "fan-out", "crowd": "crowd", "at": 8124.25}

Neither what is said nor what is heard crosses the control stream, so that neither it nor the conductor is what is measured.

What was delivered is checked, every byte of it. A line says who says it and how many lines that member has said:
`~0003.00001234~`, filled up to its size. All of a sender's lines are made beforehand, in a ring, and so is what a receiver must
get of them. When all receivers hear the same in the same order, as they mostly do, one of them is checked line by line, and the
others against it: one comparison of memory for each recv(), whatever the lines are. A receiver that hears another order is
checked by itself from there on. So one process can check tens of millions of deliveries a second. Of the lines of a load,
- `lost` ones did not come, or not whole, to a receiver that is still there;
- `doubled` ones came whole and had come before; `reordered` ones came behind a later one of the same sender;
- `damaged` ones bear the mark of a sender and are not what it said: cut, mixed with another, altered;
- `foreign` ones bear none: others talk there, too. They are passed over.

A server may decorate lines, with a name, an address, a time. What stands around them is learned from the first ones. Where it
changes from line to line, in letters and digits only, a line is taken apart instead of compared: right as well, but slower.

There are two ways to say it:
- with a window: never more than so many lines ahead of the slowest receiver. That finds the most that a server can do.
- at a rate: each line has its time, whatever came of those before it, and its latency counts from that time, not from when it
  could at last be sent. So a server that stops for a second shows it in a thousand lines, not in one ("coordinated omission").
  `unsaid` are those whose time came and that found no room even two seconds after the end: their latencies are missing.

Between its loads a crowd does not read. Resource handling: "close", another "open", or the end of the agent closes its sockets.
"""

import array
import base64
import bisect
import collections
import errno
import math
import os
import re
import resource
import select
import socket
import struct
import time

SCRATCH = 1 << 18  # bytes that one recv() takes
SLICE_S = 0.02  # of work, before the agent looks at its commands again
RING = 4 << 20  # bytes of all rings together, about: they stay in the processor's cache
RINGS = 256 << 20  # and at most
ENDLESS = 1 << 20  # bytes without the end of a line: no chat has to carry so long a one
KEPT = 16 << 20  # bytes of lines, for the slowest of those who hear the same
LEAST, MOST = 64, 4096  # lines in the ring of a sender, where neither a window nor a rate needs more
AHEAD_S = 2.0  # at a rate, a ring has the lines of so many seconds: a run of lost ones must not go round it
HEAD = len("~0000.00000000~")  # of a line
MARK = re.compile(rb"~([0-9a-f]{4})\.([0-9]{8})~")
FIRST = re.compile(rb"~([0-9a-f]{4})\.x([0-9]{7})~")
WORD = re.compile(rb"[0-9A-Za-z]+")
SPIN_S = 0.002  # before a line's time, we do not sleep: epoll(7) counts in milliseconds
AGAIN_S = 0.5  # over UDP, or before a server has taken everybody in: then the first lines are said again
# Lines, and bytes, that senders are ahead of the slowest receiver: no more than a server has to keep for it; and in
# datagrams no more than fits into its buffer, where nobody has raised net.core.rmem_max.
WINDOW, WINDOW_OF_DATAGRAMS = (2000, 1 << 20), (200, 1 << 17)
STILL_S = 2.0  # nothing has come for so long: what is missing is lost
LOST_S = 0.2  # the same where later ones have come; and a sender of datagrams goes on without it
DATAGRAMS = 64  # of one socket, before others have their turn
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
WITHOUT_END = "line without end"  # why a member is gone whom a server talks to on and on
WRONG = ("doubled", "reordered", "damaged", "foreign")  # what a Checker counts


class Member:
    """One client of a crowd."""

    __slots__ = ("at", "fd", "gone", "heard", "lines", "number", "own", "sent", "sock", "unread")

    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.fd = sock.fileno()
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


class Script:
    """What the senders say, and how receivers get it: rings of lines, made beforehand."""

    def __init__(self, senders, size, say, hear=None, ahead=0):
        """`say`: what stands around a line of `size` bytes, its newline not counted, when it is said; `hear`: when it is heard. Both may
        have a {sender}. Without `hear` it is learned from the first lines, one a sender: a server may decorate them. `ahead`: so many
        lines a sender may be ahead of a receiver; a ring that has twice as many tells lines that are lost from lines that come twice."""
        self.size = size
        self.senders = senders
        self.count = max(LEAST, min(MOST, RING // (senders * size)), 2 * ahead)
        if (needs := self.count * senders * size) > RINGS:
            raise Refused(
                f"{senders} senders of {size} bytes take {needs >> 20} MiB of lines made beforehand, of {RINGS >> 20} at most:"
                " fewer senders, shorter lines, a smaller window or rate"
            )
        self.say = say
        self.said = [
            b"".join(self.wrapped(sender, self.line(sender, number)) for number in range(self.count))
            for sender in range(senders)
        ]
        self.say_size = len(self.said[0]) // self.count
        self.told = hear is not None  # and not learned
        self.heard = [None] * senders  # what stands before and behind a line
        self.rings = [None] * senders
        self.lengths = [0] * senders
        for sender in range(senders if hear else 0):
            self.learn(sender, *(self.of(sender, part) for part in hear))

    def of(self, sender, part):
        return part.replace(b"{sender}", b"%04x" % sender)

    def wrapped(self, sender, text):
        """A line as it is said."""
        before, after = self.say
        return self.of(sender, before) + text + self.of(sender, after)

    def line(self, sender, number):
        """The text of a line; `number` is taken round the ring."""
        return (b"~%04x.%08d~" % (sender, number % self.count)).ljust(self.size, b".")

    def first(self, sender, attempt):
        """The text of a line before those that count: as long as they are, and unlike all of them."""
        return (b"~%04x.x%07d~" % (sender, attempt)).ljust(self.size, b".")

    def learn(self, sender, before, after):
        ring = b"".join(before + self.line(sender, number) + after for number in range(self.count))
        self.heard[sender] = before, after
        self.rings[sender] = memoryview(ring)
        self.lengths[sender] = len(ring) // self.count

    def begin(self):
        """Everything is learned: what a checker asks for."""
        self.before = [len(before) for before, _ in self.heard]
        self.heads = sorted(set(self.before))
        self.reach = self.heads[-1] + HEAD  # bytes that tell whose line it is
        self.likeness = [tuple(WORD.sub(b"0", part) for part in around) for around in self.heard]

    def sender_at(self, data, at):
        """Whose line begins here, as far as it is decorated as the first one was; None: nobody's."""
        for head in self.heads:
            text = data[at + head : at + head + HEAD]
            if len(text) == HEAD and text[0] == text[14] == 0x7E and text[5] == 0x2E:
                try:
                    sender = int(bytes(text[1:5]), 16)
                except ValueError:
                    continue
                if sender < self.senders and self.before[sender] == head:
                    return sender
        return None

    def is_decorated(self, sender, before, after):
        """Whether this may stand around a line: as around the first one, but for letters and digits."""
        if (before, after) == self.heard[sender]:
            return True
        likeness = WORD.sub(b"0", before), WORD.sub(b"0", after)
        return not self.told and likeness == self.likeness[sender]


class Numbers:
    """Whose lines have come up to which number. Of a number, a line tells its place in a ring of so many."""

    def __init__(self, whose, ring):
        self.ring = ring
        self.next = [0] * whose
        self.missing = {}  # whose: the numbers that were passed over, and may still come
        self.near = ring // 4  # so far behind the next one, a line is late or comes again; others are ahead

    def came(self, whose, place):
        """The number of a line, and what is wrong with its coming: None, "reordered" or "doubled"."""
        following = self.next[whose]
        ahead = (place - following) % self.ring
        number = following + ahead
        if ahead < self.ring - self.near or number < self.ring:
            self.next[whose] = number + 1
            if ahead:
                missing = self.missing.setdefault(whose, set())
                missing.update(range(max(following, number - self.near), number))
                if len(missing) > 2 * self.near:
                    self.missing[whose] = {each for each in missing if each > number - self.near}
            return number, None
        number -= self.ring
        missing = self.missing.get(whose, ())
        if number in missing:
            missing.remove(number)
            return number, "reordered"
        return number, "doubled"


class Checker:
    """Checks a stream of lines: each sender's in order, once, whole. What is no line of a sender is passed over and counted."""

    def __init__(self, script):
        self.script = script
        self.numbers = Numbers(script.senders, script.count)
        self.counts = collections.Counter()
        self.example = ""  # of the first that was wrong

    def check(self, data, at, tell):
        """Go over the whole lines of data[at:]; where the first one begins that is not whole.

        `tell(sender, number, lines, end, wrong)` is called for each run of lines of one sender, `number` that of the first; `wrong` is
        None, one of WRONG, or "first": one of those before the load.
        """
        script, following = self.script, self.numbers.next
        while at < len(data):
            sender = script.sender_at(data, at)
            if sender is not None:
                length, number = script.lengths[sender], following[sender]
                place = number % script.count
                most = min((len(data) - at) // length, script.count - place)
                if lines := run(data, at, script.rings[sender], place, most, length):
                    following[sender] = number + lines
                    at += lines * length
                    tell(sender, number, lines, at, None)
                    continue
            end = self.end_of_line(data, at, sender)
            if end is None:
                return at
            sender, number, wrong = self.take_apart(bytes(data[at:end]))
            at = end
            tell(sender, number, 1, at, wrong)
        return at

    def end_of_line(self, data, at, sender):
        """Where it ends, whatever it is; None: it has not come whole."""
        script = self.script
        if not script.told:
            return data.find(b"\n", at) + 1 or None
        if sender is not None:
            end = at + script.lengths[sender]
            return end if end <= len(data) else None
        # No newline ends it: it goes up to the next line that is one.
        for mark in MARK.finditer(data, at + 1):
            sender = int(mark[1], 16)
            if sender < script.senders and (end := mark.start() - script.before[sender]) > at:
                return end
        return None

    def take_apart(self, line):
        """(sender, number, wrong) of a line that is not the one expected, or not decorated as the first one was."""
        script, mark = self.script, MARK.search(line)
        if mark is None and FIRST.search(line):
            return 0, 0, "first"  # once more; before the load began, so it does not concern it
        if mark is None or int(mark[1], 16) >= script.senders:
            self.counts["foreign"] += 1
            return 0, 0, "foreign"
        sender, place, begin = int(mark[1], 16), int(mark[2]), mark.start()
        end = begin + script.size
        is_whole = place < script.count and line[begin:end] == script.line(sender, place)
        if not is_whole or not script.is_decorated(sender, line[:begin], line[end:]):
            return sender, 0, self.is_wrong(line, "damaged", "is damaged")
        following = self.numbers.next[sender]
        number, wrong = self.numbers.came(sender, place)
        if wrong:
            self.is_wrong(line, wrong, "had come before" if wrong == "doubled" else "came too late")
        elif number > following:
            self.is_wrong(line, None, f"came, and {number - following} before it had not")
        return sender, number, wrong

    def is_wrong(self, line, what, told):
        if what:
            self.counts[what] += 1
        self.example = self.example or f"{line[:80].decode(errors='replace')!r} {told}"
        return what


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
        self.heard = array.array("Q")  # with each of them: lines of the load up to there, each once
        self.lines_before = self.heard_before = 0  # data
        self.wrongs = collections.deque()  # (where it ends, what) of the lines in data that are wrong
        self.runs = collections.deque()  # (lines up to its end, sender, number, lines) of the others
        self.next = [0] * script.senders  # each sender's next line, at data[0]
        self.due = due
        self.dues = array.array("d")  # of each line in data; not a number: it has none

    def add(self, part):
        self.data += part
        self.checked = self.checker.check(self.data, self.checked, self.tell)

    def tell(self, sender, number, lines, end, wrong):
        end += self.base
        heard = self.heard[-1] if self.heard else self.heard_before
        is_heard = wrong in (None, "reordered")
        if wrong:
            self.wrongs.append((end, wrong))
        if lines > 1:
            length = self.checker.script.lengths[sender]
            self.ends.extend(range(end - (lines - 1) * length, end + 1, length))
            self.heard.extend(range(heard + 1, heard + lines + 1))
        else:
            self.ends.append(end)
            self.heard.append(heard + is_heard)
        if is_heard:
            self.runs.append((self.lines_before + len(self.ends), sender, number, lines))
        if self.due:
            self.dues.extend(self.due(sender, number, lines) if is_heard else (math.nan,))

    def lines_at(self, place):
        """How many lines end up to this place."""
        return self.lines_before + bisect.bisect_right(self.ends, place)

    def heard_at(self, place):
        """How many lines of the load end up to this place, each counted once."""
        lines = bisect.bisect_right(self.ends, place)
        return self.heard[lines - 1] if lines else self.heard_before

    def counts_at(self, place):
        """What was wrong up to this place."""
        return self.checker.counts - collections.Counter(
            what for end, what in self.wrongs if end > place and what in WRONG
        )

    def forget(self, place):
        """Everybody has heard it up to here."""
        lines = bisect.bisect_right(self.ends, place)
        if not lines:
            return
        size, self.heard_before = self.ends[lines - 1] - self.base, self.heard[lines - 1]
        del self.data[:size], self.ends[:lines], self.heard[:lines], self.dues[:lines]
        self.base += size
        self.checked -= size
        self.lines_before += lines
        while self.wrongs and self.wrongs[0][0] <= self.base:
            self.wrongs.popleft()
        while self.runs and self.runs[0][0] <= self.lines_before:
            _, sender, number, lines = self.runs.popleft()
            self.next[sender] = max(self.next[sender], number + lines)

    def apart(self, place):
        """For a receiver that heard something else behind this place: a checker for it, and the begun line before that place."""
        before = self.lines_at(place)
        checker, numbers = Checker(self.checker.script), self.checker.numbers
        checker.counts, checker.example = self.counts_at(place), self.checker.example
        following = checker.numbers.next = list(self.next)
        for end, sender, number, lines in self.runs:
            first = end - lines
            if first >= before:
                break
            following[sender] = max(following[sender], number + min(lines, before - first))
        for sender, missing in numbers.missing.items():
            checker.numbers.missing[sender] = {number for number in missing if number < following[sender]}
        begin = self.ends[before - self.lines_before - 1] if before > self.lines_before else self.base
        return checker, self.data[begin - self.base : place - self.base]


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
        # (number, generator): it yields after a slice, and returns the fields of its answer.
        self.jobs = collections.deque()

    def command(self, number, message):
        self.jobs.append((number, self.job(message)))

    def job(self, message):
        """Raises Refused and OSError when it is its turn."""
        what, name = message.get("what"), message.get("crowd")
        if not isinstance(name, str):
            raise Refused(f'a crowd command has "crowd", a name, not {name!r:.80}')
        known = ("open", "more", "meet", "fan-out", "echo", "churn", "say", "look", "close")
        if what not in known:
            raise Refused(f'"what" is one of {", ".join(known)}, not {what!r:.80}')
        if what == "churn":
            return (yield from Churn(*peer_of(message), message).run())
        if what == "open":
            peer = peer_of(message)
            if name in self.crowds:
                self.crowds.pop(name).close()
            self.crowds[name] = Crowd(*peer)
        if name not in self.crowds:
            raise Refused(f"no crowd is called {name!r:.80}; open it first")
        crowd = self.crowds[name]
        if what == "close":
            del self.crowds[name]
        does = {"open": "open", "more": "open", "fan-out": "fan_out", "close": "leave"}.get(what, what)
        return (yield from getattr(crowd, does)(message))

    def work(self):
        """Go on with the first thing that is to be done, for a slice of time."""
        number, job = self.jobs[0]
        try:
            next(job)
            return
        except StopIteration as done:
            fields = {"ok": True, **done.value}
        except OSError as exc:
            fields = {"ok": False, "error": word(exc), "message": exc.strerror or str(exc)}
        except (ValueError, OverflowError) as exc:
            fields = {"ok": False, "error": getattr(exc, "word", "usage"), "message": str(exc)}
        self.jobs.popleft()
        self.answer(number, **fields)

    def close(self):
        """Close all crowds, and answer the commands that are under way."""
        while self.jobs:
            number, job = self.jobs.popleft()
            job.close()
            self.answer(number, ok=False, error="closed", message="the crowd was closed before that")
        for crowd in self.crowds.values():
            crowd.close()
        self.crowds.clear()


class Crowd:
    def __init__(self, kind, family, to):
        self.kind = kind
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
            if abort and self.kind == "tcp":
                member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            member.sock.close()
        self.members, self.by_fd = [], {}
        self.epoll.close()

    def wait(self, until):
        """Who is ready: (descriptor, events). Waits until something is, a time has come, or the slice is over; not at all just before
        that time."""
        return self.epoll.poll(max(0.0, min(until - now(), SLICE_S) - SPIN_S))

    # Coming and going.

    def open(self, message):
        """Connect so many (with "more": so many besides); answers how many are connected, and why others are not. `first`: the number
        of the first one, where members of several crowds must not bear the same."""
        count = whole(message, "count", 1, 1_000_000)
        at_once = whole(message, "at_once", 1, 100_000, 256)
        began = now()
        deadline = began + number_of(message, "limit", 30.0)
        senders = whole(message, "senders", 0, 65535, 0)
        of_sender, of_receiver = Greeting(message, "sender_"), Greeting(message)
        failed = collections.Counter()
        first = self.members[-1].number + 1 if self.members else whole(message, "first", 0, 1_000_000, 0)
        if (most := raise_descriptor_limit()) < len(self.members) + count + SPARE:
            failed["no descriptor"] = min(count, len(self.members) + count + SPARE - most)
        left = collections.deque(range(first, first + count - failed["no descriptor"]))
        waiting = {}  # those that are being connected, or greeted
        while (left or waiting) and now() < deadline:
            while left and len(waiting) < at_once:
                try:
                    member = self.begin(left.popleft(), message)
                except OSError as exc:
                    failed[word(exc)] += 1
                    if exc.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL):
                        failed[word(exc)] += len(left)
                        left.clear()
                    continue
                waiting[member.fd] = member
            for fd, _ in self.wait(deadline):
                if (member := waiting.get(fd)) is None:
                    continue  # of those that are here already
                try:
                    if self.greeted(member, of_sender if member.number < senders else of_receiver):
                        del waiting[fd]
                        member.start()
                        self.members.append(member)
                        self.by_fd[fd] = member
                except OSError as exc:
                    del waiting[fd]
                    member.sock.close()
                    failed[word(exc)] += 1
            yield
        self.members.sort(key=lambda member: member.number)  # the first ones are those who say something
        for member in waiting.values():
            member.sock.close()
        failed["timed out"] += len(waiting) + len(left)
        fields = {"connected": len(self.members), "failed": dict(+failed), "seconds": now() - began}
        return {**fields, "descriptors": most}

    def begin(self, number, message):
        """A member whose connecting has begun."""
        stream = self.kind == "tcp"
        sock = socket.socket(self.family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if stream:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer := whole(message, "rcvbuf", 0, 1 << 30, 0 if stream else DATAGRAM_BUFFER):
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
        """Whether a member is connected, has said what it has to say first, and heard what it must hear then."""
        hello, until = greeting.of(member.number)
        if member.lines == 0:  # not connected yet
            if problem := member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            member.lines = 1
            self.epoll.modify(member.fd, READABLE)
            if hello:
                member.sock.send(hello)
            return not greeting.answered
        try:
            data = member.sock.recv(SCRATCH)
        except BlockingIOError:
            return False
        if not data and self.kind == "tcp":
            raise OSError(errno.ECONNRESET, "closed at once")
        member.unread += data
        return until in member.unread

    def end(self, member, why):
        """A member is not there any more; its socket stays open until the crowd is closed."""
        member.gone = why
        self.epoll.unregister(member.fd)

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

    def look(self, _message):
        """What has become of the members: how many are there, and how the others ended. What has come for them is thrown away."""
        slice_ends = now() + SLICE_S
        for member in self.members:
            for _ in range(DATAGRAMS):  # no more, of one to whom somebody talks on and on
                if member.gone:
                    break
                try:
                    if not member.sock.recv_into(self.scratch) and self.kind == "tcp":
                        self.end(member, "eof")
                except BlockingIOError:
                    break
                except OSError as exc:
                    self.end(member, word(exc))
            if now() > slice_ends:
                yield
                slice_ends = now() + SLICE_S
        yield
        ended = collections.Counter(member.gone or "there" for member in self.members)
        return {**{key: ended[key] for key in ("there", "eof", "reset")}, "ended": dict(ended)}

    def leave(self, message):
        count = len(self.members)
        self.close(abort=bool(message.get("abort")))
        yield
        return {"closed": count}

    # Saying and hearing.

    def there(self, least=1):
        members = [member for member in self.members if member.gone is None]
        if len(members) < least:
            raise Unheard(f"{least} members are needed, and {len(members)} are there")
        return members

    def fan_out(self, message):
        """The first members say lines, the others hear them all. Answers what was said, what was delivered, and how long that took."""
        if "at" in message:
            if (load := self.met) is None:
                raise Refused('"at" is for a load whose crowds have met')
            self.met = None
            return (yield from load.all_lines(number_of(message, "at", 0.0)))
        load = self.load_of(message)
        yield from load.first_lines()
        return (yield from load.all_lines(now()))

    def load_of(self, message):
        senders = whole(message, "senders", 1, 65535, 1)
        own = 0 if message.get("elsewhere") else senders
        members = self.there(own + 1)
        kind = DatagramFanOut if self.kind == "udp" else FanOut
        return kind(self, members[:own], members[own:], senders, message)

    def meet(self, message):
        """One round of first lines, of the senders in `asked` (in the first round: all); answers whom somebody here has not heard even
        then."""
        asked = message.get("asked")
        if asked is None:
            load = self.load_of(message)
            if not load.rate:
                raise Refused(
                    "what several crowds make has a rate: none knows how far those of others have heard"
                )
            self.met, asked = load, range(load.script.senders)
        elif self.met is None:
            raise Refused("the first round says what the load is")
        senders = self.met.script.senders
        if not isinstance(asked, range | list) or any(
            type(each) is not int or not 0 <= each < senders for each in asked
        ):
            raise Refused(f'"asked" is a list of numbers of senders, not {asked!r:.80}')
        return {"missing": sorted((yield from self.met.first_round(asked)))}

    def echo(self, message):
        return (yield from Echo(self, self.there(), message).run())


class FanOut:
    """Some members say lines, the others hear every one of them."""

    grain = 8  # a sender waits until it may say so much of its window (a part of it): fewer, longer sends
    newline = "\n"
    ahead = WINDOW
    first_at_once = None  # senders that say their first line at the same time: all

    def __init__(self, crowd, members, receivers, senders, message):
        """`members` say the lines of `senders`; nobody does who is here, if others do it elsewhere."""
        self.crowd = crowd
        self.senders, self.receivers = members, receivers
        self.speaking = {member.fd: number for number, member in enumerate(self.senders)}
        self.seconds = number_of(message, "seconds", 2.0)
        self.ramp = number_of(message, "ramp", 0.2)
        self.messages = whole(message, "messages", 0, 1 << 40, 0)  # lines, at least, however long it takes
        self.limit = number_of(message, "limit", 10.0)
        self.rate = number_of(message, "rate", 0.0)  # lines a second, of all senders together
        self.size, (lines, kept) = whole(message, "size", HEAD, 60_000, 63), self.ahead
        # Lines, of all senders together; one each, at least.
        self.window = max(senders, whole(message, "window", 1, 1 << 30, min(lines, kept // self.size)))
        # At a rate it is known beforehand how many lines there will be.
        self.planned = max(self.messages, math.ceil((self.ramp + self.seconds) * self.rate))
        self.times = Times() if self.rate else None
        self.late = 0.0  # seconds that a line was said after its time, at most; without what the server is to blame for
        self.given = 0  # lines whose time has come
        self.began = self.last = now()
        self.sharing = list(self.receivers)
        self.own_order = 0  # receivers that heard another order than the rest
        self.watched = set()  # senders whose kernel has no room
        self.script = self.script_of(senders, message)
        self.deadline = now() + self.limit  # of the first lines
        self.attempt = 0
        self.missing = {member.fd: set(range(senders)) for member in receivers}  # first lines not heard yet
        self.unsaid_first = [b""] * senders
        for member in (*members, *receivers):
            member.start()

    def script_of(self, senders, message):
        size = self.size
        say = bytes_of(message, "say_before", ""), bytes_of(message, "say_after", self.newline)
        hear = None
        if "hear_before" in message or self.crowd.kind == "udp":
            hear = bytes_of(message, "hear_before", ""), bytes_of(message, "hear_after", "")
        ahead = self.window // senders
        if self.rate:
            ahead = int(min(self.rate * AHEAD_S / 2, RINGS // 8 // size) / senders)
        return Script(senders, size, say, hear, ahead)

    # The first lines.

    def first_lines(self):
        """Everybody has joined, and it is known how lines look, when all have heard one line of every sender."""
        asked = range(self.script.senders)
        while asked:
            asked = yield from self.first_round(asked)

    def first_round(self, asked):
        """Say the first lines of these senders, and listen until all have heard them, or nothing comes any more. Returns the senders
        whose first line somebody here has not heard."""
        script, missing, unsaid = self.script, self.missing, self.unsaid_first
        self.attempt += 1
        asked = set(sorted(asked)[: self.first_at_once])
        own = asked if self.senders else ()
        for number in own:
            unsaid[number] += script.wrapped(number, script.first(number, self.attempt))
        again = now() + AGAIN_S
        # As long as some come, those that do not are on their way: to say them again would but add to the queue.
        while now() < min(again, self.deadline) and (
            any(unsaid[number] for number in own) or not all(map(asked.isdisjoint, missing.values()))
        ):
            for number in own:
                unsaid[number] = unsaid[number][self.try_to_send(self.senders[number], unsaid[number]) :]
            for fd, _ in self.crowd.wait(min(again, self.deadline)):
                member = self.crowd.by_fd[fd]
                if (data := self.take(member)) is None:
                    missing.pop(fd, None)
                elif fd in missing and self.first_heard(member, data, missing[fd]):
                    again = now() + AGAIN_S
                    if not missing.get(fd):
                        missing.pop(fd, None)
            yield
        if missing and self.is_anyone_there():
            if now() < self.deadline:
                return set().union(*missing.values())
            heard = (self.crowd.by_fd[fd].unread for fd in missing)
            instead = next((f"; one got {bytes(text[:60])!r}" for text in heard if text), "")
            raise Unheard(
                f"{len(missing)} of {len(self.receivers)} receivers did not hear the first line of every sender within {self.limit:g} s"
                + instead
            )
        if not self.is_anyone_there() or None in script.heard:
            told = ", ".join(f"{count} {why}" for why, count in self.gone().items())
            raise Unheard(f"clients were gone before all had heard the first line of every sender: {told}")
        return set()

    def first_heard(self, member, data, missing):
        """`missing`: the senders of whom this member has not heard the first line. Whether it has heard one of them."""
        script, unread, before = self.script, member.unread, len(missing)
        unread += data
        member.at, begun = max(0, len(unread) - HEAD), member.at
        for mark in list(FIRST.finditer(unread, begun)):
            sender, begin = int(mark[1], 16), mark.start()
            if sender not in missing:
                continue
            end = begin + script.size
            if around := script.heard[sender]:
                is_whole = end + len(around[1]) <= len(unread)
            else:
                is_whole = newline = unread.find(b"\n", end) + 1
            if not is_whole:
                member.at = begin
                break
            if unread[begin:end] == script.first(sender, int(mark[2])):
                if not around:
                    start = unread.rfind(b"\n", 0, begin) + 1
                    script.learn(sender, bytes(unread[start:begin]), bytes(unread[end:newline]))
                missing.discard(sender)
        if len(unread) > ENDLESS:  # what others say is not kept; of a line that goes on and on nothing is
            passed = member.at if script.told else unread.rfind(b"\n", 0, member.at) + 1
            del unread[:passed]
            member.at -= passed
            if len(unread) > ENDLESS:
                self.missing.pop(member.fd, None)
                self.end(member, WITHOUT_END)
        return len(missing) < before

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
        self.crowd.end(member, why)
        if member in self.sharing:
            self.sharing.remove(member)

    def is_anyone_there(self):
        """Somebody who speaks, here or elsewhere, and somebody who hears."""
        is_said = not self.senders or not all(m.gone for m in self.senders)
        return is_said and not all(m.gone for m in self.receivers)

    def try_to_send(self, member, data):
        """How many bytes the kernel takes now."""
        if not data or member.gone:
            return 0
        try:
            return member.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                self.end(member, word(exc))
            return 0

    # All other lines.

    def all_lines(self, began):
        """They begin at this moment."""
        self.start()
        self.stream = Stream(self.script, self.due if self.rate else None)
        while (left := began - now()) > 0:
            time.sleep(min(left, SLICE_S))
            yield
        self.began = self.last = began
        first, last = began + self.ramp, began + self.ramp + self.seconds
        before = after = usage = None
        slice_ends = began + SLICE_S
        while True:
            t = now()
            if before is None and t >= first:
                before, usage = (t, self.delivered()), os.times()
            elif after is None and t >= last and (self.said() >= self.messages or t - self.last > STILL_S):
                last = t
                after, usage = (t, self.delivered()), busy(usage, os.times(), t - before[0])
            if after is None:
                self.say(t)
            elif (self.all_said(t - last) and self.all_heard(t)) or t - self.last > STILL_S:
                break
            elif self.rate and t - last < STILL_S:
                self.say(last)  # what was due by then and found no room
            else:
                self.finish_lines()
            self.hear(self.next_time(t, max(last, t + SLICE_S)) if after is None else t + STILL_S)
            if t > slice_ends:
                if not self.is_anyone_there():
                    first, last = min(first, t), min(last, t)
                yield
                slice_ends = now() + SLICE_S
        for member in self.senders:
            self.watch(member, False)  # in the next load it may be one who hears
        return self.figures(before, after, usage)

    def start(self):
        """Nobody has said or heard anything that counts."""
        self.script.begin()
        for member in (*self.senders, *self.receivers):
            member.start()
            if member.gone:
                # So that it is not taken for one of those who share what they hear.
                member.own = Checker(self.script)

    def due(self, sender, number, lines):
        """The times of a run of lines."""
        senders, rate = self.script.senders, self.rate
        return [self.began + (n * senders + sender) / rate for n in range(number, number + lines)]

    def next_time(self, t, end):
        """Until when we may sleep if nothing comes."""
        return min(end, max(t, self.began + self.given / self.rate)) if self.rate and self.senders else end

    def say(self, t):
        senders, size = self.script.senders, self.script.say_size
        if not self.senders:
            return
        if self.rate:
            time_of = self.began + self.given / self.rate  # the first one that was not due at the last look
            if time_of >= self.began + self.ramp:
                self.late = max(self.late, t - time_of)
            self.given = due = min(int((t - self.began) * self.rate) + 1, self.planned)
            for number, member in enumerate(self.senders):
                end = (due - number + senders - 1) // senders * size
                if member.sent < end and member.fd not in self.watched:
                    self.send(number, member, end)
            return
        end = (self.least() + self.window) // senders * size
        grain = max(1, self.window // senders // self.grain) * size
        for number, member in enumerate(self.senders):
            if end - member.sent >= grain and member.fd not in self.watched:
                self.send(number, member, end)

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
            member = crowd.by_fd[fd]
            if fd not in speaking:
                self.hear_one(member)
                heard = True
                continue
            if events & WRITABLE:
                self.watch(member, False)
            if events & ~WRITABLE:
                self.pass_over(member)
        if heard:
            self.last = now()
            self.forget()

    def pass_over(self, member):
        """What a sender hears is not looked at."""
        try:
            if not member.sock.recv_into(self.crowd.scratch):
                self.end(member, "eof")
        except BlockingIOError:
            pass
        except OSError as exc:
            self.end(member, word(exc))

    def forget(self):
        while self.sharing:
            place = min([member.at for member in self.sharing])
            self.stream.forget(place)
            if self.stream.checked <= KEPT:
                return
            # A server leaves them behind, as it may at a rate: there is no end of what would have to be kept for them.
            for member in [member for member in self.sharing if member.at == place]:
                self.part(member)

    def hear_one(self, member):
        crowd, stream = self.crowd, self.stream
        try:
            size = member.sock.recv_into(crowd.scratch)
        except BlockingIOError:
            return
        except OSError as exc:
            self.leave(member, word(exc))
            return
        if not size:
            self.leave(member, "eof")
            return
        if member.own is not None:
            self.hear_alone(member, crowd.view[:size])
            return
        at = member.at - stream.base
        known = min(size, len(stream.data) - at)
        if known and not stream.data.startswith(crowd.view[:known], at):
            self.part(member)
            self.own_order += 1
            self.hear_alone(member, crowd.view[:size])
            return
        if size > known:
            if len(stream.data) - stream.checked > ENDLESS:
                self.leave(member, WITHOUT_END)
                return
            stream.add(crowd.view[known:size])
        member.at += size
        if self.times:
            before, member.lines = member.lines, stream.lines_at(member.at)
            self.count_times(stream.dues[before - stream.lines_before : member.lines - stream.lines_before])

    def part(self, member):
        """From here on it is checked by itself."""
        member.heard = self.stream.heard_at(member.at)
        member.own, member.unread = self.stream.apart(member.at)
        self.sharing.remove(member)

    def leave(self, member, why):
        """A receiver has ended: it keeps what it has heard."""
        if member.own is None:
            self.part(member)
        member.unread = bytearray()
        self.end(member, why)

    def hear_alone(self, member, part):
        """For a receiver that hears another order than the rest."""
        member.unread += part

        def tell(sender, number, lines, _end, wrong):
            if wrong in (None, "reordered"):
                member.heard += lines
                if self.times:
                    self.count_times(self.due(sender, number, lines))

        del member.unread[: member.own.check(member.unread, 0, tell)]
        if len(member.unread) > ENDLESS:
            self.end(member, WITHOUT_END)

    def count_times(self, dues):
        t, first, add = now(), self.began + self.ramp, self.times.add
        for due in dues:
            if due >= first:  # what has no time is no number, and not counted
                add(t - due)

    # What came of it.

    def heard_by(self, member):
        """How many lines a receiver has heard, each once."""
        return self.stream.heard_at(member.at) if member.own is None else member.heard

    def least(self):
        """Lines that everybody has heard who is there."""
        alone = [member.heard for member in self.receivers if member.own is not None and not member.gone]
        shared = [self.stream.heard_at(min([member.at for member in self.sharing]))] if self.sharing else []
        return min([*alone, *shared], default=0)

    def said(self):
        return sum(member.sent // self.script.say_size for member in self.senders)

    def owed(self):
        """Lines that each receiver has to hear. Of those that others say: all that they will, as far as the server takes them."""
        return self.said() if self.senders else self.planned

    def delivered(self):
        return sum(self.heard_by(member) for member in self.receivers)

    def all_said(self, over):
        """Whether no line is begun, and so many seconds after the time none is owed for which we would still wait."""
        begun = any(member.sent % self.script.say_size for member in self.senders if not member.gone)
        return not begun and (over > STILL_S or not self.unsaid())

    def unsaid(self):
        """Lines whose time has come and that found no room, of senders who are there."""
        size, senders = self.script.say_size, len(self.senders)
        ends = ((self.given - number + senders - 1) // senders for number in range(senders))
        return sum(
            max(0, end - member.sent // size)
            for end, member in zip(ends, self.senders, strict=True)
            if not member.gone
        )

    def all_heard(self, t):
        """Whether all lines have come; or, for a moment, nothing but what is behind those that are missing."""
        owed, left = self.owed(), [member for member in self.receivers if not member.gone]
        if all(self.heard_by(member) >= owed for member in left):
            return True
        return t - self.last > LOST_S and all(self.passed_by(member) >= owed for member in left)

    def passed_by(self, member):
        """Lines that a receiver has heard or that others have overtaken."""
        if member.own is not None:
            return sum(member.own.numbers.next)
        is_behind = member.at < self.stream.base + len(self.stream.data)
        return 0 if is_behind else sum(self.stream.checker.numbers.next)

    def gone(self):
        return dict(collections.Counter(m.gone for m in (*self.senders, *self.receivers) if m.gone))

    def figures(self, before, after, usage):
        owed = self.owed()
        counts, example = collections.Counter(), self.stream.checker.example
        for member in self.receivers:
            counts += member.own.counts if member.own else self.stream.counts_at(member.at)
            example = example or (member.own.example if member.own else "")
        # What a receiver that has ended did not hear is not lost: the server dropped it, and `gone` tells of it.
        left = [member for member in self.receivers if not member.gone]
        lost = {member.number: owed - self.heard_by(member) for member in left}
        if not example and any(lost.values()):
            number = max(lost, key=lost.__getitem__)
            example = f"client {number} heard {owed - lost[number]} of {owed} lines"
        return {
            "seconds": after[0] - before[0],
            "delivered": after[1] - before[1],
            "said": self.said(),
            "owed": owed,
            "unsaid": self.unsaid(),
            "heard": self.delivered(),
            "lost": sum(lost.values()),
            **{what: counts[what] for what in WRONG},
            "example": example,
            "receivers": len(left),
            "gone": self.gone(),
            "own_order": self.own_order,
            "busy": usage,
            "late_us": int(self.late * 1e6),
            "times": self.times.as_data() if self.times else [],
        }


class DatagramFanOut(FanOut):
    """The same, a datagram for a line. What is lost is not sent again, and the window goes on after LOST_S."""

    grain = 2
    newline = ""
    ahead = WINDOW_OF_DATAGRAMS
    first_at_once = 16

    def __init__(self, crowd, members, receivers, senders, message):
        super().__init__(crowd, members, receivers, senders, message)
        self.given_up = 0  # lines that are not waited for any more: the first ones
        self.sharing = []

    def start(self):
        super().start()
        for member in self.receivers:
            member.own = Checker(self.script)

    def say(self, t):
        if not self.rate and t - self.last > LOST_S:
            self.given_up = self.said()
            self.last = t
        super().say(t)

    def least(self):
        """Lines before the next one that somebody waits for."""
        return max(self.given_up, min([m.lines for m in self.receivers if not m.gone], default=0))

    def send(self, number, member, end):
        ring, size = memoryview(self.script.said[number]), self.script.say_size
        while member.sent < end and not member.gone:
            at = member.sent % len(ring)
            if not self.try_to_send(member, ring[at : at + size]):
                self.watch(member, True)
                return
            member.sent += size
        self.watch(member, False)

    def pass_over(self, member):
        try:
            for _ in range(DATAGRAMS):
                member.sock.recv_into(self.crowd.scratch)
        except BlockingIOError:
            pass
        except OSError as exc:
            self.end(member, word(exc))

    def hear_one(self, member):
        script, own, scratch = self.script, member.own, self.crowd.scratch
        following = own.numbers.next
        for _ in range(DATAGRAMS):
            try:
                size = member.sock.recv_into(scratch)
            except BlockingIOError:
                return
            except OSError as exc:
                self.end(member, word(exc))
                return
            sender = script.sender_at(self.crowd.view[:size], 0)
            number = 0 if sender is None else following[sender]
            if sender is not None and size == script.lengths[sender]:
                place = number % script.count * size
                if scratch.startswith(script.rings[sender][place : place + size]):
                    following[sender] = number + 1
                    member.heard += 1
                    member.lines += 1
                    if self.times:
                        self.count_times(self.due(sender, number, 1))
                    continue
            sender, number, wrong = own.take_apart(bytes(scratch[:size]))
            if wrong in (None, "reordered"):
                member.heard += 1
                member.lines = sum(following)
                if self.times:
                    self.count_times(self.due(sender, number, 1))


class Echo:
    """Each member sends messages, and hears them come back. Those of a stream have no borders: bytes are compared with those sent."""

    def __init__(self, crowd, members, message):
        self.crowd = crowd
        self.members = members
        self.datagrams = crowd.kind == "udp"
        least, most = (len("~00000000.00000000~"), 65507) if self.datagrams else (1, PATTERN)
        self.size = whole(message, "size", least, most, 64)
        self.in_flight = whole(message, "in_flight", 1, 65536, 1)
        self.seconds = number_of(message, "seconds", 2.0)
        self.ramp = number_of(message, "ramp", 0.2)
        self.rate = number_of(message, "rate", 0.0)  # messages a second, of all members together
        self.times = Times() if self.rate else None
        self.late = 0.0
        self.given = 0  # messages whose time has come
        self.counts = collections.Counter()
        self.example = ""
        self.last = self.began = now()
        block = b"".join(b"%07x." % number for number in range(PATTERN // 8))
        self.pattern = memoryview(block * (2 + SCRATCH // PATTERN))
        self.index = {member.fd: place for place, member in enumerate(members)}
        self.numbers = Numbers(len(members), 10**8)  # of the datagrams that come back
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
                before, usage = (t, self.heard()), os.times()
            elif after is None and t >= last:
                after, usage = (t, self.heard()), busy(usage, os.times(), t - before[0])
            if after is not None and (self.all_back() or t - self.last > STILL_S):
                break
            until = last if after is None else t + STILL_S
            if self.rate and after is None:
                until = min(until, self.say(t))
            for fd, _ in self.crowd.wait(until):
                member = self.crowd.by_fd[fd]
                hear(member)
                if after is None or (self.rate and t - last < STILL_S):
                    self.top_up(member)
            if t > slice_ends:
                if self.datagrams and t - checked > LOST_S and after is None and not self.rate:
                    checked = t
                    self.give_up()
                if all(member.gone for member in self.members):
                    first, last = min(first, t), min(last, t)
                yield
                slice_ends = now() + SLICE_S
        left = [member for member in self.members if not member.gone]
        said = {member.number: member.sent // self.size for member in left}
        lost = sum(said.values()) - sum(self.heard_by(member) for member in left)
        if lost and not self.example:
            worst = max(left, key=lambda member: said[member.number] - self.heard_by(member))
            self.example = (
                f"client {worst.number} heard {self.heard_by(worst)} of {said[worst.number]} messages"
            )
        return {
            "seconds": after[0] - before[0],
            "delivered": after[1] - before[1],
            "said": sum(member.sent // self.size for member in self.members),
            "unsaid": sum(member.lines - member.sent // self.size for member in left) if self.rate else 0,
            "heard": self.heard(),
            "lost": lost,
            **{what: self.counts[what] for what in WRONG},
            "example": self.example,
            "receivers": len(left),
            "gone": dict(collections.Counter(member.gone for member in self.members if member.gone)),
            "busy": usage,
            "late_us": int(self.late * 1e6),
            "times": self.times.as_data() if self.times else [],
        }

    def heard_by(self, member):
        """Messages that came back whole, each once."""
        return member.heard if self.datagrams else member.at // self.size

    def heard(self):
        return sum(self.heard_by(member) for member in self.members)

    def all_back(self):
        return all(member.at >= member.sent or member.gone for member in self.members)

    def say(self, t):
        """Say what is due; when the next message is."""
        count, due = len(self.members), int((t - self.began) * self.rate)
        time_of = self.began + self.given / self.rate  # the first one that was not due at the last look
        if time_of >= self.began + self.ramp:
            self.late = max(self.late, t - time_of)
        while self.given <= due:
            member = self.members[self.given % count]
            self.given += 1
            member.lines += 1  # that ought to be said
            self.top_up(member)
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
                    self.crowd.end(member, word(exc))
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
            crowd.end(member, word(exc))
            return
        if not size:
            crowd.end(member, "eof")
            return
        at = (member.at + member.number * 97) % PATTERN
        if member.at + size > member.sent or not crowd.scratch.startswith(self.pattern[at : at + size]):
            self.is_damaged(member, size)
            crowd.end(member, "damaged")
            return
        before = member.at // self.size
        member.at += size
        self.came(member, before, member.at // self.size)

    def is_damaged(self, member, size):
        self.counts["damaged"] += 1
        if self.example:
            return
        at = (member.at + member.number * 97) % PATTERN
        wrong = (i for i in range(size) if self.crowd.scratch[i] != self.pattern[at + i])
        place = min(next(wrong, size), max(0, member.sent - member.at))
        came = bytes(self.crowd.scratch[place : min(size, place + 16)])
        owed = bytes(self.pattern[at + place : at + min(place + 16, member.sent - member.at)])
        instead = f"not {owed!r}" if owed else "which it had not said"
        self.example = f"client {member.number} heard {came!r} at byte {member.at + place}, {instead}"

    def came(self, member, number, following):
        """Messages from a number on, up to before another."""
        self.last = t = now()
        if self.times:
            place, count = self.index[member.fd], len(self.members)
            for each in range(number, following):
                due = self.began + (each * count + place) / self.rate
                if due >= self.began + self.ramp:
                    self.times.add(t - due)

    def datagram(self, member, number):
        return (b"~%08x.%08d~" % (member.number, number)).ljust(self.size, b"x")

    def hear_datagrams(self, member):
        who = self.index[member.fd]
        for _ in range(DATAGRAMS):
            try:
                size = member.sock.recv_into(self.crowd.scratch)
            except BlockingIOError:
                return
            except OSError as exc:
                self.crowd.end(member, word(exc))
                return
            data = bytes(self.crowd.view[:size])
            digits = data[10:18]
            # One that it had not said yet would make us remember all those before it as missing.
            is_said = digits.isdigit() and int(digits) < member.sent // self.size
            if not is_said or data != self.datagram(member, int(digits)):
                self.counts["damaged"] += 1
                self.example = (
                    self.example or f"client {member.number} heard {data[:80]!r}, which it had not said"
                )
                continue
            number, wrong = self.numbers.came(who, int(digits))
            if wrong:
                self.counts[wrong] += 1
            if wrong != "doubled":
                member.heard += 1
                self.came(member, number, number + 1)
            member.at = max(member.at, self.numbers.next[who] * self.size)

    def give_up(self):
        """Datagrams that have not come back by now are not waited for."""
        if now() - self.last > LOST_S:
            for member in self.members:
                if member.at < member.sent and not member.gone:
                    member.at = member.sent
                    self.top_up(member)


class Churn:
    """Clients come, say something, hear an answer, and go; as many as can in a time."""

    def __init__(self, kind, family, to, message):
        self.crowd = Crowd(kind, family, to)
        self.message = message
        self.seconds = number_of(message, "seconds", 2.0)
        self.at_once = whole(message, "at_once", 1, 100_000, 16)
        self.greeting = Greeting({"hello": "{number}\n", "until": "{number}", **message})
        self.abort = bool(message.get("abort"))
        self.rate = number_of(message, "rate", 0.0)  # clients a second
        self.here = {}  # descriptor: (member, when it ought to have come)

    def run(self):
        try:
            return (yield from self.all_clients())
        finally:
            for member, _ in self.here.values():
                member.sock.close()
            self.crowd.close()

    def all_clients(self):
        crowd, here, times, failed = self.crowd, self.here, Times(), collections.Counter()
        raise_descriptor_limit()
        began, usage = now(), os.times()
        last, limit = began + self.seconds, began + self.seconds + STILL_S
        delivered = heard = number = 0
        late = 0.0
        while (t := now()) < last or (here and t < limit):
            # A slice ends even where each client is refused at once.
            while (
                t < last
                and len(here) < self.at_once
                and self.is_due(number, t - began)
                and now() < t + SLICE_S
            ):
                due = began + number / self.rate if self.rate else t
                late = max(late, t - due)
                number += 1
                try:
                    member = crowd.begin(number, self.message)
                except OSError as exc:
                    failed[word(exc)] += 1
                    continue
                here[member.fd] = member, due
            until = last if t < last else limit
            if self.rate and t < last and len(here) < self.at_once:
                until = min(until, began + number / self.rate)
            for fd, _ in crowd.wait(until):
                member, due = here[fd]
                try:
                    if not crowd.greeted(member, self.greeting):
                        continue
                    heard += 1
                    delivered += t < last
                    times.add(now() - due)
                    if self.abort:
                        member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError as exc:
                    failed[word(exc)] += 1
                del here[fd]
                member.sock.close()
            yield
        failed["timed out"] += len(here)
        seconds = min(now(), last) - began
        return {
            "seconds": seconds,
            "delivered": delivered,
            "heard": heard,
            "failed": dict(+failed),
            "busy": busy(usage, os.times(), seconds),
            "late_us": int(late * 1e6) if self.rate else 0,
            "times": times.as_data(),
        }

    def is_due(self, number, elapsed):
        return not self.rate or number <= elapsed * self.rate


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
