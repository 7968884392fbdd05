"""The judge of the pages: what is not so in a page is found, at its line, and written where it can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import transcripts

PAGE = """\
# A page that says much that is not so

```console
$ echo one; echo two
one
```

```console
$ seq 3
1
…
4
```

```console
[alice]
$ cat
> hello
hello
^D
[bob]
$ echo bob
alice
```

```pycon
>>> 1 + 1
3
>>> 1 / 0
Traceback (most recent call last):
  ...
ZeroDivisionError: no
>>> import traceback
>>> def handle():
...     try:
...         int("x")
...     except ValueError:
...         traceback.print_exc()
>>> handle()
Traceback (most recent call last):
  ...
ValueError: invalid literal for int() with base 10: 'x'
```

```python
# services/echo.py
import socket
…
import nothing
```

```python
# services/no_such_server.py
import socket
```

```python
# mine.py
print("it is written, and can be run")
```

```console
$ python3 mine.py
it is written, and can be run
```

```yaml
- send: {alice: hello}
- sned: {alice: hello}
```

```sh
docker build . \\
  -t mine
python3 mine.py
```

```toml
a = 1
```
"""


def wrong(page: Path, *options: str) -> set[str]:
    """What stands in the lines at which it finds fault."""
    lines = page.read_text().splitlines()
    done = transcripts.apart([*options, str(page)])
    assert "Traceback (most recent call last):\n  File" not in done.stdout, done.stdout
    return {lines[int(number) - 1] for number in re.findall(r": line (\d+)$", done.stdout, re.MULTILINE)}


RUN = {"$ echo one; echo two", "$ seq 3", "[bob]", ">>> 1 + 1", ">>> 1 / 0"}
READ = {
    "# services/echo.py",
    "# services/no_such_server.py",
    "- send: {alice: hello}",
    "python3 mine.py",
    "a = 1",
}


def test_what_is_not_so_is_found_where_it_stands(tmp_path: Path, namespaces: None) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    assert wrong(page) == RUN | READ


def test_what_came_of_what_was_run_is_written(tmp_path: Path, namespaces: None) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    wrong(page, "--write")

    assert wrong(page) == READ
    text = page.read_text()
    assert "$ echo one; echo two\none\ntwo\n```" in text
    assert "[bob]\n$ echo bob\nbob\n```" in text
    assert ">>> 1 + 1\n2\n>>> 1 / 0\n" in text


@pytest.mark.parametrize(
    ("said", "came", "is_same"),
    [
        ("took 1.3 s", "took 27.1 s", True),
        ("port 40001", "port 60999", True),
        ("port 5001", "port 5002", False),
        ("3 of 4 points", "4 of 4 points", False),
        ("10.71.0.2", "10.71.0.3", False),
        ("Send-Q Peer Address:PortProcess", "Send-Q Peer Address:Port", True),
        ("a\n…\nb", "a\nb", True),
        ("a\n…\nb", "a\nx\ny\nb", True),
        ("a\n…\nb", "a\nx\ny\nb\nc", False),
        ("…\nb", "x\na\nb", True),
        ("a\nb", "b\na", False),
        ("   0.001  alice\n   0.002  bob", "   0.001  bob\n   0.007  alice", True),
        ("   0.001  alice\n   0.002  bob", "   0.001  bob", False),
        ("   0.001  alice\n…", "   0.001  bob\n   0.007  alice", True),
        ("   0.001  carol\n…", "   0.001  bob\n   0.007  alice", False),
    ],
)
def test_what_differs_from_run_to_run_is_equal_and_nothing_else(said: str, came: str, is_same: bool) -> None:
    assert transcripts.same(said.splitlines(), came.splitlines()) is is_same
