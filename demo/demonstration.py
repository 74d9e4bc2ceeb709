"""The demonstration, a method for each step: servers, a directory with every special case, one campaign, a site.

Nothing in here prints: `bidden demo` does.
"""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import orjson

from config.clock import now
from config.settings import Settings
from config.stop_signals import StopRequest
from db import planning, reports
from db.connect import Connection, connect
from db.directory import import_lines
from demo.accounts import DemoAccount, add_accounts
from demo.generator import DEMO_EVENT_ID, generate
from demo.special_cases import Chapters
from embedded import site
from embedded.commands import Commands
from embedded.process import Report
from embedded.provision import provision
from embedded.stack import Stack
from embedded.supervisor import Supervisor
from producers.dispatch import BatchPublisher
from producers.plan import plan
from schemas.directory_file import parse_lines
from schemas.errors import RefusedError
from schemas.vocabulary import Audience

#: What a demonstration leaves in its folder, and the next one removes.
_LEFTOVERS: Final = ("postgres", "kafka", "mail", "logs")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """A completed campaign by its batch's status, its event's audit, and the mails that the sink accepted."""

    status: dict[str, Any]
    excluded: dict[str, int]
    audit: dict[str, Any]
    mails: int
    duplicates: int

    @property
    def seconds(self) -> float:
        """From the first to the last delivery of the batch."""
        seconds: float = (self.status["completed_at"] - self.status["started_at"]).total_seconds()
        return seconds

    @property
    def everything_sent(self) -> bool:
        """Whether each delivery is recorded as sent, and its mail is at the sink exactly once."""
        return bool(self.status["sent"] == self.status["deliveries"] == self.mails) and not self.duplicates


class Demonstration:
    """A demonstration in a folder of its own, from nothing each time. On exit it stops everything that it started.

    Its steps raise KeyboardInterrupt once `stop` is set.
    """

    def __init__(self, home: Path, stop: StopRequest, *, with_site: bool) -> None:
        self.home = home
        self.stop = stop
        self.site_address: str | None = None
        self._with_site = with_site
        self._stack = Stack(home)
        if self._stack.running_instance() is not None:
            raise RefusedError(f"a demonstration, or `bidden up`, is running in {home}: stop it first")
        self._commands: Commands | None = None
        self._settings: Settings | None = None

    def start(self, report: Report) -> None:
        """Starts the servers, a dispatcher and a worker."""
        for name in _LEFTOVERS:
            shutil.rmtree(self.home / name, ignore_errors=True)
        self._stack.start(report, self.stop)
        if self._with_site:
            self.site_address = site.choose_address(self.home)
        self._settings = provision(self._stack.addresses)
        self._commands = Commands(
            self._stack.addresses, base_url=self.site_address, metrics_port=self._settings.metrics_port
        )
        self.stop.check()
        self._commands.start("dispatcher", "dispatch")
        self._commands.start("worker-1", "worker")

    def connect(self, *, autocommit: bool = True) -> Connection:
        """A connection to its database."""
        assert self._settings is not None
        return connect(self._settings.require_database(), application="bidden-demo", autocommit=autocommit)

    def import_directory(self, members: int) -> dict[str, int]:
        """Imports a generated directory; returns the number of lines of each type."""
        with self.connect(autocommit=False) as conn:
            lines = b"\n".join(orjson.dumps(line) for line in self._until_stopped(generate(members, now=now())))
            return import_lines(conn, self._until_stopped(parse_lines(io.BytesIO(lines))))

    def invite_everyone(self, conn: Connection) -> int:
        """Plans the demo event for everyone and publishes the batch; returns its id."""
        assert self._settings is not None
        self.stop.check()
        planned = plan(conn, event_id=DEMO_EVENT_ID, audience=Audience.EVERYONE, initiator="demo")
        assert planned.batch_id is not None
        self.stop.check()
        BatchPublisher(self._settings, now).publish(conn, planned.batch_id)
        planning.analyse_grown(conn, planned.deliveries)
        return planned.batch_id

    def result(self, status: dict[str, Any]) -> CampaignResult:
        """Verifies the campaign of a completed batch, whose status this is."""
        with self.connect() as conn:
            excluded = reports.exclusions(conn, status["batch_id"])
        with self.connect(autocommit=False) as conn:
            audit = reports.audit(conn, DEMO_EVENT_ID, Audience.EVERYONE)
        keys = self._stack.mail.delivery_keys()
        return CampaignResult(status, excluded, audit, len(keys), len(keys) - len(set(keys)))

    def start_site(self) -> list[DemoAccount]:
        """Starts the web application; returns the accounts that can sign in to it."""
        assert self._commands is not None
        assert self.site_address is not None
        with self.connect() as conn:
            accounts = add_accounts(conn, Chapters.LONDON, "London")
        site.start(self._commands, self.site_address)
        return accounts

    def supervise(self, report: Report) -> None:
        """Keeps the servers and processes running until `stop` is set."""
        self._supervisor().run(self.stop, report)

    @contextmanager
    def supervised(self, report: Report) -> Iterator[None]:
        """Keeps them running meanwhile: a batch waits for ever for a worker that ended, as at a slow Kafka."""
        over = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="supervision") as pool:
            supervision = pool.submit(self._supervisor().run, over, report)
            try:
                yield
            finally:
                over.set()
        supervision.result()

    def _supervisor(self) -> Supervisor:
        assert self._commands is not None
        return Supervisor([*self._stack.servers, *self._commands.all])

    def _until_stopped(self, items: Iterable[_T]) -> Iterator[_T]:
        for item in items:
            self.stop.check()
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._commands is not None:
                self._commands.stop()
        finally:
            self._stack.stop()
