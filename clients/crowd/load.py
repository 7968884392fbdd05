"""A load in its course, when each message of it is due, and how late messages come."""

import collections
import math
import time
from time import monotonic as now

from .fields import number_of
from .members import SLICE_S

STILL_S = 2.0  # nothing has come for so long: what is missing is lost
LOST_S = 0.2  # the same where later ones have come; and a sender of datagrams goes on without it
EXACT_US = 10_000  # latencies up to here are counted to the microsecond, longer ones to a hundredth


class Load:
    """What an echo and a fan-out have in common:

        begin() ─▶ turn(), turn() … ─▶ turn(), turn() … ─▶ rest(), rest() … ─▶ figures()
                   the ramp            what counts         what is under way comes

    A turn says what is to be said, and hears what has come; a rest ends what is begun, and hears. Both set `last` when something came.
    """

    def __init__(self, crowd, message):
        self.crowd = crowd
        self.seconds = number_of(message, "seconds", 2.0)
        self.ramp = number_of(message, "ramp", 0.2)
        rate = number_of(message, "rate", 0.0)  # messages a second, of all members together
        self.schedule = Schedule(rate, self.ramp) if rate else None
        self.last = now()  # when something came

    def course(self, began):
        """All of it, from a moment on; what came of it."""
        self.begin()
        while (left := began - now()) > 0:
            time.sleep(min(left, SLICE_S))
            yield
        self.last = began
        self.first, self.ends = began + self.ramp, began + self.ramp + self.seconds
        self.slice_ends = began + SLICE_S
        if self.schedule:
            self.schedule.begin(began)
        first = yield from self.turns(self.turn, lambda t: t >= self.first)
        delivered, used = self.delivered(), time.process_time()
        self.ends = yield from self.turns(self.turn, lambda t: t >= self.ends and self.is_enough(t))
        seconds, delivered = self.ends - first, self.delivered() - delivered
        used = time.process_time() - used
        yield from self.turns(self.rest, self.is_over)
        return {
            "seconds": seconds,
            "delivered": delivered,
            "busy": used / seconds,
            "late_us": int(self.schedule.late * 1e6) if self.schedule else 0,
            "times": self.schedule.times.as_data() if self.schedule else [],
            **self.figures(),
        }

    def turns(self, turn, is_over):
        """One after another, in slices, until it is over; the time of that."""
        while not is_over(t := now()):
            turn(t)
            if t > self.slice_ends:
                if not self.is_anyone_there():
                    self.first, self.ends = min(self.first, t), min(self.ends, t)
                yield
                self.slice_ends = now() + SLICE_S
        return t

    def is_enough(self, _t):
        """Whether what counts may end, once its time is over."""
        return True


class Schedule:
    """When each message is due, at a rate, whatever came of those before it."""

    def __init__(self, rate, ramp=0.0):
        self.rate = rate
        self.ramp = ramp  # what is due in these seconds has no latency that counts
        self.given = 0  # messages whose time has come
        self.late = 0.0  # seconds after its time that the first one of them was looked at, at most
        self.times = Times()

    def begin(self, t):
        self.began, self.first = t, t + self.ramp

    def time_of(self, number):
        return self.began + number / self.rate

    def times_of(self, numbers):
        began, rate = self.began, self.rate
        return [began + number / rate for number in numbers]

    def next(self):
        """When the first message is due that was not at the last look."""
        return self.time_of(self.given)

    def give(self, t, most=math.inf):
        """The numbers of the messages that have become due; `most`: how many there are in all."""
        self.is_looked_at(self.given, t)
        before, self.given = self.given, min(int((t - self.began) * self.rate) + 1, most)
        return range(before, self.given)

    def is_due(self, number, t):
        return number <= (t - self.began) * self.rate

    def is_looked_at(self, number, t):
        """At this moment for the first time since it is due, if it is."""
        if (due := self.time_of(number)) >= self.first:
            self.late = max(self.late, t - due)

    def came(self, numbers, t):
        """Messages have come at this moment."""
        began, rate, first = self.began, self.rate, self.first
        for number in numbers:
            if (due := began + number / rate) >= first:
                self.times.add(t - due)

    def came_since(self, dues, t):
        """The same, where it is known when they were due. What has no time is no number, and not counted."""
        first, add = self.first, self.times.add
        for due in dues:
            if due >= first:
                add(t - due)


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
