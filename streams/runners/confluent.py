"""The runner on confluent-kafka: a consumer thread, several polls in flight, offsets stored in order.

The thread polls and passes the records to the event loop. An offset is stored, for librdkafka to commit, only when its
poll and all polls before it are done. On a rebalance what is in flight may finish for a few seconds, so that the next
owner does not find busy keys; after that the ledger's fences protect.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import uvloop
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from config import crash_points
from config.crash_points import CrashPoint
from config.settings import Settings
from config.stop_signals import stop_signals
from schemas.errors import EXIT_DONE, StoppingError
from streams.lag import GroupLag
from streams.records import Heartbeat, Record
from streams.runners import consumer
from streams.runners.fetch_watch import Cure, FetchWatch
from streams.runners.idle_polls import IdlePolls
from streams.runners.positions import LostPositions
from streams.runners.read_ahead import ReadAhead
from streams.vital_signs import watch
from streams.worker import WorkerFactory

log = structlog.get_logger()

MAX_POLL_RECORDS: Final = 500
#: Records that are read and not processed: room for a fetch of each of twelve partitions (`consumer`).
_READ_AHEAD_RECORDS: Final = 4000
#: Polls processed at once: one is looked up while another is sent.
POLLS_IN_FLIGHT: Final = 3
_REVOKE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1


class ConfluentRunner:
    """Runs one worker until a signal stops it, or until an error ends it."""

    def __init__(self, settings: Settings, factory: WorkerFactory) -> None:
        self._settings = settings
        self._topic = settings.invitations_topic
        self._factory = factory
        self._fetches = FetchWatch(time.monotonic)
        self._heartbeat = Heartbeat()
        self._stop = threading.Event()
        self._free_polls = threading.Semaphore(POLLS_IN_FLIGHT)
        self._idle = threading.Condition()
        self._in_flight = 0
        self._polling_ended = threading.Event()
        self._drained = threading.Event()
        self._finished: deque[tuple[int, int, int]] = deque()
        self._polls_submitted = 0
        self._polls_completed = 0
        self._lag = GroupLag(settings)
        self._partitions: frozenset[int] = frozenset()
        self._assigned = False
        self._expected_at = time.monotonic() + consumer.unassigned_seconds(settings)
        self._failure: BaseException | None = None
        self._begin_consumer()

    def _begin_consumer(self) -> None:
        """A new one: what the one before it had read, paused or lost does not matter any more."""
        self._consumer = self._make_consumer()
        self._read_ahead = ReadAhead()
        self._idle_polls = IdlePolls(time.monotonic)
        self._positions = LostPositions(self._consumer, self._topic)

    def _make_consumer(self) -> Consumer:
        return Consumer(consumer.consumer_config(self._settings), logger=None)

    def run(self) -> int:
        """Returns the exit code; raises the error that ended the worker."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())
        if self._failure is not None:
            raise self._failure
        return EXIT_DONE

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()

        def stop() -> None:
            self._stop.set()
            stopping.set()

        def ended(error: BaseException | None) -> None:
            self._failure = self._failure or error
            stop()
            if error is not None:
                # Logged now: the shutdown may never finish.
                log.error("the worker failed", cause=repr(error))

        for number in stop_signals():
            loop.add_signal_handler(number, stop)
        worker = await self._factory(self._heartbeat)
        worker.start(ended)
        polls: asyncio.Queue[tuple[list[Record], asyncio.Task[None]]] = asyncio.Queue()
        completing = loop.create_task(self._complete(polls, ended))

        def submit(records: list[Record]) -> None:
            polls.put_nowait((records, loop.create_task(worker.process(records))))

        watchdog = watch(
            self._heartbeat, self._has_work, worker.rescue, lambda: self._assigned, lambda: self._partitions
        )

        def consume() -> None:
            try:
                self._consume(lambda records: loop.call_soon_threadsafe(submit, records))
            except BaseException as error:
                loop.call_soon_threadsafe(ended, error)

        thread = threading.Thread(target=consume, name="consumer", daemon=True)
        thread.start()
        log.info("worker started", worker=worker.name, topic=self._topic)
        await stopping.wait()
        log.info("worker stopping")
        watchdog.shutting_down()
        # Records that arrived after this would not be waited for.
        await asyncio.to_thread(self._polling_ended.wait)
        await worker.stop()
        # Polls that are done by now are acknowledged; the others are read again by the partition's next owner.
        await polls.join()
        completing.cancel()
        self._drained.set()
        await asyncio.to_thread(thread.join)
        watchdog.close()
        log.info("worker stopped", worker=worker.name)

    # In the consumer's thread.

    def _consume(self, submit: Callable[[list[Record]], object]) -> None:
        self._subscribe()
        try:
            while not self._stop.is_set():
                self._store_finished()
                self._fetch_again(self._fetches.next_cure())
                if not self._free_polls.acquire(timeout=_POLL_SECONDS):
                    self._keep([self._idle_polls.poll(self._consumer)])
                    continue
                self._idle_polls.end(self._consumer)
                records = self._poll()
                self._positions.find(after_poll=self._polls_submitted)
                if not records:
                    self._free_polls.release()
                    continue
                self._fetches.fetched()
                with self._idle:
                    self._in_flight += 1
                self._polls_submitted += 1
                submit(records)
            self._polling_ended.set()
            self._drained.wait()
            self._store_finished()
        finally:
            self._polling_ended.set()
            # Commits what was stored and leaves the group.
            self._consumer.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def _fetch_again(self, cure: Cure | None) -> None:
        if cure is Cure.SUBSCRIBE:
            # Ends the assignment, by `_on_revoke`, and leaves the group.
            self._consumer.close()
            log.warning("still nothing is fetched; subscribing again")
            self._begin_consumer()
            self._subscribe()
        elif cure is not None:
            partitions = self._consumer.assignment()
            if cure is Cure.ASSIGN_UNREAD:
                partitions = [p for p in self._consumer.position(partitions) if p.offset < 0]
            if partitions:
                self._assign_again(partitions)

    def _assign_again(self, partitions: Sequence[TopicPartition]) -> None:
        """The group does not notice. Each begins at what is committed: what was read and not stored is read again."""
        numbers = [p.partition for p in partitions]
        fresh = [TopicPartition(self._topic, number) for number in numbers]
        try:
            self._consumer.incremental_unassign(fresh)
            self._consumer.incremental_assign(fresh)
            # librdkafka remembers what was paused.
            self._consumer.resume(fresh)
        except KafkaException as error:
            # In the middle of a rebalance, which assigns by itself.
            log.info("not assigned again", partitions=numbers, cause=str(error))
        else:
            # Only now: else the consumer would go on behind what was dropped.
            self._read_ahead.drop(numbers)
            log.warning("nothing was fetched; assigned again", partitions=numbers)

    def _poll(self) -> list[Record]:
        first = self._consumer.poll(0 if self._read_ahead else _POLL_SECONDS)
        if first is not None:
            # At once: the next call may revoke its partition.
            self._keep([first])
            room = max(1, _READ_AHEAD_RECORDS - len(self._read_ahead))
            self._keep(self._consumer.consume(room, timeout=0))
            for _ in range(consumer.LINGERS):
                missing = MAX_POLL_RECORDS - len(self._read_ahead)
                if missing <= 0 or not self._in_flight:
                    break
                self._keep(self._consumer.consume(missing, timeout=consumer.LINGER_SECONDS))
        return self._read_ahead.take(MAX_POLL_RECORDS)

    def _keep(self, messages: Sequence[Message | None]) -> None:
        """What was read waits for its turn, but not what came before a position that was lost."""
        read = [message for message in messages if message is not None]
        self._read_ahead.add(record for message in read if (record := consumer.to_record(message)) is not None)
        lost = [partition for message in read if (partition := consumer.position_lost(message)) is not None]
        self._read_ahead.drop(lost)
        for partition in lost:
            self._positions.lost(partition)
        if any(map(consumer.offsets_not_fetched, read)):
            self._fetches.offsets_not_fetched()

    def _on_assign(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._assigned = True
        self._partitions = self._partitions | {p.partition for p in partitions}
        self._heartbeat.beat()
        log.info("partitions assigned", partitions=[p.partition for p in partitions])

    def _on_revoke(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        log.info("partitions revoked", partitions=[p.partition for p in partitions])
        self._positions.revoked(p.partition for p in partitions)
        self._read_ahead.drop(p.partition for p in partitions)
        with self._idle:
            self._idle.wait_for(lambda: not self._in_flight, timeout=_REVOKE_SECONDS)
        self._store_finished()
        # Otherwise a partition that comes back would still be paused: librdkafka remembers it.
        self._consumer.resume(list(partitions))
        self._partitions = self._partitions - {p.partition for p in partitions}

    def _store_finished(self) -> None:
        while self._finished:
            poll, partition, offset = self._finished.popleft()
            if self._positions.is_outdated(partition, poll):
                continue
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(self._topic, partition, offset)])
            except KafkaException as error:
                # Revoked by a rebalance: its next owner reads it again and finds it settled.
                log.info("offset not stored", partition=partition, cause=str(error))
            else:
                crash_points.reach(CrashPoint.OFFSET_STORED)

    # In the watchdog's thread.

    def _has_work(self) -> bool:
        if not self._assigned:
            # An assignment that never comes is a stall, unless the brokers are away, or keep a dead worker's.
            return time.monotonic() >= self._expected_at and self._lag.reachable()
        if self._in_flight > 0:
            self._fetches.fetched()
            # What is in flight may wait for brokers to take its claims.
            self._lag.reachable()
            return True
        behind = self._lag.behind(self._partitions)
        self._fetches.observed(behind=behind)
        return behind

    # In the event loop.

    async def _complete(
        self,
        polls: asyncio.Queue[tuple[list[Record], asyncio.Task[None]]],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        """Acknowledges polls in order. After one that did not finish, none: its records must be read again."""
        broken = False
        while True:
            records, task = await polls.get()
            self._polls_completed += 1
            try:
                await task
            except StoppingError:
                broken = True
            except Exception as error:
                broken = True
                ended(error)
            else:
                if not broken:
                    self._acknowledge(records)
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()
            self._free_polls.release()
            polls.task_done()

    def _acknowledge(self, records: Sequence[Record]) -> None:
        crash_points.reach(CrashPoint.POLL_DONE)
        # For the consumer's thread: two threads in one consumer can wait for each other for ever.
        newest = {record.partition: record.offset + 1 for record in records}
        self._finished.extend((self._polls_completed, partition, offset) for partition, offset in newest.items())
