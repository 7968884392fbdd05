"""Random histories of a contract: what clients might do, and what a right server owes them then. Pure: chance is given.

A history is a list of Acts. A model goes along with them and says which steps each act makes: what is done, and what is expected. So
every history is an ordinary scenario, and what is left of it after acts were taken away is one, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

import yaml

CLIENTS = ("alice", "bob", "carol", "dave")
Steps = list[dict[str, Any]]


@dataclass(frozen=True)
class Act:
    """What one client does: a verb of the model, in one of the ways it knows."""

    verb: str
    who: str
    how: str = ""
    number: int = 0
    """Of what is said: no two say the same."""

    @property
    def word(self) -> str:
        return f"line-{self.number:02}"


class Model:
    """What is true of a right server at a moment of a history."""

    clauses: tuple[str, ...] = ()
    ways: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Verb → the ways to do it, the plainest first."""
    weights: ClassVar[dict[str, int]] = {}

    def __init__(self, links: bool) -> None:
        self.links = links

    def steps(self, act: Act) -> Steps | None:
        """The steps of an act; None where it cannot be done now."""
        return getattr(self, "_" + act.verb.replace("-", "_"))(act)  # type: ignore[no-any-return]

    def begin(self) -> Steps:
        return []

    def end(self) -> Steps:
        """What is asked when all is done."""
        return []

    def clients(self, acts: Sequence[Act]) -> list[Any]:
        """bob is a second program on alice's host, unless links are cut: they belong to hosts."""
        names = [name for name in CLIENTS if any(act.who == name for act in acts)]
        beside = "alice" in names and not any(act.verb == "away" for act in acts)
        return [{"bob": {"beside": "alice"}} if name == "bob" and beside else name for name in names]


