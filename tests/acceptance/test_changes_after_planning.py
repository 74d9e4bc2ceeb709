"""Changes between planning and sending: bans, answers, left lists, deleted members, a cancelled event."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden
from tests.integration.importing import EVENT, invitation, member, subscription

pytestmark = pytest.mark.slow

CHANGES: dict[int, tuple[str, dict[str, Any]]] = {
    3: ("banned", {"type": "ban", "id": 1, "member_id": 3, "permanent": True}),
    4: ("left_list", subscription(4, 1, deleted=True)),
    5: ("member_deleted", {"type": "member", "id": 5, "deleted": True}),
    6: ("declined", invitation(6, attending=False)),
    7: ("signed_up", invitation(7, attending=True)),
    8: ("terms_not_accepted", member(8, accepted_toc_at=None)),
}


def test_changes_after_planning_are_respected(bidden: Bidden, books: Books) -> None:
    """FM-25: a member who is no longer eligible when the mail is due is skipped with the reason, and gets no mail."""
    bidden.import_lines(*directory(range(1, 41), events=2))
    batch = bidden.invite(event=1)["batch_id"]
    cancelled = bidden.invite(event=2)["batch_id"]
    bidden.import_lines(
        *(line for _, line in CHANGES.values()), EVENT | {"id": 2, "cancelled_at": "2026-04-01T10:00:00Z"}
    )
    bidden.worker()
    books.wait_completed(batch, cancelled)
    log = {line["member_id"]: line for line in bidden.run("log", str(batch), "--json").lines}
    for number, (reason, _) in CHANGES.items():
        assert (log[number]["status"], log[number]["reason"]) == ("skipped", reason)
        assert reason in bidden.run("why", "1", str(number), "--json").json["reasons"] or reason == "left_list"
    assert {line["status"] for number, line in log.items() if number not in CHANGES} == {"sent"}
    assert books.mails().keys() == {(number, "Student") for number in range(1, 41) if number not in CHANGES}
    books.check()
    assert not books.mails(event=2)
    rows = bidden.run("log", str(cancelled), "--json").lines
    assert {(row["status"], row["reason"]) for row in rows} <= {
        ("skipped", "event_cancelled"),
        ("skipped", "member_deleted"),
    }
    refused = bidden.run("invite", "2", "--audience", "students", "--json", code=2).error
    assert "cancelled" in refused["detail"]
