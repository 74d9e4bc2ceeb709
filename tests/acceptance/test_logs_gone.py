"""Processes whose log cannot be written: the reader of the pipe is gone, or reads no more. The work goes on."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from confluent_kafka import Producer

from config.kafka import producer_config
from embedded.ports import choose
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, Process, eventually

pytestmark = pytest.mark.slow

MEMBERS = 300
WINDOW = 30


class Log:
    """The pipe that a process logs to, and what can become of its reader."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._open = True
        os.set_blocking(self._reader, False)
        self._text = b""

    def start(self, bidden: Bidden, *arguments: str, **env: str) -> Process:
        """A process that logs to it."""
        process = bidden.start_with_stderr(self._writer, *arguments, **env)
        # The reader's end must be the only other one.
        os.close(self._writer)
        return process

    def wait_for(self, text: bytes) -> None:
        """Reads until the process has logged this."""

        def found() -> bool:
            with suppress(BlockingIOError):
                self._text += os.read(self._reader, 1 << 20)
            return text in self._text

        eventually(found, f"the log says {text!r}")

    def lose(self, how: str) -> None:
        """From now on nobody reads. A pipe of one page is full after a few lines."""
        if how == "gone":
            self.close()
        else:
            fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, 4096)

    def close(self) -> None:
        """Closes the reader's end."""
        if self._open:
            os.close(self._reader)
            self._open = False


@pytest.fixture
def logs() -> Iterator[list[Log]]:
    """Three logs: the worker's, the dispatcher's and the site's."""
    with ExitStack() as opened:
        found = [Log() for _ in range(3)]
        for log in found:
            opened.callback(log.close)
        yield found


@pytest.mark.parametrize("how", ["gone", "not read"])
@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_the_work_goes_on_without_a_log(bidden: Bidden, books: Books, logs: list[Log], runner: str, how: str) -> None:
    """FM-41: worker, dispatcher and site log errors to a broken pipe, or to one that nobody reads, in mid-batch.

    All connections to PostgreSQL are cut again and again, and there is poison: each process goes on, nobody is
    unknown, and a signal ends each with 0.
    """
    assert bidden.settings is not None
    port = choose({"site": None}, {})["site"]
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    worker = logs[0].start(bidden, "worker", "--runner", runner, BIDDEN_HANDOVER_WINDOW=str(WINDOW))
    dispatcher = logs[1].start(bidden, "dispatch")
    site = logs[2].start(bidden, "serve", "--port", str(port))
    logs[0].wait_for(b"partitions assigned")
    logs[2].wait_for(b"the web application is up")
    books.slow(1.0)
    batch = bidden.invite()["batch_id"]
    books.wait_mails(10)
    for log in logs:
        log.lose(how)
    producer = Producer(producer_config(bidden.settings, "test"), logger=None)
    for number in range(20):
        producer.produce(bidden.settings.invitations_topic, b"not json %d" % number, b"1")
    assert producer.flush(20) == 0
    for mails in range(20, 100, 10):
        books.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'bidden-%'"
        )
        # Each 503 is logged by the site.
        httpx.get(f"http://127.0.0.1:{port}/invitation/none", timeout=30)
        books.wait_mails(mails)
    assert not books.completed(batch), "the batch ended too early: the test proves nothing"
    books.sink.clear_rules()
    books.wait_completed(batch)
    books.check()
    assert set(books.attempts().values()) == {1}
    for process in (worker, dispatcher, site):
        assert process.running, process.arguments
        process.signal(signal.SIGTERM)
    assert [process.end() for process in (worker, dispatcher, site)] == [0, 0, 0]
