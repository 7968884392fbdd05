"""Likely causes in plain words, for a failed play: what a good teacher would say who saw the history. Pure.

Each rule looks for evidence and says nothing where there is none; the first that speaks is told. What a rule cannot know, the
scenario's own `hint:` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from socklab.causes import chat, datagrams, echo, server
from socklab.causes.start import of_start
from socklab.causes.story import Story
from socklab.dialect import CHUNKS, PLAIN, Dialect
from socklab.history import Event
from socklab.matching import DATAGRAM, LINE, STREAM
from socklab.steps import Step

__all__ = ["likely", "of_start"]


def likely(
    events: Sequence[Event],
    clients: Sequence[str],
    framing: str = LINE,
    dialect: Dialect = PLAIN,
    step: Step | None = None,
    asked_to_end: Iterable[str] = (),
) -> str:
    """The cause of a failure that concerns these clients; empty where nothing is known. `asked_to_end`: those whose connection was
    to end, as a step before has found that it did."""
    story = Story(events, tuple(clients), framing, dialect, step, frozenset(asked_to_end))
    by_framing = {LINE: chat.RULES, STREAM: echo.RULES, DATAGRAM: datagrams.RULES}[framing]
    if dialect.frames == CHUNKS and framing == STREAM:
        by_framing = ()  # a chat without lines: no rule of an echo holds
    for rule in (*server.FIRST, *by_framing):
        if cause := rule(story):
            return cause
    if step is not None and step.hint:
        return step.hint
    return next((cause for rule in server.LAST if (cause := rule(story))), "")
