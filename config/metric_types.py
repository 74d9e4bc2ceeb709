"""How a metric is defined: its row in the table (`config.metrics`), and the object that code counts with."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# A second series for each counter, which nothing here reads.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library annotates all but this

#: A label's values: a closed set, or None where a rule bounds them.
Values = Collection[str] | None


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric as the reference lists it. `sampled`: its process asks for it at a fixed pace, never a scrape."""

    name: str
    kind: str
    unit: str
    meaning: str
    processes: tuple[str, ...]
    labels: Mapping[str, Values]
    sampled: bool = False


class Sampled(Collector):
    """A gauge that is set as a whole from time to time, and absent once its values are too old to be true."""

    def __init__(self, definition: Definition, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._definition = definition
        self._monotonic = monotonic
        self._kept: tuple[float, dict[str, float]] | None = None

    def set(self, values: Mapping[str, float] | float, *, keep_seconds: float) -> None:
        """All its values by that of its label, or the one of a gauge without a label. From any thread."""
        found = (
            {str(label): float(value) for label, value in values.items()}
            if isinstance(values, Mapping)
            else {"": float(values)}
        )
        self._kept = self._monotonic() + keep_seconds, found

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """For the registry."""
        family = GaugeMetricFamily(self._definition.name, self._definition.meaning, labels=[*self._definition.labels])
        kept = self._kept
        if kept is not None and self._monotonic() < kept[0]:
            for label, value in kept[1].items():
                family.add_metric([label] if self._definition.labels else [], value)
        yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """For the registry: its name alone."""
        yield GaugeMetricFamily(self._definition.name, self._definition.meaning)


class Table:
    """The definitions, in their order, with the objects that count. One per program: `config.metrics`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self._metrics: dict[str, Collector] = {}

    def counter(self, name: str, unit: str, meaning: str, *processes: str, **labels: Values) -> Counter:
        """Grows until its process ends."""
        metric = Counter(name, meaning, [*labels], registry=None)
        self._add(Definition(name, "counter", unit, meaning, processes, labels), metric)
        _begin_at_zero(metric, labels)
        return metric

    def gauge(self, name: str, unit: str, meaning: str, *processes: str, **labels: Values) -> Gauge:
        """What holds at the moment of a scrape, as far as the process knows without asking anybody."""
        metric = Gauge(name, meaning, [*labels], registry=None)
        self._add(Definition(name, "gauge", unit, meaning, processes, labels), metric)
        _begin_at_zero(metric, labels)
        return metric

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *processes: str, **labels: Values
    ) -> Histogram:
        """Of durations in seconds."""
        metric = Histogram(name, meaning, [*labels], buckets=buckets, registry=None)
        self._add(Definition(name, "histogram", "seconds", meaning, processes, labels), metric)
        _begin_at_zero(metric, labels)
        return metric

    def sampled(self, name: str, unit: str, meaning: str, *processes: str, **labels: Values) -> Sampled:
        """What somebody has to be asked for. At most one label."""
        assert len(labels) <= 1, name
        definition = Definition(name, "gauge", unit, meaning, processes, labels, sampled=True)
        metric = Sampled(definition)
        self._add(definition, metric)
        return metric

    def registry(self, process: str) -> CollectorRegistry:
        """The metrics of one kind of process, with those of any process (CPU, memory, files)."""
        registry = CollectorRegistry()
        for name, definition in self.definitions.items():
            if process in definition.processes:
                registry.register(self._metrics[name])
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        return registry

    def _add(self, definition: Definition, metric: Collector) -> None:
        assert definition.name not in self.definitions, f"defined twice: {definition.name}"
        self.definitions[definition.name] = definition
        self._metrics[definition.name] = metric


def _begin_at_zero(metric: Counter | Gauge | Histogram, labels: Mapping[str, Values]) -> None:
    """A rate needs the zero before the first one. Not of two labels: most pairs of their values never occur."""
    closed: Final = [values for values in labels.values() if values is not None]
    if len(closed) == len(labels) == 1:
        for values in product(*closed):
            metric.labels(*values)
