"""Whether the organisation's own database can be read, and its newest snapshot is fresh: for `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.addresses import without_secrets
from config.settings import PREFIX, Settings
from db import source_status, source_writer
from db.connect import Connection
from db.source import Source, describe
from db.source_status import SourceStatus
from mail.dates import moment
from monitoring.sending import duration
from schemas.errors import BiddenError

#: The name of a check, whether it passed, and details.
Finding = tuple[str, bool, str]

_SETTINGS: Final = ("source_url", "source_file", "source_time_zone")
_SHOWN: Final = 5
#: A standby that is so far behind leaves claims little of the time that its snapshots may be old.
_LITTLE_SECONDS: Final = 1.0
#: A batch whose invitations the source does not have for so long waits for a person.
_LONG_SECONDS: Final = 300.0
#: A batch of the source's own may have been in the way of one that began more lately.
_LATE_SECONDS: Final = 3600.0


def check_source(settings: Settings) -> Iterator[Finding]:
    """Whether a snapshot could be taken now. Nothing where no source is set."""
    if all(getattr(settings, name) is None for name in _SETTINGS):
        return
    try:
        source = Source.of(settings)
        found = describe(source)
        source_writer.check(source)
    except BiddenError as error:
        yield "source", False, error.detail
        return
    age = found.age.total_seconds()
    behind = f", a standby that is {duration(age)} behind" if age > _LITTLE_SECONDS else ""
    where = f"{without_secrets(source.url)}, PostgreSQL {found.version}{behind}"
    yield "source", True, f"{where}; the {len(source.queries)} queries fit"


def check_snapshot(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether the newest snapshot is fresh, what it set aside, and what its source refuses. Nothing without one."""
    status = source_status.read(conn)
    if status is None:
        if settings.source_url is not None:
            hint = "`bidden sync --check` shows what one would change, `bidden sync --every 15s` takes them"
            yield "snapshot", False, f"none was taken yet: {hint}"
        return
    yield "snapshot", not status.is_stale and status.problem is None, _describe(status)
    if status.places:
        yield "placing", (status.placing_seconds or 0.0) < _LONG_SECONDS, _describe_placing(status)
    reported = source_status.batches_not_taken(conn, _LATE_SECONDS)
    if reported is not None:
        yield "outcomes given back", not reported[0], _describe_reported(*reported)
    shown = [
        f"{line['type']} {line['key']}" + (f", {line['field']}" if line["field"] else "") + f": {line['problem']}"
        for line in source_status.set_aside(conn, _SHOWN)
    ]
    more = "; …" if status.set_aside > len(shown) else ""
    named = f": {'; '.join(shown)}{more}" if shown else ""
    yield "lines set aside", not status.set_aside, f"{status.set_aside} of the newest snapshot{named}"


def _describe(status: SourceStatus) -> str:
    parts = [_age(status)]
    if status.is_stale:
        parts.append(
            f"claims wait for a newer one: is `bidden sync --every 15s` running, with {PREFIX}SOURCE_URL? Without a "
            "source any more: `bidden sync --end`"
        )
    if status.problem is not None:
        assert status.problem_since is not None
        parts.append(f"since {moment(status.problem_since, 'UTC')} none was taken: {status.problem}")
    return "; ".join(parts)


def _describe_placing(status: SourceStatus) -> str:
    if not status.batches_to_place:
        return "the source has the invitations of every batch"
    assert status.placing_seconds is not None
    return (
        f"{status.batches_to_place} of the batches wait until the source has their invitations, one for "
        f"{duration(status.placing_seconds)}: is `bidden sync --every 15s` running, and what does it log?"
    )


def _describe_reported(late: int, first: int | None) -> str:
    if not late:
        return "the source takes those of every batch"
    return (
        f"{late} of the batches that began more than {duration(_LATE_SECONDS)} ago are refused by the source, or a "
        f"part of them, first batch {first}: what does `bidden sync` log?"
    )


def _age(status: SourceStatus) -> str:
    limit = (
        "of any age" if status.max_age_seconds is None else f"at most {duration(status.max_age_seconds)} are allowed"
    )
    return f"begun {moment(status.began_at, 'UTC')}, {duration(status.age_seconds)} ago; {limit}"
