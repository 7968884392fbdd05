"""A churn: clients come, say something, hear an answer, and go; as many as can in a time, or at a rate."""

import collections
import socket
import time
from time import monotonic as now

from .fields import number_of, whole
from .load import STILL_S, Schedule, Times
from .members import RESET, SLICE_S, Crowd, Greeting, raise_descriptor_limit, word


class Churn:
    """A crowd of its own, of those who are here at the moment."""

    def __init__(self, kind, family, to, message):
        self.crowd = Crowd(kind, family, to)
        self.seconds = number_of(message, "seconds", 2.0)
        self.at_once = whole(message, "at_once", 1, 100_000, 16)
        self.greeting = Greeting({"hello": "{number}\n", "until": "{number}", **message})
        self.buffer = self.crowd.buffer_of(message)
        self.abort = bool(message.get("abort"))
        rate = number_of(message, "rate", 0.0)  # clients a second
        self.schedule = Schedule(rate) if rate else None
        self.times = Times()
        self.failed = collections.Counter()
        self.here = {}  # descriptor: (member, when it ought to have come)
        self.number = 0  # of the last who came
        self.heard = self.delivered = 0  # clients who heard their answer; of them those in time

    def run(self):
        try:
            return (yield from self.course(now()))
        finally:
            for member, _ in self.here.values():
                member.sock.close()
            self.crowd.close()

    def course(self, began):
        raise_descriptor_limit()
        used = time.process_time()
        ends = began + self.seconds
        if self.schedule:
            self.schedule.begin(began)
        while (t := now()) < ends:
            self.come(t)
            self.delivered += self.hear(self.until(ends))
            yield
        while self.here and now() < ends + STILL_S:
            self.hear(ends + STILL_S)
            yield
        self.failed["timed out"] += len(self.here)
        return self.figures(min(now(), ends) - began, time.process_time() - used)

    def come(self, t):
        """As many as may be here; a slice ends even where each of them is refused at once."""
        while len(self.here) < self.at_once and self.is_due(t) and now() < t + SLICE_S:
            due = self.schedule.time_of(self.number) if self.schedule else t
            self.number += 1
            try:
                member = self.crowd.connect(self.number, self.buffer)
            except OSError as exc:
                self.failed[word(exc)] += 1
            else:
                self.here[member.fd] = member, due

    def is_due(self, t):
        if not self.schedule:
            return True
        if is_due := self.schedule.is_due(self.number, t):
            self.schedule.is_looked_at(self.number, t)
        return is_due

    def until(self, ends):
        """Until when we may sleep if nobody is answered."""
        if self.schedule and len(self.here) < self.at_once:
            return min(ends, self.schedule.time_of(self.number))
        return ends

    def hear(self, until):
        """Those who have heard their answer, or whose connection has ended, go. How many have heard it."""
        heard = 0
        for fd, _ in self.crowd.wait(until):
            member, due = self.here[fd]
            try:
                if not self.crowd.greeted(member, self.greeting):
                    continue
                heard += 1
                self.times.add(now() - due)
                if self.abort:
                    member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError as exc:
                self.failed[word(exc)] += 1
            del self.here[fd]
            member.sock.close()
        self.heard += heard
        return heard

    def figures(self, seconds, used):
        return {
            "seconds": seconds,
            "delivered": self.delivered,
            "heard": self.heard,
            "failed": dict(+self.failed),
            "busy": used / seconds if seconds else 0.0,
            "late_us": int(self.schedule.late * 1e6) if self.schedule else 0,
            "times": self.times.as_data(),
        }
