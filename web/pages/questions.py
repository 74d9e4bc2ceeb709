"""The questions before what cannot be taken back: each states the number of mails or letters, and asks.

Pages that work without scripts. The number is of what the user may decide about. The answer repeats it: if there are
more by then, it is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi.responses import HTMLResponse

from db.site_queries import EventSummary
from producers.batch_control import Verdict
from web.auth.current_user import CurrentUser
from web.pages.rendering import page, plural
from web.scope import BatchWithEvent, who_may

_CANNOT_BE_RECALLED: Final = "A mail that was sent cannot be recalled."


def ask_retry(user: CurrentUser, batch: BatchWithEvent, number: int, *, grown: bool) -> HTMLResponse:
    """Before the failed deliveries of a batch are tried again."""
    back = f"/batches/{batch.id}"
    texts = [f"{plural(number, 'mail')} will be tried again, as soon as you press the button. {_CANNOT_BE_RECALLED}"]
    return _ask(
        user,
        here="Batches",
        title=f"Try {plural(number, 'failed mail')} again?" if number else "Nothing to try again",
        texts=[*(texts if number else []), *_others(user, batch.event, "retry those of the others", number)],
        trail=[(f"/events/{batch.event.id}", batch.event.name), (back, f"Batch {batch.id}")],
        action=f"{back}/retry",
        fields=[("number", str(number))],
        button=f"Try {plural(number, 'mail')} again" if number else "",
        back=back,
        grown=grown,
    )


_TITLES: Final = {
    Verdict.RESEND: "Send {mails} again, even if twice?",
    Verdict.SENT: "Did {mails} arrive?",
    Verdict.FAILED: "Did {mails} not arrive?",
}
_MEANINGS: Final = {
    Verdict.RESEND: "{mails} may have arrived already. Who has it gets it a second time. " + _CANNOT_BE_RECALLED,
    Verdict.SENT: "{mails} will count as sent, for good: no batch sends them again.",
    Verdict.FAILED: "{mails} will count as failed. A retry or a new batch can send them again, and then they may arrive"
    " twice.",
}
_BUTTONS: Final = {
    Verdict.RESEND: "Send {mails} again",
    Verdict.SENT: "Count {mails} as sent",
    Verdict.FAILED: "Count {mails} as failed",
}


def ask_resolve(
    user: CurrentUser,
    event: EventSummary,
    verdict: Verdict,
    number: int,
    *,
    member_id: int | None,
    back: str,
    grown: bool,
) -> HTMLResponse:
    """Before unknown deliveries of an event, or of one member, are decided about."""
    mails = plural(number, "mail")
    fields = [("verdict", verdict.value), ("number", str(number)), ("back", back)]
    others = [] if member_id is not None else _others(user, event, "decide about those of the others", number)
    return _ask(
        user,
        here="Events",
        title=_TITLES[verdict].format(mails=mails) if number else "Nothing to decide about",
        texts=[*([_MEANINGS[verdict].format(mails=mails)] if number else []), *others],
        trail=[(f"/events/{event.id}", event.name)],
        action=f"/events/{event.id}/resolve",
        fields=[*fields, *([("member", str(member_id))] if member_id is not None else [])],
        button=_BUTTONS[verdict].format(mails=plural(number, "mail")) if number else "",
        back=back or f"/events/{event.id}",
        grown=grown,
    )


def ask_discard(user: CurrentUser, places: Sequence[str]) -> HTMLResponse:
    """Before dead letters are set aside for good."""
    letters = plural(len(places), "dead letter")
    return _ask(
        user,
        here="Dead letters",
        title=f"Discard {letters}?",
        texts=[
            f"These will be set aside for good: {', '.join(places)}.",
            "What is set aside stays on the topic, and no longer waits for anybody.",
        ],
        trail=[("/letters", "Dead letters")],
        action="/letters/discard",
        fields=[("letter", place) for place in places],
        button=f"Discard {letters}",
        back="/letters",
    )


def ask_redrive(
    user: CurrentUser, places: Sequence[str], number: int, *, all_letters: bool, again: bool
) -> HTMLResponse:
    """Before dead letters are put on their source topic again: `number` of them, with `places` those selected."""
    letters = plural(number, "dead letter")
    which = f": {', '.join(places)}" if places else ", all that wait"
    before = ", with those that were redriven before" if again else ""
    return _ask(
        user,
        here="Dead letters",
        title=f"Redrive {letters}{' and those redriven before' if all_letters and again else ''}?",
        texts=[
            f"{letters} will be put on the source topic again{which}{before}.",
            f"Workers read them at once, and send what was not sent yet. {_CANNOT_BE_RECALLED}",
        ],
        trail=[("/letters", "Dead letters")],
        action="/letters/redrive",
        fields=[
            *([("all", "true")] if all_letters else [("letter", place) for place in places]),
            *([("again", "true")] if again else []),
        ],
        button=f"Redrive {letters}" if not all_letters else "Redrive all",
        back="/letters",
    )


def _others(user: CurrentUser, event: EventSummary, action: str, number: int) -> list[str]:
    """Who may do the rest, where other chapters hold the event, too."""
    if not event.is_shared(user.account.scope):
        return [] if number else ["There is none of this event by now."]
    return [f"Only mails to members of your chapters count here. {who_may(event)} can {action}."]


def _ask(
    user: CurrentUser,
    *,
    here: str,
    title: str,
    texts: list[str],
    trail: list[tuple[str, str]],
    action: str,
    fields: list[tuple[str, str]],
    button: str,
    back: str,
    grown: bool = False,
) -> HTMLResponse:
    return page(
        "confirm",
        user=user,
        here=here,
        title=title,
        texts=texts,
        trail=trail,
        action=action,
        fields=fields,
        button=button,
        back=back,
        grown=grown,
    )
