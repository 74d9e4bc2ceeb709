"""The blows: each is dealt at once, and what ends it (a server's return, a SIGCONT) is left to the world's loop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TypeVar

from embedded.server import Server
from tests.chaos.plan import Blow, Kind
from tests.chaos.processes import Slot
from tests.chaos.world import World

T = TypeVar("T")


def can_fall(world: World, blow: Blow) -> bool:
    """Whether whom it is meant for is there: a server that is away cannot be killed."""
    match blow.kind:
        case Kind.WORKER_KILL | Kind.WORKER_FREEZE | Kind.WORKER_TERM:
            return bool(world.crew.living("worker"))
        case Kind.DISPATCHER_KILL | Kind.DISPATCHER_FREEZE:
            return bool(world.crew.living("dispatch"))
        case Kind.INVITE_KILL:
            return True
        case Kind.TOPIC:
            return world.servers.is_up(world.stack.kafka) and not world.topic_is_being_made
        case _:
            return world.servers.is_up(_server(world, blow.kind))


def fall(world: World, blow: Blow) -> str:
    """Deals the blow; says whom it hit."""
    if blow.kind in {Kind.TOPIC, Kind.KAFKA_KILL, Kind.KAFKA_RESTART, Kind.KAFKA_FREEZE}:
        world.ends.kafka_was_hit()
    match blow.kind:
        case Kind.WORKER_KILL:
            slot = _one(world.crew.living("worker"), blow.pick)
            return f"pid {world.crew.kill(slot).popen.pid}"
        case Kind.WORKER_FREEZE:
            return _freeze(world, _one(world.crew.living("worker"), blow.pick), blow.seconds)
        case Kind.WORKER_TERM:
            slot = _one(world.crew.living("worker"), blow.pick)
            return f"pid {world.crew.replace(slot).popen.pid}"
        case Kind.DISPATCHER_KILL:
            slot = _one(world.crew.living("dispatch"), blow.pick)
            return f"pid {world.crew.kill(slot).popen.pid}"
        case Kind.DISPATCHER_FREEZE:
            return _freeze(world, _one(world.crew.living("dispatch"), blow.pick), blow.seconds)
        case Kind.INVITE_KILL:
            return _kill_invite(world, blow)
        case Kind.MAIL_MOOD:
            assert blow.mood is not None
            world.set_mood(blow.mood)
            return blow.mood.name
        case Kind.TOPIC:
            world.delete_topic(blow.seconds)
            return f"away for {blow.seconds} s"
        case Kind.POSTGRES_FREEZE | Kind.KAFKA_FREEZE | Kind.MAIL_FREEZE:
            server = _server(world, blow.kind)
            _count_doubt(world, blow.kind)
            world.servers.freeze(server)
            world.later(blow.seconds, lambda: world.servers.thaw(server))
            return f"for {blow.seconds} s"
        case _:
            kill = blow.kind in {Kind.POSTGRES_KILL, Kind.KAFKA_KILL, Kind.MAIL_KILL}
            _count_doubt(world, blow.kind)
            world.servers.take_away(_server(world, blow.kind), kill=kill, seconds=blow.seconds)
            return f"away for {blow.seconds} s"


def _one(there: Sequence[T], pick: float) -> T:
    return there[int(pick * len(there))]


def _freeze(world: World, slot: Slot, seconds: float) -> str:
    process = slot.process
    assert process is not None
    process.signal(signal.SIGSTOP)
    slot.frozen = True
    if slot.words[0] == "worker":
        world.report.doubt["workers stopped"] += world.in_hand(process)

    def go_on() -> None:
        process.signal(signal.SIGCONT)
        if slot.process is process:
            slot.frozen = False

    world.later(seconds, go_on)
    return f"pid {process.popen.pid} for {seconds} s"


def _kill_invite(world: World, blow: Blow) -> str:
    """One that has just been started, else the next one."""
    running = [e for e in world.errands.running if e.words[0] == "invite" and e.kill_after is None]
    errand = running[-1] if running else world.organisers.trigger()
    if errand is None:
        return "nobody: no more events"
    errand.kill_after = blow.seconds
    return f"event {errand.words[1]}, {errand.words[3]}, after {blow.seconds} s"


def _count_doubt(world: World, kind: Kind) -> None:
    """Mails that may be left in doubt, though no worker dies."""
    if kind in {Kind.MAIL_RESTART, Kind.MAIL_KILL, Kind.MAIL_FREEZE}:
        world.report.doubt["in mid-dialogue with a mail server that went away"] += world.mails_in_dialogue()
        # What it was to drop it drops again: a new process counts from the beginning.
        if kind is not Kind.MAIL_FREEZE:
            world.report.doubt["mails dropped in or after the data"] += world.mood.doubtful
    elif kind in {Kind.POSTGRES_RESTART, Kind.POSTGRES_KILL, Kind.POSTGRES_FREEZE}:
        world.report.doubt["in flight when PostgreSQL went away"] += world.in_flight()


def _server(world: World, kind: Kind) -> Server:
    match kind:
        case Kind.POSTGRES_RESTART | Kind.POSTGRES_KILL | Kind.POSTGRES_FREEZE:
            return world.stack.postgres
        case Kind.KAFKA_RESTART | Kind.KAFKA_KILL | Kind.KAFKA_FREEZE:
            return world.stack.kafka
        case _:
            return world.stack.mail
