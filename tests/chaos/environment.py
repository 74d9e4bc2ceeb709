"""The environment of a run: its own servers, workers, dispatchers and organisers, and the samplers that watch them.

The loop of the run (`tests.chaos.run`) calls `tick` again and again; it never waits for long.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from config.settings import Settings
from db.connect import Connection, connect
from embedded.stack import Stack
from schemas.errors import UnreachableError
from tests.acceptance.processes import Bidden, Process, Result
from tests.chaos import sampling
from tests.chaos.organisers import Organisers, directory
from tests.chaos.plan import LEASE_SECONDS, SMTP_TIMEOUT_SECONDS, FaultProfile, first_profile
from tests.chaos.report import Report
from tests.chaos.servers import Servers
from tests.chaos.supervision import CommandQueue, Exits, Replicas

WORKERS: Final = 4
DISPATCHERS: Final = 2
WINDOW: Final = 20
CONNECTIONS: Final = 4


@dataclass(frozen=True)
class Options:
    """What to run. `expire_claims`: the publish claims of killed processes are expired by hand after the last fault.

    `flow_seconds`: how long a fault waits for mails to flow again after the one before; long enough for a rebalance.
    """

    seed: int
    runner: str
    faults: int | None = 100
    minutes: float | None = None
    members: int = 300
    expire_claims: bool = False
    flow_seconds: float = 5.0

    @property
    def events(self) -> int:
        """More events than a run needs."""
        return 50 + 2 * (self.faults or int((self.minutes or 1) * 60))


class Environment:
    """Everything that a fault can hit, and the report that counts it."""

    def __init__(self, options: Options, stack: Stack, bidden: Bidden, report: Report) -> None:
        assert bidden.settings is not None
        self.options = options
        self.settings = bidden.settings
        self.bidden = bidden
        self.report = report
        self.exits = Exits()
        self.servers = Servers(stack, self.settings)
        self.stack = stack
        self.replicas = Replicas(bidden, self.exits, self._lost_worker)
        self.commands = CommandQueue(bidden, self.exits)
        self.organisers = Organisers(options.seed, options.events, self.commands, low_water=options.members // 2)
        self.sampler = sampling.LedgerSampler(self.settings.require_database())
        self.tail = sampling.MailTail(stack.mail.folder)
        self.profile = first_profile(options.seed)
        #: A worker is stopped until its deliveries are resolved.
        self.resolving = False
        #: Process ids of killed workers whose journals are gone.
        self._without_journal: set[int] = set()
        self._mail_hit_at = -math.inf
        self._topic_deleted = False
        self._scheduled: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._connection: Connection | None = None
        self._moved_at = time.monotonic()
        self._moved = (0, 0)

    def start(self) -> None:
        """Import the directory and start all processes."""
        self.bidden.run("migrate", "--json")
        lines = "\n".join(json.dumps(line) for line in directory(self.options.members, self.options.events))
        self.bidden.run("import", "-", "--json", stdin=lines.encode())
        self.set_profile(self.profile)
        for _ in range(DISPATCHERS):
            self.replicas.add("dispatch")
        for _ in range(WORKERS):
            self.replicas.add("worker", "--runner", self.options.runner)
        self.sampler.start()

    def tick(self) -> None:
        """Restart, start and collect processes; run the scheduled actions that are due."""
        now = time.monotonic()
        while self._scheduled and self._scheduled[0][0] <= now:
            heapq.heappop(self._scheduled)[2]()
        self.servers.tick()
        if self._topic_deleted and self.servers.topic_deletion_is_done:
            self._topic_deleted = False
            self.commands.add("migrate", "--json")
        self.replicas.tick()
        self.commands.tick()
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            self.organisers.tick(self.sampler.latest.pending, self.connection())
        self._watch_for_stalls(now)

    def run_command(self, *arguments: str) -> Result:
        """The result of a command, whatever its exit code. The environment goes on meanwhile."""
        process = self.bidden.start(*arguments)
        while process.running:
            self.tick()
            time.sleep(0.03)
        self.exits.read_log(process)
        return process.result()

    def schedule(self, seconds: float, act: Callable[[], object]) -> None:
        """Call `act` after so many seconds."""
        heapq.heappush(self._scheduled, (time.monotonic() + seconds, next(self._numbers), act))

    @property
    def nothing_scheduled(self) -> bool:
        """Whether all faults have ended."""
        return not self._scheduled and not self.topic_is_missing and self.servers.all_up

    @property
    def topic_is_missing(self) -> bool:
        """Whether the topic is deleted or about to be, and not made again yet."""
        return self._topic_deleted or self.commands.waiting_for("migrate")

    def delete_topic(self, seconds: float) -> None:
        """Delete it for so many seconds; then `bidden migrate` makes it again."""
        self._topic_deleted = True
        self.servers.delete_topic(seconds)

    def run_scheduled(self) -> None:
        """Run all scheduled actions now, so that no process stays stopped."""
        while self._scheduled:
            heapq.heappop(self._scheduled)[2]()

    def connection(self) -> Connection | None:
        """A connection to the ledger; None while PostgreSQL is down or stopped."""
        if not self.servers.is_up(self.stack.postgres):
            self.disconnect()
        elif self._connection is None or self._connection.closed:
            with suppress(UnreachableError):
                self._connection = connect(self.settings.require_database(), application="chaos", autocommit=True)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; `connection` opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def set_profile(self, profile: FaultProfile) -> None:
        """Make the mail server behave like this."""
        self.profile = profile
        self.stack.mail.set_rules(profile.rules)
        self.report.in_doubt["mails dropped in or after the data"] += profile.in_doubt

    def mails_in_dialogue(self) -> int:
        """The most mails that may be in mid-dialogue: one per connection of each worker."""
        return CONNECTIONS * self.replicas.count("worker")

    def mail_was_hit(self) -> None:
        """A fault of the mail server begins or ends."""
        self._mail_hit_at = time.monotonic()

    def mail_log_is_complete(self, seconds: float) -> bool:
        """Whether the mail server is up, and the last fault that stopped it ended that long ago."""
        return self.servers.is_up(self.stack.mail) and time.monotonic() - self._mail_hit_at > seconds

    def claimed_by(self, process: Process) -> int:
        """Deliveries that this worker, stopped or dead, has claimed and not recorded; its whole window in an outage.

        Reads twice: its last commit may still be under way.
        """
        most = 0
        for _ in range(2):
            time.sleep(0.05)
            conn = self.connection()
            if conn is None:
                return WINDOW
            try:
                most = max(most, sampling.in_flight(conn).get(process.popen.pid, 0))
            except (psycopg.OperationalError, psycopg.InterfaceError):
                return WINDOW
        return most

    def in_flight(self) -> int:
        """Deliveries that living workers had claimed and not recorded in the last sample."""
        living = {replica.process.popen.pid for replica in self.replicas.living("worker") if replica.process}
        return sum(n for pid, n in self.sampler.latest.in_flight.items() if pid in living)

    def lose_journal(self, process: Process) -> None:
        """The worker's journal is gone before another worker has settled it, or just after."""
        self._without_journal.add(process.popen.pid)
        for path in self.bidden.journals.glob(f"*-{process.popen.pid}-*.journal"):
            path.unlink(missing_ok=True)

    def _lost_worker(self, process: Process) -> None:
        """With its journal at most one mail for each connection is in doubt; without, all that it had claimed."""
        claimed, lost = self.claimed_by(process), process.popen.pid in self._without_journal
        cause = "workers killed, their journals lost" if lost else "workers killed or broken"
        self.report.in_doubt[cause] += claimed if lost else min(claimed, CONNECTIONS)

    def _watch_for_stalls(self, now: float) -> None:
        moved = (self.tail.read(), self.sampler.latest.pending)
        if moved != self._moved or self.sampler.latest.pending <= self.sampler.latest.paused:
            self._moved, self._moved_at = moved, now
        self.report.longest_stall = max(self.report.longest_stall, now - self._moved_at)

    def stop(self) -> None:
        """Stop all processes in good order."""
        self.sampler.stop()
        self.disconnect()
        self.replicas.stop()


def settings_for(stack: Stack) -> Settings:
    """Short leases and back-offs, so that every wait of the pipeline fits between two faults."""
    values: dict[str, Any] = {
        "database_url": stack.addresses.database_url,
        "kafka_bootstrap": stack.addresses.kafka_bootstrap,
        "smtp_url": stack.addresses.smtp_url,
        "partitions": 6,
        "lease_seconds": LEASE_SECONDS,
        "retry_base_seconds": 0.3,
        "retry_max_seconds": 2,
        "max_attempts": 4,
        "handover_window": WINDOW,
        "smtp_connections": CONNECTIONS,
        "smtp_timeout_seconds": SMTP_TIMEOUT_SECONDS,
    }
    return Settings(**values)


@contextmanager
def open_environment(options: Options, home: Path, report: Report) -> Iterator[Environment]:
    """A running environment; at the end all of it has ended."""
    with Stack(home / "servers") as stack:
        folder = home / "processes"
        folder.mkdir()
        with Bidden(settings_for(stack), folder) as bidden:
            environment = Environment(options, stack, bidden, report)
            try:
                environment.start()
                yield environment
            finally:
                environment.run_scheduled()
                environment.servers.close()
                environment.sampler.stop()
                environment.disconnect()
