"""The protocol, checked whole: every scope holds, and without any one of its rules some scope does not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module

import pytest

from db import statements
from tests.protocol.explore import explore
from tests.protocol.model import Model
from tests.protocol.rule import Rule
from tests.protocol.rules import RULES
from tests.protocol.scopes import BY_NAME, SCOPES, Scope


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_every_scope_holds(scope: Scope) -> None:
    """FM-03, FM-12, FM-16, FM-19, FM-24, FM-29: whatever the order: one mail, no lie, nothing stuck."""
    result = explore(Model(scope))
    assert not result.violation, result.violation
    assert result.states == scope.states, "say so in tests/protocol/scopes.py, and run `make docs`"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_rule_can_be_spared(rule: Rule) -> None:
    """The model finds what each rule is for, in the scope that the rule names."""
    result = explore(Model(BY_NAME[rule.missed_in], off=frozenset({rule})))
    assert rule.without in result.violation
    assert result.violation, f"{rule.missed_in} holds without it, in all of its {result.states} states"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_kept_by_its_statement(rule: Rule) -> None:
    """The guard stands in the text of the statement."""
    assert not [phrase for phrase in rule.phrases if _words(phrase) not in _words(text_of(rule.by))]


def text_of(name: str) -> str:
    """A statement or function of db/sql, or the source of a function given by its dotted name."""
    module, _, attribute = name.rpartition(".")
    if name in statements.functions():
        return statements.definition(name)[1]
    if not module:
        assert name in statements.names()
        return statements.sql(name)
    function: Callable[..., object] = getattr(import_module(module), attribute)
    return inspect.getsource(function)


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def test_names_are_unique() -> None:
    """A rule and a scope can be told by their names."""
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert len(BY_NAME) == len(SCOPES)


def test_a_violation_comes_with_its_shortest_trace() -> None:
    """What is printed is a story that can be followed."""
    (busy,) = (rule for rule in RULES if rule.name == "busy")
    violation = explore(Model(BY_NAME["crashes"], off=frozenset({busy}))).violation
    assert violation.startswith("delivery 0: two mails were accepted\nin the scope 'crashes', after\n  1. publish")
    steps = violation.partition("after\n")[2].partition("\nin the state")[0].splitlines()
    assert len(steps) == 8
