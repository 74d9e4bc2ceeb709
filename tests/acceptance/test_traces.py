"""One trace from the trigger to the mail and the webhook, seen by a collector of the test's own."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from config.kafka import client_config
from config.settings import Settings
from db.connect import Connection
from embedded import ports
from producers.topics import Topics
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.integration.test_webhooks import Receiver

pytestmark = pytest.mark.slow

MEMBERS = 30
_PRIVATE = {"BIDDEN_WEBHOOK_ALLOW_PRIVATE": "1"}
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class FoundSpan(NamedTuple):
    """A span as the collector got it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    seconds: float


class Collector:
    """An OTLP receiver on loopback."""

    def __init__(self, receiver: Receiver, port: int) -> None:
        receiver.status = 200
        self._receiver = receiver
        #: For the processes that are to send their spans here.
        self.variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def spans(self) -> list[FoundSpan]:
        """Those so far."""
        return [span for _, body in list(self._receiver.received) for span in _spans(body)]

    def named(self, name: str) -> list[FoundSpan]:
        """Those whose name begins so."""
        return [span for span in self.spans if span.name.startswith(name)]


def _spans(body: bytes) -> Iterator[FoundSpan]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                yield FoundSpan(
                    service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    _attributes(span.attributes), seconds,
                )  # fmt: skip


def _attributes(found: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in found}


@pytest.fixture
def receivers() -> Iterator[tuple[Collector, Receiver, int]]:
    """A collector, and a webhook's receiver with its port."""
    numbers = ports.choose({"collector": None, "hook": None}, {})
    with ExitStack() as running:
        collector, hook = (running.enter_context(Receiver(numbers[name]).running()) for name in ("collector", "hook"))
        yield Collector(collector, numbers["collector"]), hook, numbers["hook"]


class Api:
    """A program's access to the API."""

    def __init__(self, bidden: Bidden, hook_port: int, **env: str) -> None:
        self._port = ports.choose({"web": None}, {})["web"]
        bidden.run("account", "add", "ada@example.org", "--name", "Ada", "--role", "admin", "--no-password")
        added = bidden.run(
            "client", "add", "planner", "--account", "ada@example.org", "--scope", "read", "--scope", "invite",
            "--webhook", f"http://127.0.0.1:{hook_port}/hook", "--json", env=_PRIVATE,
        )  # fmt: skip
        self._token = added.json["token"]
        self.process = bidden.start("serve", "--port", str(self._port), "--json", **_PRIVATE, **env)
        eventually(lambda: bool(self.process.logged("the web application is up")), "the application is up")

    def start_batch(self, event: int = 1, **headers: str) -> int:
        """Invite the students; returns the batch's id."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/api/v1/events/{event}/batches",
            data=b'{"audience": "students"}',
            headers={
                "authorization": f"Bearer {self._token}",
                "content-type": "application/json",
                "idempotency-key": f"key-{event}",
                **headers,
            },
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            batch: int = json.load(response)["batch_id"]
        return batch


class Seen(NamedTuple):
    """A message of the topic: what must be the same when it comes again."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int


def messages(settings: Settings) -> list[Seen]:
    """All of the topic, in its order."""
    topic = settings.invitations_topic
    found: list[Seen] = []
    consumer = Consumer(client_config(settings, "test") | {"group.id": "none", "enable.auto.commit": False})
    topics = Topics(settings)
    latest = topics.latest(topics.partitions())
    consumer.assign([TopicPartition(topic, partition, 0) for partition in latest])
    while len(found) < sum(latest.values()):
        message = consumer.poll(10)
        assert message is not None
        assert message.error() is None
        key, value, headers = message.key(), message.value(), message.headers()
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        found.append(Seen(key, value, tuple(headers or ()), message.timestamp()[1]))  # type: ignore[arg-type]
    consumer.close()
    return found


def test_the_whole_trace(
    bidden: Bidden, books: Books, settings: Settings, receivers: tuple[Collector, Receiver, int]
) -> None:
    """The caller's trace goes on through trigger, plan, topic, each mail and the webhook; nobody is named in it."""
    collector, hook, hook_port = receivers
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    books.sink.set_rules([{"do": "refuse_recipient", "recipient": "m7@*", "reply": "550 5.1.1 No m7@here"}])
    api = Api(bidden, hook_port, **collector.variables)
    dispatcher = bidden.start("dispatch", **collector.variables)
    worker = bidden.worker(**collector.variables)
    batch = api.start_batch(traceparent=f"00-{TRACE}-{CALLER}-01")
    books.wait_completed(batch)
    eventually(lambda: bool(hook.received), "the webhook is notified")
    for process in (worker, dispatcher, api.process):
        process.stop()

    spans = collector.spans
    assert {span.trace for span in spans} == {TRACE}
    (invite,) = collector.named("invite")
    assert (invite.service, invite.parent) == ("bidden-web", CALLER)
    assert (invite.attributes["bidden.batch.id"], invite.attributes["bidden.event.id"]) == (batch, 1)
    below = {span.name: {found.parent for found in spans if found.name == span.name} for span in spans}
    below.pop("invite")
    topic = settings.invitations_topic
    assert below == {name: {invite.id} for name in ("plan", f"send {topic}", f"process {topic}", "POST webhook")}

    sent = collector.named("send")
    assert {span.service for span in sent} == {"bidden-dispatcher"}
    assert sum(span.attributes["messaging.batch.message_count"] for span in sent) == MEMBERS
    processed = collector.named("process")
    assert {span.service for span in processed} == {"bidden-worker"}
    outcomes = sorted((span.attributes["bidden.outcome"], span.attributes.get("error.type")) for span in processed)
    assert outcomes == [("failed", "Refused"), *[("sent", None)] * (MEMBERS - 1)]
    assert len({(s.attributes["messaging.destination.partition.id"], s.attributes["messaging.kafka.offset"])
                for s in processed}) == MEMBERS  # fmt: skip
    for span in (*sent, *processed):
        assert (span.attributes["messaging.system"], span.attributes["messaging.destination.name"]) == ("kafka", topic)
        assert 0 < span.seconds < 60
    (posted,) = collector.named("POST webhook")
    assert hook.received[0][0]["traceparent"] == f"00-{TRACE}-{posted.id}-01"
    everything = repr(spans)
    assert "@" not in everything
    assert "example" not in everything


