"""What will be done to whom, and when: pure. The same seed gives the same blows, moods and campaigns.

Nothing here knows a process or a server. Who is hit is a number in [0, 1), turned into one of those who are there
when the blow falls; how long a campaign takes is no part of the plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: A worker's hand-overs, in the settings of a run: how long a lease is, how long the mail server may be silent.
LEASE_SECONDS: Final = 3.0
SMTP_TIMEOUT_SECONDS: Final = 4.0
#: Beyond the group's session, so that a worker comes back to partitions that others have.
SESSION_SECONDS: Final = 10.0


class Kind(StrEnum):
    """The blows."""

    WORKER_KILL = "worker killed"
    WORKER_FREEZE = "worker stopped past its lease, continued"
    WORKER_TERM = "worker asked to end, another started"
    DISPATCHER_KILL = "dispatcher killed"
    DISPATCHER_FREEZE = "dispatcher stopped, continued"
    INVITE_KILL = "trigger killed half-way"
    POSTGRES_RESTART = "PostgreSQL restarted"
    POSTGRES_KILL = "PostgreSQL killed"
    POSTGRES_FREEZE = "PostgreSQL stopped past the lease, continued"
    KAFKA_RESTART = "Kafka restarted"
    KAFKA_KILL = "Kafka killed"
    KAFKA_FREEZE = "Kafka stopped past the lease, continued"
    MAIL_RESTART = "mail server restarted"
    MAIL_KILL = "mail server killed"
    MAIL_FREEZE = "mail server stopped past its time-out, continued"
    MAIL_MOOD = "mail server misbehaves"
    TOPIC = "topic deleted, made again"


#: How many of each are in a hundred blows.
WEIGHTS: Final[Mapping[Kind, int]] = {
    Kind.WORKER_KILL: 12,
    Kind.WORKER_FREEZE: 8,
    Kind.WORKER_TERM: 8,
    Kind.DISPATCHER_KILL: 8,
    Kind.DISPATCHER_FREEZE: 5,
    Kind.INVITE_KILL: 8,
    Kind.POSTGRES_RESTART: 4,
    Kind.POSTGRES_KILL: 4,
    Kind.POSTGRES_FREEZE: 3,
    Kind.KAFKA_RESTART: 2,
    Kind.KAFKA_KILL: 2,
    Kind.KAFKA_FREEZE: 2,
    Kind.MAIL_RESTART: 4,
    Kind.MAIL_KILL: 4,
    Kind.MAIL_FREEZE: 3,
    Kind.MAIL_MOOD: 22,
    Kind.TOPIC: 1,
}


@dataclass(frozen=True)
class Mood:
    """How the mail server behaves until the next mood; `doubtful` is how many mails it can leave in doubt."""

    name: str
    rules: tuple[Mapping[str, Any], ...]
    doubtful: int = 0


@dataclass(frozen=True)
class Blow:
    """One blow: `gap` seconds after the one before; `pick` says who; it lasts `seconds` (stopped, away, or until)."""

    kind: Kind
    gap: float
    pick: float
    seconds: float
    mood: Mood | None = None


def schedule(seed: int) -> Iterator[Blow]:
    """Blows without end: first one of each kind in a random order, then hand after hand by weight."""
    rng = random.Random(f"{seed} blows")
    hand = list(Kind)
    while True:
        rng.shuffle(hand)
        for kind in hand:
            yield _blow(kind, rng)
        hand = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]


def _blow(kind: Kind, rng: random.Random) -> Blow:
    # Now and then at once: while everybody still recovers from the one before.
    gap = 0.0 if rng.random() < 0.15 else min(3.0, 0.1 + rng.expovariate(1 / 0.6))
    mood = _mood(rng) if kind is Kind.MAIL_MOOD else None
    return Blow(kind, round(gap, 2), rng.random(), round(_seconds(kind, rng), 2), mood)


def _seconds(kind: Kind, rng: random.Random) -> float:
    match kind:
        case Kind.WORKER_FREEZE:
            longest = rng.random() < 0.15
            return SESSION_SECONDS + 2 if longest else LEASE_SECONDS + rng.uniform(0.5, 2.5)
        case Kind.DISPATCHER_FREEZE | Kind.POSTGRES_FREEZE | Kind.KAFKA_FREEZE:
            return LEASE_SECONDS + rng.uniform(0.5, 2)
        case Kind.MAIL_FREEZE:
            return SMTP_TIMEOUT_SECONDS + rng.uniform(0.5, 1.5)
        case Kind.INVITE_KILL:
            return rng.uniform(0.3, 1.2)
        case Kind.POSTGRES_RESTART | Kind.POSTGRES_KILL | Kind.MAIL_RESTART | Kind.MAIL_KILL:
            # How long it is away; now and then longer than a lease.
            return rng.uniform(3, 4.5) if rng.random() < 0.2 else rng.uniform(0, 1.5)
        case Kind.KAFKA_RESTART | Kind.KAFKA_KILL:
            return rng.uniform(0, 1)
        case Kind.TOPIC:
            return rng.uniform(0, 2)
        case _:
            return 0.0


#: So that a batch lasts for some blows, whatever else the mail server does.
def _pace(rng: random.Random) -> Mapping[str, Any]:
    return {"do": "delay", "seconds": round(rng.uniform(0.08, 0.25), 2)}


def _mood(rng: random.Random) -> Mood:
    name = rng.choice(tuple(_MOODS))
    rules, doubtful = _MOODS[name](rng)
    return Mood(name, (*rules, _pace(rng)), doubtful)


def first_mood(seed: int) -> Mood:
    """How the mail server behaves before the first blow."""
    return Mood("well", (_pace(random.Random(f"{seed} first mood")),))


def _some(rng: random.Random) -> str:
    """About a tenth of the addresses."""
    return f"m*{rng.randrange(10)}@*"


_Rules = tuple[list[Mapping[str, Any]], int]


def _well(_: random.Random) -> _Rules:
    return [], 0


def _slow(rng: random.Random) -> _Rules:
    return [{"do": "delay", "seconds": round(rng.uniform(0.5, 1.2), 2), "times": rng.randint(20, 80)}], 0


def _later(rng: random.Random) -> _Rules:
    return [
        {
            "do": "refuse_recipient",
            "recipient": _some(rng),
            "reply": "451 4.7.1 Try later",
            "times": rng.randint(5, 40),
        },
        {"do": "refuse_data", "reply": "452 4.3.1 Full", "times": rng.randint(1, 10)},
        {"do": "refuse_mail", "recipient": _some(rng), "reply": "450 4.2.0 Greylisted", "times": rng.randint(1, 10)},
    ], 0


def _never(rng: random.Random) -> _Rules:
    return [
        {"do": "refuse_recipient", "recipient": _some(rng), "times": rng.randint(2, 12)},
        {"do": "refuse_mail", "recipient": _some(rng), "times": rng.randint(1, 4)},
    ], 0


def _closing(rng: random.Random) -> _Rules:
    return [
        {"do": "refuse_recipient", "reply": "421 4.3.2 Closing", "times": rng.randint(2, 15)},
        {"do": "refuse_connection", "times": rng.randint(1, 12)},
    ], 0


def _drops_before(rng: random.Random) -> _Rules:
    return [{"do": "drop_before_data", "times": rng.randint(2, 15)}], 0


def _drops_in_data(rng: random.Random) -> _Rules:
    times = rng.randint(1, 4)
    return [{"do": "drop_in_data", "times": times}], times


def _drops_after(rng: random.Random) -> _Rules:
    times = rng.randint(1, 4)
    return [{"do": "drop_after_store", "times": times}], times


_MOODS: Final = {
    "well": _well,
    "slow": _slow,
    "4xx": _later,
    "5xx": _never,
    "421": _closing,
    "drops before the data": _drops_before,
    "drops in the data": _drops_in_data,
    "drops after acceptance": _drops_after,
}


@dataclass(frozen=True)
class Campaign:
    """What is triggered for one event, in this order; the second at once with the first, where `together`."""

    event: int
    audiences: tuple[str, ...]
    together: bool
    #: A second thought about the first batch: nothing, pause (and resume), cancel.
    thought: str | None


def campaigns(seed: int) -> Iterator[Campaign]:
    """Campaigns without end, one event after the other. Audiences overlap, so that batches meet each other's keys."""
    rng = random.Random(f"{seed} campaigns")
    event = 0
    while True:
        event += 1
        audiences = rng.choice(
            (
                ("students", "everyone"),
                ("everyone", "students"),
                ("coaches", "students", "everyone"),
                ("students", "coaches"),
                ("everyone",),
            )
        )
        thought = rng.choices((None, "pause", "cancel"), weights=(72, 20, 8))[0]
        yield Campaign(event, audiences, rng.random() < 0.4, thought)
