"""The lines of a fan-out: made beforehand in rings (Script), and checked where they are heard (Checker). Knows no socket and no clock."""

import collections
import re

from .fields import Refused

RING = 4 << 20  # bytes of all rings together, about: they stay in the processor's cache
RINGS = 256 << 20  # and at most
LEAST, MOST = 64, 4096  # lines in the ring of a sender, where neither a window nor a rate needs more
HEAD, MARKED = len("~0000.00000000~"), len("~0000.")  # of a line; and whose it is
MARK = re.compile(rb"~([0-9a-f]{4})\.([0-9]{8})~")
FIRST = re.compile(rb"~([0-9a-f]{4})\.x([0-9]{7})~")
WORD = re.compile(rb"[0-9A-Za-z]+")
ENDLESS = 1 << 20  # bytes without the end of a line: no chat has to carry so long a one
WITHOUT_END = "line without end"  # why a member is gone whom a server talks to on and on
WRONG = ("doubled", "reordered", "damaged", "foreign")  # what a Checker counts
HEARD = (None, "reordered")  # what may be wrong with a line that is heard all the same


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
        self.by_mark = {b"~%04x." % sender: sender for sender in range(self.senders)}
        self.likeness = [tuple(WORD.sub(b"0", part) for part in around) for around in self.heard]

    def sender_at(self, data, at):
        """Whose line begins here, as far as it is decorated as the first one was; None: nobody's."""
        for head in self.heads:
            mark = bytes(data[at + head : at + head + HEAD])
            sender = self.by_mark.get(mark[:MARKED])
            if sender is not None and self.before[sender] == head and mark[HEAD - 1 :] == b"~":
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
