"""The API as a program uses it: events, batches, decisions, paging, and errors as problem details."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from db import accounts
from schemas.errors import RefusedError
from schemas.outcomes import Failed, Unknown
from tests.integration.calling import PATH, Program, organisers, program
from tests.integration.importing import CHAPTER, EVENT, STUDENTS, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Site, open_site
from tests.integration.snapshots import set_aside
from web.auth.api_clients import ApiScope, create_client, require_webhook_url


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Three students, two coaches, one member of both lists, in chapter 1; event 1."""
    scenario.build(students=[1, 2, 3], coaches=[4, 5], both=[6])
    with open_site(database_url, scenario.conn) as site:
        yield site


@pytest.fixture
def planner(site: Site) -> Program:
    """A client of an organiser of chapter 1, with every scope that they may have."""
    return organisers(site, 1)


def problem_of(response: Response, status: int) -> dict[str, Any]:
    """The problem details of an error response."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["type"] == "about:blank"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"].endswith(".")
    return found


def with_chapter_two(scenario: Scenario) -> None:
    """Chapter 2 with student 20; event 2 of both chapters, event 3 of chapter 2 only."""
    second = {"id": 2, "name": "Paris", "email": "paris@example.org", "time_zone": "Europe/Paris"}
    scenario.load(
        CHAPTER | second,
        STUDENTS | {"id": 20, "chapter_id": 2},
        member(20, accepted_toc_at=TERMS_ACCEPTED),
        subscription(20, 20),
        EVENT | {"id": 2, "name": "Together", "chapter_ids": [1, 2]},
        EVENT | {"id": 3, "name": "Theirs", "chapter_ids": [2]},
    )


def test_from_events_to_a_batch(planner: Program, scenario: Scenario) -> None:
    """A planner finds its event, makes a dry run, invites, and reads the log."""
    (event,) = planner.get("/events?q=work")["items"]
    assert (event["id"], event["state"], event["why_not"]) == (1, "not invited yet", None)
    assert event["chapters"] == [{"id": 1, "name": "London"}]
    numbers = planner.get("/events/1/dry-run?audience=students")
    assert (numbers["planned"], numbers["deliveries"]) == (4, 4)
    people = planner.get("/events/1/people?audience=students")
    assert [row["member_id"] for row in people["items"]] == [1, 2, 3, 6]
    assert (people["next"], people["some_hidden"]) == (None, False)
    started = planner.invite()
    assert (started["planned"], started["deliveries"], started["already_triggered"]) == (6, 7, False)
    (listed,) = planner.get("/batches?event=1")["items"]
    assert listed["initiator"] == "Olga <olga@bidden.example> by planner"
    batch = planner.get("/batches/1")
    assert (batch["state"], batch["pending"], batch["error"]) == ("running", 7, None)
    entries = planner.get("/batches/1/entries?q=6")
    assert [(row["member_id"], row["role"], row["status"]) for row in entries["items"]] == [
        (6, "Coach", "pending"),
        (6, "Student", "pending"),
    ]
    why = planner.get("/events/1/members/1/why")
    assert (why["eligible"], [row["status"] for row in why["deliveries"]]) == (True, ["pending"])
    audit = planner.get("/events/1/audit")
    assert (audit["eligible"], audit["pending"], audit["missing"], audit["balanced"]) == (7, 7, 0, True)
    trail = scenario.execute("SELECT actor, action, batch_id, outcome FROM audit_log")
    actor = "Olga <olga@bidden.example> by planner"
    assert trail == [{"actor": actor, "action": "invite", "batch_id": 1, "outcome": "done"}]


def test_the_same_key_again(planner: Program, site: Site, scenario: Scenario) -> None:
    """FM-31: the same key returns the first batch; other events or audiences are refused; keys are per client."""
    headers = {"Idempotency-Key": "press-1"}
    first, second = (
        planner.call("POST", "/events/1/batches", json={"audience": "students"}, headers=headers) for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["location"] == second.headers["location"] == f"{PATH}/batches/1"
    assert second.json() == {**first.json(), "already_triggered": True}
    other = planner.call("POST", "/events/1/batches", json={"audience": "coaches"}, headers=headers)
    assert "another event or audience" in problem_of(other, 422)["detail"]
    assert planner.call("GET", second.headers["location"]).status_code == 200
    colleague = program(site, site.account("ada@bidden.example", "admin"), name="other")
    assert colleague.invite(audience="coaches", key="press-1")["batch_id"] == 2
    assert len(scenario.execute("SELECT id FROM batches")) == 2


def test_the_same_key_at_once(site: Site, scenario: Scenario, planner: Program) -> None:
    """FM-31: of concurrent requests one starts the batch, and all get it."""
    start = threading.Barrier(4)

    def press(_: int) -> tuple[int, int]:
        start.wait()
        response = planner.call(
            "POST", "/events/1/batches", json={"audience": "everyone"}, headers={"Idempotency-Key": "press-1"}
        )
        return response.status_code, response.json()["batch_id"]

    with ThreadPoolExecutor(4) as threads:
        answers = sorted(threads.map(press, range(4)))
    (batch,) = scenario.execute("SELECT id FROM batches")
    assert answers == [(200, batch["id"])] * 3 + [(201, batch["id"])]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 101}])
def test_a_key_is_needed(planner: Program, scenario: Scenario, headers: dict[str, str]) -> None:
    """FM-31: without a key a retry would start a second batch."""
    response = planner.call("POST", "/events/1/batches", json={"audience": "students"}, headers=headers)
    (mistake,) = problem_of(response, 422)["errors"]
    assert mistake["where"] == "header.Idempotency-Key"
    assert scenario.execute("SELECT id FROM batches") == []


def test_deciding_about_a_batch(planner: Program, scenario: Scenario) -> None:
    """Pause, resume, retry, resolve, cancel; each is audited, refused or done."""
    planner.invite(audience="students")
    agent = scenario.agent()
    agent.deliver(scenario.request(1, 1), Failed("550 no"))
    agent.deliver(scenario.request(1, 2), Unknown("lost"))
    assert planner.post("/batches/1/pause")["state"] == "paused"
    assert planner.post("/batches/1/resume")["state"] == "running"
    assert planner.post("/batches/1/retry") == {"deliveries": 1}
    word = {"verdict": "sent", "member_id": 2}
    assert planner.post("/events/1/resolve", word) == {"resolved": 1, "without_batch": 0}
    done = planner.post("/batches/1/cancel")
    assert (done["state"], done["sent"], done["pending"]) == ("cancelled", 1, 0)
    assert "for good" in problem_of(planner.call("POST", "/batches/1/pause"), 409)["detail"]
    trail = scenario.execute("SELECT action, outcome FROM audit_log ORDER BY id")
    assert [(row["action"], row["outcome"]) for row in trail] == [
        ("invite", "done"), ("pause", "done"), ("resume", "done"), ("retry", "done"), ("resolve as sent", "done"),
        ("cancel", "done"), ("pause", "refused"),
    ]  # fmt: skip


def test_pages_of_a_list(planner: Program, scenario: Scenario) -> None:
    """`next` leads through the whole list, each item once."""
    scenario.build(students=range(100, 220))
    planner.invite(audience="students")
    for path in ("/events/1/people?audience=students&reason=already_sent", "/batches/1/entries?status=pending"):
        found: list[int] = []
        address: str | None = path
        while address is not None:
            page = planner.get(address)
            found += [row["member_id"] for row in page["items"]]
            address = page["next"]
        assert found == ([] if "reason" in path else [1, 2, 3, 6, *range(100, 220)])


def test_other_chapters(planner: Program, site: Site, scenario: Scenario) -> None:
    """404 outside the account's chapters; of a joint event only their members are listed."""
    with_chapter_two(scenario)
    admin = program(site, site.account("ada@bidden.example", "admin"))
    audit = planner.get("/events/2/audit")
    assert (audit["missing"], {row["member_id"] for row in audit["missing_members"]}) == (8, {1, 2, 3, 4, 5, 6})
    assert audit["missing_next"] is None
    rest = planner.get("/events/2/audit?skip=4")
    assert [row["member_id"] for row in rest["missing_members"]] == [
        row["member_id"] for row in audit["missing_members"]
    ][4:]
    assert 20 not in {row["member_id"] for row in planner.get("/events/2/people")["items"]}
    theirs, together = admin.invite(3)["batch_id"], admin.invite(2, key="k2")["batch_id"]
    for path in ("/events/3", "/events/3/audit", f"/batches/{theirs}", f"/batches/{theirs}/entries", "/events/99"):
        assert problem_of(planner.call("GET", path), 404)
    problem_of(planner.call("POST", f"/batches/{theirs}/cancel"), 404)
    assert [row["id"] for row in planner.get("/events")["items"]] == [1, 2]
    assert [row["batch_id"] for row in planner.get("/batches")["items"]] == [together]
    assert planner.get("/batches?event=3")["items"] == []
    entries = planner.get(f"/batches/{together}/entries")
    assert entries["some_hidden"]
    assert 20 not in {row["member_id"] for row in entries["items"]}
    assert planner.get(f"/batches/{together}/entries?q=20")["items"] == []
    problem_of(planner.call("GET", "/events/2/members/20/why"), 404)
    problem_of(planner.call("POST", "/events/2/resolve", json={"verdict": "sent", "member_id": 20}), 404)
    assert admin.get("/events/2/members/20/why")["eligible"]
    # A mail server's reply quotes the address.
    request = scenario.request(together, 20)
    request = replace(request, key=replace(request.key, event_id=2))
    scenario.agent().deliver(request, Failed("550 <m20@example.org> unknown"))
    assert planner.get(f"/batches/{together}")["error"] is None
    assert admin.get(f"/batches/{together}")["error"] == "550 <(address)> unknown"


