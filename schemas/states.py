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
    """One legal move. `by` names the statement that makes it, `when` its guard."""

    source: S
    target: S
    by: str
    when: str


TRANSITIONS: Final[tuple[Transition, ...]] = (
    Transition(S.PLANNED, S.HANDING_OFF, "claim_deliveries", "still eligible, batch running"),
    Transition(S.RETRY, S.HANDING_OFF, "claim_deliveries", "not_before has come, still eligible, batch running"),
    Transition(S.SKIPPED, S.HANDING_OFF, "claim_deliveries", "planned again and eligible again"),
    Transition(S.UNKNOWN, S.HANDING_OFF, "claim_deliveries", "policy is resend, attempts are left, still eligible"),
    Transition(S.HANDING_OFF, S.HANDING_OFF, "claim_deliveries", "its own owner again; or policy resend, lease ended"),
    Transition(S.PLANNED, S.SKIPPED, "conclude_unclaimed", "no longer eligible at the claim"),
    Transition(S.RETRY, S.SKIPPED, "conclude_unclaimed", "no longer eligible at the claim"),
    Transition(S.SKIPPED, S.SKIPPED, "conclude_unclaimed", "requested again, and still not eligible"),
    Transition(S.HANDING_OFF, S.SENT, "record_outcomes", "the fence is that of its claim"),
    Transition(S.HANDING_OFF, S.FAILED, "record_outcomes", "the fence is that of its claim"),
    Transition(S.HANDING_OFF, S.RETRY, "record_outcomes", "the fence is that of its claim"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "record_outcomes", "the fence is that of its claim"),
    Transition(S.HANDING_OFF, S.SKIPPED, "record_outcomes", "a retry, but its batch was cancelled"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "conclude_unclaimed", "the lease has ended"),
    Transition(
        S.HANDING_OFF,
        S.PLANNED,
        "conclude_unclaimed",
        "its own claim, never acknowledged; the batch is not running",
    ),
    Transition(
        S.HANDING_OFF, S.SKIPPED, "conclude_unclaimed", "its own claim, never acknowledged, and no longer eligible"
    ),
    Transition(S.UNKNOWN, S.SENT, "record_outcomes", "the outcome came late, under the right fence"),
    Transition(S.UNKNOWN, S.FAILED, "record_outcomes", "the outcome came late, under the right fence"),
    Transition(S.UNKNOWN, S.RETRY, "record_outcomes", "the outcome came late, under the right fence"),
    Transition(S.UNKNOWN, S.UNKNOWN, "record_outcomes", "recorded again after a lost connection"),
    Transition(S.UNKNOWN, S.SKIPPED, "record_outcomes", "the outcome came late; its batch was cancelled"),
    Transition(S.HANDING_OFF, S.SENT, "fallback_delivery", "accepted; the database refused the usual statement"),
    Transition(S.HANDING_OFF, S.FAILED, "fallback_delivery", "not accepted; the database refused the usual statement"),
    Transition(S.HANDING_OFF, S.UNKNOWN, "fallback_delivery", "unknown; the database refused the usual statement"),
    Transition(S.UNKNOWN, S.SENT, "fallback_delivery", "the same, late, under the right fence"),
    Transition(S.UNKNOWN, S.FAILED, "fallback_delivery", "the same, late, under the right fence"),
    Transition(S.UNKNOWN, S.UNKNOWN, "fallback_delivery", "the same, late, under the right fence"),
    Transition(S.PLANNED, S.FAILED, "fallback_delivery", "the database refused its claim"),
    Transition(S.RETRY, S.FAILED, "fallback_delivery", "the database refused its claim"),
    Transition(S.SKIPPED, S.FAILED, "fallback_delivery", "the database refused its claim"),
    Transition(S.FAILED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.SKIPPED, S.PLANNED, "reopen_deliveries", "a new batch plans the member"),
    Transition(S.PLANNED, S.SKIPPED, "cancel_deliveries", "its batch was cancelled and no other batch has it open"),
    Transition(S.RETRY, S.SKIPPED, "cancel_deliveries", "its batch was cancelled and no other batch has it open"),
    Transition(S.FAILED, S.PLANNED, "retry_deliveries", "an operator retries the batch's failed deliveries"),
    Transition(S.UNKNOWN, S.SENT, "resolve_deliveries", "an operator resolves it as sent"),
    Transition(S.UNKNOWN, S.FAILED, "resolve_deliveries", "an operator resolves it as failed"),
    Transition(S.UNKNOWN, S.PLANNED, "resolve_deliveries", "an operator resolves it as resend; a new fence"),
    Transition(S.UNKNOWN, S.SKIPPED, "resolve_deliveries", "resolved as resend, but every batch that had it is over"),
    Transition(S.FAILED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.PLANNED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.RETRY, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.SKIPPED, S.SENT, "import_sent", "another system mailed it"),
    Transition(S.UNKNOWN, S.SENT, "import_sent", "another system mailed it"),
)

#: States that need no further work for the batch that finds them.
SETTLED: Final[frozenset[S]] = frozenset({S.SENT, S.FAILED, S.UNKNOWN, S.SKIPPED})
