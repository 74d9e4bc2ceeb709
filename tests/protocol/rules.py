"""The rules of publishers and workers: what each says, the statement that keeps it, and where it is missed.

A rule is named where the model keeps it (`FENCE in off`), so that it can be switched off.
"""

from __future__ import annotations

from typing import Final

from tests.protocol import people_rules
from tests.protocol.rule import Rule

FENCE: Final = Rule(
    "fence",
    "An outcome is written only under the fence of its own mark.",
    "record",
    "by hand",
    "the ledger says sent, and no mail was accepted",
    ("d.fence = r.fence",),
)
NEW_FENCE: Final = Rule(
    "new fence",
    "Each mark has a fence of its own.",
    "mark",
    "by hand",
    "the ledger says sent, and no mail was accepted",
    ("fence = d.fence + 1",),
)
OPEN_OUTCOME: Final = Rule(
    "open outcome",
    "An outcome is written only over a hand-over or a doubt, never over another outcome or a person's word.",
    "record",
    "by hand",
    "what was sent has changed",
    ("d.state IN ('handing_off', 'unknown')",),
)
BUSY: Final = Rule(
    "busy",
    "A delivery that another worker hands over is not marked.",
    "mark",
    "crashes",
    "two mails were accepted",
    ("d.state = 'handing_off' AND d.owner = %(owner)s",),
)
HOLD: Final = Rule(
    "hold",
    "What is unknown is not marked again; under `resend`, only while it has attempts left.",
    "mark",
    "crashes",
    "two mails were accepted",
    ("d.state = 'unknown' AND d.attempts < %(resend_below)s",),
)
HOLD_EXPIRED: Final = Rule(
    "hold expired",
    "A hand-over whose lease ended is not marked again; under `resend`, only while it has attempts left.",
    "mark",
    "crashes",
    "two mails were accepted",
    ("d.lease_until < now() AND d.attempts + 1 < %(resend_below)s",),
)
SENT_IS_CLOSED: Final = Rule(
    "sent is closed",
    "What was sent is not marked: the states that may be marked are listed, and it is not among them.",
    "mark",
    "crashes",
    "what was sent has changed",
    (
        """
        AND (
            d.state = 'planned'
            OR (d.state = 'retry' AND d.not_before <= now())
            OR (d.state = 'skipped' AND d.batch_id IS DISTINCT FROM w.batch_id)
            OR (d.state = 'handing_off' AND d.owner = %(owner)s)
            OR (d.state = 'unknown' AND d.attempts < %(resend_below)s)
            OR (d.state = 'handing_off' AND d.lease_until < now() AND d.attempts + 1 < %(resend_below)s)
        )
        FOR UPDATE SKIP LOCKED
        """,
    ),
)
BACK_OFF: Final = Rule(
    "back-off",
    "A retry is not marked before its time, whoever asks.",
    "mark",
    "crashes",
    "marked before its time",
    ("d.state = 'retry' AND d.not_before <= now()",),
)
ELIGIBLE: Final = Rule(
    "eligible",
    "Nobody is marked who may not be mailed at that moment.",
    "mark",
    "later",
    "marked, and the member may not be mailed",
    (
        "b.state = 'running' AND i.settled_at IS NULL AND (ARRAY['member_deleted',",
        "'left_list') END )] IS NULL",
    ),
)
RUNS: Final = Rule(
    "running",
    "Nothing of a paused or cancelled batch is marked.",
    "mark",
    "decisions",
    "marked for a batch that is paused",
    ("b.state = 'running'",),
)
UNSETTLED: Final = Rule(
    "unsettled",
    "Nothing is marked for an item that is settled.",
    "mark",
    "later",
    "marked for an item that is settled",
    ("i.settled_at IS NULL",),
)
UNHEARD: Final = Rule(
    "unheard",
    "A mark whose commit was not heard of is for its own owner to take again, or to give back.",
    "mark",
    "repeats",
    "in doubt, and every worker lives and knows what it did",
    ("d.state = 'handing_off' AND d.owner = %(owner)s",),
)
GIVEN_BACK: Final = Rule(
    "given back",
    "A mark whose commit was not heard of, and that may not be taken again, is given back: nothing was sent under it.",
    "refuse",
    "repeats",
    "in doubt, and every worker lives and knows what it did",
    ("OR d.owner = %(owner)s",),
)
EXPIRES: Final = Rule(
    "expires",
    "A hand-over whose lease ended without an outcome becomes unknown.",
    "refuse",
    "crashes",
    "not everything can be settled any more",
    ("d.state = 'handing_off'", "d.lease_until < now()"),
)
SKIPS: Final = Rule(
    "skips",
    "Who may not be mailed any more is skipped, with the reason.",
    "refuse",
    "later",
    "not everything can be settled any more",
    ("d.state IN ('planned', 'retry', 'skipped') AND w.running AND w.bar IS NOT NULL",),
)
HELD_STILL: Final = Rule(
    "held still",
    "What is about to be logged as unknown stays so until the commit.",
    "hold_unknown",
    "late truth",
    "logs 0 as unknown, and the ledger knows: sent",
    ("state = 'unknown'", "FOR SHARE"),
)
EVERY_SLOT: Final = Rule(
    "every slot",
    "An item is settled when each of its slots is.",
    "conclude",
    "two slots",
    "settled, and its log says of 1: None",
    (">= cardinality(i.roles)",),
)
OPENS_AGAIN: Final = Rule(
    "opens again",
    "A settled item is open again when a late truth says that its delivery is to be retried.",
    "conclude",
    "crashes",
    "settled, and its log says of 0: retry",
    (">= cardinality(i.roles) THEN coalesce(i.settled_at, now()) END",),
)
ONE_SENDER: Final = Rule(
    "one sender",
    "Only the batch whose mark it was logs it as sent; for the others it was already sent.",
    "conclude",
    "crashes",
    "logs 0 as sent, and the ledger does not say that it sent it",
    ("d.state = 'sent' AND d.batch_id = b.id THEN 'sent'",),
)
ITS_OWN_SKIP: Final = Rule(
    "its own skip",
    "What another batch skipped is not skipped for this one before it has asked by itself.",
    "conclude",
    "later",
    "logs as skipped whom it may mail",
    ("d.state = 'skipped' AND d.batch_id = b.id THEN 'skipped'",),
)
CORRECTED: Final = Rule(
    "corrected",
    "A late truth corrects every log that calls the delivery unknown.",
    "correct_logs",
    "crashes",
    "logs 0 as unknown, and the ledger knows: sent",
    ("l.status = 'unknown'", "d.state IN ('sent', 'failed', 'skipped')"),
)
LOST: Final = Rule(
    "lost",
    "What was published, and nobody will come for, is due again.",
    "make_lost_due",
    "crashes",
    "not everything can be settled any more",
    ("i.kafka_offset < p.first_kept", "SET publish_at = now()"),
)
SETTLED_IS_NOT_LOST: Final = Rule(
    "settled is not lost",
    "What is settled is never due again.",
    "make_lost_due",
    "crashes",
    "settled and due",
    ("i.settled_at IS NULL AND i.publish_at IS NULL",),
)
NO_PAUSED: Final = Rule(
    "rests",
    "Nothing of a paused batch is published.",
    "claim_due",
    "decisions",
    "a paused batch was published",
    ("b.state <> 'paused'",),
)
IN_FLIGHT_IS_OPEN: Final = Rule(
    "in flight is open",
    "The item of what is in flight when its batch is cancelled stays open until that is recorded.",
    "conclude",
    "decisions",
    "settled, and 0 is being handed over for it",
    ("b.state = 'cancelled' AND NOT (d.state = 'handing_off' AND d.batch_id = b.id)",),
)

SALVAGE_CORRECTS: Final = Rule(
    "salvage corrects",
    "A late truth that is salvaged corrects every log that calls the delivery unknown.",
    "db.record_fallback._write_bare",
    "refusals",
    "logs 0 as unknown, and the ledger knows: sent",
    ('"correct_logs"',),
)
SALVAGE_EVERY_SLOT: Final = Rule(
    "salvage every slot",
    "A salvaged item is settled when each of its slots has an outcome in its own log.",
    "salvage_item",
    "two refused",
    "settled, and its log says of 1: None",
    ("cardinality(",),
)

RULES: Final = (*(value for value in list(vars().values()) if isinstance(value, Rule)), *people_rules.RULES)
