"""The checks of `bidden doctor`: servers and schema are as this code needs them, work goes on, no row is impossible.

A server that is away fails its check; the others are still checked. Nothing is changed or repaired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import psycopg
from confluent_kafka import KafkaException

from config import ledger_topics
from config.addresses import without_secrets
from config.rights import RUNNING, Process
from config.settings import HOME_SETTINGS_FILE, Settings
from db import checks, outbox, rights
from db.connect import Connection, connect
from db.migrate import current, drift, head
from db.restores import is_behind, restored
from mail.check import check_mail_server
from monitoring import group_protocol, journals, sending, source
from schemas.errors import BiddenError, SettingsError, first_line

if TYPE_CHECKING:
    from db.outbox import PartitionOffsets
    from producers.topics import Topics

_MOST_SKEW_SECONDS: Final = 2.0
#: Between two reads of the group's commits: workers commit every second.
_COMMITS_SECONDS: Final = 3.0
#: Without any outcome for so long, while messages wait, a partition is stalled; a poll of slow mails takes less.
_IDLE_SECONDS: Final = 60.0
#: On the topic for longer than this, with nothing left to read: nothing will come of it by itself.
_UNREAD_SECONDS: Final = 300.0
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    check: str
    ok: bool
    detail: str


def run_checks(
    settings: Settings, sleep: Callable[[float], None] = time.sleep, processes: Sequence[Process] = RUNNING
) -> Iterator[CheckResult]:
    """All checks. The users of the settings should have the rights of these processes."""
    yield from _home(settings)
    yield from _database(settings, processes)
    yield from (CheckResult(*found) for found in source.check_source(settings))
    yield from _kafka(settings, sleep, processes)
    yield from _mail(settings)
    why = journals.obstacle(settings.state_folder)
    yield CheckResult(
        "journal", ok=why is None, detail=why or f"workers that start here keep theirs in {settings.state_folder}"
    )
    yield CheckResult(
        "trusted proxies",
        ok=True,
        detail=f"{settings.trusted_proxies}; which addresses of clients the site sees is on its System page",
    )


def _home(settings: Settings) -> Iterator[CheckResult]:
    """Addresses that an earlier `bidden up` left behind in its folder."""
    file = settings.home / HOME_SETTINGS_FILE
    if settings.database_url is None or not file.exists():
        return
    if settings.database_url.get_secret_value() not in file.read_text(errors="replace"):
        return
    # Imported here: an installation without the embedded servers lacks the packages that they need.
    from embedded.home import Home

    running = Home(settings.home).running() is not None
    yield CheckResult(
        "embedded servers",
        ok=running,
        detail=f"those of {settings.home}" + ("" if running else ", which are not running: start `bidden up` there"),
    )


def _database(settings: Settings, processes: Sequence[Process]) -> Iterator[CheckResult]:
    try:
        url = settings.require_database()
        with connect(url, application="bidden-doctor", autocommit=True) as conn:
            yield CheckResult("database", ok=True, detail=f"{without_secrets(url)}, PostgreSQL {checks.version(conn)}")
            yield _clock(conn)
            yield _rights("database rights", rights.missing(conn, processes), "deploy/grants.sql")
            revision = current(url)
            yield CheckResult(
                "schema",
                ok=revision == head(),
                detail=f"revision {revision or 'none'}"
                + ("" if revision == head() else f", needed {head()}: run `bidden migrate`"),
            )
            if revision != head():
                return
            yield _drift(url)
            for violation in checks.violations(conn):
                yield CheckResult(violation.check, ok=violation.count == 0, detail=violation.detail)
            # No fault: two people may share a mailbox.
            shared = checks.shared_mailboxes(conn)
            yield CheckResult(shared.check, ok=True, detail=shared.detail)
            now = sending.read(conn, settings.send_rates)
            yield CheckResult("sending rate", ok=not now.needs_a_person, detail=sending.describe(now))
            yield from (CheckResult(*found) for found in source.check_snapshot(conn, settings))
    except BiddenError as error:
        yield CheckResult("database", ok=False, detail=error.detail)
    except psycopg.errors.InsufficientPrivilege as error:
        # No fault by itself: the rights were checked before.
        yield CheckResult("database", ok=True, detail=f"not all was checked: {first_line(error)}")
    except psycopg.Error as error:
        yield CheckResult("database", ok=False, detail=first_line(error))


def _clock(conn: Connection) -> CheckResult:
    skew = checks.clock_skew(conn, time.time)
    where = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'}" if skew else "the same as"
    return CheckResult("clock", ok=abs(skew) <= _MOST_SKEW_SECONDS, detail=f"the database's is {where} this machine's")


def _drift(url: str) -> CheckResult:
    differences = drift(url)
    shown = ", ".join(differences[:_SHOWN])
    detail = f"{len(differences)} differences from the models" + (f": {shown}" if shown else "")
    return CheckResult("schema drift", ok=not differences, detail=detail)


def _rights(check: str, lacks: Sequence[str], file: str) -> CheckResult:
    detail = f"this user lacks {'; '.join(lacks)}: see {file}" if lacks else "this user has what it needs"
    return CheckResult(check, ok=not lacks, detail=detail)


def _kafka(settings: Settings, sleep: Callable[[float], None], processes: Sequence[Process]) -> Iterator[CheckResult]:
    from producers.rights import is_forbidden
    from producers.rights import missing as missing_in_kafka
    from producers.topics import Topics

    try:
        topics = Topics(settings)
        found = topics.look()
        yield CheckResult(
            "kafka",
            ok=found.problem is None,
            detail=found.problem or f"{settings.require_kafka()}, {found.brokers} brokers",
        )
        if found.is_cut_off:
            return
        yield _rights("kafka rights", missing_in_kafka(settings, processes), "deploy/acls")
        missing = False
        for name in settings.topics:
            if topics.topic_id(name) is None:
                missing = True
                yield CheckResult("topic", ok=False, detail=f"{name} does not exist: run `bidden migrate`")
        if missing:
            return
        yield from _durability(settings, topics, found.brokers)
        yield _compaction(topics)
        fits, protocol = group_protocol.check(settings, processes)
        yield CheckResult("group protocol", ok=fits, detail=protocol)
        held = topics.read_offsets(datetime.now(UTC)).partitions
        yield CheckResult("topic", ok=True, detail=f"{settings.invitations_topic}, {len(held)} partitions")
        yield _tail(held)
        lag = sum(offsets.lag for offsets in held.values())
        # A lag is no fault while workers process it.
        members = topics.member_count()
        yield CheckResult(
            "lag",
            ok=lag == 0 or members > 0,
            detail=f"{lag} messages wait for group {settings.group}, {members} workers",
        )
        yield from _flow(settings, topics, lag, sleep)
    except BiddenError as error:
        yield CheckResult("kafka", ok=False, detail=error.detail)
    except KafkaException as error:
        # What the user may not ask is no fault by itself: that was checked before.
        yield CheckResult("kafka", ok=is_forbidden(error), detail=f"not all was checked: {error.args[0].str()}")
    except TimeoutError:
        yield CheckResult("kafka", ok=False, detail="no answer in time")


def _durability(settings: Settings, topics: Topics, brokers: int) -> Iterator[CheckResult]:
    """Whether an acknowledged message survives the loss of a broker, as far as there are brokers for it."""
    for name in settings.topics:
        durability = topics.durability(name)
        lacks = durability.lacks(brokers)
        kept = f"replication {durability.replication}, min.insync.replicas {durability.min_in_sync}"
        yield CheckResult("durability", ok=lacks is None, detail=f"{name}: {lacks or kept}")


def _compaction(topics: Topics) -> CheckResult:
    """Whether the topic of outcomes keeps the newest outcome of each delivery for ever."""
    try:
        topics.require_compacted()
    except SettingsError as error:
        return CheckResult("topic of outcomes", ok=False, detail=error.detail)
    return CheckResult("topic of outcomes", ok=True, detail="compacted")


def _tail(held: Mapping[int, PartitionOffsets]) -> CheckResult:
    """Whether the group has committed more than the log holds: then brokers have lost acknowledged messages."""
    lost = [
        f"partition {p}: the group has committed {offsets.committed}, and the log ends at {offsets.end}"
        for p, offsets in sorted(held.items())
        if offsets.has_lost_tail
    ]
    detail = "; ".join(lost) + ": workers and dispatchers move it back, and publish again what was lost"
    return CheckResult("end of the topic", ok=not lost, detail=detail if lost else "no partition has lost its end")


def _flow(settings: Settings, topics: Topics, lag: int, sleep: Callable[[float], None]) -> Iterator[CheckResult]:
    """Whether published messages are read, as Kafka and the ledger have it; and the dead letters."""
    from monitoring import dead_letters

    obstacle = dead_letters.obstacle(settings)
    yield CheckResult("dead-letter topic", ok=obstacle is None, detail=obstacle or settings.dead_letter_topic)
    try:
        with connect(settings.require_database(), application="bidden-doctor", autocommit=True) as conn:
            waiting = dead_letters.waiting(conn, settings)
            yield CheckResult(
                "dead letters",
                ok=not waiting,
                detail=f"{waiting} wait: `bidden dlq list`, repair the cause, then `bidden dlq redrive` or `discard`"
                if waiting
                else "none wait",
            )
            # Workers that wait for the sending rate are not stalled.
            limited = sending.read(conn, settings.send_rates).seconds_to_next > 0
            idle = 0.0 if limited else checks.seconds_since_outcome(conn)
            stalled = stalled_partitions(topics, idle, sleep)
            yield CheckResult("stalled partitions", ok=not stalled, detail="; ".join(stalled) or "none")
            behind = is_behind(conn, ledger_topics.newest(settings))
            yield CheckResult(
                "restored",
                ok=not behind,
                detail=restored().detail if behind else "the ledger holds what its topics hold",
            )
            lost = checks.lost_items(conn, topics.read_offsets(outbox.read_clock(conn)))
            dispatchers = checks.dispatchers(conn)
            yield CheckResult(
                lost.check,
                # A dispatcher makes them due within seconds.
                ok=lost.count == 0 or dispatchers > 0,
                detail=f"{lost.detail}; {dispatchers} dispatchers",
            )
            if lag == 0:
                unread = checks.unread_items(conn, max(_UNREAD_SECONDS, 2 * settings.lease_seconds))
                yield CheckResult(unread.check, ok=unread.count == 0, detail=unread.detail)
    except (BiddenError, psycopg.Error):
        return  # reported by the checks of the database


def stalled_partitions(topics: Topics, idle: float | None, sleep: Callable[[float], None]) -> list[str]:
    """Partitions whose messages wait while the group commits nothing, each with the cause.

    `idle` is how many seconds ago the ledger was last written to. Takes some seconds if any message waits.
    """
    behind = _behind(topics)
    if not behind:
        return []
    assigned = {p for member in topics.members() for p in member.partitions}
    sleep(_COMMITS_SECONDS)
    still, members = _behind(topics), topics.members()
    assigned |= {p for member in members for p in member.partitions}
    found = []
    for partition, (next_offset, _) in behind.items():
        if partition not in still or still[partition][0] != next_offset:
            continue
        where = f"partition {partition}: {still[partition][1]} messages wait from offset {next_offset} on"
        if partition not in assigned:
            found.append(f"{where}, and no worker has it")
        elif idle is None or idle > _IDLE_SECONDS:
            found.append(f"{where}, and its worker commits nothing")
    return found


def _behind(topics: Topics) -> Mapping[int, tuple[int, int]]:
    """Partitions with messages that wait: the next offset that the group will read, and how many wait."""
    held = topics.read_offsets(datetime.now(UTC)).partitions
    return {p: (offsets.next, offsets.lag) for p, offsets in held.items() if offsets.lag}


def _mail(settings: Settings) -> Iterator[CheckResult]:
    try:
        url = settings.require_smtp()
        asyncio.run(check_mail_server(settings))
        yield CheckResult("mail server", ok=True, detail=without_secrets(url))
    except BiddenError as error:
        yield CheckResult("mail server", ok=False, detail=error.detail)
