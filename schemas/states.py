"""The states of a delivery and the transitions between them, as data.

The statements in `db/sql` are guarded so that no other transition can happen. A test walks the table and compares it
with what the database does; the documentation's diagram is drawn from it.
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
    Transition(S.UNKNOWN, S.HANDING_OFF, "mark", "policy is resend, attempts are left, still eligible"),
    Transition(S.HANDING_OFF, S.HANDING_OFF, "mark", "its own owner again, or policy is resend and the lease ended"),
    Transition(S.PLANNED, S.SKIPPED, "refuse", "no longer eligible at the hand-over"),
    Transition(S.RETRY, S.SKIPPED, "refuse", "no longer eligible at the hand-over"),
    Transition(S.SKIPPED, S.SKIPPED, "refuse", "met again, and still not eligible"),
    Transition(S.HANDING_OFF, S.SENT, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.FAILED, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.RETRY, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "record", "the fence is that of its mark"),
    Transition(S.HANDING_OFF, S.SKIPPED, "record", "a retry was due and its batch has been cancelled"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "refuse", "the lease has ended"),
    Transition(S.HANDING_OFF, S.PLANNED, "refuse", "its own mark, never heard of, and its batch does not run"),
    Transition(S.HANDING_OFF, S.SKIPPED, "refuse", "its own mark, never heard of, and she is no longer eligible"),
    Transition(S.UNKNOWN, S.SENT, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.FAILED, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.RETRY, "record", "the truth arrived late, under the right fence"),
    Transition(S.UNKNOWN, S.UNKNOWN, "record", "the same said again, after a lost connection"),
    Transition(S.UNKNOWN, S.SKIPPED, "record", "a retry was due late and its batch has been cancelled"),
    Transition(S.HANDING_OFF, S.SENT, "salvage_delivery", "accepted, and the database refused the usual record"),
    Transition(S.HANDING_OFF, S.FAILED, "salvage_delivery", "not accepted, and the database refused the usual record"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "salvage_delivery", "in doubt, and the database refused the usual record"),
    Transition(S.UNKNOWN, S.SENT, "salvage_delivery", "the same, late, under the right fence"),
    Transition(S.UNKNOWN, S.FAILED, "salvage_delivery", "the same, late, under the right fence"),
    Transition(S.UNKNOWN, S.UNKNOWN, "salvage_delivery", "the same, late, under the right fence"),
    Transition(S.PLANNED, S.FAILED, "salvage_delivery", "the database refused its mark"),
    Transition(S.RETRY, S.FAILED, "salvage_delivery", "the database refused its mark"),
    Transition(S.SKIPPED, S.FAILED, "salvage_delivery", "the database refused its mark"),
    Transition(S.FAILED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.SKIPPED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.PLANNED, S.SKIPPED, "cancel_deliveries", "its batch was cancelled, and no other has it to do"),
    Transition(S.RETRY, S.SKIPPED, "cancel_deliveries", "its batch was cancelled, and no other has it to do"),
    Transition(S.FAILED, S.PLANNED, "retry_deliveries", "an operator opens the failed ones of a batch again"),
    Transition(S.UNKNOWN, S.SENT, "resolve_deliveries", "an operator says that it arrived"),
    Transition(S.UNKNOWN, S.FAILED, "resolve_deliveries", "an operator says that it did not arrive"),
    Transition(S.UNKNOWN, S.PLANNED, "resolve_deliveries", "an operator has it sent again; a new fence"),
    Transition(S.UNKNOWN, S.SKIPPED, "resolve_deliveries", "to be sent again, and each batch that had it is over"),
    Transition(S.FAILED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.PLANNED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.RETRY, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.SKIPPED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.UNKNOWN, S.SENT, "import_sent", "another system mailed it"),
)

#: States that need no further work for the batch that finds them.
SETTLED: Final[frozenset[S]] = frozenset({S.SENT, S.FAILED, S.UNKNOWN, S.SKIPPED})
