"""What `doctor` looks at: is all reachable and as this code needs it, does work stand still, is a row impossible.

A server that is away is a finding; what can still be asked of the others is asked. Nothing is changed or repaired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg
from confluent_kafka import KafkaException

from config.settings import HOME_SETTINGS_FILE, Settings, without_secrets
from db import checks
from db.connect import Connection, connect
from db.migrate import current, drift, head
from mail.check import check_mail_server
from schemas.errors import BiddenError, first_line

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

    from producers.topics import Topics

_MOST_SKEW_SECONDS: Final = 2.0
#: Between two looks at the group's commits: workers commit every second.
_LOOK_SECONDS: Final = 3.0
#: Nothing recorded for so long, while messages wait, is a stall; a take of slow mails is not.
_IDLE_SECONDS: Final = 60.0
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    check: str
    ok: bool
    detail: str


def run_checks(settings: Settings, sleep: Callable[[float], None] = time.sleep) -> Iterator[CheckResult]:
    """All checks."""
    yield from _home(settings)
    yield from _database(settings)
    yield from _kafka(settings, sleep)
    yield from _mail(settings)


def _home(settings: Settings) -> Iterator[CheckResult]:
    """Addresses that an earlier `bidden up` has left behind."""
    file = settings.home / HOME_SETTINGS_FILE
    if settings.database_url is None or not file.exists():
        return
    if settings.database_url.get_secret_value() not in file.read_text(errors="replace"):
        return
    # Not before: an installation without the embedded servers has not the packages that they need.
    from embedded.home import Home

    running = Home(settings.home).running() is not None
    yield CheckResult(
        "embedded servers",
        ok=running,
        detail=f"those of {settings.home}" + ("" if running else ", which nobody runs: start `bidden up` there"),
    )


def _database(settings: Settings) -> Iterator[CheckResult]:
    try:
        url = settings.require_database()
        with connect(url, application="bidden-doctor", autocommit=True) as conn:
            yield CheckResult("database", ok=True, detail=f"{without_secrets(url)}, PostgreSQL {checks.version(conn)}")
            yield _clock(conn)
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
            for found in checks.impossible(conn):
                yield CheckResult(found.check, ok=found.count == 0, detail=found.detail)
    except BiddenError as error:
        yield CheckResult("database", ok=False, detail=error.detail)
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


def _kafka(settings: Settings, sleep: Callable[[float], None]) -> Iterator[CheckResult]:
    from producers.topics import Topics

    try:
        topics = Topics(settings)
        brokers = topics.check_reachable()
        yield CheckResult("kafka", ok=True, detail=f"{settings.require_kafka()}, {brokers} brokers")
        missing = False
        for name in (settings.invitations_topic, settings.dead_letter_topic):
            if topics.topic_id(name) is None:
                missing = True
                yield CheckResult("topic", ok=False, detail=f"{name} does not exist: run `bidden migrate`")
        if missing:
            return
        partitions = topics.partitions()
        yield CheckResult("topic", ok=True, detail=f"{settings.invitations_topic}, {len(partitions)} partitions")
        latest, first_kept = topics.latest(partitions), topics.first_kept()
        lag = sum(latest[p] - first_kept[p] for p in latest)
        # A lag with workers at it is work being done; without any it is work that nobody does.
        members = topics.group_members()
        yield CheckResult(
            "lag",
            ok=lag == 0 or members > 0,
            detail=f"{lag} messages wait for group {settings.group}, {members} workers",
        )
        yield from _flow(settings, topics, partitions, sleep)
    except BiddenError as error:
        yield CheckResult("kafka", ok=False, detail=error.detail)
    except KafkaException as error:
        yield CheckResult("kafka", ok=False, detail=error.args[0].str())
    except TimeoutError:
        yield CheckResult("kafka", ok=False, detail="no answer in time")


def _flow(
    settings: Settings, topics: Topics, partitions: list[TopicPartition], sleep: Callable[[float], None]
) -> Iterator[CheckResult]:
    """Whether what was published is come for, by Kafka's account and by the ledger's."""
    topic_id = topics.topic_id()
    try:
        with connect(settings.require_database(), application="bidden-doctor", autocommit=True) as conn:
            standing = standing_partitions(topics, partitions, checks.seconds_since_outcome(conn), sleep)
            yield CheckResult("standing partitions", ok=not standing, detail="; ".join(standing) or "none")
            if topic_id is not None:
                lost = checks.lost_items(conn, topic_id, topics.first_kept())
                dispatchers = checks.dispatchers(conn)
                yield CheckResult(
                    lost.check,
                    # A dispatcher looks for them every few seconds.
                    ok=lost.count == 0 or dispatchers > 0,
                    detail=f"{lost.detail}; {dispatchers} dispatchers",
                )
    except (BiddenError, psycopg.Error):
        return  # said by the checks of the database


def standing_partitions(
    topics: Topics, partitions: list[TopicPartition], idle: float | None, sleep: Callable[[float], None]
) -> list[str]:
    """Partitions whose messages wait while the group's commits stand still, each with what is amiss.

    `idle` is how long ago the ledger was last written to. Takes some seconds if anything waits.
    """
    behind = _behind(topics, partitions)
    if not behind:
        return []
    had = {p for member in topics.members() for p in member.partitions}
    sleep(_LOOK_SECONDS)
    still, members = _behind(topics, partitions), topics.members()
    has = had | {p for member in members for p in member.partitions}
    found = []
    for partition, (position, _) in behind.items():
        if partition not in still or still[partition][0] != position:
            continue
        where = f"partition {partition}: {still[partition][1]} messages wait from offset {position} on"
        if partition not in has:
            found.append(f"{where}, and no worker has it")
        elif idle is None or idle > _IDLE_SECONDS:
            found.append(f"{where}, and its worker commits nothing")
    return found


def _behind(topics: Topics, partitions: list[TopicPartition]) -> Mapping[int, tuple[int, int]]:
    """Partitions with messages that wait: the group's position, and how many."""
    first_kept, latest = topics.first_kept(), topics.latest(partitions)
    return {p: (first_kept[p], latest[p] - first_kept[p]) for p in latest if latest[p] > first_kept[p]}


def _mail(settings: Settings) -> Iterator[CheckResult]:
    try:
        url = settings.require_smtp()
        asyncio.run(check_mail_server(settings))
        yield CheckResult("mail server", ok=True, detail=without_secrets(url))
    except BiddenError as error:
        yield CheckResult("mail server", ok=False, detail=error.detail)
