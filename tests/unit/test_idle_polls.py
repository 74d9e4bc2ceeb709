"""While there is no room for a poll the consumer stays a member: fetching is paused, and goes on with the next room."""

from __future__ import annotations

from typing import Any, cast

from confluent_kafka import Consumer

from streams.runners.idle_polls import IdlePolls


class FakeConsumer:
    """Notes its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def assignment(self) -> list[Any]:
        return []

    def pause(self, _: list[Any]) -> None:
        self.calls.append("pause")

    def resume(self, _: list[Any]) -> None:
        self.calls.append("resume")

    def poll(self, timeout: float) -> None:
        self.calls.append(f"poll {timeout:g}")


def test_it_polls_only_after_a_second_without_room() -> None:
    """Pausing discards what was fetched: a moment without room, as in each busy second, pauses nothing."""
    times, consumer = [100.0], FakeConsumer()
    polls, library = IdlePolls(lambda: times[-1]), cast("Consumer", consumer)

    def without_room(*at: float) -> None:
        for time in at:
            times.append(time)
            polls.poll(library)

    polls.end(library)
    without_room(100.0, 100.9)
    assert consumer.calls == []
    without_room(101.1, 101.2)
    polls.end(library)
    polls.end(library)
    assert consumer.calls == ["pause", "poll 0", "pause", "poll 0", "resume"]
