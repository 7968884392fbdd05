"""A history as a drawing: lanes, arrows that take time, bands, lifetimes. Pure: made of events as they come, and of nothing else.

    events ── Drawing.feed ──▶ marks ──▶ the page (report.html, and live), SVG, Mermaid

A mark is a dict that JSON can carry. Each has an `id`; one that comes again under the same id replaces the one before. Times are
nanoseconds from the beginning of the play. What marks there are:

    play      title, text (of the scenario), path, service, backend                                  one
    lane      title, role: client | server | worker, of (the server whose worker it is), address, networks,
              state: up | paused | ended | unplugged; empty: nothing is known
    step      path, line, verb, text, start, end (null: it goes on), phase: begin | end | failed
    arrow     source, target (lanes), start, end (null: not known), what: data | datagram | SYN | FIN | …, text, size,
              fate (dropped, refused, corrupted, …), by, step
    life      lane, peer, start, end, how: eof | reset | closed | …, number, states, beside      a socket of a connection
              `number` counts a client's connections from 1; 0: it has not come about. `states`: [[at, state of TCP], …], as far as
              packets or the kernel tell, also after the program has closed it; `beside`: its place among those of its server
    band      source, target, start, end, text                            a fault of a link
    point     lane, at, what, text, bad, step                           log lines, deaths, options set, …
    verdict   at, verdict, reason, line, expected, got, cause
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from socklab.history import Event, from_wire
from socklab.inside.packets import parse
from socklab.matching import shown
from socklab.sockets import GONE
from socklab.tcp_states import TCP
from socklab.words import counted, in_words

Mark = dict[str, Any]

TEXT = 400  # characters of a message that a drawing carries
KEPT = 32  # messages and packets of one connection among which those that belong together are looked for
PASSING = ("arrow", "point", "step", "life")
"""Marks of which there are ever more; the others are few."""
_SERVES = re.compile(r"\bconnected (?P<peer>\S+:\d+) .*?\b(?P<kind>thread|process)=(?P<worker>\S+)")
"""What our servers log of a connection that a thread or a process of its own serves."""
_SIZE = re.compile(r"(\d+) bytes")
_ON = re.compile(r"\b(?P<kind>thread|process)=(?P<worker>\S+)")
"""… and whose line of a log it is."""
_STAMP = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} ")
_BAD = re.compile(r"(?i)traceback|(?:error|exception):|panic|fatal|segmentation")


@dataclass
class _Packets:
    """What is known of the packets of one socket of a client."""

    first: dict[bool, int] = field(default_factory=dict)
    """True: of what the client sends, False: of what comes to it → the sequence number of its first byte."""
    left: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Of what comes to it: sequence number, size, when it left the server."""
    connection: _Connection | None = None
    """The newest that had this socket."""

    def offset(self, out: bool, seq: int) -> int:
        """Where in its stream a sequence number stands; -1: not known."""
        return (seq - self.first[out]) % (1 << 32) if out in self.first else -1


@dataclass
class _Ends:
    """The two sockets of a TCP connection: what state each is in, and how it is drawn."""

    tcp: TCP
    lane: str
    """Of who did not open it."""
    life: dict[bool, Mark]
    """True: of who opened it, False: of the other, once it has a socket."""


