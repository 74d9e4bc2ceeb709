"""A mail server that takes so many mails a second and throttles the rest, as providers do. On 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Self


class Mode(Enum):
    """How it throttles: what it replies, and when."""

    MAIL_454 = "454"
    MAIL_421 = "421"
    BODY_454 = "body"
    #: To every mail while `closed` says so; otherwise without a limit.
    MAIL_452 = "452"


_REPLIES = {
    Mode.MAIL_454: b"454 4.7.0 Throttling failure: Maximum sending rate exceeded",
    Mode.MAIL_421: b"421 4.7.0 Too many messages, slow down",
    Mode.BODY_454: b"454 4.7.0 Throttling failure: Maximum sending rate exceeded",
    Mode.MAIL_452: b"452 4.3.1 Insufficient system storage",
}


class ThrottlingServer:
    """Runs in a thread of its own. `accepted` counts mails by their delivery key."""

    def __init__(self, rate: float, mode: Mode, closed: Callable[[float], bool] = lambda _: False) -> None:
        self.rate = rate
        self.mode = mode
        self._closed = closed
        self.began = time.monotonic()
        self.connections = self.throttled = 0
        self.accepted: Counter[bytes] = Counter()
        self._tokens, self._at = rate, time.monotonic()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        """For BIDDEN_SMTP_URL."""
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def wasted(self) -> float:
        """The share of dialogues that were throttled."""
        return self.throttled / max(self.throttled + self.accepted.total(), 1)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    def _takes(self) -> bool:
        now = time.monotonic()
        if self.mode is Mode.MAIL_452:
            return not self._closed(now - self.began)
        self._tokens = min(max(self.rate, 1.0), self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 throttling ESMTP\r\n")
        has_sender = False
        while line := await reader.readline():
            command = line[:4].upper()
            reply = b"250 2.0.0 Ok"
            if command in (b"EHLO", b"HELO"):
                reply = b"250-throttling\r\n250-PIPELINING\r\n250 8BITMIME"
            elif command == b"MAIL":
                has_sender = self.mode is Mode.BODY_454 or self._takes()
                if not has_sender:
                    reply = _REPLIES[self.mode]
                    self.throttled += 1
            elif command == b"RSET":
                has_sender = False
            elif not has_sender and command in (b"RCPT", b"DATA"):
                reply = b"503 5.5.1 No sender"
            elif command == b"DATA":
                writer.write(b"354 Go on\r\n")
                reply = self._body(await reader.readuntil(b"\r\n.\r\n"))
                has_sender = False
            elif command == b"QUIT":
                return
            writer.write(reply + b"\r\n")
            await writer.drain()
            if reply.startswith(b"421"):
                return

    def _body(self, data: bytes) -> bytes:
        if self.mode is Mode.BODY_454 and not self._takes():
            self.throttled += 1
            return _REPLIES[self.mode]
        self.accepted[data.partition(b"X-Bidden-Delivery: ")[2].partition(b"\r\n")[0]] += 1
        return b"250 2.0.0 Queued"
