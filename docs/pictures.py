"""Make the pictures of the README and of docs/seeing.md: play, and look at it in a browser and at a terminal (make pictures).

Needs Chromium (apt-get install chromium) and a backend with links (socklab doctor)."""

from __future__ import annotations

import io
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte
from PIL import Image
from playwright.sync_api import sync_playwright

from tests import pseudo_terminal

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SOCKLAB = [sys.executable, "-m", "socklab"]
COLOURS = 128  # of a picture; text stays sharp, and it takes a third of the bytes
LIMIT = 30.0  # seconds for anything to be there

FAILED = """\
title: Bob hears what alice says
clauses: [chat.1]
service: chat
clients: [alice, bob]
steps:
  - connect: [alice, bob]
  - send: {alice: "one\\ntwo\\nthree"}
  - expect: {bob: [one, two, three]}
"""
WATCHED = """\
title: Bob's link is cut, and mended
service: chat
clients: [alice, bob]
steps:
  - connect: everyone
  - send: {alice: hello}
  - expect: {everyone: hello}
  - partition: [[bob], [server]]
  - send: {alice: are you there}
  - expect: {alice: are you there}
  - quiet: {bob: 2s}
  - heal: all
  - expect: {bob: are you there}
    within: 5s
"""
WAITING = """\
title: Everyone hears a line, bob a little later
service: chat
clients: [alice, bob, carol]
steps:
  - connect: everyone
  - delay: {from: server, to: bob, is: 3s}
  - send: {alice: hello}
  - expect: {everyone: hello}
    within: 5s
"""
TYPED = (
    "connect: everyone",
    "alice: hello",
    "expect: {carol: hello}",
    "cut: {between: [bob, server]}",
    "carol: are you there",
    "{expect: {bob: are you there}, within: 300ms}",
)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not come within {LIMIT:g} s")
        time.sleep(0.02)


# in a browser


def save(tab: Any, name: str) -> None:
    tab.wait_for_timeout(300)  # for what still moves
    picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        PICTURES / name, optimize=True
    )


@contextmanager
def tab_of(browser: Any, url: str, width: int = 1200, height: int = 700) -> Iterator[Any]:
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.goto(url)
    tab.wait_for_selector("html[data-ready]")
    yield tab
    tab.close()


def run_of(folder: Path, *words: str) -> Path:
    """The run that playing this leaves."""
    command = [*SOCKLAB, "play", "--runs", str(folder), *words]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    # A race is played again.
    return max(folder.glob("*/report.html"), key=lambda path: path.stat().st_mtime).parent


def reports(browser: Any, root: Path) -> None:
    scenario = root / "bob-hears.yaml"
    scenario.write_text(FAILED)
    wrong = str(ROOT / "tests" / "zoo" / "wrong" / "chat-recv-is-a-message.py")
    guest = ["--compose", "docker-compose.yml", "--", "python3", wrong, "{host}", "{port}"]
    failed = run_of(root / "failed", str(scenario), *guest)
    with tab_of(browser, (failed / "report.html").as_uri()) as tab:
        save(tab, "report-failed.png")
    closed = run_of(root / "closed", "scenarios/wire/hello-and-goodbye.yaml", "--service", "threaded")
    with tab_of(browser, (closed / "report.html").as_uri()) as tab:
        tab.evaluate("page.diagram.select(page.store.rows.filter(m => m.what === 'FIN')[1], 'keyboard')")
        tab.evaluate("page.diagram.top = 1e6, page.diagram.draw()")
        save(tab, "report-states.png")
    isolated = ("scenarios/isolation/one-is-isolated-the-others-go-on.yaml", "--service", "chat")
    run = run_of(root / "isolated", *isolated)
    drawn = [*SOCKLAB, "show", str(run), "--svg", str(PICTURES / "isolated.svg")]
    subprocess.run(drawn, cwd=ROOT, check=True)


