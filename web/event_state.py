"""The state that lists of events show, on pages and in the API."""

from __future__ import annotations

from db.site_queries import ListedEvent
from producers.plan import refusal


def event_state(listed: ListedEvent) -> str:
    """The most important thing that can be said about the event in a word or two. Pure."""
    if listed.event.cancelled_at is not None:
        return "cancelled"
    if listed.is_running:
        return "inviting"
    if listed.is_paused:
        return "paused"
    if listed.event.is_past:
        return "over"
    if listed.batches:
        return "invited"
    return "not invited yet" if refusal(listed.event.facts) is None else "cannot be invited to"
