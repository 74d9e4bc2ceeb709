"""Verifies a run: mails at the sink, ledger, logs and audits of every event are compared.

Nothing is asserted: each error is a finding in the report, so that one does not hide the next.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from db import reports
from db.connect import Connection, connect
from embedded.mail_server import MailServer
from producers import batch_control
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.vocabulary import Audience
from tests.acceptance.books import Books, Key
from tests.chaos.environment import Environment
from tests.chaos.sampling import take_snapshot

_SETTLE_SECONDS: Final = 120.0
_DOCTOR_SECONDS: Final = 30.0
#: Further findings are only counted.
_SHOWN: Final = 20
#: So many audits run as a command; the others call the same function, without a process for each.
_BY_COMMAND: Final = 3


class AllEvents(Books):
    """The same for many events: the sink's file is read once."""

    def __init__(self, conn: Connection, sink: MailServer) -> None:
        super().__init__(conn, sink)
        self._mails: dict[int, Counter[Key]] = defaultdict(Counter)
        self.total = 0
        for text in sink.delivery_keys():
            event, _, member, slot = text.split("/")
            self._mails[int(event)][int(member), slot] += 1
            self.total += 1

    def mails(self, event: int = 1) -> Counter[Key]:
        """How often each delivery's mail was accepted."""
        return self._mails[event]

    def events(self) -> list[int]:
        """Events that have batches or mails."""
        rows = self.conn.execute("SELECT DISTINCT event_id FROM batches").fetchall()
        return sorted({row["event_id"] for row in rows} | {event for event, mails in self._mails.items() if mails})


