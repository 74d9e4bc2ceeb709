"""An organiser invites to an event and watches, retries and resolves until the event audit says yes."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.acceptance.books import directory
from tests.acceptance.processes import eventually
from tests.e2e.conftest import account
from tests.e2e.people import Person, Stage

pytestmark = pytest.mark.slow


def test_invite_and_follow_up(stage: Stage, ada: Person) -> None:
    """Dry run, invite, live progress, the failed deliveries, retry, resolve, and the event audit."""
    stage.bidden.import_lines(*directory(range(1, 41), range(38, 51)))
    account(stage.books.conn, "olga@bidden.example", "organiser", 1)
    stage.books.sink.set_rules(
        [
            {"do": "refuse_recipient", "recipient": "m3@*"},
            {"do": "drop_after_store", "recipient": "m5@*", "times": 1},
            {"do": "delay", "seconds": 0.4},
        ]
    )
    olga = stage.person("olga@bidden.example")
    olga.press("Workshop")
    olga.sees("Who would be invited now", "40 members", "53 mails")
    olga.page.get_by_role("link", name="Invite students…").click()
    olga.sees("Invite 40 members?")
    # A double click starts one batch (FM-31).
    olga.page.get_by_role("button", name="Invite 40 members").dblclick()
    olga.page.wait_for_url("**/batches/1")
    expect(olga.page.locator("main .state .chip")).to_have_text("running")
    olga.sees("per second")
    expect(olga.page.locator("main .state .chip")).to_have_text("completed")
    assert [olga.count(name) for name in ("sent", "pending", "failed", "unknown", "sum")] == ["38", "0", "1", "1", "40"]
    assert [row["id"] for row in stage.books.conn.execute("SELECT id FROM batches")] == [1]
    # The log is reloaded when the batch ends: nothing in it is pending.
    expect(olga.page.locator("#entries .chip.pending")).to_have_count(0)

    olga.page.get_by_label("Result").select_option("failed")
    expect(olga.page.locator("#entries tbody tr")).to_have_count(1)
    olga.sees("M3", "No such user")
    stage.books.sink.clear_rules()
    olga.page.get_by_role("link", name="Try the failed ones again…").click()
    olga.sees("Try 1 failed mail again?", "cannot be recalled")
    olga.press("Try 1 mail again")
    olga.sees("We will try 1 mail again.")
    olga.has_count("sent", "39")
    expect(olga.page.locator("main .state .chip")).to_have_text("completed")

    olga.page.get_by_label("Name, address or id").fill("m5@")
    expect(olga.page.locator("#entries tbody tr")).to_have_count(1)
    olga.page.locator("#entries summary").click()
    olga.page.locator("#entries").get_by_role("link", name="It arrived…").click()
    olga.press("Count 1 mail as sent")
    olga.sees("1 mail counts as arrived.")
    olga.has_count("sent", "40")

    olga.go("/events/1/audit?audience=students")
    olga.sees("Yes. Every eligible member was invited.")
    olga.press("Everyone")
    olga.sees("No: 13 mails are missing.")
    olga.press("Invite the missing members…")
    olga.press("Invite 13 members")
    olga.has_count("sent", "13")
    olga.go("/events/1/audit")
    olga.sees("Yes. Every eligible member was invited.")
    assert set(stage.books.mails().values()) == {1}
    assert len(stage.books.mails()) == 53


def test_stopped_in_the_middle(stage: Stage, ada: Person) -> None:
    """A batch is paused, resumed and cancelled; the event audit names the missing members, and they are invited."""
    stage.bidden.import_lines(*directory(range(1, 61)))
    stage.books.slow(0.8)
    ada.go("/events/1/invite?audience=students")
    ada.press("Invite 60 members")
    ada.page.wait_for_url("**/batches/1")
    ada.press("Pause")
    expect(ada.page.locator("main .state .chip")).to_have_text("paused")
    ada.press("Resume")
    expect(ada.page.locator("main .state .chip")).to_have_text("running")
    eventually(lambda: stage.books.sink.count() > 0, "the first mails have arrived")
    ada.press("Cancel…")
    ada.sees("Cancel this batch?")
    ada.press("Cancel the batch")
    expect(ada.page.locator("main .state .chip")).to_have_text("cancelled")
    ada.has_count("pending", "0")
    sent = int(ada.count("sent"))
    assert 0 < sent < 60
    ada.go("/events/1/audit?audience=students")
    ada.sees(f"No: {60 - sent} mails are missing.")
    assert ada.page.locator("table tbody tr").count() == 60 - sent
    stage.books.sink.clear_rules()
    ada.press("Invite the missing members…")
    ada.press(f"Invite {60 - sent} members")
    ada.has_count("sent", str(60 - sent))
    eventually(lambda: stage.books.sink.count() == 60, "each has one mail")
    stage.books.check()


def test_an_organiser_of_another_chapter(stage: Stage, ada: Person) -> None:
    """FM rule 6: no address shows them another chapter's event, batch or members."""
    stage.bidden.import_lines(
        *directory(range(1, 4)),
        {"type": "chapter", "id": 9, "name": "Elsewhere", "email": "e@example.org", "time_zone": "UTC"},
    )
    ada.go("/events/1/invite?audience=students")
    ada.press("Invite 3 members")
    ada.has_count("sent", "3")
    account(stage.books.conn, "eve@bidden.example", "organiser", 9)
    eve = stage.person("eve@bidden.example")
    eve.sees("There are no events in your chapters yet")
    for path in ("/events/1", "/events/1/audit", "/batches/1", "/batches/1/log.csv"):
        eve.go(path)
        eve.sees("Not found")
        assert "m1@example.org" not in eve.page.content()
    eve.go("/accounts")
    assert "Accounts" not in eve.page.inner_text("h1")
