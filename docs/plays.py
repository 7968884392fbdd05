"""The pictures of plays that pages show: `![…](plays/NAME.svg)`, where NAME is a scenario of the library, perhaps with `@service`.

python -m docs.plays docs/lessons/07-*.md    make those of a page anew
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.pages import DOCS, ROOT

PICTURES = DOCS / "lessons" / "plays"
SOCKLAB = [sys.executable, "-m", "socklab"]


def shown(page: Path) -> list[str]:
    """The plays of which a page has pictures, in its order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"!\[[^\]]*\]\((?:\.\./\.\./lessons/)?plays/([\w@-]+)\.svg\)", text)


def scenario(name: str) -> Path:
    """What is played for a picture."""
    (found,) = (ROOT / "scenarios").rglob(f"{name.partition('@')[0]}.yaml")
    return found


def played(name: str, folder: Path) -> Path:
    """Play it; the folder of its run, in `folder`. Raises subprocess.CalledProcessError."""
    service = name.partition("@")[2]
    only = ["--service", service] if service else []
    subprocess.run(
        [*SOCKLAB, "play", str(scenario(name)), *only, "--on", "netns", "--runs", str(folder)],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return min(folder.iterdir())


def draw(name: str) -> None:
    """Play it, and make its picture."""
    with tempfile.TemporaryDirectory(prefix="socklab-play-") as folder:
        svg = PICTURES / f"{name}.svg"
        subprocess.run(
            [*SOCKLAB, "show", str(played(name, Path(folder))), "--svg", str(svg)], check=True, cwd=ROOT
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m docs.plays", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("pages", nargs="+", type=Path)
    for name in dict.fromkeys(name for page in parser.parse_args().pages for name in shown(page)):
        draw(name)


if __name__ == "__main__":
    main()
