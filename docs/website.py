"""The documentation as a site: English in site/, Korean in site/ko/. `make site` runs it.

    python -m docs.website             with the diagrams of all plays that the lessons have pictures of
    python -m docs.website --plays 2   with so many of them; the others stay pictures

It is read without a server (open site/index.html) and loads nothing from elsewhere. The diagrams are reports of plays made now, on network
namespaces; where there are none, pictures stay. A warning of Sphinx, such as a link that leads nowhere, is an error."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docs.pages import DOCS, KO, ROOT, every
from docs.plays import played, shown


def plays(most: int | None) -> list[str]:
    """What the pages have pictures of."""
    names = {name for page in every() for name in shown(page)}
    return sorted(names)[:most]


def report(name: str, into: Path) -> str:
    """Play it, and put its report there. What hinders, or nothing."""
    with tempfile.TemporaryDirectory(prefix="socklab-site-") as folder:
        try:
            shutil.copy(played(name, Path(folder)) / "report.html", into / f"{name}.html")
        except (subprocess.CalledProcessError, OSError, ValueError) as exc:
            return f"{name}: {exc}"
    return ""


def pages(source: Path, site: Path, work: Path, *tags: str) -> subprocess.CompletedProcess[str]:
    """One edition, made by Sphinx."""
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", "-q"]
    where = ["-c", str(DOCS), "-d", str(work / source.name), str(source), str(site)]
    tagged = [word for tag in tags for word in ("-t", tag)]
    return subprocess.run(
        [*sphinx, *tagged, *where], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def make(site: Path, most: int | None = None) -> list[str]:
    """All of it, into this folder. What hindered a diagram; raises ValueError with what Sphinx complains of."""
    reports = site / "plays"
    reports.mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hindered = [told for told in pool.map(lambda name: report(name, reports), plays(most)) if told]
        with tempfile.TemporaryDirectory(prefix="socklab-site-") as work:
            english = pool.submit(pages, DOCS, site, Path(work))
            korean = pool.submit(pages, KO, site / "ko", Path(work), "ko")
            done = [english.result(), korean.result()]
    if any(each.returncode for each in done):
        raise ValueError("".join(each.stdout for each in done).strip())
    return hindered


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m docs.website", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--plays", type=int, metavar="N", help="diagrams of so many plays at most")
    parser.add_argument(
        "--to", type=Path, default=ROOT / "site", metavar="FOLDER", help="where it is made anew (site)"
    )
    asked = parser.parse_args()
    if asked.to.exists():
        if not (asked.to / "searchindex.js").is_file():
            print(
                f"{asked.to}: is no site of an earlier run, so it is not overwritten; --to names another folder",
                file=sys.stderr,
            )
            return 2
        shutil.rmtree(asked.to)
    try:
        hindered = make(asked.to, asked.plays)
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    for told in hindered:
        print(f"stays a picture: {told}", file=sys.stderr)
    size = sum(path.stat().st_size for path in asked.to.rglob("*") if path.is_file())
    print(f"{asked.to / 'index.html'}  {len(list(asked.to.rglob('*.html')))} pages, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
