"""Uploading a directory file: all of it is imported or, with an invalid line, nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from db.connect import Connection
from tests.integration.importing import BASE, member, rows
from tests.integration.scenario import Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from tests.integration.snapshots import set_aside, snapshot
from web.pages import directory


@pytest.fixture
def site(conn: Connection, database_url: str) -> Iterator[Site]:
    """A site without a directory."""
    with open_site(database_url, conn) as site:
        yield site


def upload(browser: Browser, *lines: dict[str, Any] | bytes, name: str = "directory.jsonl") -> Any:
    """Upload a file with these lines."""
    content = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return browser.post("/directory", files={"file": (name, content)})


def members(conn: Connection) -> int:
    """The number of members."""
    ((count,),) = rows(conn, "SELECT count(*) FROM members")
    number: int = count
    return number


def test_import(site: Site, conn: Connection) -> None:
    """The file is imported, the page shows the lines by type, and the audit log the actor."""
    browser = site.admin()
    assert 'enctype="multipart/form-data"' in browser.get("/directory").text
    answer = upload(browser, *BASE, name="<b>.jsonl")
    assert answer.status_code == 200
    text = page_text(answer)
    assert "&lt;b&gt;.jsonl was imported." in text
    assert "member 2" in text
    assert "group 2" in text
    assert members(conn) == 2
    assert rows(conn, "SELECT actor, action, detail, outcome FROM audit_log") == [
        ("Ada <ada@bidden.example>", "import", "<b>.jsonl; 1 chapter, 2 groups, 2 members, 1 event", "done")
    ]


def test_an_invalid_line(site: Site, conn: Connection) -> None:
    """The page shows line, field and problem; nothing is written."""
    answer = upload(site.admin(), *BASE, member(3, email=7))
    assert answer.status_code == 422
    text = page_text(answer)
    assert "Nothing was written." in text
    assert "line 7" in text
    assert "field email" in text
    assert "email must be text" in text
    assert members(conn) == 0
    assert rows(conn, "SELECT outcome FROM audit_log") == [("refused",)]


def test_many_invalid_lines(site: Site, conn: Connection) -> None:
    """C18: the page lists them all, up to 20, and counts the others."""
    text = page_text(upload(site.admin(), *BASE, *[member(n, email=7) for n in range(3, 28)]))
    assert "line 7" in text
    assert text.count("email must be text") == 20
    assert "line 26, field" in text
    assert "line 27" not in text
    assert "And 5 more." in text
    assert members(conn) == 0


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no JSON", b"\x00" * 10])
def test_no_directory_file(site: Site, content: bytes) -> None:
    """Other files are refused at their first line."""
    answer = upload(site.admin(), content)
    assert answer.status_code == 422
    assert "line 1" in page_text(answer)


def test_a_large_file(site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is spooled to disk, read once, and its temporary file closed."""
    opened: list[tempfile.SpooledTemporaryFile[bytes]] = []
    real = tempfile.SpooledTemporaryFile

    def open_one(*args: Any, **options: Any) -> tempfile.SpooledTemporaryFile[bytes]:
        opened.append(real(*args, **options))
        return opened[-1]

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", open_one)
    lines = [member(number, name="x" * 200) for number in range(1, 12_001)]
    answer = upload(site.admin(), *BASE[:3], *lines)
    assert answer.status_code == 200
    assert members(conn) == 12_000
    (file,) = opened
    assert file._rolled  # type: ignore[attr-defined] # that it was on disk shows nowhere else
    assert file.closed


