"""A fan-out: the first members of a crowd say lines, the others hear every one of them. What they say is a Script; Senders say it,
Receivers check it."""

import math
from time import monotonic as now

from .fields import Refused, bytes_of, number_of, whole
from .first_lines import FirstLines, are_there
from .lines import HEAD, RINGS, WRONG, Script
from .load import LOST_S, STILL_S, Load
from .members import SLICE_S, gone
from .receivers import DatagramReceivers, Receivers
from .senders import DatagramSenders, Senders

AHEAD_S = 2.0  # at a rate, a ring has the lines of so many seconds: a run of lost ones must not go round it


class FanOut(Load):
    """How far the senders may be ahead, and when all is heard that is owed."""

    newline = "\n"
    # Lines, and bytes, that senders are ahead of the slowest receiver: no more than a server has to keep for it.
    ahead = 2000, 1 << 20
    first_at_once = None  # senders that say their first line in one round: all
    speakers, listeners = Senders, Receivers

    def __init__(self, crowd, message):
        super().__init__(crowd, message)
        count = whole(message, "senders", 1, 65535, 1)
        own = 0 if message.get("elsewhere") else count
        members = crowd.there(own + 1)
        self.messages = whole(message, "messages", 0, 1 << 40, 0)  # lines, at least, however long it takes
        rate = self.schedule.rate if self.schedule else 0.0
        # At a rate it is known beforehand how many lines there will be.
        self.planned = max(self.messages, math.ceil((self.ramp + self.seconds) * rate))
        size = whole(message, "size", HEAD, 60_000, 63)
        window = self.window_of(message, count, size)
        ahead = int(min(rate * AHEAD_S / 2, RINGS // 8 // size) / count) if rate else window // count
        self.script = Script(count, size, *self.around(message), ahead)
        self.senders = self.speakers(crowd, members[:own], self.script, window)
        self.receivers = self.listeners(crowd, members[own:], self.script, self.schedule)
        limit = number_of(message, "limit", 10.0)
        self.first_lines = FirstLines(
            crowd, members[:own], members[own:], self.script, limit, self.first_at_once
        )

    def window_of(self, message, count, size):
        """Lines, of all senders together, that they may be ahead; one each, at least."""
        lines, kept = self.ahead
        return max(count, whole(message, "window", 1, 1 << 30, min(lines, kept // size)))

    def around(self, message):
        """What stands around a line when it is said, and when it is heard; None: that is learned."""
        say = bytes_of(message, "say_before", ""), bytes_of(message, "say_after", self.newline)
        if "hear_before" in message or not self.crowd.is_stream:
            return say, (bytes_of(message, "hear_before", ""), bytes_of(message, "hear_after", ""))
        return say, None

    def run(self):
        yield from self.first_lines.all()
        return (yield from self.course(now()))

    def begin(self):
        self.script.begin()
        self.senders.begin()
        self.receivers.begin()

    def turn(self, t):
        self.say(t)
        self.hear(self.until(t))

    def rest(self, t):
        """What was due by the end and found no room may be said for a while, then but the rest of lines that are begun."""
        if self.schedule and t - self.ends < STILL_S:
            self.say(self.ends)
        else:
            self.senders.finish_lines()
        self.hear(t + SLICE_S)

    def say(self, t):
        if not self.schedule:
            self.senders.say_ahead(self.receivers.heard_by_all())
        elif self.senders.members:
            self.schedule.give(t, self.planned)
            self.senders.say_due(self.schedule.given)

    def until(self, t):
        """Until when we may sleep if nothing comes."""
        if self.schedule and self.senders.members:
            return min(t + SLICE_S, self.schedule.next())
        return t + SLICE_S

    def hear(self, until):
        senders, receivers, by_fd = self.senders, self.receivers, self.crowd.by_fd
        speaking, hear, heard = senders.descriptors, receivers.hear, False
        for fd, events in self.crowd.wait(until):
            if fd in speaking:
                senders.ready(by_fd[fd], events)
            else:
                hear(by_fd[fd])
                heard = True
        if heard:
            self.last = now()
            receivers.forget()

    # When it ends.

    def is_anyone_there(self):
        return are_there(self.senders.members, self.receivers.members)

    def is_enough(self, t):
        return self.senders.said() >= self.messages or t - self.last > STILL_S

    def is_over(self, t):
        return (self.all_said(t) and self.all_heard(t)) or t - self.last > STILL_S

    def all_said(self, t):
        """Whether no line is begun, and none is owed for which we would still wait."""
        waits = t - self.ends <= STILL_S
        return self.senders.are_between_lines() and not (waits and self.unsaid())

    def all_heard(self, t):
        """Whether all lines have come; or, for a moment, nothing but what is behind those that are missing."""
        owed = self.owed()
        return self.receivers.have_heard(owed) or (t - self.last > LOST_S and self.receivers.are_past(owed))

    # What came of it.

    def owed(self):
        """Lines that each receiver has to hear. Of those that others say: all that they will, as far as the server takes them."""
        return self.senders.said() if self.senders.members else self.planned

    def unsaid(self):
        """Lines whose time has come and that found no room, of senders who are there."""
        return self.senders.unsaid(self.schedule.given) if self.schedule else 0

    def delivered(self):
        return self.receivers.heard()

    def figures(self):
        self.senders.end()
        owed = self.owed()
        counts, wrong = self.receivers.wrongs()
        lost, missing = self.receivers.lost(owed)
        return {
            "said": self.senders.said(),
            "owed": owed,
            "unsaid": self.unsaid(),
            "heard": self.delivered(),
            "lost": lost,
            **{what: counts[what] for what in WRONG},
            "example": wrong or missing,
            "receivers": len(self.receivers.there()),
            "gone": gone([*self.senders.members, *self.receivers.members]),
            "own_order": self.receivers.own_order,
        }


class DatagramFanOut(FanOut):
    """The same, a datagram for a line. What is lost is not sent again, and the window goes on without it."""

    newline = ""
    # No more than fits into the server's buffer, where nobody has raised net.core.rmem_max.
    ahead = 200, 1 << 17
    first_at_once = 16
    speakers, listeners = DatagramSenders, DatagramReceivers

    def say(self, t):
        if not self.schedule and t - self.last > LOST_S:
            self.receivers.given_up = self.senders.said()
            self.last = t
        super().say(t)


def fan_out(crowd, message):
    return (FanOut if crowd.is_stream else DatagramFanOut)(crowd, message)


def meet(crowd, message):
    """One round of first lines of a load that several crowds make, of the senders in `asked` (in the first round: all); answers whom
    somebody here has not heard even then."""
    asked = message.get("asked")
    if asked is None:
        load = fan_out(crowd, message)
        if not load.schedule:
            raise Refused(
                "what several crowds make has a rate: none knows how far those of others have heard"
            )
        crowd.met, asked = load, range(load.script.senders)
    elif crowd.met is None:
        raise Refused("the first round says what the load is")
    senders = crowd.met.script.senders
    if not isinstance(asked, range | list) or any(
        type(each) is not int or not 0 <= each < senders for each in asked
    ):
        raise Refused(f'"asked" is a list of numbers of senders, not {asked!r:.80}')
    return {"missing": sorted((yield from crowd.met.first_lines.round(asked)))}


def go_on(crowd, message):
    """The load that was met for, from a moment on."""
    if (load := crowd.met) is None:
        raise Refused('"at" is for a load whose crowds have met')
    crowd.met = None
    return load.course(number_of(message, "at", 0.0))
