"""The rules of publishers and workers: what each says, the statement that keeps it, and where it is missed.

A rule is named where the model keeps it (`FENCE in off`), so that it can be switched off.
"""

from __future__ import annotations

from typing import Final

from tests.protocol import people_rules
from tests.protocol.rule import Rule

FENCE: Final = Rule(
    "fence",
    "An outcome is written only under the fence of its own claim.",
    "record_outcomes",
    "by hand",
    "the ledger says sent, and no mail was accepted",
    ("d.fence = r.fence",),
)
NEW_FENCE: Final = Rule(
    "new fence",
    "Each claim has a fence of its own.",
    "claim_deliveries",
    "by hand",
    "the ledger says sent, and no mail was accepted",
    ("fence = d.fence + 1",),
)
OPEN_OUTCOME: Final = Rule(
    "open outcome",
    "An outcome replaces only `handing_off` or `unknown`, never another outcome or an operator's decision.",
    "record_outcomes",
    "by hand",
    "what was sent has changed",
    ("d.state IN ('handing_off', 'unknown')",),
)
BUSY: Final = Rule(
    "busy",
    "A delivery that another worker has in flight is not claimed.",
    "claim_deliveries",
    "crashes",
    "two mails were accepted",
    ("d.state = 'handing_off' AND d.owner = %(owner)s",),
)
HOLD: Final = Rule(
    "hold",
    "What is unknown is not claimed again; under `resend`, only while it has attempts left.",
    "claim_deliveries",
    "crashes",
    "two mails were accepted",
    ("d.state = 'unknown' AND d.attempts < %(resend_below)s",),
)
HOLD_EXPIRED: Final = Rule(
    "hold expired",
    "A delivery whose lease ended in flight is not claimed again; under `resend`, only while it has attempts left.",
    "claim_deliveries",
    "crashes",
    "two mails were accepted",
    ("d.lease_until < now() AND d.attempts + 1 < %(resend_below)s",),
)
SENT_IS_CLOSED: Final = Rule(
    "sent is closed",
    "What was sent is not claimed: the statement lists the states that may be claimed, and `sent` is not among them.",
    "claim_deliveries",
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
    "A retry is not claimed before its `not_before`, by any batch.",
    "claim_deliveries",
    "crashes",
    "claimed before its time",
    ("d.state = 'retry' AND d.not_before <= now()",),
)
ELIGIBLE: Final = Rule(
    "eligible",
    "A delivery is claimed only while its member is eligible.",
    "claim_deliveries",
    "later",
    "claimed, and the member may not be mailed",
    (
        "b.state = 'running' AND b.needs_placing IS NOT TRUE AND i.settled_at IS NULL",
        "AND v.placement IN ('ours', 'theirs') )) AND (ARRAY['member_deleted',",
        "'left_list') END )] IS NULL",
    ),
)
RUNS: Final = Rule(
    "running",
    "Nothing of a paused or cancelled batch is claimed.",
    "claim_deliveries",
    "decisions",
    "claimed for a batch that is paused",
    ("b.state = 'running'",),
)
UNSETTLED: Final = Rule(
    "unsettled",
    "Nothing is claimed for an item that is settled.",
    "claim_deliveries",
    "later",
    "claimed for an item that is settled",
    ("i.settled_at IS NULL",),
)
UNHEARD: Final = Rule(
    "unheard",
    "A claim whose commit was never acknowledged is taken again by its own owner, or given back.",
    "claim_deliveries",
    "repeats",
    "unknown, although every worker lives and knows the outcome",
    ("d.state = 'handing_off' AND d.owner = %(owner)s",),
)
FORMER_SESSION: Final = Rule(
    "former session",
    "A worker repeats what it asked for only after the session of its first call has ended.",
    "db.hot_connection.HotConnection",
    "repeats",
    "a mail was accepted, and the ledger says planned",
    ("await self._end_former(connection)",),
)
GIVEN_BACK: Final = Rule(
    "given back",
    "A claim never acknowledged, which may not be taken again, is given back: nothing was sent under it.",
    "conclude_unclaimed",
    "repeats",
    "unknown, although every worker lives and knows the outcome",
    ("OR d.owner = %(owner)s",),
)
EXPIRES: Final = Rule(
    "expires",
    "A delivery whose lease ended without an outcome becomes unknown.",
    "conclude_unclaimed",
    "crashes",
    "not everything can be settled any more",
    ("d.state = 'handing_off'", "d.lease_until < now()"),
)
SKIPS: Final = Rule(
    "skips",
    "A member who is no longer eligible is skipped, with the reason.",
    "conclude_unclaimed",
    "later",
    "not everything can be settled any more",
    ("d.state IN ('planned', 'retry', 'skipped') AND w.running AND w.ineligible IS NOT NULL",),
)
HELD_STILL: Final = Rule(
    "held still",
    "What is about to be logged as unknown stays so until the commit.",
    "lock_unknown",
    "late outcome",
    "logs 0 as unknown, and the ledger says sent",
    ("state = 'unknown'", "FOR SHARE"),
)
EVERY_SLOT: Final = Rule(
    "every slot",
    "An item is settled when each of its slots is.",
    "settle_items",
    "two slots",
    "settled, and its log says of 1: None",
    (">= cardinality(i.roles)",),
)
OPENS_AGAIN: Final = Rule(
    "opens again",
    "A settled item is reopened when a late outcome says that its delivery is to be retried.",
    "settle_items",
    "crashes",
    "settled, and its log says of 0: retry",
    (">= cardinality(i.roles) THEN coalesce(i.settled_at, now()) END",),
)
ONE_SENDER: Final = Rule(
    "one sender",
    "Only the batch whose claim it was logs it as sent; for the others it was already sent.",
    "settle_items",
    "crashes",
    "logs 0 as sent, and the ledger does not say that it sent it",
    ("d.state = 'sent' AND d.batch_id = b.id THEN 'sent'",),
)
ITS_OWN_SKIP: Final = Rule(
    "own skip",
    "What another batch skipped is not skipped for this batch before its own claim was rejected.",
    "settle_items",
    "later",
    "logs as skipped whom it may mail",
    ("d.state = 'skipped' AND d.batch_id = b.id THEN 'skipped'",),
)
CORRECTED: Final = Rule(
    "corrected",
    "A late outcome corrects every log that calls the delivery unknown.",
    "correct_log_entries",
    "crashes",
    "logs 0 as unknown, and the ledger says sent",
    ("l.status = 'unknown'", "d.state IN ('sent', 'failed', 'skipped')"),
)
LOST: Final = Rule(
    "lost",
    "What was published and will never be read is due again.",
    "make_lost_items_due",
    "crashes",
    "not everything can be settled any more",
    ("i.kafka_offset < p.next_offset", "SET publish_at = now()"),
)
SETTLED_IS_NOT_LOST: Final = Rule(
    "settled is not lost",
    "What is settled is never due again.",
    "make_lost_items_due",
    "crashes",
    "settled and due",
    ("i.settled_at IS NULL AND i.publish_at IS NULL",),
)
NO_PAUSED: Final = Rule(
    "rests",
    "Nothing of a paused batch is published.",
    "claim_due_items",
    "decisions",
    "a paused batch was published",
    ("b.state <> 'paused'",),
)
IN_FLIGHT_IS_OPEN: Final = Rule(
    "in flight is open",
    "When a batch is cancelled, the item of a delivery in flight stays open until its outcome is recorded.",
    "settle_items",
    "decisions",
    "settled, and 0 is in flight for it",
    ("b.state = 'cancelled' AND NOT (d.state = 'handing_off' AND d.batch_id = b.id)",),
)