class Chat(Model):
    clauses = ("chat.2", "chat.3", "chat.4", "chat.5")
    ways: ClassVar = {
        "join": ("",),
        "say": ("plainly", "in pieces", "two at once", "with \\r", "with blanks", "no UTF-8", "with quit in it", "behind an empty one", "at length"),
        "chorus": ("",),
        "half": ("",),
        "leave": ("fin", "rst", "quit", "half a line, then rst", "a last line, then fin", "quit, and more"),
        "slow": ("",),
        "away": ("",),
    }  # fmt: skip
    weights: ClassVar = {"join": 6, "say": 9, "chorus": 2, "half": 2, "leave": 4, "slow": 1, "away": 1}

    def __init__(self, links: bool) -> None:
        super().__init__(links)
        self.members: list[str] = []
        self.halves: dict[str, str] = {}
        self.past: list[str] = []
        """What was said, as far as a newcomer could wrongly hear of it."""
        self.newcomers: dict[str, list[str]] = {}

    def _join(self, act: Act) -> Steps | None:
        if act.who in self.members:
            return None
        self.members.append(act.who)
        if self.past:
            self.newcomers[act.who] = self.past[-3:]
        return [{"connect": act.who}]

    def _heard(self, word: str, among: Sequence[str] | None = None, **more: Any) -> Steps:
        """Everybody here gets this once, and a newcomer nothing from before it."""
        expected: dict[str, Any] = {}
        for name in self.members if among is None else among:
            old = self.newcomers.pop(name, None)
            texts = [*(old or []), word.strip("/")]
            expected[name] = {"text": f"/{'|'.join(texts)}/" if old else word, "once": True}
        if not expected:
            return []  # nobody told us that it has been delivered: it may be on its way when the next one joins
        same = list(expected.values())
        self.past.append(word.strip("/"))
        if all(value == same[0] for value in same) and set(expected) == set(self.everyone):
            return [{"expect": {"everyone": same[0]}, **more}]
        return [{"expect": expected, **more}]

    everyone: tuple[str, ...] = ()

    def _say(self, act: Act) -> Steps | None:
        who, word = act.who, act.word
        if who not in self.members or who in self.halves:
            return None
        match act.how:
            case "in pieces":
                said: Any = {"text": word, "pieces": [3, "rest"], "pause": "20ms"}
            case "two at once":
                second = word.replace("line", "more")
                heard = {name: {"in_order": [word, second], "once": True} for name in self.members}
                self.past.append(second)
                for name in self.members:
                    self.newcomers.pop(name, None)
                return [{"send": {who: {"bytes": f"{word}\n{second}\n"}}}, {"expect": heard}]
            case "with \\r":
                said = {"bytes": f"{word}\r\n"}
            case "with blanks":
                return [{"send": {who: f"   {word}"}}, *self._heard(f"   {word}")]
            case "no UTF-8":
                self.past.append(word)
                for name in self.members:
                    self.newcomers.pop(name, None)
                heard = {name: {"bytes": f"{word}\x00\xff\xfe"} for name in self.members}
                return [{"send": {who: {"bytes": f"{word}\x00\xff\xfe\n"}}}, {"expect": heard}]
            case "with quit in it":
                return [{"send": {who: f"{word} quitting"}}, *self._heard(f"{word} quitting")]
            case "behind an empty one":
                said = {"bytes": f"\n{word}\n"}
            case "at length":
                return [{"send": {who: {"text": word, "repeat": 2000}}}, *self._heard(f"/({word}){{2000}}/")]
            case _:
                said = word
        return [{"send": {who: said}}, *self._heard(word)]

    def _chorus(self, act: Act) -> Steps | None:
        speakers = [name for name in self.members if name not in self.halves]
        if len(speakers) < 2:
            return None
        family = f"{{who}}-{act.number:02}-{{{{n}}}}."
        self.past.append(f"{speakers[0]}-{act.number:02}-1.")
        said = {name: {"text": family.format(who=name), "lines": 12} for name in speakers}
        asked = []
        for name in speakers:
            wanted = {"in_order": family.format(who=name), "count": 12, "once": True}
            asked.append({"expect": dict.fromkeys(self.members, wanted)})
        for name in self.members:
            self.newcomers.pop(name, None)
        return [{"send": said}, *({**each, "within": "5s"} for each in asked)]

    def _half(self, act: Act) -> Steps | None:
        if act.who not in self.members:
            return None
        if act.who in self.halves:
            word = self.halves.pop(act.who)
            return [{"send": {act.who: {"bytes": f"{word[4:]}\n"}}}, *self._heard(word)]
        self.halves[act.who] = act.word
        return [{"send": {act.who: {"bytes": act.word[:4]}}}]

    def _leave(self, act: Act) -> Steps | None:
        who = act.who
        if who not in self.members or who in self.halves:
            return None
        self.members.remove(who)
        self.newcomers.pop(who, None)
        match act.how:
            case "rst":
                return [{"abort": who}]
            case "quit":
                return [{"send": {who: "quit"}}, {"expect": {who: "eof"}}, {"close": who}]
            case "half a line, then rst":
                return [{"send": {who: {"bytes": "unfinis"}}}, {"abort": who}]
            case "a last line, then fin":
                return [{"send": {who: {"bytes": act.word}}}, {"half-close": who}, *self._heard(act.word), {"close": who}]  # fmt: skip
            case "quit, and more":
                self.past.append(act.word)
                for name in self.members:
                    self.newcomers.setdefault(name, []).append(act.word)
                return [{"send": {who: {"bytes": f"quit\n{act.word}\n"}}}, {"expect": {who: "eof"}}, {"close": who}]  # fmt: skip
            case _:
                return [{"close": who}]

    def _slow(self, act: Act) -> Steps | None:
        """One does not read, another says a lot, and the rest hear it."""
        others = [name for name in self.members if name != act.who and name not in self.halves]
        if act.who not in self.members or not others:
            return None
        speaker = others[0]
        rest = [name for name in self.members if name != act.who]
        big: Any = {"text": "0123456789abcdef", "repeat": 4000, "lines": 11}
        heard = self._heard(act.word, rest, within="5s")
        self.newcomers.pop(act.who, None)
        return [{"stall": act.who}, {"send": {speaker: big}}, {"send": {speaker: act.word}}, *heard, {"read": act.who}, {"expect": {act.who: act.word}, "within": "10s"}]  # fmt: skip

    def _away(self, act: Act) -> Steps | None:
        """The cable of one is cut while another speaks; it hears that when it is back."""
        others = [name for name in self.members if name != act.who and name not in self.halves]
        if not self.links or act.who not in self.members or not others:
            return None
        rest = [name for name in self.members if name != act.who]
        heard = self._heard(act.word, rest)
        self.newcomers.pop(act.who, None)
        return [{"cut": {"between": [act.who, "server"]}}, {"send": {others[0]: act.word}}, *heard, {"heal": "all"}, {"expect": {act.who: act.word}, "within": "10s"}]  # fmt: skip

    def end(self) -> Steps:
        steps: Steps = []
        for who in list(self.halves):
            steps += self._half(Act("half", who)) or []
        if self.members:
            steps += [{"send": {self.members[-1]: "the end"}}, *self._heard("the end")]
        return steps


