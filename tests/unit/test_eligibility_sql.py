"""Who may be mailed is decided in db/sql/eligibility.sql and in no other statement."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from db import statements
from schemas.vocabulary import Reason
from web.pages.rendering import REASONS

_HEAD: Final = re.compile(r"^-- (?:name|fragment|function): (\w+)\s*$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^\s*--.*\n?", re.MULTILINE)
#: The columns that decide, and the reasons themselves.
_RAW: Final = re.compile(
    r"\baccepted_toc_at\b|\bbans\b|\bpermanent\b|\battending\b|\bleft_at\b|\bdeleted_at\b|\bcancelled_at\b|"
    + "|".join(f"'{reason}'" for reason in Reason if reason is not Reason.UNKNOWN)
)

#: Statements that import, store or show these without deciding who may be mailed.
ALLOWED: Final[dict[str, set[str]]] = {
    # The import, and links in mails: they write the facts.
    "member_rows": {"accepted_toc_at"},
    "ban_rows": {"permanent"},
    "event_rows": {"cancelled_at"},
    "invitation_rows": {"attending"},
    "member_is_absent": {"deleted_at"},
    "keep_former_mailboxes": {"bans"},
    "import_member_deletions": {"accepted_toc_at", "deleted_at"},
    "import_members": {"accepted_toc_at", "deleted_at"},
    "members_to_erase": {"deleted_at"},
    "import_ban_deletions": {"bans"},
    "import_bans": {"bans", "permanent"},
    "import_events": {"cancelled_at"},
    "import_invitations": {"attending"},
    "invitation_of_token": {"attending", "deleted_at", "cancelled_at"},
    "answer_invitation": {"attending", "deleted_at", "cancelled_at"},
    "leave_lists": {"left_at", "deleted_at"},
    "leave_all_lists": {"left_at", "deleted_at"},
    # Refusals of a trigger, which are about the event.
    "lock_event": {"cancelled_at"},
    # A batch is cancelled, or its delivery was sent by another: the ledger's states.
    "decide_batch": {"cancelled_at"},
    "refuse_planning": {"cancelled_at"},
    # What is removed from old events, not who may be mailed.
    "remove_invitations": {"deleted_at", "attending"},
    "has_ended": {"cancelled_at"},
    "numbers_of_batch": {"cancelled_at"},
    "cancel_deliveries": {"'batch_cancelled'"},
    "settle_cancelled_items": {"'batch_cancelled'"},
    "resolve_deliveries": {"'batch_cancelled'"},
    # Of a batch whose invitations the source gets: it took none.
    "conclude_unclaimed": {"'not_in_source'"},
    "record_outcomes": {"'batch_cancelled'"},
    "final_reason": {"'already_sent'", "'batch_cancelled'"},
    "import_sent": {"'already_sent'"},
    "fallback_item": {"'already_sent'"},
    "check_logs_without_ledger": {"'already_sent'"},
    "audit_contradictions": {"'already_sent'"},
    "log_reason": {"'already_sent'"},
    "sent_by_batch": {"'already_sent'"},
    "all_sent_elsewhere": {"'already_sent'"},
    "reported_reason": {"'already_sent'"},
    # Whose row a source is asked for: a deleted member has none.
    "to_be_placed": {"deleted_at"},
    # What a snapshot of a source has no more, and how many there were.
    "count_ban": {"bans"},
    "count_member": {"deleted_at"},
    "remove_missing_ban": {"bans"},
    "remove_missing_member": {"deleted_at"},
    # Pages that show a member.
    "full_name": {"deleted_at"},
    "event_columns": {"cancelled_at"},
    "browse_members": {"deleted_at"},
    "browse_member": {"accepted_toc_at", "bans", "deleted_at"},
    "browse_lists_of_member": {"left_at"},
    "browse_opt_outs": {"left_at"},
    "browse_lost_answers": {"attending", "cancelled_at"},
    "browse_member_events": {"attending"},
}


def _blocks(path: Path) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return {head.group(1): _COMMENT.sub("", text[head.end() : end]) for head, end in zip(heads, ends, strict=True)}


def test_no_other_statement_decides_eligibility() -> None:
    """Outside of eligibility.sql nothing but the statements above mentions what decides, or a reason by name."""
    found = {
        name: set(_RAW.findall(body))
        for path in statements._FOLDER.glob("*.sql")
        if path.name != "eligibility.sql"
        for name, body in _blocks(path).items()
    }
    assert {name: raw for name, raw in found.items() if raw} == ALLOWED


def test_the_order_stands_once() -> None:
    """Every reason that is about a member or an event has its place in the one list, and has it once."""
    blocks = _blocks(statements._FOLDER / "eligibility.sql")
    ordered = re.findall(r"'(\w+)'", blocks["reasons_in_order"])
    assert sorted(ordered) == sorted(set(Reason) - {Reason.BATCH_CANCELLED, Reason.NOT_IN_SOURCE})
    # `dry_run` keeps an ordinal in five bits.
    assert len(ordered) < 32
    for name, body in blocks.items():
        for reason in re.findall(r"array_position\(\{\{reasons_in_order\}\}, '(\w+)'\)", body):
            assert reason in ordered, (name, reason)


def test_every_reason_has_a_text_and_is_documented() -> None:
    """Pages have a text for each reason, and the docs explain it by its name."""
    assert set(REASONS) == set(Reason)
    docs = "".join(path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "docs").rglob("*.md"))
    assert [reason for reason in Reason if f"`{reason}`" not in docs] == []
