"""A consumer that holds partitions and gets nothing from them, while messages wait, is made to fetch again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, TopicPartition

from config.settings import Settings
from embedded.process import wait_until
from streams.records import Record
from streams.runners import fetch_watch
from streams.runners.confluent import ConfluentRunner
from streams.runners.fetch_watch import FAILED_SECONDS, STANDS_SECONDS, Cure, FetchWatch


def test_the_cures_follow_each_other() -> None:
    """FM-41: nothing for five seconds while messages wait: assign again, then subscribe, then the watchdog's turn."""
    now = [100.0]
    watch = FetchWatch(lambda: now[0])

    def after(seconds: float) -> Cure | None:
        now[0] += seconds
        watch.observed(behind=True)
        return watch.next_cure()

    assert after(0) is None
    assert after(STANDS_SECONDS - 0.1) is None
    assert after(0.1) is Cure.ASSIGN_ALL
    assert after(STANDS_SECONDS - 0.1) is None
    assert after(0.1) is Cure.SUBSCRIBE
    assert [after(STANDS_SECONDS) for _ in range(5)] == [None] * 5
    watch.fetched()
    assert after(0) is None
    assert after(STANDS_SECONDS) is Cure.ASSIGN_ALL


def test_no_cure_while_nothing_waits_or_something_comes() -> None:
    """An idle worker, brokers that are away, and a worker that is busy are left alone."""
    now = [0.0]
    watch = FetchWatch(lambda: now[0])
    for kind in ("away", "busy"):
        for _ in range(5):
            watch.observed(behind=True)
            now[0] += STANDS_SECONDS - 0.1
            assert watch.next_cure() is None
            if kind == "away":
                watch.observed(behind=False)
            else:
                watch.fetched()
            now[0] += STANDS_SECONDS
            assert watch.next_cure() is None


def test_a_reported_failure_is_cured_at_once() -> None:
    """FM-41: a consumer that could not fetch its offsets does not ask again by itself."""
    now = [0.0]
    watch = FetchWatch(lambda: now[0])
    watch.offsets_not_fetched()
    assert watch.next_cure() is Cure.ASSIGN_UNREAD
    assert watch.next_cure() is None
    watch.offsets_not_fetched()
    assert watch.next_cure() is None
    now[0] += FAILED_SECONDS
    assert watch.next_cure() is Cure.ASSIGN_UNREAD


class Message:
    """A record or an error."""

    def __init__(self, code: int | None = None) -> None:
        self._code = code

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)

    def topic(self) -> str | None:
        return "t" if self._code is None else None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def key(self) -> bytes:
        return b"1"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_NOT_AVAILABLE, 0


class StuckConsumer:
    """Holds one partition and returns nothing of it, until it is assigned again so often, or replaced."""

    def __init__(self, cured_by: str, errors: list[Message]) -> None:
        self._cured_by = cured_by
        self._errors = errors
        self._record: list[Message] = []
        self.calls: list[str] = []

    def subscribe(self, _: Any, on_assign: Callable[..., None], on_revoke: Callable[..., None]) -> None:
        self.calls.append("subscribe")
        on_assign(self, [TopicPartition("t", 0)])
        if self._cured_by == "subscribed":
            self._record = [Message()]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", 0)]

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition, -1001) for p in partitions]

    def incremental_unassign(self, _: Any) -> None:
        self.calls.append("unassign")

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.calls.append("assign")
        # At what is committed.
        assert [p.offset for p in partitions] == [-1001]
        if self._cured_by == "assign":
            self._record = [Message()]

    def resume(self, _: Any) -> None:
        pass

    def poll(self, _: float) -> Message | None:
        if self._errors:
            return self._errors.pop()
        return self._record.pop() if self._record else None

    def consume(self, *_: Any, **__: Any) -> list[Message]:
        return []

    def close(self) -> None:
        self.calls.append("close")


class Lag:
    """One partition is behind for ever."""

    def behind(self, _: Any) -> bool:
        return True

    def reachable(self) -> bool:
        return True


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[StuckConsumer]]:
    """Runs the consumer's thread with such consumers until a record comes; returns those that were made."""
    monkeypatch.setattr(fetch_watch, "STANDS_SECONDS", 0.3)
    monkeypatch.setattr("streams.runners.confluent._POLL_SECONDS", 0.01)

    def run(cured_by: list[str], errors: list[Message]) -> list[StuckConsumer]:
        made: list[StuckConsumer] = []

        def make(_: ConfluentRunner) -> StuckConsumer:
            made.append(StuckConsumer(cured_by[len(made)], errors if not made else []))
            return made[-1]

        monkeypatch.setattr(ConfluentRunner, "_make_consumer", make)
        values: dict[str, Any] = {"kafka_bootstrap": "127.0.0.1:1"}
        settings = Settings(**values)
        runner = ConfluentRunner(settings, None)  # type: ignore[arg-type] # no worker is built
        runner._lag = Lag()  # type: ignore[assignment]
        runner._drained.set()
        found: list[Record] = []
        thread = threading.Thread(target=runner._consume, args=(found.extend,), daemon=True)
        thread.start()

        def came() -> bool:
            # In place of the watchdog.
            if not errors:
                runner._has_work()
            return bool(found)

        try:
            assert wait_until(came, 10)
        finally:
            runner._stop.set()
            thread.join(10)
        assert not thread.is_alive()
        return made

    return run


def test_a_stuck_consumer_is_assigned_again(play: Callable[..., list[StuckConsumer]]) -> None:
    """FM-41: the same consumer fetches after the same partitions were assigned to it again."""
    (consumer,) = play(["assign"], [])
    assert consumer.calls == ["subscribe", "unassign", "assign", "close"]


def test_a_consumer_that_stays_stuck_is_replaced(play: Callable[..., list[StuckConsumer]]) -> None:
    """FM-41: a new consumer takes the place of one that did not fetch even then."""
    first, second = play(["nothing", "subscribed"], [])
    assert first.calls == ["subscribe", "unassign", "assign", "close"]
    assert second.calls == ["subscribe", "close"]


def test_a_consumer_that_reports_it_is_assigned_again_at_once(
    play: Callable[..., list[StuckConsumer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FM-41: "not coordinator" for its offsets: assigned again before anybody looks at the lag."""
    monkeypatch.setattr(fetch_watch, "STANDS_SECONDS", 1000)
    (consumer,) = play(["assign"], [Message(KafkaError.NOT_COORDINATOR)])
    assert consumer.calls == ["subscribe", "unassign", "assign", "close"]
