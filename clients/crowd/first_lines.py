"""The first lines of a fan-out: everybody has joined, and it is known how lines look, when all have heard one line of every sender."""

from time import monotonic as now

from .fields import Unheard
from .lines import ENDLESS, FIRST, HEAD, WITHOUT_END
from .members import gone

AGAIN_S = 0.5  # over UDP, or before a server has taken everybody in: then the first lines are said again


class FirstLines:
    """Who has not heard whom yet, round by round."""

    def __init__(self, crowd, senders, receivers, script, limit, at_once):
        """`limit`: in seconds; `at_once`: so many senders say their first line in a round; None: all."""
        self.crowd = crowd
        self.senders, self.receivers = senders, receivers
        self.script = script
        self.limit, self.deadline = limit, now() + limit
        self.at_once = at_once
        self.attempt = 0
        self.unsaid = {}  # sender: what its kernel has not taken
        self.missing = {
            member.fd: set(range(script.senders)) for member in receivers
        }  # the senders not heard
        for member in (*senders, *receivers):
            member.start()

    def all(self):
        asked = range(self.script.senders)
        while asked:
            asked = yield from self.round(asked)

    def round(self, asked):
        """Say the first lines of these senders, and listen until all have heard them, or nothing comes any more. Returns the senders
        whose first line somebody here has not heard. Raises Unheard."""
        asked = set(sorted(asked)[: self.at_once])
        self.attempt += 1
        for number in asked if self.senders else ():
            line = self.script.wrapped(number, self.script.first(number, self.attempt))
            self.unsaid[number] = self.unsaid.get(number, b"") + line
        again = now() + AGAIN_S
        while now() < min(again, self.deadline) and self.is_awaited(asked):
            self.say(asked)
            # As long as some come, those that do not are on their way: to say them again would but add to the queue.
            if self.hear(min(again, self.deadline)):
                again = now() + AGAIN_S
            yield
        return self.left()

    def is_awaited(self, asked):
        """Whether one of these first lines is still to be said, or to be heard by somebody."""
        is_said = not any(self.unsaid.get(number) for number in asked)
        return not (is_said and all(map(asked.isdisjoint, self.missing.values())))

    def left(self):
        """The senders that somebody has not heard. Raises Unheard when there is no use in going on."""
        is_anyone_there = are_there(self.senders, self.receivers)
        if self.missing and is_anyone_there:
            if now() < self.deadline:
                return set().union(*self.missing.values())
            heard = (self.crowd.by_fd[fd].unread for fd in self.missing)
            instead = next((f"; one got {bytes(text[:60])!r}" for text in heard if text), "")
            raise Unheard(
                f"{len(self.missing)} of {len(self.receivers)} receivers did not hear the first line of every sender within {self.limit:g} s"
                + instead
            )
        if not is_anyone_there or None in self.script.heard:
            why = gone([*self.senders, *self.receivers])
            told = ", ".join(f"{count} {word}" for word, count in why.items())
            raise Unheard(f"clients were gone before all had heard the first line of every sender: {told}")
        return set()

    def say(self, asked):
        for number in asked:
            if (data := self.unsaid.get(number)) and not (member := self.senders[number]).gone:
                self.unsaid[number] = data[self.crowd.send(member, data) :]

    def hear(self, until):
        """Whether somebody has heard a first line."""
        heard = False
        for fd, _ in self.crowd.wait(until):
            member = self.crowd.by_fd[fd]
            size = self.crowd.receive(member)
            if size is not None and fd in self.missing:
                member.unread += self.crowd.view[:size]
                heard |= self.find(member, self.missing[fd])
                self.forget(member)
            if member.gone or not self.missing.get(fd):
                self.missing.pop(fd, None)
        return heard

    def find(self, member, missing):
        """Look in what a member has heard for the first lines of these senders. Whether one was there."""
        script, unread, before = self.script, member.unread, len(missing)
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
        return len(missing) < before

    def forget(self, member):
        """What others say is not kept; of a line that goes on and on nothing is."""
        unread = member.unread
        if len(unread) <= ENDLESS:
            return
        passed = member.at if self.script.told else unread.rfind(b"\n", 0, member.at) + 1
        del unread[:passed]
        member.at -= passed
        if len(unread) > ENDLESS:
            self.crowd.end(member, WITHOUT_END)


def are_there(senders, receivers):
    """Whether somebody speaks, here or elsewhere, and somebody hears."""
    is_said = not senders or not all(member.gone for member in senders)
    return is_said and not all(member.gone for member in receivers)
