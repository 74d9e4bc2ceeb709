"""The outcome of mails that the mail server refuses for good or for now, drops, or does not answer."""

from __future__ import annotations

import pytest

from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually

pytestmark = pytest.mark.slow


def only(books: Books, number: int, others: int = 1) -> dict[int, int]:
    """Attempts by member, where they are not `others`: at most `number` of them."""
    found = {member: attempts for (member, _), attempts in books.attempts().items() if attempts != others}
    assert len(found) <= number, found
    return found


def test_a_temporary_refusal_is_retried(bidden: Bidden, books: Books) -> None:
    """FM-05, FM-10, FM-23: a 4xx delays that recipient alone, and is retried; a failure can become a success."""
    bidden.import_lines(*directory(range(1, 101)))
    later = "451 4.7.1 Try later"
    books.sink.set_rules(
        [
            {"do": "refuse_recipient", "recipient": "m50@*", "reply": later, "times": 2},
            {"do": "refuse_mail", "recipient": "m51@*", "reply": "452 4.2.2 Mailbox full", "times": 1},
            {"do": "refuse_recipient", "recipient": "m52@*", "reply": later},
        ]
    )
    bidden.dispatcher()
    bidden.worker(BIDDEN_MAX_ATTEMPTS="4")
    batch = bidden.invite("students", "--wait", code=1)["batch_id"]
    assert only(books, 3) == {50: 3, 51: 2, 52: 4}
    books.check(failed=1)
    (failed,) = bidden.run("log", str(batch), "--status", "failed", "--json").lines
    assert (failed["member_id"], failed["attempts"]) == (52, 4)
    assert later in failed["reason"]
    assert bidden.status(batch)["sent"] == 99
    # A new batch retries what failed (FM-05), and mails no other member.
    books.sink.clear_rules()
    again = bidden.invite("students", "--wait")
    assert (again["planned"], again["excluded"]) == (1, {"already_sent": 99})
    assert bidden.run("log", str(again["batch_id"]), "--json").lines[0]["status"] == "sent"
    assert books.sink.count() == 100
    bidden.run("audit", "1", "--json")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"do": "refuse_recipient", "reply": "421 4.7.0 [TSS04] Messages temporarily deferred"}, "TSS04"),
        ({"do": "drop_before_data"}, "lost"),
    ],
)
def test_who_ends_each_dialogue_ends_by_time(bidden: Bidden, books: Books, rule: dict[str, str], reason: str) -> None:
    """FM-37: one recipient for whom the server always closes: the others are sent at once, the batch completes.

    No circuit breaker opens for them; they are tried until BIDDEN_RETRY_FOR is over, and have failed then.
    """
    bidden.import_lines(*directory(range(1, 61)))
    books.sink.set_rules([{**rule, "recipient": "m30@*"}])
    bidden.dispatcher()
    worker = bidden.worker(BIDDEN_RETRY_FOR="12s", BIDDEN_RETRY_BASE_SECONDS="1")
    batch = bidden.invite("students")["batch_id"]
    books.wait_mails(59)
    # All but one were sent while that one still waits for its next try.
    assert not books.completed(batch)
    books.wait_completed(batch)
    books.check(failed=1)
    (failed,) = bidden.run("log", str(batch), "--status", "failed", "--json").lines
    assert failed["member_id"] == 30
    assert 2 <= failed["attempts"] <= 12
    assert failed["reason"].startswith(f"refused {failed['attempts']} times in ")
    assert reason in failed["reason"]
    assert only(books, 1) == {30: failed["attempts"]}
    assert not worker.logged("the mail server takes no mails; claiming waits until it does")


def test_an_answer_that_never_came_is_unknown(bidden: Bidden, books: Books) -> None:
    """FM-12, FM-22: accepted without a reply: unknown with its reason, held, and not sent again by a replay."""
    bidden.import_lines(*directory(range(1, 41)))
    books.sink.set_rules([{"do": "drop_after_store", "recipient": f"m{n}@*"} for n in (7, 8)])
    worker = bidden.worker()
    batch = bidden.invite("students", "--wait", code=1)["batch_id"]
    status = bidden.status(batch)
    assert (status["state"], status["sent"], status["unknown"], status["pending"]) == ("completed", 38, 2, 0)
    unknown = bidden.run("log", str(batch), "--status", "unknown", "--json").lines
    assert [line["member_id"] for line in sorted(unknown, key=lambda line: line["member_id"])] == [7, 8]
    assert all(line["reason"] for line in unknown)
    audit = bidden.run("audit", "1", "--json", code=1).json
    assert (audit["unknown"], audit["sent"], audit["balanced"], audit["missing"]) == (2, 38, True, [])
    assert bidden.run("why", "1", "7", "--json").json["deliveries"][0]["status"] == "unknown"
    books.sink.clear_rules()
    again = bidden.invite("students", "--wait")
    assert (again["planned"], again["excluded"]) == (0, {"already_sent": 38, "unknown": 2})
    worker.stop()
    assert bidden.settings is not None
    fresh = bidden.settings.model_copy(update={"group": bidden.settings.group + "-again"})
    topics = Topics(fresh)
    bidden.worker(BIDDEN_GROUP=fresh.group)
    partitions = topics.partitions()
    latest = {p: offset for p, offset in topics.latest(partitions).items() if offset}
    eventually(lambda: topics.committed(partitions) == latest, "the whole topic was read again")
    assert books.sink.count() == 40
    books.check(unknown=2)


def test_an_outage_uses_up_no_attempts(bidden: Bidden, books: Books) -> None:
    """FM-11, FM-30: the mail server answers 421 and refuses connections for a while: all need one attempt."""
    bidden.import_lines(*directory(range(1, 401)))
    books.slow(0.1)
    bidden.dispatcher()
    worker = bidden.worker()
    batch = bidden.invite()["batch_id"]
    books.wait_mails(50)
    books.sink.set_rules([{"do": "refuse_recipient", "reply": "421 4.3.2 Going down"}, {"do": "refuse_connection"}])
    eventually(lambda: bool(worker.logged("waiting for the mail server")), "the worker noticed")
    assert not books.completed(batch)
    assert books.states().keys() <= {"sent", "planned", "retry", "handing_off"}
    books.sink.clear_rules()
    books.wait_completed(batch)
    books.check()
    assert only(books, 0) == {}
    assert books.sink.count() == 400


def test_the_mail_server_restarts_in_mid_batch(bidden: Bidden, books: Books) -> None:
    """FM-30: after a crash and a restart of the mail server the worker goes on by itself.

    At most what was in mid-dialogue is unknown: one mail per connection.
    """
    bidden.import_lines(*directory(range(1, 401)))
    books.slow(0.1)
    bidden.dispatcher()
    worker = bidden.worker(BIDDEN_SMTP_CONNECTIONS="10")
    batch = bidden.invite()["batch_id"]
    books.wait_mails(50)
    books.sink.kill()
    eventually(lambda: bool(worker.logged("waiting for the mail server")), "the worker noticed")
    assert worker.running
    books.sink.clear_rules()
    books.sink.start()
    books.wait_completed(batch)
    books.check(unknown=10)
    assert only(books, 0) == {}
