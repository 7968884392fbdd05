"""A real browser: Debian's Chromium, driven by Playwright. Where one of them is missing, these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from socklab.diagram import drawn
from socklab.history import Event
from socklab.page import report


@pytest.fixture(scope="module")  # while it runs, its thread has an event loop, and asyncio.run refuses
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (make test installs it)")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the scripts of a page complained of."""
    return []


@pytest.fixture
def tab(browser: Any, complaints: list[str]) -> Iterator[Any]:
    """A page of the browser. A complaint of its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 850})
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def opened(tab: Any, tmp_path: Path) -> Callable[[list[Event]], Any]:
    """The report of these events, in the browser."""

    def open_(events: list[Event], fragment: str = "") -> Any:
        path = tmp_path / "report.html"
        path.write_text(report(drawn(events)), encoding="utf-8")
        tab.goto(path.as_uri() + fragment)
        tab.wait_for_selector("html[data-ready]")
        return tab

    return open_