def test_what_the_source_could_not_use(planner: Program, site: Site, scenario: Scenario) -> None:
    """The audit counts such members, who are not among the eligible; lines are named to those who see all members."""
    set_aside(scenario.conn, "member", "900", "is no address", field="email", member=900)
    set_aside(scenario.conn, "subscription", "1/7", "group 7 is none", field="group_id", member=1)
    set_aside(scenario.conn, "invitation", "1/900/?", "is none", field="role", member=900, event=1)
    line = {"type": "invitation", "key": "1/900/?", "field": "role", "problem": "is none"}
    admin = program(site, site.account("ada@bidden.example", "admin"))
    for client, named in ((planner, []), (admin, [line])):
        audit = client.get("/events/1/audit")
        assert (audit["members_set_aside"], audit["set_aside"]) == (1, named)
    line = {"type": "subscription", "key": "1/7", "field": "group_id", "problem": "group 7 is none"}
    assert planner.get("/events/1/members/1/why")["set_aside"] == [line]
    assert planner.get("/events/1/members/2/why")["set_aside"] == []


def test_an_event_that_was_moved(planner: Program, site: Site, scenario: Scenario) -> None:
    """Members mailed before the move are not listed; nor does a mail server's reply name them."""
    with_chapter_two(scenario)
    batch = scenario.plan()
    agent = scenario.agent()
    agent.deliver(scenario.request(batch, 1), Failed("550 <m1@example.org> unknown"))
    agent.deliver(scenario.request(batch, 2), Unknown("lost"))
    assert planner.get(f"/batches/{batch}")["error"] == "550 <(address)> unknown", "the member is of this chapter"
    assert not planner.get(f"/batches/{batch}/entries")["some_hidden"]
    scenario.load(EVENT | {"chapter_ids": [2]})
    scenario.execute("DELETE FROM subscriptions WHERE member_id = 2")
    berlin = program(site, site.account("berta@bidden.example", chapters=[2]))
    entries = berlin.get(f"/batches/{batch}/entries")
    assert ([row["member_id"] for row in entries["items"]], entries["some_hidden"]) == ([2], True)
    assert berlin.get(f"/batches/{batch}")["error"] is None
    problem_of(berlin.call("GET", "/events/1/members/1/why"), 404)
    problem_of(berlin.call("POST", "/events/1/resolve", json={"verdict": "sent", "member_id": 1}), 404)
    assert berlin.get("/events/1/members/2/why")["deliveries"][0]["status"] == "unknown", "of no other chapter"


