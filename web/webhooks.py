"""Tells clients of the end of their batches: signed as Standard Webhooks say, and again until it has arrived.

At least once for each batch, with an id that stays the same. Any number of processes may do it: each row is claimed by
one of them at a time. Addresses come only from those who may make clients, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
import httpx
import orjson
import psycopg
import structlog
from psycopg_pool import PoolClosed

from db import site_queries, webhooks
from db.connect import OUTAGES, Connection
from db.webhooks import DueWebhook
from schemas.errors import first_line, printable
from web.api.batches import as_seen
from web.auth.current_user import OwnedBatch
from web.database import Pool

log = structlog.get_logger()

_TICK_SECONDS: Final = 1.0
_DEADLINE_SECONDS: Final = 10.0
#: Longer than the deadline and the writing down: who is slower has died.
_CLAIM_SECONDS: Final = 60.0
_AT_ONCE: Final = 20
#: For what is under way when the application ends: a deadline, and the writing down.
_LAST_SECONDS: Final = 12.0
_FIRST_PAUSE: Final = 10.0
_LONGEST_PAUSE: Final = 6 * 3600.0
#: 10 s, 30 s, 90 s … 6 h: three days in all, more or less.
ATTEMPTS: Final = 20
_LONGEST_ERROR: Final = 300
_CHANCE: Final = random.SystemRandom()


def pause_after(attempts: int, chance: float) -> float | None:
    """Seconds until the next attempt after so many that failed; None when that was the last. Pure.

    `chance`, from 0 to 1, spreads them over a fifth more or less, so that not all come at once to who was away.
    """
    if attempts >= ATTEMPTS:
        return None
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 3.0 ** min(attempts - 1, 20))
    return pause * (0.8 + 0.4 * chance)


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of Standard Webhooks, in its first version. Pure."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


@dataclass(frozen=True, slots=True)
class _Letter:
    due: DueWebhook
    headers: dict[str, str]
    body: bytes


class WebhookDispatcher:
    """Looks for batches that have ended and tells of them. Clock and chance are injected."""

    def __init__(
        self,
        pool: Pool,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = _CHANCE.random,
    ) -> None:
        self._pool = pool
        self._now = now
        self._chance = chance
        self._tls = ssl.create_default_context()

    def tell(self, stop: threading.Event | None = None) -> int:
        """Once: tell of all that is due now, some at a time, until told to stop; returns how many were claimed."""
        count = 0
        while stop is None or not stop.is_set():
            with self._pool.connection() as conn:
                claimed = webhooks.claim(conn, seconds=_CLAIM_SECONDS, limit=_AT_ONCE)
                letters = [letter for due in claimed if (letter := self._try_letter(conn, due)) is not None]
            count += len(claimed)
            if letters:
                outcomes = asyncio.run(self._send_all(letters))
                with self._pool.connection() as conn:
                    for letter, error in zip(letters, outcomes, strict=True):
                        self._write_down(conn, letter.due, error)
            if len(claimed) < _AT_ONCE:
                break
        return count

    def run(self, stop: threading.Event) -> None:
        """Until told to stop. A database that is away is asked again; nothing else ends it, either."""
        while not stop.is_set():
            try:
                self.tell(stop)
            except PoolClosed:
                return
            except psycopg.Error as error:
                log.warning("webhooks wait for the database", cause=first_line(error))
            except Exception:
                log.exception("a webhook could not be told; the others go on")
            stop.wait(_TICK_SECONDS)

    def _try_letter(self, conn: Connection, due: DueWebhook) -> _Letter | None:
        try:
            return self._letter(conn, due)
        except OUTAGES:
            raise
        except Exception as error:
            # One that cannot be made must not keep back those that were claimed with it.
            log.exception("what a webhook is to be told could not be made", batch_id=due.batch_id)
            self._write_down(conn, due, f"not made: {type(error).__name__}")
            return None

    def _letter(self, conn: Connection, due: DueWebhook) -> _Letter | None:
        """What to send; None for a client that may not be told any more, which is written down."""
        event = None if due.account is None else site_queries.event_of_batch(conn, due.batch_id, due.account.scope)
        if due.account is None or event is None:
            why = "the client was revoked" if due.account is None else "the account may not see this event any more"
            webhooks.failed(conn, due.batch_id, why, None)
            return None
        batch = as_seen(conn, OwnedBatch(due.batch_id, event), due.account.scope)
        ended_at = batch.completed_at or datetime.fromtimestamp(self._now(), UTC)
        body = orjson.dumps(
            {"type": "batch.ended", "timestamp": ended_at.isoformat(), "data": batch.model_dump(mode="json")}
        )
        message_id, timestamp = f"batch-{due.batch_id}", int(self._now())
        headers = {
            "content-type": "application/json",
            "user-agent": "bidden",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(due.secret, message_id, timestamp, body),
        }
        return _Letter(due, headers, body)

    async def _send_all(self, letters: list[_Letter]) -> list[str | None]:
        """Sends them side by side; of each what went wrong, or None."""
        # What is called is the address that was given: no redirects, no proxy and no password of the environment.
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False) as client:
            return list(await asyncio.gather(*(self._send(client, letter) for letter in letters)))

    async def _send(self, client: httpx.AsyncClient, letter: _Letter) -> str | None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                # The status is all that counts: the answer's body is not read.
                async with client.stream(
                    "POST", letter.due.url, content=letter.body, headers=letter.headers, timeout=_DEADLINE_SECONDS
                ) as response:
                    return None if response.is_success else f"answered {response.status_code}"
        except TimeoutError:
            return f"no answer within {_DEADLINE_SECONDS:.0f} s"
        except Exception as error:
            # Whatever a receiver, or its address, makes of the client: the others are told.
            return f"not reached: {type(error).__name__}: {first_line(error)}"

    def _write_down(self, conn: Connection, due: DueWebhook, error: str | None) -> None:
        pause = None if error is None else pause_after(due.attempts, self._chance())
        try:
            if error is None:
                webhooks.delivered(conn, due.batch_id)
            else:
                webhooks.failed(conn, due.batch_id, printable(error).replace("\0", "")[:_LONGEST_ERROR], pause)
        except OUTAGES:
            raise
        except psycopg.Error:
            # The others of the round are still to be written down.
            log.exception("what became of a webhook could not be written down", batch_id=due.batch_id)
        if error is None:
            return
        log.warning(
            "a webhook was not told" if pause is not None else "a webhook was given up",
            batch_id=due.batch_id,
            client_id=due.client_id,
            attempts=due.attempts,
            cause=error,
        )


@asynccontextmanager
async def telling(pool: Pool) -> AsyncIterator[None]:
    """Tells, in a thread of its own, while the application runs. It ends when what is under way has its answer.

    Or without it, a little after the deadline: whatever was claimed and not written down is soon due again.
    """
    stop = threading.Event()
    # A server that is ended by force does not come to the end of this; what was claimed is claimed again by others.
    thread = threading.Thread(target=WebhookDispatcher(pool).run, args=(stop,), name="webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await anyio.to_thread.run_sync(thread.join, _LAST_SECONDS)
