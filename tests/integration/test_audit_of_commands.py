"""The audit log has what the command line does, and failed sign-ins; doing nothing is not "done"."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli.commands import batch_control
from schemas.errors import NotFoundError
from schemas.outcomes import Failed, Unknown
from tests.integration.scenario import Scenario
from tests.integration.site import PASSWORD, open_site


def audit_log(scenario: Scenario) -> list[tuple[Any, ...]]:
    rows = scenario.execute("SELECT actor, action, batch_id, event_id, outcome, detail FROM audit_log ORDER BY id")
    return [tuple(row.values()) for row in rows]


def test_commands(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision about a batch is there with its batch, also one that was refused, and one that found nothing."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    scenario.build(students=[1, 2])
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1), Failed("550 no"))
    scenario.agent().deliver(scenario.request(batch, 2), Unknown("?"))

    def run(command: click.Command, *arguments: str) -> None:
        with suppress(NotFoundError):
            CliRunner().invoke(command, arguments, catch_exceptions=False)

    run(batch_control.retry, str(batch))
    run(batch_control.retry, str(batch))
    run(batch_control.resolve, "1", "--unknown", "sent", "--by", "Olga")
    run(batch_control.pause, str(batch))
    run(batch_control.pause, "99")
    assert audit_log(scenario) == [
        ("command line", "retry", batch, None, "done", "1 deliveries"),
        ("command line", "retry", batch, None, "nothing", "0 deliveries"),
        ("command line", "resolve as sent", None, 1, "done", "by Olga; 1 deliveries"),
        ("command line", "pause", batch, None, "done", None),
        ("command line", "pause", 99, None, "refused", "there is no batch 99"),
    ]


def test_failed_sign_ins(scenario: Scenario, database_url: str) -> None:
    """With the account and from where; what a stranger typed is not kept."""
    scenario.build(students=[1])
    with open_site(database_url, scenario.conn) as site:
        site.account("olga@bidden.example", password=PASSWORD)
        browser = site.browser()
        browser.post("/sign-in", {"email": "olga@bidden.example", "password": "wrong"})
        browser.post("/sign-in", {"email": "typed-my-password", "password": "x"})
    assert audit_log(scenario) == [
        ("Olga <olga@bidden.example>", "sign in", None, None, "refused", "wrong password, from testclient"),
        ("somebody", "sign in", None, None, "refused", "no such account, from testclient"),
    ]
