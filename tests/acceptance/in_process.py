"""What `bidden import` and `bidden invite` do, without a process of its own: one takes longer to start than to act."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from config.clock import now
from config.settings import Settings
from db import directory
from db.connect import connect
from monitoring.sending import permitted
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.directory_file import parse_lines
from schemas.vocabulary import Audience


def import_lines(settings: Settings, lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Import these lines; returns the counts."""
    with connect(settings.require_database(), application="test") as conn:
        texts = (orjson.dumps(line) + b"\n" for line in lines)
        return dict(directory.import_lines(conn, parse_lines(texts), role_policy=settings.role_policy))


def invite(settings: Settings, audience: Audience, event: int) -> dict[str, Any]:
    """Plan a batch and publish its first items; returns the command's JSON."""
    publisher = BatchPublisher(settings, now, permitted=permitted(settings.send_rates, time.monotonic))
    with connect(settings.require_database(), application="test", autocommit=True) as conn:
        planned = plan(conn, event_id=event, audience=audience, policy=settings.unknown_policy)
        if planned.batch_id is not None:
            publisher.publish(conn, planned.batch_id)
    return planned.as_dict()
