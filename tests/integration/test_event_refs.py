"""A reference is accepted wherever an id of an event is: commands, API and site, by one rule."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cli import main as command_line
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, EXIT_REFUSED
from schemas.outcomes import Unknown
from tests.integration.calling import Program, organisers
from tests.integration.importing import CHAPTER, EVENT
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text

REF = "workshop/3668"


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Event 1 with a reference; event 2 of another chapter with one that begins with the same words."""
    scenario.build(students=[1, 2], coaches=[3], ref=REF)
    scenario.load(
        CHAPTER | {"id": 2, "name": "Berlin", "email": "b@example.org"},
        EVENT | {"id": 2, "chapter_ids": [2], "ref": f"{REF}/audit"},
    )
    return scenario


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    with open_site(database_url, scenario.conn) as opened:
        yield opened


def run(*arguments: str) -> int:
    """The command's exit code."""
    return command_line._run([*arguments], as_json="--json" in arguments)


COMMANDS = [
    ("why", "{}", "1"),
    ("audit", "{}"),
    ("resolve", "{}", "--unknown", "sent"),
    ("invite", "{}", "--audience", "students", "--dry-run"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands(
    scenario: Scenario,
    database_url: str,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the reference a command prints what it prints by the id, and says both to a person."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    scenario.agent().deliver(scenario.request(scenario.plan(), 1), Unknown("lost"))
    expected = EXIT_NEEDS_A_PERSON if command[0] == "audit" else EXIT_DONE
    if command[0] != "resolve":
        printed = []
        for named in ("1", REF):
            assert run(*(part.format(named) for part in command), "--json") == expected
            printed.append(json.loads(capsys.readouterr().out))
        assert printed[0] == printed[1]
    assert run(*(part.format(REF) for part in command)) == expected
    assert f"1 ({REF})" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_unknown_references(
    scenario: Scenario,
    database_url: str,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error, its field and the exit code are those of an unknown id; it names what was given."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    found = {}
    for named in ("99", "workshop/99", "3668"):
        assert run(*(part.format(named) for part in command), "--json") == EXIT_REFUSED
        found[named] = json.loads(capsys.readouterr().err)
        assert found[named]["detail"] == f"there is no event {named}"
        assert {**found[named], "detail": ""} == {**found["99"], "detail": ""}
    assert run(*(part.format("a b") for part in command), "--json") == EXIT_REFUSED
    assert json.loads(capsys.readouterr().err)["field"] == "event"


def test_a_resolve_is_audited_by_the_id(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit log has the event's id, by which it is found."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    scenario.agent().deliver(scenario.request(scenario.plan(), 1), Unknown("lost"))
    assert run("resolve", REF, "--unknown", "sent") == EXIT_DONE
    assert scenario.delivery(1)["state"] == "sent"
    assert scenario.execute("SELECT event_id, outcome FROM audit_log") == [{"event_id": 1, "outcome": "done"}]


@pytest.fixture
def planner(site: Site) -> Program:
    """A program of an organiser of the first chapter."""
    return organisers(site, 1)


@pytest.mark.parametrize("named", [REF, REF.replace("/", "%2F"), "%77orkshop/3668"])
def test_routes_of_the_api(planner: Program, named: str) -> None:
    """A slash may be written as it is, or as %2F; the answers name the event's id."""
    assert planner.get(f"/events/{named}") == planner.get("/events/1")
    assert planner.get(f"/events/{named}")["ref"] == REF
    for path in ("dry-run", "people?audience=students", "audit", "members/1/why"):
        assert planner.get(f"/events/{named}/{path}").keys() == planner.get(f"/events/1/{path}").keys()
    started = planner.post(f"/events/{named}/batches", {"audience": "students"}, 201, headers={"Idempotency-Key": "k"})
    assert (started["event_id"], started["planned"]) == (1, 2)
    assert planner.post(f"/events/{named}/resolve", {"verdict": "failed"})["resolved"] == 0
    assert [row["batch_id"] for row in planner.get(f"/batches?event={named}")["items"]] == [1]


def test_unknown_and_foreign_references_of_the_api(planner: Program, scenario: Scenario) -> None:
    """404 for all alike; a filter by an event that there is not finds nothing; an unknown parameter is named."""
    scenario.load(EVENT | {"id": 3, "chapter_ids": [2], "ref": "berlin/1"})
    problems = [planner.get(f"/events/{named}", 404) for named in ("workshop/99", "berlin/1", "99", "a%20b", "0")]
    assert all(problem["status"] == 404 for problem in problems)
    assert problems[0] == problems[1] == problems[2]
    planner.post("/events/workshop/99/resolve", {"verdict": "failed"}, 404)
    for named in ("workshop/99", "99", "0", "a%20b"):
        assert planner.get(f"/batches?event={named}")["items"] == []
    assert planner.get(f"/events/{REF}?audience=students", 422)["errors"][0]["where"] == "query.audience"
    assert [row["id"] for row in planner.get("/events?q=3668")["items"]] == [1]


def test_rights_before_bodies(site: Site) -> None:
    """FM-32: who may not see the event gets the 404 before the body is read, by its reference too."""
    stranger = organisers(site, 2)
    body = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    assert stranger.call("POST", f"/events/{REF}/resolve", **body).status_code == 404


def test_addresses_of_the_site(site: Site) -> None:
    """Typed with the reference they lead to the same page with the id, queries included; what follows is kept."""
    browser = site.organiser(1)
    for typed, place in {
        f"/events/{REF}": "/events/1",
        f"/events/{REF.replace('/', '%2F')}": "/events/1",
        f"/events/{REF}/people?audience=students&after=0": "/events/1/people?audience=students&after=0",
        f"/events/{REF}/mail/Student": "/events/1/mail/Student",
        f"/events/{REF}/%C3%A9%3F": "/events/1/%C3%A9%3F",
    }.items():
        response = browser.get(typed)
        assert (response.status_code, response.headers["location"]) == (303, place)
    # The longest reference counts, and that event is another chapter's.
    for typed in (
        f"/events/{REF}/audit",
        "/events/workshop/99",
        "/events/workshop",
        "/events/a%20b/c",
        "/events/%00/a",
    ):
        assert browser.get(typed).status_code == 404, typed
    assert site.browser().get(f"/events/{REF}").headers["location"].startswith("/sign-in?next=")


def test_a_reference_of_one_word(site: Site, scenario: Scenario) -> None:
    """It stands in an address as an id does."""
    scenario.load(EVENT | {"ref": "spring"})
    browser = site.organiser(1)
    assert "Workshop" in page_text(browser.get("/events/spring"))
    assert browser.get("/events/spring/audit").status_code == 200


def test_references_are_shown_and_found(site: Site, scenario: Scenario) -> None:
    """In the list of events, which is searched by them, on the event's page, and in the audit log with its filter."""
    admin = site.admin()
    assert REF in page_text(admin.get("/events?q=3668"))
    assert "Berlin" not in page_text(admin.get("/events?q=spring"))
    assert REF in page_text(admin.get("/events/1"))
    admin.post("/events/1/resolve", {"verdict": "sent"})
    for named in ("1", REF, f" {REF} "):
        assert f"event 1 ({REF})" in page_text(admin.get("/trail", params={"event": named}))
    for named in ("workshop/99", "a b", "0"):
        assert "resolve as sent" not in page_text(admin.get("/trail", params={"event": named}))
