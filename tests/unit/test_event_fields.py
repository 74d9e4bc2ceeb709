"""An event's reference, audience and answer pages in the directory file."""

from __future__ import annotations

import pytest

from schemas import limits
from schemas.directory import MAX_ID, Event
from schemas.event_fields import parse_event_name
from schemas.vocabulary import Audience
from tests.unit.directory_lines import EVENT, parse, refusal


def test_all_three_are_read() -> None:
    """As they are written; absent and null are unset."""
    event = parse(
        EVENT | {"ref": "workshop/3668", "audience": "students", "rsvp_url": "https://a.example/rsvp/{token}"}
    )
    assert isinstance(event, Event)
    assert (event.ref, event.audience) == ("workshop/3668", Audience.STUDENTS)
    assert event.rsvp_url == "https://a.example/rsvp/{token}"
    for nothing in (EVENT, EVENT | {"ref": None, "audience": None, "rsvp_url": None}):
        event = parse(nothing)
        assert isinstance(event, Event)
        assert (event.ref, event.audience, event.rsvp_url) == (None, None, None)


@pytest.mark.parametrize("ref", ["a", "3668a", "workshop/3668", "Frühling#1", "a?b=%2F", "é" * limits.EVENT_REF])
def test_references(ref: str) -> None:
    """Anything that can be printed and is one word."""
    event = parse(EVENT | {"ref": ref})
    assert isinstance(event, Event)
    assert event.ref == ref


@pytest.mark.parametrize(
    "ref",
    [
        *("", "3668", "٣", "a b", "a\n", "a\u00a0b", "a\u200bb", "\x00", "a" * (limits.EVENT_REF + 1), 3668),
        *("-a", "/a", "a/", "a//b", "a/../b", "."),
    ],
)
def test_no_references(ref: object) -> None:
    """What could be taken for an id or an option, or changed on the way in an address, is refused by its field."""
    assert refusal(EVENT | {"ref": ref}).field == "ref"


@pytest.mark.parametrize("audience", ["", "Students", "nobody", 1])
def test_no_audiences(audience: object) -> None:
    """The words of `bidden invite --audience`, and no other."""
    assert refusal(EVENT | {"audience": audience}).field == "audience"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:3000/{token}",
        "https://a.example/invitations/{token}/accept?from=mail&lang=en",
        "https://a.example/?token={token}",
        "https://a.example/#/rsvp/{token}",
        "https://a.example/{token}".ljust(limits.RSVP_URL, "x"),
    ],
)
def test_answer_pages(url: str) -> None:
    """An absolute address with the token anywhere behind the host."""
    event = parse(EVENT | {"rsvp_url": url})
    assert isinstance(event, Event)
    assert event.rsvp_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://a.example/",
        "https://a.example/{token}/{token}",
        "https://a.example/{token}/{id}",
        "https://a.example/{{token}}",
        "https://{token}.example/",
        "https://a.example:{token}/",
        "//a.example/{token}",
        "/rsvp/{token}",
        "ftp://a.example/{token}",
        "javascript:alert(1)//{token}",
        "https:///{token}",
        "https://user:secret@a.example/{token}",
        "https://a.example:port/{token}",
        "https://[/{token}",
        "https://a.example/a b/{token}",
        'https://a.example/"{token}',
        "https://a.example/<{token}>",
        "https://bücher.example/{token}",
        "https://a.example/{token}\n",
        "https://a.example/{token}".ljust(limits.RSVP_URL + 1, "x"),
        1,
    ],
)
def test_no_answer_pages(url: object) -> None:
    """What no mail could link to, or what would not hold the token, is refused by its field."""
    assert refusal(EVENT | {"rsvp_url": url}).field == "rsvp_url"


def test_which_audiences_hold_which() -> None:
    """Students and coaches are each narrower than everyone, and neither is within the other."""
    within = {(a, b) for a in Audience for b in Audience if b.includes(a)}
    assert within == {(a, a) for a in Audience} | {(a, Audience.EVERYONE) for a in Audience}


@pytest.mark.parametrize(
    ("text", "named"),
    [("42", 42), ("042", 42), (str(MAX_ID), MAX_ID), ("workshop/3668", "workshop/3668"), ("1.0", "1.0"), ("4a", "4a")],
)
def test_what_names_an_event(text: str, named: int | str) -> None:
    """Digits alone are an id, any other word a reference."""
    assert parse_event_name(text) == named


@pytest.mark.parametrize("text", ["", "0", "00", str(MAX_ID + 1), "9" * 5000, "٣", "a b", "-1", "a/", "\0"])
def test_what_names_none(text: str) -> None:
    """An id that is none is not taken for a reference."""
    with pytest.raises(ValueError, match="must"):
        parse_event_name(text)
