"""Uploading a directory file: all of it is imported or, with an invalid line, nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from db.connect import Connection
from tests.integration.importing import BASE, member, rows
from tests.integration.site import Browser, Site, open_site, page_text
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
