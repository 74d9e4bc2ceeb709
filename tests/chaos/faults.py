"""Injects the faults. None of these calls waits: what ends a fault (a server's return, a SIGCONT) is scheduled."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final, TypeVar

from embedded.server import Server
from tests.acceptance.processes import Process
from tests.chaos.environment import Environment
from tests.chaos.operator import resolve_unknown
from tests.chaos.plan import Fault, FaultKind
from tests.chaos.supervision import Replica

T = TypeVar("T")
_OF_KAFKA: Final = frozenset(
    {
        FaultKind.TOPIC,
        FaultKind.KAFKA_KILL,
        FaultKind.KAFKA_RESTART,
        FaultKind.KAFKA_FREEZE,
        FaultKind.KAFKA_TAIL,
    }
)


def can_inject(environment: Environment, fault: Fault) -> bool:
    """Whether its target is up: a server that is away cannot be killed."""
    match fault.kind:
        case (
            FaultKind.WORKER_KILL
            | FaultKind.WORKER_KILL_JOURNAL
            | FaultKind.WORKER_FREEZE
            | FaultKind.WORKER_TERM
            | FaultKind.WORKER_HUP
        ):
            return bool(environment.replicas.living("worker"))
        case FaultKind.WORKER_FREEZE_RESOLVED:
            # One at a time: the others must own its partitions meanwhile.
            return len(environment.replicas.living("worker")) > 1 and not environment.resolving
        case FaultKind.WORKER_LOG_GONE:
            return bool(_with_log(environment))
        case FaultKind.DISPATCHER_KILL | FaultKind.DISPATCHER_FREEZE:
            return bool(environment.replicas.living("dispatch"))
        case FaultKind.INVITE_KILL:
            return True
        case FaultKind.TOPIC:
            return environment.servers.is_up(environment.stack.kafka) and not environment.topic_is_missing
        case _:
            return environment.servers.is_up(_server(environment, fault.kind))


def inject(environment: Environment, fault: Fault) -> str:
    """Injects the fault; returns its target, for the log."""
    if fault.kind in _OF_KAFKA:
        environment.exits.kafka_was_hit()
    match fault.kind:
        case FaultKind.WORKER_KILL:
            replica = _one(environment.replicas.living("worker"), fault.pick)
            return f"pid {environment.replicas.kill(replica).popen.pid}"
        case FaultKind.WORKER_KILL_JOURNAL:
            process = environment.replicas.kill(_one(environment.replicas.living("worker"), fault.pick))
            environment.lose_journal(process)
            return f"pid {process.popen.pid}"
        case FaultKind.WORKER_FREEZE:
            return _freeze(environment, _one(environment.replicas.living("worker"), fault.pick), fault.seconds)
        case FaultKind.WORKER_FREEZE_RESOLVED:
            environment.resolving = True
            environment.schedule(fault.seconds - 0.5, lambda: resolve_unknown(environment))
            return _freeze(environment, _one(environment.replicas.living("worker"), fault.pick), fault.seconds)
        case FaultKind.WORKER_TERM | FaultKind.WORKER_HUP:
            number = signal.SIGTERM if fault.kind is FaultKind.WORKER_TERM else signal.SIGHUP
            replica = _one(environment.replicas.living("worker"), fault.pick)
            return f"pid {environment.replicas.replace(replica, number).popen.pid}"
        case FaultKind.WORKER_LOG_GONE:
            process = _one(_with_log(environment), fault.pick)
            assert process.log_reader is not None
            process.log_reader.kill()
            process.log_reader.wait(10)
            return f"pid {process.popen.pid}"
        case FaultKind.DISPATCHER_KILL:
            replica = _one(environment.replicas.living("dispatch"), fault.pick)
            return f"pid {environment.replicas.kill(replica).popen.pid}"
        case FaultKind.DISPATCHER_FREEZE:
            return _freeze(environment, _one(environment.replicas.living("dispatch"), fault.pick), fault.seconds)
        case FaultKind.INVITE_KILL:
            return _kill_invite(environment, fault)
        case FaultKind.MAIL_PROFILE:
            assert fault.profile is not None
            environment.set_profile(fault.profile)
            return fault.profile.name
        case FaultKind.TOPIC:
            environment.delete_topic(fault.seconds)
            return f"away for {fault.seconds} s"
        case FaultKind.KAFKA_TAIL:
            environment.exits.log_was_cut()
            environment.servers.lose_tail(fault.seconds)
            return f"away for {fault.seconds} s"
        case FaultKind.POSTGRES_FREEZE | FaultKind.KAFKA_FREEZE | FaultKind.MAIL_FREEZE:
            server = _server(environment, fault.kind)
            _count_in_doubt(environment, fault.kind)
            environment.servers.freeze(server)
            environment.schedule(fault.seconds, lambda: environment.servers.thaw(server))
            return f"for {fault.seconds} s"
        case _:
            kill = fault.kind in {FaultKind.POSTGRES_KILL, FaultKind.KAFKA_KILL, FaultKind.MAIL_KILL}
            _count_in_doubt(environment, fault.kind)
            environment.servers.restart(_server(environment, fault.kind), kill=kill, seconds=fault.seconds)
            return f"away for {fault.seconds} s"


def _with_log(environment: Environment) -> list[Process]:
    """Living workers whose log is read."""
    processes = [replica.process for replica in environment.replicas.living("worker")]
    return [p for p in processes if p is not None and p.log_reader is not None and p.log_reader.poll() is None]


def _one(targets: Sequence[T], pick: float) -> T:
    return targets[int(pick * len(targets))]


def _freeze(environment: Environment, replica: Replica, seconds: float) -> str:
    process = replica.process
    assert process is not None
    process.signal(signal.SIGSTOP)
    replica.frozen = True
    if replica.arguments[0] == "worker":
        environment.report.in_doubt["workers stopped"] += environment.claimed_by(process)

    def resume() -> None:
        process.signal(signal.SIGCONT)
        if replica.process is process:
            replica.frozen = False

    environment.schedule(seconds, resume)
    return f"pid {process.popen.pid} for {seconds} s"


def _kill_invite(environment: Environment, fault: Fault) -> str:
    """The trigger that was started last, else the next one."""
    running = [e for e in environment.commands.running if e.arguments[0] == "invite" and e.kill_after is None]
    command = running[-1] if running else environment.organisers.trigger()
    if command is None:
        return "none: no more events"
    command.kill_after = fault.seconds
    return f"event {command.arguments[1]}, {command.arguments[3]}, after {fault.seconds} s"


def _count_in_doubt(environment: Environment, kind: FaultKind) -> None:
    """Counts mails that may become unknown although no worker dies."""
    in_doubt = environment.report.in_doubt
    if kind in {FaultKind.MAIL_RESTART, FaultKind.MAIL_KILL, FaultKind.MAIL_FREEZE}:
        environment.mail_was_hit()
        in_doubt["in mid-dialogue with a mail server that went down"] += environment.mails_in_dialogue()
        # The new process counts the `times` of its rules from zero again.
        if kind is not FaultKind.MAIL_FREEZE:
            in_doubt["mails dropped in or after the data"] += environment.profile.in_doubt
    elif kind in {FaultKind.POSTGRES_RESTART, FaultKind.POSTGRES_KILL, FaultKind.POSTGRES_FREEZE}:
        in_doubt["in flight when PostgreSQL went down"] += environment.in_flight()


def _server(environment: Environment, kind: FaultKind) -> Server:
    match kind:
        case FaultKind.POSTGRES_RESTART | FaultKind.POSTGRES_KILL | FaultKind.POSTGRES_FREEZE:
            return environment.stack.postgres
        case FaultKind.KAFKA_RESTART | FaultKind.KAFKA_KILL | FaultKind.KAFKA_FREEZE | FaultKind.KAFKA_TAIL:
            return environment.stack.kafka
        case _:
            return environment.stack.mail
