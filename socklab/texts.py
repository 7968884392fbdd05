"""The texts of a scenario: {placeholders} and what is put in for them, and regular expressions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from socklab.source import Scalar, Seq, Tree

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLACEHOLDER = re.compile(rf"\{{\{{|\}}\}}|{_NAME.pattern}")


def placeholders(text: str) -> set[str]:
    """The names in {braces} of a text."""
    return {found[1] for found in _PLACEHOLDER.finditer(text) if found[1]}


def has_single_brace(text: str) -> bool:
    """Whether there is a brace that neither stands around a name nor is doubled."""
    return not set("{}").isdisjoint(_PLACEHOLDER.sub("", text))


def expand(text: str, values: Mapping[str, str]) -> str:
    """A text with its {placeholders} filled in, and {{ }} made single."""
    return _PLACEHOLDER.sub(lambda m: m[0][0] if m[1] is None else values[m[1]], text)


def substitute(tree: Tree, values: Mapping[str, str]) -> Tree:
    """The tree with matrix variables put in. What was only a variable reads as if its value stood there unquoted."""
    if isinstance(tree, Scalar):
        whole = _NAME.fullmatch(tree.text)
        if whole and whole[1] in values:
            value = Scalar(values[whole[1]], True, tree.mark)
            return replace(value, plain=False) if value.empty else value  # only in quotes is it a value
        text = _PLACEHOLDER.sub(lambda m: values.get(m[1] or "", m[0]), tree.text)
        return replace(tree, text=text)
    if isinstance(tree, Seq):
        return replace(tree, items=tuple(substitute(item, values) for item in tree.items))
    return replace(
        tree,
        items=tuple(
            (key, value if key.text == "matrix" else substitute(value, values)) for key, value in tree.items
        ),
    )


def regex_in(text: str) -> str | None:
    """The regular expression in /slashes/, or None for a plain text."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "/" else None


def placeholders_of_regex(regex: str) -> list[str]:
    """The names in {braces} of a regex, where {{ }} is nothing special, and a number counts repetitions."""
    return _NAME.findall(regex)


def expand_regex(regex: str, values: Mapping[str, str]) -> str:
    """A regex with its {placeholders} filled in: values stand for themselves, other braces stay."""
    return _NAME.sub(lambda m: re.escape(values[m[1]]), regex)


@cache
def compile_regex(regex: str) -> re.Pattern[str]:
    """Raises what re.compile raises, and warns of nothing: what `[[` will mean some day is no concern of a scenario."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(regex)
