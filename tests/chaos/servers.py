"""The three servers and the topic, and what can be done to them. Nothing here waits for a server to come back."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.kafka import client_config
from config.settings import Settings
from embedded.server import Server
from embedded.stack import Stack
from producers.topics import Topics

_DELETE_SECONDS: Final = 30.0


class Servers:
    """What is away or stopped at the moment, and who sees to its return. For one thread; work is done by others."""

    def __init__(self, stack: Stack, settings: Settings) -> None:
        self.stack = stack
        self.findings: list[str] = []
        self._settings = settings
        self._busy: dict[str, Future[None]] = {}
        self._frozen: dict[str, Server] = {}
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="servers")

    def look(self) -> None:
        """Forget what is done; what failed is a finding."""
        for name, future in list(self._busy.items()):
            if future.done():
                del self._busy[name]
                if error := future.exception():
                    self.findings.append(f"{name} did not come back: {error!r}")

    def is_up(self, server: Server) -> bool:
        """Whether nothing is being done to it."""
        return server.name not in self._busy and server.name not in self._frozen

    @property
    def topic_is_left_alone(self) -> bool:
        """Whether nobody is deleting it."""
        return "topic" not in self._busy

    @property
    def all_up(self) -> bool:
        """Whether nothing is being done to anybody."""
        return not self._busy and not self._frozen

    def take_away(self, server: Server, *, kill: bool, seconds: float) -> None:
        """End it, in good order or not; start it again after so many seconds."""

        def work() -> None:
            server.kill() if kill else server.stop()
            time.sleep(seconds)
            server.start()

        self._busy[server.name] = self._pool.submit(work)

    def freeze(self, server: Server) -> None:
        """SIGSTOP to all its processes."""
        self._frozen[server.name] = server
        _signal_all(server, signal.SIGSTOP)

    def thaw(self, server: Server) -> None:
        """SIGCONT to all its processes."""
        if self._frozen.pop(server.name, None) is not None:
            _signal_all(server, signal.SIGCONT)

    def thaw_all(self) -> None:
        """Nobody is stopped any more."""
        for server in list(self._frozen.values()):
            self.thaw(server)

    def delete_topic(self, seconds: float) -> None:
        """Delete the invitations' topic, and leave it deleted for so many seconds; `bidden migrate` makes it again."""

        def work() -> None:
            name = self._settings.invitations_topic
            # The broker may be away at this moment, too: until it is done.
            end = time.monotonic() + _DELETE_SECONDS
            while time.monotonic() < end:
                with suppress(KafkaException, TimeoutError):
                    admin = AdminClient(client_config(self._settings, "chaos"), logger=None)
                    for future in admin.delete_topics([name], operation_timeout=5, request_timeout=10).values():
                        with suppress(KafkaException):  # gone already: the look below tells
                            future.result(timeout=15)
                    if Topics(self._settings).topic_id() is None:
                        break
                time.sleep(0.2)
            time.sleep(seconds)

        self._busy["topic"] = self._pool.submit(work)

    def close(self) -> None:
        """Wait for what is being done."""
        self.thaw_all()
        self._pool.shutdown(wait=True)
        self.look()


def _signal_all(server: Server, number: signal.Signals) -> None:
    """To the server's process and its children. Stopped from the top: a stopped parent makes no more of them."""
    if server.pid is None:
        return
    os.kill(server.pid, number)
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
