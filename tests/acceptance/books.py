"""Compares the mails at the sink with the ledger, and both with logs, reports and the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from db import reports
from db.connect import Connection
from embedded.mail_server import MailServer
from schemas.vocabulary import Audience
from tests.acceptance.processes import eventually
from tests.integration.importing import CHAPTER, COACHES, EVENT, STUDENTS, member, subscription

FIVE = ("sent", "failed", "unknown", "skipped", "pending")
Key = tuple[int, str]


def directory(
    students: range = range(0), coaches: range = range(0), *, events: int = 1, **event: Any
) -> Iterator[dict[str, Any]]:
    """A chapter whose members have all accepted the terms. Members in both ranges are on both lists."""
    yield from (CHAPTER, STUDENTS, COACHES)
    for number in range(1, events + 1):
        yield EVENT | {"id": number} | event
    for number in sorted({*students, *coaches}):
        yield member(number, accepted_toc_at="2020-01-01T00:00:00Z")
    yield from (subscription(number, 1) for number in students)
    yield from (subscription(number, 2) for number in coaches)


class Books:
    """Reads mails, ledger, logs and reports of a test, waits for them, and checks that they agree."""

    def __init__(self, conn: Connection, sink: MailServer) -> None:
        self.conn = conn
        self.sink = sink

    def mails(self, event: int = 1) -> Counter[Key]:
        """How often each delivery's mail was accepted."""
        keys = [key.split("/") for key in self.sink.delivery_keys()]
        assert all(len(key) == 4 for key in keys), "a mail without a delivery key"
        return Counter((int(member), slot) for about, _, member, slot in keys if int(about) == event)

    def ledger(self, event: int = 1) -> dict[Key, dict[str, Any]]:
        """The ledger's rows."""
        rows = self.conn.execute("SELECT * FROM deliveries WHERE event_id = %s", [event])
        return {(row["member_id"], row["slot"]): row for row in rows}

    def states(self, event: int = 1) -> Counter[str]:
        """How many deliveries are in each state."""
        return Counter(row["state"] for row in self.ledger(event).values())

    def attempts(self, event: int = 1) -> dict[Key, int]:
        """How many attempts each delivery has used."""
        return {key: row["attempts"] for key, row in self.ledger(event).items()}

    def log(self, batch: int) -> dict[tuple[int, str], dict[str, Any]]:
        """The batch's log by member and role."""
        return {(row["member_id"], row["role"]): row for row in reports.log(self.conn, batch)}

    def status(self, batch: int) -> dict[str, Any]:
        """The batch in numbers."""
        return reports.status(self.conn, batch)

    def audit(self, event: int = 1, audience: str = "everyone") -> dict[str, Any]:
        """The audit of the event."""
        with self.conn.transaction():
            return reports.audit(self.conn, event, Audience(audience))

    def completed(self, batch: int) -> bool:
        """Whether nothing of the batch is pending."""
        return bool(self.status(batch)["state"] == "completed")

    def wait_completed(self, *batches: int) -> None:
        """Wait until nothing of the batches is pending."""
        for batch in batches:
            eventually(lambda batch=batch: self.completed(batch), f"batch {batch} completed")  # type: ignore[misc]

    def wait_mails(self, count: int) -> None:
        """Wait until at least so many mails were accepted."""
        eventually(lambda: self.sink.count() >= count, f"{count} mails at the sink")

    def slow(self, seconds: float = 0.1) -> None:
        """Make each mail take this long, on each of a worker's connections."""
        self.sink.set_rules([{"do": "delay", "seconds": seconds}])

    def end_claims(self) -> None:
        """Expire all publish claims, so that what a killed process claimed is due."""
        self.conn.execute("UPDATE batch_items SET publish_at = now() WHERE publish_at IS NOT NULL")

    def check(self, event: int = 1, *, unknown: int = 0, failed: int = 0) -> None:
        """All agree, no delivery is missing, at most `unknown` are unknown and exactly `failed` have failed."""
        mails, ledger = self.mails(event), self.ledger(event)
        assert not [key for key, count in mails.items() if count > 1], "mailed twice"
        assert mails.keys() <= ledger.keys(), "mailed without a row in the ledger"
        for key, row in ledger.items():
            if row["state"] == "sent":
                # What another system sent has neither batch nor mail here.
                assert mails[key] == (row["batch_id"] is not None), (key, row)
            elif row["state"] != "unknown":
                assert mails[key] == 0, (key, row)
        states = self.states(event)
        assert states["unknown"] <= unknown, states
        assert states["failed"] == failed, states
        audit = self.audit(event)
        assert audit["balanced"], audit
        assert (audit["missing"], audit["pending"]) == ([], 0), audit
        assert (audit["sent"], audit["unknown"]) == (states["sent"], states["unknown"]), audit
        for batch in reports.batches(self.conn):
            if batch["event_id"] == event:
                self._check_batch(batch, ledger)

    def _check_batch(self, status: Mapping[str, Any], ledger: Mapping[Key, Mapping[str, Any]]) -> None:
        log = self.log(status["batch_id"])
        assert sum(status[name] for name in FIVE) == status["deliveries"] == len(log), status
        assert Counter(row["status"] for row in log.values()) == Counter({n: status[n] for n in FIVE if status[n]})
        for (member_id, role), row in log.items():
            delivery = ledger.get((member_id, role)) or ledger[member_id, "member"]
            if row["status"] == "sent":
                assert (delivery["state"], delivery["batch_id"]) == ("sent", status["batch_id"]), (row, delivery)
                assert row["attempts"] == delivery["attempts"] >= 1, (row, delivery)
                # An operator who resolved it has no reply.
                assert (row["reply"] or delivery["reason"]).startswith(("250", "resolved as sent")), (row, delivery)
            elif row["status"] != "pending":
                assert row["reason"], row
            if row["status"] not in ("pending", "skipped"):
                assert None not in (row["at"], row["partition"], row["offset"]), row
