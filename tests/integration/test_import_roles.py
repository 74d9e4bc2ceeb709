"""An invitation changes its role in the organisation's own system: it moves, with its token, mailed or not."""

from __future__ import annotations

from typing import Any

import pytest

from db import links
from schemas.outcomes import Failed
from tests.integration.importing import EVENT, invitation, load, refusal, rows, subscription
from tests.integration.scenario import Scenario

SENT_AT = "2026-04-01T10:00:00Z"
STORED = "SELECT member_id, role, token, attending FROM invitations ORDER BY 1, 2"


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Member 1 is a student with an invitation of another system, member 2 is on both lists."""
    scenario.build(students=[1], both=[2])
    scenario.load(invitation(1, token="t1"))
    return scenario


def stored(scenario: Scenario) -> list[tuple[Any, ...]]:
    """All invitations."""
    return rows(scenario.conn, STORED)


def coach(member_id: int, token: str, **fields: object) -> dict[str, Any]:
    """The line after the change."""
    return invitation(member_id, role="Coach", token=token, **fields)


def test_it_moves_with_its_token_and_answer(scenario: Scenario) -> None:
    """And back; a repeated import changes nothing."""
    scenario.load(invitation(1, token="t1", attending=True))
    for _ in range(2):
        scenario.load(coach(1, "t1"))
        assert stored(scenario) == [(1, "Coach", "t1", True)]
    scenario.load(invitation(1, token="t1", attending=False))
    assert stored(scenario) == [(1, "Student", "t1", False)]


def test_an_invitation_in_the_new_role_is_in_the_way(scenario: Scenario) -> None:
    """With a token of its own it keeps it, as mailed links must go on working: the line is wrong."""
    scenario.load(coach(1, "t2"))
    error = refusal(scenario.conn, invitation(2, token="x"), coach(1, "t1"))
    assert (error.line, error.field) == (2, "token")
    assert error.detail.startswith("token differs from the one that this invitation has")


def test_two_roles_do_not_swap_their_tokens(scenario: Scenario) -> None:
    """Both lines are wrong, and named."""
    scenario.load(coach(1, "t2"))
    error = refusal(scenario.conn, invitation(1, token="t2"), coach(1, "t1"))
    assert (error.line, error.field) == (1, "token")
    assert any("line 2" in text for text in error.further())


@pytest.mark.parametrize("line", [coach(2, "t1"), coach(1, "t1", event_id=2)], ids=["member", "event"])
def test_a_token_moves_to_nobody_else(scenario: Scenario, line: dict[str, Any]) -> None:
    """To another member, or another event, it is that of another invitation."""
    scenario.load(EVENT | {"id": 2})
    assert refusal(scenario.conn, line).detail == "token is that of another invitation"


def test_a_new_invitation_in_the_role_that_was_left(scenario: Scenario) -> None:
    """In any order of the lines, it gets a token of its own."""
    load(scenario.conn, invitation(1), coach(1, "t1"))
    (moved, new) = stored(scenario)
    assert moved == (1, "Coach", "t1", None)
    assert new[:2] == (1, "Student")
    assert new[2] != "t1"


def test_after_it_was_mailed_by_us(scenario: Scenario) -> None:
    """The link in the mail leads to the new role, and may still be answered; the ledger has what was mailed."""
    batch = scenario.plan("students")
    agent = scenario.agent()
    claimed = agent.deliver(scenario.request(batch, 1))
    assert claimed.recipient is not None
    assert claimed.recipient.token == "t1"
    scenario.load(coach(1, "t1"))
    assert stored(scenario)[0] == (1, "Coach", "t1", None)
    assert scenario.delivery(1)["state"] == "sent"
    found = links.find(scenario.conn, "t1")
    assert found is not None
    assert (found.role, found.obstacle) == ("Coach", None)
    assert links.answer(scenario.conn, "t1", attending=True)
    # Off the list of the role in the mail, as before the change.
    scenario.load(subscription(1, 1, deleted=True))
    found = links.find(scenario.conn, "t1")
    assert found is not None
    assert found.obstacle == "left_list"


def test_the_other_list_does_not_count_for_two_mails(scenario: Scenario) -> None:
    """Who was mailed in both roles and is off one list may not say yes by that role's link: nothing was moved."""
    batch, agent = scenario.plan("everyone"), scenario.agent()
    for role in ("Student", "Coach"):
        agent.deliver(scenario.request(batch, 2, role))
    scenario.load(subscription(2, 2, deleted=True))
    (token,) = (row["token"] for row in scenario.execute("SELECT token FROM invitations WHERE role = 'Coach'"))
    found = links.find(scenario.conn, token)
    assert found is not None
    assert found.obstacle == "left_list"


