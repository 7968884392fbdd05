"""The pages of `socklab serve`: the scenarios, and each play as it goes on.

They answer this machine only, unless a token is asked for; a page of somebody else's site can neither read nor do anything here: the
Host and Origin of each request are looked at (DNS rebinding, cross-site requests), and no page loads or runs what is not ours.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from socklab import page, player
from socklab.live import Feed, Stage
from socklab.scenario import Scenario
from socklab.topology import Topology

ALIVE = 10.0  # seconds after which a viewer that hears nothing is told that we are there
STALLED = 20.0  # seconds for which a viewer may take nothing before it is dropped
COOKIE = "socklab-token"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_KINDS = {".js": "text/javascript", ".css": "text/css"}


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
        refused = self._refused(headers)
        if refused:
            await PlainTextResponse(refused + "\n", 403, HEADERS)(scope, receive, send)
            return
        if self.token:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if given and self._is_token(given):
                answer = RedirectResponse(scope["path"], 303, HEADERS)
                answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
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

    def _refused(self, headers: Mapping[str, str]) -> str:
        host = headers.get("host", "")
        if self.hosts and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return f"This server is not called {host[:80]!r}."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "Requests from other sites are refused."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "Requests from other sites are refused."
        return ""


class Stream(Response):
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) of a feed, from a place on."""

    def __init__(self, feed: Feed, after: int) -> None:
        self.feed = feed
        self.after = after
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        async for item in self.feed.read(self.after, ALIVE):
            text = ":\n\n" if item is None else f"id: {item[0]}\ndata: {item[1]}\n\n"
            async with asyncio.timeout(STALLED):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"event: end\ndata:\n\n", "more_body": False})

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


class Pages:
    def __init__(self, playable: Sequence[Playable], stage: Callable[[], Awaitable[Stage]]) -> None:
        self.playable = {each.id: each for each in playable}
        self._make_stage = stage
        self.stage: Stage

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.stage = await self._make_stage()
        try:
            yield
        finally:
            await self.stage.close()
            await self.stage.backend.close()

    def app(self, hosts: Sequence[str], token: str = "") -> ASGIApp:
        routes = [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/scenarios", self.scenarios),
            Route("/plays", self.begin, methods=["POST"]),
            Route("/board", self.board),
            Route("/plays/{id}", self.watch),
            Route("/plays/{id}/marks", self.marks),
            Route("/plays/{id}/report.html", self.report),
        ]
        return Guard(Starlette(routes=routes, lifespan=self.lifespan), hosts, token)

    async def index(self, request: Request) -> Response:
        return HTMLResponse(page.live("index.html", "socklab", ["serve.js"]), headers=HEADERS)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        kind = _KINDS.get(Path(name).suffix)
        if kind is None or name not in page.FILES:
            return self._missing()
        return Response(page.static(name), media_type=kind, headers=HEADERS)

    async def scenarios(self, request: Request) -> Response:
        return JSONResponse([self._as_data(each) for each in self.playable.values()], headers=HEADERS)

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

    async def begin(self, request: Request) -> Response:
        """Play one. The body is {"scenario": ID}."""
        try:
            asked = await request.json()
            each = self.playable[asked["scenario"]]
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "no such scenario; GET /scenarios lists them"}, 404, HEADERS)
        return JSONResponse(self.stage.begin(each.scenario, each.topology).state, 201, HEADERS)

    async def board(self, request: Request) -> Response:
        return Stream(self.stage.board, self._after(request))

    async def watch(self, request: Request) -> Response:
        if request.path_params["id"] not in self.stage.plays:
            return self._missing()
        scripts = ["diagram.js", "page.js", "live.js"]
        return HTMLResponse(page.live("report.html", "a play", scripts), headers=HEADERS)

    async def marks(self, request: Request) -> Response:
        watched = self.stage.plays.get(request.path_params["id"])
        return self._missing() if watched is None else Stream(watched.feed, self._after(request))

    async def report(self, request: Request) -> Response:
        """The page that the run has left."""
        watched = self.stage.plays.get(request.path_params["id"])
        folder = watched.result.folder if watched is not None and watched.result is not None else None
        if folder is None or not (folder / "report.html").is_file():
            return self._missing()
        # It brings a policy of its own: only its own script runs.
        return HTMLResponse(
            (folder / "report.html").read_text(encoding="utf-8"), headers={"Cache-Control": "no-store"}
        )

    @staticmethod
    def _after(request: Request) -> int:
        """Where a viewer that was interrupted goes on."""
        text = request.headers.get("last-event-id", "0")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0

    @staticmethod
    def _missing() -> Response:
        return PlainTextResponse("There is no such page; the list of scenarios is at /\n", 404, HEADERS)


def playable(paths: Sequence[Path], compose: Path | None) -> tuple[list[Playable], list[str]]:
    """What can be played, and what is wrong with the other files. Raises NoSuchPath."""
    selection = player.select(player.find(paths), compose)
    found = [Playable(str(n), *pair) for n, pair in enumerate(selection.scenarios, 1)]
    return found, selection.errors
