"""dramatiq with Redis: two processes of eight threads, which is its default for two cores."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.queues import mailer

dramatiq.set_broker(RedisBroker(url=mailer.REDIS))


@dramatiq.actor(queue_name="invitations", max_retries=5)  # type: ignore[untyped-decorator] # not installed for checks
def invite(member: int) -> None:
    """A mail."""
    mailer.invite(member)


def enqueue(members: range) -> None:
    """A message for each member."""
    for member in members:
        invite.send(member)