def test_what_is_not_sampled_is_not_recorded(
    bidden: Bidden, books: Books, receivers: tuple[Collector, Receiver, int]
) -> None:
    """A caller that does not sample: the trace goes on over the topic, and no span of it is sent."""
    collector, hook, hook_port = receivers
    bidden.import_lines(*directory(range(1, MEMBERS + 1), events=2))
    api = Api(bidden, hook_port, **collector.variables)
    dispatcher = bidden.start("dispatch", **collector.variables)
    worker = bidden.worker(**collector.variables)
    unsampled = api.start_batch(traceparent=f"00-{TRACE}-{CALLER}-00")
    # One without a trace, and with an invalid one: by the default sampler it is recorded.
    sampled = api.start_batch(2, traceparent=f"00-{TRACE.upper()}-{CALLER}-01")
    books.wait_completed(unsampled, sampled)
    eventually(lambda: len(hook.received) == 2, "the webhook is notified")
    for process in (worker, dispatcher, api.process):
        process.stop()
    traces = {headers["traceparent"][3:35] for headers, _ in hook.received}
    assert len(traces) == 2
    assert {span.trace for span in collector.spans} == traces - {TRACE}
    assert len(collector.named("process")) == MEMBERS


def test_what_is_published_again_is_the_same(
    bidden: Bidden, books: Books, conn: Connection, settings: Settings, receivers: tuple[Collector, Receiver, int]
) -> None:
    """FM-22: a replay's messages have the headers and the timestamp of the first ones, with tracing on and off."""
    collector, _, _ = receivers
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    bidden.worker()
    variables = {"TRACEPARENT": f"00-{TRACE}-{CALLER}-01"}
    planned = bidden.run("invite", "1", "--audience", "students", "--wait", "--json", env=variables).json
    first = messages(settings)
    assert len(set(first)) == len(first) == MEMBERS
    times = set()
    for message in first:
        headers = dict(message.headers)
        assert headers["traceparent"].decode() == f"00-{TRACE}-{CALLER}-01"
        times.add(datetime.fromisoformat(headers["ce_time"].decode()))
        assert abs(message.timestamp / 1000 - time.time()) < 600
    row = conn.execute("SELECT started_at FROM batches").fetchone()
    assert row is not None
    assert times == {row["started_at"]}
    assert len({dict(message.headers)["ce_id"] for message in first}) == MEMBERS
    for env in ({}, collector.variables):
        bidden.run("replay", "--batch", str(planned["batch_id"]), env=env)
    found = messages(settings)
    assert len(found) == 3 * MEMBERS
    assert set(found) == set(first)
    assert {span.trace for span in collector.named("send")} == {TRACE}
    # What an earlier version published has no timestamp of its own: when its receipt was stored is known.
    conn.execute("UPDATE batch_items SET kafka_timestamp = NULL")
    bidden.run("replay", "--batch", str(planned["batch_id"]))
    last = {message for message in messages(settings) if message not in set(first)}
    assert {message[:3] for message in last} <= {message[:3] for message in first}
    assert all(0 <= message.timestamp - min(m.timestamp for m in first) < 60_000 for message in last)


def test_off_imports_nothing_of_opentelemetry(bidden: Bidden, books: Books) -> None:
    """A campaign from the trigger to the mails: no process of it ever imports OpenTelemetry."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    env = {"PYTHONPROFILEIMPORTTIME": "1"}
    processes = [bidden.start("dispatch", **env), bidden.worker(**env)]
    done = bidden.run("invite", "1", "--audience", "students", "--wait", "--json", env=env)
    books.check()
    for process in processes:
        process.stop()
    for text in (done.err, *(process.err.read_text() for process in processes)):
        assert " psycopg\n" in text
        assert "opentelemetry" not in text


def test_a_collector_that_is_away_changes_nothing(bidden: Bidden, books: Books) -> None:
    """All is sent, and the processes stop in time."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    # The system takes its connections, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as collector:
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        processes = [bidden.start("dispatch", **env), bidden.worker(**env)]
        bidden.run("invite", "1", "--audience", "students", "--wait", env=env)
        books.check()
        begun = time.monotonic()
        for process in processes:
            process.stop()
        assert time.monotonic() - begun < 20
