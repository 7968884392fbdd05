"""Likely causes at a chat server. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from socklab.causes.server import blocked_by_another, never_closes, turned_away
from socklab.causes.story import (
    Line,
    Rule,
    Story,
    ended_by_the_server,
    for_each,
    is_in,
    lines_missing,
    quit_said,
    who_is_cut_off,
    who_stalls,
    why_no_room,
)
from socklab.history import Event
from socklab.matching import shown


def _lines_were_joined(story: Story, client: str, got: list[bytes]) -> str:
    for first, second in zip(story.lines, story.lines[1:], strict=False):
        if first.who != second.who or first.text in second.text or second.text in first.text:
            continue
        for line in got:
            if first.text in line and second.text in line[line.find(first.text) + len(first.text) :]:
                if first.beside > 1 or second.beside > 1:
                    return (
                        "lines that came in one segment were delivered as one: recv() is taken for a message"
                    )
                return "lines are delivered without the newline that ends them"
    return ""


def _a_line_was_cut(story: Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        if line.pieces < 2 or any(line.text in each for each in got):
            continue
        if len(line.text) < 200 and (cause := _where_it_was_cut(story, line, got)):
            return cause
        size = max(3, len(line.text) // 8)  # fewer bytes are in anything
        begin, end = line.text[:size], line.text[-size:]
        starts = [i for i, each in enumerate(got) if begin in each]
        if starts and any(each.endswith(end) for each in got[starts[0] + 1 :]):
            return "a line that came in pieces was delivered as several: recv() is taken for a message"
        if starts and len(line.text) < 200:
            return "only a piece of a line was delivered: recv() is taken for a message"
    return ""


def _where_it_was_cut(story: Story, line: Line, got: list[bytes]) -> str:
    """By the beginning and the end of a line that came in pieces, which stand in lines of their own."""
    said = {each.text for each in story.lines}
    heads = {line.text[:at].rstrip() for at in range(2, len(line.text))} - said
    tails = {line.text[at:].lstrip() for at in range(1, len(line.text) - 1)} - said
    begun = next((i for i, each in enumerate(got) if any(_ends_with(each, head) for head in heads)), None)
    lasts = [i for i, each in enumerate(got) if any(_ends_with(each, tail) for tail in tails)]
    ended = max(lasts, default=None)
    if ended is None:
        return ""
    if begun is not None and begun < ended:
        return "a line that came in pieces was delivered as several: recv() is taken for a message"
    return f"of {shown(line.text)}, which came in pieces, only the end was delivered: {_KEPT}"


def _ends_with(each: bytes, piece: bytes) -> bool:
    """Whether a piece is all of a message but for what a server puts in front: no letter or digit beside it."""
    return each.endswith(piece) and not each[: -len(piece)][-1:].isalnum()


_KEPT = "what stands behind the last newline that recv() gave has to be kept until the rest of its line comes"


def _a_long_line_was_cut(story: Story, client: str, got: list[bytes]) -> str:
    times = Counter(line.text for line in story.lines)
    came: dict[bytes, int] = {}
    for line in story.lines:
        if len(line.text) < 1000 or why_no_room(story, client, line.t):
            continue
        if line.text not in came:
            came[line.text] = sum(line.text in each for each in got)
        if came[line.text] >= times[line.text]:
            continue
        for each in got:
            size = _common(each, line.text)
            if size >= 200 and size < len(line.text):
                of = len([e for e in got if len(e) >= 100 and any(e[-n:] in line.text for n in (60,))])
                if of > 1:
                    return f"a line of {len(line.text):,} bytes came out in pieces, the first of {size:,}: recv() is taken for a message, or others' lines come in between"
                return f"of a line of {len(line.text):,} bytes only the first {size:,} were delivered: a buffer's size is taken for the longest line"
    return ""


def _common(got: bytes, text: bytes) -> int:
    """How much of the beginning of a text stands at the end of, or inside, what was got."""
    at = got.find(text[:100])
    if at < 0:
        return 0
    size = 0
    for a, b in zip(got[at:], text, strict=False):
        if a != b:
            break
        size += 1
    return size


def _without_newline(story: Story, client: str, got: list[bytes]) -> str:
    inbox = story.inbox(client)
    partial = bytes(inbox._partial)
    if partial and not inbox.ended and any(line.ended and line.text in partial for line in story.lines):
        return "lines are delivered without the newline that ends them"
    return ""


def _only_the_first(story: Story, client: str, got: list[bytes]) -> str:
    segments: dict[tuple[str, int], list[Line]] = {}
    for line in story.lines:
        if line.beside > 1 and line.t >= story.connected_at(client):
            segments.setdefault((line.who, line.t), []).append(line)
    for first, *rest in segments.values():
        came = any(is_in(line, story.got(name)) for line in rest for name in story.everyone)
        if rest and is_in(first, got) and not came:
            return (
                "of several lines in one segment only the first was delivered: recv() is taken for a message"
            )
    return ""


def _begun_by_another(story: Story, client: str, got: list[bytes]) -> str:
    for begun in story.lines:
        if begun.ended or len(begun.text) < 3:
            continue
        for line in story.lines:
            if (
                line.t > begun.t
                and line.who != begun.who
                and any(begun.text + line.text in each for each in got)
            ):
                return (
                    f"{shown(begun.text)}, which {begun.who} had begun before it left, stands before what {line.who} said: the rest "
                    "of a line outlives its client (kept by a descriptor's number, which is given again?)"
                )
    return ""


def _from_the_past(story: Story, client: str, got: list[bytes]) -> str:
    since = story.connected_at(client)
    later = {line.text for line in story.lines if line.t >= since}
    for line in story.lines:
        if line.t < since and len(line.text) > 2 and line.text not in later and is_in(line, got):
            return f"{client} got {shown(line.text, 40)}, which was said before it came: newcomers are told the past"
    return ""


def _behind_quit(story: Story, client: str, got: list[bytes]) -> str:
    quit_ = (story.dialect.quit or "quit").encode()
    gone: set[str] = set()
    for line in story.lines:
        if line.text == quit_ and line.ended:
            gone.add(line.who)
        elif (
            line.who in gone
            and line.t > story.connected_at(line.who)
            and is_in(line, got)
            and not _again(story, line)
        ):
            return f"what {line.who} said behind {quit_.decode()} was delivered: the rest of the segment is still worked off"
    return ""


def _again(story: Story, line: Line) -> bool:
    """Whether its sender connected anew between its quit and this line."""
    return sum(e.kind == "connected" for e in story.of(line.who)) > 1


def _twice(story: Story, client: str, got: list[bytes]) -> str:
    counts = Counter(line.text for line in story.lines)
    for line in story.lines:
        came = sum(line.text in each for each in got)
        if (
            came <= counts[line.text]
            or len(line.text) < 2
            or not any(c.isalnum() for c in line.text.decode(errors="replace"))
            or any(line.text in o.text for o in story.lines if o.text != line.text)
        ):
            continue
        others = [n for n in story.everyone if n not in (client, line.who) and story.connected_at(n)]
        if line.who == client and not any(
            sum(line.text in e for e in story.got(o)) > counts[line.text] for o in others
        ):
            return "the sender gets its own line twice: once with all the others, and once more"
        return f"{client} got {shown(line.text, 40)} {came} times: it stands in the list of clients more than once, or a line is sent again"
    return ""


def _order(story: Story, client: str, got: list[bytes]) -> str:
    places: dict[str, list[int]] = {}
    times = Counter(line.text for line in story.lines)
    for line in story.lines:
        if (
            times[line.text] == 1
            and not any(line.text in other.text for other in story.lines if other.text != line.text)
            and line.t > story.connected_at(client)
            and (at := [i for i, each in enumerate(got) if line.text in each])
        ):
            places.setdefault(line.who, []).append(min(at, key=lambda i: len(got[i])))
    for who, order in places.items():
        if order != sorted(order):
            return f"{who}'s lines overtook one another: each is delivered by a thread or task of its own"
    return ""


def _interleaved(story: Story, client: str, got: list[bytes]) -> str:
    long = [line for line in story.lines if len(line.text) > 400]
    for each in got:
        senders = {
            line.who for line in story.lines if line.text and (line.text in each or line.text[:60] in each)
        }
        if len(senders) > 1 and (long or len(each) > 2 * max(len(line.text) for line in story.lines)):
            return "lines of different senders are mixed into one another: pieces are passed on as recv() gives them, or several threads send() on one socket without a lock"
    return ""


def _changed_text(story: Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        if is_in(line, got) or line.t < story.connected_at(client):
            continue
        if any("\ufffd".encode() in each for each in got) and not line.text.isascii():
            return 'it takes bytes for text: decode() with errors="replace" puts U+FFFD for what is no UTF-8'
        text = line.text.strip()
        if text and text != line.text and any(each.endswith(text) or text in each for each in got):
            return "strip() takes away blanks that belong to the line"
        plain = line.text.decode(errors="ignore").encode()
        if plain != line.text and plain and any(plain in each for each in got):
            return "it takes bytes for text: what is no UTF-8 is left out"
    return ""


def _not_to_itself(story: Story, client: str, got: list[bytes]) -> str:
    missing = lines_missing(story, client)
    others = [n for n in story.everyone if n != client]
    if any(line.who != other for other in story.clients for line in lines_missing(story, other)):
        return ""
    if (
        missing
        and all(line.who == client for line in missing)
        and any(is_in(line, story.got(o)) for line in missing for o in others)
    ):
        return "the sender does not get its own line: it goes to the others only"
    alone = not any(story.present(name, line.t) for name in others for line in missing)
    if missing and alone and not got and all(line.who == client for line in missing):
        if any(_has_left(story, story.connected_at(client), line.t) for line in missing):
            return f"after the others left, {client} was passed by: {_ROUND}"
        return f"{client} is alone in the room and does not hear itself: the sender is a member, too"
    return ""


_ROUND = "the list of clients is changed while it is gone through, or one failed send() ends the round"


def _has_left(story: Story, since: int, t: int) -> bool:
    """Whether anybody left between two moments."""
    gone = any(e.kind in ("closed", "aborted", "eof", "reset") and since < e.t < t for e in story.events)
    return gone or any(quit_said(story, n, since, t) for n in story.everyone)


def _passed_by(story: Story, client: str, got: list[bytes]) -> str:
    """Others got a line, this client did not."""
    for line in lines_missing(story, client):
        heard = [n for n in story.heard(line) if n != client]
        if not heard or client == line.who:
            continue
        nodes: dict[str, str] = next((e.data["nodes"] for e in story.events if e.kind == "play"), {})
        twin = next(
            (n for n in story.everyone if n != client and nodes.get(n) and nodes.get(n) == nodes.get(client)),
            "",
        )
        if twin and twin in heard:
            return f"{client} and {twin} are on one host, and only {twin} hears: clients are told apart by their IP address alone"
        if why := why_no_room(story, client, line.t):
            return f"{client} {why} for a while, and of what was sent to it meanwhile something is lost: what send() does not take at once has to be kept until there is room"
        if _has_left(story, story.connected_at(client), line.t):
            return f"after somebody left, {client} was passed by: {_ROUND}"
        spoke = any(who == client for who, e, _ in story.said if e.t > story.connected_at(client))
        if not spoke and not got and all(any(who == n for who, _, _ in story.said) for n in heard):
            return f"{client} has not said anything yet and hears nothing: a member is who is connected, not who has spoken"
        came = sorted((n for n in story.everyone if story.connected_at(n)), key=story.connected_at)
        newest = came[
            -max(len(heard), len(came) // 3) :
        ]  # a crowd comes nearly at once: its order is not exact
        if others := who_stalls(story, client):
            return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
        if away := who_is_cut_off(story, line.t, but=client):
            return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
        if client not in newest and set(heard) <= set(newest):
            return "only the newest clients hear: an older one's socket is overwritten by a newcomer's"
        return f"{client} was passed by, while {', '.join(heard[:3])} got it: the round through the clients ends too early"
    return ""


def _thrown_out(story: Story) -> str:
    """The server closed a connection that it should not have closed: at what?"""
    if story.step is not None and any(e.kind in ("eof", "reset") for _, e in story.step.expects):
        return ""
    for client, event in [*ended_by_the_server(story), *_thrown_others(story)]:
        said = [
            (e, data)
            for who, e, data in story.said
            if who == client and story.connected_at(client) <= e.t <= event.t
        ]
        if not said:
            continue
        quit_ = (story.dialect.quit or "quit").encode()
        last = said[-1][1]
        lines = [line for _, data in said[-3:] for line in data.split(b"\n")]
        if quit_ in (line.rstrip(b"\r") for line in lines):
            continue
        if any(quit_ in line for line in lines):
            return f"{client} was thrown out for a line in which {quit_.decode()} only occurs"
        if b"\n\n" in last or last in (b"\n", b"\r\n") or b"\n\r\n" in last:
            return f'{client} was thrown out for an empty line: the end of a connection is recv() giving b"", not an empty line'
        try:
            last.decode()
        except UnicodeDecodeError:
            return f"{client} was thrown out for bytes that are no UTF-8: it takes bytes for text"
        if b"\0" in last:
            return f"{client} was thrown out for a NUL byte"
        longest = max(len(line) for line in last.split(b"\n"))
        if longest > 1000:
            return f"{client} was thrown out for a line of {longest:,} bytes"
    return ""


def _thrown_others(story: Story) -> Iterator[tuple[str, Event]]:
    for client in story.everyone:
        mine = [
            e
            for e in story.of(client)
            if e.kind in ("connected", "eof", "reset", "closed", "aborted", "half-closed")
        ]
        if (
            client not in story.clients
            and client not in story.asked_to_end
            and mine
            and mine[-1].kind in ("eof", "reset")
            and (len(mine) < 2 or mine[-2].kind == "connected")
        ):
            yield client, mine[-1]


def _last_line_lost(story: Story, client: str, got: list[bytes]) -> str:
    for line in story.lines:
        said_last = not line.ended and line.t < 1 << 62 and line.who != client
        ends = [e for e in story.of(line.who) if e.kind in ("closed", "half-closed") and e.t >= line.t]
        if said_last and ends and story.is_wanted(client, line.text) and not is_in(line, got):
            return f"what {line.who} said last, without a newline before its FIN, was lost: at the end of a connection the rest of the buffer is a line"
    return ""


SEGMENT = 1448  # bytes; what is longer comes in pieces


def _not_ended(story: Story, client: str, got: list[bytes]) -> str:
    """Of a last line that had no newline: it came, and so did what was sent next, on the same line."""
    for line in story.lines:
        if line.ended or line.who == client or line.t == 1 << 62 or not story.is_wanted(client, line.text):
            continue
        if any(line.text in each and not each.endswith(line.text) for each in got):
            return f"what {line.who} said last, without a newline before its FIN, is delivered without one: every line that is delivered ends with a newline"
    return ""


def _nobody_heard(story: Story) -> str:
    for client in story.clients:
        missing = lines_missing(story, client) if client in story.everyone else []
        for line in missing:
            if story.heard(line):
                continue
            if others := who_stalls(story, client):
                return f"the server waits in send() to {others[0]}, who does not read, and everyone waits with it"
            if away := who_is_cut_off(story, story.events[-1].t, but=client):
                return f"the server waits in send() to {away}, who is cut off, and everyone waits with it"
            if (
                story.unread(line.who) == 0
                and not any(story.got(n) for n in story.everyone)
                and len(line.text) > SEGMENT
            ):
                return f"of a line of {len(line.text):,} bytes, which takes more than one recv(), nothing was delivered: {_KEPT}"
            if story.unread(line.who) == 0 and not any(story.got(n) for n in story.everyone):
                return f"the server reads what {line.who} says and sends it to nobody: is its list of clients empty, or the first line taken for a name (--dialect join={{name}})?"
    return ""


RULES: tuple[Rule, ...] = (
    turned_away,
    never_closes,
    for_each(_interleaved),
    for_each(_lines_were_joined),
    for_each(_without_newline),
    for_each(_order),
    for_each(_only_the_first),
    for_each(_a_line_was_cut),
    for_each(_a_long_line_was_cut),
    for_each(_begun_by_another),
    for_each(_from_the_past),
    for_each(_behind_quit),
    for_each(_twice),
    for_each(_changed_text),
    _thrown_out,
    for_each(_last_line_lost),
    for_each(_not_ended),
    for_each(_not_to_itself),
    for_each(_passed_by),
    blocked_by_another,
    _nobody_heard,
)
