"""What the tests of pages share: namespaces, the site, made once, and a browser that has no network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import transcripts, website
from docs.pages import ROOT
from tests.seeing.conftest import browser

__all__ = ["browser"]

Open = Callable[..., Any]


def environment() -> dict[str, str]:
    """Of who works with this Python, in a folder of theirs."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def namespaces() -> None:
    done = transcripts.apart(["--help"])
    if done.returncode:
        pytest.skip(f"pages are run in a network namespace of their own: {done.stdout.strip()}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, why_no_netns: str | None) -> Path:
    """Both editions with the diagram of one play. A warning of Sphinx fails here. (Namespaces are asked for before a browser has an event loop.)"""
    folder = tmp_path_factory.mktemp("docs") / "site"
    website.make(folder, most=1)
    return folder


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Open]:
    """visit("ko/index.html", width=390, …) opens a page from its file. What it asks of the network, or complains of, fails the test."""
    contexts, troubles = [], []

    def visit(address: str, width: int = 1280, theme: str = "light", **more: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 850}, color_scheme=theme, offline=True, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda told: troubles.append(told.text) if told.type == "error" else None)
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:", "blob:")) else troubles.append(asked.url)
            ),
        )
        page.goto((site / address.partition("?")[0]).as_uri() + "".join(address.partition("?")[1:]))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert troubles == []
