"""`socklab serve`: who may come in, what a viewer sees, and that no viewer holds a play back."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from socklab.live import Feed
from tests.seeing.histories import HOSTILE
from tests.seeing.serving import ROOT, Server

pytest.importorskip("starlette", reason="needs socklab[web]")
uvicorn = pytest.importorskip("uvicorn", reason="needs socklab[web]")

from starlette.requests import Request  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402

from socklab import web  # noqa: E402


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
        ({"Host": "["}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"}, 403),
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


def test_who_breaks_off_a_request_is_not_complained_of(server: Server) -> None:
    """What the server prints is looked at when it ends."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /plays HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
    assert server.ask("GET", "/scenarios")[0] == 200


def test_more_connections_than_descriptors_are_told_of_once(tmp_path: Path) -> None:
    """And when they have gone, the page is there as before."""
    server = Server(tmp_path)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (60, 60))
    crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    while not server.complaints.read_text():
        time.sleep(0.01)
    for client in crowd:
        client.close()

    assert server.ask("GET", "/scenarios")[0] == 200
    (said,) = server.complaints.read_text().splitlines()
    assert said.startswith("too many connections at once")
    server.complaints.write_text("")
    server.close()


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    """Also while somebody looks on and a play goes on."""
    server = Server(tmp_path)
    server.play("A slow play")
    with socket.create_connection(("127.0.0.1", server.port)) as viewer:
        viewer.sendall(b"GET /board HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        viewer.recv(1)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 130

    said = server.complaints.read_text()
    assert said.strip() == "interrupted; everything that was started has been ended"
    server.complaints.write_text("")
    server.close()


def test_all_viewers_see_the_same_and_one_that_comes_again_misses_nothing(server: Server) -> None:
    play = server.play("A slow play")
    with ThreadPoolExecutor(20) as viewers:
        seen = list(viewers.map(server.marks, [play] * 20))

    assert all(each == seen[0] for each in seen)
    assert server.marks(play, after=seen[0][0][0]) == seen[0][1:]
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


def test_a_viewer_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that waits for it, while one that reads gets all."""
    monkeypatch.setattr(web, "STALLED", 1.0)
    feed = Feed()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await web.Stream(feed, Request(scope))(scope, receive, send)

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.02)

    async def play() -> int:
        listener = web.listener("127.0.0.1", 0)
        address = listener.getsockname()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(address)
        stalled.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await until(lambda: feed.viewers == 2)
        for _ in range(200):
            feed.add("x" * 65536)
        reading = asyncio.ensure_future(reader.read())
        await until(lambda: feed.viewers == 1)
        feed.end()
        got = len(await reading)
        await until(lambda: not server.server_state.connections)
        stalled.close()
        writer.close()
        server.should_exit = True
        await serving
        return got

    assert asyncio.run(play()) > 200 * 65536


def test_a_token_is_asked_for_where_others_can_reach_it(tmp_path: Path) -> None:
    server = Server(tmp_path, "--listen", "0.0.0.0")
    try:
        token = server.url.split("token=")[1]
        assert server.ask("GET", "/scenarios")[0] == 401
        assert server.ask("GET", "/scenarios?token=wrong")[0] == 401
        assert server.ask("GET", f"/?token={token}")[0] == 303
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", f"//evil.example/?token={token}")
        assert connection.getresponse().getheader("location") == "/evil.example/", "nobody is sent elsewhere"
        connection.close()
        assert server.ask("GET", "/scenarios", Cookie=f"socklab-token={token}")[0] == 200
        assert server.ask("GET", "/scenarios", Cookie="socklab-token=wrong")[0] == 401
    finally:
        server.close()


def test_services_with_a_protocol_of_their_own_can_be_played_with_too(tmp_path: Path) -> None:
    """No label says what they keep, so nothing tells servers from what stands beside them, and all are offered."""
    compose = tmp_path / "docker-compose.yml"
    compose.write_text("services:\n  chat:\n    command: ./own 0.0.0.0:7700\n    expose: ['7700']\n")
    made = Server(tmp_path, "--compose", str(compose))
    try:
        offered = json.loads(made.ask("GET", "/services")[1])
    finally:
        made.close()

    assert offered == [{"name": "chat", "contract": None, "protocol": "tcp"}]


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
    assert tab.inner_text("#verdict") == "running"

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

    tab.click("summary:has-text('A play that fails')")
    tab.locator("pre").filter(has_text="- expect: {alice: goodbye}").wait_for()
    tab.click("a.verdict.fail")
    tab.wait_for_selector("html[data-live=ended]")
    assert "goodbye" in tab.inner_text("#why")


def test_whatever_was_sent_is_shown_live_and_never_run(tab: Any, tmp_path: Path) -> None:
    """Also what breaks a terminal, no text at all, a line of a megabyte; and a scenario's own words in the list."""
    title = HOSTILE[0].replace("'", "")
    steps = [
        f"  - send: {{alice: {{bytes: {json.dumps(text.encode().decode('latin-1'))}}}}}\n"
        for text in HOSTILE[:-1]
    ]
    steps += [
        '  - send: {alice: {bytes: "\\xff\\xfe\\0"}}\n',
        "  - send: {alice: {text: x, repeat: 1000000}}\n",
    ]
    text = f"title: {json.dumps(title)}\nservice: echo\nclients: [alice]\nsteps:\n  - connect: alice\n"
    (tmp_path / "hostile.scenario.yaml").write_text(
        text + "".join(steps) + "  - expect: {alice: {exactly: sent}}\n"
    )
    server = Server(tmp_path)
    try:
        tab.goto(server.url)
        tab.wait_for_selector("html[data-ready]")
        tab.get_by_role("button", name=f"play {title}, echo", exact=True).click()
        tab.wait_for_url("**/plays/*")
        tab.wait_for_selector("html[data-live=ended]")
        assert tab.inner_text("#verdict") == "pass"
        assert tab.title() == title + " · socklab"
        assert tab.locator("main script, main img, aside script, aside img, header script").count() == 0
        texts = tab.evaluate("page.store.rows.filter(m => m.what === 'data').map(m => m.text)")
        assert max(map(len, texts)) < 1000
        assert not [c for t in texts for c in t if not c.isprintable()]
    finally:
        tab.close()  # before the server ends, of which it would complain
        server.close()


def test_axe_finds_no_serious_fault_on_the_list(server: Server, tab: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab.goto(server.url)
    tab.wait_for_selector("html[data-ready]")

    found = axe.Axe().run(tab).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_link_from_elsewhere_leads_in_and_does_nothing(server: Server, tmp_path: Path) -> None:
    """A terminal in a browser shows the address as a link: to follow it is a request of another site."""
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}

    assert server.ask("GET", "/", **followed)[0] == 200
    assert server.ask("POST", "/plays", {"scenario": "1"}, **followed)[0] == 403


def test_a_viewer_of_a_server_that_was_here_before_begins_anew(server: Server) -> None:
    play = server.play("A play that fails")
    seen = server.marks(play)

    text = server.ask("GET", f"/plays/{play}/marks", Last_Event_ID="0badcafe.3")[1]
    assert text.startswith("data: null\n\n")
    assert text.count("\nid: ") + text.startswith("id: ") == len(seen)


def test_a_history_that_cannot_be_drawn_takes_no_other_with_it(tmp_path: Path) -> None:
    """The process that draws goes on with the others."""
    (tmp_path / "bad.jsonl").write_text('{"t":1,"kind":"play","nodes":[]}\n')
    (tmp_path / "good.jsonl").write_text(
        '{"t":1,"kind":"play","nodes":{"server":"10.0.0.2"},"title":"good"}\n'
    )
    orders = [["1", "draw", str(tmp_path / "bad.jsonl")], ["2", "draw", str(tmp_path / "good.jsonl")]]
    orders += [[play, what, ""] for what in ("more", "end") for play in ("1", "2")]
    done = subprocess.run(
        [sys.executable, "-m", "socklab.drawer"],
        input="".join(json.dumps(order) + "\n" for order in orders),
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0
    assert '"title":"good"' in done.stdout
    assert done.stdout.splitlines()[-2:] == ["1\t", "2\t"]
