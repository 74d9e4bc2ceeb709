"""Every page by keyboard, on a phone, in light and dark, and for screen readers (WCAG 2.2 AA, checked by axe)."""

from __future__ import annotations

import os
from itertools import product
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.acceptance.books import directory
from tests.e2e.people import Person, Stage
from tests.integration.importing import member
from tests.tables import ROOT

pytestmark = pytest.mark.slow

#: The address of each page, and a selector of what must be loaded before it is checked.
PAGES: Final = {
    "events": ("/events", "table"),
    "event": ("/events/1", ".cards"),
    "candidates": ("/events/1/people?audience=students&reason=banned", "h1"),
    "invite": ("/events/2/invite?audience=everyone", "form button"),
    "batch": ("/batches/1", "#entries table"),
    "batches": ("/batches", "table"),
    "cancel": ("/batches/1/cancel", "form button"),
    "audit": ("/events/1/audit", ".counts"),
    "mail": ("/events/1/mail/Student", "iframe"),
    "members": ("/members?q=m3", "table"),
    "member": ("/members/3", "table"),
    "dead letters": ("/letters", "h1"),
    "directory": ("/directory", "form button"),
    "accounts": ("/accounts", "table"),
    "account": ("/accounts/1", "form button"),
    "own account": ("/account", "form button"),
    "clients": ("/clients", "form button"),
    "audit log": ("/trail", "table"),
}


_LONG_AGO: Final = "2020-01-01T00:00:00Z"


@pytest.fixture
def admin_with_data(stage: Stage, ada: Person) -> Person:
    """An admin, on a site with a batch that has sent, failed and unknown mails."""
    lines = [
        line
        for line in directory(range(1, 60), range(55, 70), events=2)
        if line != member(1, accepted_toc_at=_LONG_AGO)
    ]
    lines.append({"type": "ban", "id": 1, "member_id": 20, "permanent": True})
    # A long name must not widen the page.
    lines.append(member(1, name="Wolfeschlegelsteinhausenbergerdorff" * 2, surname="x" * 60, accepted_toc_at=_LONG_AGO))
    stage.bidden.import_lines(*lines)
    stage.books.sink.set_rules(
        [
            {"do": "refuse_recipient", "recipient": "m3@*"},
            {"do": "drop_after_store", "recipient": "m5@*", "times": 1},
        ]
    )
    stage.bidden.invite("everyone", "--wait", code=1)
    stage.books.sink.clear_rules()
    return ada


def test_every_page_is_accessible(stage: Stage, admin_with_data: Person) -> None:
    """Axe finds no violation on any page, and no page is wider than a phone's screen."""
    found = {}
    for phone, dark in product((False, True), (False, True)):
        kind = f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
        person = stage.person("ada@bidden.example", phone=phone, dark=dark)
        for name, (path, selector) in PAGES.items():
            person.go(path)
            expect(person.page.locator(f"main {selector}").first).to_be_visible()
            barriers = person.barriers()
            width = person.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if width > 0:
                barriers.append(f"{width} pixels wider than the screen")
            if barriers:
                found[f"{name}-{kind}"] = barriers
            if os.environ.get("BIDDEN_TEST_SCREENSHOTS"):
                folder = ROOT / os.environ["BIDDEN_TEST_SCREENSHOTS"]
                person.page.screenshot(path=folder / f"{name}-{kind}.png", full_page=True)
    assert found == {}


def test_the_sign_in_page_is_accessible(stage: Stage) -> None:
    """The sign-in page, and its error after a wrong password."""
    person = stage.person()
    person.sign_in("nobody@bidden.example")
    expect(person.page.get_by_role("alert")).to_contain_text("Wrong e-mail address or password")
    assert person.barriers() == []
    person.page.evaluate("document.querySelector('label').remove()")
    assert person.barriers() != [], "axe finds nothing at all"


def test_by_keyboard_alone(stage: Stage, admin_with_data: Person) -> None:
    """From the sign-in to a running batch, with Tab and Enter."""
    person = stage.person()
    keys = person.page.keyboard
    person.go("/sign-in")
    for word in ("ada@bidden.example", "correct horse battery"):
        keys.press("Tab")
        keys.type(word)
    keys.press("Enter")
    person.sees("Events")
    keys.press("Tab")
    expect(person.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    person.go("/events/2/invite?audience=coaches")
    for _ in range(40):
        keys.press("Tab")
        if person.page.evaluate("document.activeElement.innerText").startswith("Invite "):
            break
    keys.press("Enter")
    person.page.wait_for_url("**/batches/2")
    person.has_count("pending", "0")
