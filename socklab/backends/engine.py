"""The Docker engine: calls to it that do not block, and what labs have left in it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from socklab.backends import LabError, Unavailable

LABEL = "socklab.lab"
ANCHOR = "socklab.anchor"
CALLS = 16  # calls to the engine at once
BUILD_LIMIT = 900.0  # seconds
YOUNG = 60  # seconds during which a lab may have an anchor that does not run yet


class Refused(LabError):
    """The engine said no."""


class NoSuch(Refused):
    """The engine knows no such thing."""


class Engine:
    """The Docker engine by its SDK, which blocks, in threads; and by its command line where the SDK has no call."""

    def __init__(self) -> None:
        self._client: docker.APIClient | None = None
        self._threads = ThreadPoolExecutor(CALLS, "docker")
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Raises Unavailable."""
        if self._client is not None:
            return
        try:
            self._client = await asyncio.get_running_loop().run_in_executor(self._threads, connect)
        except LabError as exc:
            raise Unavailable(str(exc)) from None

    async def call(self, what: Callable[[Any], Any]) -> Any:
        """Raises LabError with the engine's own words."""
        client = self._client
        if client is None:
            raise LabError("the Docker engine was never reached")
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: told(what, client))

    def task(self, coroutine: Any) -> None:
        """Something that goes on by itself, and is waited for at the end."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def command(
        self, argv: Sequence[str], wrong: str, limit: float = BUILD_LIMIT, input: str = ""
    ) -> str:
        """Run docker's command line and give its stdout. Raises LabError: `wrong`, and the last that it said."""

        def run() -> str:
            environment = {
                **os.environ,
                "DOCKER_CLI_HINTS": "false",
                "COMPOSE_ANSI": "never",
                "COMPOSE_PROGRESS": "plain",
            }
            try:
                done = subprocess.run(
                    argv,
                    input=input,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    env=environment,
                    timeout=limit,
                    check=False,
                )
            except FileNotFoundError:
                raise LabError(
                    "there is no docker command on the PATH; install Docker's command line and Compose"
                ) from None
            except subprocess.TimeoutExpired:
                raise LabError(f"{wrong}: not done within {limit:g}s") from None
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if line.strip()]
                raise LabError(f"{wrong}: {' | '.join(said[-2:]) if said else f'status {done.returncode}'}")
            return done.stdout

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def finish(self, last: Callable[[Any], object]) -> None:
        """What is under way comes to its end, then `last`, which also finds what came too late for its owner."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await asyncio.to_thread(self._threads.shutdown)
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.to_thread(told, last, client)
            except LabError:
                pass  # an engine that is gone has taken its containers along, or the next run finds them
            client.close()


def connect() -> Any:
    """A client of the engine that `docker` itself would take. Raises LabError."""
    try:
        client = docker.from_env(version="auto", timeout=120, max_pool_size=CALLS).api
    except (DockerException, requests.exceptions.RequestException) as exc:
        raise LabError(f"no Docker engine answers ({_why(exc)}); start it, or play --on netns") from None
    return client


def told(what: Callable[[Any], Any], client: Any) -> Any:
    """Call the engine. Raises LabError with its own words."""
    try:
        return what(client)
    except NotFound as exc:
        raise NoSuch(_why(exc)) from None
    except APIError as exc:
        raise Refused(_why(exc)) from None
    except (DockerException, requests.exceptions.RequestException, OSError) as exc:
        raise LabError(f"the Docker engine is gone, or does not answer: {_why(exc)}") from None


def _why(exc: BaseException) -> str:
    text = " ".join(str(getattr(exc, "explanation", None) or exc).split())
    if "address pool" in text or "all predefined address pools" in text:
        text += "; remove networks that are not used (docker network prune), or play fewer at once (--jobs 1)"
    return text[:500]


def abandoned(client: Any) -> set[str]:
    """The labs that have something, and whose anchor runs no more: it ends with the process that made it."""
    labs, alive = set(), set()
    for container in client.containers(all=True, filters={"label": LABEL}):
        lab = container["Labels"][LABEL]
        labs.add(lab)
        young = container["State"] == "created" and time.time() - container["Created"] < YOUNG
        if ANCHOR in container["Labels"] and (container["State"] == "running" or young):
            alive.add(lab)
    for network in client.networks(filters={"label": LABEL}):
        labs.add(network["Labels"][LABEL])
    for volume in client.volumes(filters={"label": LABEL})["Volumes"] or []:
        labs.add(volume["Labels"][LABEL])
    return labs - alive


def remove(client: Any, labs: set[str]) -> int:
    """Remove all that these labs made, by their label. How many things that were."""
    count = 0

    def gone(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        nonlocal count
        try:
            call(*arguments, **options)
            count += 1
        except NotFound:
            pass
        except APIError as exc:
            if exc.status_code != 409:  # its removal is under way
                raise

    for lab in sorted(labs):
        filters = {"label": f"{LABEL}={lab}"}
        for attempt in range(20):
            containers = client.containers(all=True, filters=filters)
            for container in containers:
                gone(client.remove_container, container["Id"], force=True, v=True)
            if not containers:
                break
            time.sleep(0.05 * attempt)  # those whose removal is under way hold their networks
        for network in client.networks(filters=filters):
            gone(client.remove_network, network["Id"])
        for volume in client.volumes(filters=filters)["Volumes"] or []:
            gone(client.remove_volume, volume["Name"], force=True)
    return count


def own_socket(stream: Any) -> socket.socket:
    """A socket of our own for what attach_socket() gave, which closes its socket when it is collected."""
    inner = getattr(stream, "_sock", stream)
    mine = socket.socket(fileno=os.dup(inner.fileno()))
    # The stream and the response share the socket by buffers of their own.
    for each in (stream, getattr(stream, "_response", None), inner):
        try:
            if each is not None:
                each.close()
        except (OSError, ValueError):
            pass  # closed by the one before
    return mine
