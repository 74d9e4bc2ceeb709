"""The world of a run: servers of its own, workers and dispatchers, organisers, and who watches them all.

`look` is called again and again by the one loop of the run (`tests.chaos.run`); it never waits for long.
"""

from __future__ import annotations

import heapq
import itertools
import json
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
from tests.chaos import census
from tests.chaos.campaigning import Campaigning, directory
from tests.chaos.plan import LEASE_SECONDS, SMTP_TIMEOUT_SECONDS, Mood, first_mood
from tests.chaos.processes import Crew, Ends, Errands
from tests.chaos.report import Report
from tests.chaos.servers import Servers

WORKERS: Final = 4
DISPATCHERS: Final = 2
WINDOW: Final = 20
CONNECTIONS: Final = 4


@dataclass(frozen=True)
class Options:
    """What a run is asked for. `hurry`: the claims of killed publishers are ended by hand after the last blow."""

    seed: int
    runner: str
    blows: int | None = 100
    minutes: float | None = None
    members: int = 300
    hurry: bool = False

    @property
    def events(self) -> int:
        """More than a run comes to."""
        return 50 + 2 * (self.blows or int((self.minutes or 1) * 60))


class World:
    """Everything that a blow can hit, and the report it is noted in."""

    def __init__(self, options: Options, stack: Stack, bidden: Bidden, report: Report) -> None:
        assert bidden.settings is not None
        self.options = options
        self.settings = bidden.settings
        self.bidden = bidden
        self.report = report
        self.ends = Ends()
        self.servers = Servers(stack, self.settings)
        self.stack = stack
        self.crew = Crew(bidden, self.ends, self._lost_worker)
        self.errands = Errands(bidden, self.ends)
        self.organisers = Campaigning(options.seed, options.events, self.errands, low_water=options.members // 2)
        self.census = census.Census(self.settings.require_database())
        self.tail = census.MailTail(stack.mail.folder)
        self.mood = first_mood(options.seed)
        self._topic_deleted = False
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._connection: Connection | None = None
        self._moved_at = time.monotonic()
        self._moved = (0, 0)

    def start(self) -> None:
        """The directory, the first mood, everybody at work."""
        self.bidden.run("migrate", "--json")
        lines = "\n".join(json.dumps(line) for line in directory(self.options.members, self.options.events))
        self.bidden.run("import", "-", "--json", stdin=lines.encode())
        self.set_mood(self.mood)
        for _ in range(DISPATCHERS):
            self.crew.add("dispatch")
        for _ in range(WORKERS):
            self.crew.add("worker", "--runner", self.options.runner)
        self.census.start()

    def look(self) -> None:
        """See to everybody; do what was put off and is due."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        self.servers.look()
        if self._topic_deleted and self.servers.topic_is_left_alone:
            self._topic_deleted = False
            self.errands.add("migrate", "--json")
        self.crew.look()
        self.errands.look()
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            self.organisers.look(self.census.latest.pending, self.connection())
        self._watch_for_stalls(now)

    def command(self, *words: str) -> Result:
        """A command to its end, whatever its code; the others are seen to meanwhile."""
        process = self.bidden.start(*words)
        while process.running:
            self.look()
            time.sleep(0.03)
        self.ends.read_log(process)
        return process.result()

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do it after so many seconds."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), act))

    @property
    def nothing_put_off(self) -> bool:
        """Whether nobody waits to be continued, and nothing to be done."""
        return not self._later and not self.topic_is_being_made and self.servers.all_up

    @property
    def topic_is_being_made(self) -> bool:
        """Whether the topic is deleted, or about to be."""
        return self._topic_deleted or self.errands.waiting_for("migrate")

    def delete_topic(self, seconds: float) -> None:
        """Delete it; when it has been away for so long, it is made again."""
        self._topic_deleted = True
        self.servers.delete_topic(seconds)

    def do_now(self) -> None:
        """What was put off is done at once: nobody stays stopped."""
        while self._later:
            heapq.heappop(self._later)[2]()

    def connection(self) -> Connection | None:
        """The ledger; None while PostgreSQL is away or stopped."""
        if not self.servers.is_up(self.stack.postgres):
            self.disconnect()
        elif self._connection is None or self._connection.closed:
            with suppress(UnreachableError):
                self._connection = connect(self.settings.require_database(), application="chaos", autocommit=True)
        return self._connection

    def disconnect(self) -> None:
        """Forget the ledger until it is asked again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def set_mood(self, mood: Mood) -> None:
        """From now on the mail server behaves like this."""
        self.mood = mood
        self.stack.mail.set_rules(mood.rules)
        self.report.doubt["mails dropped in or after the data"] += mood.doubtful

    def mails_in_dialogue(self) -> int:
        """The most mails that may be in mid-dialogue: one for each connection of each worker."""
        return CONNECTIONS * self.crew.count("worker")

    def in_hand(self, process: Process) -> int:
        """What this worker, stopped or dead, has marked and not recorded; its whole window where nobody can tell.

        Asked twice: a commit of its last moment may still be under way.
        """
        most = 0
        for _ in range(2):
            time.sleep(0.05)
            conn = self.connection()
            if conn is None:
                return WINDOW
            try:
                most = max(most, census.in_flight(conn).get(process.popen.pid, 0))
            except (psycopg.OperationalError, psycopg.InterfaceError):
                return WINDOW
        return most

    def in_flight(self) -> int:
        """Mails of living workers that were marked and not recorded at the last look."""
        living = {slot.process.popen.pid for slot in self.crew.living("worker") if slot.process}
        return sum(n for pid, n in self.census.latest.in_flight.items() if pid in living)

    def _lost_worker(self, process: Process) -> None:
        self.report.doubt["workers killed or broken"] += self.in_hand(process)

    def _watch_for_stalls(self, now: float) -> None:
        moved = (self.tail.read(), self.census.latest.pending)
        if moved != self._moved or self.census.latest.pending <= self.census.latest.paused:
            self._moved, self._moved_at = moved, now
        self.report.longest_stall = max(self.report.longest_stall, now - self._moved_at)

    def stop(self) -> None:
        """Everybody ends in good order."""
        self.census.stop()
        self.disconnect()
        self.crew.stop()


def settings_for(stack: Stack) -> Settings:
    """Short leases and back-offs, so that every wait of the pipeline fits between two blows."""
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
def world(options: Options, home: Path, report: Report) -> Iterator[World]:
    """A world at work; at the end everything of it has ended."""
    with Stack(home / "servers") as stack:
        folder = home / "processes"
        folder.mkdir()
        with Bidden(settings_for(stack), folder) as bidden:
            made = World(options, stack, bidden, report)
            try:
                made.start()
                yield made
            finally:
                made.do_now()
                made.servers.close()
                made.census.stop()
                made.disconnect()
