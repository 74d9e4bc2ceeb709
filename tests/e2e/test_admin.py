"""The pages besides events: directory, mail preview, members, dead letters, system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from playwright.sync_api import expect

from config.kafka import client_config
from config.settings import Settings
from tests.acceptance.books import directory
from tests.acceptance.processes import eventually
from tests.e2e.people import Person, Stage
from tests.integration.snapshots import set_aside, snapshot

pytestmark = pytest.mark.slow


def import_by_page(person: Person, file: Path) -> None:
    """Uploads the file."""
    person.go("/directory")
    person.page.get_by_label("Directory file").set_input_files(file)
    person.press("Import")


def test_an_admins_pages(stage: Stage, ada: Person, settings: Settings, tmp_path: Path) -> None:
    """Imports a directory, previews a mail, sends a test mail, finds a member, and redrives a dead letter."""
    file = tmp_path / "directory.jsonl"
    lines = [json.dumps(line) for line in directory(range(1, 11))]
    file.write_text("\n".join([*lines, "no JSON"]))
    import_by_page(ada, file)
    ada.sees("Nothing was written.", f"line {len(lines) + 1}")
    assert ada.barriers() == []
    file.write_text("\n".join(lines))
    import_by_page(ada, file)
    ada.sees("directory.jsonl was imported.")
    assert ada.barriers() == []

    ada.go("/events/1")
    ada.press("For students")
    expect(ada.page.frame_locator("iframe.mail").locator("body")).to_contain_text("Hello Ada,")
    button = ada.page.frame_locator("iframe.mail").get_by_role("link", name="Answer this invitation")
    expect(button).to_have_css("background-color", "rgb(31, 95, 191)")
    assert ada.barriers() == []
    ada.press("Send me a test mail")
    ada.sees("Done: sent to ada@bidden.example")
    assert [mail.recipients for mail in stage.books.sink.mails()] == [("ada@bidden.example",)]

    producer = Producer(client_config(settings, "test"), logger=None)
    producer.produce(settings.invitations_topic, b"\xff poison", b"1")
    assert producer.flush(30) == 0
    ada.go("/letters")

    def is_listed() -> bool:
        ada.page.reload()
        return ada.page.locator("tbody tr").count() == 1

    eventually(is_listed, "the dead letter is listed")
    assert ada.barriers() == []
    ada.page.get_by_role("link", name="0:0", exact=True).click()
    ada.sees(r"\xff poison", "ff 20 70 6f")
    assert ada.barriers() == []
    ada.press("Redrive…")
    ada.sees("Redrive 1 dead letter?")
    assert ada.barriers() == []
    ada.press("Redrive 1 dead letter")
    ada.sees("Done: 1 dead letter redriven.", "redriven")

    ada.go("/members")
    ada.page.get_by_label("Name, address or id").fill("m3@")
    ada.press("Search")
    assert ada.barriers() == []
    ada.page.get_by_role("cell", name="m3@").locator("xpath=..").get_by_role("link").click()
    ada.sees("Upcoming events", "Yes.")
    assert ada.barriers() == []


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)])
def test_the_system(stage: Stage, ada: Person, phone: bool, dark: bool) -> None:
    """Servers and lag are loaded by themselves, the checks on request; also on a phone and in dark mode."""
    person = stage.person("ada@bidden.example", phone=phone, dark=dark)
    person.go("/system")
    person.sees("PostgreSQL", "1 dispatcher is running", "Total lag: 0 messages. 1 worker is running.")
    person.press("Run checks")
    person.sees("All checks passed.")
    assert person.barriers() == []
    width = person.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)])
def test_the_source(stage: Stage, ada: Person, phone: bool, dark: bool) -> None:
    """What the newest snapshot read, changed and set aside, and why there is no newer one; no barrier on the page."""
    conn = stage.books.conn
    stage.bidden.import_lines(*directory(range(1, 11)))
    snapshot(conn, age=600, problem="the query member fails in the source: column m.surname does not exist")
    set_aside(conn, "member", "7", "must be an address like name@example.org", field="email", member=7)
    set_aside(
        conn, "subscription", "7/1", "member 7 was set aside, or is not in the source", field="member_id", member=7
    )
    person = stage.person("ada@bidden.example", phone=phone, dark=dark)
    person.go("/directory")
    person.sees("Sending waits for a newer snapshot.", "column m.surname does not exist", "2 lines were set aside")
    assert person.barriers() == []
    person.go("/events/1")
    person.sees("Sending waits for the directory, which was last read at")
    assert person.barriers() == []
    batch = stage.bidden.run("invite", "1", "--audience", "students", "--json").json["batch_id"]
    person.go(f"/batches/{batch}")
    person.sees("0 of 10 mails", "Sending waits for the directory")
    assert person.barriers() == []
    snapshot(conn, limit=3600)
    person.sees("10 mails, ended")
    assert person.errors == []