def test_too_large(site: Site, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the limit, or of unknown size, is refused before it is read."""
    monkeypatch.setattr(directory, "MAX_BYTES", 100)
    browser = site.admin()
    answer = upload(browser, *BASE)
    assert answer.status_code == 413
    chunked = browser.client.post("/directory", content=iter([b"x"]), headers={"content-type": "multipart/form-data"})
    assert chunked.status_code == 411
    assert members(conn) == 0


def test_nothing_chosen(site: Site) -> None:
    """The form without a file, or with text in its place."""
    browser = site.admin()
    for answer in (browser.post("/directory"), browser.post("/directory", {"file": "text"}), upload(browser, name="")):
        assert answer.status_code == 422
        assert "Choose a file first" in page_text(answer)


def test_one_at_a_time(site: Site) -> None:
    """A second import is refused while another is running."""
    with directory._import_lock:
        answer = upload(site.admin(), *BASE)
    assert answer.status_code == 409
    assert "another file is being imported" in page_text(answer)


def test_for_admins_only(site: Site, conn: Connection) -> None:
    """An organiser, an anonymous user and a form without CSRF token are refused."""
    organiser = site.organiser()
    assert organiser.get("/directory").status_code == 403
    assert upload(organiser, *BASE).status_code == 403
    assert upload(site.browser(), *BASE).status_code == 303
    file = {"file": ("directory.jsonl", json.dumps(BASE[0]).encode())}
    assert site.admin().client.post("/directory", files=file).status_code == 403
    assert rows(conn, "SELECT * FROM chapters") == []


def test_without_a_source(site: Site) -> None:
    """The page is the form alone."""
    assert "snapshot" not in page_text(site.admin().get("/directory"))


def test_the_newest_snapshot(site: Site, conn: Connection) -> None:
    """When it was taken, what it read and changed, and the lines that it set aside, as text."""
    snapshot(conn, age=1200, limit=3600)
    set_aside(conn, "member", "7", "<b>none</b> is no address", field="email", member=7)
    text = page_text(site.admin().get("/directory"))
    assert "20 min ago; it may be up to 60 min old." in text
    assert "member 2 0 1 0" in text
    assert "chapter 2 0 0 0 group 2 0 0 0" in text
    assert "1 line was set aside" in text
    assert "member 7 email &lt;b&gt;none&lt;/b&gt; is no address" in text
    assert "Sending waits" not in text


def test_many_lines_set_aside(site: Site, conn: Connection) -> None:
    """The page names the first, and how many more there are."""
    snapshot(conn)
    for number in range(1, directory.LINES_SHOWN + 4):
        set_aside(conn, "member", str(number), "x", member=number)
    text = page_text(site.admin().get("/directory"))
    assert "103 lines were set aside" in text
    assert f"member {directory.LINES_SHOWN} " in text
    assert f"member {directory.LINES_SHOWN + 1} " not in text
    assert "And 3 more" in text


def test_a_stale_snapshot(site: Site, conn: Connection) -> None:
    """The page says that sending waits, and why no newer one was taken."""
    snapshot(conn, age=600, problem="the query member fails in the source: <i>")
    text = page_text(site.admin().get("/directory"))
    assert "Sending waits for a newer snapshot." in text
    assert "10 min ago; it may be up to 60 s old." in text
    assert "the query member fails in the source: &lt;i&gt;" in text


def test_pages_say_that_sending_waits(site: Site, conn: Connection, scenario: Scenario) -> None:
    """An event and a batch under way do, while the snapshot is too old; to an organiser, too."""
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    browser = site.organiser(1)
    snapshot(conn, age=20)
    for path in ("/events/1", f"/batches/{batch}"):
        assert "Sending waits" not in page_text(browser.get(path))
    snapshot(conn, age=61)
    for path in ("/events/1", f"/batches/{batch}"):
        text = page_text(browser.get(path))
        assert "Sending waits for the directory, which was last read at" in text
        assert "An admin can see why." in text
    set_aside(conn, "member", "9", "is no address", field="email", member=9)
    text = page_text(browser.get("/events/1/audit/answer"))
    assert "1 member is not counted: the source has them" in text
    assert "Which, and why" not in text
    snapshot(conn, age=61, limit=None)
    assert "Sending waits" not in page_text(browser.get("/events/1"))


def test_pages_say_that_a_batch_is_being_placed(site: Site, conn: Connection, scenario: Scenario) -> None:
    """FM-45: the batch and the directory do, while the source is yet to get its invitations."""
    snapshot(conn, limit=None)
    scenario.execute("UPDATE directory_source SET places = true")
    scenario.build(students=[1, 2], coaches=[3])
    batch = scenario.plan()
    admin = site.admin()
    assert "Your own system gets the invitations first" in page_text(admin.get(f"/batches/{batch}"))
    assert "1 batch waits until the source has the invitations" in page_text(admin.get("/directory"))
    scenario.execute("UPDATE batches SET needs_placing = false")
    assert "until the source has" not in page_text(admin.get("/directory"))
    other = scenario.plan("coaches")
    scenario.execute("UPDATE batches SET needs_placing = false")
    assert "invitations first" not in page_text(admin.get(f"/batches/{other}"))
