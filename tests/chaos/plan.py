"""The plan of a run, a pure function of the seed: faults with their gaps and durations, and campaigns.

Nothing here knows a process or a server. The target of a fault is a number in [0, 1), which picks one of the processes
that run when the fault is injected. How long a batch takes is not planned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: Settings of the workers: the length of a lease, and how long the mail server may be silent.
LEASE_SECONDS: Final = 3.0
SMTP_TIMEOUT_SECONDS: Final = 4.0
#: The session timeout of the group: a worker stopped for longer comes back to partitions that others own.
SESSION_SECONDS: Final = 10.0


class FaultKind(StrEnum):
    """What can be done to the system."""

    WORKER_KILL = "worker killed"
    WORKER_KILL_JOURNAL = "worker killed, its journal lost"
    WORKER_FREEZE = "worker stopped past its lease, continued"
    WORKER_TERM = "worker stopped by SIGTERM, another started"
    WORKER_HUP = "worker stopped by SIGHUP, another started"
    WORKER_FREEZE_RESOLVED = "worker stopped until its deliveries were resolved and retried, continued"
    WORKER_LOG_GONE = "reader of a worker's log killed"
    DISPATCHER_KILL = "dispatcher killed"
    DISPATCHER_FREEZE = "dispatcher stopped, continued"
    INVITE_KILL = "trigger killed half-way"
    POSTGRES_RESTART = "PostgreSQL restarted"
    POSTGRES_KILL = "PostgreSQL killed"
    POSTGRES_FREEZE = "PostgreSQL stopped past the lease, continued"
    KAFKA_RESTART = "Kafka restarted"
    KAFKA_KILL = "Kafka killed"
    KAFKA_FREEZE = "Kafka stopped past the lease, continued"
    KAFKA_TAIL = "Kafka killed, the end of the topic lost"
    MAIL_RESTART = "mail server restarted"
    MAIL_KILL = "mail server killed"
    MAIL_FREEZE = "mail server stopped past its timeout, continued"
    MAIL_PROFILE = "mail server misbehaves"
    TOPIC = "topic deleted, made again"


#: How many of each are in a hundred faults.
WEIGHTS: Final[Mapping[FaultKind, int]] = {
    FaultKind.WORKER_KILL: 7,
    FaultKind.WORKER_KILL_JOURNAL: 2,
    FaultKind.WORKER_FREEZE: 6,
    FaultKind.WORKER_TERM: 4,
    FaultKind.WORKER_HUP: 4,
    FaultKind.WORKER_FREEZE_RESOLVED: 3,
    FaultKind.WORKER_LOG_GONE: 4,
    FaultKind.DISPATCHER_KILL: 8,
    FaultKind.DISPATCHER_FREEZE: 3,
    FaultKind.INVITE_KILL: 8,
    FaultKind.POSTGRES_RESTART: 4,
    FaultKind.POSTGRES_KILL: 4,
    FaultKind.POSTGRES_FREEZE: 3,
    FaultKind.KAFKA_RESTART: 2,
    FaultKind.KAFKA_KILL: 2,
    FaultKind.KAFKA_FREEZE: 2,
    FaultKind.KAFKA_TAIL: 2,
    FaultKind.MAIL_RESTART: 4,
    FaultKind.MAIL_KILL: 4,
    FaultKind.MAIL_FREEZE: 3,
    FaultKind.MAIL_PROFILE: 20,
    FaultKind.TOPIC: 1,
}


@dataclass(frozen=True)
class FaultProfile:
    """How the mail server behaves until the next profile; `in_doubt`: how many mails it can make unknown."""

    name: str
    rules: tuple[Mapping[str, Any], ...]
    in_doubt: int = 0


@dataclass(frozen=True)
class Fault:
    """`gap`: seconds after the one before. `pick`: its target. `seconds`: how long it lasts, or until the kill."""

    kind: FaultKind
    gap: float
    pick: float
    seconds: float
    profile: FaultProfile | None = None


def schedule(seed: int) -> Iterator[Fault]:
    """Faults without end: first one of each kind in a random order, then rounds of a hundred by weight."""
    # The salts below are part of every seed: changed, a recorded seed would give another run.
    rng = random.Random(f"{seed} blows")
    kinds = list(FaultKind)
    while True:
        rng.shuffle(kinds)
        for kind in kinds:
            yield _fault(kind, rng)
        kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]


def _fault(kind: FaultKind, rng: random.Random) -> Fault:
    # Some at once, during the recovery from the one before.
    gap = 0.0 if rng.random() < 0.15 else min(3.0, 0.1 + rng.expovariate(1 / 0.6))
    profile = _profile(rng) if kind is FaultKind.MAIL_PROFILE else None
    return Fault(kind, round(gap, 2), rng.random(), round(_seconds(kind, rng), 2), profile)


def _seconds(kind: FaultKind, rng: random.Random) -> float:
    match kind:
        case FaultKind.WORKER_FREEZE:
            longest = rng.random() < 0.15
            return SESSION_SECONDS + 2 if longest else LEASE_SECONDS + rng.uniform(0.5, 2.5)
        case FaultKind.WORKER_FREEZE_RESOLVED:
            # Another worker meets its deliveries, and finds them unknown, once the group has given it the partitions.
            return SESSION_SECONDS + rng.uniform(4, 7)
        case FaultKind.DISPATCHER_FREEZE | FaultKind.POSTGRES_FREEZE | FaultKind.KAFKA_FREEZE:
            return LEASE_SECONDS + rng.uniform(0.5, 2)
        case FaultKind.MAIL_FREEZE:
            return SMTP_TIMEOUT_SECONDS + rng.uniform(0.5, 1.5)
        case FaultKind.INVITE_KILL:
            return rng.uniform(0.3, 1.2)
        case FaultKind.POSTGRES_RESTART | FaultKind.POSTGRES_KILL | FaultKind.MAIL_RESTART | FaultKind.MAIL_KILL:
            # How long it is down; sometimes longer than a lease.
            return rng.uniform(3, 4.5) if rng.random() < 0.2 else rng.uniform(0, 1.5)
        case FaultKind.KAFKA_RESTART | FaultKind.KAFKA_KILL | FaultKind.KAFKA_TAIL:
            return rng.uniform(0, 1)
        case FaultKind.TOPIC:
            return rng.uniform(0, 2)
        case _:
            return 0.0


def _pace(rng: random.Random) -> Mapping[str, Any]:
    """Slow enough that a batch lasts for several faults."""
    return {"do": "delay", "seconds": round(rng.uniform(0.08, 0.25), 2)}


def _profile(rng: random.Random) -> FaultProfile:
    name = rng.choice(tuple(_PROFILES))
    rules, in_doubt = _PROFILES[name](rng)
    return FaultProfile(name, (*rules, _pace(rng)), in_doubt)


def first_profile(seed: int) -> FaultProfile:
    """How the mail server behaves before the first fault."""
    return FaultProfile("well", (_pace(random.Random(f"{seed} first mood")),))


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


def _throttled(reply: str) -> Callable[[random.Random], _Rules]:
    """A provider's limit: what comes faster gets this reply to MAIL."""

    def rules(rng: random.Random) -> _Rules:
        return [{"do": "refuse_sender", "reply": reply, "per_second": rng.randint(5, 30)}], 0

    return rules


def _full(rng: random.Random) -> _Rules:
    return [{"do": "refuse_sender", "reply": "452 4.3.1 Insufficient system storage", "times": rng.randint(10, 60)}], 0


_PROFILES: Final[Mapping[str, Callable[[random.Random], _Rules]]] = {
    "well": _well,
    "throttles with 454": _throttled("454 4.7.0 Throttling failure: Maximum sending rate exceeded"),
    "throttles with 421": _throttled("421 4.7.0 Too many messages, slow down"),
    "full": _full,
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
    """The audiences triggered for one event, in order. `at_once`: the second at the same time as the first."""

    event: int
    audiences: tuple[str, ...]
    at_once: bool
    #: What the organiser does to the first batch: nothing, pause (then resume), cancel.
    decision: str | None


def campaigns(seed: int) -> Iterator[Campaign]:
    """Campaigns without end, one event after the other. Audiences overlap, so that batches share delivery keys."""
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
        decision = rng.choices((None, "pause", "cancel"), weights=(72, 20, 8))[0]
        yield Campaign(event, audiences, rng.random() < 0.4, decision)
