"""What the site and its API show: events, batches, members, found, filtered and paged. Reads only.

`scope` is the list of chapters whose events and members may be seen, or None for all. Where an event is held together
with chapters beyond the scope, or once was of others, its numbers are shown whole and its members only as far as they
are of the scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.planning import EventFacts, Trigger
from db.statements import sql
from schemas.errors import NotFoundError
from schemas.vocabulary import EventKind

Scope = list[int] | None
PAGE: Final = 50
_PACE_SECONDS: Final = 10.0
#: How many subscribers are judged before all of them are.
_LOOKED_AT: Final = 500


@dataclass(frozen=True, slots=True)
class Names:
    """Who may be named of an event: members of these chapters, or everybody with None.

    `unlisted`: also who is on no list of any chapter. She left all her lists: of this event, and of no other chapter.
    """

    chapters: Scope = None
    unlisted: bool = False

    def hold(self, lists: Sequence[int] | None) -> bool:
        """Whether somebody on lists of these chapters may be named; None: nobody knows who it is."""
        if self.chapters is None:
            return True
        return lists is not None and (not set(lists).isdisjoint(self.chapters) or (self.unlisted and not lists))

    def parameters(self) -> dict[str, Any]:
        """As the statements take them."""
        return {"chapters": self.chapters, "unlisted": self.unlisted}


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """An event as pages need it. Times are aware and shown in `time_zone`."""

    id: int
    kind: EventKind
    name: str
    starts_at: datetime
    ends_at: datetime
    cancelled_at: datetime | None
    invitable: bool
    has_host: bool
    role_policy: str
    is_past: bool
    time_zone: str
    chapter_ids: tuple[int, ...]
    chapter_names: tuple[str, ...]

    @property
    def facts(self) -> EventFacts:
        """What a trigger's refusals are decided on."""
        return EventFacts(
            event_id=self.id,
            kind=self.kind,
            name=self.name,
            is_past=self.is_past,
            invitable=self.invitable,
            is_cancelled=self.cancelled_at is not None,
            has_host=self.has_host,
            role_policy=self.role_policy,
        )

    def is_shared(self, scope: Scope) -> bool:
        """Whether chapters beyond the scope hold it, too."""
        return scope is not None and not set(self.chapter_ids) <= set(scope)

    def names_in(self, scope: Scope) -> Names:
        """Who may be named of it. Never everybody to an organiser: what is hers alone now was not always so."""
        return Names(scope, unlisted=scope is not None and not self.is_shared(scope))


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event with what became of it so far."""

    event: KnownEvent
    batches: int
    last_started_at: datetime | None
    is_running: bool
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and whether there are more after them."""

    rows: list[dict[str, Any]]
    has_more: bool


_EVENT_FIELDS: Final = tuple(KnownEvent.__dataclass_fields__)


def _event(row: dict[str, Any]) -> KnownEvent:
    values = {name: row[name] for name in _EVENT_FIELDS}
    values["kind"] = EventKind(values["kind"])
    values["chapter_ids"] = tuple(values["chapter_ids"] or ())
    values["chapter_names"] = tuple(values["chapter_names"] or ())
    return KnownEvent(**values)


def _page(rows: list[dict[str, Any]], limit: int) -> Page:
    return Page(rows[:limit], len(rows) > limit)


