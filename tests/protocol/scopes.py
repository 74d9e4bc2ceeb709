"""The scopes: parts of the protocol that are each small enough to be walked whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.protocol.state import ABSENT, RUNNING, Batch, Delivery, Hand, State, Worker

#: Answers of the mail server.
TAKEN, TAKEN_UNHEARD, LOST, TEMPORARY, PERMANENT, AWAY = "250", "250 unheard", "lost", "4xx", "5xx", "away"


@dataclass(frozen=True)
class Scope:
    """What can happen, and how often. Of faults and decisions, `faults` and `decisions` bound the sum."""

    name: str
    says: str
    answers: frozenset[str]
    #: With "deadline", who holds a claim whose lease has ended sends nothing under it, however long it was frozen.
    #: Without, it may: where nobody resolves by hand, nothing depends on it.
    events: frozenset[str]
    #: How many states there are. Another number: the model, and perhaps the protocol, is another.
    states: int
    faults: int = 0
    decisions: int = 0
    #: The slots that each batch plans.
    slots: tuple[tuple[int, ...], ...] = ((0,), (0,))
    #: The first batch alone is there from the start.
    plans_later: bool = False
    resend_below: int = 0
    max_attempts: int = 2
    #: How many messages the topic holds that nobody has committed past.
    messages: int = 2

    def start(self) -> State:
        """What is planned, and nothing has happened."""
        count = 1 + max(slot for slots in self.slots for slot in slots)
        nothing: tuple[str | None, ...] = (None,) * count
        placing = "place" in self.events
        batches = tuple(Batch(RUNNING, slots, nothing, placing=placing) for slots in self.slots)
        if self.plans_later:
            batches = (*batches[:-1], batches[-1]._replace(state=ABSENT, due=False, settled=True))
        return State(
            batches=batches,
            deliveries=(Delivery(),) * count,
            workers=(Worker((Hand(),) * count),) * 2,
            faults=self.faults,
            decisions=self.decisions,
        )


def _set(*names: str) -> frozenset[str]:
    return frozenset(names)


SCOPES: Final = (
    Scope(
        "crashes",
        "workers die at any point, partitions move while zombies go on, messages get lost, rows are locked",
        _set(TAKEN, TAKEN_UNHEARD, TEMPORARY),
        _set("crash", "rebalance", "lose message", "locked", "deadline"),
        states=50954,
        faults=2,
    ),
    Scope(
        "outbox",
        "publishers die before or after the broker has the message, acknowledgements come late, a topic is replayed",
        _set(TAKEN, TEMPORARY),
        _set("late acknowledgement", "lose acknowledgement", "replay", "lose message"),
        states=19717,
        faults=2,
    ),
    Scope(
        "repeats",
        "commits succeed or come late, and their replies are lost; no worker dies, no delivery may become unknown",
        _set(TAKEN, TEMPORARY, PERMANENT, AWAY),
        _set("unacknowledged claim", "unacknowledged record", "late call", "ban", "pause", "cancel", "steady"),
        states=41729,
        faults=2,
        decisions=1,
    ),
    Scope(
        "decisions",
        "batches are paused, resumed and cancelled, and their items follow late, while partitions move",
        _set(TAKEN, TEMPORARY),
        _set("rebalance", "pause", "cancel"),
        states=143580,
        faults=1,
        decisions=2,
        messages=1,
    ),
    Scope(
        "by hand",
        "operators resolve what is unknown and retry what failed, while zombies still record outcomes",
        _set(TAKEN, LOST, TEMPORARY, PERMANENT),
        _set("rebalance", "resolve", "retry", "deadline"),
        states=63338,
        faults=1,
        decisions=2,
    ),
    Scope(
        "later",
        "a second batch is planned after bans, refusals and cancels in the first",
        _set(TAKEN, TAKEN_UNHEARD, PERMANENT),
        _set("crash", "rebalance", "plan", "ban", "lift ban", "cancel", "locked", "retry"),
        states=19067,
        faults=1,
        decisions=2,
        plans_later=True,
    ),
    Scope(
        "journal",
        "workers die, and their journals tell, sooner or later or never, what became of their claims",
        _set(TAKEN, LOST, TEMPORARY),
        _set("crash", "journal", "deadline"),
        states=32043,
        faults=2,
        messages=1,
    ),
    Scope(
        "journal by hand",
        "operators resolve and retry before the journal of a dead worker is settled",
        _set(TAKEN, LOST, TEMPORARY),
        _set("crash", "journal", "resolve", "retry", "deadline"),
        states=36815,
        faults=1,
        decisions=2,
        messages=1,
    ),
    Scope(
        "restore",
        "the database is lost, restored from a backup of any moment, and learns from Kafka",
        _set(TAKEN, TAKEN_UNHEARD, TEMPORARY),
        _set("restore", "deadline"),
        states=54353,
        faults=1,
        messages=1,
    ),
    Scope(
        "stale source",
        "the newest snapshot of the source becomes too old, while claims are repeated and partitions move",
        _set(TAKEN, LOST, TEMPORARY),
        _set("stale", "rebalance", "unacknowledged claim"),
        states=19592,
        faults=1,
        decisions=2,
        messages=1,
    ),
    Scope(
        "placing",
        "the source gets invitations first, while a rival makes rows there and mails whom they are for",
        _set(TAKEN, TAKEN_UNHEARD, TEMPORARY),
        _set("place", "replay", "crash", "rebalance", "cancel"),
        states=72122,
        faults=2,
        decisions=1,
        messages=1,
    ),
    Scope(
        "two slots",
        "a member with two deliveries in one batch and one in the other",
        _set(TAKEN, TEMPORARY),
        _set("rebalance"),
        states=43843,
        faults=1,
        slots=((0, 1), (1,)),
        messages=1,
    ),
    Scope(
        "two slots by hand",
        "operators cancel, resolve and retry in a batch that has two deliveries of one member",
        _set(TAKEN, LOST, PERMANENT),
        _set("rebalance", "cancel", "resolve", "retry", "deadline"),
        states=151738,
        faults=1,
        decisions=1,
        slots=((0, 1),),
        messages=1,
    ),
    Scope(
        "late outcome",
        "an outcome arrives late, while another worker settles the delivery as unknown",
        _set(TAKEN, LOST, TEMPORARY),
        _set("rebalance", "slow conclusion", "resolve", "cancel", "deadline"),
        states=65216,
        faults=1,
        decisions=1,
    ),
    Scope(
        "resend",
        "the policy `resend`: what is unknown is sent again while it has attempts left",
        _set(TAKEN, TAKEN_UNHEARD, LOST, TEMPORARY),
        _set("crash", "rebalance", "unacknowledged claim", "ban"),
        states=26256,
        faults=1,
        decisions=1,
        resend_below=2,
    ),
    Scope(
        "refusals",
        "the database refuses an outcome, and the record fallback meets everything else",
        _set(TAKEN, LOST, TEMPORARY),
        _set("rebalance", "refused record"),
        states=6925,
        faults=2,
        messages=1,
    ),
    Scope(
        "two refused",
        "the same for a member with two deliveries",
        _set(TAKEN, TEMPORARY),
        _set("refused record"),
        states=2762,
        faults=1,
        slots=((0, 1), (1,)),
        messages=1,
    ),
)
BY_NAME: Final = {scope.name: scope for scope in SCOPES}
