"""`bidden reconcile`: a ledger that was restored from a backup learns from Kafka whom workers have mailed since."""

from __future__ import annotations

from dataclasses import dataclass

from config import ledger_topics
from config.settings import Settings
from db.connect import Connection
from db.restores import Reconciliation, sessions_of_workers
from schemas.errors import RefusedError
from schemas.keys import DeliveryKey


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many deliveries became `sent`, how many `unknown`, and how many others have claims or outcomes in Kafka."""

    sent: int
    unknown: int
    unchanged: int


def reconcile(conn: Connection, settings: Settings) -> Reconciled:
    """Learn what the topics of claims and outcomes hold. Safe to repeat. RefusedError while workers use the database.

    One that starts meanwhile finds that the database was restored, and ends.
    """
    workers = sessions_of_workers(conn)
    if workers:
        raise RefusedError(f"workers use the database ({workers} sessions): stop them first, then reconcile")
    deliveries = 0
    with conn.transaction():
        learning = Reconciliation(conn)
        claimed: set[DeliveryKey] = set()
        for events in ledger_topics.claims(settings):
            claimed.update(learning.keep(events))
        for partition in ledger_topics.outcomes(settings):
            found: set[int] = set()
            for events in partition:
                learning.keep(events)
                keys = [DeliveryKey(*event[:4]) for event in events]
                found.update(map(hash, keys))
                claimed.difference_update(keys)
            deliveries += len(found)
        learned = learning.learn(resend_below=settings.resend_below, retry_base=settings.retry_base_seconds)
    return Reconciled(learned.sent, learned.unknown, deliveries + len(claimed) - learned.sent - learned.unknown)
