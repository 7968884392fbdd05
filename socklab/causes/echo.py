"""Likely causes at an echo server. Pure."""

from __future__ import annotations

from socklab.causes.server import blocked_by_another, never_closes, turned_away
from socklab.causes.story import (
    Rule,
    Story,
    ended_by_the_server,
    who_stalls,
)
from socklab.matching import shown


def _reset_at_half_close(story: Story) -> str:
    for client, event in ended_by_the_server(story):
        if event.kind == "reset" and any(e.kind == "half-closed" for e in story.of(client)):
            return f"{client} half-closed and got RST: the server closed with data unread or unsent (SO_LINGER 0?)"
    return ""


def _others_bytes(story: Story) -> str:
    one = "the server has one buffer, or one socket variable, for all"
    sent = {name: bytes(story.inbox(name).sent) for name in story.everyone}
    for client in story.everyone:
        got = bytes(story.inbox(client).stream)
        if sent[client].startswith(got):
            continue
        same = next(
            (i for i, (a, b) in enumerate(zip(got, sent[client], strict=False)) if a != b),
            min(len(got), len(sent[client])),
        )
        strange = got[same : same + 8]
        if same < len(sent[client]) and strange in sent[client]:
            continue
        others = [
            n
            for n in story.everyone
            if n != client
            and len(strange) >= 2
            and sent[n]
            and (strange in sent[n] or strange.startswith(sent[n]))
        ]
        if others and (client in story.clients or others[0] in story.clients):
            return f"{client} got what {others[0]} said: {one}"
    return ""


_WHOLE_BUFFER = (
    "it sends its whole buffer, not the n bytes that recv() gave (or one more, the NUL behind a C string)"
)


def _changed_bytes(story: Story) -> str:
    """What an echo did to the bytes."""
    for client in story.clients:
        inbox = story.inbox(client)
        sent, got = bytes(inbox.sent), bytes(inbox.stream)
        if not sent or not got or sent.startswith(got):
            continue
        if any(other.startswith(got) for other in (sent.upper(), sent.lower(), sent.title(), sent[::-1])):
            return "it sends back something else than it got: an echo changes nothing"
        if (added := _added_before(sent, got)) or got.endswith(sent):
            added = added or got[: -len(sent)]
            first = next((e for e in story.of(client) if e.kind in ("received", "sent")), None)
            when = (
                "before anything was said"
                if first is not None and first.kind == "received"
                else "before the echo"
            )
            return f"it sends {shown(added, 40)} {when}: an echo adds nothing"
        if got.startswith(sent) and len(got) > len(sent) and not got[len(sent) :].strip(b"\0"):
            return _WHOLE_BUFFER
        if got.startswith(sent) and len(got) > len(sent):
            return f"it adds {shown(got[len(sent) :], 40)}: an echo adds nothing"
        if "\ufffd".encode() in got and "\ufffd".encode() not in sent:
            return 'it takes bytes for text: decode() with errors="replace" puts U+FFFD for what is no UTF-8'
        if got.strip() == sent.strip() or b"".join(sent.split()).startswith(b"".join(got.split())):
            return "strip() takes white space away from what was sent"
        at = next(
            (i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent))
        )
        if sent[at : at + 1] == b"\0":
            return "it treats bytes as a C string: what stands behind a NUL is lost (strlen)"
        if got[at : at + 1] == b"\0":
            return _WHOLE_BUFFER
        piece = got[at : at + 64]
        later = sent.find(piece, at + 1) if len(piece) >= 16 else -1
        if later > at:
            how_many = (
                f"{later - at:,} of them " if sent.count(piece) == 1 else ""
            )  # a pattern tells no distance
            return f"it loses bytes on the way, {how_many}behind byte {at:,}: {_why_lost(at)}"
        first = next((e for e in story.of(client) if e.kind in ("received", "sent")), None)
        if first is not None and first.kind == "received":
            return f"it says {shown(first.content, 40)} before it is asked: an echo adds nothing"
        return f"it sends back something else than it got, from byte {at:,} on"
    return ""


def _added_before(sent: bytes, got: bytes) -> bytes:
    """What stands before the beginning of what was sent."""
    start = sent[: max(1, min(len(sent), 12))]
    at = got.find(start)
    return got[:at] if 0 < at <= 200 and (len(start) > 2 or got[at:] == sent[: len(got) - at]) else b""


def _why_lost(at: int) -> str:
    if at and at & (at - 1) == 0 and at <= 65536:
        return f"only the first {at} of what recv() gave are sent back"
    return "send() may take less than it is given, and what it returned was not looked at (sendall)"


def _less_came(story: Story) -> str:
    """The beginning of what was sent, and no more."""
    for client in story.clients:
        inbox = story.inbox(client)
        sent, got = bytes(inbox.sent), bytes(inbox.stream)
        if len(got) >= len(sent) or not sent.startswith(got):
            continue
        mine = story.of(client)
        if inbox.ended and got and any(e.kind == "half-closed" for e in mine):
            return f"at the client's FIN {len(sent) - len(got):,} of {len(sent):,} bytes were still owed, and the server closed without them"
        if sent[len(got) : len(got) + 1] == b"\0":
            return "it treats bytes as a C string: what stands behind a NUL is lost (strlen)"
        if inbox.ended and got:
            return f"it closes the connection after {len(got):,} bytes: it answers once, and an echo goes on until the client ends"
        if inbox.ended and (event := next((e for _, e in ended_by_the_server(story)), None)):
            return f"the server closed {client}'s connection instead of answering ({event.kind})"
        if (
            b"\n" not in sent[len(got) :]
            and not inbox.ended
            and not got.endswith(sent[-1:])
            and (not got or got.endswith(b"\n"))
        ):
            return "it waits for a newline (readline()) where bytes are to come back as they are"
        if got and got.strip() == sent.strip():
            return "strip() takes white space away from what was sent"
        if b"\n" in sent[len(got) :] and sent[len(got) :].isspace():
            return "strip() takes white space away from what was sent"
        if len(got) >= 256 and len(got) & (len(got) - 1) == 0:
            return f"only the first {len(got)} bytes of what recv() gave are sent back"
        if others := who_stalls(story, client):
            return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
        if len(got) > 1024:
            return "send() may take less than it is given, and what it returned was not looked at (sendall)"
    return ""


RULES: tuple[Rule, ...] = (
    turned_away,
    _reset_at_half_close,
    never_closes,
    _others_bytes,
    _changed_bytes,
    blocked_by_another,
    _less_came,
)
