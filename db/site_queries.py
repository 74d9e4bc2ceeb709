"""What the web application and its API read: events, batches and members, filtered and paged. Reads only.

`scope` is the list of chapters whose events and members the caller may see, or None for all. An event that chapters
beyond the scope hold too, or held before, shows its numbers in full, and only those members who are in the scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from db import member_search
from db.connect import Connection
from db.planning import EventFacts, Trigger
from db.statements import sql
from schemas.errors import NotFoundError
from schemas.vocabulary import Audience, EventKind

Scope = list[int] | None
PAGE: Final = 50
_PACE_SECONDS: Final = 10.0
#: How many subscribers are searched for the next page before all of them are.
_SCANNED: Final = 500


@dataclass(frozen=True, slots=True)
class VisibleMembers:
    """Which members of an event may be named: those of these chapters, or all with None.

    `unlisted`: also those on no list of any chapter: the lists they left were this event's, not another chapter's.
    """

    chapters: Scope = None
    unlisted: bool = False

    def includes(self, chapters: Sequence[int] | None) -> bool:
        """Whether a member on lists of `chapters` may be named; None: the member is not known."""
        if self.chapters is None:
            return True
        if chapters is None:
            return False
        return not set(chapters).isdisjoint(self.chapters) or (self.unlisted and not chapters)

    def parameters(self) -> dict[str, Any]:
        """The parameters of the fragment `may_be_named`."""
        return {"chapters": self.chapters, "unlisted": self.unlisted}


#: For those who may see every member.
EVERYONE: Final = VisibleMembers()


@dataclass(frozen=True, slots=True)
class EventSummary:
    """An event with its chapters. Times are aware and shown in `time_zone`."""

    id: int
    kind: EventKind
    name: str
    starts_at: datetime
    ends_at: datetime
    cancelled_at: datetime | None
    invitable: bool
    has_host: bool
    role_policy: str
    ref: str | None
    audience: Audience | None
    rsvp_url: str | None
    is_past: bool
    time_zone: str
    chapter_ids: tuple[int, ...]
    chapter_names: tuple[str, ...]

    @property
    def facts(self) -> EventFacts:
        """What `producers.plan.refusal` decides on."""
        return EventFacts(
            event_id=self.id,
            kind=self.kind,
            name=self.name,
            is_past=self.is_past,
            invitable=self.invitable,
            is_cancelled=self.cancelled_at is not None,
            has_host=self.has_host,
            role_policy=self.role_policy,
            audience=self.audience,
        )

    def is_shared(self, scope: Scope) -> bool:
        """Whether chapters beyond the scope hold it too."""
        return scope is not None and not set(self.chapter_ids) <= set(scope)

    def visible_members(self, scope: Scope) -> VisibleMembers:
        """Which members the caller may see: never all for an organiser, as other chapters may have held it before."""
        return VisibleMembers(scope, unlisted=scope is not None and not self.is_shared(scope))


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event with a summary of its batches and of its deliveries."""

    event: EventSummary
    batches: int
    last_started_at: datetime | None
    is_running: bool
    is_paused: bool
    #: Of an upcoming event: whether the outcome of any delivery is known, whoever sent it.
    is_reached: bool = False
    #: The roles that no batch has invited to its end, and those of them in which an outcome is known nevertheless.
    uninvited: frozenset[str] = frozenset()
    half_reached: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and whether more follow."""

    rows: list[dict[str, Any]]
    has_more: bool


_EVENT_FIELDS: Final = tuple(EventSummary.__dataclass_fields__)


def _event(row: dict[str, Any]) -> EventSummary:
    values = {name: row[name] for name in _EVENT_FIELDS}
    values |= {"kind": EventKind(row["kind"]), "audience": row["audience"] and Audience(row["audience"])}
    values |= {name: tuple(row[name] or ()) for name in ("chapter_ids", "chapter_names")}
    return EventSummary(**values)


def _page(rows: list[dict[str, Any]], limit: int) -> Page:
    return Page(rows[:limit], len(rows) > limit)


def _find(conn: Connection, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Not prepared: the right plan for a rare search, status or scope is wrong for a common one."""
    return conn.execute(sql(statement), values, prepare=False).fetchall()


def event(conn: Connection, event_id: int, scope: Scope) -> EventSummary | None:
    """The event; None when there is none, or it is out of scope."""
    row = conn.execute(sql("browse_event"), {"event_id": event_id, "chapters": scope}).fetchone()
    return None if row is None else _event(row)


def events(
    conn: Connection, scope: Scope, *, search: str = "", skip: int = 0, limit: int = PAGE
) -> tuple[list[ListedEvent], bool]:
    """Events whose name or reference contains `search`, upcoming ones first; and whether more follow."""
    values = {"chapters": scope, "search": search, "skip": skip, "limit": limit + 1}
    rows = _find(conn, "browse_events", values)
    listed = [
        ListedEvent(
            _event(row),
            row["batches"],
            row["last_started_at"],
            row["is_running"],
            row["is_paused"],
            bool(row["is_reached"]),
            frozenset(row["uninvited"] or ()),
            frozenset(row["half_reached"] or ()),
        )
        for row in rows[:limit]
    ]
    return listed, len(rows) > limit


def batches(conn: Connection, scope: Scope, *, event_id: int | None = None, skip: int = 0, limit: int = PAGE) -> Page:
    """Batches without their numbers, newest first."""
    values = {"chapters": scope, "event_id": event_id, "skip": skip, "limit": limit + 1}
    return _page(_find(conn, "browse_batches", values), limit)


