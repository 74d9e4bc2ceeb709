"""What this process records of traces: nothing, unless the standard `OTEL_*` variables ask for it.

Chosen once, by `start`, before anything is made that traces. `config.otel` alone imports OpenTelemetry, and is imported
only where tracing is on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from config.addresses import split
from schemas.errors import SettingsError
from schemas.trace_context import TraceContext

#: Names and values of the semantic conventions, and `bidden.…`. Never an address, a name or a member's id.
Attributes: TypeAlias = Mapping[str, str | int]

_RANDOM: Final = random.SystemRandom()
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")


class Kind(StrEnum):
    """The kinds of spans."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """A span that has begun."""

    @property
    def context(self) -> TraceContext:
        """What continues the trace. Where nothing is recorded, the parent's, unchanged, or a new trace's."""
        ...

    def set(self, name: str, value: str | int) -> None:
        """Add an attribute."""
        ...

    def fail(self, error: str) -> None:
        """It ends with an error of this class."""
        ...


class Tracing(Protocol):
    """Records spans. May be called from any thread."""

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded: the same for the life of the process."""
        ...

    def span(
        self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """A span while the block lasts. Without a parent it begins a trace. An exception is its error."""
        ...

    def wants(self, parent: TraceContext) -> bool:
        """Whether spans below this one may be recorded: what is not sampled should cost nothing more."""
        ...

    def record(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext,
        seconds: float,
        attributes: Attributes,
        error: str | None = None,
    ) -> None:
        """A span that took so many seconds and ends now, with an error of this class or none."""
        ...

    def close(self) -> None:
        """Send what was recorded, for a few seconds at most."""
        ...


class _Unrecorded:
    """A span that nobody records."""

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def set(self, name: str, value: str | int) -> None:
        del name, value

    def fail(self, error: str) -> None:
        del error


class NoTracing:
    """Records nothing. Passes on the traces of others."""

    is_on = False

    @contextmanager
    def span(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Iterator[Span]:
        """See `Tracing.span`."""
        del name, kind, attributes
        yield _Unrecorded(parent or new_context())

    def wants(self, parent: TraceContext) -> bool:
        """See `Tracing.wants`."""
        del parent
        return False

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

    def close(self) -> None:
        """See `Tracing.close`."""


class _Holder:
    """The process's tracing."""

    tracing: Tracing = NoTracing()


def current() -> Tracing:
    """The process's tracing. Ask once, when the object is made that traces."""
    return _Holder.tracing


def use(tracing: Tracing) -> None:
    """Replace the process's tracing, for what is made from now on."""
    _Holder.tracing = tracing


def new_context() -> TraceContext:
    """A new trace that nobody records."""
    return TraceContext(f"{_RANDOM.getrandbits(128) or 1:032x}", f"{_RANDOM.getrandbits(64) or 1:016x}", sampled=False)


def start(service: str, environ: Mapping[str, str] = os.environ) -> None:
    """Choose the process's tracing by its environment. `service` is its name in traces, unless OTEL_SERVICE_NAME says.

    SettingsError names the variable that makes no sense, or that asks for what is not installed.
    """
    variable = wanted_by(environ)
    if variable is None:
        return
    try:
        from config.otel import OtelTracing
    except ImportError as error:
        raise SettingsError(
            f"{variable} is set, but OpenTelemetry is not installed: pip install 'bidden[otel]', or unset the variable",
            field=variable,
        ) from error
    use(OtelTracing(service, environ))


def wanted_by(environ: Mapping[str, str]) -> str | None:
    """The variable that turns tracing on; None when it is off. SettingsError for one that makes no sense. Pure."""

    def value(name: str) -> str:
        return environ.get(name, "").strip()

    exporter = value("OTEL_TRACES_EXPORTER").lower()
    if value("OTEL_SDK_DISABLED").lower() == "true" or exporter == "none":
        return None
    asked = [name for name in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS) if value(name)]
    if not asked:
        return None
    _require("OTEL_TRACES_EXPORTER", exporter in {"", "otlp", "console"}, "must be otlp, console or none")
    for name in _ENDPOINTS:
        _require(name, not value(name) or _is_http(value(name)), "must look like http://host:4318")
    for name in _PROTOCOLS:
        _require(name, value(name) in {"", "http/protobuf"}, "must be http/protobuf")
    sampler = value("OTEL_TRACES_SAMPLER").lower()
    known = [*_SAMPLERS, *(f"parentbased_{name}" for name in _SAMPLERS)]
    _require("OTEL_TRACES_SAMPLER", sampler in {"", *known}, f"must be one of {', '.join(known)}")
    if sampler.endswith("traceidratio"):
        _require("OTEL_TRACES_SAMPLER_ARG", _is_ratio(value("OTEL_TRACES_SAMPLER_ARG")), "must be from 0 to 1")
    return asked[0]


def _require(variable: str, holds: bool, rule: str) -> None:
    if not holds:
        raise SettingsError(f"{variable} {rule}", field=variable)


def _is_http(url: str) -> bool:
    try:
        parts = split(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_ratio(text: str) -> bool:
    try:
        return text == "" or 0 <= float(text) <= 1
    except ValueError:
        return False
