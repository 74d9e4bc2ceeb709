"""The plan of a chaos run: the same seed, the same blows; every kind early; rules that the mail server understands."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.mail_rules import parse_rules
from tests.acceptance.processes import ROOT
from tests.chaos.campaigning import directory
from tests.chaos.plan import LEASE_SECONDS, SMTP_TIMEOUT_SECONDS, WEIGHTS, Kind, campaigns, first_mood, schedule
from tests.chaos.processes import is_ours, tracebacks

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_deals_the_same(seed: int) -> None:
    """What a run has shown can be done again: blows, moods and campaigns follow from the seed alone."""
    assert list(islice(schedule(seed), 60)) == list(islice(schedule(seed), 60))
    assert list(islice(campaigns(seed), 30)) == list(islice(campaigns(seed), 30))
    assert first_mood(seed) == first_mood(seed)
    assert list(islice(schedule(seed), 60)) != list(islice(schedule(seed + 1), 60))


@given(seeds)
def test_a_short_run_has_everything(seed: int) -> None:
    """Each kind is among the first blows, and a hundred later ones hold each as often as its weight says."""
    kinds = [blow.kind for blow in islice(schedule(seed), len(Kind) + sum(WEIGHTS.values()))]
    assert set(kinds[: len(Kind)]) == set(Kind) == set(WEIGHTS)
    later = kinds[len(Kind) :]
    assert {kind: later.count(kind) for kind in Kind} == dict(WEIGHTS)


@given(seeds)
def test_blows_make_sense(seed: int) -> None:
    """Whoever is stopped is stopped past the lease; rules can be read, and count what they can leave in doubt."""
    for blow in islice(schedule(seed), 150):
        assert 0 <= blow.pick < 1
        assert 0 <= blow.gap <= 3
        if blow.kind in {Kind.WORKER_FREEZE, Kind.POSTGRES_FREEZE, Kind.KAFKA_FREEZE}:
            assert blow.seconds > LEASE_SECONDS
        if blow.kind is Kind.MAIL_FREEZE:
            assert blow.seconds > SMTP_TIMEOUT_SECONDS
        assert (blow.mood is not None) == (blow.kind is Kind.MAIL_MOOD)
        if blow.mood is not None:
            rules = parse_rules(json.dumps([dict(rule) for rule in blow.mood.rules]))
            assert rules[-1].do == "delay"
            assert blow.mood.doubtful == sum(
                rule.left for rule in rules if rule.do in {"drop_in_data", "drop_after_store"}
            )
            # A slow mail server is no silent one.
            assert all(rule.seconds < SMTP_TIMEOUT_SECONDS for rule in rules)


@given(seeds)
def test_campaigns_overlap(seed: int) -> None:
    """Each event once, in order; no audience twice for one, so that each batch has a key of its own."""
    planned = list(islice(campaigns(seed), 40))
    assert [campaign.event for campaign in planned] == list(range(1, 41))
    assert all(len(set(campaign.audiences)) == len(campaign.audiences) for campaign in planned)
    assert any(len(campaign.audiences) > 1 for campaign in planned)


@pytest.mark.parametrize("members", [30, 400])
def test_the_directory_overlaps(members: int) -> None:
    """Some members are students and coaches, of several chapters; there are events of both policies."""
    lines = list(directory(members, 8))
    lists: dict[int, set[int]] = {}
    for line in lines:
        if line["type"] == "subscription":
            lists.setdefault(line["group_id"], set()).add(line["member_id"])
    assert set(lists) == {1, 2, 3, 4, 5, 6}
    assert all(lists[n] & lists[n + 1] for n in (1, 3, 5))
    assert {line["role_policy"] for line in lines if line["type"] == "event"} == {"one", "each"}


def test_tracebacks_of_ours_are_told_from_a_librarys() -> None:
    """A log is read for what is broken; what a library alone complains about in an outage is not."""
    ours = (
        f'Traceback (most recent call last):\n  File "{ROOT}/streams/take.py", line 1, in x\n    y\nKeyError: 1\nmore'
    )
    library = (
        f'Traceback (most recent call last):\n  File "{ROOT}/.venv/lib/python3/site-packages/x.py", line 1, in x\n'
        "    y\nNodeNotReadyError: 1\n\nDuring handling of …\n\n"
    )
    assert [is_ours(found) for found in tracebacks(library + ours + "\n" + library)] == [False, True, False]
    assert tracebacks(ours)[0].endswith("KeyError: 1")
    assert tracebacks("{}\n") == []
