"""What the model of the protocol knows: one member, two batches, two workers, one partition.

Kept small so that it can be walked whole. Numbers that grow for ever are kept as what they are compared with:
offsets count from the group's committed one, and of a fence only whether it is still the newest.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

PLANNED: Final = "planned"
HANDING_OFF: Final = "handing_off"
SENT: Final = "sent"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
RETRY: Final = "retry"
SKIPPED: Final = "skipped"
#: What a log entry says of a delivery that is over for its batch.
FINAL: Final = frozenset({SENT, FAILED, UNKNOWN, SKIPPED})

RUNNING: Final = "running"
PAUSED: Final = "paused"
CANCELLED: Final = "cancelled"
#: Not planned yet.
ABSENT: Final = "absent"

#: No batch; no message.
NONE: Final = -1
#: An offset that the group has committed past, or that was never stored.
PASSED: Final = -1

# What a worker's hand does with one delivery of its message.
IDLE: Final = "idle"
WANTS: Final = "wants"
#: A claim was committed and the answer did not come: the same call will be repeated.
UNHEARD: Final = "unheard"
CLAIMED: Final = "claimed"
ACCEPTED: Final = "accepted"
REFUSED_ONCE: Final = "4xx"
REFUSED: Final = "5xx"
NOT_SENT: Final = "not sent"
IN_DOUBT: Final = "in doubt"
#: Noted in the journal as claimed, and the worker died before the commit: the ledger never heard of it.
NOTED: Final = "noted"
#: The same once another claim has got the fence that was noted.
NOTED_TOO: Final = "noted too"
#: Inside the transaction that settles an unknown delivery, before its commit.
SETTLING: Final = "settling"
DONE: Final = "done"
#: The mail server has answered, or will not.
ANSWERED: Final = frozenset({ACCEPTED, REFUSED_ONCE, REFUSED, NOT_SENT, IN_DOUBT})


# The system that made the row of the source; what the ledger knows is the same, or that there is none.
OURS: Final = "ours"
THEIRS: Final = "theirs"
NOBODYS: Final = "none"


class Delivery(NamedTuple):
    """A row of the ledger; and, in the last two, what is so and nobody has written down."""

    state: str = PLANNED
    #: The lease has not ended.
    live: bool = False
    batch: int = NONE
    attempts: int = 0
    #: `not_before` is to come.
    waits: bool = False
    #: Accepted mails, since a person last had it sent again.
    accepted: int = 0
    #: The state is a person's word.
    word: bool = False


class Batch(NamedTuple):
    """A batch, its one item and its log."""

    state: str
    #: The slots that the item names.
    slots: tuple[int, ...]
    #: Status for each slot of the member.
    log: tuple[str | None, ...]
    #: `publish_at` is set. When its time comes is left open: any time.
    due: bool = True
    offset: int = PASSED
    settled: bool = False
    #: The offset of a message that the broker has and the outbox does not know of; None when there is none.
    unacknowledged: int | None = None
    #: A pause, resume or cancel was decided, and is still to be applied to the item.
    unapplied: bool = False
    #: The source is yet to get its invitations.
    placing: bool = False


class Hand(NamedTuple):
    """What a worker does about one delivery."""

    phase: str = IDLE
    #: The fence of its claim is still the newest.
    newest: bool = False
    #: The deadline of its claim has not passed, by the worker's own clock. Of no account once it was answered.
    permitted: bool = False
    #: Its journal says that the mail was begun. Followed only where there are journals.
    begun: bool = False
    #: Its claim is not published yet. Followed only once there is a backup.
    unpublished: bool = False
    #: The snapshot of the source that its claim went by is too old.
    outdated: bool = False


class Worker(NamedTuple):
    """A worker with at most one message at a time."""

    hands: tuple[Hand, ...]
    batch: int = NONE
    #: It may commit the message's offset: there was no rebalance since.
    assigned: bool = False


class LateCall(NamedTuple):
    """A call whose session the worker lost before the server ran it. The server may still run it."""

    worker: int
    slots: tuple[int, ...]


class Backup(NamedTuple):
    """The rows as they were, and for each slot the newest that was published since: a state, and of which batch."""

    batches: tuple[Batch, ...]
    deliveries: tuple[Delivery, ...]
    published: tuple[tuple[str, int] | None, ...]


class State(NamedTuple):
    """Everything. The partition belongs to the first of the workers."""

    batches: tuple[Batch, ...]
    deliveries: tuple[Delivery, ...]
    workers: tuple[Worker, ...]
    #: The batches of the messages that the group has not committed past.
    topic: tuple[int, ...] = ()
    #: The member may not be mailed.
    barred: bool = False
    #: The newest snapshot of the source is too old.
    stale: bool = False
    #: Who made the row that the source has for the member; what the ledger knows of that; and whether a snapshot was
    #: taken since it does.
    row: str | None = None
    placement: str | None = None
    looked: bool = False
    #: What the journals of dead workers say. They may be lost at any moment, which is as if they had never been.
    journals: tuple[Worker, ...] = ()
    #: The call that a worker is about to repeat.
    late: LateCall | None = None
    backup: Backup | None = None
    #: The rows are those of the backup, and `backup` has what was published since.
    restored: bool = False
    #: How many faults, and how many decisions of people, may still come.
    faults: int = 0
    decisions: int = 0


class Move(NamedTuple):
    """A step that can be taken: what is done, with what. `helps`: it needs no fault and no person to decide."""

    verb: str
    about: tuple[object, ...]
    state: State
    helps: bool = True

    @property
    def name(self) -> str:
        """In words."""
        return self.verb.format(*self.about)


def put(items: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    """The tuple with one of its items replaced."""
    return (*items[:index], value, *items[index + 1 :])


def with_batch(state: State, index: int, batch: Batch) -> State:
    """The state with another batch in that place."""
    return state._replace(batches=put(state.batches, index, batch))


def with_delivery(state: State, slot: int, delivery: Delivery) -> State:
    """The state with another delivery in that slot."""
    return state._replace(deliveries=put(state.deliveries, slot, delivery))


def with_worker(state: State, index: int, worker: Worker) -> State:
    """The state with another worker in that place."""
    return state._replace(workers=put(state.workers, index, worker))


def with_hand(state: State, index: int, slot: int, hand: Hand) -> State:
    """The state with that worker doing something else about that slot."""
    worker = state.workers[index]
    return with_worker(state, index, worker._replace(hands=put(worker.hands, slot, hand)))


def older_claims(state: State, slot: int) -> State:
    """No claim on the slot is the newest any more. One that was only noted has the fence of the claim that comes."""
    for index, worker in enumerate(state.workers):
        if worker.hands[slot].newest:
            state = with_hand(state, index, slot, worker.hands[slot]._replace(newest=False))
    if state.journals:
        state = state._replace(journals=tuple(_older(journal, slot) for journal in state.journals))
    return state


def _older(journal: Worker, slot: int) -> Worker:
    hand = journal.hands[slot]
    noted = hand.phase == NOTED
    older = hand._replace(phase=NOTED_TOO if noted else hand.phase, newest=noted)
    return journal._replace(hands=put(journal.hands, slot, older))


def outdate(state: State) -> State:
    """The newest snapshot is too old, and so is the one that any claim went by."""
    for index, worker in enumerate(state.workers):
        for slot, hand in enumerate(worker.hands):
            if hand.phase in (CLAIMED, UNHEARD):
                state = with_hand(state, index, slot, hand._replace(outdated=True))
    return state._replace(stale=True)


def permit(state: State, slot: int, *, permitted: bool) -> State:
    """Whether who has the newest claim on the slot may send."""
    for index, worker in enumerate(state.workers):
        hand = worker.hands[slot]
        if hand.newest and hand.phase in (CLAIMED, UNHEARD):
            state = with_hand(state, index, slot, hand._replace(permitted=permitted))
    return state
