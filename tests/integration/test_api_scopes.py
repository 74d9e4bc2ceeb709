"""Every route of the API for every kind of client. A route that is not in the table fails here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from fastapi.routing import APIRoute

from db import accounts
from db.accounts import AccountRole
from schemas.errors import UnreachableError
from tests.integration.api_routes import ROUTES
from tests.integration.calling import PATH, Program, program
from tests.integration.importing import CHAPTER
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site
from web.api import application
from web.auth.api_clients import ApiScope

EVERY: Final = [scope.value for scope in ApiScope]


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Event 1 of chapter 1, with batch 1; chapter 2 has nothing."""
    scenario.build(students=[1, 2]).load(CHAPTER | {"id": 2, "name": "Paris", "email": "paris@example.org"})
    scenario.plan("students")
    with open_site(database_url, scenario.conn) as site:
        yield site


def routes() -> set[tuple[str, str]]:
    """All routes of the API."""
    return {
        (method, route.path_format)
        for router in application.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


def call(client: Program, route: tuple[str, str]) -> int:
    """The status of the response."""
    method, path = route
    address = path.format(event=1, batch=1, member=1, partition=0, offset=0)
    return client.call(method, address, **ROUTES[route][1]).status_code


def client_of(site: Site, role: str, scopes: list[str], chapter: int = 1) -> Program:
    """A client that got these scopes while its account was an admin's."""
    account = site.account("x@bidden.example", "admin")
    made = program(site, account, scopes)
    if role == "organiser":
        # There must always be an admin.
        site.account("ada@bidden.example", "admin")
        accounts.change(site.conn, account, name="X", role=AccountRole.ORGANISER, chapters=[chapter])
    return made


def test_every_route_is_in_the_table(site: Site) -> None:
    """A new route must be added to the table; the OpenAPI document has the same routes and scopes."""
    assert routes() == set(ROUTES)
    document = site.browser().get(f"{PATH}/openapi.json").json()
    described = {
        (method.upper(), path): operation["security"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert described == {route: [{"token": [row[0].value]}] for route, row in ROUTES.items()}


@pytest.mark.parametrize(("role", "chapter"), [("organiser", 1), ("organiser", 2), ("admin", 0)])
def test_with_every_scope(site: Site, scenario: Scenario, role: str, chapter: int) -> None:
    """A client with every scope may do what its account may."""
    client = client_of(site, role, EVERY, chapter)
    before = scenario.execute("SELECT id FROM audit_log")
    for route, (_, _, own, other, admin) in ROUTES.items():
        expected = {1: own, 2: other, 0: admin}[chapter]
        assert call(client, route) == expected, route
    if chapter == 2:
        assert scenario.execute("SELECT id FROM audit_log") == before
        assert scenario.execute("SELECT state FROM batches") == [{"state": "running"}]


@pytest.mark.parametrize("role", ["organiser", "admin"])
@pytest.mark.parametrize("scope", list(ApiScope))
def test_with_one_scope(site: Site, role: str, scope: ApiScope) -> None:
    """A scope allows its routes and no others."""
    client = client_of(site, role, [scope.value])
    for route, row in ROUTES.items():
        expected = row[4 if role == "admin" else 2] if row[0] is scope else 403
        assert call(client, route) == expected, route


def test_without_a_token(site: Site, scenario: Scenario) -> None:
    """401 everywhere. The cookie of a session does not help."""
    admin = site.admin()
    nobody = Program(admin.client, 0, "wrong", None)
    for route in ROUTES:
        assert call(nobody, route) == 401, route
        method, path = route
        address = PATH + path.format(event=1, batch=1, member=1, partition=0, offset=0)
        assert admin.client.request(method, address, **ROUTES[route][1]).status_code == 401, route
    assert scenario.execute("SELECT id FROM audit_log") == []


def test_a_redrive_is_audited(site: Site, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit log has actor and places, even if the redrive failed."""
    client = client_of(site, "admin", EVERY)

    def away(*_: object) -> None:
        raise UnreachableError("Kafka cannot be reached")

    monkeypatch.setattr("web.actions.DeadLetterReader", away)
    assert call(client, ("POST", "/dead-letters/redrive")) == 503
    (entry,) = scenario.execute("SELECT actor, action, detail, outcome FROM audit_log")
    assert entry == {
        "actor": "X <x@bidden.example> by planner",
        "action": "redrive",
        "detail": "0:0; Kafka cannot be reached",
        "outcome": "failed",
    }
