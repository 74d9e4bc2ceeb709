"""Celery with Redis, as its guide tunes it for many short tasks: prefetch, late acknowledgement, no results."""

from __future__ import annotations

from celery import Celery

from bench.queues import mailer

app = Celery("bench", broker=mailer.REDIS)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="invite")  # type: ignore[untyped-decorator] # not installed for checks
def invite(member: int) -> None:
    """A mail."""
    mailer.invite(member)


def enqueue(members: range) -> None:
    """A task for each member, over one connection."""
    with app.producer_or_acquire() as producer:
        for member in members:
            invite.apply_async((member,), producer=producer)
