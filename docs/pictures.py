"""Make the pictures of the README: play scenarios, and look at their reports in a browser (make pictures).

Needs Chromium (apt-get install chromium) and a backend with links (socklab doctor)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"

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


def run_of(folder: Path, *words: str) -> Path:
    """The run that playing this leaves."""
    command = [sys.executable, "-m", "socklab", "play", "--runs", str(folder), *words]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    return max(
        folder.glob("*/report.html"), key=lambda path: path.stat().st_mtime
    ).parent  # a race is played again


def main() -> None:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("needs a browser: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        root = Path(temporary)
        scenario = root / "bob-hears.yaml"
        scenario.write_text(FAILED)
        wrong = str(ROOT / "tests" / "zoo" / "wrong" / "chat-recv-is-a-message.py")
        reports = {
            "isolated": run_of(
                root / "a", "scenarios/isolation/one-is-isolated-the-others-go-on.yaml", "--service", "chat"
            ),
            "failed": run_of(
                root / "b",
                str(scenario),
                "--compose",
                "docker-compose.yml",
                "--",
                "python3",
                wrong,
                "{host}",
                "{port}",
            ),
        }
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, run in reports.items():
            for theme in ("light", "dark") if name == "failed" else ("light",):
                tab = browser.new_page(viewport={"width": 1280, "height": 760}, device_scale_factor=1)
                tab.goto((run / "report.html").as_uri())
                tab.wait_for_selector("html[data-ready]")
                tab.evaluate(f"theme.show('{theme}')")
                tab.wait_for_timeout(200)
                suffix = "-dark" if theme == "dark" else ""
                tab.screenshot(path=PICTURES / f"report-{name}{suffix}.png")
                tab.close()
        browser.close()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "socklab",
                "show",
                str(reports["isolated"]),
                "--svg",
                str(PICTURES / "isolated.svg"),
            ],
            cwd=ROOT,
            check=True,
        )


if __name__ == "__main__":
    main()
