"""Those who say the lines of a fan-out."""

from .members import DATAGRAMS, READABLE, WRITABLE

SENT_AT_ONCE = 1 << 16  # bytes of one send()


class Senders:
    """Members with a ring of lines each: how far each of them has come, and which of them wait until their kernel has room.

    There may be none: then others say the lines, elsewhere.
    """

    grain = 8  # a sender waits until it may say so much of its window (a part of it): fewer, longer sends

    def __init__(self, crowd, members, script, window):
        """`window`: lines, of all senders together, that they may be ahead of what everybody has heard."""
        self.crowd = crowd
        self.members = members
        self.script = script
        self.window = window
        self.descriptors = {member.fd for member in members}
        self.waiting = set()  # descriptors of those whose kernel has no room

    def begin(self):
        for member in self.members:
            member.start()

    def say_ahead(self, heard):
        """Up to a window ahead of so many lines."""
        size, of_each = self.script.say_size, self.window // self.script.senders
        end = (heard + self.window) // self.script.senders * size
        grain = max(1, of_each // self.grain) * size
        for number, member in enumerate(self.members):
            if end - member.sent >= grain and member.fd not in self.waiting:
                self.send(number, member, end)

    def say_due(self, given):
        """What of the first so many lines is not said yet. They are the senders' in turn."""
        size = self.script.say_size
        for number, member in enumerate(self.members):
            end = self.given_to(number, given) * size
            if member.sent < end and member.fd not in self.waiting:
                self.send(number, member, end)

    def given_to(self, number, given):
        """How many of the first so many lines are those of a sender."""
        return (given - number + self.script.senders - 1) // self.script.senders

    def finish_lines(self):
        """Say the rest of the lines that are begun."""
        for number, member in enumerate(self.members):
            if rest := -member.sent % self.script.say_size:
                self.send(number, member, member.sent + rest)

    def send(self, number, member, end):
        """Say what the kernel takes, up to so many bytes since the beginning."""
        ring = memoryview(self.script.said[number])
        while member.sent < end and not member.gone:
            at = member.sent % len(ring)
            part = ring[at : at + min(SENT_AT_ONCE, end - member.sent)]
            sent = self.crowd.send(member, part)
            member.sent += sent
            if sent < len(part):
                self.wait_for_room(member, True)
                return
        self.wait_for_room(member, False)

    def wait_for_room(self, member, waits):
        if waits != (member.fd in self.waiting) and not member.gone:
            (self.waiting.add if waits else self.waiting.discard)(member.fd)
            self.crowd.epoll.modify(member.fd, READABLE | (WRITABLE if waits else 0))

    def ready(self, member, events):
        """Its kernel has room, or somebody has said something, which it does not look at."""
        if events & WRITABLE:
            self.wait_for_room(member, False)
        if events & ~WRITABLE:
            self.pass_over(member)

    def pass_over(self, member):
        self.crowd.receive(member)

    def end(self):
        """In the next load they may be those who hear."""
        for member in self.members:
            self.wait_for_room(member, False)

    # What came of it.

    def said(self):
        """Whole lines."""
        return sum(member.sent // self.script.say_size for member in self.members)

    def unsaid(self, given):
        """Lines, of the first so many, that found no room, of senders who are there."""
        size = self.script.say_size
        return sum(
            max(0, self.given_to(number, given) - member.sent // size)
            for number, member in enumerate(self.members)
            if not member.gone
        )

    def are_between_lines(self):
        """Whether no line is begun."""
        return not any(member.sent % self.script.say_size for member in self.members if not member.gone)


class DatagramSenders(Senders):
    """The same, a datagram for a line."""

    grain = 2

    def send(self, number, member, end):
        ring, size = memoryview(self.script.said[number]), self.script.say_size
        while member.sent < end and not member.gone:
            at = member.sent % len(ring)
            if not self.crowd.send(member, ring[at : at + size]):
                self.wait_for_room(member, True)
                return
            member.sent += size
        self.wait_for_room(member, False)

    def pass_over(self, member):
        for _ in range(DATAGRAMS):
            if self.crowd.receive(member) is None:
                return
