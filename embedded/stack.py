"""All embedded servers together, started in parallel and stopped, under one home.

    with Stack(Path(".bidden")) as stack:      # or stack.start(print) ... stack.stop()
        stack.addresses.database_url ...
        stack.kafka.restart(); stack.postgres.kill(); stack.mail.stop()

The home keeps the servers' data (`kafka`, `postgres`, `mail`), their logs (`logs`), their ports and process ids
(`run`), and `settings.env`. A start first stops what an earlier crash left running.
"""

from __future__ import annotations

import atexit
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from config.stop_signals import StopRequest
from embedded import ports
from embedded.home import Addresses, Home
from embedded.kafka import Kafka
from embedded.mail_server import MailServer
from embedded.postgres import Postgres
from embedded.process import Report, one_at_a_time
from embedded.server import PortTakenError, Server, StartCancelledError

#: How soon a start notices that it is to stop.
_STOP_SECONDS: Final = 0.1


def _silent(_: str) -> None:
    return


class Stack:
    """The three servers of one home. A port that is not given is chosen at the first start and kept."""

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
        self._cancelled = threading.Event()
        self._owner: int | None = None  # the process that started them
        self.kafka = Kafka(self.home, cancelled=self._cancelled)
        self.postgres = Postgres(self.home, cancelled=self._cancelled)
        self.mail = MailServer(self.home, cancelled=self._cancelled)
        # In the order of stopping: clients before the servers that they use.
        self.servers: tuple[Server, ...] = (self.mail, self.kafka, self.postgres)

    @property
    def addresses(self) -> Addresses:
        """Where the servers are, once they were started here."""
        return Addresses(self.postgres.url, self.kafka.bootstrap, self.mail.url, str(self.home))

    def running_instance(self) -> Addresses | None:
        """The servers that a living process (this or another) runs in this home; None when there is none."""
        return self._home.running()

    def start(self, report: Report = _silent, stop: StopRequest | None = None) -> Addresses:
        """Returns when all are ready; if one fails to start, none is left running.

        RefusedError: another process runs this home. InstallError: something is missing or in the way.
        KeyboardInterrupt: `stop` was set meanwhile.
        """
        stop = stop or StopRequest()
        self._home.acquire()
        self._owner = os.getpid()
        self._cancelled.clear()
        atexit.register(self.stop)
        try:
            for server in self.servers:
                stop.check()
                server.stop_orphan()
            self._start_all(one_at_a_time(report), stop)
            self._home.announce(self.addresses)
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def stop(self) -> None:
        """Stops all servers, each within its time limit, and releases the home. Safe to repeat."""
        if self._owner != os.getpid():
            return  # a fork of the owner runs the owner's exit handlers when it ends
        self._cancelled.set()
        # At the same time, and without threads: an interpreter that is ending can start none.
        for server in self.servers:
            server.ask_to_stop()
        for server in self.servers:
            server.stop()
        self._home.release()
        atexit.unregister(self.stop)

    def check(self) -> list[str]:
        """The names of the servers that should run and do not."""
        return [server.name for server in self.servers if server.wanted and not server.running]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_all(self, report: Report, stop: StopRequest) -> None:
        """In parallel. A port that another process takes between its choice and its use is replaced, once."""
        for attempt in (1, 2):
            self._choose_ports()
            with ThreadPoolExecutor(max_workers=len(self.servers)) as pool:
                try:
                    futures = [pool.submit(self._start_one, server, report) for server in self.servers]
                    while wait(futures, _STOP_SECONDS).not_done:
                        stop.check()
                except BaseException:
                    # The starts end soon, and then the pool can end.
                    self._cancelled.set()
                    raise
            errors = [e for f in futures if (e := f.exception()) and not isinstance(e, StartCancelledError)]
            if not errors:
                return
            if attempt == 2 or not all(isinstance(e, PortTakenError) for e in errors):
                raise errors[0]
            for server in self.servers:
                server.stop()
            self._cancelled.clear()

    def _start_one(self, server: Server, report: Report) -> None:
        """If it fails, the others' starts end soon."""
        try:
            server.start(report)
        except BaseException:
            self._cancelled.set()
            raise

    def _choose_ports(self) -> None:
        stored = self.home / "run" / "ports.json"
        chosen = ports.choose(self._wanted, ports.load(stored))
        ports.store(stored, chosen)
        self.postgres.port, self.kafka.port, self.mail.port = chosen["postgres"], chosen["kafka"], chosen["smtp"]
        self.kafka.controller_port = chosen["kafka_controller"]
