"""Commands of an operator while real workers deliver: pause, cancel, retry, resolve, cleanup."""

from __future__ import annotations

import pytest

from tests.acceptance.books import FIVE, Books, directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow

MEMBERS = 400


def test_pause_and_resume(bidden: Bidden, books: Books) -> None:
    """FM-28: paused in mid-batch, no more mails go out and none is lost; resumed, each member gets one mail."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    books.slow(0.4)
    bidden.dispatcher()
    worker = bidden.worker(BIDDEN_HANDOVER_WINDOW="20")
    batch = str(bidden.invite()["batch_id"])
    books.wait_mails(50)
    paused = bidden.run("pause", batch, "--json").json
    assert (paused["state"], paused["batch_id"]) == ("paused", int(batch))
    assert sum(paused[name] for name in FIVE) == MEMBERS
    assert bidden.run("pause", batch, "--json").json["state"] == "paused"
    eventually(lambda: books.states()["handing_off"] == 0, "what was in flight is recorded")
    held = books.sink.count()
    assert 50 <= held < MEMBERS
    # A worker that starts meanwhile sends nothing either.
    worker.stop()
    bidden.worker().ready()
    assert books.states() == {"sent": held, "planned": MEMBERS - held}
    assert bidden.run("resume", batch, "--json").json["state"] == "running"
    books.sink.clear_rules()
    books.wait_completed(int(batch))
    books.check()
    assert books.sink.count() == MEMBERS


def test_cancel_in_mid_batch(bidden: Bidden, books: Books) -> None:
    """FM-24: cancelled at once: mails in flight are logged with their outcome, the rest is skipped, then invited."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    books.slow(0.4)
    bidden.dispatcher()
    bidden.worker(BIDDEN_HANDOVER_WINDOW="20")
    batch = str(bidden.invite()["batch_id"])
    books.wait_mails(50)
    cancelled = bidden.run("cancel", batch, "--json").json
    assert cancelled["state"] == "cancelled"
    assert cancelled["pending"] <= 20
    eventually(lambda: books.status(int(batch))["pending"] == 0, "what was in flight is logged")
    status = bidden.status(int(batch))
    assert status["sent"] == books.sink.count() < MEMBERS
    assert status["sent"] + status["skipped"] == MEMBERS
    log = bidden.run("log", batch, "--status", "skipped", "--json").lines
    assert {line["reason"] for line in log} == {"batch_cancelled"}
    audit = bidden.run("audit", "1", "--json", code=1).json
    assert (len(audit["missing"]), audit["skipped"], audit["balanced"]) == (status["skipped"], 0, True)
    assert bidden.run("cancel", batch, "--json").json == status
    for arguments in (["pause", batch], ["resume", batch], ["retry", batch]):
        error = bidden.run(*arguments, "--json", code=2).error
        assert (error["error"], error["field"]) == ("refused", "batch")
        assert "cancelled" in error["detail"]
    books.sink.clear_rules()
    again = bidden.invite("students", "--wait")
    assert again["excluded"] == {"already_sent": status["sent"]}
    books.check()
    assert books.sink.count() == MEMBERS


def test_retry_of_the_failed(bidden: Bidden, books: Books) -> None:
    """FM-10: one command makes what failed due again, and only that is mailed; a second one does nothing."""
    bidden.import_lines(*directory(range(1, 61)))
    books.sink.set_rules([{"do": "refuse_recipient", "recipient": f"m{n}@*"} for n in (5, 15, 25)])
    bidden.dispatcher()
    bidden.worker()
    batch = bidden.invite("students", "--wait", code=1)["batch_id"]
    assert bidden.status(batch)["failed"] == 3
    books.sink.clear_rules()
    assert bidden.run("retry", str(batch), "--json").json == {"retried": 3}
    assert bidden.run("retry", str(batch), "--json").json == {"retried": 0}
    books.wait_completed(batch)
    books.check()
    assert books.sink.count() == 60
    bidden.run("audit", "1", "--json")
    assert bidden.run("retry", str(batch), "--json").json == {"retried": 0}