def test_without_a_token(planner: Program, site: Site, scenario: Scenario) -> None:
    """401 with a challenge: no token, an unknown or revoked one, another scheme, a disabled account; no cookies."""
    signed_in = site.admin()
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ):
        response = signed_in.get(f"{PATH}/events", headers=headers)
        problem_of(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
    scenario.execute("UPDATE accounts SET disabled_at = now() WHERE role = 'organiser'")
    problem_of(planner.call("GET", "/events"), 401)
    scenario.execute("UPDATE accounts SET disabled_at = NULL")
    planner.get("/events")
    assert accounts.revoke_client(site.conn, planner.id)
    assert 'error="invalid_token"' in planner.call("GET", "/events").headers["www-authenticate"]


def test_a_scope_is_named(site: Site) -> None:
    """403 names the missing scope, in the detail and in the challenge."""
    reader = organisers(site, 1, scopes=[ApiScope.READ])
    response = reader.call("POST", "/batches/1/cancel")
    assert "operate" in problem_of(response, 403)["detail"]
    assert 'scope="operate"' in response.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/events/", {}, 404),
        ("GET", "/events/0", {}, 404),
        ("GET", "/events/1.0", {}, 404),
        ("GET", "/events/%00", {}, 404),
        ("GET", f"/events/{2**63}", {}, 404),
        ("GET", f"/events/{'9' * 5000}", {}, 404),
        ("GET", f"/events/{2**63 - 1}", {}, 404),
        ("DELETE", "/events", {}, 405),
        ("GET", "/events?skip=-1", {}, 422),
        ("GET", "/events?skip=1_0", {}, 422),
        ("GET", "/events?query=x", {}, 422),
        ("GET", "/events?=", {}, 422),
        ("GET", f"/events?skip={10**30}", {}, 422),
        ("GET", f"/events?q={'x' * 201}", {}, 422),
        ("GET", "/events/1/dry-run?audience=%ED%A0%80", {}, 422),
        ("POST", "/events/1/resolve", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
        ("POST", "/events/1/resolve", {"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/events/1/resolve", {"content": b"[" * 30_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/events/1/resolve", {"content": b"9" * 5000, "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/events/1/resolve", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "/events/1/resolve", {"data": {"verdict": "sent"}}, 415),
        ("POST", "/events/1/resolve", {"json": {"verdict": "lost"}}, 422),
        ("POST", "/events/1/resolve", {"json": {"verdict": "sent", "more": 1}}, 422),
        ("POST", "/events/1/resolve", {"json": {"verdict": "sent", "member_id": 2**63}}, 422),
        ("POST", "/events/1/resolve", {"json": {"verdict": "sent", "member_id": "1"}}, 422),
        ("POST", "/events/1/resolve", {"json": {"verdict": "sent", "\ud800": 1}}, 422),
        ("POST", "/events/1/resolve", {}, 422),
        ("POST", "/events/1/resolve", {"content": b" " * 65_537, "headers": {"Content-Type": "application/json"}}, 413),
        ("POST", "/events/1/resolve", {"json": {"verdict": "sent", "member_id": 99}}, 404),
    ],
)  # fmt: skip
def test_what_makes_no_sense(planner: Program, method: str, path: str, options: dict[str, Any], status: int) -> None:
    """FM-32: the response to an invalid request is a problem that says what is wrong."""
    if "json" in options:
        options = {"content": json.dumps(options["json"]), "headers": {"Content-Type": "application/json"}}
    response = planner.call(method, path, **options)
    found = problem_of(response, status)
    if status == 405:
        assert response.headers["allow"] == "GET"
    if status == 422:
        assert found["errors"]


def test_text_that_cannot_be_stored(planner: Program) -> None:
    """U+0000 and invalid UTF-8 are removed from search text."""
    assert len(planner.get("/events?q=%00work%ED%A0%80")["items"]) <= 1
    assert len(planner.get("/events?q=%00work")["items"]) == 1


def test_refusals(planner: Program, scenario: Scenario) -> None:
    """409 says why the event cannot be invited to; nothing is written."""
    scenario.execute("UPDATE events SET invitable = false")
    assert "not marked as invitable" in planner.get("/events/1")["why_not"]
    for response in (
        planner.call("GET", "/events/1/dry-run"),
        planner.call("POST", "/events/1/batches", json={"audience": "students"}, headers={"Idempotency-Key": "k"}),
    ):
        assert "not marked as invitable" in problem_of(response, 409)["detail"]
    assert scenario.execute("SELECT id FROM batches") == []


def test_the_document(site: Site) -> None:
    """The OpenAPI document is public, and has every route's scope and errors."""
    response = site.browser().get(f"{PATH}/openapi.json")
    assert response.status_code == 200
    document = response.json()
    assert document["servers"] == [{"url": PATH}]
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["description"], path
            ((scheme, scopes),) = operation["security"][0].items()
            assert (scheme, len(scopes)) == ("token", 1), path
            errors = {code: content for code, content in operation["responses"].items() if code >= "400"}
            assert set(errors) >= {"401", "403", "422", "503"}, path
            for content in errors.values():
                assert list(content["content"]) == ["application/problem+json"], path


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "https://", "ftp://example.org/", "https://a:b@example.org/", "https://example.org/#x",
        "https://example.org:0/", "https://example.org:99999/", "https://[::1", "//example.org", "",
        "https://ex ample.org", "https://example.org/\0", "https://example.org/\udcff", "https://exämple.org/",
        "https://example.org/" + "x" * 1000, "http://127.0.0.1.example.org/", "http://[fe80::1]/",
    ],
)  # fmt: skip
def test_refused_webhook_addresses(url: str) -> None:
    """Only https, or http on the machine itself; no credentials and no fragment."""
    with pytest.raises(RefusedError) as caught:
        require_webhook_url(url, allow_private=True)
    assert caught.value.field == "webhook"


@pytest.mark.parametrize(
    "url", ["https://example.org/a?b=c", "http://127.0.0.1:8/", "http://[::1]/x", "http://localhost"]
)
def test_accepted_webhook_addresses(url: str) -> None:
    """These are accepted."""
    require_webhook_url(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8/", "http://[::1]/x", "http://localhost", "https://a.localhost/", "https://10.0.0.1/",
     "https://169.254.169.254/", "https://[fe80::1]/", "https://[::ffff:192.168.0.1]/"],
)  # fmt: skip
def test_a_webhook_to_a_private_address_is_refused_at_once(url: str) -> None:
    """When it is added, not only when it is called; the message says why, and which setting allows it."""
    with pytest.raises(RefusedError, match="BIDDEN_WEBHOOK_ALLOW_PRIVATE"):
        require_webhook_url(url, allow_private=False)
    require_webhook_url("https://example.org/", allow_private=False)
    require_webhook_url("https://93.184.216.34/", allow_private=False)


