"""The sender for SMTP: a pool of connections that stay open, and one queue.

A mail goes to the first free connection; connections are opened while mails wait, up to the limit, and stay open. A
mail given to a connection that the server had dropped is moved to another: the server never heard of it. When no
connection can be opened, everything in the queue is NotSent at once, so that the caller can set it aside and wait in
`ready`.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from config.log_throttle import LogThrottle
from mail.smtp.connection import Connection, SessionError
from mail.smtp.metered_pace import MeteredPace
from mail.smtp.session import open_session
from mail.smtp.submission import Submission
from mail.smtp.url import Tls, parse
from schemas.envelope import Envelope
from schemas.errors import SettingsError, UnreachableError
from schemas.send_results import NotSent, SendResult, Throttled, Undecided

_log = structlog.get_logger()

_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 5.0
#: A server that takes some connections and refuses more is not asked for more before this time, in seconds.
_FULL_FOR: Final = 5.0
#: For the reply to the final dot, in seconds (RFC 5321, 4.5.3.2.6): a server that is given up there may have accepted.
FINAL_TIMEOUT: Final = 600.0
_GOODBYE: Final = 1.0


class SmtpSender:
    """See `mail.sender.Sender` for the contract.

    `url` is the setting BIDDEN_SMTP_URL (`mail.smtp.url`; SettingsError if it makes no sense). In seconds: `timeout` is
    for the answer to each write, `final_timeout` for the answer to a mail's data, `drain` for how long `close` lets
    mails in mid-dialogue finish. `hello` is the name for EHLO. May be made outside of an event loop; belongs to the
    first that uses it.
    """

    def __init__(
        self,
        url: str,
        connections: int = 10,
        timeout: float = 30.0,  # per reply, kept for the sender's life
        drain: float = 10.0,
        hello: str | None = None,
        final_timeout: float = FINAL_TIMEOUT,
    ) -> None:
        self._server = parse(url)
        self._context = None if self._server.tls is Tls.NEVER else _tls_context(self._server.ca_file)
        self._limit = connections
        self._timeout = timeout
        self._final_timeout = max(timeout, final_timeout)
        self._drain = drain
        self._hello = hello
        self._queue: deque[Submission] = deque()
        #: Mails whose `done` is to be called.
        self._taken = 0
        self._pace = MeteredPace(lambda: len(self._connections))
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._refused: str | None = None
        self._full_until = 0.0
        self._sweep: asyncio.TimerHandle | None = None
        self._changed: asyncio.Event = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"SmtpSender({self._server.address}, {self._server.tls.value})"

    async def check(self) -> None:
        """See `Sender.check`. The session that it opened is kept for mails."""
        if not self._connections:
            try:
                await self._open()
            except SessionError as error:
                raise UnreachableError(str(error)) from error

    async def ready(self) -> None:
        """See `Sender.ready`."""
        wait = _FIRST_WAIT
        attempts = 0
        throttle = LogThrottle(asyncio.get_running_loop().time)
        while not self._connections:
            if self._closed:
                raise RuntimeError("the sender is closed")
            try:
                await self._open()
            except SessionError as error:
                attempts += 1
                if throttle.admits():
                    _log.warning("waiting for the mail server", reason=str(error), attempts=attempts)
                # Jitter, so that many workers do not come back in step.
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(wait * 2, _LONGEST_WAIT)
        if attempts:
            _log.info("the mail server is back", server=self._server.address, attempts=attempts)

    def submit(
        self,
        envelope: Envelope,
        done: Callable[[SendResult], None],
        permitted: Callable[[], bool],
        completing: Callable[[], bool] | None = None,
    ) -> None:
        """See `Sender.submit`."""
        submission = Submission(envelope, done, permitted, completing or permitted)
        self._taken += 1
        if self._closed:
            asyncio.get_running_loop().call_soon(self._report, submission, NotSent("the sender is closed"))
            return
        self._queue.append(submission)
        self._pump()

    def capacity(self) -> int:
        """See `Sender.capacity`. By the time that mails take, and by the connections that the server lets us have."""
        now = time.monotonic()
        count = self._limit
        if self._connections and asyncio.get_running_loop().time() < self._full_until:
            count = len(self._connections)
        waits = [now - connection.begun if connection.busy else 0.0 for connection in self._connections]
        return max(0, self._pace.room(count, min(waits, default=0.0)) - self._taken)

    async def close(self) -> None:
        """See `Sender.close`."""
        self._closed = True
        try:
            for task in self._opening:
                task.cancel()
            self._fail_queue("the sender is closing")
            await self._until(lambda: not any(c.busy for c in self._connections), self._drain)
        finally:
            for connection in list(self._connections):
                if connection.busy:
                    connection.give_up("the sender was closed before the mail server answered", by_us=True)
                else:
                    connection.quit()
        await self._until(lambda: not self._connections and not self._opening, _GOODBYE)
        for connection in list(self._connections):
            connection.give_up("closed")
        if self._sweep is not None:
            self._sweep.cancel()
        # Lets the loop make the calls that are scheduled.
        await asyncio.sleep(0)

    # -- what connections tell (mail.smtp.connection.ConnectionOwner) --------------------------------------------------

    def finished(self, connection: Connection, submission: Submission, result: SendResult) -> None:
        """The connection first takes its next mail: the server works while the result is handled.

        Not after a throttling reply: whether the next mail may still be tried is known only once it was handled.
        """
        self._pace.note_result(connection.begun, result)
        throttled = isinstance(result, Throttled)
        if throttled:
            self._report(submission, result)
        if connection.usable:
            self._feed(connection)
        elif self._queue:
            self._pump()
        self._changed.set()
        if not throttled:
            self._report(submission, result)

    def stale(self, connection: Connection, submission: Submission) -> None:
        """Back to the front of the queue. The limit guards against a server that drops every connection."""
        del connection
        submission.tries += 1
        if self._closed:
            self._report(submission, NotSent("the sender is closing"))
        elif submission.tries > self._limit:
            self._report(submission, Undecided(f"mail server {self._server.address} closes its connections"))
        else:
            self._queue.appendleft(submission)
            self._pump()

    def gone(self, connection: Connection) -> None:
        """Leaves the pool; another is opened if mails wait."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._changed.set()
        if self._queue:
            self._pump()

    # -- inside -----------------------------------------------------------------------------------------

    def _feed(self, connection: Connection) -> None:
        """Gives a free connection its next mail, or makes it idle."""
        while self._queue:
            submission = self._queue.popleft()
            refused = connection.start(submission)
            if refused is None:
                if self._sweep is None:
                    self._plan_sweep()
                return
            asyncio.get_running_loop().call_soon(self._report, submission, refused)
        connection.kept = True
        self._idle.append(connection)

    def _pump(self) -> None:
        """Mails that wait go to idle connections; for the rest, more are opened within the limit."""
        while self._queue and self._idle:
            self._feed(self._idle.pop())
        if len(self._connections) + len(self._opening) >= self._limit:
            return
        loop = asyncio.get_running_loop()
        if self._refused is not None or (self._connections and loop.time() < self._full_until):
            return
        more = min(len(self._queue), self._limit - len(self._connections)) - len(self._opening)
        for _ in range(more):
            task = loop.create_task(self._open_for_queue())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    async def _open_for_queue(self) -> None:
        try:
            await self._open()
        except SessionError as error:
            self._refused = str(error)
        except Exception as error:  # of any kind: mails must not wait for a connection that nothing opens
            _log.exception("opening a connection to the mail server failed")
            self._refused = f"{type(error).__name__} while opening a connection to the mail server"

    def _opened(self, task: asyncio.Task[None]) -> None:
        """After one failed attempt no other begins until all have ended: then there is a connection, or none."""
        self._opening.discard(task)
        self._changed.set()
        if self._opening or self._closed:
            return
        refused, self._refused = self._refused, None
        if refused is not None and self._connections:
            self._full_until = asyncio.get_running_loop().time() + _FULL_FOR
        elif refused is not None:
            self._fail_queue(refused)
        self._pump()

    async def _open(self) -> None:
        connection = await open_session(
            self._server,
            self,
            reply_timeout=self._timeout,
            final_timeout=self._final_timeout,
            hello=self._hello,
            context=self._context,
        )
        if self._closed or len(self._connections) >= self._limit:
            connection.quit()
            return
        self._connections.add(connection)
        self._feed(connection)

    def _fail_queue(self, reason: str) -> None:
        # Callers may submit again at once: those mails belong to the next attempt.
        submissions = list(self._queue)
        self._queue.clear()
        for submission in submissions:
            self._report(submission, NotSent(reason))

    def _plan_sweep(self) -> None:
        """One timer for all connections: a timer per command would cost more than the command."""
        interval = min(1.0, self._timeout / 4)
        self._sweep = asyncio.get_running_loop().call_later(interval, self._end_the_silent)

    def _end_the_silent(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.give_up_if_silent(now)
        if any(connection.busy for connection in self._connections):
            self._plan_sweep()

    def _report(self, submission: Submission, result: SendResult) -> None:
        """The one end of every mail."""
        self._taken -= 1
        try:
            submission.done(result)
        except Exception:  # an error of the caller must not reach the connection or another mail
            _log.exception("the handler of a mail's result failed")

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Waits for a condition about the connections, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsError(
            f"BIDDEN_SMTP_URL names a ca_file that cannot be read: {ca_file}", field="BIDDEN_SMTP_URL"
        ) from error