def live(browser: Any, root: Path) -> None:
    folder = root / "live"
    folder.mkdir()
    (folder / "watched.scenario.yaml").write_text(WATCHED)
    words = ["serve", "--port", "0", "--runs", str(root / "served"), "--compose", "docker-compose.yml"]
    serving = subprocess.Popen([*SOCKLAB, *words, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    url = serving.stdout.readline().strip()
    try:
        with tab_of(browser, url) as tab:
            tab.get_by_role("button", name="Play", exact=False).nth(1).click()
            tab.wait_for_selector("#scenario li.running:has-text('quiet')")
            tab.locator("#events [role=option]").filter(has_text="dropped (cut)").nth(1).wait_for()
            save(tab, "live.png")
        with tab_of(browser, url, height=760) as tab:
            tab.get_by_role("button", name="chat", exact=True).click()
            tab.wait_for_selector("#map [data-id]")
            for step in ("connect: everyone", "send: {alice: hello}", "expect: {everyone: hello}"):
                do(tab, step)
            tab.get_by_role("button", name="link bob to server: whole").click()
            tab.get_by_role("button", name="cut", exact=True).click()
            tab.get_by_role("button", name="link bob to server: cut").wait_for()
            do(tab, "send: {carol: are you there}")
            tab.locator("#events [role=option]").filter(has_text="dropped (cut)").nth(1).wait_for()
            save(tab, "by-hand.png")
    finally:
        serving.terminate()
        serving.wait()
        serving.stdout.close()


def do(tab: Any, step: str) -> None:
    tab.fill("#step", step)
    tab.press("#step", "Enter")
    tab.locator("#scenario li.done").filter(has_text=step).last.wait_for()


# at a terminal


class Terminal:
    """A program at a terminal of its own, and what is to be seen there."""

    def __init__(self, columns: int, rows: int, *words: str, cwd: Path) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.ours, theirs = pseudo_terminal.opened(columns, rows)
        known = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        environment = {**known, "TERM": "xterm-256color", "XDG_STATE_HOME": str(cwd / "state")}
        self.process = pseudo_terminal.run([*SOCKLAB, *words], theirs, cwd=cwd, env=environment)

    def until(self, text: str, times: int = 1) -> None:
        """Until this is to be seen so many times."""
        until(lambda: self._shows(text) >= times, f"{text!r} at the terminal")

    def _shows(self, text: str) -> int:
        while select.select([self.ours], [], [], 0.1)[0]:
            data = pseudo_terminal.read(self.ours)
            if not data:
                break
            self._stream.feed(data)
            if b"\x1b[6n" in data:  # it asks where the cursor is
                at = self.screen.cursor
                os.write(self.ours, f"\x1b[{at.y + 1};{at.x + 1}R".encode())
        return "\n".join(self.screen.display).count(text)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        self.process.terminate()
        while self.process.poll() is None:
            self._shows("")
        os.close(self.ours)


WIDE, TALL = 8.4, 18  # pixels of a cell
HUES = {"red": "#ff8a80", "green": "#4fd0a5", "brown": "#e2cf66", "blue": "#6bb8ff", "magenta": "#c9a6f2"}


def as_svg(title: str, screen: Any) -> str:
    """What stands on a screen, down to the last line that is not empty. Every cell has its place, whatever font there is."""
    lines = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]
    while lines and not "".join(cell.data for cell in lines[-1]).strip():
        lines.pop()
    width, height = screen.columns * WIDE + 24, len(lines) * TALL + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" viewBox="0 0 {width:g} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text { font: 14px ui-monospace, 'DejaVu Sans Mono', monospace; white-space: pre }</style>",
        f'<rect width="{width:g}" height="{height}" rx="8" fill="#14171b"/>',
    ]
    for y, line in enumerate(lines):
        for (hue, bold), run in groupby(enumerate(line), key=lambda each: (each[1].fg, each[1].bold)):
            cells = list(run)
            text = "".join(cell.data for _, cell in cells).rstrip()
            begin = cells[0][0] + len(text) - len(text.lstrip())
            text = text.lstrip()
            if text:
                weight = ' style="font-weight:700"' if bold else ""
                colour = HUES.get(hue, "#a3acb8" if hue == "brightblack" else "#e8eaee")
                parts.append(
                    f'<text x="{begin * WIDE + 12:.1f}" y="{y * TALL + 26}" textLength="{len(text) * WIDE:.1f}" fill="{colour}"{weight}>{escape(text)}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


def terminals(root: Path) -> None:
    compose = str(ROOT / "docker-compose.yml")
    (root / "everyone-hears.scenario.yaml").write_text(WAITING)
    play = Terminal(100, 12, "play", "--compose", compose, "everyone-hears.scenario.yaml", cwd=root)
    play.until("waits for")
    play.until("s line 8")
    (PICTURES / "play.svg").write_text(as_svg("socklab play: who waits for what", play.screen))
    play.close()
    shell = Terminal(108, 40, "shell", "chat", "--compose", compose, cwd=root)
    for number, line in enumerate(TYPED, 1):
        shell.until("socklab> ", number)
        shell.type(line + "\r")
    shell.until("cause")
    shell.until("socklab> ", len(TYPED) + 1)
    (PICTURES / "shell.svg").write_text(as_svg("socklab shell: playing by hand at a prompt", shell.screen))
    shell.close()


def main() -> None:
    program = shutil.which("chromium")
    if program is None:
        sys.exit("needs a browser: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        root = Path(temporary)
        terminals(root)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        reports(browser, root)
        live(browser, root)
        browser.close()


if __name__ == "__main__":
    main()
