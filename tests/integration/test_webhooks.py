"""Webhooks: told of a batch's end to a real receiver, signed, again until it has arrived, and not more often."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import anyio
import psycopg
import pytest

from db import accounts, site_queries, webhooks
from db.connect import Connection
from embedded import ports
from producers import batch_control
from schemas.outcomes import Failed
from tests.acceptance.processes import eventually
from tests.integration.calling import Program, organisers
from tests.integration.importing import CHAPTER, EVENT
from tests.integration.site import Site, open_site
from tests.integration.world import World
from web import webhooks as web_hooks
from web.api import batches, models
from web.auth.current_user import OwnedBatch
from web.database import Pool, make_pool
from web.webhooks import ATTEMPTS, WebhookDispatcher, pause_after, sign


class Receiver:
    """A program's own web server: what came, and what it answers from now on."""

    def __init__(self, port: int) -> None:
        self.answer = 204
        self.came: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answer)
                self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

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
    """Where the receiver is, or is not."""
    return ports.choose({"receiver": None}, {})["receiver"]


@pytest.fixture
def receiver(port: int) -> Iterator[Receiver]:
    """A receiver that is there."""
    with Receiver(port).running() as receiver:
        yield receiver


@pytest.fixture
def site(world: World, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Two students; nobody tells anything but the test."""
    world.build(students=[1, 2])
    monkeypatch.setattr(WebhookDispatcher, "run", lambda _, stop: stop.wait())
    with open_site(database_url, world.conn) as site:
        yield site


@pytest.fixture
def planner(site: Site, port: int) -> Program:
    """A client with a webhook."""
    return organisers(site, 1, webhook_url=f"http://127.0.0.1:{port}/hook")


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """As the application's."""
    with make_pool(database_url) as pool:
        yield pool


@pytest.fixture
def teller(pool: Pool) -> WebhookDispatcher:
    """One that tells when it is told to."""
    return WebhookDispatcher(pool, now=lambda: 1_800_000_000.5, chance=lambda: 0.5)


def end(world: World, batch: int) -> None:
    """Every mail of the batch has its outcome."""
    agent = world.agent()
    agent.deliver(world.wanted(batch, 1))
    agent.deliver(world.wanted(batch, 2), Failed("550 no"))


def due_again(world: World) -> None:
    """Time passes."""
    world.execute("UPDATE batch_webhooks SET due_at = now() WHERE due_at IS NOT NULL RETURNING batch_id")


def telling(planner: Program, batch: int = 1) -> dict[str, Any]:
    """How far it has come, as the client can ask."""
    found: dict[str, Any] = planner.get(f"/batches/{batch}/webhook")
    return found


def test_told_once(planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver) -> None:
    """Not before the end; then once, with the numbers, signed so that the receiver can tell."""
    planner.invite()
    assert teller.tell() == 0
    assert telling(planner)["state"] == "waiting"
    end(world, 1)
    assert [teller.tell(), teller.tell()] == [1, 0]
    ((headers, body),) = receiver.came
    told = json.loads(body)
    assert (told["type"], told["data"]) == ("batch.ended", planner.get("/batches/1"))
    assert (told["data"]["state"], told["data"]["sent"], told["data"]["failed"]) == ("completed", 1, 1)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("batch-1", "1800000000")
    assert planner.webhook_secret is not None
    secret = base64.b64decode(planner.webhook_secret.removeprefix("whsec_"))
    signature = hmac.new(secret, b"batch-1.1800000000." + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signature).decode()}"
    assert headers["content-type"] == "application/json"
    found = telling(planner)
    assert (found["state"], found["attempts"], found["due_at"], found["last_error"]) == ("delivered", 1, None, None)


