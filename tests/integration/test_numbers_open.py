"""Every number leads to the names behind it, of own chapters only, and downloads as a table with the reasons."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import pytest

from schemas.outcomes import Failed
from tests.fuzzing import run
from tests.integration.importing import CHAPTER, EVENT, STUDENTS, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from tests.integration.test_planning import ban


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """A joint event: students 1 to 4 of London, of whom 4 is banned, and 5 of Berlin. 1 was mailed, 2 and 5 failed."""
    scenario.build(students=[1, 2, 3, 4]).load(
        CHAPTER | {"id": 2, "name": "Berlin"},
        STUDENTS | {"id": 3, "chapter_id": 2},
        member(5, accepted_toc_at=TERMS_ACCEPTED),
        subscription(5, 3),
        ban(1, 4, permanent=True),
        EVENT | {"chapter_ids": [1, 2]},
    )
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    for number in (2, 5):
        agent.deliver(scenario.request(batch, number), Failed("550 no"))
    scenario.load(member(6, accepted_toc_at=TERMS_ACCEPTED), subscription(6, 1))
    with open_site(database_url, scenario.conn) as site:
        yield site


def table(browser: Browser, path: str) -> list[dict[str, str]]:
    """A file that was downloaded."""
    answer = browser.get(path)
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xef\xbb\xbf"), "Excel needs a BOM"
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_the_numbers_of_an_audit(site: Site) -> None:
    """Failed, missing and all others lead to names; what is not certain is named; the file is dated."""
    london, admin = site.organiser(1), site.admin()
    answer = london.get("/events/1/audit/answer")
    paths = set(re.findall(r'href="(/events/1/audit/people[^"]+)"', answer.text.replace("&amp;", "&")))
    assert {path.rpartition("status=")[2] for path in paths if "status" in path} == {
        "sent", "failed", "missing", "pending"
    }  # fmt: skip
    failed = page_text(london.get("/events/1/audit/people?audience=students&status=failed"))
    assert "M2 m2@example.org student failed 550 no" in failed
    assert "M5" not in failed
    assert "M6" in page_text(london.get("/events/1/audit/people?status=missing"))
    assert [row["member_id"] for row in table(admin, "/events/1/audit.csv?status=failed")] == ["2", "5"]
    rows = table(london, "/events/1/audit.csv")
    assert [(row["member_id"], row["status"]) for row in rows] == [
        ("1", "sent"), ("2", "failed"), ("3", "pending"), ("6", "missing")
    ]  # fmt: skip
    assert all(row["as_of"][:4] > "2024" and row["event"] == "Workshop" for row in rows)
    assert "as of" in page_text(answer)


def test_the_missing_do_not_stop_at_500(site: Site, scenario: Scenario) -> None:
    """All are on pages and in the file."""
    scenario.load(
        *(member(n, accepted_toc_at=TERMS_ACCEPTED) for n in range(1000, 1520)),
        *(subscription(n, 1) for n in range(1000, 1520)),
    )
    admin = site.admin()
    assert "Only the first 500 are shown. All of them · Download as CSV" in page_text(
        admin.get("/events/1/audit/answer")
    )
    assert len(table(admin, "/events/1/audit.csv?status=missing")) == 521
    seen, path = 0, "/events/1/audit/people?status=missing"
    while path:
        page = admin.get(path).text
        seen += page.count('scope="row"')
        found = re.findall(r'class="pages"[^>]*><a href="([^"]+)"', page)
        path = found[0].replace("&amp;", "&") if found else ""
    assert seen == 521


def test_the_numbers_of_a_batch(site: Site) -> None:
    """Each leads to its names; the file has who was left out, with the reason, and the filter in force."""
    london = site.organiser(1)
    page = london.get("/batches/1").text
    for status in ("sent", "failed", "pending"):
        assert f'href="/batches/1?status={status}#entries-title"' in page
    assert 'href="/batches/1/entries?status=left_out&amp;reason=banned"' in page
    assert "M4" in page_text(london.get("/batches/1/entries?status=left_out&reason=banned"))
    assert "M4" not in page_text(london.get("/batches/1/entries?status=left_out&reason=declined"))
    rows = table(london, "/batches/1/log.csv")
    assert [(row["member_id"], row["status"], row["reason"]) for row in rows] == [
        ("1", "sent", ""), ("2", "failed", "550 no"), ("3", "pending", ""), ("4", "left out", "banned")
    ]  # fmt: skip
    filtered = london.get("/batches/1/entries?status=failed&q=m2").text
    assert 'href="/batches/1/log.csv?q=m2&amp;status=failed"' in filtered
    assert [row["member_id"] for row in table(london, "/batches/1/log.csv?q=m2&status=failed")] == ["2"]
    assert (
        "bidden-batch-1-failed-search.csv"
        in (london.get("/batches/1/log.csv?q=m2&status=failed").headers["content-disposition"])
    )


def test_the_numbers_of_a_dry_run(site: Site) -> None:
    """Who would be invited, and who not for a reason, as a file."""
    london = site.organiser(1)
    assert [row["member_id"] for row in table(london, "/events/1/people.csv?reason=banned")] == ["4"]
    assert [row["member_id"] for row in table(london, "/events/1/people.csv")] == ["2", "3", "6"]
    assert "/events/1/people.csv" in london.get("/events/1/people").text


@pytest.mark.usefixtures("site")
def test_the_audit_as_a_table(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bidden audit --csv` has every delivery of the audit, of one moment; its exit code is that of the audit."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    result = run("audit", "1", "--csv")
    assert (result.code, result.err) == (1, "")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [(row["member_id"], row["role"], row["status"]) for row in rows] == [
        ("1", "Student", "sent"), ("2", "Student", "failed"), ("3", "Student", "pending"),
        ("5", "Student", "failed"), ("6", "Student", "missing"),
    ]  # fmt: skip
    assert len({row["as_of"] for row in rows}) == 1