def event_of_batch(conn: Connection, batch_id: int, scope: Scope) -> EventSummary | None:
    """The batch's event; None when there is no such batch, or its event is out of scope."""
    row = conn.execute(sql("event_of_batch"), {"batch_id": batch_id, "chapters": scope}).fetchone()
    return None if row is None else _event(row)


def candidates(
    conn: Connection,
    trigger: Trigger,
    reason: str | None,
    visible: VisibleMembers,
    *,
    after: int = 0,
    limit: int = PAGE,
) -> Page:
    """The members behind a number of a dry run, by id: excluded for the reason, or with None to be invited."""
    values = {**trigger.parameters(), **visible.parameters(), "reason": reason, "after": after, "limit": limit + 1}
    # The next few subscribers nearly always fill a page, unless the number is small or its members are far apart.
    rows = _find(conn, "browse_candidates_near", {**values, "scanned": _SCANNED})
    if len(rows) <= limit:
        rows = _find(conn, "browse_candidates", values)
    return _page(rows, limit)


def entries(
    conn: Connection,
    batch_id: int,
    visible: VisibleMembers,
    *,
    status: str | None = None,
    reason: str | None = None,
    search: str = "",
    after: tuple[int, str] = (0, ""),
    limit: int = PAGE,
) -> Page:
    """A page of a batch's log, by member and role; with the status `left_out`, the members excluded at planning,
    for that reason if one is given.

    `after` is the last row of the page before: its member and `item_role`. `search` are words in a name and address, or
    a member's id.
    """
    searched = member_search.words(conn, search)
    values = {
        **visible.parameters(),
        "batch_id": batch_id,
        "status": status,
        **searched,
        "few": member_search.few(conn, searched),
        "reason": reason,
        "after_member": after[0],
        "after_role": after[1],
        "limit": limit + 1,
    }
    statement = "browse_entries" if status in (None, "pending") else "browse_outcomes"
    return _page(_find(conn, "browse_excluded" if status == "left_out" else statement, values), limit)


@dataclass(frozen=True, slots=True)
class BatchNumbers:
    """A batch's numbers as in `reports.status`, members excluded at planning by reason, and mails sent per second."""

    status: dict[str, Any]
    excluded: dict[str, int]
    per_second: float
    #: Whether a delivery of it is unknown now, or failed and nobody else has reached the member.
    has_errors: bool


def batch_numbers(conn: Connection, batch_id: int) -> BatchNumbers:
    """The batch's numbers now, from one read of its items and its log. NotFoundError when there is no such batch."""
    found = _find(conn, "browse_numbers", {"batch_id": batch_id, "seconds": _PACE_SECONDS})
    if not found:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    status = found[0]
    excluded, per_second, has_errors = (status.pop(name) for name in ("excluded_members", "per_second", "has_errors"))
    pace = per_second if status["state"] == "running" else 0.0
    return BatchNumbers(status, dict(sorted(excluded.items())), pace, has_errors)


def hides_members(conn: Connection, batch_id: int, visible: VisibleMembers) -> bool:
    """Whether a member of the batch may not be named. True, unasked, where another chapter holds the event too."""
    if visible.chapters is None or not visible.unlisted:
        return visible.chapters is not None
    return bool(_find(conn, "browse_hidden", {"batch_id": batch_id, "chapters": visible.chapters}))


def chapters_of_error(conn: Connection, batch_id: int) -> list[int] | None:
    """The chapters of the member whose reply is the batch's first error; None when no log entry has it any more."""
    row = conn.execute(sql("chapters_of_error"), {"batch_id": batch_id}).fetchone()
    return None if row is None else row["chapters"]


def members(conn: Connection, scope: Scope, search: str, *, limit: int = PAGE) -> Page:
    """Members whose name and address contain every word of `search`, accents or none, or whose id it is."""
    values = {"chapters": scope, **member_search.words(conn, search), "limit": limit + 1}
    return _page(_find(conn, "browse_members", values), limit)


@dataclass(frozen=True, slots=True)
class MemberDetails:
    """A member's record, their lists, and their outcome in every batch that had them."""

    record: dict[str, Any]
    lists: list[dict[str, Any]]
    #: What the member left by a link: chapter_id, chapter_name and role, all None for every list; left_at.
    opt_outs: list[dict[str, Any]]
    events: list[dict[str, Any]]


def is_visible_member(conn: Connection, member_id: int, scope: Scope) -> bool:
    """Whether there is such a member within the scope."""
    values = {"member_id": member_id, "chapters": scope}
    return conn.execute(sql("browse_member"), values).fetchone() is not None


def member(conn: Connection, member_id: int, scope: Scope, *, limit: int = 500) -> MemberDetails | None:
    """The member, with lists and events of the scope; None when there is none within the scope."""
    values = {"member_id": member_id, "chapters": scope, "limit": limit}
    record = conn.execute(sql("browse_member"), values).fetchone()
    if record is None:
        return None
    return MemberDetails(
        record,
        conn.execute(sql("browse_lists_of_member"), values).fetchall(),
        conn.execute(sql("browse_opt_outs"), values).fetchall(),
        conn.execute(sql("browse_member_events"), values).fetchall(),
    )


def upcoming(conn: Connection, member_id: int, scope: Scope, *, limit: int) -> list[EventSummary]:
    """Upcoming events of the chapters whose lists the member is or was on, without a delivery to them; next first."""
    values = {"member_id": member_id, "chapters": scope, "limit": limit}
    return [_event(row) for row in conn.execute(sql("browse_upcoming"), values)]