def test_resolve_after_a_kill(bidden: Bidden, books: Books) -> None:
    """FM-12: a kill leaves some unknown; the accepted are resolved as sent, the others resent: one mail for each."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    books.slow()
    bidden.dispatcher()
    worker = bidden.worker(BIDDEN_HANDOVER_WINDOW="30").ready()
    batch = bidden.invite()["batch_id"]
    books.wait_mails(60)
    worker.kill()
    books.sink.clear_rules()
    bidden.worker()
    books.wait_completed(batch)
    unknown = {key for key, row in books.ledger().items() if row["state"] == "unknown"}
    assert unknown, "nothing was unknown: the test proves nothing"
    assert bidden.run("audit", "1", "--json", code=1).json["unknown"] == len(unknown)
    accepted = sorted(unknown & books.mails().keys())
    for member, _ in accepted:
        done = bidden.run("resolve", "1", "--unknown", "sent", "--member", str(member), "--by", "Ada", "--json").json
        assert done["resolved"] == 1
    again = bidden.run("resolve", "1", "--unknown", "resend", "--json").json
    assert again["resolved"] == len(unknown) - len(accepted)
    assert bidden.run("resolve", "1", "--unknown", "resend", "--json").json["resolved"] == 0
    books.wait_completed(batch)
    mails = books.mails()
    assert len(mails) == MEMBERS
    assert set(mails.values()) == {1}
    log = books.log(batch)
    assert all(log[key]["reason"] == "resolved as sent by Ada" for key in accepted)
    assert bidden.status(batch)["sent"] == MEMBERS
    bidden.run("audit", "1", "--json")


def test_clean_up(bidden: Bidden, books: Books) -> None:
    """FM-26: cleanup removes the log of an old batch; its members are not mailed again, and its messages do no harm."""
    bidden.import_lines(*directory(range(1, 41)))
    worker = bidden.worker()
    batch = bidden.invite("students", "--wait")["batch_id"]
    status = bidden.status(batch)
    assert bidden.run("cleanup", "--json").json["removed"] == 0
    assert bidden.run("cleanup", "--older-than", "0d", "--json").json == {"removed": 80, "batches": 1}
    assert bidden.run("cleanup", "--older-than", "0d", "--json").json["removed"] == 0
    assert bidden.status(batch) == status
    assert bidden.run("log", str(batch), "--json").lines == []
    assert bidden.run("audit", "1", "--json").json["sent"] == 40
    assert bidden.invite("students", "--wait")["excluded"] == {"already_sent": 40}
    worker.stop()
    bidden.run("replay", "--from-beginning", "--json")
    bidden.worker()
    eventually(lambda: "0 messages wait" in lag(bidden), "everything was read again")
    assert bidden.run("dlq", "list", "--json").lines == []
    assert books.sink.count() == 40


def lag(bidden: Bidden) -> str:
    """What `doctor` says about the lag."""
    lines = bidden.run("doctor", "--json").lines
    (detail,) = [line["detail"] for line in lines if line["check"] == "lag"]
    return str(detail)


#: Arguments; error, field, and a part of its detail.
BAD_REQUESTS = [
    ("pause 99", "not_found", "batch", "99"),
    ("resume 99", "not_found", "batch", "99"),
    ("cancel 99", "not_found", "batch", "99"),
    ("retry 99", "not_found", "batch", "99"),
    ("replay --batch 99", "not_found", "batch", "99"),
    ("resolve 99 --unknown sent", "not_found", "event", "99"),
    ("resolve 1 --unknown sent --member 99", "not_found", "member", "99"),
    ("resolve 1", "usage", None, "--unknown"),
    ("resolve 1 --unknown maybe", "usage", None, "maybe"),
    ("cleanup --older-than soon", "usage", "older-than", "180d"),
    ("cleanup --older-than -1d", "usage", "older-than", "180d"),
    ("replay", "usage", None, "--from-beginning"),
    ("replay --batch 1 --from-beginning", "usage", None, "one of"),
    ("replay --since yesterday", "usage", "since", "ISO 8601"),
    ("replay --since 2026-04-09", "usage", "since", "time zone"),
    ("replay --since 2026-04-09T18:30:00", "usage", "since", "time zone"),
    ("replay --since 2096-04-09T18:30:00Z", "refused", "since", "past"),
    ("replay --to-offset 1", "usage", "to-offset", "0:17"),
    ("replay --to-offset 0:1 --to-offset 0:2", "usage", "to-offset", "two offsets"),
    ("replay --to-offset 77:0", "refused", "to-offset", "no partition 77"),
    ("replay --to-offset 0:4711", "refused", "to-offset", "no offset 4711"),
    ("dlq", "usage", None, ""),
    ("dlq show 0:4711", "not_found", "letter", "0:4711"),
    ("dlq show 7:0", "not_found", "letter", "7:0"),
    ("dlq show x", "usage", "letter", "0:17"),
    ("dlq redrive", "usage", None, "--all"),
    ("dlq redrive 0:4711", "not_found", "letter", "0:4711"),
]


def test_bad_requests(bidden: Bidden, books: Books) -> None:
    """FM-32: exit 2, the error on stderr, nothing on stdout, and nothing is done."""
    bidden.import_lines(*directory(range(1, 4)))
    for arguments, error, field, detail in BAD_REQUESTS:
        result = bidden.run(*arguments.split(), "--json", code=2)
        assert result.out == "", arguments
        if arguments == "dlq":
            continue  # prints its help
        assert result.error["error"] == error, (arguments, result.error)
        assert detail in result.error["detail"], (arguments, result.error)
        assert result.error["field"] == field, (arguments, result.error)
    assert books.ledger() == {}


def test_a_database_without_tables(bidden: Bidden, books: Books) -> None:
    """FM-32: before `migrate`, or after a table was dropped, commands say what to do, without a traceback."""
    books.conn.execute("ALTER TABLE batches RENAME TO something_else")
    for arguments in ("batches", "pause 1", "cleanup"):
        result = bidden.run(*arguments.split(), "--json", code=3)
        assert "bidden migrate" in result.error["detail"]
        assert "Traceback" not in result.err
    books.conn.execute("ALTER TABLE something_else RENAME TO batches")
