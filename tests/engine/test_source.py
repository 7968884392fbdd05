"""YAML as it is written: what a scalar is, what is refused, and how an error shows its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from socklab.source import (
    MAX_FILE,
    Map,
    Mark,
    Problem,
    Scalar,
    ScenarioError,
    Seq,
    Source,
    nearest,
    printable,
)
from tests.engine.written import PATH, marked

ALMOST_THE_LARGEST = MAX_FILE - 64


def parse(text: str) -> Source:
    return Source.parse(text, PATH)


def refusal(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return caught.value


def value(text: str) -> Scalar:
    tree = parse(f"key: {text}\n").tree
    assert isinstance(tree, Map)
    scalar = tree.get("key")
    assert isinstance(scalar, Scalar)
    return scalar


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "007",
        "1:30",
        "1.0",
        "0x1F",
        "1_000",
        "yes",
        "on",
        "2024-01-01",
        "1e3",
        ".inf",
        "true",
        "~",
        "null",
        "=",
        "0o7",
    ],
)
def test_a_scalar_is_the_text_that_is_written(text: str) -> None:
    """Nothing becomes a number, a date or a truth value on its way in."""
    assert (value(text).text, value(text).plain) == (text, True)
    assert (value(f'"{text}"').text, value(f'"{text}"').plain) == (text, False)


def test_only_an_unquoted_nothing_is_empty() -> None:
    """`~` and nothing at all are empty; the same in quotes is a text."""
    assert value("").empty
    assert value("~").empty
    assert not value('""').empty
    assert not value('"~"').empty


def test_everything_remembers_its_place() -> None:
    """Lines and columns count from 1, in characters."""
    tree = parse("é: [a,\n  {ü: b}]\n").tree
    assert isinstance(tree, Map)
    ((key, items),) = tree.items
    assert isinstance(items, Seq)
    first, second = items.items
    assert isinstance(second, Map)
    assert [key.mark, items.mark, first.mark, second.items[0][0].mark] == [
        Mark(1, 1),
        Mark(1, 4),
        Mark(1, 5),
        Mark(2, 4),
    ]


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        pytest.param("a: &x b", "anchors (&name) are refused", "&x b", id="anchor"),
        pytest.param("a: *x", "aliases (*name) are refused", "*x", id="alias"),
        pytest.param("a: {<<: {b: c}}", "merge keys (<<) are refused", "<<: {b: c}}", id="merge key"),
        pytest.param("a: !!str b", "tags (tag:yaml.org,2002:str) are refused", "!!str b", id="tag"),
        pytest.param("a: !!python/object/apply:os.system [x]", "tags (", "!!python/object/apply:os.system [x]", id="python tag"),
        pytest.param("a: b\na: c", '"a" stands here a second time; the first is in line 1', "a: c", id="the same key twice"),
        pytest.param('{a: b, "a": c}', '"a" stands here a second time', '"a": c}', id="the same key twice, once quoted"),
        pytest.param("a: b\n---\nc: d", "a second document (---)", "---", id="two documents"),
        pytest.param("{{a}: b}", "a key must be a text, not a map; quote", "{a}: b}", id="a map as a key"),
        pytest.param("a:\n\tb: c", "Indent with spaces, not tabs", "b: c", id="tab"),
        pytest.param("a: [b: c, d: e: f]", 'quote every text that has { } [ ] , # or : in it, like "a: b"', ": f]", id="flow style"),
        pytest.param("a: b: c", 'Quote a text that has ": " in it', ": c", id="a colon in a text"),
        pytest.param("a: b\0c", "a character that YAML does not allow: U+0000", "c", id="NUL"),
        pytest.param("é: \x1b[2J", "a character that YAML does not allow: U+001B", "[2J", id="ESC"),
        pytest.param("[" * 40, "nested more than 32 deep", "[" * 7, id="deep"),
    ],
)  # fmt: skip
def test_what_would_mean_more_than_it_shows_is_refused_at_its_place(text: str, said: str, at: str) -> None:
    """An error says what is wrong, and its caret stands under the first character of it."""
    error = refusal(text)
    assert said in error.message
    assert marked(error).strip().endswith(at.strip())


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_told_how_a_scenario_begins(text: str) -> None:
    """A file with nothing in it is an error with the way out."""
    assert "is empty; a scenario begins with a title:" in refusal(text).message


@pytest.mark.parametrize(
    ("text", "column"),
    [
        pytest.param("- send: {alice: #REG}\n- connect: bob\n", 17, id="in a map in braces"),
        pytest.param("- send:\n    alice: #REG\n", 12, id="as a value in block style"),
        pytest.param("- #REG\n", 3, id="as an item in block style"),
        pytest.param("- [one, #REG]\n", 9, id="in a list in brackets"),
        pytest.param("- send: {alice: #REG,\n    bob: x}\n", 17, id="with the brace in the next line"),
    ],
)
def test_an_unquoted_number_sign_is_explained(text: str, column: int) -> None:
    """YAML would silently drop `#REG`; the error names the text and says how to write it, at its place."""
    error = refusal(text)
    assert 'YAML takes #REG for a comment, write "#REG"' in error.message
    assert error.mark is not None
    assert error.mark.column == column
    assert marked(error).startswith("#REG")


def test_a_comment_is_a_comment() -> None:
    """Only a value that is missing makes a comment suspicious."""
    parse("a: # a comment with a space\nb: c  #comment\nd: # about the list\n  - e\n# the end\n")


def test_an_error_is_file_line_column_message_line_caret() -> None:
    """What a terminal or an editor needs to jump to the place."""
    assert str(refusal("a: b\nc: *d\n")) == (
        "lesson.yaml:2:4: aliases (*name) are refused: a scenario says everything where it stands\n"
        "    c: *d\n"
        "       ^"
    )


@pytest.mark.parametrize("before", ["日本", "🙂", "e\u0301", "ä", "Ｗ", "\t"])
def test_the_caret_stands_under_the_character_as_a_terminal_shows_it(before: str) -> None:
    """Wide characters take two columns, combining ones none."""
    error = refusal(f'"{before}": *x')
    _, shown, caret = str(error).split("\n")
    columns = {"日本": 4, "🙂": 2, "e\u0301": 1, "ä": 1, "Ｗ": 2, "\t": 1}[before]
    assert shown.endswith("*x")
    assert len(caret) == len('    "": ') + columns + 1


def test_a_long_line_is_shown_around_its_error() -> None:
    """A line of thousands of characters does not flood the terminal."""
    error = refusal(f"a: [{'b, ' * 5000}*x]")
    assert all(len(line) < 120 for line in str(error).split("\n"))
    assert marked(error).startswith("*x")


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
@pytest.mark.parametrize("text", ["a: [", 'a: "b', "a: {b: c,", "a: 'b", "? a\n: [b"])
def test_a_file_that_ends_too_early_is_marked_inside_the_file(text: str, end: str) -> None:
    """The place of an error is always one that an editor can go to."""
    error = refusal(text + end)
    assert error.mark is not None
    lines = (text + end).split("\n")
    assert error.mark.line <= len(lines)
    assert error.mark.column <= len(lines[error.mark.line - 1]) + 1


def test_a_place_behind_the_end_is_the_end() -> None:
    """A document that is only begun has its missing value behind the last line."""
    error = parse("---\n").error(Problem(Mark(2, 1), "nothing there"))
    assert error.mark == Mark(1, 4)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_lines_are_counted_as_yaml_counts_them(newline: str) -> None:
    """Whatever ends a line, the shown line is the one with the error."""
    error = refusal(newline.join(["a: b", "c: d", "e: *f", "g: h"]))
    assert error.mark == Mark(3, 4)
    assert marked(error) == "*f"


def test_what_is_not_utf8_is_shown_in_its_line(tmp_path: Path) -> None:
    """The column counts characters, not bytes."""
    file = tmp_path / "latin1.yaml"
    file.write_bytes("a: b\nü: ".encode() + b"caf\xe9 au lait\nc: d\n")
    with pytest.raises(ScenarioError, match="is not UTF-8 at this place; save the file as UTF-8") as caught:
        Source.read(file)
    assert caught.value.mark == Mark(2, 7)
    assert marked(caught.value) == "\ufffd au lait"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Editors of another system put one in front."""
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: *b\n")
    with pytest.raises(ScenarioError) as caught:
        Source.read(file)
    assert caught.value.mark == Mark(1, 4)


