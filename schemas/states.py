"""The states of a delivery and the moves between them, as data.

The statements in `db/sql/ledger.sql` are guarded so that no other move can happen; a test walks the table and
compares it with what the database does, and docs/states.md is drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.vocabulary import DeliveryState as S


@dataclass(frozen=True, slots=True)
class Transition:
    """One legal move. `by` names the statement that makes it, `when` its guard in words."""

    source: S
    target: S
    by: str
    when: str


TRANSITIONS: Final[tuple[Transition, ...]] = (
    Transition(S.PLANNED, S.HANDING_OFF, "mark", "still eligible, batch running"),
    Transition(S.RETRY, S.HANDING_OFF, "mark", "not_before has come, still eligible, batch running"),
    Transition(S.SKIPPED, S.HANDING_OFF, "mark", "planned again and eligible again"),
    Transition(S.UNKNOWN, S.HANDING_OFF, "mark", "policy is resend"),
    Transition(S.PLANNED, S.SKIPPED, "skip", "no longer eligible at the hand-over"),
    Transition(S.RETRY, S.SKIPPED, "skip", "no longer eligible at the hand-over"),
    Transition(S.SKIPPED, S.SKIPPED, "skip", "met again by another batch"),
    Transition(S.PLANNED, S.SKIPPED, "cancel_deliveries", "its batch was cancelled"),
    Transition(S.RETRY, S.SKIPPED, "cancel_deliveries", "its batch was cancelled"),
    Transition(S.HANDING_OFF, S.SENT, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.FAILED, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.RETRY, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.SKIPPED, "record", "a retry was due and its batch has been cancelled"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "expire", "the lease has ended"),
    Transition(S.UNKNOWN, S.SENT, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.FAILED, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.RETRY, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.SKIPPED, "record", "a retry was due late and its batch has been cancelled"),
    Transition(S.FAILED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.SKIPPED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.FAILED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.PLANNED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.RETRY, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.SKIPPED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.UNKNOWN, S.SENT, "import_sent", "another system mailed it"),
)

#: States that need no further work for the batch that finds them.
SETTLED: Final[frozenset[S]] = frozenset({S.SENT, S.FAILED, S.UNKNOWN, S.SKIPPED})
