"""A server is down for a minute, twice the watchdog's limit: no process ends, and all go on by themselves.

Three stacks run at once, each without another server, and on each of them both runners: one minute serves all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Final

import pytest

from embedded.server import Server
from embedded.stack import Stack
from schemas.vocabulary import Audience
from streams.watchdog import LIMIT_SECONDS
from tests.acceptance.deployments import Deployment, nothing_claimed, start_deployments
from tests.acceptance.processes import Process, eventually

pytestmark = pytest.mark.slow

AWAY_SECONDS: Final = 60.0
STUDENTS, COACHES = range(1, 601), range(601, 661)
EVERYONE: Final = len(STUDENTS) + len(COACHES)
SERVERS: Final = ("mail", "kafka", "postgres")
#: What a worker logs while a server is down, and when it is back.
MESSAGES: Final = {
    "mail": ("waiting for the mail server", "the mail server is back"),
    "kafka": ("waiting for Kafka", "Kafka is back"),
    "postgres": ("waiting for PostgreSQL", "PostgreSQL is back"),
}
#: Seconds from the server's first answer to the next accepted mail. With Kafka the group must rebalance first.
BACK_WITHIN: Final = {"mail": 15.0, "kafka": 30.0, "postgres": 15.0}
#: The most lines that a worker, and a dispatcher, may log in that minute: what their back-off allows.
WORKER_LINES: Final = {"mail": 16, "kafka": 30, "postgres": 80}
#: With the mail server down a dispatcher works: it logs what it publishes, in chunks that depend on the load.
DISPATCHER_LINES: Final = {"mail": 40, "kafka": 30, "postgres": 20}


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[dict[str, Stack]]:
    """A stack for each server that goes down."""
    made = {name: Stack(tmp_path / f"without-{name}") for name in SERVERS}
    with ThreadPoolExecutor(len(made)) as pool:
        try:
            list(pool.map(Stack.start, made.values()))
            yield made
        finally:
            list(pool.map(Stack.stop, made.values()))


def server(deployment: Deployment) -> Server:
    """The one that goes down."""
    return next(server for server in deployment.stack.servers if server.name == deployment.server)


def start_batches(deployments: list[Deployment]) -> None:
    """Each deployment gets a batch that does not end for a while, and its first mails are sent."""
    for deployment in deployments:
        for worker in deployment.workers:
            worker.ready()
    for deployment in deployments:
        deployment.stack.mail.set_rules([{"do": "delay", "seconds": 1}])
        deployment.invite(Audience.STUDENTS)
    for deployment in deployments:
        eventually(lambda deployment=deployment: len(deployment.mails()) >= 10, f"{deployment}: mails go out")  # type: ignore[misc]
        assert len(deployment.mails()) < len(STUDENTS), f"{deployment}: the batch has ended already"


def stop_servers(deployments: list[Deployment]) -> None:
    """Stop every deployment's server in good order."""
    for deployment in deployments:
        if deployment.server == "mail":
            # It lets dialogues end and refuses new mails and connections, before it is gone.
            deployment.stack.mail.set_rules(
                [{"do": "refuse_recipient", "reply": "421 4.3.2 Going down"}, {"do": "refuse_connection"}]
            )
    for deployment in deployments:
        if deployment.server == "mail":
            with deployment.books() as books:
                eventually(partial(nothing_claimed, books.conn), f"{deployment}: nothing in flight")
    for deployment in deployments:
        server(deployment).stop()  # stopped once for both deployments of a stack
        if deployment.server != "mail":
            deployment.stack.mail.clear_rules()


def logged(process: Process, event: str, since: datetime) -> bool:
    """Whether it has logged this event since then."""
    return any(datetime.fromisoformat(entry["timestamp"]) >= since for entry in process.logged(event))


