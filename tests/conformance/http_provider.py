"""A mail provider with an HTTP API, which the sender of examples/own_sender.py is for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from examples.own_sender import ProviderSender
from tests.conformance.smtp_servers import Mail

TOKEN = "a token"


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the test."""
        yield


class HttpProvider:
    """Keeps what is posted to it. Runs in the event loop that starts it, and keeps its port over restarts."""

    accepted = "202 kept as {}"
    refused = "422 no such mailbox"
    put_off = "423 try later"

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self._port = 0
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        routes = [Route("/messages", self._answer, methods=["GET"]), Route("/messages", self._take, methods=["POST"])]
        self._app = Starlette(routes=routes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def sender(self, connections: int = 10) -> ProviderSender:
        return ProviderSender(self.url, TOKEN, connections, timeout=5.0)

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(self._app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        self._server = _Uvicorn(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listening]))
        while not self._server.started:  # noqa: ASYNC110 - uvicorn announces it by this alone
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._server = self._serving = None

    async def _answer(self, request: Request) -> Response:
        return _unauthorized(request) or PlainTextResponse("at your service")

    async def _take(self, request: Request) -> Response:
        unauthorized = _unauthorized(request)
        if unauthorized is not None:
            return unauthorized
        body = await request.json()
        if body["to"].startswith("refused"):
            return PlainTextResponse("no such mailbox", 422)
        if body["to"].startswith("later"):
            return PlainTextResponse("try later", 423)
        self.mails.append(Mail(body["from"], (body["to"],), base64.b64decode(body["message"])))
        return PlainTextResponse(f"kept as {len(self.mails)}", 202)


def _unauthorized(request: Request) -> Response | None:
    if request.headers.get("Authorization") == f"Bearer {TOKEN}":
        return None
    return PlainTextResponse("no such token", 401)
