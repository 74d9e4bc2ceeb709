"""The command `doctor`: can everything be reached, is it what this code needs, is anything stuck or impossible."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from admin.output import table, write_lines
from admin.wiring import DATABASE, KAFKA, WORKER, check_mail_server, environment, json_option, load
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, BiddenError
from schemas.settings import Settings, without_secrets


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    ok: bool
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks. A server that is away is a finding; what can still be asked of the others is asked."""
    yield from _database(settings)
    yield from _kafka(settings)
    yield from _mail(settings)


def _database(settings: Settings) -> Iterator[Finding]:
    from db import checks
    from db.connect import connect
    from db.migrate import current, drift, head

    try:
        url = settings.require_database()
        with connect(url, application="bidden-doctor", autocommit=True) as conn:
            yield Finding("database", ok=True, detail=f"{without_secrets(url)}, PostgreSQL {checks.version(conn)}")
            revision = current(url)
            yield Finding(
                "schema",
                ok=revision == head(),
                detail=f"revision {revision or 'none'}"
                + ("" if revision == head() else f", needed {head()}: run `bidden migrate`"),
            )
            if revision != head():
                return
            differences = drift(url)
            yield Finding("schema drift", ok=not differences, detail=f"{len(differences)} differences from the models")
            for name, count, meaning in checks.impossible(conn):
                yield Finding(name, ok=count == 0, detail=f"{count} {meaning}")
    except BiddenError as error:
        yield Finding("database", ok=False, detail=error.detail)


def _kafka(settings: Settings) -> Iterator[Finding]:
    from confluent_kafka import KafkaException

    from producers.topics import Topics

    try:
        topics = Topics(settings)
        brokers = topics.check_reachable()
        yield Finding("kafka", ok=True, detail=f"{settings.require_kafka()}, {brokers} brokers")
        if topics.topic_id() is None:
            yield Finding(
                "topic", ok=False, detail=f"{settings.invitations_topic} does not exist: run `bidden migrate`"
            )
            return
        partitions = topics.partitions()
        yield Finding("topic", ok=True, detail=f"{settings.invitations_topic}, {len(partitions)} partitions")
        latest, first_kept = topics.latest(partitions), topics.first_kept()
        lag = sum(latest[p] - first_kept[p] for p in latest)
        # A lag with workers at it is work being done; without any it is work that nobody does.
        members = topics.group_members()
        yield Finding(
            "lag",
            ok=lag == 0 or members > 0,
            detail=f"{lag} messages wait for group {settings.group}, {members} workers",
        )
    except BiddenError as error:
        yield Finding("kafka", ok=False, detail=error.detail)
    except KafkaException as error:
        yield Finding("kafka", ok=False, detail=error.args[0].str())


def _mail(settings: Settings) -> Iterator[Finding]:
    try:
        url = settings.require_smtp()
        asyncio.run(check_mail_server(settings))
        yield Finding("mail server", ok=True, detail=without_secrets(url))
    except BiddenError as error:
        yield Finding("mail server", ok=False, detail=error.detail)


@click.command(epilog=environment(DATABASE, KAFKA, WORKER))
@json_option
def doctor(as_json: bool) -> int:
    """Look at everything that a campaign needs. Exit 1 if anything is wrong.

    Example: bidden doctor
    """
    findings = list(examine(load()))
    if as_json:
        write_lines(asdict(finding) for finding in findings)
    else:
        table(
            "Doctor",
            ["check", "ok", "detail"],
            ([finding.check, "ok" if finding.ok else "WRONG", finding.detail] for finding in findings),
        )
    return EXIT_DONE if all(finding.ok for finding in findings) else EXIT_NEEDS_A_PERSON


COMMANDS: list[click.Command] = [doctor]
