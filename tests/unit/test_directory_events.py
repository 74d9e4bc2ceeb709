"""Events, invitations and deletions in the directory file, one case at a time."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.directory import Chapter, Deletion, Event, Invitation, Member, SubscriptionDeletion
from schemas.time_zones import known_time_zones, rails_time_zones
from tests.unit.directory_lines import CHAPTER, EVENT, INVITATION, MEMBER, SUBSCRIPTION, parse, refusal


@pytest.mark.parametrize("zone", ["Mars/Olympus", "europe/london", "../etc/passwd", "", "posix/Europe/London", 1])
def test_unknown_time_zones(zone: object) -> None:
    """Only the names of IANA and of Rails are time zones."""
    assert refusal(CHAPTER | {"time_zone": zone}).field == "time_zone"
    assert refusal(EVENT | {"time_zone": zone}).field == "time_zone"


def test_known_time_zones() -> None:
    """The usual names are known, the old ones and UTC too."""
    assert {"Europe/London", "Asia/Kolkata", "US/Eastern", "UTC"} <= known_time_zones()


def test_names_of_rails_are_names_of_iana() -> None:
    """Each of them stands for a time zone that there is here, so that no mail fails for it."""
    assert len(rails_time_zones()) == 151
    assert set(rails_time_zones().values()) <= known_time_zones()


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("London", "Europe/London"),
        ("Eastern Time (US & Canada)", "America/New_York"),
        ("Kyiv", "Europe/Kiev"),
        ("Nuku'alofa", "Pacific/Tongatapu"),
        ("Europe/Kyiv", "Europe/Kyiv"),
        # Names of both.
        ("UTC", "UTC"),
        ("Singapore", "Singapore"),
    ],
)
def test_time_zones_of_rails(name: str, stored: str) -> None:
    """They are stored as IANA names them; a name of IANA stays as it is."""
    chapter, event = parse(CHAPTER | {"time_zone": name}), parse(EVENT | {"time_zone": name})
    assert isinstance(chapter, Chapter)
    assert isinstance(event, Event)
    assert chapter.time_zone == event.time_zone == stored


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "meeting"}, "kind"),
        ({"role_policy": "both"}, "role_policy"),
        ({"chapter_ids": []}, "chapter_ids"),
        ({"chapter_ids": [1, 1]}, "chapter_ids"),
        ({"chapter_ids": [None]}, "chapter_ids"),
        ({"chapter_ids": 1}, "chapter_ids"),
        ({"ends_at": "2026-04-09T17:29:59Z"}, "ends_at"),
        ({"invitable": "yes"}, "invitable"),
        ({"invitable": 1}, "invitable"),
        ({"host": "The Engine Room"}, "host"),
        ({"host": {"name": "The Engine Room"}}, "host.address"),
        ({"host": {"name": "The Engine Room", "address": None}}, "host.address"),
        ({"host": {"name": "", "address": "here"}}, "host.name"),
        ({"host": {"name": "a", "address": "b", "floor": 3}}, "host.floor"),
        ({"deleted": True}, "deleted"),
        ({"deleted": False}, "deleted"),
    ],
)
def test_events_that_are_refused(fields: dict[str, Any], field: str) -> None:
    """Every rule of an event names its field."""
    assert refusal(EVENT | fields).field == field


def test_event_in_full() -> None:
    """All fields of an event are read; one that ends as it starts is no error."""
    event = parse(
        EVENT
        | {"ends_at": EVENT["starts_at"], "role_policy": "one", "chapter_ids": [3, 1], "time_zone": "Europe/Berlin"}
        | {"host": {"name": "a", "address": "b\nc"}, "cancelled_at": "2026-04-01T00:00Z", "description": ""}
    )
    assert isinstance(event, Event)
    assert event.chapter_ids == [3, 1]
    assert event.host is not None
    assert (event.host.address, event.role_policy) == ("b\nc", "one")


@pytest.mark.parametrize("token", ["a", "A-z_0~9.", "-", "x" * 200])
def test_tokens(token: str) -> None:
    """A token is what a link can contain unescaped."""
    invitation = parse(INVITATION | {"token": token})
    assert isinstance(invitation, Invitation)
    assert invitation.token == token


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(({"token": token}, "token") for token in ["", "..", "a b", "a/b", "a%20b", "ä", "a\n", "x" * 201, 7]),
        ({"role": "student"}, "role"),
        ({"role": "Participant"}, "role"),
        ({"attending": "yes"}, "attending"),
        ({"attending": 0}, "attending"),
    ],
)
def test_invitations_that_are_refused(fields: dict[str, Any], field: str) -> None:
    """Every rule of an invitation names its field."""
    assert refusal(INVITATION | fields).field == field


@pytest.mark.parametrize("kind", ["group", "member", "ban"])
def test_deletion_needs_the_key_alone(kind: str) -> None:
    """A deleted line needs its id; other known fields are ignored, whatever their value, unknown ones are not."""
    expected = Deletion.model_validate({"type": kind, "id": 7})
    assert parse({"type": kind, "id": 7, "deleted": True}) == expected
    ignored = {"group": "name", "member": "email", "ban": "expires_at"}[kind]
    assert parse({"type": kind, "id": 7, "deleted": True, ignored: [1]}) == expected
    assert refusal({"type": kind, "id": 7, "deleted": True, "nmae": 1}).field == "nmae"
    assert refusal({"type": kind, "deleted": True}).field == "id"
    assert refusal({"type": kind, "id": "7", "deleted": True}).field == "id"


def test_deletion_of_a_subscription() -> None:
    """A subscription's key is its member and its group."""
    assert parse(SUBSCRIPTION | {"deleted": True}) == SubscriptionDeletion(type="subscription", member_id=1, group_id=2)
    assert refusal({"type": "subscription", "member_id": 1, "deleted": True}).field == "group_id"


def test_deleted_is_a_truth_value() -> None:
    """False is an ordinary line; anything but true or false is refused rather than guessed."""
    assert isinstance(parse(MEMBER | {"deleted": False}), Member)
    for value in (1, "true", "yes"):
        assert refusal(MEMBER | {"deleted": value}).field == "deleted"
