"""All embedded servers together: started in parallel, watched, and stopped, under one home.

    with Stack(Path(".bidden")) as stack:      # or stack.start(print) ... stack.stop()
        stack.addresses.database_url ...
        stack.kafka.restart(); stack.postgres.kill(); stack.mail.stop()

The home keeps the servers' data (`kafka`, `postgres`, `mail`), their logs (`logs`), their ports and who runs them
(`run`), and `settings.env`. A start after any crash begins by stopping what the crash left running.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from embedded import ports
from embedded.home import Addresses, Home
from embedded.kafka import Kafka
from embedded.mail_server import MailServer
from embedded.postgres import Postgres
from embedded.server import PortTakenError, Progress, Server, StopRequestedError
from schemas.errors import BiddenError

BACK_OFF_FIRST: Final = 1.0
BACK_OFF_MOST: Final = 30.0
STEADY_SECONDS: Final = 60.0  # who ran that long is not in a loop of crashes
WATCH_SECONDS: Final = 0.25


def _silent(_: str) -> None:
    return


class Stack:
    """The three servers of one home. A port that is not given is chosen once and kept."""

    def __init__(
        self,
        home: Path,
        *,
        postgres_port: int | None = None,
        kafka_port: int | None = None,
        smtp_port: int | None = None,
    ) -> None:
        self._home = Home(home)
        self.home = self._home.path
        self._wanted = {
            "postgres": postgres_port,
            "kafka": kafka_port,
            "smtp": smtp_port,
            "kafka_controller": None,
        }
        self._given_up = threading.Event()
        self._owner: int | None = None  # the process that started them
        self.kafka = Kafka(self.home, given_up=self._given_up)
        self.postgres = Postgres(self.home, given_up=self._given_up)
        self.mail = MailServer(self.home, given_up=self._given_up)
        # In the order of stopping: whoever uses the others has ended before.
        self.servers: tuple[Server, ...] = (self.mail, self.kafka, self.postgres)
        self._speaking = threading.Lock()

    @property
    def addresses(self) -> Addresses:
        """Where the servers are; known once they were started here."""
        return Addresses(self.postgres.url, self.kafka.bootstrap, self.mail.url, str(self.home))

    def running_instance(self) -> Addresses | None:
        """The servers that a living process (this or another) runs in this home; None when there is none."""
        return self._home.running()

    def start(self, progress: Progress = _silent) -> Addresses:
        """Returns when all are ready; when one cannot be had, none is left running.

        RefusedError: another process runs this home. InstallError: something is missing or in the way.
        """

        def say(line: str) -> None:
            with self._speaking:
                progress(line)

        self._home.acquire()
        self._owner = os.getpid()
        self._given_up.clear()
        atexit.register(self.stop)
        try:
            for server in self.servers:
                server.stop_orphan()
            self._start_all(say)
            self._home.announce(self.addresses)
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def stop(self) -> None:
        """Ends all servers, each within its time bound, and gives the home back. Safe to repeat."""
        if self._owner != os.getpid():
            return  # a fork of the owner that ends runs the owner's exit handlers
        self._given_up.set()
        # At the same time, and without threads: there are none to be had any more when an interpreter ends.
        for server in self.servers:
            server.ask_to_stop()
        for server in self.servers:
            server.stop()
        self._home.release()
        atexit.unregister(self.stop)

    def check(self) -> list[str]:
        """The names of the servers that ought to run and do not."""
        return [server.name for server in self.servers if server.wanted and not server.running]

    def supervise(self, until: threading.Event, report: Progress = _silent) -> None:
        """Starts again whoever died, with growing pauses while that fails, until the event is set."""
        watches = [_Watch(server) for server in self.servers]
        while not until.wait(WATCH_SECONDS):
            for watch in watches:
                watch.look(report)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_all(self, progress: Progress) -> None:
        """In parallel; a port that somebody took between our look and the server's is chosen anew, once."""
        for attempt in (1, 2):
            self._choose_ports()
            with ThreadPoolExecutor(max_workers=len(self.servers)) as pool:
                futures = [pool.submit(server.start, progress) for server in self.servers]
                try:
                    wait(futures, return_when=FIRST_EXCEPTION)
                finally:
                    # Also when a signal interrupts the wait: the others give up soon, and the pool can end.
                    if not all(f.done() and not f.exception() for f in futures):
                        self._given_up.set()
            errors = [e for f in futures if (e := f.exception()) and not isinstance(e, StopRequestedError)]
            if not errors:
                return
            if attempt == 2 or not all(isinstance(e, PortTakenError) for e in errors):
                raise errors[0]
            for server in self.servers:
                server.stop()
            self._given_up.clear()

    def _choose_ports(self) -> None:
        kept = self.home / "run" / "ports.json"
        chosen = ports.choose(self._wanted, ports.load(kept))
        ports.store(kept, chosen)
        self.postgres.port, self.kafka.port, self.mail.port = chosen["postgres"], chosen["kafka"], chosen["smtp"]
        self.kafka.controller_port = chosen["kafka_controller"]


class _Watch:
    """Looks after one server: after each end a pause, longer each time until it has run for a while."""

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._pause = BACK_OFF_FIRST
        self._due: float | None = None
        self._started = clock()

    def look(self, report: Progress) -> None:
        """Called again and again; starts the server when it is due."""
        server, now = self._server, self._clock()
        if not server.wanted or server.running:
            self._due = None
            if now - self._started > STEADY_SECONDS:
                self._pause = BACK_OFF_FIRST
        elif self._due is None:
            report(f"{server.title} ended; it is started again in {self._pause:.0f} s")
            self._due = now + self._pause
            self._pause = min(self._pause * 2, BACK_OFF_MOST)
        elif now >= self._due:
            self._due = None
            try:
                server.revive(report)
            except StopRequestedError:
                return
            except BiddenError as error:
                report(error.detail)
            self._started = self._clock()
