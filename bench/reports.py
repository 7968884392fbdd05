"""The report of a play with ten thousand events, in a browser: its size, its first drawing, zooming. `python -m bench reports`.

The play is a real one, and so is the browser (Debian's Chromium, without a graphics card: what it draws, it draws on a core).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.figures import ROOT, SOCKLAB
from socklab.history import read

EVENTS = 10_000
SCENARIO = """\
title: Four clients in a busy room
service: chat
clients: [alice, bob, carol, dave]
steps:
  - connect: everyone
  - repeat:
      times: 900
      steps:
        - send: {alice: "line {round}."}
        - expect: {everyone: "line {round}."}
"""
FRAMES = 180
DRAWN = "(async () => { await new Promise(requestAnimationFrame); return performance.now() })()"
ZOOMED = f"""(async () => {{
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  page.diagram.fit();
  await frame();
  let last = performance.now();
  for (let i = 0; i < {FRAMES}; i++) {{
    page.diagram.scaleBy(i < {FRAMES // 2} ? 1.07 : 1 / 1.07, 300);
    await frame();
    times.push(performance.now() - last);
    last = performance.now();
  }}
  return times.sort((a, b) => a - b);
}})()"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        print("a report in a browser: not measured, it needs one (apt-get install chromium)")
        return
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        run = _played(Path(place))
        size = (run / "report.html").stat().st_size
        count = len(read(run / "history.jsonl"))
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        first = sorted(_first(browser, run) for _ in range(7))
        page = _opened(browser, run)
        frames = [float(each) for each in page.evaluate(ZOOMED)]
        browser.close()
    print(f"a report of {count} events: size   {size / 1e6:.2f} MB   goal ≤ 2 MB for {EVENTS}")
    print(
        f"… from opening the file to its first drawing   {first[3]:.0f} ms ({first[0]:.0f}–{first[-1]:.0f})   goal ≤ 1000 ms"
    )
    mean, late = sum(frames) / FRAMES, frames[int(FRAMES * 0.95)]
    print(f"… zooming in and out   {1000 / mean:.0f} frames/s, 95% of them within {late:.0f} ms   goal ≥ 30")


def _played(folder: Path) -> Path:
    (folder / "busy.scenario.yaml").write_text(SCENARIO)
    words = ["play", "--quiet", "--runs", str(folder / "runs"), "--compose", str(ROOT / "docker-compose.yml")]
    command = [*SOCKLAB, *words, str(folder / "busy.scenario.yaml")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return max((folder / "runs").glob("*/report.html"), key=lambda path: path.stat().st_mtime).parent


def _opened(browser: Any, run: Path) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((run / "report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def _first(browser: Any, run: Path) -> float:
    """Milliseconds until the drawing was there (performance.now(): since the navigation began)."""
    page = _opened(browser, run)
    took = float(page.evaluate(DRAWN))
    page.close()
    return took
