"""One rule of eligibility: every reason, alone and in pairs, through every statement that decides who may be mailed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, LiteralString

import pytest

from db import planning, reports, site_queries, statements
from db.planning import Trigger
from db.statements import sql
from producers.plan import trigger_of
from schemas.vocabulary import Audience, Reason, UnknownPolicy
from tests.integration.scenario import LEAVE, Scenario

#: Brings the reason about for one member of event 1, and no other reason. LEFT_LIST and NOT_SUBSCRIBED are one fact,
#: which has a name of its own at the claim. `slot` is the slot of the members' role.
FACTS: Final[dict[str, LiteralString]] = {
    Reason.SIGNED_UP: "INSERT INTO invitations (event_id, member_id, role, token, attending)"
    " VALUES (1, %(member)s, 'Student', 'yes-' || %(member)s, true)"
    " ON CONFLICT (event_id, member_id, role) DO UPDATE SET attending = true",
    Reason.DECLINED: "INSERT INTO invitations (event_id, member_id, role, token, attending)"
    " VALUES (1, %(member)s, 'Coach', 'no-' || %(member)s, false)"
    " ON CONFLICT (event_id, member_id, role) DO UPDATE SET attending = false",
    Reason.ALREADY_SENT: "INSERT INTO deliveries (event_id, action, member_id, slot, role, state, updated_at)"
    " VALUES (1, 'invite', %(member)s, %(slot)s, 'Student', 'sent', now())"
    " ON CONFLICT (event_id, action, member_id, slot) DO UPDATE SET state = 'sent'",
    Reason.UNKNOWN: "INSERT INTO deliveries (event_id, action, member_id, slot, role, state, updated_at)"
    " VALUES (1, 'invite', %(member)s, %(slot)s, 'Student', 'unknown', now())"
    " ON CONFLICT (event_id, action, member_id, slot) DO UPDATE SET state = 'unknown'",
    Reason.TERMS_NOT_ACCEPTED: "UPDATE members SET accepted_toc_at = NULL WHERE id = %(member)s",
    Reason.BANNED: "INSERT INTO bans (id, member_id, permanent) VALUES (%(member)s, %(member)s, true)",
    Reason.SAME_MAILBOX: "WITH twin AS (INSERT INTO members (id, name, email, mailbox) SELECT 10000 + id, 'Twin',"
    " 'twin' || email, mailbox FROM members WHERE id = %(member)s), mailed AS ("
    " INSERT INTO deliveries (event_id, action, member_id, slot, role, state, updated_at)"
    " VALUES (1, 'invite', 10000 + %(member)s, %(slot)s, 'Student', 'sent', now()))"
    " UPDATE members SET shares_mailbox = true WHERE id = %(member)s",
    Reason.LEFT_LIST: f"{LEAVE} WHERE s.member_id = %(member)s",
    Reason.NOT_SUBSCRIBED: "DELETE FROM subscriptions WHERE member_id = %(member)s",
    Reason.MEMBER_DELETED: "UPDATE members SET deleted_at = now() WHERE id = %(member)s",
}
#: Not about a member: the event's, which this test sets for all of them at once, and the batch's, which no
#: statement of eligibility knows.
OF_THE_EVENT: Final = Reason.EVENT_CANCELLED
OF_THE_BATCH: Final = {Reason.BATCH_CANCELLED, Reason.NOT_IN_SOURCE}

#: What each stage asks, in the order in which it counts: the contract's.
PLANNING: Final = (
    "signed_up", "declined", "already_sent", "terms_not_accepted", "banned", "same_mailbox", "unknown",
)  # fmt: skip
CLAIM: Final = (
    "member_deleted", "event_cancelled", "signed_up", "declined", "terms_not_accepted", "banned", "same_mailbox",
    "left_list",
)  # fmt: skip
WHY: Final = (
    "member_deleted", "event_cancelled", "not_subscribed", "signed_up", "declined", "terms_not_accepted", "banned",
    "same_mailbox",
)  # fmt: skip
AUDIT: Final = (
    "member_deleted", "signed_up", "declined", "terms_not_accepted", "banned", "same_mailbox", "not_subscribed",
)  # fmt: skip
#: Who is not on a list, or is deleted, is no candidate.
NO_CANDIDATE: Final = frozenset({"member_deleted", "left_list"})
#: A first reason that leaves no room for the second: terms are deleted with the member, a yes counts before a no.
HIDES: Final = {("member_deleted", "terms_not_accepted"), ("signed_up", "declined")}


@dataclass(frozen=True)
class Case:
    """A member for whom these facts hold, and nothing else stands against a mail."""

    member: int
    holds: frozenset[str]

    def first(self, order: tuple[str, ...]) -> str | None:
        """The first of them in a stage's order; None: eligible."""
        return next((reason for reason in order if reason in self.holds), None)

    @property
    def is_candidate(self) -> bool:
        """Whether planning counts them."""
        return not self.holds & NO_CANDIDATE


