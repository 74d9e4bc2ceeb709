"""The plan of a chaos run: the same seed gives the same faults; every kind comes early; the mail rules are valid."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.mail_rules import parse_rules
from tests.acceptance.processes import ROOT
from tests.chaos.organisers import directory
from tests.chaos.plan import LEASE_SECONDS, SMTP_TIMEOUT_SECONDS, WEIGHTS, FaultKind, campaigns, first_profile, schedule
from tests.chaos.report import Report
from tests.chaos.supervision import is_ours, tracebacks

seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_gives_the_same_plan(seed: int) -> None:
    """A run can be repeated: faults, profiles and campaigns follow from the seed alone."""
    assert list(islice(schedule(seed), 60)) == list(islice(schedule(seed), 60))
    assert list(islice(campaigns(seed), 30)) == list(islice(campaigns(seed), 30))
    assert first_profile(seed) == first_profile(seed)
    assert list(islice(schedule(seed), 60)) != list(islice(schedule(seed + 1), 60))


@given(seeds)
def test_a_short_run_has_every_kind(seed: int) -> None:
    """Each kind is among the first faults, and a hundred later ones hold each as often as its weight says."""
    kinds = [fault.kind for fault in islice(schedule(seed), len(FaultKind) + sum(WEIGHTS.values()))]
    assert set(kinds[: len(FaultKind)]) == set(FaultKind) == set(WEIGHTS)
    later = kinds[len(FaultKind) :]
    assert {kind: later.count(kind) for kind in FaultKind} == dict(WEIGHTS)


@given(seeds)
def test_faults_are_valid(seed: int) -> None:
    """What is stopped is stopped past its lease; rules are valid, and count the mails that they can leave in doubt."""
    for fault in islice(schedule(seed), 150):
        assert 0 <= fault.pick < 1
        assert 0 <= fault.gap <= 3
        if fault.kind in {FaultKind.WORKER_FREEZE, FaultKind.POSTGRES_FREEZE, FaultKind.KAFKA_FREEZE}:
            assert fault.seconds > LEASE_SECONDS
        if fault.kind is FaultKind.MAIL_FREEZE:
            assert fault.seconds > SMTP_TIMEOUT_SECONDS
        assert (fault.profile is not None) == (fault.kind is FaultKind.MAIL_PROFILE)
        if fault.profile is not None:
            rules = parse_rules(json.dumps([dict(rule) for rule in fault.profile.rules]))
            assert rules[-1].do == "delay"
            assert fault.profile.in_doubt == sum(
                rule.left for rule in rules if rule.do in {"drop_in_data", "drop_after_store"}
            )
            # A slow mail server is not a silent one.
            assert all(rule.seconds < SMTP_TIMEOUT_SECONDS for rule in rules)


@given(seeds)
def test_campaigns_overlap(seed: int) -> None:
    """Each event once, in order, and no audience twice for one event, so that each batch has its own key."""
    planned = list(islice(campaigns(seed), 40))
    assert [campaign.event for campaign in planned] == list(range(1, 41))
    assert all(len(set(campaign.audiences)) == len(campaign.audiences) for campaign in planned)
    assert any(len(campaign.audiences) > 1 for campaign in planned)


@pytest.mark.parametrize("members", [30, 400])
def test_the_directory_overlaps(members: int) -> None:
    """Some members are students and coaches, of several chapters; there are events of both role policies."""
    lines = list(directory(members, 8))
    lists: dict[int, set[int]] = {}
    for line in lines:
        if line["type"] == "subscription":
            lists.setdefault(line["group_id"], set()).add(line["member_id"])
    assert set(lists) == {1, 2, 3, 4, 5, 6}
    assert all(lists[n] & lists[n + 1] for n in (1, 3, 5))
    assert {line["role_policy"] for line in lines if line["type"] == "event"} == {"one", "each"}


def test_our_tracebacks_are_distinguished_from_a_librarys() -> None:
    """A traceback of our code is a finding; one that a library logs in an outage is not."""
    ours = (
        "Traceback (most recent call last):\n"
        f'  File "{ROOT}/streams/pipeline.py", line 1, in x\n    y\nKeyError: 1\nmore'
    )
    library = (
        f'Traceback (most recent call last):\n  File "{ROOT}/.venv/lib/python3/site-packages/x.py", line 1, in x\n'
        "    y\nNodeNotReadyError: 1\n\nDuring handling of …\n\n"
    )
    assert [is_ours(found) for found in tracebacks(library + ours + "\n" + library)] == [False, True, False]
    assert tracebacks(ours)[0].endswith("KeyError: 1")
    assert tracebacks("{}\n") == []


def test_the_figures_are_json() -> None:
    """After half an hour of faults they must not be lost."""
    report = Report(7, "confluent", 400)
    report.in_doubt["workers killed or broken"] += 4
    found = json.loads(json.dumps(report.as_dict()))
    assert (found["in_doubt"], found["bound"]) == ({"workers killed or broken": 4}, 4)
