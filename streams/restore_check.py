"""Whether the ledger is behind its topics of claims and outcomes: then it was restored, and mails nobody."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaException

from config import ledger_topics
from config.settings import Settings
from db.connect import AsyncConnection
from db.restores import ahead_of, restored
from schemas.errors import UnreachableError, first_line


class RestoreCheck:
    """For each connection of a worker that claims: a restore always ends the connections that were there before."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, conn: AsyncConnection) -> None:
        """RestoredError if it was; OSError, which is an outage, while Kafka does not say."""
        try:
            events = await asyncio.to_thread(ledger_topics.newest, self._settings)
        except (KafkaException, UnreachableError) as error:
            raise ConnectionError(f"Kafka: {first_line(error)}") from error
        statement, arguments = ahead_of(events)
        row = await (await conn.execute(statement, arguments)).fetchone()
        if row is not None and row[0]:
            raise restored()