class Echo(Model):
    clauses = ("echo.1", "echo.2", "echo.3", "echo.4", "echo.5")
    ways: ClassVar = {
        "join": ("",),
        "say": ("plainly", "in pieces", "without newline", "no text", "with blanks", "a lot"),
        "finish": ("at once", "with much still owed"),
        "leave": ("fin", "rst", "rst in the middle"),
        "slow": ("",),
    }
    weights: ClassVar = {"join": 6, "say": 9, "finish": 3, "leave": 3, "slow": 1}

    def __init__(self, links: bool) -> None:
        super().__init__(links)
        self.here: list[str] = []

    def _join(self, act: Act) -> Steps | None:
        if act.who in self.here:
            return None
        self.here.append(act.who)
        return [{"connect": act.who}]

    def _say(self, act: Act) -> Steps | None:
        if act.who not in self.here:
            return None
        said: Any = {
            "in pieces": {"text": act.word, "pieces": ["each"], "pause": "1ms"},
            "without newline": act.word,
            "no text": {"bytes": f"{act.word}\x00\xff\xfe\r\n"},
            "with blanks": {"bytes": f"  {act.word} \t\n"},
            "a lot": {"text": act.word, "repeat": 20000},
        }.get(act.how, {"bytes": f"{act.word}\n"})
        return [{"send": {act.who: said}}, {"expect": {act.who: {"exactly": "sent"}}, "within": "5s"}]

    def _finish(self, act: Act) -> Steps | None:
        if act.who not in self.here:
            return None
        self.here.remove(act.who)
        ending: Steps = [{"half-close": act.who}]
        if act.how == "with much still owed":
            ending = [{"stall": act.who}, {"send": {act.who: {"text": act.word, "repeat": 15000}}}, {"half-close": act.who}, {"wait": "100ms", "note": "the server sees the end of it"}, {"read": act.who}]  # fmt: skip
        return [
            *ending,
            {"expect": {act.who: {"exactly": "sent"}}, "within": "5s"},
            {"expect": {act.who: "eof"}},
            {"close": act.who},
        ]

    def _leave(self, act: Act) -> Steps | None:
        if act.who not in self.here:
            return None
        self.here.remove(act.who)
        if act.how == "rst in the middle":
            return [{"stall": act.who}, {"send": {act.who: {"text": act.word, "repeat": 8000}}}, {"abort": act.who}]  # fmt: skip
        return [{"abort" if act.how == "rst" else "close": act.who}]

    def _slow(self, act: Act) -> Steps | None:
        others = [name for name in self.here if name != act.who]
        if act.who not in self.here or not others:
            return None
        return [
            {"stall": act.who},
            {"send": {act.who: {"text": act.word, "repeat": 25000}}, "within": "5s"},
            {"send": {others[0]: act.word}},
            {"expect": {others[0]: {"exactly": "sent"}}},
            {"read": act.who},
            {"expect": {act.who: {"exactly": "sent"}}, "within": "10s"},
        ]

    def end(self) -> Steps:
        return [
            {"send": dict.fromkeys(self.here, "the end")},
            {"expect": {name: {"exactly": "sent"} for name in self.here}},
        ] if self.here else []  # fmt: skip


