"""Pipeline and window of a worker that traces: each delivery of a sampled trace is a span, from claim to outcome.

Classes of their own, so that a worker that does not trace does nothing for it: it never asks for a message's headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from config.settings import Settings
from config.tracing import Attributes, Kind, Tracing
from schemas.delivery import CycleResult, Delivery
from schemas.outcomes import Sent
from schemas.send_results import SendResult
from schemas.trace_context import TraceContext, parse
from streams.pipeline import Decoded, Pipeline
from streams.records import InvalidRecord, Record
from streams.window import Window

_HEADER: Final = "traceparent"


class TracedPipeline(Pipeline):
    """See `streams.pipeline.Pipeline`."""

    def __init__(self, tracing: Tracing, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tracing = tracing

    async def _look_up(self, decoded: Sequence[Decoded]) -> tuple[list[Delivery], list[InvalidRecord]]:
        deliveries, invalid = await super()._look_up(decoded)
        records = {(first.partition, first.offset): first for (first, *_), _ in decoded}
        for delivery in deliveries:
            found = trace_of(records[delivery.partition, delivery.offset])
            if found is not None and self._tracing.wants(found):
                delivery.trace = found
        return deliveries, invalid


class TracedWindow(Window):
    """See `streams.window.Window`."""

    def __init__(self, tracing: Tracing, about: Attributes, *arguments: Any, **named: Any) -> None:
        """`about`: the attributes of every span."""
        super().__init__(*arguments, **named)
        self._tracing = tracing
        self._about = about
        self._name = f"process {about['messaging.destination.name']}"
        #: When each was claimed; renewing a lease would move it.
        self._claimed_at: dict[Delivery, float] = {}

    def _limit_claims(self, done: CycleResult, renewed: Sequence[Delivery]) -> None:
        super()._limit_claims(done, renewed)
        self._claimed_at.update((d, d.leased_at.before) for d in done.claimed if d.trace is not None)

    def _complete(self, delivery: Delivery, result: SendResult) -> None:
        super()._complete(delivery, result)
        if delivery.trace is None:
            return
        about: dict[str, str | int] = {
            **self._about,
            "messaging.destination.partition.id": str(delivery.partition),
            "messaging.kafka.offset": delivery.offset,
            "bidden.batch.id": delivery.batch_id,
            "bidden.event.id": delivery.key.event_id,
            "bidden.role": delivery.role,
            "bidden.outcome": type(delivery.outcome).__name__.lower(),
        }
        seconds = self._clock() - self._claimed_at.pop(delivery)
        # The class of the result: its text may quote an address.
        error = None if isinstance(delivery.outcome, Sent) else type(result).__name__
        self._tracing.record(self._name, Kind.CONSUMER, delivery.trace, seconds, about, error)


def trace_of(record: Record) -> TraceContext | None:
    """The trace that a message continues; None where its one header `traceparent` is missing or not valid."""
    values = [value for name, value in record.headers if name == _HEADER]
    if len(values) != 1 or values[0] is None or not values[0].isascii():
        return None
    return parse(values[0].decode())


def parts(tracing: Tracing, settings: Settings) -> tuple[Callable[..., Pipeline], Callable[..., Window]]:
    """What makes a worker's pipeline and its window."""
    if not tracing.is_on:
        return Pipeline, Window
    about = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": settings.invitations_topic,
        "messaging.consumer.group.name": settings.group,
    }
    return partial(TracedPipeline, tracing), partial(TracedWindow, tracing, about)
