"""Those who hear the lines of a fan-out, every one of them, and check them."""

import collections
from time import monotonic as now

from .lines import ENDLESS, HEARD, WITHOUT_END, Checker
from .members import DATAGRAMS
from .stream import Stream

KEPT = 16 << 20  # bytes of lines, for the slowest of those who hear the same


class Receivers:
    """As long as they hear the same, one of them is checked line by line, and the others against it. One that hears something else is
    set apart: checked by itself from there on."""

    share = True

    def __init__(self, crowd, members, script, schedule):
        """`schedule`: of the lines, if they have one."""
        self.crowd = crowd
        self.members = members
        self.script = script
        self.schedule = schedule
        self.own_order = 0  # that heard another order than the rest

    def begin(self):
        """Nobody has heard anything that counts."""
        self.stream = Stream(self.script, self.dues if self.schedule else None)
        self.sharing = []  # members that hear the same
        for member in self.members:
            member.start()
            if self.share and not member.gone:
                self.sharing.append(member)
            else:
                member.own = Checker(self.script)

    def numbers(self, sender, number, lines):
        """Those of a run of lines among all lines of the load, which are the senders' in turn."""
        senders = self.script.senders
        return range(number * senders + sender, (number + lines) * senders, senders)

    def dues(self, sender, number, lines):
        return self.schedule.times_of(self.numbers(sender, number, lines))

    # Hearing.

    def hear(self, member):
        """What has come for it."""
        crowd, stream = self.crowd, self.stream
        size = crowd.receive(member)
        if size is None:
            if member.gone:
                self.leave(member)
            return
        if member.own is not None:
            self.hear_alone(member, crowd.view[:size])
            return
        at = member.at - stream.base
        known = len(stream.data) - at  # bytes that somebody else has heard
        if known > size:
            known = size
        if known and not stream.data.startswith(crowd.view[:known], at):
            self.set_apart(member)
            self.own_order += 1
            self.hear_alone(member, crowd.view[:size])
            return
        if size > known:
            if len(stream.data) - stream.checked > ENDLESS:
                crowd.end(member, WITHOUT_END)
                self.leave(member)
                return
            stream.add(crowd.view[known:size])
        member.at += size
        if self.schedule:
            dues = stream.dues_between(member.lines, member.at)
            member.lines += len(dues)
            self.schedule.came_since(dues, now())

    def hear_alone(self, member, part):
        member.unread += part

        def tell(sender, number, lines, _end, wrong):
            if wrong in HEARD:
                member.heard += lines
                if self.schedule:
                    self.schedule.came(self.numbers(sender, number, lines), now())

        del member.unread[: member.own.check(member.unread, 0, tell)]
        if len(member.unread) > ENDLESS:
            self.crowd.end(member, WITHOUT_END)

    def set_apart(self, member):
        member.heard = self.stream.heard_at(member.at)
        member.own, member.unread = self.stream.apart(member.at)
        self.sharing.remove(member)

    def leave(self, member):
        """It has ended, and keeps what it has heard whole."""
        if member.own is None:
            self.set_apart(member)
        member.unread = bytearray()

    def forget(self):
        """Of what they share, everything that all have heard."""
        while self.sharing:
            place = min([member.at for member in self.sharing])
            self.stream.forget(place)
            if self.stream.checked <= KEPT:
                return
            # A server leaves them behind, as it may at a rate: there is no end of what would have to be kept for them.
            for member in [member for member in self.sharing if member.at == place]:
                self.set_apart(member)

    # What came of it.

    def heard_by(self, member):
        """How many lines it has heard, each once."""
        return self.stream.heard_at(member.at) if member.own is None else member.heard

    def heard(self):
        return sum(self.heard_by(member) for member in self.members)

    def heard_by_all(self):
        """Lines that everybody has heard who is there."""
        alone = [member.heard for member in self.members if member.own is not None and not member.gone]
        shared = [self.stream.heard_at(min([member.at for member in self.sharing]))] if self.sharing else []
        return min([*alone, *shared], default=0)

    def there(self):
        return [member for member in self.members if not member.gone]

    def have_heard(self, count):
        return all(self.heard_by(member) >= count for member in self.there())

    def are_past(self, count):
        """Whether nothing is missing but what others have overtaken."""
        return all(self.passed_by(member) >= count for member in self.there())

    def passed_by(self, member):
        """Lines that it has heard or that others have overtaken."""
        if member.own is not None:
            return sum(member.own.numbers.next)
        is_behind = member.at < self.stream.base + len(self.stream.data)
        return 0 if is_behind else sum(self.stream.checker.numbers.next)

    def wrongs(self):
        """How many lines were wrong, of each kind; and the first of them, in words."""
        counts, example = collections.Counter(), self.stream.checker.example
        for member in self.members:
            counts += member.own.counts if member.own else self.stream.counts_at(member.at)
            example = example or (member.own.example if member.own else "")
        return counts, example

    def lost(self, owed):
        """How many of so many lines did not come, and an example.

        What a receiver that has ended did not hear is not lost: the server dropped it, and `gone` tells of it.
        """
        lost = {member.number: owed - self.heard_by(member) for member in self.there()}
        if not any(lost.values()):
            return 0, ""
        number = max(lost, key=lost.__getitem__)
        return sum(lost.values()), f"client {number} heard {owed - lost[number]} of {owed} lines"


class DatagramReceivers(Receivers):
    """Each is checked by itself: what is lost to one is not lost to another."""

    share = False

    def begin(self):
        super().begin()
        self.given_up = 0  # lines that are not waited for any more: the first ones

    def heard_by_all(self):
        """Lines before the next one that somebody waits for."""
        return max(self.given_up, min([member.lines for member in self.there()], default=0))

    def hear(self, member):
        for _ in range(DATAGRAMS):
            size = self.crowd.receive(member)
            if size is None:
                return
            self.hear_one(member, size)

    def hear_one(self, member, size):
        script, own, scratch = self.script, member.own, self.crowd.scratch
        following = own.numbers.next
        sender = script.sender_at(self.crowd.view[:size], 0)
        is_next = False
        if sender is not None:
            number, length = following[sender], script.lengths[sender]
            place = number % script.count * length
            is_next = size == length and scratch.startswith(script.rings[sender][place : place + length])
        if is_next:
            following[sender] = number + 1
            member.lines += 1
        else:
            sender, number, wrong = own.take_apart(bytes(scratch[:size]))
            if wrong not in HEARD:
                return
            member.lines = sum(following)
        member.heard += 1
        if self.schedule:
            self.schedule.came(self.numbers(sender, number, 1), now())