def test_a_known_signature() -> None:
    """The example of the specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_cancelled_batch(planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver) -> None:
    """Cancelled, it has ended once what was in flight has its outcome. A paused one has not."""
    planner.invite()
    agent = world.agent()
    wanted = world.wanted(1, 1)
    mark = agent.mark(wanted)
    planner.post("/batches/1/pause")
    assert teller.tell() == 0
    planner.post("/batches/1/cancel")
    assert teller.tell() == 0
    agent.record(wanted, mark, Failed("550 no"))
    assert teller.tell() == 1
    told = json.loads(receiver.came[0][1])["data"]
    assert (told["state"], told["failed"], told["skipped"], told["pending"]) == ("cancelled", 1, 1, 0)


def test_a_receiver_that_fails(planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver) -> None:
    """Told again after 500 and after a redirect, which is not followed; with the same id."""
    planner.invite()
    end(world, 1)
    for attempt, answer in enumerate((500, 302, 410), start=1):
        receiver.answer = answer
        assert [teller.tell(), teller.tell()] == [1, 0]
        found = telling(planner)
        assert (found["state"], found["attempts"]) == ("retrying", attempt)
        assert found["last_error"] == f"answered {answer}"
        due_again(world)
    receiver.answer = 200
    assert teller.tell() == 1
    assert telling(planner)["state"] == "delivered"
    assert [headers["webhook-id"] for headers, _ in receiver.came] == ["batch-1"] * 4


def test_a_receiver_that_is_away(planner: Program, world: World, teller: WebhookDispatcher, port: int) -> None:
    """Told when it is there again."""
    planner.invite()
    end(world, 1)
    assert teller.tell() == 1
    assert telling(planner)["last_error"].startswith("not reached: ConnectError")
    with Receiver(port).running() as receiver:
        due_again(world)
        assert teller.tell() == 1
    assert len(receiver.came) == 1
    assert telling(planner)["state"] == "delivered"


def test_given_up(planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver) -> None:
    """After the last attempt nothing is sent any more, and it can be seen why."""
    receiver.answer = 503
    planner.invite()
    end(world, 1)
    world.execute("UPDATE batch_webhooks SET attempts = %s RETURNING batch_id", ATTEMPTS - 1)
    assert teller.tell() == 1
    due_again(world)
    assert teller.tell() == 0
    found = telling(planner)
    assert (found["state"], found["due_at"], found["last_error"]) == ("given up", None, "answered 503")
    assert len(receiver.came) == 1


def test_two_tellers(planner: Program, world: World, pool: Pool, receiver: Receiver) -> None:
    """Whoever comes first tells; the other finds nothing to do."""
    for number in range(6):
        planner.invite(key=f"k{number}")
        batch_control.cancel(world.conn, number + 1)
    start = threading.Barrier(3)

    def tell() -> None:
        start.wait()
        WebhookDispatcher(pool).tell()

    threads = [threading.Thread(target=tell) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = sorted(headers["webhook-id"] for headers, _ in receiver.came)
    assert told == [f"batch-{number}" for number in range(1, 7)]


def test_reopened(planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver) -> None:
    """A batch that was told of and is retried is not told of a second time."""
    planner.invite()
    end(world, 1)
    assert teller.tell() == 1
    assert planner.post("/batches/1/retry") == {"deliveries": 1}
    batch_control.cancel(world.conn, 1)
    due_again(world)
    assert teller.tell() == 0
    assert len(receiver.came) == 1


def test_who_may_not_be_told_any_more(planner: Program, site: Site, world: World, teller: WebhookDispatcher) -> None:
    """A client that was revoked, or whose account lost the chapter, is told nothing."""
    for key, audience in (("a", "everyone"), ("b", "coaches")):
        planner.invite(audience=audience, key=key)
    end(world, 1)
    world.execute("DELETE FROM account_chapters RETURNING account_id")
    assert teller.tell() == 2
    accounts.revoke_client(site.conn, planner.id)
    world.execute("UPDATE batch_webhooks SET due_at = now() WHERE batch_id = 2 RETURNING batch_id")
    assert teller.tell() == 1
    rows = world.execute("SELECT due_at, last_error FROM batch_webhooks ORDER BY batch_id")
    assert rows == [
        {"due_at": None, "last_error": "the account may not see this event any more"},
        {"due_at": None, "last_error": "the client was revoked"},
    ]


def test_no_foreign_member_is_told_of(
    planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver
) -> None:
    """Of an event that another chapter has now, its client is not told whose address a mail server quoted."""
    planner.invite()
    agent = world.agent()
    agent.deliver(world.wanted(1, 1), Failed("550 <m1@example.org> unknown"))
    agent.deliver(world.wanted(1, 2))
    world.load(CHAPTER | {"id": 2, "name": "Berlin"}, EVENT | {"chapter_ids": [2]})
    world.execute("UPDATE account_chapters SET chapter_id = 2")
    assert teller.tell() == 1
    ((_, body),) = receiver.came
    assert (json.loads(body)["data"]["failed"], json.loads(body)["data"]["error"]) == (1, None)
    assert b"m1@" not in body


def test_told_to_stop(
    planner: Program, world: World, pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are due: what is under way is finished, and nothing more is claimed."""
    monkeypatch.setattr(web_hooks, "_AT_ONCE", 2)
    for number in range(3):
        planner.invite(key=f"k{number}")
        batch_control.cancel(world.conn, number + 1)
    stop = threading.Event()

    def now() -> float:
        stop.set()
        return 1_800_000_000.5

    assert WebhookDispatcher(pool, now).tell(stop) == 2
    assert [telling(planner, number)["state"] for number in (1, 2, 3)] == ["delivered", "delivered", "waiting"]
    assert len(receiver.came) == 2
    assert WebhookDispatcher(pool, now).tell(stop) == 0


