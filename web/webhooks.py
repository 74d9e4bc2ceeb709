"""Notifies clients' webhooks of the end of their batches: signed as Standard Webhooks, retried until accepted.

At least once for each batch, with an id that stays the same. Any number of processes may run a dispatcher: each
notification is claimed by one of them at a time. Only admins can set addresses, redirects are not followed, and
connections go to addresses of the internet alone (`web.webhook_addresses`).
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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
import httpx
import orjson
import psycopg
import structlog
from psycopg_pool import PoolClosed

from config import tracing
from config.metrics import WEBHOOKS
from config.tracing import Kind
from db import site_queries, webhooks
from db.connect import OUTAGES, Connection
from db.webhooks import DueWebhook
from schemas.errors import first_line, printable
from schemas.redaction import without_addresses
from schemas.trace_context import parse
from web.api.batches import batch_model
from web.database import Pool
from web.scope import BatchWithEvent
from web.webhook_addresses import ForbiddenAddressError, resolve

log = structlog.get_logger()

_POLL_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 10.0
#: Longer than the timeout and recording the result: a process that takes longer has died.
_CLAIM_SECONDS: Final = 60.0
_CLAIM_LIMIT: Final = 20
#: At shutdown, for the requests in flight: the timeout, and recording the results.
_SHUTDOWN_SECONDS: Final = 12.0
_FIRST_DELAY: Final = 10.0
_MAX_DELAY: Final = 6 * 3600.0
#: 10 s, 30 s, 90 s … 6 h: about three days in all.
MAX_ATTEMPTS: Final = 20
_MAX_ERROR_LENGTH: Final = 300
_RANDOM: Final = random.SystemRandom()


def retry_delay(attempts: int, jitter: float) -> float | None:
    """Seconds until the next attempt after so many failed ones; None after the last. Pure.

    `jitter`, from 0 to 1, spreads the delay by a fifth either way: a receiver that was down is not flooded.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    delay = min(_MAX_DELAY, _FIRST_DELAY * 3.0 ** min(attempts - 1, 20))
    return delay * (0.8 + 0.4 * jitter)


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The `v1` signature of Standard Webhooks. Pure."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


@dataclass(frozen=True, slots=True)
class _WebhookRequest:
    due: DueWebhook
    headers: dict[str, str]
    body: bytes