class UdpEcho(Model):
    clauses = ("udp-echo.1",)
    ways: ClassVar = {"say": ("plainly", "with a newline", "no text", "nothing", "a lot"), "move": ("",)}
    weights: ClassVar = {"say": 9, "move": 2}

    def _say(self, act: Act) -> Steps | None:
        said: Any = {
            "with a newline": {"bytes": f"{act.word}\n"},
            "no text": {"bytes": f"{act.word}\x00\xff\xfe"},
            "nothing": {"bytes": ""},
            "a lot": {"text": act.word, "repeat": 5000},
        }.get(act.how, act.word)
        return [{"send": {act.who: said}}, {"expect": {act.who: {"exactly": "sent"}}}]

    def _move(self, act: Act) -> Steps | None:
        return [{"connect": act.who}]


class Registry(Model):
    clauses = ("registry.1", "registry.2", "registry.3", "registry.4", "registry.5")
    ways: ClassVar = {
        "register": ("plainly", "with white space"),
        "deregister": ("plainly", "with white space"),
        "say": ("plainly", "a word like a command", "no text", "a lot"),
        "whisper": ("plainly", "nothing", "no text"),
    }
    weights: ClassVar = {"register": 7, "deregister": 3, "say": 8, "whisper": 2}

    def __init__(self, links: bool) -> None:
        super().__init__(links)
        self.members: list[str] = []
        self.strays: list[str] = []

    def _command(self, act: Act, word: str) -> Steps:
        said: Any = word if act.how == "plainly" else {"bytes": f" \t{word}\r\n"}
        return [{"send": {act.who: said}}, {"expect": {act.who: "any"}}]

    def _register(self, act: Act) -> Steps | None:
        if act.who not in self.members:
            self.members.append(act.who)
        return self._command(act, "#REG")

    def _deregister(self, act: Act) -> Steps | None:
        if act.who in self.members:
            self.members.remove(act.who)
        return self._command(act, "#DEREG")

    def _say(self, act: Act) -> Steps | None:
        if act.who not in self.members:
            return None
        word = act.word
        heard: Any = {"text": word, "once": True}
        said: Any = word
        match act.how:
            case "a word like a command":
                said = ("#REGISTER ", "say #REG ", "#reg ", "#DEREGISTER ")[act.number % 4] + word
                heard = {"text": said, "once": True}
            case "no text":
                said = {"bytes": f"{word}\x00\xff\xfe"}
                heard = {"bytes": f"{word}\x00\xff\xfe", "once": True}
            case "a lot":
                said = {"text": word, "repeat": 3000}
                heard = {"text": f"/({word}){{3000}}/", "once": True}
        return [{"send": {act.who: said}}, {"expect": dict.fromkeys(self.members, heard)}]

    def _whisper(self, act: Act) -> Steps | None:
        """A stranger says something, and nobody hears it."""
        if act.who in self.members:
            return None
        if act.how == "nothing":
            return [{"send": {act.who: {"bytes": ""}}}]
        self.strays.append(act.word)
        return [{"send": {act.who: act.word if act.how == "plainly" else {"bytes": f"{act.word}\xff\x00"}}}]

    def end(self) -> Steps:
        if not self.members:
            return []
        texts = [*self.strays, "the end"]
        heard = {"text": f"/{'|'.join(texts)}/" if self.strays else "the end", "once": True}
        return [{"send": {self.members[0]: "the end"}}, {"expect": dict.fromkeys(self.members, heard)}]


