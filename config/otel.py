"""OpenTelemetry behind the port of `config.tracing`: imported only where tracing is on.

The provider is this process's own and not the global one: no library adds spans, which would name addresses and tokens.
Exporter, sampler, batches and resource are set by the standard `OTEL_*` variables, which the SDK reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, TraceFlags

from config.tracing import Attributes, Kind, Span
from schemas.trace_context import TraceContext

_KINDS: Final = {kind: SpanKind[kind.name] for kind in Kind}
#: A process that ends waits no longer for a collector that does not answer.
_CLOSE_SECONDS: Final = 3.0
#: The class of the error, in the semantic conventions.
_ERROR_TYPE: Final = "error.type"


class OtelSpan:
    """See `config.tracing.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def context(self) -> TraceContext:
        """See `Span.context`."""
        found = self._span.get_span_context()
        return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled)

    def set(self, name: str, value: str | int) -> None:
        """See `Span.set`."""
        self._span.set_attribute(name, value)

    def fail(self, error: str) -> None:
        """See `Span.fail`."""
        _fail(self._span, error)


class OtelTracing:
    """See `config.tracing.Tracing`."""

    is_on = True

    def __init__(self, service: str, environ: Mapping[str, str], exporter: SpanExporter | None = None) -> None:
        """`environ` is the process's environment, from which the SDK reads, too. `exporter` is for tests."""
        if exporter is None:
            to_console = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console"
            exporter = ConsoleSpanExporter(out=sys.stderr) if to_console else OTLPSpanExporter()
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bidden")
        sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
        self._by_parent = sampler == "" or sampler.startswith("parentbased_")

    @contextmanager
    def span(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Iterator[Span]:
        """See `Tracing.span`."""
        span = self._tracer.start_span(name, _below(parent), _KINDS[kind], attributes)
        try:
            yield OtelSpan(span)
        except BaseException as error:
            # Its class alone: the text may quote anything.
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def wants(self, parent: TraceContext) -> bool:
        """See `Tracing.wants`."""
        return parent.sampled or not self._by_parent

    def record(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext,
        seconds: float,
        attributes: Attributes,
        error: str | None = None,
    ) -> None:
        """See `Tracing.record`."""
        now = time.time_ns()
        span = self._tracer.start_span(
            name, _below(parent), _KINDS[kind], attributes, start_time=now - round(seconds * 1e9)
        )
        if error is not None:
            _fail(span, error)
        span.end(now)

    def close(self) -> None:
        """See `Tracing.close`."""
        # A thread: the SDK waits for up to half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


def _fail(span: trace.Span, error: str) -> None:
    span.set_attribute(_ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))


@lru_cache(maxsize=1024)
def _below(parent: TraceContext | None) -> Context:
    """A context with this parent, or with none."""
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    found = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(found), Context())
