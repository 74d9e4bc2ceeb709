"""What is refused before anything is written: pure decisions on a trigger."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from db.planning import EventFacts
from producers.plan import PlanResult, audiences, parse_audience, refusal
from schemas.errors import EXIT_REFUSED, RefusedError
from schemas.vocabulary import Audience, EventKind, Role

FINE = EventFacts(
    event_id=1,
    kind="workshop",
    name="Workshop",
    is_past=False,
    invitable=True,
    is_cancelled=False,
    has_host=True,
    role_policy="each",
)


@pytest.mark.parametrize("text", ["nobody", "", "Students", "students ", "all", "STUDENTS", "student"])
def test_an_unknown_audience_is_refused(text: str) -> None:
    """FM-32: the error names what was said and what there is."""
    with pytest.raises(RefusedError, match="choose one of students, coaches, everyone") as caught:
        parse_audience(text)
    assert caught.value.field == "audience"
    assert caught.value.exit_code == EXIT_REFUSED
    assert repr(text) in caught.value.detail


@pytest.mark.parametrize("audience", list(Audience))
def test_a_known_audience_is_read(audience: Audience) -> None:
    """Each audience by its word, with its roles."""
    assert parse_audience(audience.value) is audience
    assert set(audience.roles) <= set(Role)
    assert (len(audience.roles) == 2) == (audience is Audience.EVERYONE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"is_cancelled": True}, "is cancelled"),
        ({"is_past": True}, "does not lie in the future"),
        ({"invitable": False}, "is not marked as invitable"),
        ({"has_host": False}, "has no host: an invitation could not say where it takes place"),
        ({"has_host": False, "kind": "event"}, "has no host: an invitation could not say where it takes place"),
        ({"has_host": False, "kind": "virtual_workshop"}, None),
        ({"is_cancelled": True, "is_past": True, "invitable": False}, "is cancelled"),
    ],
)
def test_why_nobody_may_be_invited(change: dict[str, object], why: str | None) -> None:
    """FM-32: cancelled, past, closed, without host (unless virtual): the first reason that applies."""
    assert refusal(replace(FINE, **change)) == why  # type: ignore[arg-type]


@given(
    st.builds(
        EventFacts,
        event_id=st.just(1),
        kind=st.sampled_from([kind.value for kind in EventKind]),
        name=st.text(),
        is_past=st.booleans(),
        invitable=st.booleans(),
        is_cancelled=st.booleans(),
        has_host=st.booleans(),
        role_policy=st.sampled_from(["each", "one"]),
    )
)
def test_only_what_is_fine_is_not_refused(event: EventFacts) -> None:
    """FM-32: an event is accepted exactly when nothing at all stands against it."""
    hosted = event.has_host or event.kind == "virtual_workshop"
    fine = hosted and event.invitable and not event.is_past and not event.is_cancelled
    assert (refusal(event) is None) == fine


@pytest.mark.parametrize("kind", list(EventKind))
def test_precedence_names_each_role_once(kind: EventKind) -> None:
    """Workshops prefer students, events coaches; both roles always have a place."""
    assert sorted(kind.precedence) == sorted(Role)
    assert kind.precedence[0] == (Role.COACH if kind is EventKind.EVENT else Role.STUDENT)


def test_the_answer_of_a_trigger() -> None:
    """The object that scripts read has the contract's fields."""
    assert PlanResult(1, "students", planned=2, deliveries=2, batch_id=3, state="running").as_dict() == {
        "batch_id": 3,
        "event_id": 1,
        "audience": "students",
        "state": "running",
        "planned": 2,
        "deliveries": 2,
        "excluded": {},
        "already_triggered": False,
        "planning": False,
    }


def test_a_dry_run_of_nobody_is_empty_too() -> None:
    """There is no batch, and nobody would be invited."""
    assert PlanResult(1, "students", planned=0, deliveries=0).is_empty
    assert not PlanResult(1, "students", planned=1, deliveries=1).is_empty
    assert not PlanResult(1, "students", planned=0, deliveries=0, batch_id=1).is_empty


@pytest.mark.parametrize(
    ("own", "allowed"),
    [
        (None, list(Audience)),
        ("everyone", list(Audience)),
        ("students", [Audience.STUDENTS]),
        ("coaches", [Audience.COACHES]),
    ],
)
def test_a_wider_audience_than_the_events_own(own: str | None, allowed: list[Audience]) -> None:
    """The event's own audience and narrower ones are planned, others are refused; the event's own reasons go first."""
    event = replace(FINE, audience=own)
    assert audiences(event) == allowed
    refused = {audience: refusal(event, audience) for audience in Audience}
    assert refused == {audience: None if audience in allowed else f"is for {own} alone" for audience in Audience}
    assert refusal(event) is None
    assert {refusal(replace(event, is_past=True), audience) for audience in Audience} == {"does not lie in the future"}