@pytest.mark.parametrize("policy", ["each", "one"])
def test_mailed_before_by_the_other_system(scenario: Scenario, policy: str) -> None:
    """FM-03: with `sent_at` the change alone is no mail: the slot of the new role is closed, too."""
    scenario.build(students=[1], both=[2], role_policy=policy)
    scenario.load(invitation(1, token="t1", sent_at=SENT_AT), invitation(2, token="t2", sent_at=SENT_AT))
    scenario.load(subscription(1, 2), coach(1, "t1", sent_at=SENT_AT), coach(2, "t2", sent_at=SENT_AT))
    planned = scenario.trigger("everyone")
    assert (planned.planned, planned.excluded) == (0, {"already_sent": 2})
    assert {row[1] for row in stored(scenario)} == {"Coach"}


@pytest.mark.parametrize(("policy", "planned"), [("each", {1, 2}), ("one", {2})])
def test_without_sent_at(scenario: Scenario, policy: str, planned: set[int]) -> None:
    """Under `each` the new role's mail is due to a member of its list, with the same token; under `one` none is."""
    scenario.build(students=[1], role_policy=policy)
    scenario.load(invitation(1, token="t1", sent_at=SENT_AT))
    scenario.load(subscription(1, 2), coach(1, "t1"))
    scenario.plan("coaches")
    items = scenario.execute("SELECT member_id FROM batch_items WHERE excluded IS NULL")
    assert {row["member_id"] for row in items} == planned
    assert [row for row in stored(scenario) if row[0] == 1] == [(1, "Coach", "t1", None)]


def test_while_the_mail_is_due(scenario: Scenario) -> None:
    """What was planned in the old role is mailed in it, with a token of its own; nothing fails for want of one."""
    batch = scenario.plan("students")
    scenario.load(coach(1, "t1"))
    claimed = scenario.agent().claim(scenario.request(batch, 1))
    assert claimed.recipient is not None
    assert claimed.recipient.token not in ("", "t1")
    found = links.find(scenario.conn, claimed.recipient.token)
    assert found is not None
    assert (found.role, found.obstacle) == ("Student", None)


def test_while_a_failed_mail_can_be_retried(scenario: Scenario) -> None:
    """A retry does not plan again, so it needs the token, too."""
    batch = scenario.plan("students")
    scenario.agent().deliver(scenario.request(batch, 1), Failed("550 no"))
    scenario.load(coach(1, "t1"))
    assert [row[:2] for row in stored(scenario) if row[0] == 1] == [(1, "Coach"), (1, "Student")]


def test_no_token_for_a_delivery_that_the_line_closes(scenario: Scenario) -> None:
    """Mailed by the other system meanwhile, under `one`: the planned delivery is sent, and needs no link."""
    scenario.build(students=[1], role_policy="one")
    scenario.plan("students")
    scenario.load(coach(1, "t1", sent_at=SENT_AT))
    assert [row for row in stored(scenario) if row[0] == 1] == [(1, "Coach", "t1", None)]
    assert scenario.delivery(1)["state"] == "sent"