@pytest.mark.parametrize(
    ("name", "scopes", "field"),
    [
        ("", ["read"], "name"),
        ("x" * 61, ["read"], "name"),
        ("a\nb", ["read"], "name"),
        ("a", [], "scope"),
        ("a", ["write"], "scope"),
        ("a", ["read", "dead-letters"], "scope"),
    ],
)
def test_refused_clients(site: Site, name: str, scopes: list[str], field: str) -> None:
    """An invalid name, unknown scopes, or one that its account may not use."""
    account = site.account("olga@bidden.example", chapters=[1])
    with pytest.raises(RefusedError) as caught:
        create_client(site.conn, "Ada", name=name, account_id=account, scopes=scopes)
    assert caught.value.field == field


def test_servers_that_are_away(planner: Program, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and the next request finds the database again."""
    scenario.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bidden-admin'")
    planner.get("/events")

    def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("the server closed the connection")

    monkeypatch.setattr("web.api.events.site_queries.events", away)
    response = planner.call("GET", "/events")
    assert problem_of(response, 503)
    assert response.headers["retry-after"] == "30"


def test_everybody_who_is_missing_can_be_read(planner: Program, scenario: Scenario) -> None:
    """Beyond 500 an audit says where the next are."""
    scenario.build(students=list(range(1000, 1620)))
    found: list[int] = []
    address: str | None = "/events/1/audit?audience=students"
    pages = 0
    while address is not None:
        audit = planner.get(address)
        found += [row["member_id"] for row in audit["missing_members"]]
        address = audit["missing_next"]
        pages += 1
    assert pages == 2
    assert len(found) == len(set(found)) == audit["missing"] > 600
