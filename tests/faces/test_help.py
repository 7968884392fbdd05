"""`--help` of every command, down to those behind another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from socklab.cli import _parser


def every(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from every(each)


def test_every_command_says_what_it_is_for() -> None:
    """A bare % in a help text would end argparse with a traceback, and only when somebody asks."""
    for parser in every(_parser()):
        assert parser.format_help().startswith("usage: socklab")
