"""Dialects that a server seems to speak, by what its histories show. They are proposed, never applied unasked. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from socklab.dialect import PROMPTS, Dialect
from socklab.matching import STREAM, shown
from socklab.verdict import Result, Verdict


def proposed(results: Sequence[Result], dialect: Dialect) -> list[str]:
    """What could be said to a check that failed, each with the option for it."""
    failed = [r for r in results if r.verdict is Verdict.FAIL]
    if not failed or any(e.data.get("framing") == STREAM for r in failed for e in islice(r.events, 1)):
        return []  # bytes that come back have no lines that could be passed over
    return list(dict.fromkeys(_proposed(failed, dialect)))


def _proposed(failed: Sequence[Result], dialect: Dialect) -> Iterator[str]:
    greetings = Counter(text for result in failed for text in _greetings(result))
    common = [text for text, times in greetings.items() if times * 2 >= len(failed)]
    told: set[str] = set()
    for text in common:
        # Digits in it count something: they will be others the next time.
        head = re.split(rb"\d", text.strip()[:12])[0].decode(errors="replace").rstrip()
        pattern = "^" + re.escape(head).replace("\\ ", " ")
        if dialect.ignores(text) or pattern in told or not head:
            continue
        told.add(pattern)
        if text.rstrip().endswith(PROMPTS) or not text.endswith(b"\n"):
            if not dialect.join:
                yield f"it asks {shown(text, 50)} first: if that is meant, judge it with --dialect 'join={{name}}' --dialect 'ignore={pattern}'"
        else:
            yield f"it greets with {shown(text, 50)}: if that is meant, judge it with --dialect 'ignore={pattern}'"
    causes = [r.failure.cause for r in failed if r.failure]
    if dialect.echo and sum("hear itself" in c or "its own line: it goes" in c for c in causes) * 2 >= len(
        causes
    ):
        yield "the sender does not hear itself: if that is meant, judge it with --dialect echo=off"
    if dialect.quit == "quit" and any("does not close its connection" in c for c in causes):
        yield "it does not know the line quit: if it has another word, judge it with --dialect quit=/exit, and if none, with quit=none"
    if frames := _frames(failed):
        yield f"its messages seem to begin with their length: judge it with --dialect frames={frames}"


def _greetings(result: Result) -> Iterable[bytes]:
    """What a client got before anybody had said anything."""
    seen = set()
    for event in result.events:
        if event.kind == "sent":
            break
        if event.kind == "received":
            seen.add(event.content)
    return seen


def _frames(failed: Sequence[Result]) -> str:
    """A length of 2 or 4 bytes before each message, if most first messages look like that."""
    firsts = []
    for result in failed:
        chunk = next((e.content for e in result.events if e.kind == "received"), b"")
        if len(chunk) > 4:
            firsts.append(chunk)
    for size in (4, 2):
        for order in ("big", "little"):
            fits = sum(int.from_bytes(c[:size], order) == len(c) - size for c in firsts)
            if firsts and fits * 2 > len(firsts):
                return f"u{8 * size}{'be' if order == 'big' else 'le'}"
    return ""
