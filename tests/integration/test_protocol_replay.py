"""The model of the protocol says what the statements do: random walks through it, step by step on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.protocol import rules
from tests.protocol.differences import nearest
from tests.protocol.model import Model
from tests.protocol.replay import Replay, rows_of
from tests.protocol.rule import Rule
from tests.protocol.scopes import BY_NAME, SCOPES, Scope

WALKS = 30
STEPS = 50
#: What takes two transactions at once, which a test of races shows; and restores: tests/acceptance/test_restores.py.
NOT_REPLAYED = {"late acknowledgement", "slow conclusion", "restore"}
#: Seen in two transactions at once; and only by the next step, which is that of the fence.
#: And at the wire, where no row says what was sent; and in the file of a journal: tests/unit/test_journal.py; and in
#: the sessions of the server: tests/integration/test_hot_connection.py.
NOT_SEEN = (
    rules.HELD_STILL,
    rules.NEW_FENCE,
    rules.PERMITTED,
    rules.DEADLINE,
    rules.JOURNAL_BEGUN,
    rules.JOURNAL_LOCK,
    rules.JOURNAL_BOOT,
    rules.FORMER_SESSION,
    rules.CLAIM_PUBLISHED,
    rules.REFUSES_RESTORED,
    rules.BEGIN_BEFORE,
)


def _replayed(scope: Scope) -> Scope:
    return replace(scope, events=scope.events - NOT_REPLAYED)


def _unlocked(scope: Scope) -> Scope:
    return replace(scope, events=scope.events - {"locked"})


def differences(scenario: Scenario, scope: Scope, off: frozenset[Rule] = frozenset()) -> Iterator[str]:
    """The walks after which the database says something else than the model, each up to there."""
    scenario.build(both=[1])
    scenario.load(*(EVENT | {"id": event} for event in range(2, WALKS + 1)))
    agents = [scenario.agent(name, lease=3600, resend_below=scope.resend_below) for name in ("a", "b")]
    model = Model(_replayed(scope), off)
    for event in range(1, WALKS + 1):
        replay = Replay(scenario, agents, scope, event)
        difference = walk(replay, model, Random(f"{scope.name} {event}"))
        replay.close()
        if difference:
            yield difference


def walk(replay: Replay, model: Model, random: Random) -> str | None:
    """One walk, step by step in both, until nothing is left to do."""
    state, steps = model.scope.start(), []
    for _ in range(STEPS):
        moves = list(model.moves(state))
        if not moves:
            return None
        move = random.choice(moves)
        steps.append(move.name)
        replay.step(state, move)
        state = move.state
        expected, rows = rows_of(state), replay.rows()
        if rows != expected:
            return "\n".join([*steps, f"the model:    {expected}", f"the database: {rows}"])
    return None


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_the_statements_do_what_the_model_says(scenario: Scenario, scope: Scope) -> None:
    """FM-19, FM-29: after each step of each walk, the rows of the database are the model's."""
    difference = next(differences(scenario, scope), None)
    assert difference is None, difference


@pytest.mark.parametrize("rule", [rule for rule in rules.RULES if rule not in NOT_SEEN], ids=lambda rule: rule.name)
def test_every_rule_is_kept_where_it_matters(scenario: Scenario, rule: Rule) -> None:
    """On the shortest way to where a rule makes a difference, the database goes as it does with the rule."""
    scope = _unlocked(_replayed(BY_NAME[rule.missed_in]))
    scenario.build(both=[1])
    agents = [scenario.agent(name, lease=3600, resend_below=scope.resend_below) for name in ("a", "b")]
    replay = Replay(scenario, agents, scope, 1)
    found = nearest(Model(scope), Model(scope, frozenset({rule})), rows_of)
    assert found, "a model without the rule cannot be told from one with it"
    for before, move in found.way:
        replay.step(before, move)
    assert replay.rows() == rows_of(found.before)
    try:
        replay.step(found.before, found.move)
    except AssertionError:
        assert found.is_barred
    story = [*(move.name for _, move in found.way), found.move.name]
    assert replay.rows() == rows_of(found.state), "\n".join(story)
    replay.close()
