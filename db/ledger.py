"""The ledger as a worker uses it: what is open, and the one transaction that records and marks.

All methods wait for a database that is away, with back-off and for as long as it takes, and call `on_wait` while
they do: a known outage is not a stall. Everything that is repeated after a lost connection is written so that
repeating it is harmless, even when the lost commit had come through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.types.json import Jsonb

from db.connect import AsyncConnection, connect_hot
from db.statements import sql
from schemas.invitation import EventDetails
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.vocabulary import EventKind, RolePolicy

log = structlog.get_logger()

T = TypeVar("T")
_BACK_OFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
#: A connection that broke, a server that starts or stops, a lock that was lost: waiting cures them.
_OUTAGES: Final = (psycopg.OperationalError, psycopg.InterfaceError, OSError)


@dataclass(frozen=True, slots=True)
class Named:
    """A message of a take: whom it names. `n` is its place in the take."""

    n: int
    batch_id: int
    event_id: int
    member_id: int

    def as_row(self) -> dict[str, int]:
        """For jsonb_to_recordset."""
        return {"n": self.n, "batch_id": self.batch_id, "event_id": self.event_id, "member_id": self.member_id}


@dataclass(frozen=True, slots=True)
class Found:
    """What the ledger knows of a message. `tokens` by role. `roles` is None where the batch has no such item."""

    n: int
    batch_event_id: int | None
    event_known: bool
    member_known: bool
    paused: bool | None
    settled: bool | None
    roles: list[str] | None
    name: str | None
    surname: str | None
    email: str | None
    tokens: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A delivery that a worker would hand over for a batch."""

    batch_id: int
    key: DeliveryKey
    role: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The right to hand a delivery over, until its lease ends. `attempts` were used up before."""

    fence: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a marked delivery."""

    wanted: Wanted
    fence: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Terms:
    """A worker's terms: lease and retry base in seconds; below how many attempts `unknown` is sent again."""

    lease_seconds: float
    resend_below: int
    retry_base_seconds: float


