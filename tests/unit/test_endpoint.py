"""The endpoint for monitors: true answers, and bounds on what a monitor can cost or break."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from config.health import Health
from embedded import ports
from monitoring import endpoint
from monitoring.endpoint import CONNECTIONS, Endpoint, parse
from schemas.errors import SettingsError

HOST = "127.0.0.1"


class Written(Collector):
    """Counts how often the metrics are written out."""

    def __init__(self) -> None:
        self.times = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        self.times += 1
        yield CounterMetricFamily("written", "how often", value=self.times)

    def describe(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        yield CounterMetricFamily("written", "how often")


class Monitored:
    """A process with an endpoint."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.written = Written()
        registry = CollectorRegistry()
        registry.register(self.written)
        self.health = Health()
        self.port = ports.choose({"monitors": None}, {})["monitors"]
        self.endpoint = Endpoint(HOST, self.port, registry, self.health, request_seconds=seconds)
        self.endpoint.start()

    def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """One request."""
        return httpx.request(method, f"http://{HOST}:{self.port}{path}", headers=headers, timeout=10)

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        return socket.create_connection((HOST, self.port), timeout=10)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended it; waits for something to come."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.fixture
def monitored() -> Monitored:
    """A process with an endpoint."""
    return Monitored()


def test_it_answers(monitored: Monitored) -> None:
    """Metrics as text; alive and ready as JSON; HEAD without a body; anything else is refused."""
    metrics = monitored.ask("/metrics?x=1")
    assert (metrics.status_code, metrics.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert "written_total 1.0" in metrics.text
    assert monitored.ask("/livez").json() == {"status": "alive"}
    assert monitored.ask("/readyz").json() == {"status": "ready"}
    head = monitored.ask("/metrics", "HEAD")
    assert (head.status_code, head.text) == (200, "")
    assert int(head.headers["content-length"]) > 0
    for method in ("POST", "PUT", "DELETE"):
        refused = monitored.ask("/livez", method)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert monitored.ask("/").status_code == 404
    assert monitored.ask("/metrics/../etc/passwd").status_code == 404


def test_open_metrics(monitored: Monitored) -> None:
    """A monitor that asks for OpenMetrics gets it."""
    answer = monitored.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_problems_are_named(monitored: Monitored) -> None:
    """A part that does not hold makes 503, with its reason; what is not alive is not ready either."""
    problem: list[str | None] = ["has not joined its consumer group"]
    monitored.health.ready_by("group", lambda: problem[0])
    answer = monitored.ask("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "reasons": {"group": problem[0]}})
    assert monitored.ask("/livez").status_code == 200
    problem[0] = None
    assert monitored.ask("/readyz").status_code == 200
    monitored.health.lives_by("watchdog", lambda: "no progress")
    assert monitored.ask("/livez").json() == {"status": "not alive", "reasons": {"watchdog": "no progress"}}
    assert monitored.ask("/readyz").status_code == 503


def test_a_broken_check_is_no_health(monitored: Monitored) -> None:
    """A check that raises makes 503, and the endpoint lives on."""

    def broken() -> str | None:
        raise RuntimeError("a bug")

    monitored.health.ready_by("broken", broken)
    assert monitored.ask("/readyz").status_code == 503
    assert monitored.ask("/livez").status_code == 200


def test_hard_scrapes_are_paced(monitored: Monitored) -> None:
    """A hundred scrapes at once are all answered, in turns; the metrics are written out a few times only."""
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: monitored.ask("/metrics"), range(100)))
    took = time.monotonic() - began
    assert {answer.status_code for answer in answers} == {200}
    assert took >= 99 * endpoint._PACE_SECONDS
    assert monitored.written.times <= took / endpoint._KEPT_SECONDS + 2


def test_a_silent_client_is_cut() -> None:
    """One that sends nothing, or a byte at a time, is closed in time, and others are answered meanwhile."""
    monitored = Monitored(seconds=0.5)
    began = time.monotonic()
    with monitored.connect() as silent, monitored.connect() as dribbling:
        assert monitored.ask("/livez").status_code == 200
        cut = False
        while not cut and time.monotonic() - began < 10:
            try:
                dribbling.sendall(b"G")
                time.sleep(0.05)
            except OSError:
                cut = True
        assert cut
        assert is_closed(silent)
    assert time.monotonic() - began >= 0.5


def test_too_many_connections_are_closed(monitored: Monitored) -> None:
    """Beyond the bound a connection is closed at once; when others end, new ones are answered again."""
    held = [monitored.connect() for _ in range(CONNECTIONS)]
    end = time.monotonic() + 10
    refused = False
    while not refused and time.monotonic() < end:
        try:
            monitored.ask("/livez")
        except httpx.HTTPError:
            refused = True
    assert refused
    for connection in held:
        connection.close()
    answered = False
    while not answered and time.monotonic() < end:
        try:
            answered = monitored.ask("/livez").status_code == 200
        except httpx.HTTPError:
            continue
    assert answered


@pytest.mark.parametrize(
    "request_bytes", [b"\r\n\r\n", b"GET /livez\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n", b"GET /livez SMTP/1.0\r\n\r\n"]
)
def test_what_is_no_http_is_refused(monitored: Monitored, request_bytes: bytes) -> None:
    """400, and nothing else happens."""
    with monitored.connect() as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert monitored.ask("/livez").status_code == 200


def test_a_huge_request_is_cut(monitored: Monitored) -> None:
    """A request beyond the bound is not kept in memory."""
    with monitored.connect() as connection, suppress(OSError):
        for _ in range(1000):
            connection.sendall(b"x" * 65536)
        pytest.fail("64 MB were taken")
    assert monitored.ask("/livez").status_code == 200


def test_headers_are_parsed() -> None:
    """Names in lower case; what is no header does not raise."""
    assert parse(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\nnonsense\r\n\r\n") == (
        "GET",
        "/metrics",
        {"host": "x", "accept": "text/plain", "nonsense": "", "": ""},
    )


def test_a_taken_port_is_refused_by_name(monitored: Monitored) -> None:
    """The setting's name, and the system's words."""
    with pytest.raises(SettingsError, match=r"BIDDEN_METRICS_PORT.*in use") as found:
        endpoint.listen(HOST, monitored.port)
    assert (found.value.field, found.value.exit_code) == ("BIDDEN_METRICS_PORT", 2)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a b", "2001:db8::1", "\N{SNOWMAN}" * 70])
def test_a_host_that_is_not_here_is_refused_by_name(host: str) -> None:
    """An address of another machine, or no address at all."""
    with pytest.raises(SettingsError, match="BIDDEN_METRICS_HOST") as found:
        endpoint.listen(host, ports.choose({"monitors": None}, {})["monitors"])
    assert found.value.field == "BIDDEN_METRICS_HOST"