MODELS: dict[str, type[Model]] = {"chat": Chat, "echo": Echo, "udp-echo": UdpEcho, "registry": Registry}


def generate(contract: str, rng: Random, links: bool, most: int = 12) -> list[Act]:
    """A history of up to `most` acts, each of which can be done when its turn comes."""
    model = MODELS[contract](links)
    names = CLIENTS[: rng.choice((2, 2, 3, 3, 4))]
    verbs, weights = list(model.weights), list(model.weights.values())
    acts: list[Act] = []
    wanted = rng.randint(3, most)
    for _ in range(wanted * 6):
        if len(acts) >= wanted:
            break
        verb = rng.choices(verbs, weights)[0]
        ways = model.ways[verb]
        how = ways[0] if rng.random() < 0.4 else rng.choice(ways)
        act = Act(verb, rng.choice(names), how, len(acts) + 1)
        if model.steps(act) is not None:
            acts.append(act)
    return acts


def steps_of(contract: str, acts: Sequence[Act], links: bool) -> tuple[Steps, list[Act]]:
    """The steps of a history, and the acts that could be done: others are left out."""
    model = MODELS[contract](links)
    steps: Steps = model.begin()
    done = []
    for act in acts:
        if (made := model.steps(act)) is not None:
            done.append(act)
            steps += made
    return _joined([*steps, *model.end()]), done


def _joined(steps: Steps) -> Steps:
    """Connects that follow one another are one step."""
    result: Steps = []
    for step in steps:
        if result and set(step) == {"connect"} == set(result[-1]):
            before = result[-1]["connect"]
            names = before if isinstance(before, list) else [before]
            if step["connect"] not in names:
                result[-1] = {"connect": [*names, step["connect"]]}
                continue
        result.append(step)
    return result


def scenario(
    contract: str, service: str, acts: Sequence[Act], links: bool, title: str, comments: Sequence[str] = ()
) -> str:
    """The history as a scenario file."""
    steps, done = steps_of(contract, acts, links)
    model = MODELS[contract](links)
    lines = [f"# {comment}" for comment in comments]
    lines += [f"title: {_flow(title)}"]
    lines += [f"clauses: [{', '.join(MODELS[contract].clauses)}]", f"service: {service}"]
    lines += [f"clients: {_flow(model.clients(done) or ['alice'])}", "steps:"]
    for step in steps:
        first, *more = (f"{key}: {_flow(value)}" for key, value in step.items())
        lines += [f"  - {first}", *(f"    {each}" for each in more)]
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Everything is said where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.Node:
        """On one line, whatever is in it."""
        style = None if data.isprintable() and data.isascii() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _flow(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=1 << 20, sort_keys=False)
    return text.strip().removesuffix("\n...").strip()


# ── making a history smaller ──────────────────────────────────────────────────────────────────────────────────────────


def smaller(contract: str, acts: Sequence[Act], links: bool) -> list[list[Act]]:
    """Histories that are simpler than this one, the boldest first: without a client, without half of the acts, without one act, and
    with one act done in the plainest way."""
    listed = list(acts)
    names = dict.fromkeys(act.who for act in listed)
    result = [[act for act in listed if act.who != name] for name in names]
    half = len(listed) // 2
    if half > 1:
        result += [listed[:half], listed[half:]]
    result += [listed[:i] + listed[i + 1 :] for i in range(len(listed))]
    ways = MODELS[contract].ways
    for i, act in enumerate(listed):
        if act.how != ways[act.verb][0]:
            result.append([*listed[:i], replace(act, how=ways[act.verb][0]), *listed[i + 1 :]])
    return [history for history in result if steps_of(contract, history, links)[0]]
