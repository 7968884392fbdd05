"""An echo: each member says messages, and hears them come back."""

import collections
from time import monotonic as now

from .fields import whole
from .lines import WRONG, Numbers
from .load import LOST_S, STILL_S, Load
from .members import DATAGRAMS, SCRATCH, SLICE_S, gone

PATTERN = 1 << 16  # bytes of the ring that a server of streams gets


class Echo(Load):
    """How far each member may be ahead of what has come back to it, and what is owed to it."""

    least, most = 1, PATTERN  # bytes of a message

    def __init__(self, crowd, message):
        super().__init__(crowd, message)
        self.members = crowd.there()
        self.size = whole(message, "size", self.least, self.most, 64)
        self.in_flight = whole(message, "in_flight", 1, 65536, 1)
        self.place = {member.fd: place for place, member in enumerate(self.members)}
        self.counts = collections.Counter()
        self.example = ""  # of the first message that was wrong

    def run(self):
        return self.course(now())

    def begin(self):
        for member in self.members:
            member.start()
            if not self.schedule:
                self.top_up(member)

    def turn(self, t):
        until = t + SLICE_S
        if self.schedule:
            self.give(t)
            until = min(until, self.schedule.next())
        self.hear_all(until, self.top_up)

    def rest(self, t):
        """What was due by the end and found no room may be said for a while."""
        is_said = self.schedule and t - self.ends < STILL_S
        self.hear_all(t + SLICE_S, self.top_up if is_said else None)

    def give(self, t):
        """Messages are the members' in turn."""
        for number in self.schedule.give(t):
            member = self.members[number % len(self.members)]
            member.lines += 1  # that ought to be said
            self.top_up(member)

    def hear_all(self, until, then):
        by_fd, hear = self.crowd.by_fd, self.hear
        for fd, _ in self.crowd.wait(until):
            member = by_fd[fd]
            hear(member)
            if then:
                then(member)

    def top_up(self, member):
        """Say what may be said now; where a kernel has no room, the rest goes when something has come back."""
        size = self.size
        end = member.lines * size if self.schedule else member.at - member.at % size + self.in_flight * size
        while member.sent < end and not member.gone:
            part = self.part(member, end)
            sent = self.crowd.send(member, part)
            member.sent += sent
            if sent < len(part):
                return

    def came(self, member, number, end):
        """Messages that had their time, from this one on, up to before that one."""
        place, count = self.place[member.fd], len(self.members)
        self.schedule.came(range(number * count + place, end * count, count), self.last)

    # When it ends.

    def is_anyone_there(self):
        return not all(member.gone for member in self.members)

    def is_over(self, t):
        is_all_back = all(member.at >= member.sent or member.gone for member in self.members)
        return is_all_back or t - self.last > STILL_S

    # What came of it.

    def delivered(self):
        return sum(self.heard_by(member) for member in self.members)

    def said_by(self, member):
        return member.sent // self.size

    def figures(self):
        here = [member for member in self.members if not member.gone]
        lost = sum(self.said_by(member) - self.heard_by(member) for member in here)
        return {
            "said": sum(self.said_by(member) for member in self.members),
            "unsaid": sum(member.lines - self.said_by(member) for member in here) if self.schedule else 0,
            "heard": self.delivered(),
            "lost": lost,
            **{what: self.counts[what] for what in WRONG},
            "example": self.example or (self.example_of_lost(here) if lost else ""),
            "receivers": len(here),
            "gone": gone(self.members),
        }

    def example_of_lost(self, members):
        worst = max(members, key=lambda member: self.said_by(member) - self.heard_by(member))
        return f"client {worst.number} heard {self.heard_by(worst)} of {self.said_by(worst)} messages"


class StreamEcho(Echo):
    """Messages of a stream have no borders: bytes are compared with those said, which are of one pattern, begun elsewhere by each."""

    def __init__(self, crowd, message):
        super().__init__(crowd, message)
        block = b"".join(b"%07x." % number for number in range(PATTERN // 8))
        self.pattern = memoryview(block * (2 + SCRATCH // PATTERN))

    def part(self, member, end):
        """What it says next, up to so many bytes since the beginning."""
        at = (member.sent + member.number * 97) % PATTERN
        return self.pattern[at : at + min(end - member.sent, SCRATCH)]

    def hear(self, member):
        crowd, before = self.crowd, member.at
        size = crowd.receive(member)
        if size is None:
            return
        at = (before + member.number * 97) % PATTERN
        if before + size > member.sent or not crowd.scratch.startswith(self.pattern[at : at + size]):
            self.is_damaged(member, size)
            crowd.end(member, "damaged")
            return
        member.at = before + size
        self.last = now()
        if self.schedule:
            self.came(member, before // self.size, member.at // self.size)

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

    def heard_by(self, member):
        """Messages that came back whole."""
        return member.at // self.size


class DatagramEcho(Echo):
    """Datagrams bear the number of who says them and their own. What is lost is not waited for."""

    least, most = len("~00000000.00000000~"), 65507

    def __init__(self, crowd, message):
        super().__init__(crowd, message)
        self.numbers = Numbers(len(self.members), 10**8)  # of those that come back
        self.looked = now()  # for what is lost

    def turn(self, t):
        if not self.schedule and t - max(self.last, self.looked) > LOST_S:
            self.looked = t
            self.give_up()
        super().turn(t)

    def give_up(self):
        """What has not come back by now is not waited for."""
        for member in self.members:
            if member.at < member.sent and not member.gone:
                member.at = member.sent
                self.top_up(member)

    def datagram(self, member, number):
        return (b"~%08x.%08d~" % (member.number, number)).ljust(self.size, b"x")

    def part(self, member, _end):
        return self.datagram(member, member.sent // self.size)

    def hear(self, member):
        for _ in range(DATAGRAMS):
            size = self.crowd.receive(member)
            if size is None:
                return
            self.hear_one(member, bytes(self.crowd.view[:size]))

    def hear_one(self, member, data):
        digits = data[10:18]
        number = int(digits) if digits.isdigit() else -1
        # One that it had not said yet would make us remember all those before it as missing.
        if not 0 <= number < self.said_by(member) or data != self.datagram(member, number):
            self.counts["damaged"] += 1
            said = f"client {member.number} heard {data[:80]!r}, which it had not said"
            self.example = self.example or said
            return
        place = self.place[member.fd]
        number, wrong = self.numbers.came(place, number)
        if wrong:
            self.counts[wrong] += 1
        if wrong != "doubled":
            member.heard += 1
            self.last = now()
            if self.schedule:
                self.came(member, number, number + 1)
        member.at = max(member.at, self.numbers.next[place] * self.size)

    def heard_by(self, member):
        """Messages that came back, each once."""
        return member.heard


def echo(crowd, message):
    return (StreamEcho if crowd.is_stream else DatagramEcho)(crowd, message)
