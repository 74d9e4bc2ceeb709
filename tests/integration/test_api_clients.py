"""`bidden client`: add, list, revoke."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from db import audit_log
from tests.fuzzing import run
from tests.integration.calling import Program
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site


@pytest.fixture
def site(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site, and commands on its database."""
    scenario.build(students=[1])
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    with open_site(database_url, scenario.conn) as site:
        yield site


def test_added_used_listed_and_revoked(site: Site, scenario: Scenario) -> None:
    """The printed token works until it is revoked; both are audited."""
    site.account("olga@bidden.example", chapters=[1])
    words = ("client", "add", "planner", "--account", "Olga@bidden.example", "--scope", "read", "--json")
    made = json.loads(run(*words, "--webhook", "https://example.org/hook").out)
    assert made["webhook_secret"].startswith("whsec_")
    planner = Program(site.browser().client, made["id"], made["token"], None)
    assert [row["id"] for row in planner.get("/events")["items"]] == [1]
    (listed,) = map(json.loads, run("client", "list", "--json").out.splitlines())
    assert (listed["name"], listed["email"], listed["scopes"]) == ("planner", "olga@bidden.example", ["read"])
    assert listed["used_at"] is not None
    assert made["token"] not in run("client", "list").out
    assert run("client", "revoke", str(made["id"])).code == 0
    planner.get("/events", status=401)
    assert run("client", "revoke", "99").code == 2
    told = [(row["actor"], row["action"], row["outcome"]) for row in audit_log.entries(scenario.conn)]
    assert told == [
        ("command line", "revoke client", "done"),
        ("command line", "add client", "done"),
    ]


def test_shown_once(site: Site) -> None:
    """Without --json: the token, and no webhook secret for a client without webhook."""
    site.account("olga@bidden.example", chapters=[1])
    said = run("client", "add", "planner", "--account", "olga@bidden.example", "--scope", "invite")
    assert (said.code, "token: bidden_" in said.out, "secret" in said.out) == (0, True, False)
    assert "not shown again" in said.err


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--account", "nobody@bidden.example", "--scope", "read"], "account"),
        (["--account", "olga@bidden.example", "--scope", "dead-letters"], "scope"),
        (["--account", "olga@bidden.example", "--scope", "read", "--webhook", "http://example.org"], "webhook"),
    ],
)
def test_not_added(site: Site, scenario: Scenario, options: list[str], field: str) -> None:
    """Refused with the field, and nothing is written."""
    site.account("olga@bidden.example", chapters=[1])
    said = run("client", "add", "planner", *options, "--json")
    assert (said.code, said.error["field"]) == (2, field)
    assert scenario.execute("SELECT id FROM api_clients") == []
