"""The clock of another machine, told in the time of ours.

CLOCK_MONOTONIC counts from a machine's own start, so the same number is another moment on each. What two clocks are apart is known by
asking: whoever answers `said` to a question of ours that left at `asked` and was answered at `came` said it at some moment between
them, so its clock is ahead of ours by no less than said - came and by no more than said - asked (F. Cristian, "Probabilistic clock
synchronization", 1989). Each further round trip leaves less between these two bounds, and time that passes widens them by DRIFT. So the
error is a bound, not an estimate, however unlike the two ways are; it is half a round trip, of the quickest there was.
"""

from __future__ import annotations

import json
import time

DRIFT = 1e-4
"""What two clocks go apart in a second, at most, in seconds: two crystals of ±50 ppm. A clock that adjtimex(2) slews may go five times
as fast for a while; then the bounds contradict one another, and what was known before is given up (`steps`)."""


class Clock:
    """What is known of another machine's clock. All times in nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.rounds = 0
        self.steps = 0
        """How often it was found where it could not be."""
        self.worst = 0
        """The greatest error there has been, just before a round trip, since somebody set this to 0."""
        self._least = self._most = 0
        """Between these it is ahead of ours,"""
        self._at = 0
        """at this moment of ours."""

    def heard(self, asked: int, said: int, came: int) -> None:
        """One round trip: when we asked, what its clock said then, when that came."""
        meanwhile = _drift(came - asked)
        least, most = said - came - meanwhile, said - asked + meanwhile
        if self.rounds:
            self.worst = max(self.worst, self.error(came))
            wider = _drift(came - self._at)
            if max(least, self._least - wider) <= min(most, self._most + wider):
                least, most = max(least, self._least - wider), min(most, self._most + wider)
            else:
                self.steps += 1
        self.rounds += 1
        self._least, self._most, self._at = least, most, came

    @property
    def ahead(self) -> int:
        """How far it is ahead of ours."""
        return (self._least + self._most) // 2

    def error(self, t: int) -> int:
        """How far `ahead` may be wrong at a moment of ours."""
        return (self._most - self._least + 1) // 2 + _drift(t - self._at)

    def here(self, t: int) -> int:
        """A moment of its clock, on ours."""
        return t - self.ahead

    def translated(self, line: bytes) -> bytes:
        """A line of the agent, the gate or the capture there, with the times of ours."""
        message = json.loads(line)
        if "t" not in message:
            return line
        # Packets, whose times are those since 1970: what they are to be set ahead, to be ours.
        if "wall" in message:
            theirs = message["wall"] - message["t"] + self.ahead
            message["apart"] = time.time_ns() - time.monotonic_ns() - theirs
        message["t"] = self.here(message["t"])
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _drift(time_passed: int) -> int:
    return int(DRIFT * abs(time_passed)) + 1
