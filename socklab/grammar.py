"""A small grammar for YAML trees: each type parses, and says of itself what it takes as JSON Schema.

One description serves both, so the editor's schema and the program accept and refuse the same files. What a schema
cannot say (that a name is known, that a capture was made before) is checked afterwards, in `reader`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from socklab.source import Map, Mark, Problem, Scalar, Seq, Tree, kind_of, nearest

Schema = dict[str, Any]

VARIABLE = r"\{[A-Za-z_][A-Za-z0-9_]*\}"
_VARIABLE: Schema = {"type": "string", "pattern": f"^{VARIABLE}$"}
"""A matrix variable, whose value is known only when it is put in."""
_WITH_VARIABLE: Schema = {"type": "string", "pattern": VARIABLE}
"""A text that is made with one, like "{size}ms"."""
MAX_SIZE = 999_999_999
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def whole_number(tree: Tree) -> int | None:
    """The whole number that a scalar without quotes is to every reader of YAML 1.2 (its core schema), else None."""
    if not isinstance(tree, Scalar) or not tree.plain or len(tree.text) > 30:
        return None
    text = tree.text
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        number = float(text)
        return int(number) if number.is_integer() else None
    return None


class Str(str):
    """A text that remembers where it stood, and whether it was quoted there."""

    __slots__ = ("mark", "plain")
    mark: Mark
    plain: bool

    @classmethod
    def of(cls, scalar: Scalar) -> Str:
        text = cls(scalar.text)
        text.mark = scalar.mark
        text.plain = scalar.plain
        return text


class Type:
    """What may stand at a place. `what` names it in messages: "expected {what}, got …"."""

    what: str

    def parse(self, tree: Tree) -> Any:
        raise NotImplementedError

    def schema(self) -> Schema:
        raise NotImplementedError

    def wrong(self, tree: Tree) -> Problem:
        return Problem(tree.mark, f"expected {self.what}, got {kind_of(tree)}")


@dataclass(frozen=True)
class Text(Type):
    """Any scalar, as it is written."""

    what: str = "a text"

    def parse(self, tree: Tree) -> Str:
        if not isinstance(tree, Scalar):
            hint = '; quote a text with { } or [ ] in it, like "{n}"' if isinstance(tree, Map | Seq) else ""
            raise Problem(tree.mark, f"expected {self.what}, got {kind_of(tree)}{hint}")
        if tree.empty:
            shown = f'"{tree.text}"' if tree.text else '""'
            raise Problem(
                tree.mark,
                f"expected {self.what}, got nothing; an empty text or the word null is written in quotes: {shown}",
            )
        return Str.of(tree)

    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean"]}


@dataclass(frozen=True)
class Word(Type):
    """A scalar of a fixed shape, such as a name or a duration."""

    pattern: str
    what: str
    choices: tuple[str, ...] = ()

    def parse(self, tree: Tree) -> Str:
        if not isinstance(tree, Scalar) or not re.fullmatch(self.pattern, tree.text):
            problem = self.wrong(tree)
            if isinstance(tree, Scalar) and (close := nearest(tree.text, self.choices)):
                problem.message += f".{close}"
            raise problem
        if tree.plain and (tree.empty or tree.text in TRUE + FALSE):
            raise Problem(
                tree.mark,
                f'expected {self.what}; {tree.text} is no text to other readers of YAML, write "{tree.text}"',
            )
        return Str.of(tree)

    def schema(self) -> Schema:
        return {"anyOf": [self.key_schema(), _WITH_VARIABLE]}

    def key_schema(self) -> Schema:
        """Where a matrix variable cannot stand."""
        if self.choices:
            return {"enum": list(self.choices)}
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


def choice(*words: str) -> Word:
    shown = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
    return Word("|".join(re.escape(w) for w in words), shown, words)


@dataclass(frozen=True)
class Number(Type):
    """A whole number, written without quotes, or a matrix variable in quotes."""

    minimum: int
    maximum: int
    what: str = "a whole number"

    def parse(self, tree: Tree) -> int:
        number = whole_number(tree)
        if number is None:
            problem = self.wrong(tree)
            if isinstance(tree, Scalar) and not tree.plain and re.fullmatch(r"-?[0-9]+", tree.text):
                problem.message += "; a number stands without quotes"
            raise problem
        if not self.minimum <= number <= self.maximum:
            raise Problem(
                tree.mark, f"expected {self.what} from {self.minimum} to {self.maximum}, got {number}"
            )
        return number

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        return {"anyOf": [number, _VARIABLE]}


class Setting(Number):
    """A whole number, or true and false for 1 and 0."""

    def parse(self, tree: Tree) -> int:
        if isinstance(tree, Scalar) and tree.plain and tree.text in TRUE + FALSE:
            return int(tree.text in TRUE)
        return super().parse(tree)

    def schema(self) -> Schema:
        return {"anyOf": [super().schema(), {"type": "boolean"}]}


@dataclass(frozen=True)
class Flag(Type):
    """`true`, where only that makes sense."""

    what: str = "true"

    def parse(self, tree: Tree) -> bool:
        if not isinstance(tree, Scalar) or not tree.plain or tree.text not in TRUE:
            raise Problem(
                tree.mark, f"expected true, got {kind_of(tree)}; leave the key out for the opposite"
            )
        return True

    def schema(self) -> Schema:
        return {"anyOf": [{"const": True}, _VARIABLE]}


@dataclass(frozen=True)
class Size(Type):
    """A number of bytes, or one of a few words; as it is written."""

    words: tuple[str, ...]
    what: str

    def parse(self, tree: Tree) -> Str:
        if isinstance(tree, Scalar) and tree.text in self.words:
            return Str.of(tree)
        number = whole_number(tree)
        if number is None or not 1 <= number <= MAX_SIZE:
            raise self.wrong(tree)
        return Str.of(Scalar(str(number), True, tree.mark))

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": 1, "maximum": MAX_SIZE}
        return {"anyOf": [number, {"enum": list(self.words)}, _VARIABLE]}


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


@dataclass(frozen=True)
class Duration(Type):
    """A time with its unit, in seconds as a float."""

    what: str = "a duration with its unit, like 200ms or 2s"

    def parse(self, tree: Tree) -> float:
        found = (
            re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|min)", tree.text)
            if isinstance(tree, Scalar)
            else None
        )
        if not found:
            raise self.wrong(tree)
        return float(found.group(1)) * _UNITS[found.group(2)]

    def schema(self) -> Schema:
        written = {"type": "string", "pattern": r"^[0-9]{1,9}(?:\.[0-9]{1,9})?(us|ms|s|min)$"}
        return {"anyOf": [written, _WITH_VARIABLE]}


@dataclass(frozen=True)
class Share(Type):
    """A percentage over 0 and up to 100, as a float from 0 to 1."""

    what: str = "a percentage over 0% and up to 100%, like 10% or 0.5%"

    def parse(self, tree: Tree) -> float:
        found = (
            re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", tree.text) if isinstance(tree, Scalar) else None
        )
        if not found or not 0 < float(found[1]) <= 100:
            raise self.wrong(tree)
        return float(found[1]) / 100

    def schema(self) -> Schema:
        digits = r"(?:0{0,2}\.0*[1-9][0-9]*|0{0,2}[1-9](?:\.[0-9]+)?|0?[1-9][0-9](?:\.[0-9]+)?|100(?:\.0+)?)"
        return {"anyOf": [{"type": "string", "pattern": f"^{digits}%$", "maxLength": 14}, _WITH_VARIABLE]}


@dataclass(frozen=True)
class Spread(Type):
    """A duration, or one that varies: `100ms +- 20ms`. (seconds, seconds up and down)."""

    what: str = "a duration, or one that varies, like 100ms or 100ms +- 20ms"

    def parse(self, tree: Tree) -> tuple[float, float]:
        if not isinstance(tree, Scalar):
            raise self.wrong(tree)
        middle, _, around = (part.strip() for part in tree.text.partition("+-"))
        duration = Duration(self.what)
        parts = [Scalar(part, tree.plain, tree.mark) for part in (middle, around or "0s")]
        if "+-" in tree.text and not around:
            raise self.wrong(tree)
        try:
            seconds, spread = (duration.parse(part) for part in parts)
        except Problem:
            raise self.wrong(tree) from None
        if spread > seconds:
            raise Problem(tree.mark, f"{tree.text}: a packet cannot arrive before it was sent; vary by less")
        return seconds, spread

    def schema(self) -> Schema:
        one = r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?:us|ms|s|min)"
        written = {"type": "string", "pattern": rf"^\s*{one}\s*(?:\+-\s*{one}\s*)?$"}
        return {"anyOf": [written, _WITH_VARIABLE]}


_BITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}


@dataclass(frozen=True)
class Rate(Type):
    """Bits a second, as a float."""

    what: str = "a rate in bits a second, like 64kbit or 1.5Mbit"

    def parse(self, tree: Tree) -> float:
        found = (
            re.fullmatch(r"([1-9][0-9]{0,8}(?:\.[0-9]{1,9})?)(bit|kbit|Mbit|Gbit)", tree.text)
            if isinstance(tree, Scalar)
            else None
        )
        if not found:
            raise self.wrong(tree)
        return float(found[1]) * _BITS[found[2]]

    def schema(self) -> Schema:
        written = {"type": "string", "pattern": r"^[1-9][0-9]{0,8}(?:\.[0-9]{1,9})?(bit|kbit|Mbit|Gbit)$"}
        return {"anyOf": [written, _WITH_VARIABLE]}


@dataclass(frozen=True)
class Amount(Type):
    """A whole number, or a bound such as `> 0`; as it is written."""

    what: str = "a number, or a bound like > 0 or <= 5"

    def parse(self, tree: Tree) -> Str:
        number = whole_number(tree)
        if number is not None and 0 <= number <= MAX_SIZE:
            return Str.of(Scalar(str(number), True, tree.mark))
        if not isinstance(tree, Scalar) or not re.fullmatch(r"(>=|<=|>|<) ?[0-9]{1,9}", tree.text):
            raise self.wrong(tree)
        return Str.of(tree)

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": 0, "maximum": MAX_SIZE}
        bound = {"type": "string", "pattern": "^(>=|<=|>|<) ?[0-9]{1,9}$"}
        return {"anyOf": [number, bound, _WITH_VARIABLE]}


@dataclass(frozen=True)
class ListOf(Type):
    item: Type
    minimum: int = 1
    what: str = "a list"

    def parse(self, tree: Tree) -> list[Any]:
        if not isinstance(tree, Seq):
            raise self.wrong(tree)
        if len(tree.items) < self.minimum:
            raise Problem(
                tree.mark, f"expected {self.what} with at least {self.minimum} in it, got {len(tree.items)}"
            )
        return [self.item.parse(item) for item in tree.items]

    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema(), "minItems": self.minimum}


@dataclass(frozen=True)
class MapOf(Type):
    """A map whose keys are not known beforehand (names of clients, say)."""

    key: Word
    value: Type
    what: str = "a map"
    minimum: int = 1
    named: Mapping[str, Type] = field(default_factory=dict)
    """Keys whose values are of a type of their own."""

    def parse(self, tree: Tree) -> dict[Str, Any]:
        if not isinstance(tree, Map):
            raise self.wrong(tree)
        if len(tree.items) < self.minimum:
            raise Problem(tree.mark, f"expected {self.what}, got an empty map")
        return {
            self.key.parse(key): self.named.get(key.text, self.value).parse(value)
            for key, value in tree.items
        }

    def schema(self) -> Schema:
        named = {"properties": {name: type_.schema() for name, type_ in self.named.items()}}
        return {
            "type": "object",
            **(named if self.named else {}),
            "propertyNames": self.key.key_schema(),
            "additionalProperties": self.value.schema(),
            "minProperties": self.minimum,
        }


@dataclass(frozen=True)
class Field:
    type: Type
    about: str
    required: bool = False


class Record(dict[str, Any]):
    """A parsed map with fixed keys; remembers its place and that of each key."""

    def __init__(self, mark: Mark, marks: dict[str, Mark], values: dict[str, Any]) -> None:
        super().__init__(values)
        self.mark = mark
        self.marks = marks


@dataclass(frozen=True)
class Fields(Type):
    """A map with fixed keys. An unknown key is an error; of each group in `one_of` exactly one key stands."""

    fields: Mapping[str, Field]
    what: str = "a map"
    one_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    """At least one of these stands."""
    needs: Mapping[str, tuple[str, ...]] | None = None
    """Key → keys of which it needs at least one beside it."""

    def parse(self, tree: Tree) -> Record:
        if not isinstance(tree, Map):
            raise self.wrong(tree)
        values: dict[str, Any] = {}
        marks: dict[str, Mark] = {}
        for key, value in tree.items:
            if key.text not in self.fields:
                known = ", ".join(self.fields)
                close = nearest(key.text, self.fields)
                raise Problem(
                    key.mark, f'unknown key "{key.text}" in {self.what}.{close or f" Known: {known}"}'
                )
            marks[key.text] = key.mark
            values[key.text] = self.fields[key.text].type.parse(value)
        for name, known_field in self.fields.items():
            if known_field.required and name not in values:
                raise Problem(tree.mark, f"{self.what} needs {name}: ({known_field.about})")
        if self.one_of:
            self._exactly_one(tree, marks)
        if self.any_of and not any(name in values for name in self.any_of):
            raise Problem(tree.mark, f"{self.what} needs {' or '.join(f'{n}:' for n in self.any_of)}")
        for key_name, others in (self.needs or {}).items():
            if key_name in values and not any(other in values for other in others):
                raise Problem(
                    marks[key_name], f"{key_name}: needs {' or '.join(o + ':' for o in others)} beside it"
                )
        return Record(tree.mark, marks, values)

    def _exactly_one(self, tree: Map, marks: dict[str, Mark]) -> None:
        present = [name for name in marks if name in self.one_of]
        if not present:
            raise Problem(tree.mark, f"{self.what} needs one of {', '.join(self.one_of)}")
        if len(present) > 1:
            raise Problem(
                marks[present[1]],
                f'"{present[0]}" and "{present[1]}" stand in the same {self.what.removeprefix("a ")}; one of them only',
            )

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object",
            "properties": {n: {**f.type.schema(), "description": f.about} for n, f in self.fields.items()},
            "additionalProperties": False,
        }
        if required := [n for n, f in self.fields.items() if f.required]:
            schema["required"] = required
        if self.one_of:
            schema["oneOf"] = [{"required": [n]} for n in self.one_of]
        if self.any_of:
            schema["anyOf"] = [{"required": [n]} for n in self.any_of]
        conditions = [
            {"if": {"required": [key]}, "then": {"anyOf": [{"required": [o]} for o in others]}}
            for key, others in (self.needs or {}).items()
        ]
        if conditions:
            schema["allOf"] = conditions
        return schema


@dataclass(frozen=True)
class Shapes(Type):
    """Different types for a scalar, a list and a map at the same place; the shape decides which."""

    what: str
    scalar: Type | None = None
    seq: Type | None = None
    map: Type | None = None

    def parse(self, tree: Tree) -> Any:
        chosen = self.scalar if isinstance(tree, Scalar) else self.seq if isinstance(tree, Seq) else self.map
        if chosen is None or (isinstance(tree, Scalar) and tree.empty):
            raise self.wrong(tree)
        return chosen.parse(tree)

    def schema(self) -> Schema:
        return {"anyOf": [t.schema() for t in (self.scalar, self.seq, self.map) if t is not None]}


@dataclass(frozen=True)
class Variants(Type):
    """Several kinds of map at the same place, told apart by a key that only one of them has."""

    variants: Sequence[tuple[str, Fields]]
    what: str

    def parse(self, tree: Tree) -> Record:
        if not isinstance(tree, Map):
            raise self.wrong(tree)
        present = {key.text for key, _ in tree.items}
        for key, fields in self.variants:
            if key in present:
                return fields.parse(tree)
        known = [key for key, _ in self.variants]
        for name, _ in tree.items:
            if close := nearest(name.text, known):
                raise Problem(name.mark, f'unknown key "{name.text}" in {self.what}.{close}')
        raise Problem(tree.mark, f"expected {self.what}: a map with one of {', '.join(known)}")

    def schema(self) -> Schema:
        branches: list[Schema] = []
        for key, fields in self.variants:
            branch: Schema = {"allOf": [{"required": [key]}, fields.schema()]}
            branches.append(branch)
        return {"anyOf": branches}


@dataclass(frozen=True)
class Named(Type):
    """A type that refers to itself (steps within steps): the schema points to a definition."""

    name: str
    what: str
    registry: dict[str, Type]

    def parse(self, tree: Tree) -> Any:
        return self.registry[self.name].parse(tree)

    def schema(self) -> Schema:
        return {"$ref": f"#/$defs/{self.name}"}
