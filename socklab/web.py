"""The pages of `socklab serve`: the scenarios, and each play as it goes on.

They answer this machine only, unless a token is asked for; a page of somebody else's site can neither read nor do anything here: the
Host and Origin of each request are looked at (DNS rebinding, cross-site requests), and no page loads or runs what is not ours.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from socklab import CLIENTS, page, player, recorded
from socklab.backends import LabError
from socklab.language import VERBS
from socklab.live import Feed, Stage, Watched
from socklab.scenario import Scenario, by_hand, taken_apart
from socklab.source import MAX_FILE, ScenarioError
from socklab.topology import Topology, TopologyError

ALIVE = 10.0  # seconds after which a viewer that hears nothing is told that we are there
STALLED = 20.0  # seconds for which a viewer may take nothing of what is sent to it before it is dropped
COOKIE = "socklab-token"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_KINDS = {".js": "text/javascript", ".css": "text/css"}


class _Wrong(Exception):
    """A request that cannot be answered as it wants: its status, and what to tell."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


@dataclass(frozen=True)
class Playable:
    """A play that can be begun."""

    id: str
    scenario: Scenario
    topology: Topology


class Guard:
    """Lets in only who may come in."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str) -> None:
        """`hosts`: names by which this server may be called; empty: any, for then there is a token."""
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refused(scope["method"], headers)
        if refused:
            await PlainTextResponse(refused + "\n", 403, HEADERS)(scope, receive, send)
            return
        if self.token:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and self._is_token(given):
                here = "/" + scope["path"].lstrip("/")  # "//name" would be another machine
                answer = RedirectResponse(here, 303, HEADERS)
                # Not "strict": who follows the printed link from another page (a terminal in a browser) would not get in.
                answer.set_cookie(COOKIE, self.token, httponly=True, samesite="lax")
                await answer(scope, receive, send)
                return
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            if cookie is None or not self._is_token(cookie.value):
                text = "This page wants a token: open the address that socklab serve printed.\n"
                await PlainTextResponse(text, 401, HEADERS)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _refused(self, method: str, headers: Mapping[str, str]) -> str:
        host = headers.get("host", "")
        called = _split(f"//{host}")
        if self.hosts and (called is None or called.hostname not in self.hosts):
            return f"This server is not called {host[:80]!r}."
        origin = headers.get("origin")
        if origin is not None and ((asker := _split(origin)) is None or asker.netloc != host):
            return "Requests from other sites are refused."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"  # a link is followed: it does nothing
        ):
            return "Requests from other sites are refused."
        return ""


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


class Stream(Response):
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) of a feed, from a place on."""

    def __init__(self, feed: Feed, request: Request, begun: Callable[[], None] = lambda: None) -> None:
        """`begun` is called when this is one of the feed's viewers."""
        self.feed = feed
        self.begun = begun
        name, _, number = request.headers.get("last-event-id", "").rpartition(".")
        self.known = name in ("", feed.name)
        """Whether what the viewer has seen is of this feed, and of no other server's that was here before."""
        counts = name == feed.name and number.isascii() and number.isdigit() and len(number) < 12
        self.after = int(number) if counts else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.feed.viewers += 1
        self.begun()
        try:
            await self._stream(receive, send)
        finally:
            self.feed.viewers -= 1

    async def _stream(self, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(self._gone(receive))
        writing = asyncio.ensure_future(self._write(send))
        try:
            await asyncio.wait({gone, writing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            writing.cancel()
            await asyncio.gather(gone, writing, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        if not self.known:
            await send({"type": "http.response.body", "body": b"data: null\n\n", "more_body": True})
        async for item in self.feed.read(self.after, ALIVE):
            text = ":\n\n" if item is None else f"id: {self.feed.name}.{item[0]}\ndata: {item[1]}\n\n"
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        end = b"event: end\ndata:\n\n" if self.feed.ended else b""
        await send({"type": "http.response.body", "body": end, "more_body": False})

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class Pages:
    def __init__(
        self,
        playable: Sequence[Playable],
        stage: Stage,
        topology: Topology | None = None,
    ) -> None:
        """`topology`: the compose file whose services can be played with by hand."""
        self.playable = {each.id: each for each in playable}
        self.topology = topology
        self.stage = stage

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.stage.start()
        try:
            yield
        finally:
            await self.stage.close()

    def app(self, hosts: Sequence[str], token: str = "") -> ASGIApp:
        routes = [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/scenarios", self.scenarios),
            Route("/scenarios/{id}", self.text),
            Route("/services", self.services),
            Route("/verbs", self.verbs),
            Route("/plays", self.begin, methods=["POST"]),
            Route("/board", self.board),
            Route("/plays/{id}", self.watch),
            Route("/plays/{id}/marks", self.marks),
            Route("/plays/{id}/report.html", self.report),
            Route("/plays/{id}/scenario.yaml", self.written),
            Route("/plays/{id}/rest", self.rest),
            Route("/plays/{id}/steps", self.step, methods=["POST"]),
            Route("/plays/{id}/break", self.break_off, methods=["POST"]),
            Route("/plays/{id}/end", self.end, methods=["POST"]),
        ]
        app = Starlette(routes=routes, lifespan=self.lifespan, exception_handlers={_Wrong: self._told})
        return Guard(app, hosts, token)

    @staticmethod
    async def _told(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, _Wrong)
        return JSONResponse({"error": str(exc)}, exc.status, HEADERS)

    async def index(self, request: Request) -> Response:
        return HTMLResponse(page.live("index.html", "Scenarios", page.INDEX), headers=HEADERS)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        kind = _KINDS.get(Path(name).suffix)
        if kind is None or name not in page.FILES:
            return self._missing()
        return Response(page.static(name), media_type=kind, headers=HEADERS)

    async def scenarios(self, request: Request) -> Response:
        return JSONResponse([self._as_data(each) for each in self.playable.values()], headers=HEADERS)

    async def text(self, request: Request) -> Response:
        """A scenario as it is written."""
        each = self.playable.get(request.path_params["id"])
        if each is None:
            return self._missing()
        return PlainTextResponse(each.scenario.source.text, headers=HEADERS)

    @staticmethod
    def _as_data(each: Playable) -> dict[str, Any]:
        scenario = each.scenario
        facts = {"id": each.id, "title": scenario.title, "about": scenario.about, "service": scenario.service}
        return {
            **facts,
            "label": scenario.label,
            "path": str(scenario.path),
            "folder": scenario.path.parent.name,
        }

    async def services(self, request: Request) -> Response:
        """What can be played with by hand: who keeps a contract; where nobody does, all (gates and clients only stand beside servers)."""
        known = list(self.topology.services.values()) if self.topology else []
        found = [
            {"name": s.name, "contract": s.contract, "protocol": s.protocol}
            for s in [s for s in known if s.contract] or known
        ]
        return JSONResponse(found, headers=HEADERS)

    async def verbs(self, request: Request) -> Response:
        """What a step can begin with."""
        return JSONResponse(list(VERBS), headers=HEADERS)

    async def begin(self, request: Request) -> Response:
        """Play a scenario: {"scenario": ID}. Or have its lab for playing by hand: {"scenario": ID, "by_hand": true}; or one with
        a service: {"service": NAME, "clients": [NAME, …]}."""
        asked = await self._body(request)
        try:
            watched = self._by_hand(asked) if "service" in asked else self._scenario(asked)
        except (ScenarioError, TopologyError) as exc:
            raise _Wrong(400, exc.message if isinstance(exc, ScenarioError) else str(exc)) from None
        except LabError as exc:
            raise _Wrong(429, str(exc)) from None
        return JSONResponse(watched.state, 201, HEADERS)

    def _scenario(self, asked: Mapping[str, Any]) -> Watched:
        each = self.playable.get(str(asked.get("scenario")))
        if each is None:
            raise _Wrong(404, "no such scenario; GET /scenarios lists them")
        if not asked.get("by_hand"):
            return self.stage.begin(each.scenario, each.topology)
        scenario, rest = taken_apart(each.scenario)
        return self.stage.open(scenario, each.topology, rest)

    def _by_hand(self, asked: Mapping[str, Any]) -> Watched:
        if self.topology is None:
            raise _Wrong(404, "there is no compose file, so there are no services")
        clients = asked.get("clients", CLIENTS)
        if not isinstance(clients, (list, tuple)) or not all(isinstance(name, str) for name in clients):
            raise _Wrong(400, "clients: a list of names")
        return self.stage.open(by_hand(str(asked["service"]), clients), self.topology)

    # by hand

    async def step(self, request: Request) -> Response:
        """Do a step, {"step": TEXT}, or the next one of the scenario, {"next": TEXT}; answered when it is done.

        `failure`: the lines that tell what was wrong, or null. A step that cannot be, or not now, is answered with status 400 or 409.
        """
        watched = self._watched(request)
        asked = await self._body(request)
        text = asked.get("step", asked.get("next"))
        if not isinstance(text, str):
            raise _Wrong(400, 'what is the step? {"step": "send: {alice: hello}"}')
        if watched.by_hand:
            await watched.begun.wait()
        if watched.session is None:
            raise _Wrong(409, "this play takes no steps: it has ended, or was not begun by hand")
        if "next" in asked:
            if text != next(iter(watched.rest), None):
                raise _Wrong(409, "somebody else has played this step already")
            watched.rest.pop(0)
        try:
            failure = await watched.session.do(text)
        except ScenarioError as exc:
            raise _Wrong(400, exc.message) from None
        except LabError as exc:
            raise _Wrong(409, str(exc)) from None
        return JSONResponse({"failure": failure and failure.lines()}, headers=HEADERS)

    async def rest(self, request: Request) -> Response:
        """The steps of the scenario that are still to come."""
        return JSONResponse(self._watched(request).rest, headers=HEADERS)

    async def break_off(self, request: Request) -> Response:
        """End the step that is waited for."""
        if (session := self._watched(request).session) is not None:
            session.break_off()
        return JSONResponse({}, headers=HEADERS)

    async def end(self, request: Request) -> Response:
        """Take the lab down."""
        self._watched(request).over.set()
        return JSONResponse({}, headers=HEADERS)

    async def written(self, request: Request) -> Response:
        """What was done and what came, as a scenario."""
        watched = self._watched(request)
        if not watched.by_hand or watched.history is None:
            raise _Wrong(404, "no session: this play has its scenario")
        name = f"{watched.scenario.label}.scenario.yaml"
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        try:
            text = recorded.of_session(watched.history, watched.scenario.title)
        except recorded.NothingDone as exc:
            raise _Wrong(404, str(exc)) from None
        return PlainTextResponse(text, headers=headers)

    async def _body(self, request: Request) -> dict[str, Any]:
        """What a request says."""
        data = bytearray()
        try:
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_FILE:
                    raise _Wrong(413, f"more than {MAX_FILE >> 10} KiB")
        except ClientDisconnect:
            raise _Wrong(400, "the rest of the request did not come") from None
        try:
            asked = json.loads(data)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise _Wrong(400, "a JSON object is asked for")
        return asked

    def _watched(self, request: Request) -> Watched:
        watched = self.stage.plays.get(request.path_params["id"])
        if watched is None:
            raise _Wrong(404, "there is no such play; GET /board tells of all")
        return watched

    # what is seen

    async def board(self, request: Request) -> Response:
        return Stream(self.stage.board, request)

    async def watch(self, request: Request) -> Response:
        watched = self.stage.plays.get(request.path_params["id"])
        if watched is None:
            return await self.report(request)
        scripts = page.BY_HAND if watched.by_hand else page.LIVE
        return HTMLResponse(page.live("report.html", "a play", scripts), headers=HEADERS)

    async def marks(self, request: Request) -> Response:
        watched = self.stage.plays.get(request.path_params["id"])
        if watched is None:
            return self._missing()
        return Stream(watched.feed, request, watched.draw)

    async def report(self, request: Request) -> Response:
        """The page that the run has left."""
        path = self.stage.reports.get(request.path_params["id"])
        if path is None or not path.is_file():
            return self._missing()
        # It brings a policy of its own: only its own script runs.
        return HTMLResponse(path.read_text(encoding="utf-8"), headers={"Cache-Control": "no-store"})

    @staticmethod
    def _missing() -> Response:
        return PlainTextResponse("There is no such page; the list of scenarios is at /\n", 404, HEADERS)


def listener(address: str, port: int) -> socket.socket:
    """Where viewers connect. Raises OSError, and OverflowError for what is no port.

    One that takes nothing for STALLED seconds is dropped by the kernel (tcp(7), TCP_USER_TIMEOUT; connections inherit it), with all
    that waits for it: to close its connection would wait for it to read.
    """
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED * 1000))
        made.bind((address, port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def playable(paths: Sequence[Path], compose: Path | None) -> tuple[list[Playable], list[str]]:
    """What can be played, and what is wrong with the other files. Raises NoSuchPath."""
    selection = player.select(player.find(paths), compose)
    found = [Playable(str(n), *pair) for n, pair in enumerate(selection.scenarios, 1)]
    return found, selection.errors
