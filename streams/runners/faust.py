"""The runner on Faust: one agent, by the only pattern that loses nothing (docs/adr/0003).

Records are read without acknowledgement, decoded by our own code, and acknowledged in order after the whole poll is
settled. An exception ends the process: Faust must never restart an agent inside it, or it would acknowledge past what
was not processed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import faust
import structlog
import uvloop
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from faust.transport.drivers.aiokafka import Consumer as AiokafkaConsumer
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import worker_client_id
from config.kafka_tls import tls_context
from config.settings import Settings
from config.standard_streams import exit_now
from config.stop_signals import stop_signals
from schemas.errors import BiddenError, SettingsError, StoppingError, UnreachableError
from streams import vital_signs
from streams.lag import GroupLag
from streams.records import Heartbeat, Record
from streams.watchdog import Watchdog
from streams.worker import Worker, WorkerFactory

log = structlog.get_logger()

MAX_POLL_RECORDS: Final = 500
#: How long records may collect, in seconds: half of it is what an idle worker adds to a mail's latency.
_LINGER_SECONDS: Final = 0.02
#: How long a stop or a rebalance waits for what was fetched; the rest is read again by the next owner.
_DRAIN_SECONDS: Final = 5.0
#: Between two looks for a topic that has lost its end.
_TAIL_SECONDS: Final = 5.0


class _Consumer(AiokafkaConsumer):  # type: ignore[misc] # faust has no types
    async def verify_all_partitions_active(self) -> None:
        """Faust checks for partitions without progress, and only logs them. Our watchdog does that.

        Faust's check ends the worker, by an assertion, when it runs between an assignment and its first position.
        """

    async def move_back(self, partition: TP, end: int) -> None:
        """Go on at the end of a log that has lost its tail, and commit it (FM-36).

        aiokafka alone would jump to the earliest message, and Faust drop every message below the offset that it had
        read before, and commit nothing below the one that it had committed. What is skipped here and was not read, a
        dispatcher finds lost.
        """
        await self.seek_wait({partition: end})
        self._read_offset[partition] = end or None
        self._acked[partition].clear()
        self._acked_index[partition].clear()
        self._gap[partition].clear()
        if await self._commit({partition: end}):
            self._committed_offset[partition] = end


class InvitationApp(faust.App):  # type: ignore[misc] # faust has no types
    """Faust's application with a worker of ours inside, started with it and stopped with it."""

    def __init__(self, settings: Settings, factory: WorkerFactory) -> None:
        super().__init__(settings.group, **faust_settings(settings))
        self.transport.Consumer = _Consumer
        self._factory = factory
        self._heartbeat = Heartbeat()
        self._lag = GroupLag(settings)
        # Of its own: the watchdog's thread uses the other.
        self._tail = GroupLag(settings)
        self._topic = settings.invitations_topic
        self._partitions: frozenset[int] = frozenset()
        self._assigned = False
        self._worker: Worker | None = None
        #: What ended the agent, where a person can act on it.
        self.failure: BiddenError | None = None
        self._watchdog = Watchdog(self._heartbeat, self._has_work, time.monotonic, rescue=self._rescue)
        self.on_partitions_assigned.connect(self._note_assignment, weak=False)

    async def process(self, records: list[Record]) -> None:
        """Process the records of one poll."""
        assert self._worker is not None
        await self._worker.process(records)

    async def on_first_start(self) -> None:
        """Builds the worker before the first record arrives."""
        self._worker = await self._factory(self._heartbeat)
        self._worker.start(self._ended)
        self._watchdog.start()
        vital_signs.publish(self._watchdog, joined=lambda: self._assigned, partitions=lambda: self._partitions)
        await super().on_first_start()
        log.info("worker started", worker=self._worker.name)

    async def on_stop(self) -> None:
        """Lets what was fetched finish for a bounded time, records what is in flight, closes."""
        log.info("worker stopping")
        self._watchdog.shutting_down()
        await super().on_stop()
        if self._worker is not None:
            await self._worker.stop()
        # The watchdog runs on to the process's end: what is left is Faust's own thread, which may die in an outage of
        # Kafka, and Faust then waits for it without end.
        log.info("worker stopped")

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await super()._consumer_wait_empty(consumer, logger)
        except TimeoutError:
            log.warning("not all fetched records are done; the rest will be read again")

    async def _note_assignment(self, _: Any, assigned: Any, **__: Any) -> None:
        self._assigned = True
        self._partitions = frozenset(tp.partition for tp in assigned)
        self._heartbeat.beat()
        log.info("partitions assigned", partitions=sorted(self._partitions))

    async def move_back_to_ends(self) -> None:
        """Where the log of an assigned partition has lost its tail, go on at its end."""
        for partition, end in (await asyncio.to_thread(self._tail.lost_tails, self._partitions)).items():
            log.error("the topic lost its end", partition=partition, end=end)
            # Revoked meanwhile: its next owner goes back to the end.
            with suppress(IllegalStateError):
                await self.consumer.move_back(TP(self._topic, partition), end)

    def _ended(self, error: BaseException | None) -> None:
        if error is not None:
            # The window's writer is dead: nothing can be recorded any more. The supervisor restarts the worker.
            log.error("the worker failed", cause=repr(error))
            exit_now(1)

    def _rescue(self, seconds: float) -> None:
        """Called by the watchdog, in its thread."""
        if self._worker is not None:
            self._worker.rescue(seconds)

    def _has_work(self) -> bool:
        """Called by the watchdog, in its thread."""
        if not self._assigned:
            return self._lag.reachable()
        return self._lag.behind(self._partitions)


