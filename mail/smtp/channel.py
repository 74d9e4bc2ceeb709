"""Bytes in and out of one connection to the mail server, and its replies one by one while a session is being opened."""

from __future__ import annotations

import asyncio
from typing import cast

from mail.smtp.replies import Reply, ReplyParser


class SessionError(Exception):
    """No session could be opened; the message is for people and holds no secrets."""


class Channel(asyncio.Protocol):
    """The part of `mail.smtp.connection.Connection` that knows no mails.

    `address` names the server for people; `timeout` is in seconds, for the reply to each write.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._replies: list[Reply] = []
        self._waiter: asyncio.Future[Reply] | None = None
        self._gone = False
        self.transport: asyncio.Transport | None = None
        #: What carries the encrypted bytes, if TLS was begun by STARTTLS.
        self._carrier: asyncio.Transport | None = None
        #: When the reply that is awaited becomes too late, in the loop's time.
        self.deadline = 0.0

    async def ask(self, command: bytes | None) -> Reply:
        """Writes a command (none for the greeting) and waits for its reply. SessionError on loss or silence."""
        if command is not None:
            self.expect_silence()
            self._write(command)
        if not self._replies:
            if self._gone:
                raise SessionError(f"mail server {self._address} closed the connection")
            self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._waiter
            except TimeoutError as error:
                raise SessionError(f"mail server {self._address} gave no answer within {self._timeout:g} s") from error
            finally:
                self._waiter = None
        return self._replies.pop(0)

    def expect_silence(self) -> None:
        """SessionError unless every reply has been read and the connection is open."""
        if self._replies or self._parser.in_mid_reply:
            raise SessionError(f"mail server {self._address} sent a reply out of turn")
        if self._gone:
            raise SessionError(f"mail server {self._address} closed the connection")

    def encrypted(self, transport: asyncio.Transport) -> None:
        """TLS was begun on the connection's transport; from now on this one is written to."""
        self._carrier, self.transport = self.transport, transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast("asyncio.Transport", transport)
        # uvloop would else keep what is written until the end of the loop's turn: after the permission was asked.
        self.transport.set_write_buffer_limits(high=0)

    @property
    def _limit(self) -> float:
        """How long the server may take for its next reply, in seconds."""
        return self._timeout

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)
        self._expect_reply()

    def _expect_reply(self) -> None:
        self.deadline = self._loop.time() + self._limit

    def _unsent(self) -> int:
        """Bytes that were written and have not left; of implicit TLS, those that are not encrypted yet."""
        carried = self._carrier.get_write_buffer_size() if self._carrier is not None else 0
        return carried + (self.transport.get_write_buffer_size() if self.transport is not None else 0)

    def _opening(self, replies: list[Reply]) -> None:
        self._replies += replies
        if self._replies and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._replies.pop(0))

    def _fail_opening(self, reason: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(SessionError(reason))
