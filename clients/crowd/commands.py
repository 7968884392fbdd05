"""What an agent's `crowd` commands do: each is a job, done in slices."""

import collections

from .churn import Churn
from .echo import echo
from .fan_out import fan_out, go_on, meet
from .fields import Refused, peer_of
from .members import Crowd, Opening, word


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
        does = getattr(self, "do_" + what.replace("-", "_"))
        return (yield from does(name, message))

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

    def called(self, name):
        if name not in self.crowds:
            raise Refused(f"no crowd is called {name!r:.80}; open it first")
        return self.crowds[name]

    # The commands. Each gives a generator.

    def do_open(self, name, message):
        crowd = Crowd(*peer_of(message))
        if name in self.crowds:
            self.crowds.pop(name).close()
        self.crowds[name] = crowd
        return Opening(crowd, message).run()

    def do_more(self, name, message):
        return Opening(self.called(name), message).run()

    def do_meet(self, name, message):
        return meet(self.called(name), message)

    def do_fan_out(self, name, message):
        crowd = self.called(name)
        return go_on(crowd, message) if "at" in message else fan_out(crowd, message).run()

    def do_echo(self, name, message):
        return echo(self.called(name), message).run()

    def do_churn(self, _name, message):
        return Churn(*peer_of(message), message).run()

    def do_say(self, name, message):
        return self.called(name).say(message)

    def do_look(self, name, _message):
        return self.called(name).look()

    def do_close(self, name, message):
        crowd = self.called(name)
        del self.crowds[name]
        return crowd.leave(message)