class WebhookDispatcher:
    """Sends the notifications that are due. Clock and jitter are injected."""

    def __init__(
        self,
        pool: Pool,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = _RANDOM.random,
        *,
        allow_private: bool = False,
    ) -> None:
        self._pool = pool
        self._now = now
        self._jitter = jitter
        self._allow_private = allow_private
        self._tls = ssl.create_default_context()
        self._tracing = tracing.current()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set or the pool is closed; goes on after any error."""
        while not stop.is_set():
            try:
                self.send_due(stop)
            except PoolClosed:
                return
            except psycopg.Error as error:
                log.warning("webhooks wait for the database", cause=first_line(error))
            except Exception:
                log.exception("a webhook could not be sent; the others go on")
            stop.wait(_POLL_SECONDS)

    def send_due(self, stop: threading.Event | None = None) -> int:
        """One round: sends all that are due, unless stopped; returns how many were claimed."""
        count = 0
        while stop is None or not stop.is_set():
            with self._pool.connection() as conn:
                claimed = webhooks.claim(conn, seconds=_CLAIM_SECONDS, limit=_CLAIM_LIMIT)
                requests = [request for due in claimed if (request := self._try_build(conn, due)) is not None]
            count += len(claimed)
            if requests:
                errors = asyncio.run(self._send_all(requests))
                with self._pool.connection() as conn:
                    for request, error in zip(requests, errors, strict=True):
                        self._record(conn, request.due, error)
            if len(claimed) < _CLAIM_LIMIT:
                break
        return count

    def _try_build(self, conn: Connection, due: DueWebhook) -> _WebhookRequest | None:
        try:
            return self._build(conn, due)
        except OUTAGES:
            raise
        except Exception as error:
            # The others that were claimed must still be sent.
            log.exception("a webhook's request could not be built", batch_id=due.batch_id)
            self._record(conn, due, f"not built: {type(error).__name__}")
            return None

    def _build(self, conn: Connection, due: DueWebhook) -> _WebhookRequest | None:
        """The request; None for a client that may no longer be notified, which is recorded."""
        event = None if due.account is None else site_queries.event_of_batch(conn, due.batch_id, due.account.scope)
        if due.account is None or event is None:
            why = "the client was revoked" if due.account is None else "the account may not see this event any more"
            webhooks.record_failure(conn, due.batch_id, why, None)
            return None
        batch = batch_model(conn, BatchWithEvent(due.batch_id, event), due.account.scope)
        ended_at = batch.completed_at or datetime.fromtimestamp(self._now(), UTC)
        body = orjson.dumps(
            {"type": "batch.ended", "timestamp": ended_at.isoformat(), "data": batch.model_dump(mode="json")}
        )
        message_id, timestamp = due.message_id, int(self._now())
        headers = {
            "content-type": "application/json",
            "user-agent": "bidden",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(due.secret, message_id, timestamp, body),
        }
        return _WebhookRequest(due, headers, body)

    async def _send_all(self, requests: list[_WebhookRequest]) -> list[str | None]:
        """Sends them concurrently; returns the error of each, or None."""
        # Only the configured address is called: no redirects, and no proxy or password from the environment.
        # No connection is used twice: the pool knows addresses only, and two names may share one.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, limits=limits
        ) as client:
            return list(await asyncio.gather(*(self._send_traced(client, request) for request in requests)))

    async def _send_traced(self, client: httpx.AsyncClient, request: _WebhookRequest) -> str | None:
        """As `_send`, as a span of the batch's trace, which the receiver can continue."""
        about: dict[str, str | int] = {"http.request.method": "POST", "bidden.batch.id": request.due.batch_id}
        with self._tracing.span("POST webhook", Kind.CLIENT, parse(request.due.traceparent), about) as span:
            request.headers["traceparent"] = str(span.context)
            error = await self._send(client, request)
            if error is not None:
                # Its class: what follows may quote an address.
                span.fail(error.partition(":")[0])
            return error

    async def _send(self, client: httpx.AsyncClient, request: _WebhookRequest) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                url = httpx.URL(request.due.url)
                port = url.port or (443 if url.scheme == "https" else 80)
                addresses = await resolve(_host(url), port, allow_private=self._allow_private)
                for address in addresses[:-1]:
                    with suppress(httpx.ConnectError):
                        return await self._post(client, url, address, request)
                return await self._post(client, url, addresses[-1], request)
        except ForbiddenAddressError as error:
            return f"not called: {error}"
        except TimeoutError:
            return f"no answer within {_TIMEOUT_SECONDS:.0f} s"
        except Exception as error:
            # Whatever one address or receiver provokes must not affect the others.
            return f"not reached: {type(error).__name__}: {first_line(error)}"

    async def _post(
        self, client: httpx.AsyncClient, url: httpx.URL, address: str, request: _WebhookRequest
    ) -> str | None:
        """To this address of the URL's host, whose name the certificate must have."""
        headers = {**request.headers, "host": url.netloc.decode("ascii")}
        # Only the status counts: the body of the response is not read.
        async with client.stream(
            "POST",
            url.copy_with(host=address),
            content=request.body,
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            extensions={"sni_hostname": _host(url)},
        ) as response:
            return None if response.is_success else f"answered {response.status_code}"

    def _record(self, conn: Connection, due: DueWebhook, error: str | None) -> None:
        retry_in = None if error is None else retry_delay(due.attempts, self._jitter())
        error = None if error is None else without_addresses(printable(error).replace("\0", ""))[:_MAX_ERROR_LENGTH]
        try:
            if error is None:
                webhooks.record_delivery(conn, due.batch_id)
            else:
                webhooks.record_failure(conn, due.batch_id, error, retry_in)
        except OUTAGES:
            raise
        except psycopg.Error:
            # The other results of the round must still be recorded.
            log.exception("the result of a webhook could not be recorded", batch_id=due.batch_id)
        if error is None:
            WEBHOOKS.labels("delivered").inc()
            return
        WEBHOOKS.labels("retry" if retry_in is not None else "given_up").inc()
        log.warning(
            "a webhook failed" if retry_in is not None else "a webhook failed for the last time",
            batch_id=due.batch_id,
            client_id=due.client_id,
            attempts=due.attempts,
            cause=error,
        )


def _host(url: httpx.URL) -> str:
    """As DNS and certificates have it: an international name in its ASCII form."""
    return url.raw_host.decode("ascii")


@asynccontextmanager
async def run_dispatcher(pool: Pool, *, allow_private: bool) -> AsyncIterator[None]:
    """Runs a dispatcher in a thread while the application runs; at shutdown waits for its requests in flight.

    What was claimed and is not recorded by then becomes due again.
    """
    stop = threading.Event()
    # A daemon: a server that is killed does not get to the end of this.
    dispatcher = WebhookDispatcher(pool, allow_private=allow_private)
    thread = threading.Thread(target=dispatcher.run, args=(stop,), name="webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await anyio.to_thread.run_sync(thread.join, _SHUTDOWN_SECONDS)
