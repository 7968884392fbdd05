"""The conductor's side of a control stream, of a scripted client, a gate or a capture: commands out, answers and events in, JSON lines."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from socklab.backends import LabError
from socklab.backends.stream import Lines, Stream


class AgentError(LabError):
    """The agent is gone, or does not speak as agreed: the lab is broken, not the server."""


class CommandRefused(AgentError):
    """The agent cannot do what it is told; the message says why."""


OnEvent = Callable[[dict[str, Any]], None]


class Agent:
    """One agent. Every command is answered once; what happens meanwhile comes to `on_event`."""

    def __init__(self, node: str, stream: socket.socket, on_event: OnEvent, what: str = "agent") -> None:
        """`what` it is called in messages."""
        self.node = node
        self._name = f"the {what} on {node}"
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._heard: dict[int, OnEvent] = {}
        self._number = 0
        self._gone: str | None = None
        self._loop = asyncio.get_running_loop()
        self._stream = Stream(stream, Lines(self._line).feed, self._ended)

    async def ask(self, do: str, heard: OnEvent | None = None, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer (`ok` true or false). Raises AgentError when the agent is gone.

        `heard` is called with the answer at its place in the stream, before any event behind it is told.
        """
        if self._gone:
            raise AgentError(self._gone)
        self._number += 1
        number = self._number
        answer = self._loop.create_future()
        self._answers[number] = answer
        if heard is not None:
            self._heard[number] = heard
        self._stream.write(
            json.dumps(
                {"id": number, "do": do, **arguments}, ensure_ascii=False, separators=(",", ":")
            ).encode()
            + b"\n"
        )
        try:
            reply: dict[str, Any] = await answer
        finally:
            self._answers.pop(number, None)
            self._heard.pop(number, None)
        if not reply.get("ok") and reply.get("error") == "usage":
            raise CommandRefused(f"{self._name} refuses {do}: {reply.get('message')}")
        return reply

    def close(self) -> None:
        """Close the stream, which ends the agent."""
        self._end(f"{self._name} was closed")

    def _ended(self, problem: OSError | None) -> None:
        what = f"is gone: {problem.strerror}" if problem else "ended; was it killed?"
        self._end(f"{self._name} {what}")

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self._end(f"{self._name} said what is no JSON: {line[:80]!r}")
            return
        if "event" in message:
            if message["event"] != "hello":
                self._on_event(message)
            return
        answer = self._answers.get(message.get("id"))
        if answer is not None and not answer.done():
            if heard := self._heard.get(message["id"]):
                heard(message)
            answer.set_result(message)

    def _end(self, why: str) -> None:
        if self._gone is not None:
            return
        self._gone = why
        self._stream.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AgentError(why))