class Verification:
    """Checks a settled environment; then resolves what is unknown by the mails at the server, and checks it again."""

    def __init__(self, environment: Environment, write: Callable[[str], object]) -> None:
        self._environment = environment
        self._report = environment.report
        self._write = write
        self._hidden = 0
        #: Event and member of whose two unknown deliveries one was accepted: `resolve` only takes both.
        self._mixed: set[tuple[int, int]] = set()

    def check(self) -> None:
        """Run all checks."""
        with connect(
            self._environment.settings.require_database(), application="chaos-verification", autocommit=True
        ) as conn:
            books = AllEvents(conn, self._environment.stack.mail)
            self._first(books)
            self._doctor()
            self._resolve(books)
            self._second(AllEvents(conn, self._environment.stack.mail))
        if self._hidden:
            self._report.findings.append(f"{self._hidden} more")

    def _find(self, what: str) -> None:
        if len(self._report.findings) < _SHOWN:
            self._report.findings.append(what)
        else:
            self._hidden += 1

    # Before anything unknown is resolved.

    def _first(self, books: AllEvents) -> None:
        report = self._report
        events = books.events()
        report.events, report.mails = len(events), books.total
        by_event = defaultdict(list)
        for batch in reports.batches(books.conn):
            by_event[batch["event_id"]].append(batch)
            report.batches[batch["state"]] += 1
            if batch["pending"]:
                self._find(f"batch {batch['batch_id']} is {batch['state']} with {batch['pending']} pending")
        for event in events:
            ledger = books.ledger(event)
            for what in wrong(books.mails(event), ledger):
                self._find(f"event {event}: {what}")
            report.deliveries.update(row["state"] for row in ledger.values())
            report.twice += sum(count - 1 for count in books.mails(event).values())
            report.lost += len(lost(books.mails(event), ledger))
            report.unknown_with_mail += sum(
                row["state"] == "unknown" and books.mails(event)[key] > 0 for key, row in ledger.items()
            )
            cancelled = any(batch["state"] == "cancelled" for batch in by_event[event])
            self._audit(books, event, may_be_missing=cancelled)
            for batch in by_event[event]:
                try:
                    books._check_batch(batch, ledger)  # as the acceptance tests do
                except (AssertionError, KeyError) as error:
                    self._find(f"event {event}, batch {batch['batch_id']}: {error!s:.600}")
        if report.twice:
            self._find(f"{report.twice} mails were accepted twice")
        if report.lost:
            self._find(f"{report.lost} deliveries are lost")
        if report.deliveries["unknown"] > report.bound:
            self._find(f"{report.deliveries['unknown']} unknown, {report.bound} were in flight at the faults")
        self._unnamed(books.conn)
        self._write(f"{report.mails} mails, {dict(report.deliveries)}")

    def _audit(self, books: AllEvents, event: int, *, may_be_missing: bool) -> None:
        audit = books.audit(event)
        if not audit["balanced"] or audit["pending"] or (audit["missing"] and not may_be_missing):
            self._find(f"audit of event {event}: {audit!s:.800}")
        if may_be_missing:
            return
        counts = {name: audit[name] for name in ("sent", "failed", "unknown")}
        states = books.states(event)
        if counts != {name: states[name] for name in counts}:
            self._find(f"audit of event {event} says {counts}, the ledger {dict(states)}")

    def _unnamed(self, conn: Connection) -> None:
        """Each unknown or failed delivery is in a log, with a reason."""
        rows = conn.execute(
            "SELECT d.event_id, d.member_id, d.slot, d.state FROM deliveries d WHERE d.state IN ('unknown', 'failed')"
            " AND NOT EXISTS (SELECT FROM batches b JOIN log_entries l ON l.batch_id = b.id"
            " WHERE b.event_id = d.event_id AND l.member_id = d.member_id AND l.slot = d.slot"
            " AND l.status = d.state AND l.reason <> '')"
        ).fetchall()
        for row in rows:
            self._find(f"in no log: {row}")

    def _doctor(self) -> None:
        """Repeated: a worker that has just been started is not in the group yet."""
        end = time.monotonic() + _DOCTOR_SECONDS
        while (result := self._environment.run_command("doctor", "--json")).code:
            if time.monotonic() > end:
                self._find(f"doctor: {[line for line in result.lines if not line['ok']]} {result.err[-600:]}")
                return
            time.sleep(1)

    # Then each is resolved.

    def _resolve(self, books: AllEvents) -> None:
        """What was accepted: sent. Every second of the others: resent. The rest: failed, and invited again."""
        conn, number = books.conn, 0
        in_doubt: dict[tuple[int, int], list[Key]] = defaultdict(list)
        for row in conn.execute(
            "SELECT event_id, member_id, slot FROM deliveries WHERE state = 'unknown' ORDER BY 1, 2"
        ):
            in_doubt[row["event_id"], row["member_id"]].append((row["member_id"], row["slot"]))
        for (event, member), keys in in_doubt.items():
            accepted = [books.mails(event)[key] > 0 for key in keys]
            if any(accepted):
                verdict = batch_control.Verdict.SENT
                if not all(accepted):
                    self._mixed.add((event, member))
            else:
                number += 1
                verdict = batch_control.Verdict.RESEND if number % 2 else batch_control.Verdict.FAILED
            done = batch_control.resolve(conn, event, verdict, member_id=member, by="chaos", resend_below=0)
            self._report.resolved[verdict.value] += done.resolved
        self._wait(conn)
        # Who has failed, was cancelled or is missing is invited once more.
        publisher = BatchPublisher(self._environment.settings, lambda: datetime.now(UTC))
        for event in books.events():
            audit = books.audit(event)
            if audit["failed"] or audit["missing"] or audit["skipped"]:
                planned = plan(conn, event_id=event, audience=Audience.EVERYONE, initiator="chaos")
                assert planned.batch_id is not None
                publisher.publish(conn, planned.batch_id)
        self._wait(conn)

    def _wait(self, conn: Connection) -> None:
        end = time.monotonic() + _SETTLE_SECONDS
        while pending := take_snapshot(conn).pending:
            if time.monotonic() > end:
                self._find(f"after resolving {pending} items stay pending")
                return
            self._environment.tick()
            time.sleep(0.1)

    def _second(self, books: AllEvents) -> None:
        report = self._report
        report.mails_after_resolving = books.total
        for event in books.events():
            ledger = books.ledger(event)
            for key, count in books.mails(event).items():
                if count > 1:
                    self._find(f"event {event}: {key} has {count} mails after resolving")
            for key in lost(books.mails(event), ledger):
                if (event, key[0]) not in self._mixed:
                    self._find(f"event {event}: {key} is sent and has no mail after resolving")
            audit = books.audit(event)
            if not clean(audit):
                self._find(f"audit of event {event} after resolving: {audit!s:.800}")
        for event in books.events()[:_BY_COMMAND]:
            result = self._environment.run_command("audit", str(event), "--json")
            if result.code:
                self._find(f"`bidden audit {event}` after resolving: {result}")


def clean(audit: Mapping[str, Any]) -> bool:
    """Whether `bidden audit` exits 0."""
    return bool(audit["balanced"]) and not any(audit[n] for n in ("failed", "unknown", "pending", "missing"))


def lost(mails: Counter[Key], ledger: Mapping[Key, Mapping[str, Any]]) -> list[Key]:
    """Deliveries that are `sent` without a mail, or not in a terminal state."""
    return [
        key
        for key, row in ledger.items()
        if (row["state"] == "sent" and not mails[key]) or row["state"] in {"planned", "retry", "handing_off"}
    ]


def wrong(mails: Counter[Key], ledger: Mapping[Key, Mapping[str, Any]]) -> Iterator[str]:
    """Where the sink and the ledger of an event disagree."""
    for key, count in mails.items():
        if key not in ledger:
            yield f"{key} has a mail, and no row in the ledger"
        elif count > 1:
            yield f"{key} has {count} mails: {dict(ledger[key])}"
        elif ledger[key]["state"] not in {"sent", "unknown"}:
            yield f"{key} has a mail: {dict(ledger[key])}"
    for key in lost(mails, ledger):
        yield f"{key} is lost: {dict(ledger[key])}"