def cases(*, cancelled: bool) -> list[Case]:
    """A member without any reason, one for each reason of the vocabulary, and one for each pair of them."""
    facts = [reason for reason in Reason if reason not in {OF_THE_EVENT, *OF_THE_BATCH}]
    sets: list[tuple[str, ...]] = [(), *((fact,) for fact in facts), *combinations(facts, 2)]
    # A slot has one state.
    sets = [each for each in sets if not {Reason.ALREADY_SENT, Reason.UNKNOWN} <= set(each)]
    return [Case(number, _closure(each, cancelled=cancelled)) for number, each in enumerate(sets, 1)]


def _closure(facts: tuple[str, ...], *, cancelled: bool) -> frozenset[str]:
    """With what comes with them, by both names of being on no list."""
    holds = {str(fact) for fact in facts} | ({str(OF_THE_EVENT)} if cancelled else set())
    if holds & {"left_list", "not_subscribed"}:
        holds |= {"left_list", "not_subscribed"}
    return frozenset(holds)


@dataclass
class Directory:
    """The cases in a database. Facts come before or after planning, as the stage needs them."""

    scenario: Scenario
    cases: list[Case]
    policy: str

    @property
    def trigger(self) -> Trigger:
        """For the list that the members are on. What a trigger is refused for is not asked."""
        event = planning.lock_event(self.scenario.conn, 1)
        assert event is not None
        return trigger_of(event, Audience.STUDENTS)

    def bring_about(self) -> None:
        """Every member's facts, and the event's."""
        slot = "member" if self.policy == "one" else "Student"
        for case in self.cases:
            for reason in sorted(case.holds - {OF_THE_EVENT}):
                self.scenario.conn.execute(_fact(reason), {"member": case.member, "slot": slot})
        if any(OF_THE_EVENT in case.holds for case in self.cases):
            self.scenario.execute("UPDATE events SET cancelled_at = now()")


def _fact(reason: str) -> LiteralString:
    assert reason in FACTS, f"say in FACTS how {reason} is brought about, and in the orders which stages ask for it"
    return FACTS[reason]


@pytest.fixture(params=[(policy, cancelled) for policy in ("each", "one") for cancelled in (False, True)], ids=str)
def directory(request: pytest.FixtureRequest, scenario: Scenario) -> Directory:
    """All cases, of whom nothing holds yet."""
    policy, cancelled = request.param
    found = cases(cancelled=cancelled)
    scenario.build(students=[case.member for case in found], role_policy=policy)
    return Directory(scenario, found, policy)


def test_every_reason_is_walked() -> None:
    """A reason of the vocabulary is in the one ordered list, has its fact, and is asked for by some stage."""
    stages = {*PLANNING, *CLAIM, *WHY, *AUDIT}
    for reason in set(Reason) - OF_THE_BATCH:
        assert reason is OF_THE_EVENT or _fact(reason)
        assert reason in stages, reason
        assert f"'{reason}'" in sql("dry_run"), reason
    assert f"'{OF_THE_BATCH}'" not in sql("dry_run")


