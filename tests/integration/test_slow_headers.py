"""Requests whose headers never come, on real sockets: they end, and others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
import uvicorn

from web.http_protocol import HttpProtocol


class Quick(HttpProtocol):
    """Waits less long."""

    header_seconds = 0.4


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers after a while."""
    await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """A server with that protocol; its port."""
    config = uvicorn.Config(answer, http=Quick, port=0, lifespan="off", log_config=None, timeout_keep_alive=30)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def slow(port: int, sent: bytes, pause: float = 0.05) -> tuple[bytes, float]:
    """What a client receives that sends a byte now and then, and after how many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = monotonic()

    async def trickle() -> None:
        writer.write(sent)
        while True:
            await asyncio.sleep(pause)
            writer.write(b"x")

    task = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(10):
            return await reader.read(), monotonic() - began
    finally:
        task.cancel()
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_headers_that_never_end(sent: bytes) -> None:
    """408 after the time, however many bytes come meanwhile; a request in time is answered, however long that takes."""

    async def check() -> None:
        async with served() as port:
            (got, seconds), whole = await asyncio.gather(slow(port, sent), whole_request(port))
            assert got.startswith(b"HTTP/1.1 408 ")
            assert seconds < 3
            assert whole == [b"HTTP/1.1 200 OK\r\n"] * 2

    asyncio.run(check())


async def whole_request(port: int) -> list[bytes]:
    """The status lines of two requests on one connection, the second of which begins late and ends in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    for _ in range(2):
        await asyncio.sleep(0.1)
        writer.write(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"Host: a\r\n\r\n")
        statuses.append(await reader.readline())
        while await reader.readline() != b"\r\n":
            pass
        await reader.readexactly(2)
        await asyncio.sleep(0.5)
    writer.close()
    return statuses
