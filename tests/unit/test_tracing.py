"""Tracing: off unless the standard variables ask for it; refused by name; parents, sampling and errors of spans."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from config import tracing
from config.otel import OtelTracing
from config.tracing import Kind, NoTracing, wanted_by
from schemas.errors import SettingsError
from schemas.trace_context import TraceContext, parse
from tests.acceptance.processes import ROOT

PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True)
UNSAMPLED = PARENT._replace(sampled=False)
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


class Spans:
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        self.found: list[ReadableSpan] = []

    def export(self, spans: list[ReadableSpan]) -> SpanExportResult:
        """Keep them."""
        self.found += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to do."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = tracing.current()
    for name in ("SERVICE_NAME", "TRACES_SAMPLER", "TRACES_SAMPLER_ARG", "RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    yield
    tracing.use(before)


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "nonsense"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, None),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (ENDPOINT | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, "OTEL_E"),
    ],
)
def test_when_it_is_on(environ: Mapping[str, str], variable: str | None) -> None:
    """An endpoint or an exporter turns it on; `none` and OTEL_SDK_DISABLED turn it off."""
    found = wanted_by(environ)
    assert found is None if variable is None else str(found).startswith(variable)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "otlp,console"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1 %"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_refused_by_name(variable: str, value: str) -> None:
    """A variable that makes no sense is refused, not replaced by a default."""
    environ = ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio"} | {variable: value}
    with pytest.raises(SettingsError) as refused:
        tracing.start("bidden-test", environ)
    assert refused.value.field == variable


def test_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, and what to install."""
    monkeypatch.setitem(sys.modules, "config.otel", None)
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT .* pip install 'bidden\[otel\]'") as refused:
        tracing.start("bidden-test", ENDPOINT)
    assert refused.value.field == "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert not tracing.current().is_on


@pytest.mark.parametrize("module", ["streams.worker", "producers.dispatch", "cli.commands.services", "cli.wiring"])
def test_off_imports_nothing(module: str) -> None:
    """Worker and dispatcher import nothing of OpenTelemetry while tracing is off; and while it is on, they do."""
    program = (
        f"import os, sys, {module}; from config import tracing; tracing.start('bidden-test', os.environ); "
        "print(sum(name.startswith('opentelemetry') for name in sys.modules)); tracing.current().close()"
    )

    def imported(environ: dict[str, str]) -> int:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, check=True)
        return int(done.stdout)

    assert imported({"PYTHONPATH": str(ROOT)}) == 0
    assert imported({"PYTHONPATH": str(ROOT), "OTEL_TRACES_EXPORTER": "console"}) > 10


def test_off_passes_on() -> None:
    """A span that nobody records: the parent's context goes on unchanged, or an unsampled trace begins."""
    off = NoTracing()
    with off.span("invite", Kind.SERVER, PARENT, {}) as span:
        assert span.context == PARENT
    with off.span("invite", Kind.SERVER, None, {}) as span:
        assert parse(str(span.context)) == span.context
        assert not span.context.sampled
    assert not off.wants(PARENT)


def test_a_span_continues_its_parent() -> None:
    """The parent's trace, the parent's span as parent, an own span; attributes; and the class of an error alone."""
    spans = Spans()
    on = OtelTracing("bidden-test", {}, spans)
    with on.span("invite", Kind.SERVER, PARENT, {"bidden.event.id": 7}) as span:
        context = span.context
        span.set("bidden.batch.id", 8)
    on.record("process topic", Kind.CONSUMER, context, 1.5, {}, "Refused")
    with pytest.raises(ValueError, match="Ada"), on.span("plan", Kind.INTERNAL, context, {}):
        raise ValueError("Ada")
    on.close()
    invite, process, plan = sorted(spans.found, key=lambda span: ["invite", "process topic", "plan"].index(span.name))
    assert (context.trace_id, context.sampled) == (PARENT.trace_id, True)
    for found, parent in ((invite, PARENT), (process, context), (plan, context)):
        assert f"{found.context.trace_id:032x}" == PARENT.trace_id
        assert f"{found.parent.span_id:016x}" == parent.span_id
    assert dict(invite.attributes) == {"bidden.event.id": 7, "bidden.batch.id": 8}
    assert invite.resource.attributes["service.name"] == "bidden-test"
    assert process.end_time - process.start_time == 1_500_000_000
    assert (process.attributes["error.type"], plan.attributes["error.type"]) == ("Refused", "ValueError")
    assert "Ada" not in "".join(found.to_json() for found in spans.found)


def test_the_parent_says_whether_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trigger did not sample nobody records; a sampler that does not go by the parent may."""
    spans = Spans()
    on = OtelTracing("bidden-test", {}, spans)
    assert (on.wants(PARENT), on.wants(UNSAMPLED)) == (True, False)
    with on.span("invite", Kind.SERVER, UNSAMPLED, {}) as span:
        assert (span.context.trace_id, span.context.sampled) == (PARENT.trace_id, False)
    on.close()
    assert spans.found == []
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert OtelTracing("bidden-test", {"OTEL_TRACES_SAMPLER": "always_on"}, Spans()).wants(UNSAMPLED)


def test_a_ratio_of_the_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ratio of 0 a trigger without a parent is not sampled; one with a sampled parent is."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    on = OtelTracing("bidden-test", {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}, Spans())
    for parent, sampled in ((None, False), (PARENT, True)):
        with on.span("invite", Kind.SERVER, parent, {}) as span:
            assert span.context.sampled == sampled


def test_service_name_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME names the process."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "invitations")
    spans = Spans()
    on = OtelTracing("bidden-test", {}, spans)
    with on.span("invite", Kind.SERVER, None, {}):
        pass
    on.close()
    assert [span.resource.attributes["service.name"] for span in spans.found] == ["invitations"]