def test_behind_a_byte_order_mark_what_is_not_utf8_is_found_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    for text, mark in ((b"a: \xff", Mark(1, 4)), (b"\xc3", Mark(1, 1))):
        file.write_bytes(b"\xef\xbb\xbf" + text)
        with pytest.raises(ScenarioError, match="is not UTF-8") as caught:
            Source.read(file)
        assert caught.value.mark == mark


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No file, a folder, no right to read: each one line with the file's name."""
    for path, said in [(tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(ScenarioError, match=f"cannot be read: {said}") as caught:
            Source.read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """A scenario is read by people."""
    file = tmp_path / "large.yaml"
    file.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ScenarioError, match="is larger than 256 KiB"):
        Source.read(file)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{",
        '"',
        "'",
        "- ",
        "? ",
        "&",
        "!",
        "a: ",
        "[a, ",
        "[]",
        '["',
        "{a: ",
        "a, ",
        "a:\n ",
        "# #a ",
        "%",
        "|",
        "*a ",
        "x\n",
        "\t",
    ],
)
@pytest.mark.parametrize("begin", ["", "a: ["])
def test_no_file_makes_the_parser_think_for_long(begin: str, piece: str) -> None:
    """The largest file of each unkind shape is answered; one that took minutes would meet the time limit."""
    text = begin + piece * (ALMOST_THE_LARGEST // len(piece))
    said = ""
    try:
        parse(text)
    except ScenarioError as error:
        said = str(error)
    assert len(said) < 1000


def test_a_message_drives_no_terminal_and_has_an_end() -> None:
    """What a file says is quoted in errors; an escape sequence in it stays a text."""
    error = ScenarioError('unknown key "\x1b[2J' + "x" * 10_000, "le\x07sson.yaml")
    assert str(error).isprintable()
    assert len(str(error)) < 600


def test_printable_leaves_text_as_it_is() -> None:
    """Only what is not printable becomes an escape."""
    assert printable("ä 日本 🙂") == "ä 日本 🙂"
    assert printable("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"


def test_a_near_miss_is_suggested_and_a_far_one_is_not() -> None:
    """A wrong suggestion is worse than none."""
    known = ["connect", "expect", "send"]
    assert nearest("conect", known) == ' Did you mean "connect"?'
    assert nearest("zzz", known) == ""
    assert nearest("expect" * 10_000, known) == ""
