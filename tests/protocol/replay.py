"""Replays steps of the model on a real database with the real statements, and says what became of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from db import batch_actions, outbox
from db.outbox import PublishReceipt
from producers import batch_control, decisions
from producers.batch_control import Verdict
from schemas import delivery
from schemas.journal import NotedClaim
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult
from streams import dead_journals
from streams.policy import RetryPolicy, decide
from tests.integration.scenario import TOPIC, Agent, Scenario
from tests.protocol.replay_source import ReplayedSource, verb_of_source
from tests.protocol.scopes import AWAY, LOST, PERMANENT, TAKEN, TAKEN_UNHEARD, TEMPORARY, Scope
from tests.protocol.state import ABSENT, HANDING_OFF, NONE, PASSED, RETRY, Batch, Delivery, Move, State

ROLES = ("Student", "Coach")
_AUDIENCES = {(0,): "students", (1,): "coaches", (0, 1): "everyone"}
_HOUR = 3600
_HAND_OVERS: dict[str, SendResult] = {
    TAKEN: Accepted("250 ok"),
    TAKEN_UNHEARD: Ambiguous("connection lost"),
    LOST: Ambiguous("connection lost"),
    TEMPORARY: Refused("451 later", permanent=False),
    PERMANENT: Refused("550 no", permanent=True),
    AWAY: NotSent("421 bye"),
}


@dataclass
class _Message:
    """What a worker has of its message."""

    batch: int = NONE
    request: dict[int, delivery.Delivery] = field(default_factory=dict)
    claims: dict[int, delivery.Delivery] = field(default_factory=dict)
    #: Under which owner a claim was asked for that was not heard of.
    owners: dict[int, str] = field(default_factory=dict)
    answers: dict[int, SendResult] = field(default_factory=dict)
    #: The cycles whose claims were heard of, and whose mails were begun.
    claimed_by: dict[int, str] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)


Rows = tuple[tuple[Batch, ...], tuple[Delivery, ...]]


def rows_of(state: State) -> Rows:
    """What of a state stands in rows: no offsets, and nothing that nobody has written down."""
    batches = tuple(
        batch._replace(offset=PASSED, unacknowledged=None) for batch in state.batches if batch.state != ABSENT
    )
    return batches, tuple(delivery._replace(accepted=0, word=False) for delivery in state.deliveries)


class Replay:
    """One walk: an event of its own, one member, two agents."""

    def __init__(self, scenario: Scenario, agents: Sequence[Agent], scope: Scope, event: int) -> None:
        self._scenario = scenario
        self._conn = scenario.conn
        self._scope = scope
        self._event = event
        self._workers = [(agent, _Message()) for agent in agents]
        self._policy = RetryPolicy(max_attempts=scope.max_attempts, base_seconds=_HOUR)
        self._journals: list[list[NotedClaim]] = []
        self._committed = 0
        self._batches: list[int] = []
        self._source = ReplayedSource(scenario, event, self._batches)
        if "place" in scope.events:
            self._source.begin()
        for batch in scope.start().batches:
            if batch.due:
                self._plan(batch.slots)

    def close(self) -> None:
        """What would be met by the next walk goes."""
        for table in ("log_entries", "batch_items", "bans", "directory_source"):
            statement: Any = f"DELETE FROM {table}"
            self._conn.execute(statement)

    def step(self, before: State, move: Move) -> None:
        """Do what the move says."""
        about: Any = move.about
        match move.verb:
            case "publish batch {}" | "a publisher of batch {} dies":
                self._publish(about[0], len(before.topic), heard=move.verb.startswith("publish"))
            case "replay batch {}":
                items = batch_actions.items_to_replay(self._conn, self._batches[about[0]])
                self._acknowledge(items, len(before.topic))
            case "batch {} is found lost":
                self._find_lost(about[0])
            case "back-off {} ends":
                self._write(about[0], "not_before = now()")
            case "lease {} ends":
                self._write(about[0], "lease_until = now() - interval '1 second'")
            case "lease {} is renewed":
                self._renew(before, about[0])
            case "pass over batch {}" | "a message is lost":
                self._committed += 1
            case "take batch {}":
                self._take(about[0], before.batches[about[0]].slots)
            case "rebalance":
                self._workers.reverse()
            case "journal {} is settled":
                work = dead_journals.settle(self._workers[0][0].ledger, "a journal", self._journals.pop(about[0]))
                self._scenario.run(work)
            case _ if verb_of_source(move.verb):
                self._source.step(move.verb)
            case _ if about and about[0] in ("the owner", "the zombie"):
                self._work(before, ("the owner", "the zombie").index(about[0]), move.verb, about[1:])
            case _:
                self._decide(move.verb, about)

    def rows(self) -> Rows:
        """What the database says, as `rows_of` says it of the model."""
        batches = []
        for batch_id in self._batches:
            row = self._scenario.item(batch_id, 1)
            log = dict(self._pairs("SELECT slot, status FROM log_entries WHERE batch_id = %s", batch_id))
            (state,) = self._scenario.execute(
                "SELECT state, unapplied_since IS NOT NULL AS unapplied, needs_placing IS TRUE AS placing FROM batches "
                "WHERE id = %s",
                batch_id,
            )
            batches.append(
                Batch(
                    state["state"],
                    tuple(ROLES.index(role) for role in ROLES if role in row["roles"]),
                    tuple(log.get(role) for role in ROLES[: self._slots]),
                    due=row["publish_at"] is not None,
                    settled=row["settled_at"] is not None,
                    unapplied=state["unapplied"],
                    placing=state["placing"],
                )
            )
        return tuple(batches), tuple(self._delivery(slot) for slot in range(self._slots))

    @property
    def _slots(self) -> int:
        return len(self._scope.start().deliveries)

    def _pairs(self, query: Any, *values: object) -> list[tuple[Any, Any]]:
        rows = [tuple(row.values()) for row in self._conn.execute(query, values)]
        return [(first, second) for first, second in rows]

    def _delivery(self, slot: int) -> Delivery:
        rows = self._scenario.execute(
            "SELECT state, attempts, batch_id, lease_until > now() AS live, not_before > now() AS waits"
            " FROM deliveries WHERE event_id = %s AND slot = %s",
            self._event,
            ROLES[slot],
        )
        if not rows:
            return Delivery()
        (row,) = rows
        return Delivery(
            row["state"],
            live=row["state"] == HANDING_OFF and row["live"],
            batch=self._batches.index(row["batch_id"]) if row["batch_id"] else NONE,
            attempts=row["attempts"],
            waits=row["state"] == RETRY and row["waits"],
        )

    def _write(self, slot: int, change: str) -> None:
        query: Any = f"UPDATE deliveries SET {change} WHERE event_id = %s AND slot = %s"
        self._conn.execute(query, (self._event, ROLES[slot]))

    # The outbox.

    def _plan(self, slots: tuple[int, ...]) -> None:
        self._batches.append(
            self._scenario.plan(_AUDIENCES[slots], event=self._event, resend=bool(self._scope.resend_below))
        )

    def _publish(self, batch: int, place: int, *, heard: bool) -> None:
        self._conn.execute(
            "UPDATE batch_items SET publish_at = now() + CASE WHEN batch_id = %s THEN -1 ELSE 3600 END"
            " * interval '1 second' WHERE publish_at IS NOT NULL",
            (self._batches[batch],),
        )
        items = outbox.claim_due_items(self._conn, 10)
        assert [item.batch_id for item in items] == [self._batches[batch]]
        if heard:
            self._acknowledge(items, place)

    def _acknowledge(self, items: Sequence[outbox.DueItem], place: int) -> None:
        offset = self._committed + place
        outbox.store_receipts(self._conn, TOPIC, [PublishReceipt(item, 0, offset) for item in items])

    def _find_lost(self, batch: int) -> None:
        others = (self._batches[batch],)
        self._conn.execute(
            "UPDATE batch_items SET publish_at = 'infinity'"
            " WHERE batch_id <> %s AND publish_at IS NULL AND settled_at IS NULL",
            others,
        )
        assert self._scenario.find_lost({0: self._committed}) == 1
        self._conn.execute("UPDATE batch_items SET publish_at = NULL WHERE publish_at = 'infinity'")

    # Workers.

    def _take(self, batch: int, slots: Sequence[int]) -> None:
        request = {slot: self._scenario.request(self._batches[batch], 1, ROLES[slot], self._event) for slot in slots}
        self._workers[0] = (self._workers[0][0], _Message(batch, request))

    def _renew(self, before: State, slot: int) -> None:
        for worker, (agent, message) in zip(before.workers, self._workers, strict=True):
            if worker.hands[slot].newest and slot in message.claims:
                agent.run_cycle(renew=[(message.request[slot], message.claims[slot].fence)])
                return
        # Its claim was not heard of: no worker knows the fence.
        self._write(slot, "lease_until = now() + interval '1 hour'")

    def _work(self, before: State, worker: int, verb: str, about: Any) -> None:
        agent, message = self._workers[worker]
        match verb:
            case "{} asks {}" | "{} asks {} and is not answered":
                self._ask(worker, about[0], heard=verb.endswith("{}"))
            case "{} asks {} and loses its session":
                # The call did not arrive yet. It and its repetition have one owner.
                message.owners.setdefault(about[0][0], agent.next_owner())
            case "the call that {} lost about {} runs":
                self._ask(worker, about[0], heard=False)
            case "{} finds {} locked":
                with self._conn.transaction():
                    self._conn.execute("SELECT FROM deliveries WHERE event_id = %s FOR UPDATE", (self._event,))
                    assert not agent.run_cycle(claim=[message.request[slot] for slot in about[0]])
            case "{} sends {}: {}":
                message.answers[about[0]] = _HAND_OVERS[about[1]]
            case "{} drops {}":
                message.answers[about[0]] = Lapsed("its claim ended")
            case "{} records {}" | "{} records {} and is not answered":
                slot = about[0]
                claim = message.claims[slot]
                outcome = decide(message.answers[slot], claim.attempts, self._policy, 0.5)
                agent.record(message.request[slot], claim, outcome)
            case "{} records {} and is refused":
                self._refuse_records()
                self._work(before, worker, "{} records {}", about)
                self._conn.execute("DROP FUNCTION refuse CASCADE")
            case "{} begins {}":
                message.begun.add(about[0])
            case "{} dies, its journal has {}":
                self._journals.append(self._journal_of(message, about[0]))
                self._workers[worker] = (agent, _Message())
            case "{} is done" | "{} dies":
                if verb == "{} is done" and before.workers[worker].assigned:
                    self._committed += 1
                self._workers[worker] = (agent, _Message())
            case _:
                raise AssertionError(verb)

    def _ask(self, worker: int, slots: Sequence[int], *, heard: bool) -> None:
        agent, message = self._workers[worker]
        owner = message.owners.pop(slots[0], None) or agent.next_owner()
        claims = agent.run_cycle(claim=[message.request[slot] for slot in slots], owner=owner)
        for slot in slots:
            claim = claims.get(message.request[slot].key)
            if claim and heard:
                message.claims[slot] = claim
                message.claimed_by[slot] = owner
            elif claim:
                message.owners[slot] = owner

    def _journal_of(self, message: _Message, has: str) -> list[NotedClaim]:
        """What the message's worker had noted when it died."""
        noted = []
        for slot, request in message.request.items():
            about = request.batch_id, request.role, request.partition, request.offset
            claim = message.claims.get(slot)
            if claim:
                entry = NotedClaim(message.claimed_by[slot], request.key, None, *about)
                if slot in message.begun:
                    entry = entry.begin(claim.fence)
                if slot in message.answers and has != "no answer":
                    outcome = decide(message.answers[slot], claim.attempts, self._policy, 0.5)
                    entry = entry.end(claim.fence, outcome)
                noted.append(entry)
            elif has == "a claim to come":
                noted.append(NotedClaim("a cycle that was rolled back", request.key, None, *about))
        return noted

    def _refuse_records(self) -> None:
        self._conn.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$"
        )
        self._conn.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (NEW.state <> 'handing_off'"
            " AND coalesce(NEW.reason, '') NOT LIKE 'its outcome%') EXECUTE FUNCTION refuse()"
        )

    # People.

    def _decide(self, verb: str, about: Any) -> None:
        batch = self._batches[about[-1]] if verb != "resolve as {}" and about and about[-1] < len(self._batches) else 0
        match verb, about:
            case "{} batch {}", ("plan", index):
                self._plan(self._scope.slots[index])
            case "{} batch {}", ("retry", _):
                assert batch_control.retry(self._conn, batch)
            case ("{} batch {}", ("pause" | "cancel", _)) | ("resume batch {}", _):
                with self._transaction():
                    batch_actions.lock_batch_against_operators(self._conn, batch)
                    state = {"pause": "paused", "cancel": "cancelled"}.get(about[0], "running")
                    batch_actions.decide(self._conn, batch, state)
            case "the decision on batch {} is applied", _:
                assert decisions.apply_chunk(self._conn, batch) is decisions.Step.DONE
            case "resolve as {}", (verdict,):
                below = self._scope.resend_below
                word = Verdict(verdict)
                batch_control.resolve(self._conn, self._event, word, member_id=1, by="a test", resend_below=below)
            case "ban", _:
                self._conn.execute("INSERT INTO bans (id, member_id, permanent) VALUES (1, 1, true)")
            case (("the snapshot is too old" | "a snapshot is taken"), _):
                age = _HOUR if verb == "the snapshot is too old" else 0
                self._conn.execute("DELETE FROM directory_source")
                self._conn.execute(
                    "INSERT INTO directory_source (id, began_at, applied_at, max_age_seconds, result) "
                    "VALUES (1, now() - %s * interval '1 second', now(), 60, '{}')",
                    (age,),
                )
            case "lift the ban", _:
                self._conn.execute("DELETE FROM bans")
            case _:
                raise AssertionError(verb)

    def _transaction(self) -> AbstractContextManager[object]:
        return self._conn.transaction() if self._conn.autocommit else nullcontext()
