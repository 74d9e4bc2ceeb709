"""Webhooks: a real receiver is notified of a batch's end, signed, retried until accepted, and then not again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import anyio
import psycopg
import pytest
import trustme
from psycopg.sql import SQL, Identifier

from db import accounts, site_queries, webhooks
from db.connect import Connection
from embedded import ports
from producers import batch_control
from schemas.outcomes import Failed
from tests.acceptance.processes import eventually
from tests.integration.calling import Program, organisers
from tests.integration.importing import CHAPTER, EVENT, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Site, open_site
from web import webhooks as web_hooks
from web.api import batches, models
from web.database import Pool, make_pool
from web.scope import BatchWithEvent
from web.webhooks import MAX_ATTEMPTS, WebhookDispatcher, retry_delay, sign


class Receiver:
    """A client's web server: the requests it received, and the status that it answers with."""

    def __init__(self, port: int) -> None:
        self.status = 204
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """No log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        """While it lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.fixture
def port() -> int:
    """The receiver's port."""
    return ports.choose({"receiver": None}, {})["receiver"]


@pytest.fixture
def receiver(port: int) -> Iterator[Receiver]:
    """A running receiver."""
    with Receiver(port).running() as receiver:
        yield receiver


@pytest.fixture
def site(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Two students; the application's own dispatcher does nothing."""
    scenario.build(students=[1, 2])
    monkeypatch.setattr(WebhookDispatcher, "run", lambda _, stop: stop.wait())
    with open_site(database_url, scenario.conn) as site:
        yield site


@pytest.fixture
def planner(site: Site, port: int) -> Program:
    """A client with a webhook."""
    return organisers(site, 1, webhook_url=f"http://127.0.0.1:{port}/hook")


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """Like the application's."""
    with make_pool(database_url) as pool:
        yield pool


@pytest.fixture
def dispatcher(pool: Pool) -> WebhookDispatcher:
    """One that the test runs."""
    return WebhookDispatcher(pool, now=lambda: 1_800_000_000.5, jitter=lambda: 0.5, allow_private=True)


def end(scenario: Scenario, batch: int) -> None:
    """Every delivery of the batch has its outcome."""
    agent = scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550 no"))


def due_again(scenario: Scenario) -> None:
    """Time passes."""
    scenario.execute("UPDATE batch_webhooks SET due_at = now() WHERE due_at IS NOT NULL RETURNING batch_id")


def numbers(receiver: Receiver) -> list[int]:
    """The batches of the ids that it has received."""
    ids = [re.fullmatch(r"batch-(\d+)-[0-9a-f]{1,15}", headers["webhook-id"]) for headers, _ in receiver.received]
    return [int(found[1]) for found in ids if found]


def status(planner: Program, batch: int = 1) -> dict[str, Any]:
    """The status that the client can query."""
    found: dict[str, Any] = planner.get(f"/batches/{batch}/webhook")
    return found


def test_notified_once(planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver) -> None:
    """Not before the end; then once, with the numbers, and a signature that verifies."""
    planner.invite()
    assert dispatcher.send_due() == 0
    assert status(planner)["state"] == "waiting"
    end(scenario, 1)
    assert [dispatcher.send_due(), dispatcher.send_due()] == [1, 0]
    ((headers, body),) = receiver.received
    payload = json.loads(body)
    assert (payload["type"], payload["data"]) == ("batch.ended", planner.get("/batches/1"))
    assert (payload["data"]["state"], payload["data"]["sent"], payload["data"]["failed"]) == ("completed", 1, 1)
    assert (numbers(receiver), headers["webhook-timestamp"]) == ([1], "1800000000")
    assert planner.webhook_secret is not None
    secret = base64.b64decode(planner.webhook_secret.removeprefix("whsec_"))
    signature = hmac.new(secret, f"{headers['webhook-id']}.1800000000.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signature).decode()}"
    assert headers["content-type"] == "application/json"
    found = status(planner)
    assert (found["state"], found["attempts"], found["due_at"], found["last_error"]) == ("delivered", 1, None, None)


def test_an_id_is_never_used_again(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver
) -> None:
    """After the restore of a backup numbers come again; a receiver must not drop what it has not seen."""
    for key in ("before", "after"):
        planner.invite(key=key)
        batch_control.cancel(scenario.conn, 1)
        assert dispatcher.send_due() == 1
        for table in ("batch_webhooks", "batch_items", "log_entries", "deliveries", "batches"):
            scenario.conn.execute(SQL("DELETE FROM {}").format(Identifier(table)))
        scenario.execute("ALTER TABLE batches ALTER COLUMN id RESTART")
    assert numbers(receiver) == [1, 1]
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 2


def test_a_known_signature() -> None:
    """The example of the specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_cancelled_batch(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver
) -> None:
    """It has ended once the deliveries in flight have outcomes. A paused batch has not."""
    planner.invite()
    agent = scenario.agent()
    request = scenario.request(1, 1)
    claim = agent.claim(request)
    planner.post("/batches/1/pause")
    assert dispatcher.send_due() == 0
    planner.post("/batches/1/cancel")
    assert dispatcher.send_due() == 0
    agent.record(request, claim, Failed("550 no"))
    assert dispatcher.send_due() == 1
    data = json.loads(receiver.received[0][1])["data"]
    assert (data["state"], data["failed"], data["skipped"], data["pending"]) == ("cancelled", 1, 1, 0)


def test_a_receiver_that_fails(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver
) -> None:
    """Retried after 500 and after a redirect, which is not followed; with the same id."""
    planner.invite()
    end(scenario, 1)
    for attempt, code in enumerate((500, 302, 410), start=1):
        receiver.status = code
        assert [dispatcher.send_due(), dispatcher.send_due()] == [1, 0]
        found = status(planner)
        assert (found["state"], found["attempts"]) == ("retrying", attempt)
        assert found["last_error"] == f"answered {code}"
        due_again(scenario)
    receiver.status = 200
    assert dispatcher.send_due() == 1
    assert status(planner)["state"] == "delivered"
    assert numbers(receiver) == [1] * 4
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1


def test_an_unreachable_receiver(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, port: int
) -> None:
    """Retried until it is back."""
    planner.invite()
    end(scenario, 1)
    assert dispatcher.send_due() == 1
    assert status(planner)["last_error"].startswith("not reached: ConnectError")
    with Receiver(port).running() as receiver:
        due_again(scenario)
        assert dispatcher.send_due() == 1
    assert len(receiver.received) == 1
    assert status(planner)["state"] == "delivered"


def test_given_up(planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver) -> None:
    """After the last attempt nothing is sent any more, and the status says why."""
    receiver.status = 503
    planner.invite()
    end(scenario, 1)
    scenario.execute("UPDATE batch_webhooks SET attempts = %s RETURNING batch_id", MAX_ATTEMPTS - 1)
    assert dispatcher.send_due() == 1
    due_again(scenario)
    assert dispatcher.send_due() == 0
    found = status(planner)
    assert (found["state"], found["due_at"], found["last_error"]) == ("given up", None, "answered 503")
    assert len(receiver.received) == 1


def test_several_dispatchers(planner: Program, scenario: Scenario, pool: Pool, receiver: Receiver) -> None:
    """Each notification is sent by one of them."""
    for number in range(6):
        planner.invite(key=f"k{number}")
        batch_control.cancel(scenario.conn, number + 1)
    start = threading.Barrier(3)

    def dispatch() -> None:
        start.wait()
        WebhookDispatcher(pool, allow_private=True).send_due()

    threads = [threading.Thread(target=dispatch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(receiver)) == list(range(1, 7))


def test_reopened(planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver) -> None:
    """A batch that ends a second time after a retry is not notified again."""
    planner.invite()
    end(scenario, 1)
    assert dispatcher.send_due() == 1
    assert planner.post("/batches/1/retry") == {"deliveries": 1}
    batch_control.cancel(scenario.conn, 1)
    due_again(scenario)
    assert dispatcher.send_due() == 0
    assert len(receiver.received) == 1


def test_clients_without_access_any_more(
    planner: Program, site: Site, scenario: Scenario, dispatcher: WebhookDispatcher
) -> None:
    """A client that was revoked, or whose account lost the chapter, is not notified."""
    scenario.load(member(9, accepted_toc_at=TERMS_ACCEPTED), subscription(9, 2))
    for key, audience in (("a", "students"), ("b", "coaches")):
        planner.invite(audience=audience, key=key)
    end(scenario, 1)
    scenario.agent().deliver(scenario.request(2, 9, "Coach"))
    scenario.execute("DELETE FROM account_chapters RETURNING account_id")
    assert dispatcher.send_due() == 2
    accounts.revoke_client(site.conn, planner.id)
    scenario.execute("UPDATE batch_webhooks SET due_at = now() WHERE batch_id = 2 RETURNING batch_id")
    assert dispatcher.send_due() == 1
    rows = scenario.execute("SELECT due_at, last_error FROM batch_webhooks ORDER BY batch_id")
    assert rows == [
        {"due_at": None, "last_error": "the account may not see this event any more"},
        {"due_at": None, "last_error": "the client was revoked"},
    ]


def test_no_member_of_another_chapter_is_disclosed(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, receiver: Receiver
) -> None:
    """If the event has moved to another chapter, its client does not get an address that a mail server quoted."""
    planner.invite()
    agent = scenario.agent()
    agent.deliver(scenario.request(1, 1), Failed("550 <m1@example.org> unknown"))
    agent.deliver(scenario.request(1, 2))
    scenario.load(CHAPTER | {"id": 2, "name": "Berlin"}, EVENT | {"chapter_ids": [2]})
    scenario.execute("UPDATE account_chapters SET chapter_id = 2")
    assert dispatcher.send_due() == 1
    ((_, body),) = receiver.received
    assert (json.loads(body)["data"]["failed"], json.loads(body)["data"]["error"]) == (1, None)
    assert b"m1@" not in body


def test_stopped(
    planner: Program, scenario: Scenario, pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests in flight are finished, and no more are claimed."""
    monkeypatch.setattr(web_hooks, "_CLAIM_LIMIT", 2)
    for number in range(3):
        planner.invite(key=f"k{number}")
        batch_control.cancel(scenario.conn, number + 1)
    stop = threading.Event()

    def now() -> float:
        stop.set()
        return 1_800_000_000.5

    assert WebhookDispatcher(pool, now, allow_private=True).send_due(stop) == 2
    assert [status(planner, number)["state"] for number in (1, 2, 3)] == ["delivered", "delivered", "waiting"]
    assert len(receiver.received) == 2
    assert WebhookDispatcher(pool, now, allow_private=True).send_due(stop) == 0


def test_a_shutdown_that_does_not_wait(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application ends even if the thread does not."""
    may_go_on = threading.Event()
    monkeypatch.setattr(WebhookDispatcher, "run", lambda *_: may_go_on.wait(30))
    monkeypatch.setattr(web_hooks, "_SHUTDOWN_SECONDS", 0.01)

    async def begin_and_end() -> None:
        async with web_hooks.run_dispatcher(pool, allow_private=True):
            pass

    try:
        anyio.run(begin_and_end)
        assert any(thread.name == "webhooks" for thread in threading.enumerate()), "it waited for the thread"
    finally:
        may_go_on.set()


def test_an_outage_is_no_fault_of_a_row(
    planner: Program, scenario: Scenario, dispatcher: WebhookDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher waits for the database: no failure is recorded."""
    planner.invite()
    batch_control.cancel(scenario.conn, 1)

    def batch_model(*_: object) -> None:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr("web.webhooks.batch_model", batch_model)
    with pytest.raises(psycopg.OperationalError):
        dispatcher.send_due()
    assert status(planner, 1)["last_error"] is None


@pytest.mark.parametrize("error", [KeyError, psycopg.DataError])
def test_a_request_that_cannot_be_built(
    planner: Program,
    scenario: Scenario,
    dispatcher: WebhookDispatcher,
    receiver: Receiver,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are sent, and it is retried."""
    for key in ("a", "b"):
        planner.invite(key=key)
    for batch in (1, 2):
        batch_control.cancel(scenario.conn, batch)

    def batch_model(conn: Connection, batch: BatchWithEvent, scope: site_queries.Scope) -> models.Batch:
        if batch.id == 1:
            raise error("what")
        return batches.batch_model(conn, batch, scope)

    with monkeypatch.context() as patch:
        patch.setattr("web.webhooks.batch_model", batch_model)
        assert dispatcher.send_due() == 2
    assert numbers(receiver) == [2]
    assert status(planner, 1)["last_error"] == f"not built: {error.__name__}"
    due_again(scenario)
    assert dispatcher.send_due() == 1
    assert status(planner, 1)["state"] == "delivered"


def test_a_result_that_cannot_be_recorded(
    planner: Program,
    scenario: Scenario,
    dispatcher: WebhookDispatcher,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is sent again; the others of the round are not."""
    for key in ("a", "b"):
        planner.invite(key=key)
    for batch in (1, 2):
        batch_control.cancel(scenario.conn, batch)

    def record_delivery(conn: Connection, batch_id: int) -> None:
        if batch_id == 1:
            raise psycopg.DataError("what")
        webhooks.record_delivery(conn, batch_id)

    with monkeypatch.context() as patch:
        patch.setattr(web_hooks, "webhooks", SimpleNamespace(**{**vars(webhooks), "record_delivery": record_delivery}))
        assert dispatcher.send_due() == 2
    assert [status(planner, batch)["state"] for batch in (1, 2)] == ["retrying", "delivered"]
    due_again(scenario)
    assert dispatcher.send_due() == 1
    assert status(planner, 1)["state"] == "delivered"
    assert sorted(numbers(receiver)) == [1, 1, 2]


def test_without_a_webhook(site: Site, scenario: Scenario) -> None:
    """A client without a webhook is not notified."""
    other = organisers(site, 1)
    other.invite()
    assert other.call("GET", "/batches/1/webhook").status_code == 404
    assert scenario.execute("SELECT batch_id FROM batch_webhooks") == []


def test_the_same_key_requests_one_notification(planner: Program, scenario: Scenario) -> None:
    """FM-31: a repeat of the trigger adds nothing."""
    planner.invite()
    assert planner.invite(status=200)["already_triggered"]
    assert len(scenario.execute("SELECT batch_id FROM batch_webhooks")) == 1


def test_a_refused_plan_requests_nothing(planner: Program, scenario: Scenario) -> None:
    """The notification is requested in the transaction that plans the batch."""
    scenario.execute("UPDATE events SET cancelled_at = now() RETURNING id")
    planner.invite(status=409)
    assert scenario.execute("SELECT batch_id FROM batch_webhooks") == []


def test_the_application_runs_a_dispatcher(
    database_url: str, scenario: Scenario, port: int, receiver: Receiver
) -> None:
    """It sends what is due, and stops with the application."""
    scenario.build(students=[1, 2])
    with open_site(database_url, scenario.conn, webhook_allow_private=True) as site:
        planner = organisers(site, 1, webhook_url=f"http://127.0.0.1:{port}/hook")
        planner.invite()
        end(scenario, 1)
        eventually(lambda: status(planner)["state"] == "delivered", "the receiver was notified")
    assert len(receiver.received) == 1


def test_retry_delays() -> None:
    """From ten seconds to six hours, about three days in all, spread, and then never."""
    delays = [retry_delay(attempts, 0.5) for attempts in range(1, MAX_ATTEMPTS)]
    assert delays[:3] == [10.0, 30.0, 90.0]
    assert delays[-1] == 6 * 3600.0
    total = sum(delay for delay in delays if delay is not None)
    assert 2.5 * 86_400 < total < 3.5 * 86_400
    assert retry_delay(MAX_ATTEMPTS, 0.5) is None
    low, high = retry_delay(1, 0.0), retry_delay(1, 1.0)
    assert low is not None
    assert high is not None
    assert low < 10.0 < high


def resolving(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """From now on these names have these addresses; returns the names that are looked up."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, port, *arguments, **options)
        asked.append(host)
        return [found for address in answers[host] for found in real(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def webhook_row(scenario: Scenario) -> dict[str, Any]:
    """The one notification."""
    (row,) = scenario.execute("SELECT delivered_at IS NOT NULL AS delivered, last_error FROM batch_webhooks")
    return row


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
def test_a_name_inside_the_network(
    site: Site, scenario: Scenario, pool: Pool, receiver: Receiver, port: int, monkeypatch: pytest.MonkeyPatch,
    addresses: list[str],
) -> None:  # fmt: skip
    """Not called where any address of the name is none of the internet; the error names the setting."""
    resolving(monkeypatch, {"hooks.example": addresses})
    planner = organisers(site, 1, webhook_url=f"https://hooks.example:{port}/hook")
    end(scenario, planner.invite()["batch_id"])
    assert WebhookDispatcher(pool).send_due() == 1
    row = webhook_row(scenario)
    assert (row["delivered"], receiver.received) == (False, [])
    assert row["last_error"].startswith("not called: ")
    assert "BIDDEN_WEBHOOK_ALLOW_PRIVATE" in row["last_error"]


def test_the_checked_address_is_called(
    site: Site, scenario: Scenario, pool: Pool, receiver: Receiver, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look-up, no second that could answer otherwise; TLS by the host's name; the next address if one is away."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(context)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    receiver._server.socket = context.wrap_socket(receiver._server.socket, server_side=True)
    asked = resolving(monkeypatch, {"hooks.example": ["127.0.0.2", "127.0.0.1"], "other.example": ["127.0.0.1"]})
    planner = organisers(site, 1, webhook_url=f"https://hooks.example:{port}/hook")
    end(scenario, planner.invite()["batch_id"])
    dispatcher = WebhookDispatcher(pool, allow_private=True)
    authority.configure_trust(dispatcher._tls)
    assert dispatcher.send_due() == 1
    assert webhook_row(scenario) == {"delivered": True, "last_error": None}
    assert (asked, names) == (["hooks.example"], ["hooks.example"])
    assert [headers["host"] for headers, _ in receiver.received] == [f"hooks.example:{port}"]
    # The same server under a name that its certificate does not have.
    scenario.execute("UPDATE batch_webhooks SET due_at = now(), delivered_at = NULL")
    scenario.execute("UPDATE api_clients SET webhook_url = replace(webhook_url, 'hooks', 'other')")
    assert dispatcher.send_due() == 1
    assert "certificate verify failed" in webhook_row(scenario)["last_error"]
