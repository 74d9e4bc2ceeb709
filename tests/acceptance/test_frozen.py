"""A worker frozen past its leases, and thawed after people have decided about what it had claimed."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from db.connect import Connection
from producers import batch_control
from producers.batch_control import Verdict
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually

pytestmark = pytest.mark.slow

MEMBERS = 400


def resolve_by_the_servers_log(conn: Connection, books: Books) -> Counter[Verdict]:
    """What an operator does about unknown deliveries: says the truth of each, as the mail server knows it."""
    arrived, said = books.mails(), Counter[Verdict]()
    for (member, slot), row in books.ledger().items():
        if row["state"] == "unknown":
            verdict = Verdict.SENT if arrived[member, slot] else Verdict.FAILED
            batch_control.resolve(conn, 1, verdict, member_id=member, by="a test", resend_below=0)
            said[verdict] += 1
    return said


def frozen_with_claims(worker: Process, books: Books) -> bool:
    """Stops it; and lets it go on if the mail server has all that it had claimed."""
    worker.signal(signal.SIGSTOP)
    arrived = books.mails()
    claimed = {key for key, row in books.ledger().items() if row["state"] == "handing_off"}
    # What it had written before may still arrive: until two looks see the same.
    while (later := books.mails()) != arrived:
        arrived = later
    if claimed - arrived.keys():
        return True
    worker.signal(signal.SIGCONT)
    return False


def assignments(worker: Process) -> int:
    """How often the group has given it partitions."""
    return sum(bool(entry["partitions"]) for entry in worker.logged("partitions assigned"))


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_nothing_is_mailed_twice_after_a_freeze(bidden: Bidden, books: Books, conn: Connection, runner: str) -> None:
    """FM-35: frozen past its lease, resolved by the mail server's log, retried, thawed: nobody gets a second mail."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1), range(1, 21)))
    lease = {"BIDDEN_LEASE_SECONDS": "3"}
    books.slow(0.1)
    bidden.dispatcher()
    frozen = bidden.worker(runner, **lease).ready()
    batch = bidden.invite()["batch_id"]
    books.wait_mails(20)
    eventually(lambda: frozen_with_claims(frozen, books), "frozen while claimed mails wait")
    other = bidden.worker(runner, **lease)
    books.sink.clear_rules()
    books.wait_completed(batch)
    said = resolve_by_the_servers_log(conn, books)
    assert said[Verdict.FAILED] > 0, "no claimed mail waited: the test proves nothing"
    assert batch_control.retry(conn, batch) == said[Verdict.FAILED]
    books.wait_completed(batch)
    assert books.states() == {"sent": MEMBERS}
    before = assignments(frozen)
    frozen.signal(signal.SIGCONT)
    # It takes part again, alone, and sends what is new: what it had claimed before the freeze is behind it.
    eventually(lambda: assignments(frozen) > before, "the thawed worker is a member of the group again")
    other.stop()
    books.wait_completed(bidden.invite("coaches")["batch_id"])
    assert not [key for key, count in books.mails().items() if count > 1], "mailed twice"
    assert books.mails().keys() == books.ledger().keys()
    assert books.states() == {"sent": MEMBERS + 20}
    frozen.stop()