def test_each_server_is_down_for_a_minute(stacks: dict[str, Stack], tmp_path: Path) -> None:
    """FM-30, FM-10, FM-12: mail server, Kafka and PostgreSQL down for a minute: processes log it, wait, and go on.

    Workers and dispatchers log what they wait for at most once per retry. Mails go out again within seconds of the
    server's return. Every delivery is sent at its first attempt, and none is unknown: mails in flight while PostgreSQL
    is down are recorded when it is back.
    """
    assert AWAY_SECONDS > 1.5 * LIMIT_SECONDS, "too short for the watchdog to act"
    with ExitStack() as ends:
        deployments = [
            s for name, stack in stacks.items() for s in start_deployments(stack, name, tmp_path, STUDENTS, COACHES)
        ]
        for deployment in deployments:
            ends.enter_context(deployment.bidden)
        start_batches(deployments)
        for deployment in deployments:
            deployment.count_lines()
        stop_servers(deployments)
        gone = datetime.now(UTC)
        for deployment in deployments:
            if deployment.server != "postgres":
                deployment.invite(Audience.COACHES)
        time.sleep(max(0.0, AWAY_SECONDS - (datetime.now(UTC) - gone).total_seconds()))
        waited = [check_outage(deployment, gone) for deployment in deployments]
        back = restart_servers(stacks)
        for deployment, workers in zip(deployments, waited, strict=True):
            check_recovery(deployment, workers, *back[deployment.server])
        for deployment in deployments:
            for process in deployment.processes:
                assert process.running, process.log_tail()
                process.signal(SIGTERM)
        for deployment in deployments:
            assert [process.end() for process in deployment.processes] == [0, 0, 0], deployment


def check_outage(deployment: Deployment, gone: datetime) -> list[Process]:
    """At the end of the minute: all processes run, have logged what they wait for, and not too often.

    Returns the workers that wait.
    """
    lines = deployment.count_lines()
    for process in deployment.processes:
        assert process.running, process.log_tail()
    waited = waiting(deployment, gone)
    # With PostgreSQL away nothing is published: a worker that had nothing to do just then has nothing to wait for.
    least = 1 if deployment.server == "postgres" else len(deployment.workers)
    assert len(waited) >= least, [worker.log_tail() for worker in deployment.workers]
    for worker in deployment.workers:
        assert not logged(worker, MESSAGES[deployment.server][1], gone), worker.log_tail()
        assert lines[worker] <= WORKER_LINES[deployment.server], (str(deployment), lines[worker], worker.log_tail())
    waits = logged(deployment.dispatcher, "waiting for a server", gone)
    assert waits == (deployment.server != "mail"), deployment.dispatcher.log_tail()
    assert lines[deployment.dispatcher] <= DISPATCHER_LINES[deployment.server], (
        str(deployment),
        deployment.dispatcher.log_tail(),
    )
    print(f"{deployment}: lines {[lines[p] for p in deployment.processes]}")
    assert len(deployment.mails()) < EVERYONE, f"{deployment}: nothing was left to do"
    return waited


def waiting(deployment: Deployment, gone: datetime) -> list[Process]:
    """The workers that have logged what they wait for."""
    since, event = outage_began(deployment, gone), MESSAGES[deployment.server][0]
    return [worker for worker in deployment.workers if logged(worker, event, since)]


def outage_began(deployment: Deployment, gone: datetime) -> datetime:
    """When the first messages may come: the mail server refuses before it is gone."""
    return datetime.min.replace(tzinfo=UTC) if deployment.server == "mail" else gone


def restart_servers(stacks: dict[str, Stack]) -> dict[str, tuple[datetime, datetime]]:
    """Start all three at once; returns when each was started, and when it answered."""

    def start(name: str) -> tuple[datetime, datetime]:
        stack, began = stacks[name], datetime.now(UTC)
        if name == "mail":
            stack.mail.clear_rules()
        next(server for server in stack.servers if server.name == name).start()
        return began, datetime.now(UTC)

    with ThreadPoolExecutor(len(stacks)) as pool:
        return dict(zip(stacks, pool.map(start, stacks), strict=True))


def check_recovery(deployment: Deployment, waited: list[Process], began: datetime, back: datetime) -> None:
    """Mails go out within the bound, mails and ledger agree, and each delivery used one attempt."""

    def after() -> list[datetime]:
        return [at for at in deployment.mails() if at > began]

    eventually(lambda: bool(after()), f"{deployment}: mails go out again")
    # A worker may find the server before this test does.
    seconds = (min(after()) - back).total_seconds()
    print(f"{deployment}: the next mail {seconds:.1f} s after the server answered")
    assert seconds <= BACK_WITHIN[deployment.server], deployment
    for worker in waited:
        eventually(is_back(worker, deployment), f"{deployment}: {worker} logs that it goes on")
    if deployment.server == "postgres":
        deployment.invite(Audience.COACHES)
    deployment.wait_completed()
    with deployment.books() as books:
        books.check(deployment.event)
        assert set(books.attempts(deployment.event).values()) == {1}, deployment
    assert len(deployment.mails()) == EVERYONE, deployment


def is_back(worker: Process, deployment: Deployment) -> Callable[[], bool]:
    """Whether the worker has logged that the server is back."""
    return lambda: bool(worker.logged(MESSAGES[deployment.server][1]))