def test_planning_and_its_dry_runs(directory: Directory) -> None:
    """The plan, the dry runs and the names behind their numbers exclude the same members for the same reason."""
    directory.bring_about()
    scenario, trigger = directory.scenario, directory.trigger
    request = {case.member: case.first(PLANNING) for case in directory.cases if case.is_candidate}
    counts = planning.PlanCounts(
        planned=list(request.values()).count(None),
        deliveries=list(request.values()).count(None),
        excluded=dict(Counter(reason for reason in request.values() if reason is not None)),
    )
    assert planning.dry_run(scenario.conn, [trigger]) == [counts]
    everyone, coaches = (_for(trigger, audience) for audience in (Audience.EVERYONE, Audience.COACHES))
    nothing = planning.PlanCounts(0, 0, {})
    assert planning.dry_run(scenario.conn, [trigger, coaches, everyone]) == [counts, nothing, counts]
    assert names_behind(scenario, trigger, "browse_candidates") == request
    assert names_behind(scenario, trigger, "browse_candidates_near") == request
    with scenario.conn.transaction(force_rollback=True):
        inserted = planning.insert_batch(scenario.conn, trigger)
        assert inserted is not None
        planning.write_plan(scenario.conn, trigger, *inserted)
        assert planning.counts(scenario.conn, inserted[0]) == counts
        rows = scenario.execute("SELECT member_id, excluded FROM batch_items")
    assert {row["member_id"]: row["excluded"] for row in rows} == request


def _for(trigger: Trigger, audience: Audience) -> Trigger:
    return Trigger(
        trigger.event_id, audience, trigger.action, list(audience.roles), trigger.initiator, None, trigger.hold_unknown
    )


def names_behind(scenario: Scenario, trigger: Trigger, statement: str) -> dict[int, str | None]:
    """Each member that is behind a number, with the number's reason."""
    values = {**trigger.parameters(), "chapters": None, "unlisted": False, "after": 0, "scanned": 500, "limit": 500}
    found: dict[int, str | None] = {}
    for reason in (None, *reasons_to_ask()):
        for row in scenario.conn.execute(sql(statement), {**values, "reason": reason}, prepare=False):
            assert row["member_id"] not in found
            found[row["member_id"]] = reason
    return found


def reasons_to_ask() -> list[str]:
    """The vocabulary, and what a test adds to the rule."""
    return [*Reason, TOO_YOUNG]


@pytest.mark.parametrize("policy", UnknownPolicy)
def test_an_unknown_slot_is_open_when_it_may_be_sent_again(directory: Directory, policy: UnknownPolicy) -> None:
    """Under `resend` the reason `unknown` is asked by no statement of planning."""
    directory.bring_about()
    event = planning.lock_event(directory.scenario.conn, 1)
    assert event is not None
    trigger = trigger_of(event, Audience.STUDENTS, policy=policy)
    order = PLANNING if policy is UnknownPolicy.HOLD else tuple(name for name in PLANNING if name != "unknown")
    request = {case.member: case.first(order) for case in directory.cases if case.is_candidate}
    for statement in ("browse_candidates", "browse_candidates_near"):
        assert names_behind(directory.scenario, trigger, statement) == request
    (counts,) = planning.dry_run(directory.scenario.conn, [trigger])
    assert counts.excluded == Counter(reason for reason in request.values() if reason is not None)


def test_the_claim_and_what_it_refuses(directory: Directory) -> None:
    """FM-25: a claim is given to who is eligible; others are logged as skipped with the first reason of the claim."""
    scenario = directory.scenario
    batch, agent = scenario.plan(), scenario.agent()
    directory.bring_about()
    for case in directory.cases:
        reason = case.first(CLAIM)
        claim = agent.try_claim(scenario.request(batch, case.member))
        entry = scenario.log(batch)[case.member, "Student"]
        if "already_sent" in case.holds:
            assert (claim, entry) == (None, ("skipped", "already_sent")), case
        elif "unknown" in case.holds:
            assert (claim, entry[0]) == (None, "unknown"), case
        elif reason is None:
            assert claim is not None, case
        else:
            assert (claim, entry) == (None, ("skipped", reason)), case


def test_what_is_unknown_may_be_sent_again(directory: Directory) -> None:
    """Under `resend` an unknown delivery stays open, and is claimed, for who is eligible; for others it is final."""
    scenario = directory.scenario
    batch, agent = scenario.plan(), scenario.agent(resend_below=5)
    directory.bring_about()
    unknown = [case for case in directory.cases if "unknown" in case.holds]
    scenario.set_state(batch, "paused")
    for case in unknown:
        assert agent.try_claim(scenario.request(batch, case.member)) is None
        assert scenario.is_settled(batch, case.member) is (case.first(CLAIM) is not None), case
    scenario.set_state(batch, "running")
    for case in unknown:
        if not scenario.is_settled(batch, case.member):
            assert agent.try_claim(scenario.request(batch, case.member)) is not None, case