PERMITTED: Final = Rule(
    "permitted",
    "A mail is sent only before the deadline of its claim: asked before MAIL FROM and before the final dot.",
    "mail.smtp.connection.Connection",
    "by hand",
    "a mail was accepted, and the ledger says planned",
    ("if not submission.permitted():", "if not self._submission.completing():", "if self._submission.completing():"),
)
DEADLINE: Final = Rule(
    "deadline",
    "The deadline of a claim passes before its lease ends.",
    "schemas.leases.ClockReading",
    "by hand",
    "a mail was accepted, and the ledger says planned",
    ("return self.before + lease - margin(lease)",),
)
FALLBACK_CORRECTS: Final = Rule(
    "fallback corrects",
    "A late outcome that the fallback records corrects every log that calls the delivery unknown.",
    "db.record_fallback._record_bare",
    "refusals",
    "logs 0 as unknown, and the ledger says sent",
    ('"correct_log_entries"',),
)
FALLBACK_EVERY_SLOT: Final = Rule(
    "fallback every slot",
    "An item that the fallback writes is settled when each of its slots has an outcome in its own log.",
    "fallback_item",
    "two refused",
    "settled, and its log says of 1: None",
    ("cardinality(",),
)
JOURNAL_BEGUN: Final = Rule(
    "begun first",
    "A mail is noted in the journal as begun before the first byte that could complete it.",
    "streams.attempt.Attempt",
    "journal",
    "a mail was accepted, and the ledger says retry",
    ("self._journal.begin(self._delivery) and self._holds()",),
)
JOURNAL_LOCK: Final = Rule(
    "journal lock",
    "A journal is settled only when nobody holds its lock, which its worker holds while it lives.",
    "streams.dead_journals._take",
    "journal",
    "a mail was accepted, and the ledger says retry",
    ("fcntl.LOCK_EX | fcntl.LOCK_NB",),
)
JOURNAL_BOOT: Final = Rule(
    "boot",
    "A journal of before the machine's last start says nothing: what was written last may be lost.",
    "streams.journal_records.parse",
    "journal",
    "a mail was accepted, and the ledger says retry",
    ("header.boot != boot",),
)
JOURNAL_OWNER: Final = Rule(
    "journal owner",
    "What a journal notes as claimed is released only if the ledger names the cycle that noted it.",
    "claims_left",
    "journal",
    "a mail was accepted, and the ledger says retry",
    ("d.owner = n.owner",),
)