@dataclass
class _Connection:
    """A client's socket, and the messages that are the bytes of its two streams."""

    life: Mark
    datagrams: bool
    packets: _Packets
    local: str = ""
    ends: _Ends | None = None
    """As packets show them."""
    lane: str = "server"
    """Where its messages go: to the server, or to the worker that serves it."""
    covered: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Bytes that messages have covered, out and back."""
    sent: deque[tuple[int, int, Mark]] = field(default_factory=lambda: deque(maxlen=KEPT))
    got: deque[tuple[int, int, Mark]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """First byte, the one behind the last, and the arrow that stands for them."""


class Drawing:
    """What has been drawn so far. A pure function of the events fed to it."""

    def __init__(self) -> None:
        self.marks: dict[str, Mark] = {}
        self._start: int | None = None
        self._changed: dict[str, Mark] = {}
        self._count = 0
        self._left_out = 0
        self._open: list[Mark] = []
        """Steps that go on."""
        self._hosts: dict[str, str] = {}
        """Node → the first of those that share its address."""
        self._connections: dict[str, _Connection] = {}
        """The newest of each client."""
        self._packets: dict[tuple[str, int], _Packets] = {}
        """By host and port."""
        self._under_way: dict[tuple[str, int, int], Mark] = {}
        """Host, port, sequence number → a packet of which is not known yet when it arrives, or whether."""
        self._ends: dict[tuple[str, int], _Ends] = {}
        """By host and port of who opened it: the newest."""
        self._on_its_way: dict[tuple[str, int, int, int], tuple[_Ends, bool, list[str]]] = {}
        """Host, port, sequence number, acknowledged → a segment of which it is not known yet whether it arrives."""
        self._places: set[int] = set()
        """Beside each other, those that the sockets of servers have now."""
        self._told: dict[tuple[str, int, int], Mark] = {}
        """The same → a packet of which is known what became of it, and no more."""
        self._bands: dict[str, Mark] = {}
        self._echoes = False
        self._workers: dict[str, str] = {}
        """Address of a client → the worker that said it serves it."""

    def feed(self, event: Event) -> list[Mark]:
        """Draw one event more. The marks that are new or have changed."""
        if self._start is None:
            self._start = event.t
        at = event.t - self._start
        draw = getattr(self, "_draw_" + event.kind.replace("-", "_"), None)
        if draw is not None:
            draw(at, event)
        elif event.node and (text := _words(event)):
            self._point(at, event.node, event.kind, text)
        changed = list(self._changed.values())
        self._changed.clear()
        return changed

    def thin(self, most: int) -> None:
        """Leave marks in the middle out, so that about `most` stay, and say so in their place."""
        passing = [id_ for id_, mark in self.marks.items() if mark["mark"] in PASSING and id_ != "left out"]
        head, tail = passing[: most // 2], passing[len(passing) - most // 2 :]
        middle = set(passing[len(head) : len(passing) - len(tail)])
        self._left_out += len(middle)
        marks, self.marks = self.marks, {}
        for id_, mark in marks.items():
            if id_ in middle or id_ == "left out":
                continue
            self.marks[id_] = mark
            if id_ == head[-1]:
                text = f"{self._left_out:,} marks from here on are not drawn, for a browser could not show them: these are the first {len(head):,} and the last {len(tail):,} of the play; all of it is in history.jsonl (socklab show)"
                lane = next(m["name"] for m in marks.values() if m["mark"] == "lane")
                at = mark.get("at", mark.get("start")) or 0
                known = {"lane": lane, "at": at, "what": "note", "text": text, "bad": False, "step": ""}
                self.marks["left out"] = {"id": "left out", "mark": "point", **known}

    # marks

    def _put(self, mark: str, id: str = "", **data: Any) -> Mark:
        if not id:
            self._count += 1
            id = f"{mark}{self._count}"
        made = {"id": id, "mark": mark, **data}
        self.marks[id] = self._changed[id] = made
        return made

    def _change(self, mark: Mark, **data: Any) -> None:
        mark.update(data)
        self._changed[mark["id"]] = mark

    def _lane(self, name: str) -> str:
        if f"lane:{name}" not in self.marks:
            self._put_lane(name, name, "client")
        return name

    def _put_lane(
        self, name: str, title: str, role: str, of: str = "", address: str = "", networks: Sequence[str] = ()
    ) -> None:
        known = {"title": title, "role": role, "of": of, "address": address, "networks": list(networks)}
        self._put("lane", f"lane:{name}", name=name, state="", **known)

    def _step(self) -> str:
        """The step during which this happens: the one that began last of those that go on."""
        return self._open[-1]["id"] if self._open else ""

    def _point(self, at: int, lane: str, what: str, text: str, bad: bool = False) -> Mark:
        self._lane(lane)
        return self._put("point", lane=lane, at=at, what=what, text=_cut(text), bad=bad, step=self._step())

    def _arrow(
        self,
        source: str,
        target: str,
        start: int | None,
        end: int | None,
        what: str,
        text: str,
        size: int = 0,
        **more: Any,
    ) -> Mark:
        self._lane(source)
        self._lane(target)
        data: Mark = {
            "source": source,
            "target": target,
            "start": start,
            "end": end,
            "what": what,
            "size": size,
        }
        data |= {"text": _cut(text), "fate": "", "by": "", "step": self._step(), **more}
        return self._put("arrow", **data)

    # the play and its steps

    def _draw_play(self, at: int, event: Event) -> None:
        data = event.data
        hosts: dict[str, str] = {}
        known = {k: str(data.get(k, "")) for k in ("title", "path", "service", "backend", "framing")}
        self._echoes = known["framing"] == "stream"
        self._put("play", "play", **known, text=str(data.get("scenario", "")), values=data.get("values", {}))
        nodes: dict[str, Any] = data.get("nodes", {})
        self._hosts = {name: hosts.setdefault(str(address), name) for name, address in nodes.items()}
        known_clients = data.get("clients", [n for n in nodes if n != "server"])
        clients = [n for n in nodes if n in known_clients]
        servers = [n for n in nodes if n not in known_clients]
        half = (len(clients) + 1) // 2
        for name in [*clients[:half], *servers, *clients[half:]]:
            title = f"{name} ({known['service']})" if name == "server" and known["service"] else name
            role = "server" if name in servers else "client"
            networks = data.get("networks", {}).get(name, [])
            self._put_lane(name, title, role, address=str(nodes[name]), networks=networks)

    def _draw_typed(self, at: int, event: Event) -> None:
        if play := self.marks.get("play"):
            self._change(play, text=play["text"] + str(event.data["text"]))

    def _draw_step(self, at: int, event: Event) -> None:
        data = event.data
        phase = data["phase"]
        if phase == "begin":
            known = {k: data[k] for k in ("path", "line", "verb", "text")}
            step = self._put(
                "step", **known, start=at, end=None, phase="begin", depth=str(data["path"]).count(".")
            )
            self._open.append(step)
            return
        open_step = next((s for s in reversed(self._open) if s["path"] == data["path"]), None)
        if open_step is not None:
            self._open.remove(open_step)
            self._change(open_step, end=at, phase=phase)

    def _draw_verdict(self, at: int, event: Event) -> None:
        known = {k: event.data.get(k, "") for k in ("verdict", "reason", "line", "expected", "got", "cause")}
        self._put("verdict", "verdict", at=at, **known)
        for mark in self.marks.values():
            if mark["mark"] in ("band", "life") and mark["end"] is None:
                self._change(mark, end=at)

    # clients

    def _draw_connected(self, at: int, event: Event) -> None:
        client = self._lane(event.node)
        self._end_of(client, at, "closed")
        host, port, *_ = event.data.get("local") or ["", 0]
        number = event.data.get("connection", 1)
        datagrams = event.data.get("protocol") == "udp"
        packets = self._of_socket(client, int(port))
        ends = self._ends.get((self._host(client), int(port)))
        if ends is None or ends.life[True]["number"]:
            ends, life = None, self._life(client, "server", at)
        else:
            life = ends.life[True]  # its packets were told before
        self._change(life, lane=client, number=number)
        connection = packets.connection = _Connection(life, datagrams, packets, f"{host}:{port}", ends)
        self._connections[client] = connection
        if worker := self._workers.pop(connection.local, ""):
            self._served_by(worker, client)
        self._point(at, client, "connected", _words(event))

    def _draw_refused(self, at: int, event: Event) -> None:
        for ends in self._ends.values():
            life = ends.life[True]
            if life["lane"] == event.node and not life["number"] and life["end"] is None:
                self._change(life, end=at, how="refused")
        error = str(event.data.get("error"))
        self._arrow(event.node, "server", at, at, "connect", "connect", fate="refused", by=error)

    def _draw_sent(self, at: int, event: Event) -> None:
        connection = self._connections.get(event.node)
        to = str(event.data.get("to", "server"))
        target = connection.lane if connection and to == "server" else to
        chunks = event.data["chunks"]
        datagrams = connection is not None and connection.datagrams
        there = self._arrival(event.node, to, at)
        if datagrams:
            for chunk in chunks:
                content = from_wire({**chunk, "repeat": 1})
                for _ in range(min(int(chunk.get("repeat", 1)), 100)):
                    text = shown(content, TEXT)
                    arrow = self._arrow(event.node, target, at, there, "datagram", text, len(content))
                    self._cover(connection, True, len(content), arrow)
            return
        first = (
            from_wire({**chunks[0], "repeat": min(int(chunks[0].get("repeat", 1)), 100)}) if chunks else b""
        )
        size = int(event.data.get("size", len(first)))
        more = f" … {size} bytes" if size > len(first) else ""
        pieces = f" in {len(chunks)} pieces" if len(chunks) > 1 else ""
        arrow = self._arrow(event.node, target, at, there, "data", shown(first, TEXT) + more + pieces, size)
        self._cover(connection, True, size, arrow)

    def _draw_received(self, at: int, event: Event) -> None:
        connection = self._connections.get(event.node)
        content = event.content
        # A line of a chat comes from everywhere; an echo from whoever serves this client.
        source = connection.lane if connection and self._echoes else "server"
        what = "datagram" if connection is not None and connection.datagrams else "data"
        arrow = self._arrow(source, event.node, None, at, what, shown(content, TEXT), len(content))
        self._cover(connection, False, len(content), arrow)

    def _ended(self, at: int, event: Event) -> None:
        """The peer, the network or the client itself ended a connection."""
        bad = event.kind in ("reset", "error")
        self._point(at, event.node, event.kind, _words(event), bad=bad)
        self._end_of(event.node, at, event.kind)
        connection = self._connections.get(event.node)
        lost = event.kind in ("reset", "aborted") or event.data.get("error") == "timed out"
        if lost and connection is not None and connection.ends is not None:
            connection.ends.tcp.told(True, at, GONE)  # its kernel has no such connection any more
            self._stand(connection.ends)

    _draw_eof = _draw_reset = _draw_closed = _draw_aborted = _draw_error = _ended

    def _end_of(self, client: str, at: int, how: str) -> None:
        connection = self._connections.get(client)
        if connection is not None and connection.life["end"] is None:
            self._change(connection.life, end=at, how=how)

    # messages, and the packets that carry them

    def _cover(self, connection: _Connection | None, out: bool, size: int, arrow: Mark) -> None:
        """A message is the next bytes of its stream. Packets that bring it may be known already."""
        if connection is None:
            return
        begin = connection.covered[out]
        connection.covered[out] = begin + size
        (connection.sent if out else connection.got).append((begin, begin + size, arrow))
        if not out:
            self._claim(connection, begin, begin + size, arrow)

    def _claim(self, connection: _Connection, begin: int, end: int, arrow: Mark) -> None:
        """Give a message that came the moment at which the packet with its first byte left: the last such, if it was sent again."""
        packets = connection.packets
        for segment in reversed(packets.left):
            seq, size, left = segment
            offset = packets.offset(False, seq)
            mine = size == end - begin if connection.datagrams else 0 <= offset <= begin < offset + size
            if mine and left <= arrow["end"] and (arrow["start"] is None or left > arrow["start"]):
                self._change(arrow, start=left)
                if connection.datagrams:
                    packets.left.remove(segment)
                return

    def _left(self, host: str, port: int, seq: int, size: int, at: int) -> None:
        """A packet with something in it left for a client; what it brought may have been told before it."""
        packets = self._of_socket(host, port)
        packets.left.append((seq, size, at))
        if connection := packets.connection:
            for begin, end, arrow in list(connection.got):
                if not connection.datagrams or arrow["start"] is None:
                    self._claim(connection, begin, end, arrow)

    def _host(self, node: str) -> str:
        return self._hosts.get(node, node)

    def _of_socket(self, host: str, port: int) -> _Packets:
        return self._packets.setdefault((self._host(host), port), _Packets())

    def _draw_segment(self, at: int, event: Event) -> None:
        data = event.data
        if data["size"]:
            self._left(data["to"], data["dport"], data["seq"], data["size"], at)
        self._segment(at, data, [], data["size"])

    # the states of TCP

    def _life(self, lane: str, peer: str, at: int, beside: int = 0) -> Mark:
        known: Mark = {"end": None, "how": "", "number": 0, "states": [], "beside": beside}
        return self._put("life", "", lane=lane, peer=peer, start=at, **known)

    def _segment(self, at: int, data: Mapping[str, Any], words: list[str], size: int) -> None:
        """What a segment tells of its connection's two ends."""
        source, target = str(data["from"]), str(data["to"])
        opener = (self._host(source), data["sport"])
        if words[:1] == ["SYN"] and {f"lane:{source}", f"lane:{target}"} <= self.marks.keys():
            ends = self._ends.get(opener)
            if ends is None or ends.tcp.seq != data["seq"]:
                self._opened(at, opener, source, target, data["seq"])
        ends = self._ends.get(opener)
        end = ends is not None
        if ends is None:
            ends = self._ends.get((self._host(target), data["dport"]))
        if ends is None:
            return
        ack = data.get("ack", 0)
        ends.tcp.sent(end, at, words, data["seq"], ack, size)
        if (there := self._arrival(source, target, at)) is not None:
            ends.tcp.came(end, there, words, ack)
        else:
            self._on_its_way[(self._host(source), data["sport"], data["seq"], ack)] = (ends, end, words)
        self._stand(ends)

    def _opened(self, at: int, opener: tuple[str, int], source: str, target: str, seq: int) -> None:
        connection = self._of_socket(*opener).connection
        if connection is None or connection.datagrams or connection.ends is not None:
            life, connection = self._life(source, target, at), None
        else:
            life = connection.life
        self._ends[opener] = ends = _Ends(TCP(at, seq), target, {True: life})
        if connection is not None:
            connection.ends = ends
            if connection.lane != "server":
                ends.lane = connection.lane

    def _stand(self, ends: _Ends) -> None:
        """Draw the states of both ends as they are known now."""
        for end in (True, False):
            states = ends.tcp.states(end)
            if not states or states[0][1] == GONE:
                continue
            if end not in ends.life:
                beside = next(n for n in itertools.count() if n not in self._places)
                self._places.add(beside)
                ends.life[end] = self._life(ends.lane, ends.life[True]["lane"], states[0][0], beside)
            life = ends.life[end]
            known = [[at, name] for at, name in states]
            if life["states"] == known:
                continue
            self._change(life, states=known, start=min(life["start"], states[0][0]))
            # When a program's socket ended the program says itself, if it ever had it.
            if states[-1][1] == GONE and life["end"] is None and not (end and life["number"]):
                self._change(life, end=states[-1][0])
                if not end:
                    self._places.discard(life["beside"])

    def _draw_sockets(self, at: int, event: Event) -> None:
        """The kernel itself says so."""
        self._point(at, event.node, event.kind, _words(event))
        for client, end in ((event.node, True), (str(event.data["peer"]), False)):
            connection = self._connections.get(client)
            if connection is not None and connection.ends is not None:
                connection.ends.tcp.told(end, at, str(event.data["state"]))
                self._stand(connection.ends)
                return

    def _draw_wire(self, at: int, event: Event) -> None:
        data = event.data
        words = [str(word) for word in data["words"]]
        source, target = str(data["from"]), str(data["to"])
        if "SYN" in words:
            self._of_socket(source, data["sport"]).first[True] = (data["seq"] + 1) % (1 << 32)
        if "SYN-ACK" in words:
            self._of_socket(target, data["dport"]).first[False] = (data["seq"] + 1) % (1 << 32)
        found = _SIZE.search(str(data["what"]))
        size = int(found[1]) if found else 0
        if "retransmission" in words and size:
            # A nanosecond later, so that the message and the packet that brings it have a row each.
            self._left(target, data["dport"], data["seq"], size, at + 1)
        self._segment(at, data, words, size)
        known = {f"lane:{source}", f"lane:{target}"} <= self.marks.keys()
        if words and words != ["window-open"] and known:
            text = _packet_words(words, str(data["what"]))
            there = self._arrival(source, target, at)
            packet = (self._host(source), data["sport"], data["seq"])
            told = self._told.pop(packet, None)
            if told is not None and told["start"] >= at:  # what became of it was told first
                self._change(told, start=at, what=words[0], text=text)
                return
            arrow = self._arrow(source, target, at, there, words[0], text, wire=True)
            if there is None:
                self._under_way[packet] = arrow

    def _draw_packet(self, at: int, event: Event) -> None:
        """What became of a packet that did not just pass: of the message that it carries, or by itself."""
        data = event.data
        source, target, fate, by = (str(data[k]) for k in ("from", "to", "fate", "by"))
        packet = parse(bytes.fromhex(data["head"]))
        arrow = None
        if packet is not None and packet.sport:
            host = self._host(source)
            way = self._on_its_way.pop((host, packet.sport, packet.seq, packet.ack), None)
            if way is not None and fate in ("delayed", "duplicated", "overtaken"):
                ends, opener, words = way
                ends.tcp.came(opener, at, words, packet.ack)
                self._stand(ends)
            arrow = self._under_way.pop((host, packet.sport, packet.seq), None)
            packets = self._packets.get((host, packet.sport))
            connection = packets.connection if packets is not None else None
            if arrow is None and packets is not None and connection is not None and packet.size:
                offset = packets.offset(True, packet.seq)
                for begin, end, sent in connection.sent:
                    mine = packet.size == end - begin if connection.datagrams else begin <= offset < end
                    if mine and not sent["fate"] and sent["end"] is None:
                        arrow = sent
                        break
        if fate == "delayed":
            if arrow is not None:
                self._change(arrow, end=at)
        elif arrow is not None:
            self._change(arrow, fate=fate, by=by)
        else:
            what = str(data["what"])
            told = self._arrow(source, target, at, None, "packet", what, fate=fate, by=by, wire=True)
            if packet is not None:
                self._told[self._host(source), packet.sport, packet.seq] = told

    def _arrival(self, source: str, target: str, at: int) -> int | None:
        """When something that leaves now will be there: at once where the link is whole; else it is not known yet."""
        return None if f"{source}→{target}" in self._bands else at

    # links

    def _draw_fault(self, at: int, event: Event) -> None:
        links: dict[str, str] = event.data["links"]
        for link, band in list(self._bands.items()):
            if links.get(link) != band["text"]:
                self._change(band, end=at)
                del self._bands[link]
        for link, text in links.items():
            if link not in self._bands:
                source, _, target = link.partition("→")
                self._bands[link] = self._put(
                    "band", source=source, target=target, start=at, end=None, text=str(text)
                )

    # servers

    def _draw_log(self, at: int, event: Event) -> None:
        text = _STAMP.sub("", str(event.data["text"])[: 2 * TEXT])
        lane = self._lane(event.node)
        if found := _SERVES.search(text):
            worker = f"{found['kind']} {found['worker']}"
            if f"lane:{worker}" not in self.marks:
                self._put_lane(worker, worker, "worker", lane)
            self._serves(found["peer"], worker)
            lane = worker
        elif (found := _ON.search(text)) and f"lane:{found['kind']} {found['worker']}" in self.marks:
            lane = f"{found['kind']} {found['worker']}"
        self._point(at, lane, "log", text, bad=bool(_BAD.search(text)))

    def _serves(self, peer: str, worker: str) -> None:
        client = next((name for name, c in self._connections.items() if c.local == peer), "")
        if client:
            self._served_by(worker, client)
        else:
            self._workers[peer] = worker  # it will be told that it is connected

    def _served_by(self, worker: str, client: str) -> None:
        connection = self._connections[client]
        connection.lane = worker
        if connection.ends is not None:
            connection.ends.lane = worker
            if (life := connection.ends.life.get(False)) is not None:
                self._change(life, lane=worker)
        lane = self.marks[f"lane:{worker}"]
        self._change(lane, title=f"{client}'s {worker.split(' ')[0]}")

    def _draw_exited(self, at: int, event: Event) -> None:
        self._point(at, event.node, "exited", _words(event), bad=not event.data.get("expected"))
        self._is(event.node, "ended")

    def _draw_ready(self, at: int, event: Event) -> None:
        self._point(at, event.node, event.kind, _words(event))
        self._is(event.node, "up")

    def _draw_signalled(self, at: int, event: Event) -> None:
        self._point(at, event.node, event.kind, _words(event))
        if event.data["signal"] in ("SIGSTOP", "SIGCONT"):
            self._is(event.node, "paused" if event.data["signal"] == "SIGSTOP" else "up")

    def _draw_plugged(self, at: int, event: Event) -> None:
        self._point(at, event.node, event.kind, _words(event))
        self._is(event.node, "up" if event.kind == "plugged" else "unplugged")

    _draw_unplugged = _draw_plugged

    def _is(self, node: str, state: str) -> None:
        self._change(self.marks[f"lane:{self._lane(node)}"], state=state)

    def _draw_note(self, at: int, event: Event) -> None:
        lane = event.node or next((m["name"] for m in self.marks.values() if m["mark"] == "lane"), "")
        if lane:
            self._point(at, lane, "note", str(event.data["text"]))

    def _draw_counted(self, at: int, event: Event) -> None:
        texts = [counted(link, of) for link, of in event.data["links"].items()]
        self._put("counted", "counted", at=at, texts=texts)


def drawn(events: Iterable[Event], most: int = 0) -> list[Mark]:
    """All marks of a history, in the order in which they were begun; with `most`, of a longer one its beginning and its end."""
    drawing = Drawing()
    for event in events:
        drawing.feed(event)
        if most and len(drawing.marks) > most + most // 4:
            drawing.thin(most)
    if most and len(drawing.marks) > most:
        drawing.thin(most)
    return list(drawing.marks.values())


def _words(event: Event) -> str:
    said = in_words(event)
    return said[1] if said else ""


def _packet_words(words: list[str], what: str) -> str:
    """`SYN`; `retransmission, 12 bytes "hello"`."""
    rest = what.removeprefix("TCP").strip()
    return ", ".join([" ".join(words), rest] if rest and rest not in ("ACK", *words) else [" ".join(words)])


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[:TEXT] + "…"
