"""Rows that the code never writes: real processes start with them, go on, and name them."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.conformance.test_runner_poison import letters

pytestmark = pytest.mark.slow

#: What earlier versions, or manual SQL, could leave in batch 1. Members 1 to 4 are valid.
IMPOSSIBLE: list[LiteralString] = [
    "INSERT INTO batch_items (batch_id, member_id, roles, publish_at) VALUES (1, 999, '{Student}', now())",
    "UPDATE batch_items SET roles = '{Guest}' WHERE batch_id = 1 AND member_id = 5",
    "DELETE FROM deliveries WHERE event_id = 1 AND member_id = 6",
    "UPDATE batch_items SET settled_at = now(), publish_at = NULL WHERE batch_id = 1 AND member_id = 7",
    "UPDATE deliveries SET (state, owner, batch_id, lease_until)"  # noqa: ISC004 - one statement
    " = ('handing_off', 'x', 77, now() + interval '1 year') WHERE event_id = 1 AND member_id = 8",
    "UPDATE deliveries SET state = 'retry', not_before = 'infinity' WHERE event_id = 1 AND member_id = 9",
    "UPDATE deliveries SET slot = 'member' WHERE event_id = 1 AND member_id = 10",
    "INSERT INTO log_entries VALUES (77, 1, 'Guest', 'Guest', 'sent', NULL, 1, now())",
    "INSERT INTO log_entries VALUES (1, 2, 'Student', 'Student', 'sent', NULL, 1, now())",
    "INSERT INTO log_entries VALUES (1, 3, 'Student', 'Student', 'failed', NULL, 1, now())",
]

NAMED = {
    "planned without item": "1/invite/7/Student",
    "items set aside": "1/5, 1/6, 1/10, 1/999",
    "times far ahead": "1/invite/8/Student, 1/invite/9/Student",
    "entries without item": "77/1",
    "settled without entry": "1/7",
    "claims without batch": "1/invite/8/Student",
    "slots of other policy": "1/invite/10/member",
}

COMMANDS = [
    "status 1", "batches", "log 1", "log 1 --excluded", "why 1 8", "audit 1", "doctor", "dlq list", "replay --batch 1",
    "retry 1", "pause 1", "resume 1", "resolve 1 --unknown failed", "cleanup", "invite 1 --audience students --dry-run",
    "import -", "migrate",
]  # fmt: skip


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_everything_starts_with_impossible_rows(bidden: Bidden, books: Books, runner: str) -> None:
    """FM-18: workers and commands start whatever the tables hold; valid items are mailed, others named."""
    bidden.import_lines(*directory(range(1, 11), events=2))
    assert bidden.invite()["batch_id"] == 1
    for statement in IMPOSSIBLE:
        books.conn.execute(statement)
    bidden.dispatcher()
    worker = bidden.worker(runner)
    after = bidden.invite("students", event=2)["batch_id"]
    books.wait_completed(after)
    books.check(event=2)
    eventually(lambda: len(books.mails()) == 4, "the valid items of the batch are mailed")
    assert books.mails() == {(number, "Student"): 1 for number in (1, 2, 3, 4)}
    # The two messages that can never be processed are published once.
    assert len(letters(bidden.settings, 2)) == 2  # type: ignore[arg-type] # they are there
    eventually(lambda: not overdue(books), "nothing is due any more")
    for arguments in COMMANDS if runner == "confluent" else ():
        done = bidden.start(*arguments.split(), "--json").result()
        assert done.code in (0, 1), (arguments, done)
        assert "Traceback" not in done.err
    findings = {line["check"]: line for line in bidden.run("doctor", "--json", code=1).lines}
    for check, names in NAMED.items():
        assert not findings[check]["ok"], findings
        assert findings[check]["detail"].endswith(names), findings[check]
    assert worker.running
    bidden.run("cancel", "1", "--json")
    # Only the lease that ends next year keeps it open.
    assert bidden.status(1)["pending"] in (0, 1)
    worker.stop()


def overdue(books: Books) -> bool:
    """Whether anything that is due has not been published."""
    row = books.conn.execute("SELECT count(*) AS n FROM batch_items WHERE publish_at < now()").fetchone()
    assert row is not None
    return bool(row["n"])
