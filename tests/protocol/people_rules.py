"""The rules of what people decide."""

from __future__ import annotations

from typing import Final

from tests.protocol.rule import Rule

IN_FLIGHT_STAYS: Final = Rule(
    "in flight stays",
    "A cancel does not touch a delivery that is in flight.",
    "cancel_deliveries",
    "decisions",
    "a mail was accepted, and the ledger says skipped",
    ("d.state IN ('planned', 'retry')",),
)
CANCEL_CORRECTS: Final = Rule(
    "cancel corrects",
    "A cancel that skips a delivery corrects every log that calls it unknown.",
    "db.batch_actions.cancel_items",
    "late outcome",
    "logs 0 as unknown, and the ledger says skipped",
    ('sql("correct_log_entries")',),
)
LOGGED_IS_NOT_OVER: Final = Rule(
    "logged is not over",
    "A cancel leaves an item open whose delivery is in flight for it again, whatever its log said before.",
    "settle_cancelled_items",
    "later",
    "settled, and 0 is in flight for it",
    ("(d.state, d.batch_id) IS DISTINCT FROM ('handing_off', b.id)",),
)
SETTLED_STAYS: Final = Rule(
    "settled stays",
    "A resume makes only unsettled items due, whatever workers settle between its chunks.",
    "make_items_due",
    "decisions",
    "settled and due",
    ("settled_at IS NULL", "FOR UPDATE"),
)
ONLY_FAILED: Final = Rule(
    "only failed",
    "`retry` reopens only what is still failed in the ledger.",
    "retry_deliveries",
    "later",
    "what was sent has changed",
    ("AND d.state = 'failed'",),
)
RETRY_IS_DUE: Final = Rule(
    "retry is due",
    "What `retry` reopens has an open item.",
    "retry_deliveries",
    "by hand",
    "settled, and its log says of 0: retry",
    ("SET settled_at = NULL, publish_at = CASE b.state WHEN 'running' THEN now() END",),
)
ONLY_DOUBT: Final = Rule(
    "only unknown",
    "`resolve` changes only what is unknown.",
    "resolve_deliveries",
    "by hand",
    "what was sent has changed",
    ("d.state = 'unknown'",),
)
WORD_IN_LOGS: Final = Rule(
    "decision in logs",
    "The operator's decision is written to every log that calls the delivery unknown.",
    "correct_resolved_log_entries",
    "by hand",
    "logs what it sent as unknown",
    ("UPDATE log_entries l SET status = coalesce(",),
)
RESEND_IS_DUE: Final = Rule(
    "resend is due",
    "What an operator has resent has an open item.",
    "settle_resolved_items",
    "by hand",
    "settled, and its log says of 0: retry",
    ("AND NOT s.paused THEN now() END",),
)
ONLY_CLOSED: Final = Rule(
    "only closed",
    "A new batch reopens only what failed or was skipped.",
    "reopen_deliveries",
    "later",
    "a mail was accepted, and the ledger says planned",
    ("d.state IN ('failed', 'skipped')",),
)

RULES: Final = tuple(value for value in list(vars().values()) if isinstance(value, Rule))