def test_an_end_that_does_not_wait(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the thread up, the application ends."""
    may_go_on = threading.Event()
    monkeypatch.setattr(WebhookDispatcher, "run", lambda *_: may_go_on.wait(30))
    monkeypatch.setattr(web_hooks, "_LAST_SECONDS", 0.01)

    async def begin_and_end() -> None:
        async with web_hooks.telling(pool):
            pass

    try:
        anyio.run(begin_and_end)
        assert any(thread.name == "webhooks" for thread in threading.enumerate()), "it waited for the thread"
    finally:
        may_go_on.set()


def test_an_outage_is_no_fault_of_a_row(
    planner: Program, world: World, teller: WebhookDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the teller's to wait for: nothing is written down of the batch."""
    planner.invite()
    batch_control.cancel(world.conn, 1)

    def as_seen(*_: object) -> None:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr("web.webhooks.as_seen", as_seen)
    with pytest.raises(psycopg.OperationalError):
        teller.tell()
    assert telling(planner, 1)["last_error"] is None


@pytest.mark.parametrize("error", [KeyError, psycopg.DataError])
def test_what_cannot_be_made(
    planner: Program,
    world: World,
    teller: WebhookDispatcher,
    receiver: Receiver,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It keeps nobody else back, and is tried again."""
    for key in ("a", "b"):
        planner.invite(key=key)
    for batch in (1, 2):
        batch_control.cancel(world.conn, batch)

    def as_seen(conn: Connection, batch: OwnedBatch, chapters: site_queries.Scope) -> models.Batch:
        if batch.id == 1:
            raise error("what")
        return batches.as_seen(conn, batch, chapters)

    with monkeypatch.context() as patch:
        patch.setattr("web.webhooks.as_seen", as_seen)
        assert teller.tell() == 2
    assert [headers["webhook-id"] for headers, _ in receiver.came] == ["batch-2"]
    assert telling(planner, 1)["last_error"] == f"not made: {error.__name__}"
    due_again(world)
    assert teller.tell() == 1
    assert telling(planner, 1)["state"] == "delivered"


def test_what_cannot_be_written_down(
    planner: Program, world: World, teller: WebhookDispatcher, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again; the others of the round are not."""
    for key in ("a", "b"):
        planner.invite(key=key)
    for batch in (1, 2):
        batch_control.cancel(world.conn, batch)

    def delivered(conn: Connection, batch_id: int) -> None:
        if batch_id == 1:
            raise psycopg.DataError("what")
        webhooks.delivered(conn, batch_id)

    with monkeypatch.context() as patch:
        patch.setattr(web_hooks, "webhooks", SimpleNamespace(**{**vars(webhooks), "delivered": delivered}))
        assert teller.tell() == 2
    assert [telling(planner, batch)["state"] for batch in (1, 2)] == ["retrying", "delivered"]
    due_again(world)
    assert teller.tell() == 1
    assert telling(planner, 1)["state"] == "delivered"
    assert sorted(headers["webhook-id"] for headers, _ in receiver.came) == ["batch-1", "batch-1", "batch-2"]


def test_without_a_webhook(site: Site, world: World) -> None:
    """Nobody is told who did not ask for it."""
    other = organisers(site, 1)
    other.invite()
    assert other.call("GET", "/batches/1/webhook").status_code == 404
    assert world.execute("SELECT batch_id FROM batch_webhooks") == []


def test_the_same_key_asks_once(planner: Program, world: World) -> None:
    """FM-31: a repeat of the trigger adds nothing."""
    planner.invite()
    assert planner.invite(status=200)["already_triggered"]
    assert len(world.execute("SELECT batch_id FROM batch_webhooks")) == 1


def test_a_refused_plan_asks_for_nothing(planner: Program, world: World) -> None:
    """The request to be told is in the transaction that plans the batch."""
    world.execute("UPDATE events SET cancelled_at = now() RETURNING id")
    planner.invite(status=409)
    assert world.execute("SELECT batch_id FROM batch_webhooks") == []


def test_the_application_tells(database_url: str, world: World, port: int, receiver: Receiver) -> None:
    """A running application does it by itself, and ends when it is told to."""
    world.build(students=[1, 2])
    with open_site(database_url, world.conn) as site:
        planner = organisers(site, 1, webhook_url=f"http://127.0.0.1:{port}/hook")
        planner.invite()
        end(world, 1)
        eventually(lambda: telling(planner)["state"] == "delivered", "the receiver has it")
    assert len(receiver.came) == 1


def test_pauses() -> None:
    """From ten seconds to six hours, about three days in all, spread, and then never."""
    pauses = [pause_after(attempts, 0.5) for attempts in range(1, ATTEMPTS)]
    assert pauses[:3] == [10.0, 30.0, 90.0]
    assert pauses[-1] == 6 * 3600.0
    total = sum(pause for pause in pauses if pause is not None)
    assert 2.5 * 86_400 < total < 3.5 * 86_400
    assert pause_after(ATTEMPTS, 0.5) is None
    low, high = pause_after(1, 0.0), pause_after(1, 1.0)
    assert low is not None
    assert high is not None
    assert low < 10.0 < high