def test_why_lists_every_reason(directory: Directory) -> None:
    """`why` gives all reasons that hold, in its order."""
    directory.bring_about()
    for case in directory.cases:
        request = [reason for reason in WHY if reason in case.holds]
        request = [b for b in request if not any((a, b) in HIDES for a in request)]
        why = reports.why(directory.scenario.conn, 1, case.member)
        assert (why["reasons"], why["eligible"]) == (request, not request), case


def test_the_audit_misses_who_is_eligible(directory: Directory) -> None:
    """A delivery is due to who is eligible; they are missing while the ledger has no outcome."""
    directory.bring_about()
    eligible = {case.member for case in directory.cases if case.first(AUDIT) is None}
    outcome = {case.member for case in directory.cases if case.holds & {"already_sent", "unknown"}}
    outcome |= {case.member + 10_000 for case in directory.cases if "same_mailbox" in case.holds}
    audit = directory.scenario.audit()
    assert {row["member_id"] for row in audit["missing"]} == eligible - outcome
    assert (audit["eligible"], audit["balanced"]) == (len(eligible | outcome), True)


TOO_YOUNG: Final = "too_young"
_ANOTHER_BRANCH: Final = """UNION ALL
SELECT p.id, array_position({{reasons_in_order}}, 'too_young') FROM members p WHERE p.surname = 'Young'
"""


@pytest.fixture
def another_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A reason added to eligibility.sql, between two others of the order, and to no other file."""
    folder = Path(shutil.copytree(statements._FOLDER, tmp_path / "sql"))
    file = folder / "eligibility.sql"
    text = file.read_text()
    ordered = text.replace("'terms_not_accepted', 'banned',", "'terms_not_accepted', 'too_young', 'banned',")
    relation, claim, after = ordered.partition("\n-- fragment: ban_is_in_force\n")
    assert ordered != text
    assert claim
    file.write_text(relation + _ANOTHER_BRANCH + claim + after)
    monkeypatch.setattr(statements, "_FOLDER", folder)
    statements._load.cache_clear()
    yield
    monkeypatch.undo()
    statements._load.cache_clear()


@pytest.mark.usefixtures("another_reason")
def test_a_new_reason_changes_no_other_statement(scenario: Scenario) -> None:
    """A branch of the rule and its place in the order: planning, dry run, pages, claim, `why` and audit follow.

    The claim does once a migration has installed the function that holds it.
    """
    scenario.execute(statements.definition("cycle")[1])
    scenario.build(students=[1, 2, 3, 4, 5, 6])
    batch, agent = scenario.plan(), scenario.agent()
    scenario.execute("UPDATE members SET surname = 'Young' WHERE id IN (1, 3, 4)")
    for member, fact in ((3, Reason.TERMS_NOT_ACCEPTED), (4, Reason.BANNED), (5, Reason.BANNED)):
        scenario.conn.execute(_fact(fact), {"member": member})
    first = {1: TOO_YOUNG, 2: None, 3: "terms_not_accepted", 4: TOO_YOUNG, 5: "banned", 6: None}
    planned = scenario.trigger()
    excluded = dict(Counter(reason for reason in first.values() if reason is not None))
    assert (planned.planned, planned.excluded) == (2, excluded)
    dry_run = scenario.trigger(dry_run=True)
    assert (dry_run.planned, dry_run.excluded) == (2, excluded)
    event = site_queries.event(scenario.conn, 1, None)
    assert event is not None
    for statement in ("browse_candidates", "browse_candidates_near"):
        assert names_behind(scenario, trigger_of(event.facts, Audience.STUDENTS), statement) == first
    assert {member for member, _ in scenario.missing()} == set()
    for member, reason in first.items():
        claim = agent.try_claim(scenario.request(batch, member))
        assert (claim is None) == (reason is not None)
        if reason is not None:
            assert scenario.log(batch)[member, "Student"] == ("skipped", reason)
    all_reasons: list[Any] = [reports.why(scenario.conn, 1, member)["reasons"] for member in (3, 4, 6)]
    assert all_reasons == [["terms_not_accepted", TOO_YOUNG], [TOO_YOUNG, "banned"], []]
    scenario.execute("DELETE FROM batch_items")
    scenario.execute("DELETE FROM log_entries")
    scenario.execute("DELETE FROM deliveries WHERE state <> 'sent'")
    assert [member for member, _ in scenario.missing()] == [2, 6]
