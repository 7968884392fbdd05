"""A drawing for slides and lecture notes: SVG that stands alone, and Mermaid text. Pure: made of marks (socklab/diagram.py).

The layout is the page's (static/diagram.js): each moment at which something happens is a row further down.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape

from socklab.diagram import Mark
from socklab.sockets import GONE
from socklab.source import cells
from socklab.words import fate_of

KINDS = ("messages", "wire", "log", "other")
"""What a picture can leave out: what programs said, what TCP did and packets that were lost, servers' logs, all else."""

_ROW, _HEAD, _AXIS, _LANE = 24, 52, 70, 230
_LETTER = 9.6  # of the title, about
_STYLE = """
  text { font: 13px "Noto Sans", "DejaVu Sans", "Segoe UI", sans-serif; fill: #1b1f24 }
  .name { font-weight: 600; text-anchor: middle } .small { font-size: 11px; fill: #5b6470 } .middle { text-anchor: middle }
  .title { font-size: 16px; font-weight: 600 }
  .lane { stroke: #5b6470; stroke-dasharray: 4 4 }
  .message { stroke: #0058a3; fill: #0058a3 } .back { stroke: #00694c; fill: #00694c } .wire { stroke: #6b5b00; fill: #6b5b00 }
  .bad { stroke: #b3261e; fill: #b3261e } .wire line, .bad.wire line { stroke-dasharray: 5 3 }
  .band { fill: #a84300; fill-opacity: .12; stroke: #a84300; stroke-width: 1 } .life { fill: #6a3d9a; fill-opacity: .35 }
  .opens { fill: none; stroke: #6a3d9a } .waits { stroke: #6a3d9a; stroke-width: 3; stroke-dasharray: 2 4 } text.state { fill: #6a3d9a; text-anchor: end }
  text.bad { fill: #b3261e; stroke: none } text.wire { fill: #6b5b00; stroke: none } text.fault { fill: #a84300; font-weight: 600 }
"""


def kind_of(mark: Mark) -> str:
    if mark["mark"] == "arrow":
        return "wire" if mark.get("wire") else "messages"
    return "log" if mark["what"] == "log" else "other"


def when(mark: Mark) -> int:
    """When an arrow or a point begins, as far as that is known (ns from the beginning of the play)."""
    if mark["mark"] == "point":
        return int(mark["at"])
    return int(mark["start"] if mark["start"] is not None else mark["end"])


def rows(marks: Iterable[Mark], kinds: Collection[str] = KINDS, nodes: Collection[str] = ()) -> list[Mark]:
    """Arrows and points, in the order of time; with `nodes`, only what concerns one of these."""
    found = []
    for mark in marks:
        if mark["mark"] in ("arrow", "point") and kind_of(mark) in kinds:
            ends = {mark.get("lane"), mark.get("source"), mark.get("target")}
            if not nodes or ends & set(nodes):
                found.append(mark)
    return sorted(found, key=when)


def svg(marks: Sequence[Mark], kinds: Collection[str] = KINDS, nodes: Collection[str] = ()) -> str:
    """A picture of all of a play. Its size is that of its contents."""
    return _Picture(marks, rows(marks, kinds, nodes), "wire" in kinds).drawn()


