"""What all receivers of a fan-out hear, as far as it is the same for all."""

import array
import bisect
import collections
import math

from .lines import HEARD, WRONG, Checker


class Stream:
    """Checked once, kept until the slowest one has heard it. A place in it is counted in bytes from the beginning of the load."""

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
        is_heard = wrong in HEARD
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

    def dues_between(self, lines, place):
        """When those lines ought to have been said that end behind the first so many, and up to this place."""
        return self.dues[lines - self.lines_before : bisect.bisect_right(self.ends, place)]

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
