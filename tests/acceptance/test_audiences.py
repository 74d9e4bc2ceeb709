"""Several batches for one event: overlapping audiences, repeated triggers, members mailed before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.integration.importing import invitation

pytestmark = pytest.mark.slow

#: 60 only students, 40 in both roles, 30 only coaches.
STUDENTS, COACHES = range(1, 101), range(61, 131)
BOTH = len(STUDENTS) + len(COACHES)


def test_students_then_everyone_then_students_again(bidden: Bidden, books: Books) -> None:
    """FM-03, FM-06: the next batch excludes what one has sent, with the reason; none is made when nobody is left."""
    bidden.import_lines(*directory(STUDENTS, COACHES))
    bidden.worker()
    students = bidden.invite("students", "--wait")
    assert (students["planned"], students["deliveries"], students["excluded"]) == (100, 100, {})
    everyone = bidden.invite("everyone", "--wait")
    assert (everyone["planned"], everyone["deliveries"]) == (70, 70)
    assert everyone["excluded"] == {"already_sent": 60}
    again = bidden.invite("students", "--wait")
    assert (again["batch_id"], again["planned"], again["excluded"]) == (None, 0, {"already_sent": 100})
    assert [s["state"] for s in bidden.run("batches", "--json").lines] == ["completed"] * 2
    assert [s["sent"] for s in bidden.run("batches", "--json").lines] == [100, 70]
    assert books.sink.count() == BOTH
    books.check()
    assert bidden.run("audit", "1", "--json").json["sent"] == BOTH


def test_students_and_everyone_at_once(bidden: Bidden, books: Books) -> None:
    """FM-16: overlapping batches and two workers on the same members: each role's mail is sent once, by one batch."""
    bidden.import_lines(*directory(STUDENTS, COACHES))
    bidden.dispatcher()
    triggers = [
        bidden.start("invite", "1", "--audience", audience, "--wait", "--json")
        for audience in ("students", "everyone", "coaches")
    ]
    # No worker runs before all are planned, or the last batch might find all settled.
    eventually(lambda: len(bidden.run("batches", "--json").lines) == 3, "three batches are planned")
    workers = [bidden.worker(), bidden.worker()]
    results = [trigger.result() for trigger in triggers]
    assert [result.code for result in results] == [0, 0, 0]
    batches = [result.json["batch_id"] for result in results]
    assert books.sink.count() == BOTH
    books.check()
    shared = 0
    for batch in batches:
        status = bidden.status(batch)
        assert (status["state"], status["sent"] + status["skipped"]) == ("completed", status["deliveries"])
        skipped = bidden.run("log", str(batch), "--status", "skipped", "--json").lines
        assert {line["reason"] for line in skipped} <= {"already_sent"}
        assert all(line["sent_by_batch"] in set(batches) - {batch} for line in skipped)
        shared += len(skipped)
    assert shared > 0, "no batch met a key of another: the test proves nothing"
    for worker in workers:
        worker.stop()


def test_one_mail_to_each_member(bidden: Bidden, books: Books) -> None:
    """FM-16: under the role policy `one` the batches of both roles mail a member once, whichever is first."""
    bidden.import_lines(*directory(STUDENTS, COACHES, role_policy="one"))
    bidden.dispatcher()
    bidden.worker().ready()
    triggers = [
        bidden.start("invite", "1", "--audience", audience, "--wait", "--json") for audience in ("coaches", "students")
    ]
    assert [trigger.result().code for trigger in triggers] == [0, 0]
    assert books.sink.count() == len({*STUDENTS, *COACHES})
    assert {slot for _, slot in books.mails()} == {"member"}
    books.check()


def test_the_berlin_case(bidden: Bidden, books: Books) -> None:
    """FM-04, FM-11: 563 students, 133 mailed before, one address refused: the other 429 get their mail."""
    sent_before = range(1, 134)
    refused = 300
    bidden.import_lines(
        *directory(range(1, 564)),
        *(invitation(number, sent_at="2026-04-01T10:00:00Z") for number in sent_before),
    )
    reply = "550 5.1.1 No such user"
    books.sink.set_rules([{"do": "refuse_recipient", "recipient": f"m{refused}@*", "reply": reply}])
    bidden.worker()
    planned = bidden.invite("students", "--wait", code=1)
    assert (planned["planned"], planned["excluded"]) == (430, {"already_sent": 133})
    status = bidden.status(planned["batch_id"])
    assert (status["state"], status["sent"], status["failed"], status["error"]) == ("completed", 429, 1, reply)
    (line,) = bidden.run("log", str(planned["batch_id"]), "--status", "failed", "--json").lines
    assert (line["member_id"], line["reason"], line["attempts"]) == (refused, reply, 1)
    assert books.mails().keys() == {(number, "Student") for number in range(134, 564) if number != refused}
    books.check(failed=1)
    audit = bidden.run("audit", "1", "--json", code=1).json
    assert (audit["eligible"], audit["sent"], audit["failed"], audit["balanced"]) == (563, 562, 1, True)


def test_a_repeated_trigger_starts_no_second_batch(bidden: Bidden, books: Books) -> None:
    """FM-31: the same key three times at once gives one batch, and every caller gets its id."""
    bidden.import_lines(*directory(STUDENTS, COACHES))
    clicks = [bidden.start("invite", "1", "--audience", "students", "--key", "click-1", "--json") for _ in range(3)]
    answers: list[dict[str, Any]] = []
    for click in clicks:
        result = click.result()
        assert result.code == 0, click.log_tail()
        answers.append(result.json)
    assert len({answer["batch_id"] for answer in answers}) == 1
    assert sorted(answer["already_triggered"] for answer in answers) == [False, True, True]
    assert {answer["planned"] for answer in answers} == {100}
    assert len(bidden.run("batches", "--json").lines) == 1
    other = bidden.run("invite", "1", "--audience", "coaches", "--key", "click-1", "--json", code=2).error
    assert (other["error"], other["field"]) == ("refused", "key")
    bidden.worker()
    books.wait_completed(answers[0]["batch_id"])
    assert books.sink.count() == 100