class _Picture:
    def __init__(self, marks: Sequence[Mark], shown: Sequence[Mark], states: bool) -> None:
        """`states`: also those of TCP."""
        self.marks = marks
        self.rows = shown
        self.states = states
        self.owners = {m["name"]: m["of"] for m in marks if m["mark"] == "lane" and m["role"] == "worker"}
        concerned = {self._lane(str(m[k])) for m in shown for k in ("lane", "source", "target") if k in m}
        lanes = [m for m in marks if m["mark"] == "lane" and m["name"] in concerned]
        self.lanes = {lane["name"]: lane for lane in lanes}
        gap = _LANE if len(lanes) <= 6 else max(90, 1400 // len(lanes))
        self.x = {name: _AXIS + gap * (i + 0.5) for i, name in enumerate(self.lanes)}
        self.gap = gap
        self.title = next((str(m["title"]) for m in marks if m["mark"] == "play"), "")
        self.width = max(_AXIS + gap * max(len(lanes), 1) + 20, 24 + _LETTER * cells(self.title))
        self._scale()

    def _lane(self, name: str) -> str:
        """A worker's things are its server's here: a slide is small."""
        return str(self.owners.get(name, name))

    def _scale(self) -> None:
        bands = [m for m in self.marks if m["mark"] == "band"]
        starts = {when(m) for m in self.rows} | {int(b["start"]) for b in bands}
        ends = {int(m["end"]) for m in [*self.rows, *bands] if m.get("end") is not None}
        states = {
            int(t) for m in self.marks if m["mark"] == "life" and self.states for t, _ in m["states"]
        }  # each has a line that tells it
        labels = Counter(start for start, _, _ in {(int(b["start"]), b["end"], b["text"]) for b in bands})
        first = min(starts, default=0)
        self.times = sorted(t for t in {*starts, *ends, *states} if t >= first)
        self.heights: list[float] = []
        y, last = float(_HEAD + 40), None
        for t in self.times:
            if last is not None:
                pause = min(30.0, 5 * math.log2(1 + (t - last) / 5e6))
                y += (_ROW if t in starts else 14 if t in states else 8) + pause + 12 * labels[last]
            self.heights.append(y)
            last = t
        self.height = y + 40

    def y(self, t: int) -> float:
        at = max(bisect_right(self.times, t) - 1, 0)
        return self.heights[at] if self.heights else _HEAD

    def drawn(self) -> str:
        title = self.title
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_safe(title)}">',
            f"<title>{_safe(title)}</title><style>{_STYLE}</style>",
            f'<rect width="{self.width:g}" height="{self.height:g}" fill="#fff"/>',
            f'<text class="title" x="12" y="22">{_safe(title)}</text>',
            *self._bands(),
            *self._lanes(),
            *self._axis(),
        ]
        for mark in self.rows:
            parts += self._arrow(mark) if mark["mark"] == "arrow" else self._point(mark)
        return "\n".join([*parts, "</svg>", ""])

    def _lanes(self) -> Iterable[str]:
        for name, lane in self.lanes.items():
            x = self.x[name]
            yield f'<text class="name" x="{x:g}" y="{_HEAD - 4}">{_short(lane["title"], self.gap - 8)}</text>'
            yield f'<text class="small middle" x="{x:g}" y="{_HEAD + 12}">{_safe(str(lane["address"]))}</text>'
            yield f'<line class="lane" x1="{x:g}" x2="{x:g}" y1="{_HEAD + 20}" y2="{self.height - 16:g}"/>'
        for life in self.marks:
            if life["mark"] == "life" and self._lane(life["lane"]) in self.x:
                yield from self._life(life)

    def _life(self, life: Mark) -> Iterable[str]:
        """A socket in its states: hollow while it opens, full when established, half when a side has ended, dotted in TIME_WAIT."""
        beside = min(life["beside"], 5)
        x = self.x[self._lane(life["lane"])] - 9 * beside
        known = life["states"] if self.states else []
        # A program lets go of its socket before the kernel does; where none came about, there is no more of it.
        last = life["end"] if life["peer"] == "server" and not life["number"] else None
        stretches: list[tuple[int, int | None, str]] = [(life["start"], life["end"], "")]
        if known:
            ends = [*(at for at, _ in known[1:]), last]
            stretches = [(at, end, state) for (at, state), end in zip(known, ends, strict=True)]
        lane = self._lane(life["lane"])
        alone = not any(
            m["mark"] == "life" and m["beside"] and self._lane(m["lane"]) == lane for m in self.marks
        )
        told: list[tuple[float, str]] = []
        for begin, end, state in stretches:
            if state == GONE:
                continue
            y0, y1 = self.y(begin), self.height - 20 if end is None else self.y(end)
            if state == "TIME_WAIT":
                yield f'<line class="waits" x1="{x:g}" x2="{x:g}" y1="{y0:g}" y2="{y1:g}"/>'
            else:
                opens, whole = state.startswith("SYN"), state in ("", "ESTABLISHED")
                width = 6 if opens or whole else 3
                kind = "opens" if opens else "life"
                yield f'<rect class="{kind}" x="{x - 3:g}" y="{y0:g}" width="{width}" height="{max(y1 - y0, 2):g}"/>'
            if told and y0 < told[-1][0] + 12:
                told[-1] = (told[-1][0], f"{told[-1][1]}, {state}")
            elif state:
                told.append((y0, state))
        if alone and self.gap >= 150:
            for y, text in told:
                yield f'<text class="small state" x="{x - 7:g}" y="{y + 12:g}">{_safe(text)}</text>'

    def _bands(self) -> Iterable[str]:
        """Faults that are alike from beginning to end are one band."""
        alike: dict[tuple[int, int | None, str], list[Mark]] = {}
        for band in self.marks:
            if band["mark"] == "band" and {band["source"], band["target"]} <= set(self.x):
                alike.setdefault((band["start"], band["end"], band["text"]), []).append(band)
        told: Counter[int] = Counter()
        for (start, end, text), bands in alike.items():
            places = sorted(self.x[band[way]] for band in bands for way in ("source", "target"))
            x0, x1 = places[0], places[-1]
            y0, y1 = self.y(start), self.height - 20 if end is None else self.y(end)
            yield f'<rect class="band" x="{x0:g}" y="{y0 - 8:g}" width="{x1 - x0:g}" height="{max(y1 - y0, 6):g}"/>'
            label = f"{_links(bands)}: {text}"
            room = x1 - x0 - 8 if x1 < max(self.x.values()) else self.width - x0 - 14
            yield f'<text class="small fault" x="{x0 + 6:g}" y="{y0 + 4 + 12 * told[start]:g}">{_short(label, room)}</text>'
            told[start] += 1

    def _axis(self) -> Iterable[str]:
        last = -99.0
        for t, y in zip(self.times, self.heights, strict=True):
            if y - last >= 22:
                last = y
                yield f'<text class="small" x="8" y="{y + 4:g}">{t / 1e9:.3f} s</text>'

    def _arrow(self, mark: Mark) -> Iterable[str]:
        source, target = self._lane(mark["source"]), self._lane(mark["target"])
        x0, x1 = self.x[source], self.x[target]
        y0 = self.y(mark["start"]) if mark["start"] is not None else self.y(mark["end"]) - 6
        y1 = self.y(mark["end"]) if mark["end"] is not None else y0 + 6
        lost = mark["fate"] in ("dropped", "refused")
        if lost:
            x1, y1 = x0 + (x1 - x0) * 0.55, y0 + (y1 - y0) * 0.55
        way = "message" if self.lanes[source]["role"] == "client" else "back"
        classes = " ".join(
            c for c in ("wire" if mark.get("wire") else way, "bad" if mark["fate"] else "") if c
        )
        angle = math.atan2(y1 - y0, x1 - x0)
        if lost:
            end = f"M{x1 - 5:g} {y1 - 5:g}l10 10m0 -10l-10 10"
        else:
            a, b = angle - 0.42, angle + 0.42
            end = f"M{x1:g} {y1:g}L{x1 - 8 * math.cos(a):.1f} {y1 - 8 * math.sin(a):.1f}L{x1 - 8 * math.cos(b):.1f} {y1 - 8 * math.sin(b):.1f}Z"
        yield (
            f'<g class="{classes}"><line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke-width="1.6"/>'
            f'<path d="{end}" stroke-width="{2.2 if lost else 0.5}"/></g>'
        )
        text = mark["text"] + (f"  {fate_of(mark)}" if mark["fate"] else "")
        room = abs(self.x[target] - x0) - 24 if source != target else self.gap
        left = min(x0, self.x[target]) + 12
        yield f'<text class="{classes.split()[-1] if mark["fate"] or mark.get("wire") else ""}" x="{left:g}" y="{(y0 + y1) / 2 - 5:g}">{_short(text, room)}</text>'

    def _point(self, mark: Mark) -> Iterable[str]:
        x, y = self.x[self._lane(mark["lane"])], self.y(mark["at"])
        classes = "bad" if mark["bad"] else "small"
        colour = "#b3261e" if mark["bad"] else "#6a3d9a"
        yield f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>'
        yield f'<text class="{classes}" x="{x + 9:g}" y="{y + 4:g}">{_short(mark["text"], self.gap - 16)}</text>'


