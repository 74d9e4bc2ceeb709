"""The organiser's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from producers.batch_control import Verdict
from web.pages import words

LATE = datetime(2026, 11, 28, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.retried(1), "We will try 1 mail again."),
        (words.retried(2000), "We will try 2,000 mails again."),
        (words.retried(0), "No mail had failed: there is nothing to try again."),
        (words.resolved(Verdict.SENT, 1), "1 mail counts as arrived."),
        (words.resolved(Verdict.FAILED, 2), "2 mails count as not arrived."),
        (words.resolved(Verdict.RESEND, 3), "We will send 3 mails again."),
        (words.resolved(Verdict.SENT, 0), "No mail was open any more: nothing was changed."),
        (words.word("pending"), "waiting"),
        (words.word("unknown"), "not sure if it arrived"),
        (words.word("skipped"), "no longer needed"),
        (words.word("sent"), "sent"),
        (
            words.batch_title("students", datetime(2026, 11, 28, 23, 30, tzinfo=UTC), "UTC"),
            "Students' invitations, 28 Nov",
        ),
        (
            words.batch_title("coaches", LATE, "Europe/Berlin"),
            "Coaches' invitations, 29 Nov",
        ),
    ],
)
def test_what_is_said(said: str, expected: str) -> None:
    """States, batches and results in the words of those who invite; the day is that of the event's time zone."""
    assert said == expected