class _FaustWorker(faust.Worker):  # type: ignore[misc] # faust has no types
    """Faust's, which a closed terminal stops in good order, too."""

    def _install_signal_handlers_unix(self) -> None:
        super()._install_signal_handlers_unix()
        for number in stop_signals():
            self.loop.add_signal_handler(number, self._schedule_shutdown, number)


def faust_settings(settings: Settings) -> dict[str, Any]:
    """What the safe pattern needs of Faust, each value with its reason."""
    return {
        "broker": ["kafka://" + address.strip() for address in settings.require_kafka().split(",")],
        "broker_credentials": credentials(settings),
        "broker_client_id": worker_client_id(),
        # Decoding errors stay in our code: one malformed value decoded by Faust stalls it for ever.
        "key_serializer": "raw",
        "value_serializer": "raw",
        "agent_supervisor": CrashingSupervisor,
        "processing_guarantee": "at_least_once",
        "stream_wait_empty": True,
        "broker_commit_interval": 1.0,
        "broker_session_timeout": 10.0,
        "broker_rebalance_timeout": 10.0,
        "broker_heartbeat_interval": 1.0,
        "broker_request_timeout": 30.0,
        "consumer_auto_offset_reset": "earliest",
        # A worker that joins while the topic is missing is assigned nothing; by default it would idle for 5 minutes
        # after the topic exists again.
        "consumer_metadata_max_age_ms": 10_000,
        # `bidden migrate` creates the topics; there are no tables.
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "store": "memory://",
        # On by default, on all interfaces.
        "web_enabled": False,
        "datadir": tempfile.gettempdir(),
        "autodiscover": False,
    }


def credentials(settings: Settings) -> Any:
    """SASL and TLS for aiokafka. Without a context TLS would silently be off."""
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return None
    context = tls_context(settings)
    if protocol == "SSL":
        return faust.SSLCredentials(context=context)
    password = settings.kafka_sasl_password
    return faust.SASLCredentials(
        mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_sasl_username,
        password=password.get_secret_value() if password else None,
        ssl_context=context,
    )


def build(settings: Settings, factory: WorkerFactory) -> InvitationApp:
    """The application with its agent. SettingsError for a group protocol that Faust's client lacks."""
    if settings.kafka_group_protocol != "classic":
        name = "BIDDEN_KAFKA_GROUP_PROTOCOL"
        raise SettingsError(
            f"{name}: the Faust runner has the protocol `classic` alone, for its client has no other: use that, or "
            "the runner `confluent`",
            field=name,
        )
    app = InvitationApp(settings, factory)
    topic = app.topic(settings.invitations_topic, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, concurrency=1, name="invitations")  # type: ignore[untyped-decorator] # faust has no types
    async def deliver(stream: Any) -> None:
        manual = stream.noack()
        async for events in manual.noack_take(MAX_POLL_RECORDS, within=_LINGER_SECONDS):
            try:
                await app.process([_record(event.message) for event in events])
            except StoppingError:
                # Not acknowledged, and no error: the partition's next owner reads it again.
                await asyncio.Event().wait()
            except BiddenError as error:
                # For `run`: Faust logs the error and ends with a code of its own.
                app.failure = error
                raise
            crash_points.reach(CrashPoint.POLL_DONE)
            for event in events:
                await manual.ack(event)
            crash_points.reach(CrashPoint.OFFSET_STORED)

    @app.timer(interval=_TAIL_SECONDS)  # type: ignore[untyped-decorator] # faust has no types
    async def move_back_to_ends() -> None:
        await app.move_back_to_ends()

    return app


def _record(message: Any) -> Record:
    # Faust gives the timestamp in seconds.
    at = None if message.timestamp is None or message.timestamp < 0 else round(message.timestamp * 1000)
    headers = message.headers or ()
    return Record(
        message.topic, message.partition, message.offset, message.key, message.value, lambda: tuple(headers), at
    )


def run(settings: Settings, factory: WorkerFactory) -> int:
    """Run until a signal stops it; returns the exit code. UnreachableError when Kafka goes away during the start.

    Raises the error for people that ended the worker, if one did.
    """
    # A third of the time per message. Not by the policy, which would give it to the thread of Faust's consumer, too:
    # there connections are closed from other threads when brokers go away, and in uvloop's C code that is a crash.
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Logging is configured; Faust must not configure it again.
    app = build(settings, factory)
    worker = _FaustWorker(app, loop=loop, quiet=True, redirect_stdouts=False, override_logging=False)
    # Its cursor codes would end up in every log.
    worker.spinner = None
    execute: Callable[[], None] = worker.execute_from_commandline
    try:
        execute()
    except SystemExit as end:
        if isinstance(end.__context__, KafkaConnectionError):
            raise UnreachableError(f"Kafka cannot be reached at {settings.require_kafka()}") from end
        if app.failure is not None:
            raise app.failure from end
        return end.code if isinstance(end.code, int) else 1
    return 0
