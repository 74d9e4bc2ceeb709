"""The state that lists of events show, on pages and in the API."""

from __future__ import annotations

from typing import Final

from db.site_queries import ListedEvent
from producers.plan import refusal
from schemas.vocabulary import Role

#: By the roles that are left to invite, of which nobody was mailed.
_HALF: Final[dict[frozenset[str], str]] = {
    frozenset({Role.COACH}): "students invited",
    frozenset({Role.STUDENT}): "coaches invited",
}


def event_state(listed: ListedEvent) -> str:
    """The most important thing that can be said about the event in a word or two. Pure.

    `invited`: for everybody on its lists the last batch went to its end, and the ledger, which the audit counts, knows
    what became of mails. With mails of another system alone, or of a batch cancelled half-way, it is `partly invited`.
    Who joined a list since then is named by the audit.
    """
    if listed.event.cancelled_at is not None:
        return "cancelled"
    if listed.is_running:
        return "inviting"
    if listed.is_paused:
        return "paused"
    if listed.event.is_past:
        return "over"
    if not listed.is_reached:
        return "not invited yet" if refusal(listed.event.facts) is None else "cannot be invited to"
    if not listed.uninvited:
        return "invited"
    return "partly invited" if listed.half_reached else _HALF.get(listed.uninvited, "partly invited")