def _find(conn: Connection, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Planned for these values each time: what is right for a rare word or status is wrong for a common one."""
    return conn.execute(sql(statement), values, prepare=False).fetchall()


def _as_id(words: str) -> int | None:
    """The id that the words are, written as ids are."""
    if not (words.isascii() and words.isdigit()) or (words[0] == "0" and words != "0"):
        return None
    return int(words) if len(words) < 20 and int(words) < 2**63 else None


def event(conn: Connection, event_id: int, scope: Scope) -> KnownEvent | None:
    """The event, if there is one in the scope."""
    row = conn.execute(sql("browse_event"), {"event_id": event_id, "chapters": scope}).fetchone()
    return None if row is None else _event(row)


def events(
    conn: Connection, scope: Scope, *, words: str = "", skip: int = 0, limit: int = PAGE
) -> tuple[list[ListedEvent], bool]:
    """Events whose name holds these words, those to come first; and whether there are more."""
    values = {"chapters": scope, "words": words, "skip": skip, "limit": limit + 1}
    rows = conn.execute(sql("browse_events"), values).fetchall()
    listed = [
        ListedEvent(_event(row), row["batches"], row["last_started_at"], row["is_running"], row["is_paused"])
        for row in rows[:limit]
    ]
    return listed, len(rows) > limit


def batches(conn: Connection, scope: Scope, *, event_id: int | None = None, skip: int = 0, limit: int = PAGE) -> Page:
    """Batches in short, newest first."""
    values = {"chapters": scope, "event_id": event_id, "skip": skip, "limit": limit + 1}
    return _page(conn.execute(sql("browse_batches"), values).fetchall(), limit)


def event_of_batch(conn: Connection, batch_id: int, scope: Scope) -> KnownEvent | None:
    """The event that the batch is of; None when there is no such batch, or its event is not in the scope."""
    row = conn.execute(sql("event_of_batch"), {"batch_id": batch_id, "chapters": scope}).fetchone()
    return None if row is None else _event(row)


def candidates(
    conn: Connection, trigger: Trigger, reason: str | None, names: Names, *, after: int = 0, limit: int = PAGE
) -> Page:
    """Who is behind a number of a dry run, by member id: left out for the reason, or with None to be invited."""
    values = {**trigger.parameters(), **names.parameters(), "reason": reason, "after": after, "limit": limit + 1}
    # Mostly the next few are enough. Where they are not, the number is small, or its people are far apart.
    rows = _find(conn, "browse_candidates_near", {**values, "looked_at": _LOOKED_AT})
    if len(rows) <= limit:
        rows = _find(conn, "browse_candidates", values)
    return _page(rows, limit)


def entries(
    conn: Connection,
    batch_id: int,
    names: Names,
    *,
    status: str | None = None,
    words: str = "",
    after: tuple[int, str] = (0, ""),
    limit: int = PAGE,
) -> Page:
    """A page of a batch's log, by member and role; with the status `left_out`, those left out at planning.

    `after` is the last row of the page before: its member and `item_role`. `words` are looked for in names and
    addresses; a number is an id.
    """
    values = {
        **names.parameters(),
        "batch_id": batch_id,
        "status": status,
        "words": words,
        "number": _as_id(words),
        "after_member": after[0],
        "after_role": after[1],
        "limit": limit + 1,
    }
    statement = "browse_entries" if status in (None, "pending") else "browse_outcomes"
    return _page(_find(conn, "browse_left_out" if status == "left_out" else statement, values), limit)


@dataclass(frozen=True, slots=True)
class Standing:
    """A batch in numbers as `reports.status` gives them, who was left out at planning, and mails sent per second."""

    status: dict[str, Any]
    left_out: dict[str, int]
    per_second: float


def standing(conn: Connection, batch_id: int) -> Standing:
    """How a batch stands now, from one look at its items and its log."""
    found = _find(conn, "browse_standing", {"batch_id": batch_id, "seconds": _PACE_SECONDS})
    if not found:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    status = found[0]
    left_out, per_second = status.pop("left_out"), status.pop("per_second")
    return Standing(status, dict(sorted(left_out.items())), per_second if status["state"] == "running" else 0.0)


def missing(conn: Connection, rows: Sequence[dict[str, Any]], names: Names, *, limit: int = 500) -> Page:
    """Names for those whom an audit misses, in its order."""
    # Who is missing is on a list of the event: where no other chapter holds it, nobody is left out of the first ones.
    is_shared = names.chapters is not None and not names.unlisted
    asked = rows if is_shared else rows[: limit + 1]
    values = {**names.parameters(), "missing": Jsonb(list(asked)), "limit": limit + 1}
    found = conn.execute(sql("browse_missing"), values).fetchall()
    return Page(found[:limit], len(found) > limit or len(asked) < len(rows))


def hides_some(conn: Connection, batch_id: int, names: Names) -> bool:
    """Whether somebody in the batch may not be named. Where another chapter holds the event, too, that is not asked."""
    if names.chapters is None or not names.unlisted:
        return names.chapters is not None
    return bool(_find(conn, "browse_hidden", {"batch_id": batch_id, "chapters": names.chapters}))


def lists_of_error(conn: Connection, batch_id: int) -> list[int] | None:
    """Of whom a batch's first error tells: the chapters on whose lists she is or was; None: nobody has it any more."""
    row = conn.execute(sql("lists_of_error"), {"batch_id": batch_id}).fetchone()
    return None if row is None else row["chapters"]


def members(conn: Connection, scope: Scope, words: str, *, limit: int = PAGE) -> Page:
    """Members whose name or address holds these words, or whose id it is."""
    values = {"chapters": scope, "words": words, "number": _as_id(words), "limit": limit + 1}
    return _page(_find(conn, "browse_members", values), limit)


@dataclass(frozen=True, slots=True)
class KnownMember:
    """A member's record, her lists, and what every batch that met her came to for her."""

    record: dict[str, Any]
    lists: list[dict[str, Any]]
    events: list[dict[str, Any]]


def knows_member(conn: Connection, member_id: int, scope: Scope) -> bool:
    """Whether there is such a member, of whom the scope may know."""
    values = {"member_id": member_id, "chapters": scope}
    return conn.execute(sql("browse_member"), values).fetchone() is not None


def member(conn: Connection, member_id: int, scope: Scope, *, limit: int = 500) -> KnownMember | None:
    """The member as far as the scope may know of her; None when it may not, or there is none."""
    values = {"member_id": member_id, "chapters": scope, "limit": limit}
    record = conn.execute(sql("browse_member"), values).fetchone()
    if record is None:
        return None
    return KnownMember(
        record,
        conn.execute(sql("browse_lists_of_member"), values).fetchall(),
        conn.execute(sql("browse_member_events"), values).fetchall(),
    )


def upcoming(conn: Connection, member_id: int, scope: Scope, *, limit: int) -> list[KnownEvent]:
    """What is to come in the chapters whose lists she is or was on, and has no mail for her yet; the next one first."""
    values = {"member_id": member_id, "chapters": scope, "limit": limit}
    return [_event(row) for row in conn.execute(sql("browse_upcoming"), values)]
