"""`socklab serve`: who may come in, what a viewer sees, and that no viewer holds a play back."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.seeing.serving import ROOT, Server

pytest.importorskip("starlette", reason="needs socklab[web]")
pytest.importorskip("uvicorn", reason="needs socklab[web]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("served"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_other_sites_and_other_names_are_refused(
    server: Server, headers: dict[str, str], status: int
) -> None:
    """Neither by DNS rebinding (Host) nor from a page of another site (Origin, Sec-Fetch-Site)."""
    assert server.ask("GET", "/scenarios", **headers)[0] == status
    if status == 403:
        assert server.ask("POST", "/plays", {"scenario": "1"}, **headers)[0] == 403


def test_what_is_asked_wrongly_is_answered_in_a_line(server: Server) -> None:
    assert server.ask("POST", "/plays", {"scenario": "none"}) == (
        404,
        '{"error":"no such scenario; GET /scenarios lists them"}',
    )
    assert server.ask("POST", "/plays", ["x"])[0] == 400
    for path in ("/plays/999", "/plays/999/marks", "/static/page.py", "/static/..%2fpage.py", "/nothing"):
        status, text = server.ask("GET", path)
        assert status == 404
        assert "Traceback" not in text


def test_all_viewers_see_the_same_and_one_that_comes_again_misses_nothing(server: Server) -> None:
    play = server.play("A slow play")
    with ThreadPoolExecutor(20) as viewers:
        seen = list(viewers.map(server.marks, [play] * 20))

    assert all(each == seen[0] for each in seen)
    numbers = [number for number, _ in seen[0]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert server.marks(play, after=3) == seen[0][3:]
    final = {mark["id"]: mark for _, batch in seen[0] for mark in batch}
    assert final["verdict"]["verdict"] == "pass"


def test_a_viewer_that_takes_nothing_holds_nobody_back(server: Server) -> None:
    play = server.play("A slow play")
    stalled = socket.create_connection(("127.0.0.1", server.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    stalled.sendall(f"GET /plays/{play}/marks HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    final = {mark["id"]: mark for _, batch in server.marks(play) for mark in batch}
    assert final["verdict"]["verdict"] == "pass"
    stalled.close()


def test_a_token_is_asked_for_where_others_can_reach_it(tmp_path: Path) -> None:
    server = Server(tmp_path, "--listen", "0.0.0.0")
    try:
        token = server.url.split("token=")[1]
        assert server.ask("GET", "/scenarios")[0] == 401
        assert server.ask("GET", "/scenarios?token=wrong")[0] == 401
        assert server.ask("GET", f"/?token={token}")[0] == 303
        assert server.ask("GET", "/scenarios", Cookie=f"socklab-token={token}")[0] == 200
        assert server.ask("GET", "/scenarios", Cookie="socklab-token=wrong")[0] == 401
    finally:
        server.close()


def test_a_port_that_is_taken_is_said_so(server: Server, tmp_path: Path) -> None:
    words = ["-m", "socklab", "serve", "--port", str(server.port), str(ROOT / "scenarios" / "echo")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=30)

    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"cannot listen on 127.0.0.1 port {server.port}: Address already in use; name others with --listen and --port"
    )


# in a browser


def test_a_play_grows_while_it_is_watched_and_survives_a_reload(server: Server, tab: Any) -> None:
    tab.goto(server.url)
    tab.wait_for_selector("html[data-ready]")
    tab.fill("#search", "slow")
    assert tab.inner_text("#count") == "1 play"
    tab.click("li:not([hidden]) button")
    tab.wait_for_url("**/plays/*")
    tab.wait_for_selector("#all [role=option]:has-text('first')")
    assert tab.inner_text("#verdict") == "…", "it goes on"

    tab.reload()
    tab.wait_for_selector("html[data-live=ended]")

    assert tab.inner_text("#verdict") == "pass"
    texts = tab.evaluate("page.store.rows.filter(m => m.what === 'data').map(m => m.text)")
    assert sorted(texts) == ['"first\\n"'] * 3 + ['"second\\n"'] * 3
    assert tab.locator("#scenario .done").count() == 6


def test_the_list_says_what_came_of_each(server: Server, tab: Any) -> None:
    server.marks(server.play("A play that fails"))
    tab.goto(server.url)
    tab.wait_for_selector(".verdict.fail")

    tab.click("a:has-text('A play that fails')")
    tab.wait_for_selector("html[data-live=ended]")
    assert "goodbye" in tab.inner_text("#why")


def test_axe_finds_no_serious_fault_on_the_list(server: Server, tab: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab.goto(server.url)
    tab.wait_for_selector("html[data-ready]")

    found = axe.Axe().run(tab).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
