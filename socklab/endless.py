"""An end for regular expressions that would come to none."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SEARCH_LIMIT = 3.0
"""Seconds of processor time in which regular expressions have to come to an end with what has come."""


class Endless(Exception):
    """They did not, so what they ask cannot be told."""


@contextmanager
def ended() -> Iterator[None]:
    """Raises Endless where what is done in it takes longer than SEARCH_LIMIT, as `/(a+)+$/` does with a line of forty a and a b: it tries
    each of 2^40 ways. Nothing else could break it off, not even Ctrl-C, for whoever waits on an event loop hears it there.

    Python's `re` looks for signals as it goes; the timer counts this process's own time (setitimer(2), ITIMER_VIRTUAL). Signals are for
    the main thread: in others nothing is broken off.
    """

    def break_off(*_: object) -> None:
        raise Endless

    try:
        before = signal.signal(signal.SIGVTALRM, break_off)
    except ValueError:  # not the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
