"""The sending rates in the database, as workers use them: read once a second, and changed under their rows' locks.

What is decided under the locks is a function that the caller passes in (`streams.send_rate`): nothing here knows how
rates work. A change whose commit was lost with its answer may be repeated: a mail is then counted twice, never not at
all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from db.connect import AsyncConnection, Connection
from db.hot_connection import HotConnection
from db.statements import sql
from schemas.send_limits import Learned, RateSettings, ScopeState, Usage

T = TypeVar("T")

#: Over how long the rate at which mails are accepted is measured, in seconds.
MEASURED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds at `now` (seconds since the epoch): the admin's settings, and the scopes that have learned."""

    now: float
    settings: RateSettings | None = None
    states: Mapping[str, ScopeState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Locked:
    """The rows of the scopes asked for, locked. `accepted`: mails in the last `accepted_seconds`, of all workers."""

    now: float
    states: Mapping[str, ScopeState]
    usage: Mapping[str, Usage]
    accepted: int
    accepted_seconds: float


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What to write: states, and mails as (scope, seconds of the window, begin of the bucket, mails)."""

    states: Sequence[ScopeState]
    usage: Sequence[tuple[str, int, float, int]]
    result: T


@dataclass(frozen=True, slots=True)
class PutBack:
    """An item whose slot is in `delay` seconds."""

    batch_id: int
    member_id: int
    delay: float


class SendLimits:
    """One worker's view. Every method waits while the database is away."""

    def __init__(self, connection: HotConnection) -> None:
        self._connection = connection

    async def in_force(self) -> InForce:
        """One read, which locks nothing."""

        async def run(conn: AsyncConnection) -> InForce:
            return _in_force(await (await _dicts(conn, "send_limits_in_force", {})).fetchone())

        return await self._connection.wait_out(run)

    async def change(self, scopes: Sequence[str], decide: Callable[[Locked], Change[T]]) -> T:
        """Lock these scopes, decide, write; in one short transaction."""
        names = {"scopes": sorted(scopes)}

        async def run(conn: AsyncConnection) -> T:
            async with conn.pipeline() as pipeline, conn.transaction():
                await conn.execute(sql("add_send_limits"), names)
                await conn.execute(sql("lock_send_limits"), names)
                accepted = await _dicts(conn, "accepted_lately", {"seconds": MEASURED_SECONDS})
                limits = await _dicts(conn, "read_send_limits", names)
                # Without it the server would keep its answers, and both sides wait in mid-transaction.
                await pipeline.sync()
                change = decide(_locked(await limits.fetchall(), await accepted.fetchone()))
                await conn.execute(sql("write_send_limits"), {"states": Jsonb([_row(s) for s in change.states])})
                if change.usage:
                    columns = ("scope", "seconds", "bucket", "mails")
                    usage = [dict(zip(columns, row, strict=True)) for row in change.usage]
                    await conn.execute(sql("add_send_usage"), {"usage": Jsonb(usage)})
            return change.result

        return await self._connection.wait_out(run)

    async def add_accepted(self, mails: int) -> None:
        """Count mails that were accepted just now."""

        async def run(conn: AsyncConnection) -> None:
            await conn.execute(sql("add_accepted"), {"mails": mails})

        await self._connection.wait_out(run)

    async def put_back(self, items: Sequence[PutBack]) -> None:
        """Make items due at the time of their slot."""
        rows = [{"batch_id": item.batch_id, "member_id": item.member_id, "delay": item.delay} for item in items]

        async def run(conn: AsyncConnection) -> None:
            await conn.execute(sql("put_back_items"), {"items": Jsonb(rows)})

        await self._connection.wait_out(run)

    async def remove_old(self) -> None:
        """Remove what nothing counts any more."""

        async def run(conn: AsyncConnection) -> None:
            await conn.execute(sql("remove_old_usage"))
            await conn.execute(sql("remove_old_limits"))

        await self._connection.wait_out(run)

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()


@dataclass(frozen=True, slots=True)
class Shown:
    """A scope for people, with the time of the database at which it was read."""

    now: float
    state: ScopeState
    usage: Usage


def to_show(conn: Connection, *, limit: int = 20) -> list[Shown]:
    """The mail server first, if it was ever limited; then the domains that throttled within a day."""
    rows = conn.execute(sql("send_limits_to_show"), {"limit": limit}).fetchall()
    return [Shown(row["now"], _state(row), _usage(row["usage"])) for row in rows]


def read_settings(conn: Connection) -> RateSettings | None:
    """What an admin has set; None where the environment's settings hold."""
    row = conn.execute(sql("send_limits_in_force")).fetchone()
    return _in_force(row).settings


def set_rates(conn: Connection, *, rate: str | None, rate_domain: str | None, warmup: str | None, by: str) -> None:
    """Set the rates for all workers, instead of the environment's settings. They were parsed before."""
    values = {"rate": rate, "rate_domain": rate_domain, "warmup": warmup, "set_by": by}
    conn.execute(sql("set_send_rates"), values)


def unset_rates(conn: Connection) -> None:
    """Let the environment's settings hold again."""
    conn.execute(sql("unset_send_rates"))


async def _dicts(conn: AsyncConnection, name: str, values: Mapping[str, Any]) -> Any:
    return await conn.cursor(row_factory=dict_row).execute(sql(name), values)


def _in_force(row: Mapping[str, Any] | None) -> InForce:
    assert row is not None
    settings = None if row["settings"] is None else RateSettings(**row["settings"])
    return InForce(row["now"], settings, {state["scope"]: _state(state) for state in row["states"] or ()})


def _locked(rows: Sequence[Mapping[str, Any]], accepted: Mapping[str, Any] | None) -> Locked:
    assert rows
    assert accepted is not None
    return Locked(
        now=max(row["now"] for row in rows),
        states={row["scope"]: _state(row) for row in rows},
        usage={row["scope"]: _usage(row["usage"]) for row in rows},
        accepted=accepted["mails"],
        accepted_seconds=accepted["seconds"] or 0.0,
    )


def _usage(rows: Sequence[Sequence[float]] | None) -> Usage:
    found: dict[int, list[tuple[float, int]]] = {}
    for seconds, begin, mails in rows or ():
        found.setdefault(int(seconds), []).append((begin, int(mails)))
    return found


def _state(row: Mapping[str, Any]) -> ScopeState:
    return ScopeState(
        scope=row["scope"],
        paced_to=row["paced_to"] or 0.0,
        recent=tuple((at, mails) for at, mails in row["recent"]),
        queued_to=row["queued_to"] or 0.0,
        warmup=tuple(row["warmup"]),
        warmup_started=row["warmup_started"] or 0.0,
        learned=Learned(
            ceiling=row["ceiling"],
            clean_seconds=row["clean_seconds"],
            grown_at=row["grown_at"] or 0.0,
            pause_seconds=row["pause_seconds"],
            paused_until=row["paused_until"] or 0.0,
            probe_until=row["probe_until"] or 0.0,
            throttled_at=row["throttled_at"] or 0.0,
            reply=row["reply"],
        ),
    )


def _row(state: ScopeState) -> dict[str, Any]:
    """For jsonb_to_recordset. A time long ago is null."""
    learned = state.learned
    return {
        "scope": state.scope,
        "paced_to": state.paced_to or None,
        "recent": state.recent,
        "queued_to": state.queued_to or None,
        "warmup": state.warmup,
        "warmup_started": state.warmup_started or None,
        "ceiling": learned.ceiling,
        "clean_seconds": learned.clean_seconds,
        "grown_at": learned.grown_at or None,
        "pause_seconds": learned.pause_seconds,
        "paused_until": learned.paused_until or None,
        "probe_until": learned.probe_until or None,
        "throttled_at": learned.throttled_at or None,
        "reply": learned.reply,
    }
