"""A worker, put together from its parts: every runner feeds, starts and stops it in the same way."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

from config import tracing
from config.metrics import MESSAGES_CONSUMED, PROCESS
from config.settings import Settings
from db.connect import fingerprint
from db.hot_connection import Begin, HotConnection
from db.ledger import Ledger
from db.ledger_transaction import LedgerPolicy, Note, nothing_noted
from db.send_limits import SendLimits
from db.suspects import PollLog
from mail.sender import Sender
from streams.adaptive_rate import LONGEST_PAUSE
from streams.claim_log import ClaimLog
from streams.composer import Composer
from streams.dead_journals import Journals
from streams.policy import RetryPolicy
from streams.records import DeadLetterSink, Heartbeat, Record
from streams.rescue import rescue
from streams.send_rate import SendRate
from streams.suspects import Suspects
from streams.traced import parts


class Worker:
    """The pipeline of one worker process with its connections. All methods are called from one event loop."""

    def __init__(
        self,
        settings: Settings,
        sender: Sender,
        composer: Composer,
        dead_letters: DeadLetterSink,
        heartbeat: Heartbeat,
        claim_log: ClaimLog,
        check_restored: Begin,
    ) -> None:
        """`check_restored` raises for a database that was restored; called with each connection that claims."""
        # Unique for each process ever started: the owner of a claim must never be mistaken for a namesake.
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.heartbeat = heartbeat
        policy = LedgerPolicy(
            lease_seconds=settings.lease_seconds,
            resend_below=settings.resend_below,
            retry_base_seconds=settings.retry_base_seconds,
        )
        self._url = settings.require_database()
        self._policy = policy
        self._sender = sender
        self._journals = Journals(settings.state_folder, fingerprint(self._url))
        journal = self._journals.open(self.name)
        self._reader = self._ledger("bidden-worker", heartbeat.beat)
        self._writer = self._ledger("bidden-worker-window", heartbeat.beat, journal.claiming, check_restored)
        polls = PollLog(self._url, settings.invitations_topic, on_wait=heartbeat.beat)
        self._suspects = Suspects(polls, dead_letters, max_ends=settings.max_worker_ends)
        # No secret: it spreads retries. Asking the kernel for each mail would cost more than the rest of the decision.
        jitter = random.Random().random  # noqa: S311
        limits = SendLimits(HotConnection(self._url, application="bidden-worker-rate", on_wait=heartbeat.beat))
        self._rate = SendRate(
            limits,
            settings.send_rates,
            clock=asyncio.get_running_loop().time,
            jitter=jitter,
            # As for a recipient, so for the server: no wait is longer than the longest back-off.
            longest_pause=min(LONGEST_PAUSE, settings.retry_max_seconds),
        )
        make_pipeline, make_window = parts(tracing.current(), settings)
        self._window = make_window(
            self._writer,
            sender,
            RetryPolicy(
                settings.max_attempts,
                settings.retry_base_seconds,
                settings.retry_max_seconds,
                settings.retry_for_seconds,
            ),
            owner=self.name,
            size=settings.handover_window,
            composer=self._suspects.guarded(composer),
            lease_seconds=settings.lease_seconds,
            jitter=jitter,
            heartbeat=heartbeat,
            rate=self._rate,
            journal=journal,
            claim_log=claim_log,
        )
        self._claim_log = claim_log
        self._journal = journal
        topic = settings.invitations_topic
        self._consumed = MESSAGES_CONSUMED.labels("kafka", topic)
        self._processing = PROCESS.labels("kafka", topic)
        self._pipeline = make_pipeline(self._reader, composer, self._window, dead_letters, heartbeat)
        self._writing: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self, on_end: Callable[[BaseException | None], None]) -> None:
        """Start the window's writer. `on_end` is called when it ends, with the error if there was one."""
        self._writing = asyncio.get_running_loop().create_task(self._write(), name="window")
        # A dead task is silent: the runner must learn of it.
        self._writing.add_done_callback(lambda task: on_end(None if task.cancelled() else task.exception()))

    async def _write(self) -> None:
        if not self._stopping:
            self._preparing = asyncio.create_task(self._prepare(), name="prepare")
            # A stop does not wait for a database that is away.
            await asyncio.wait({self._preparing})
            if not self._preparing.cancelled():
                self._preparing.result()
        await self._window.run()

    async def _prepare(self) -> None:
        """What dead workers of this machine left behind is settled before anything is claimed."""
        await self._journals.settle_dead(self._reader)
        await self._reader.look_up([])
        await self._writer.warm_up()

    def _ledger(
        self,
        application: str,
        on_wait: Callable[[], None],
        note: Note = nothing_noted,
        begin: Begin | None = None,
    ) -> Ledger:
        return Ledger(self._url, self._policy, application=application, on_wait=on_wait, note=note, begin=begin)

    def rescue(self, seconds: float) -> None:
        """Records what is known of the mails in flight. Called in the watchdog's thread before it ends the process."""
        rescue(self._window, lambda: self._ledger("bidden-worker-rescue", lambda: None), self.name, seconds)

    async def process(self, records: Sequence[Record]) -> None:
        """Process the records of one poll: `streams.pipeline`, and `streams.suspects` for those of an ended worker."""
        self._consumed.inc(len(records))
        with self._processing.time():
            await self._suspects.process(records, self._pipeline.process, self._pipeline.probe)

    async def stop(self) -> None:
        """Finish what is in flight, record it, close the connections. The caller bounds it in time."""
        self._stopping = True
        if self._preparing is not None:
            self._preparing.cancel()
        self._window.stop()
        if self._writing is not None:
            try:
                await self._writing
            except Exception:  # it was reported through on_end
                self._suspects.worker_failed()
        await self._sender.close()
        await asyncio.to_thread(self._claim_log.close)
        self._journal.close()
        await self._reader.close()
        await self._writer.close()
        await self._suspects.close()
        await self._rate.close()


#: Builds a worker inside the event loop that will run it.
WorkerFactory = Callable[[Heartbeat], Awaitable[Worker]]
