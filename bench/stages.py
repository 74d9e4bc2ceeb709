"""Each stage alone, in one process, with nothing else running."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from bench.environment import EVENT, Environment
from config.clock import now
from db import outbox
from db.connect import Connection, connect
from db.directory import import_lines
from demo.generator import generate
from mail.compose import CompiledTemplate
from mail.sender import always
from mail.smtp.sender import SmtpSender
from producers.dispatch import CHUNK
from producers.plan import plan
from producers.publish import Publisher
from producers.topics import Topics
from schemas.directory_file import parse_lines
from schemas.envelope import Envelope
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.message import decode, encode_fast, key_of
from schemas.vocabulary import Audience, EventKind, Role


def measure(environment: Environment, members: int) -> list[tuple[str, str, float]]:
    """Rows of (stage, unit, per second), in the order of the flow. Plans and publishes a batch of its own."""
    lines = [orjson.dumps(line) for line in generate(members, now=now())]
    rows = []
    with connect(environment.database_url) as conn:
        seconds = _timed(lambda: import_lines(conn, parse_lines(io.BytesIO(b"\n".join(lines)))))
    rows.append(("import a directory", "lines", len(lines) / seconds))
    with connect(environment.database_url, autocommit=True) as conn:
        start = time.perf_counter()
        planned = plan(conn, event_id=EVENT, audience=Audience.EVERYONE, claim_seconds=0)
        rows.append(("plan, in one transaction", "candidates", _candidates(planned) / (time.perf_counter() - start)))
        assert planned.batch_id is not None
        batch_id = planned.batch_id
        seconds = _timed(lambda: _publish(environment, conn))
        rows.append(("claim, publish, store offsets", "messages", planned.planned / seconds))
        conn.execute("UPDATE batches SET state = 'paused' WHERE id = %s", (batch_id,))
    rows.append(("decode and validate messages", "messages", _decoding(members)))
    rows.append(("compose mails", "mails", _composing(members)))
    rows.append(("send to the sink, 10 connections", "mails", asyncio.run(_sending(environment, members))))
    return rows


def _publish(environment: Environment, conn: Connection) -> None:
    publisher, topic_id = Publisher(environment.settings, now), Topics(environment.settings).require_id()
    while items := outbox.claim_due_items(conn, CHUNK):
        publisher.publish(conn, topic_id, items)


def _timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _candidates(planned: Any) -> int:
    return int(planned.planned + sum(planned.excluded.values()))


def _decoding(count: int) -> float:
    messages = [(key_of(n), encode_fast(1, 1, n, "invite", ["Student", "Coach"])) for n in range(1, count + 1)]
    return count / _timed(lambda: [decode(key, value) for key, value in messages])


def _composing(count: int) -> float:
    template, at = sample_template(), datetime(2026, 1, 1, tzinfo=UTC)
    return count / _timed(lambda: [sample_mail(template, n, at) for n in range(1, count + 1)])


async def _sending(environment: Environment, count: int) -> float:
    template, at = sample_template(), datetime(2026, 1, 1, tzinfo=UTC)
    mails = [sample_mail(template, n, at) for n in range(1, count + 1)]
    sender = SmtpSender(environment.settings.require_smtp(), connections=10)
    await sender.ready()
    all_done = asyncio.Event()
    open_mails = len(mails)

    def done(_: object) -> None:
        nonlocal open_mails
        open_mails -= 1
        if not open_mails:
            all_done.set()

    start = time.perf_counter()
    for mail in mails:
        sender.submit(mail, done, always)
    await all_done.wait()
    seconds = time.perf_counter() - start
    await sender.close()
    return count / seconds


def sample_mail(template: CompiledTemplate, n: int, at: datetime) -> Envelope:
    """The mail to member n, some 3 kB."""
    recipient = Recipient(n, "Ada", "Lovelace", f"ada{n}@bidden.example", f"token{n}")
    mail = template.compose(recipient, DeliveryKey(1, "invite", n, "Student"), at)
    assert isinstance(mail, Envelope)
    return mail


def sample_template() -> CompiledTemplate:
    """The mails of a workshop."""
    event = EventDetails(
        event_id=1, kind=EventKind.WORKSHOP, name="Workshop", description="Bring a laptop.\n\nAnd a friend.",
        chapter_names=("London",), chapter_email="london@bidden.example",
        starts_at=datetime(2026, 6, 1, 17, 30, tzinfo=UTC), ends_at=datetime(2026, 6, 1, 20, 0, tzinfo=UTC),
        time_zone="Europe/London", host_name="The Engine Room", host_address="1 Street, London",
    )  # fmt: skip
    return CompiledTemplate(event, Role.STUDENT, "Invitations <invitations@bidden.example>", "https://bidden.example")
