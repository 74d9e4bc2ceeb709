"""An operator who resolves unknown deliveries by the mail server's log, and retries what failed, while faults go on."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import psycopg

from producers import batch_control
from producers.batch_control import Verdict
from schemas.errors import BiddenError
from tests.chaos.environment import Environment
from tests.chaos.verification import AllEvents

#: So long after a fault of the mail server its log may still gain mails whose end had left their worker.
_MAIL_SERVER_SECONDS: Final = 15.0
#: Of deliveries whose claim ended; others are unknown because of the mail server, and stay so until the end.
_CLAIM_ENDED: Final = "its worker stopped while sending"


def resolve_unknown(environment: Environment) -> None:
    """Does what the how-to says. An outage, or a doubt about the mail server's log, leaves them unknown."""
    environment.resolving = False
    conn = environment.connection()
    if conn is None or not environment.mail_log_is_complete(_MAIL_SERVER_SECONDS):
        return
    with suppress(psycopg.OperationalError, psycopg.InterfaceError, BiddenError):
        rows = conn.execute(
            "SELECT event_id, member_id, array_agg(slot) AS slots FROM deliveries"
            " WHERE state = 'unknown' AND reason = %s GROUP BY 1, 2 ORDER BY 1, 2",
            [_CLAIM_ENDED],
        ).fetchall()
        books = AllEvents(conn, environment.stack.mail)
        failed = set()
        for row in rows:
            accepted = [books.mails(row["event_id"])[row["member_id"], slot] > 0 for slot in row["slots"]]
            if any(accepted) != all(accepted):
                continue  # `resolve` takes both slots of a member
            verdict = Verdict.SENT if all(accepted) else Verdict.FAILED
            done = batch_control.resolve(
                conn, row["event_id"], verdict, member_id=row["member_id"], by="operator", resend_below=0
            )
            environment.report.resolved[f"{verdict.value} while a worker was stopped"] += done.resolved
            if verdict is Verdict.FAILED:
                failed.add(row["event_id"])
        for event in sorted(failed):
            for batch in conn.execute("SELECT id FROM batches WHERE event_id = %s ORDER BY id", [event]).fetchall():
                with suppress(BiddenError):  # cancelled meanwhile
                    batch_control.retry(conn, batch["id"])