FRESH: Final = Rule(
    "fresh",
    "Nothing is claimed while the newest snapshot of the source is too old.",
    "cycle",
    "stale source",
    "claimed by what an old snapshot says",
    ("IF o_fresh_until <= extract(epoch FROM clock_timestamp()) THEN p_unclaimed := p_requested;",),
)
FRESH_PUBLISHED: Final = Rule(
    "fresh, published",
    "Nothing is published while the newest snapshot of the source is too old.",
    "claim_due_items",
    "stale source",
    "published, and nothing can be claimed",
    ("AND NOT EXISTS (SELECT FROM directory_source s WHERE",),
)
BEGIN_BEFORE: Final = Rule(
    "begun before",
    "A mail is begun only while the snapshot that its claim went by is not too old.",
    "streams.attempt.Attempt",
    "stale source",
    "a mail was begun by what an old snapshot says",
    ("self._delivery.begin_before",),
)
PLACED: Final = Rule(
    "placed",
    "Nothing is claimed of a batch whose invitations the source is yet to get.",
    "claim_deliveries",
    "placing",
    "two mails were accepted",
    ("b.needs_placing IS NOT TRUE",),
)
PLACED_PUBLISHED: Final = Rule(
    "placed, published",
    "Nothing of such a batch is published.",
    "claim_due_items",
    "placing",
    "published, and nothing can be claimed",
    ("b.needs_placing IS NOT TRUE",),
)
IN_SOURCE: Final = Rule(
    "in the source",
    "Nobody is mailed whose invitation the source did not take: the organisation's own system may still invite them.",
    "claim_deliveries",
    "placing",
    "two mails were accepted",
    ("AND NOT (b.needs_placing IS NOT NULL AND NOT EXISTS (", "v.placement IN ('ours', 'theirs')"),
)
THEIRS_WAIT: Final = Rule(
    "theirs wait",
    "Where the source has a row that is not ours, the batch waits for a snapshot that began later.",
    "open_placed_batches",
    "placing",
    "two mails were accepted",
    ("s.began_at <= o.placing_asked_at",),
)
NOT_READ_BACK: Final = Rule(
    "not read back",
    "A row that we have placed is never read back as mailed by another system.",
    "import_sent",
    "placing",
    "the ledger says sent, and no mail was accepted",
    ("i.placement IN ('made', 'ours')",),
)
CLAIM_PUBLISHED: Final = Rule(
    "claim published",
    "No mail is begun before Kafka has its claim.",
    "streams.claim_log.UnwrittenClaims",
    "restore",
    "a mail was accepted, and the ledger says planned",
    ("if error is None: self._send(delivery)",),
)
REFUSES_RESTORED: Final = Rule(
    "refuses restored",
    "Nothing is claimed in a ledger that is behind the topics of claims and outcomes, before it has learned from them.",
    "streams.restore_check.RestoreCheck",
    "restore",
    "a mail was accepted, and the ledger says planned",
    ("raise restored()",),
)

RULES: Final = (*(value for value in list(vars().values()) if isinstance(value, Rule)), *people_rules.RULES)
