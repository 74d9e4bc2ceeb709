"""The ledger on a random walk, on the real database: agents that claim, die, come back late and repeat themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, LiteralString

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from schemas.delivery import Delivery
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.scenario import FIVE, Agent, Scenario, completed
from tests.integration.test_planning import ban

#: Retries are the most frequent, and due at once: a walk is short, and what is sent is over.
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        Retry("451", 0, 1),
        Retry("refused", 0, 0),
        Retry("451", 60, 1),
        Unknown("lost"),
        Unknown("timed out"),
        Sent("250"),
        Failed("550"),
    ]
)
AUDIENCES = ["students", "coaches", "everyone"]
MOST_ATTEMPTS = 3


@dataclass
class HeldClaim:
    """A claim that some agent holds, and what became of the mail once that is known to it."""

    agent: Agent
    request: Delivery
    claim: Delivery
    truth: Outcome | None = None


class LedgerWalk(RuleBasedStateMachine):
    """Two agents, two members (one with both roles), up to four batches."""

    scenario: ClassVar[Scenario]
    agents: ClassVar[list[Agent]]
    resend: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.scenario.execute(
            "TRUNCATE batches, batch_items, batch_webhooks, deliveries, log_entries, invitations, bans RESTART IDENTITY"
        )
        self.batches: list[int] = []
        self.held_claims: list[HeldClaim] = []
        self.sent: dict[DeliveryKey, dict[str, Any]] = {}

    @initialize(audiences=st.tuples(st.sampled_from(AUDIENCES), st.sampled_from(AUDIENCES)))
    def two_batches(self, audiences: tuple[str, str]) -> None:
        self.batches.clear()
        for audience in audiences:
            self.start(audience)

    def start(self, audience: str) -> None:
        """A batch, unless nobody is left."""
        batch_id = self.scenario.trigger(audience, resend=self.resend).batch_id
        if batch_id is not None:
            self.batches.append(batch_id)

    def choose(self, data: st.DataObject) -> list[Delivery]:
        """The deliveries of one message."""
        rows = self.scenario.execute(
            "SELECT batch_id, member_id, roles, settled_at FROM batch_items WHERE excluded IS NULL"
            " ORDER BY batch_id, member_id"
        )
        if not rows:
            return []
        is_open = [row for row in rows if row["settled_at"] is None]
        replayed = data.draw(st.integers(0, 4)) == 4
        row = data.draw(st.sampled_from(rows if replayed else is_open or rows))
        roles = data.draw(st.sampled_from([row["roles"], row["roles"][:1], row["roles"][-1:]]))
        return [self.scenario.request(row["batch_id"], row["member_id"], role) for role in roles]

    def unrecorded(self) -> list[HeldClaim]:
        return [held for held in self.held_claims if held.truth is None]

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule, so that no walk goes without messages: Hypothesis leaves whole rules out of an example."""
        happens = data.draw(st.sampled_from(self.events()))
        happens(data)

    def events(self) -> list[Callable[[st.DataObject], None]]:
        """What can happen now, the more frequent the oftener it stands here."""
        events: list[Callable[[st.DataObject], None]] = [self.a_ban_comes_or_goes, self.pause_or_resume]
        events += [self.a_message_comes] * 5
        if self.unrecorded():
            events += [self.an_outcome_is_recorded] * 2 + [self.leases_end] * 2
        if self.held_claims:
            events += [self.an_outcome_is_recorded, self.an_old_outcome_is_recorded]
        if any(isinstance(held.truth, Retry) for held in self.held_claims):
            events += [self.waits_end]
        if len(self.batches) < 4:
            events += [self.another_batch]
        return events

    def a_message_comes(self, data: st.DataObject) -> None:
        """An agent takes it, perhaps records something in the same commit, which perhaps gets lost on its way back."""
        agent, tell, lost = data.draw(st.tuples(st.sampled_from(self.agents), st.booleans(), st.booleans()))
        request = self.choose(data)
        mine = {held.request.key: held for held in self.unrecorded() if held.agent is agent}
        request = [w for w in request if w.key not in mine]
        finished = []
        if tell and mine:
            held = mine[data.draw(st.sampled_from(sorted(mine)))]
            outcome: Outcome = data.draw(OUTCOMES)
            held.truth = outcome
            finished = [completed(held.request, held.claim.fence, outcome)]
        too_early = {
            (row["member_id"], row["slot"])
            for row in self.scenario.execute("SELECT member_id, slot FROM deliveries WHERE not_before > now()")
        }
        owner = agent.next_owner()
        claims = agent.run_cycle(finished, request, owner=owner)
        if lost:
            claims = agent.run_cycle(finished, request, owner=owner)
        for w in request:
            if w.key in claims:
                assert (w.key.member_id, w.key.slot) not in too_early
                self.held_claims.append(HeldClaim(agent, w, claims[w.key]))

    def an_outcome_is_recorded(self, data: st.DataObject) -> None:
        """In time or late; an outcome may be recorded again."""
        again = data.draw(st.integers(0, 3)) == 3
        held = data.draw(st.sampled_from(self.held_claims if again else self.unrecorded() or self.held_claims))
        held.truth = held.truth or data.draw(OUTCOMES)
        held.agent.record(held.request, held.claim, held.truth)

    def an_old_outcome_is_recorded(self, data: st.DataObject) -> None:
        """FM-19: under a fence of long ago it changes nothing at all."""
        held = data.draw(st.sampled_from(self.held_claims))
        ledger: LiteralString = "SELECT * FROM deliveries ORDER BY member_id, slot"
        before = self.scenario.execute(ledger)
        fence = max(h.claim.fence for h in self.held_claims if h.request.key == held.request.key)
        held.agent.record(held.request, fence - data.draw(st.integers(1, 3)), Failed("old"))
        assert self.scenario.execute(ledger) == before

    def leases_end(self, _: st.DataObject) -> None:
        """Every agent with a claim counts as dead."""
        self.scenario.end_leases()

    def waits_end(self, _: st.DataObject) -> None:
        """Every retry's time has come."""
        self.scenario.end_waits()

    def another_batch(self, data: st.DataObject) -> None:
        """Somebody presses the button again."""
        self.start(data.draw(st.sampled_from(AUDIENCES)))

    def a_ban_comes_or_goes(self, data: st.DataObject) -> None:
        """Of either member."""
        number, banned = data.draw(st.tuples(st.integers(1, 2), st.booleans()))
        self.scenario.load(ban(number, number, permanent=True) if banned else ban(number, 0, deleted=True))

    def pause_or_resume(self, data: st.DataObject) -> None:
        """Any batch."""
        batch, state = data.draw(st.tuples(st.sampled_from(self.batches), st.sampled_from(["running", "paused"])))
        self.scenario.set_state(batch, state)

    @invariant()
    def no_second_mail(self) -> None:
        """FM-03: under `hold` at most one mail per key was accepted, and no claim is given while an outcome is open."""
        accepted = Counter(h.request.key for h in self.held_claims if isinstance(h.truth, Sent))
        in_doubt = Counter(h.request.key for h in self.unrecorded())
        in_doubt.update(h.request.key for h in self.held_claims if isinstance(h.truth, Unknown))
        if not self.resend:
            assert all(count <= 1 for count in (accepted + in_doubt).values())
        fences = [(h.request.key, h.claim.fence) for h in self.held_claims]
        assert len(set(fences)) == len(fences)
        if self.resend:
            uses = Counter(h.request.key for h in self.held_claims if not isinstance(h.truth, Retry | Failed | None))
            planned_anew = len(self.batches)
            assert all(count <= MOST_ATTEMPTS * planned_anew for count in uses.values())

    @invariant()
    def sent_never_changes(self) -> None:
        for row in self.scenario.execute("SELECT * FROM deliveries WHERE state = 'sent'"):
            key = DeliveryKey(row["event_id"], row["action"], row["member_id"], row["slot"])
            assert self.sent.setdefault(key, row) == row
        left = self.scenario.execute("SELECT count(*) AS n FROM deliveries WHERE state = 'sent'")
        assert left == [{"n": len(self.sent)}]

    @invariant()
    def recorded_is_known(self) -> None:
        """FM-11: the ledger says sent only of what an agent said was accepted."""
        said = {h.request.key for h in self.held_claims if isinstance(h.truth, Sent)}
        assert set(self.sent) <= said

    @invariant()
    def the_sums_hold(self) -> None:
        """FM-14: sums and audit, at every step."""
        for batch in self.batches:
            status = self.scenario.status(batch)
            assert sum(status[name] for name in FIVE) == status["deliveries"]
        audit = self.scenario.audit()
        assert audit["balanced"], audit

    @invariant()
    def settled_is_final(self) -> None:
        """FM-24: what is settled has an outcome for every slot."""
        wrong = self.scenario.execute(
            "SELECT * FROM batch_items i WHERE settled_at IS NOT NULL AND cardinality(roles) <> (SELECT count(*)"
            " FROM log_entries l WHERE l.batch_id = i.batch_id AND l.member_id = i.member_id AND status <> 'retry')"
        )
        assert wrong == []

    def teardown(self) -> None:
        """FM-28: wherever the walk ended, messages that come again settle everything in a few rounds."""
        for batch in self.batches:
            self.scenario.set_state(batch, "running")
        agent = self.agents[0]
        unsettled: LiteralString = "SELECT batch_id, member_id, roles FROM batch_items WHERE settled_at IS NULL"
        for _ in range(MOST_ATTEMPTS + 2):
            self.scenario.end_leases()
            self.scenario.end_waits()
            for row in self.scenario.execute(unsettled):
                request = [self.scenario.request(row["batch_id"], row["member_id"], role) for role in row["roles"]]
                claims = agent.run_cycle(claim=request)
                for w in (w for w in request if w.key in claims):
                    agent.record(w, claims[w.key], Sent("250"))
        assert self.scenario.execute(unsettled) == []
        assert all(self.scenario.status(batch)["state"] == "completed" for batch in self.batches)
        self.scenario.check()


@pytest.mark.parametrize(("policy", "resend"), [("each", False), ("one", False), ("each", True)])
def test_the_ledger_on_a_random_walk(scenario: Scenario, policy: str, resend: bool) -> None:
    """FM-19: whatever order claims, outcomes, expiries and plans come in: one mail per key, true sums, nobody stuck."""
    scenario.build(students=[1], both=[2], role_policy=policy)

    class Walk(LedgerWalk):
        pass

    Walk.scenario, Walk.resend = scenario, resend
    Walk.agents = [scenario.agent(name, resend_below=MOST_ATTEMPTS if resend else 0) for name in ("a", "b")]
    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