class Ledger:
    """One connection's view of the ledger. Concurrent calls take turns."""

    def __init__(self, url: str, terms: Terms, *, application: str, on_wait: Callable[[], None]) -> None:
        self._url = url
        self._terms = terms
        self._application = application
        self._on_wait = on_wait
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def look_up(self, take: Sequence[Named]) -> list[Found]:
        """What is known of each message of a take."""

        async def run(conn: AsyncConnection) -> list[Found]:
            cursor = await conn.execute(sql("look_up"), {"take": Jsonb([named.as_row() for named in take])})
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [Found(**dict(zip(names, row, strict=True))) for row in await cursor.fetchall()]

        return await self._patiently(run)

    async def find_settled(self, take: Sequence[Named]) -> set[int]:
        """The places in the take of messages that have nothing left to do."""

        async def run(conn: AsyncConnection) -> set[int]:
            cursor = await conn.execute(sql("find_settled"), {"take": Jsonb([named.as_row() for named in take])})
            return {row[0] for row in await cursor.fetchall()}

        return await self._patiently(run)

    async def event_details(self, events: Sequence[int]) -> dict[int, tuple[EventDetails, RolePolicy]]:
        """What the mails of these events say, as of now, and how their slots are named."""

        async def run(conn: AsyncConnection) -> dict[int, tuple[EventDetails, RolePolicy]]:
            cursor = await conn.execute(sql("event_details"), {"events": list(events)})
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            found = {}
            for values in await cursor.fetchall():
                row = dict(zip(names, values, strict=True))
                policy = RolePolicy(row.pop("role_policy"))
                row["kind"] = EventKind(row["kind"])
                row["chapter_names"] = tuple(row["chapter_names"] or ())
                found[row["event_id"]] = (EventDetails(**row), policy)
            return found

        return await self._patiently(run)

    async def advance(
        self, owner: str, finished: Sequence[Finished], wanted: Sequence[Wanted], held: Sequence[tuple[Wanted, int]]
    ) -> dict[DeliveryKey, Mark]:
        """One commit: record what finished, mark what may be handed over, conclude the rest, renew leases.

        `wanted` holds each key once and none that this worker hands over. What of it is missing in the answer
        has been concluded: its item is settled or due again. `owner` must be new for each call; a call repeated
        after a lost connection takes its own marks again.
        """

        async def run(conn: AsyncConnection) -> dict[DeliveryKey, Mark]:
            return await _advance(conn, self._terms, owner, finished, wanted, held)

        return await self._patiently(run)

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            with suppress(*_OUTAGES):
                await self._connection.close()
            self._connection = None

    async def _patiently(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._turn:
            return await self._repeat(run)

    async def _repeat(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                if self._connection is None:
                    self._connection = await connect_hot(self._url, application=self._application)
                result = await run(self._connection)
            except _OUTAGES as error:
                await self._lost(error, failures)
                failures += 1
            else:
                if failures:
                    log.info("PostgreSQL is back")
                return result

    async def _lost(self, error: Exception, failures: int) -> None:
        delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
        lines = str(error).strip().splitlines()
        log.warning("waiting for PostgreSQL", seconds=delay, cause=lines[0] if lines else type(error).__name__)
        await self.close()
        self._on_wait()
        await asyncio.sleep(delay)


def _key_row(wanted: Wanted) -> dict[str, Any]:
    key = wanted.key
    return {
        "batch_id": wanted.batch_id,
        "event_id": key.event_id,
        "action": key.action,
        "member_id": key.member_id,
        "slot": key.slot,
        "role": wanted.role,
        "partition": wanted.partition,
        "kafka_offset": wanted.offset,
    }


def _clean(text: str | None) -> str | None:
    """Text that PostgreSQL can hold, whatever a server answered: recording an outcome must not fail on it."""
    if text is None:
        return None
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:2000]


def _outcome_row(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Sent(reply):
            return {"state": "sent", "reply": _clean(reply), "uses": 1}
        case Failed(reason, reply):
            return {"state": "failed", "reason": _clean(reason), "reply": _clean(reply), "uses": 1}
        case Retry(reason, delay, uses, reply):
            return {"state": "retry", "reason": _clean(reason), "reply": _clean(reply), "uses": uses, "delay": delay}
        case Unknown(reason):
            return {"state": "unknown", "reason": _clean(reason), "uses": 1}


async def _advance(
    conn: AsyncConnection,
    terms: Terms,
    owner: str,
    finished: Sequence[Finished],
    wanted: Sequence[Wanted],
    held: Sequence[tuple[Wanted, int]],
) -> dict[DeliveryKey, Mark]:
    done = [_key_row(f.wanted) | {"fence": f.fence, **_outcome_row(f.outcome)} for f in finished]
    asked = [_key_row(w) for w in wanted]
    parameters: dict[str, Any] = {
        "owner": owner,
        "lease": terms.lease_seconds,
        "resend_below": terms.resend_below,
        "retry_base": terms.retry_base_seconds,
    }
    # Two round trips and one commit for all of it; a third round trip only for what could not be marked.
    async with conn.pipeline(), conn.transaction():
        batches = sorted({row["batch_id"] for row in (*done, *asked)})
        if batches:
            await conn.execute(sql("lock_batches"), {"batches": batches})
        if done:
            await conn.execute(sql("record"), {"finished": Jsonb(done)})
            errors = [row | {"n": n} for n, row in enumerate(done) if row["state"] == "failed"]
            if errors:
                await conn.execute(sql("keep_first_error"), {"errors": Jsonb(errors)})
            touched = {**parameters, "touched": Jsonb([_key_row(f.wanted) for f in finished])}
            await conn.execute(sql("conclude"), touched)
            await conn.execute(sql("correct_logs"), touched)
        if held:
            rows = [_key_row(w) | {"fence": fence} for w, fence in held]
            await conn.execute(sql("renew"), {**parameters, "held": Jsonb(rows)})
        if not asked:
            return {}
        marked = await conn.execute(sql("mark"), {**parameters, "wanted": Jsonb(asked)})
        marks = {
            DeliveryKey(event_id, action, member_id, slot): Mark(fence, attempts)
            for event_id, action, member_id, slot, _, fence, attempts in await marked.fetchall()
        }
        rest = [row for row, w in zip(asked, wanted, strict=True) if w.key not in marks]
        if rest:
            await conn.execute(sql("refuse"), {"wanted": Jsonb(rest)})
            await conn.execute(sql("hold_unknown"), {"wanted": Jsonb(rest)})
            touched = {**parameters, "touched": Jsonb(rest)}
            await conn.execute(sql("conclude"), touched)
            await conn.execute(sql("correct_logs"), touched)
    return marks