def _links(bands: Sequence[Mark]) -> str:
    """`bob ↔ alice, server`: links by their ends, each way that there is."""
    ways: dict[tuple[str, str], str] = {}
    for band in bands:
        source, target = str(band["source"]), str(band["target"])
        if (target, source) in ways:
            ways[target, source] = "↔"
        else:
            ways[source, target] = "→"
    common = set.intersection(*({*ends} for ends in ways))
    if len(ways) == 1 or not common or set(ways.values()) != {"↔"}:
        return ", ".join(f"{a} {way} {b}" for (a, b), way in ways.items())
    one = common.pop()
    return f"{one} ↔ {', '.join(b if a == one else a for a, b in ways)}"


def mermaid(marks: Sequence[Mark], kinds: Collection[str] = KINDS, nodes: Collection[str] = ()) -> str:
    """A sequence diagram in Mermaid's language (https://mermaid.js.org/syntax/sequenceDiagram.html): for Markdown that draws it."""
    shown = rows(marks, kinds, nodes)
    owners = {m["name"]: m["of"] for m in marks if m["mark"] == "lane" and m["role"] == "worker"}
    lanes = [m for m in marks if m["mark"] == "lane" and m["role"] != "worker"]
    names = {m["name"]: f"n{i}" for i, m in enumerate(lanes)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {names[m['name']]} as {_plain(m['title'])}" for m in lanes]

    def lane(name: str) -> str:
        return names[str(owners.get(name, name))]

    entries = [(when(m), _mermaid_row(m, lane)) for m in shown]
    for band in (m for m in marks if m["mark"] == "band" and {m["source"], m["target"]} <= set(names)):
        both = f"{lane(band['source'])},{lane(band['target'])}"
        way = _plain(f"{band['source']} → {band['target']}")
        entries.append((int(band["start"]), f"Note over {both}: {way} {_plain(band['text'])}"))
        if band["end"] is not None:
            entries.append((int(band["end"]), f"Note over {both}: {way} whole again"))
    lines += [f"    {text}" for _, text in sorted(entries, key=lambda entry: entry[0])]
    return "\n".join(lines) + "\n"


def _mermaid_row(mark: Mark, lane: Callable[[str], str]) -> str:
    if mark["mark"] == "point":
        return f"Note right of {lane(mark['lane'])}: {_plain(mark['text'])}"
    lost = mark["fate"] in ("dropped", "refused")
    arrow = "-x" if lost else "-->>" if mark.get("wire") else "->>"
    fate = f" ({mark['fate']})" if mark["fate"] else ""
    return f"{lane(mark['source'])}{arrow}{lane(mark['target'])}: {_plain(mark['text'])}{fate}"


def _plain(text: str) -> str:
    """A text that Mermaid takes for a text: `;` and `#` would end it, `<` begin markup."""
    cut = text if len(text) <= 60 else text[:59] + "…"
    return "".join(f"#{ord(c)};" if c in '#;<>&"{}:%' else c if c.isprintable() else " " for c in cut) or " "


def _safe(text: str) -> str:
    """What XML can carry: printable, and markup as text."""
    return escape("".join(c if c.isprintable() else "·" for c in text))


def _short(text: str, room: float) -> str:
    """As much of a text as fits into so many pixels; wide characters count twice."""
    width = 0.0
    for fits, c in enumerate(text):
        width += 13 if unicodedata.east_asian_width(c) in "WF" else 6.9
        if width > max(room, 24):
            return _safe(text[: max(fits - 1, 1)] + "…")
    return _safe(text)
