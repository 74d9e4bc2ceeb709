"""Faults of the three servers and of the topic. Nothing here waits for a server to come back."""

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
from tests.acceptance.kafka_log import cut

_DELETE_SECONDS: Final = 30.0


class Servers:
    """Which servers are down or stopped. Called from one thread; restarts run in a pool of others."""

    def __init__(self, stack: Stack, settings: Settings) -> None:
        self.stack = stack
        self.findings: list[str] = []
        self._settings = settings
        self._busy: dict[str, Future[None]] = {}
        self._frozen: dict[str, Server] = {}
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="servers")

    def tick(self) -> None:
        """Collect finished restarts; a failed one is a finding."""
        for name, future in list(self._busy.items()):
            if future.done():
                del self._busy[name]
                if error := future.exception():
                    self.findings.append(f"{name} did not come back: {error!r}")

    def is_up(self, server: Server) -> bool:
        """Whether it is neither down, restarting nor stopped."""
        return server.name not in self._busy and server.name not in self._frozen

    @property
    def topic_deletion_is_done(self) -> bool:
        """Whether no deletion is under way."""
        return "topic" not in self._busy

    @property
    def all_up(self) -> bool:
        """Whether nothing is down, restarting or stopped."""
        return not self._busy and not self._frozen

    def restart(self, server: Server, *, kill: bool, seconds: float) -> None:
        """Stop or kill it, and start it again after so many seconds."""

        def work() -> None:
            server.kill() if kill else server.stop()
            time.sleep(seconds)
            server.start()

        self._busy[server.name] = self._pool.submit(work)

    def lose_tail(self, seconds: float) -> None:
        """Kill Kafka, cut half of each partition's log of invitations, and start it again after so many seconds."""
        kafka = self.stack.kafka

        def work() -> None:
            kafka.kill()
            cut(kafka.folder / "data", self._settings.invitations_topic, lambda size: size // 2)
            time.sleep(seconds)
            kafka.start()

        self._busy[kafka.name] = self._pool.submit(work)

    def freeze(self, server: Server) -> None:
        """SIGSTOP to all its processes."""
        self._frozen[server.name] = server
        _signal_all(server, signal.SIGSTOP)

    def thaw(self, server: Server) -> None:
        """SIGCONT to all its processes."""
        if self._frozen.pop(server.name, None) is not None:
            _signal_all(server, signal.SIGCONT)

    def thaw_all(self) -> None:
        """SIGCONT to all that is stopped."""
        for server in list(self._frozen.values()):
            self.thaw(server)

    def delete_topic(self, seconds: float) -> None:
        """Delete the topic of the invitations; done when it has been gone for so many seconds."""

        def work() -> None:
            name = self._settings.invitations_topic
            # The broker may be down, too: retried until the topic is gone.
            end = time.monotonic() + _DELETE_SECONDS
            while time.monotonic() < end:
                with suppress(KafkaException, TimeoutError):
                    admin = AdminClient(client_config(self._settings, "chaos"), logger=None)
                    for future in admin.delete_topics([name], operation_timeout=5, request_timeout=10).values():
                        with suppress(KafkaException):  # gone already? topic_id tells
                            future.result(timeout=15)
                    if Topics(self._settings).topic_id() is None:
                        break
                time.sleep(0.2)
            time.sleep(seconds)

        self._busy["topic"] = self._pool.submit(work)

    def close(self) -> None:
        """Wait for the restarts under way."""
        self.thaw_all()
        self._pool.shutdown(wait=True)
        self.tick()


def _signal_all(server: Server, number: signal.Signals) -> None:
    """To the server's process, then its children: a stopped parent forks no more of them."""
    if server.pid is None:
        return
    os.kill(server.pid, number)
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
