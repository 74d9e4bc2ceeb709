"""The rules of what people decide."""

from __future__ import annotations

from typing import Final

from tests.protocol.rule import Rule

IN_FLIGHT_STAYS: Final = Rule(
    "in flight stays",
    "A cancel leaves alone what is being handed over.",
    "cancel_deliveries",
    "decisions",
    "a mail was accepted, and the ledger says skipped",
    ("d.state IN ('planned', 'retry')",),
)
CANCEL_CORRECTS: Final = Rule(
    "cancel corrects",
    "A cancel that skips a delivery corrects every log that calls it unknown.",
    "db.batch_actions.cancel_items",
    "late truth",
    "logs 0 as unknown, and the ledger knows: skipped",
    ('sql("correct_logs")',),
)
LOGGED_IS_NOT_OVER: Final = Rule(
    "logged is not over",
    "A cancel leaves an item open whose delivery is in flight for it again, whatever its log said before.",
    "settle_cancelled_items",
    "later",
    "settled, and 0 is being handed over for it",
    ("(d.state, d.batch_id) IS DISTINCT FROM ('handing_off', b.id)",),
)
ONLY_FAILED: Final = Rule(
    "only failed",
    "A retry by hand opens only what has still failed in the ledger.",
    "retry_deliveries",
    "later",
    "what was sent has changed",
    ("AND d.state = 'failed'",),
)
RETRY_IS_DUE: Final = Rule(
    "retry is due",
    "What a retry by hand opens has an item to do.",
    "retry_deliveries",
    "by hand",
    "settled, and its log says of 0: retry",
    ("SET settled_at = NULL, publish_at = CASE b.state WHEN 'running' THEN now() END",),
)
ONLY_DOUBT: Final = Rule(
    "only doubt",
    "A person resolves only what is unknown.",
    "resolve_deliveries",
    "by hand",
    "what was sent has changed",
    ("d.state = 'unknown'",),
)
WORD_IN_LOGS: Final = Rule(
    "word in logs",
    "A person's word stands in every log that called the delivery unknown.",
    "correct_resolved_log_entries",
    "by hand",
    "logs what it sent as unknown",
    ("UPDATE log_entries l SET status = coalesce(",),
)
RESEND_IS_DUE: Final = Rule(
    "resend is due",
    "What a person has sent again has an item to do.",
    "settle_resolved_items",
    "by hand",
    "settled, and its log says of 0: retry",
    ("AND NOT s.paused THEN now() END",),
)
ONLY_CLOSED: Final = Rule(
    "only closed",
    "A new batch opens only what failed or was skipped.",
    "reopen_deliveries",
    "later",
    "a mail was accepted, and the ledger says planned",
    ("d.state IN ('failed', 'skipped')",),
)

RULES: Final = tuple(value for value in list(vars().values()) if isinstance(value, Rule))
