"""What is sent to the site, too much of it and too slowly: it is answered in words, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from tests.integration.site import Site, open_site
from tests.integration.world import World
from web import body_limits, database
from web.auth import current_user, tokens
from web.body_limits import Limit
from web.pages import directory

FORM = "application/x-www-form-urlencoded"
#: For whatever must come: no test waits so long unless it fails.
PATIENCE = 20.0
#: Each with a form, or a body, that anybody may send.
OPEN = ["/sign-in", "/unsubscribe/x", "/invitation/x"]
#: Those that are read for the page's token.
SIGNED = ["/sign-out", "/account/password", "/events/1/invite", "/batches/1/retry", "/directory", "/clients/1/revoke"]
RESOLVE = "/api/v1/events/1/resolve"


@pytest.fixture
def site(world: World, database_url: str) -> Iterator[Site]:
    """A site with event 1."""
    world.build(students=[1])
    with open_site(database_url, world.conn) as site:
        yield site


class Sender:
    """Sends `chunks` of a body, and then keeps the rest of it."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.asked = 0
        self.waits = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        """As a server is asked for more."""
        self.asked += 1
        if self.chunks:
            return {"type": "http.request", "body": self.chunks.pop(0), "more_body": True}
        self.waits.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


async def ask(
    site: Site, method: str, path: str, receive: Callable[[], Awaitable[Any]], cookie: str = "", form: str = FORM
) -> tuple[int, dict[str, str], str]:
    """What the application answers: status, headers and text."""
    answer: dict[str, Any] = {"body": b""}

    async def send(message: Any) -> None:
        answer.update({**message, "body": answer["body"] + message.get("body", b"")})

    headers = {"host": "testserver", "content-type": form, "content-length": "1000000", "cookie": f"bidden={cookie}"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"}
    await site.app(
        {**scope, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw,
         "client": ("10.0.0.1", 1), "server": ("testserver", 80)},
        receive, send,
    )  # fmt: skip
    given = {name.decode().lower(): value.decode() for name, value in answer["headers"]}
    return answer["status"], given, answer["body"].decode()


def session(site: Site) -> str:
    """The cookie of an admin."""
    token = site.admin().token
    assert token is not None
    return token


@pytest.mark.parametrize("path", [*OPEN, "/sign-out"])
def test_too_large(site: Site, path: str) -> None:
    """A page says so, before the rest of it is read."""
    sender, cookie = Sender(*[b"x" * 40_000] * 1500), session(site)
    status, _, text = asyncio.run(ask(site, "POST", path, sender, cookie))
    assert (status, "What was sent is too large: 65,536 bytes are taken here at most." in text) == (413, True)
    assert sender.asked == 2


def test_as_large_as_may_be(site: Site) -> None:
    """A form of the usual limit is read."""
    answer = site.browser().client.post("/sign-in", content=b"password=".ljust(body_limits.USUAL.size, b"x"))
    assert answer.status_code == 403
    answer = site.browser().client.post("/unsubscribe/x", content=b"again=".ljust(body_limits.USUAL.size, b"x"))
    assert answer.status_code == 404


def test_too_slow(world: World, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops in the middle is told so, on pages and by the API, and the connection is ended."""
    monkeypatch.setattr(body_limits, "USUAL", Limit(65_536, 0.01))
    monkeypatch.setattr(directory, "UPLOAD", Limit(directory.LARGEST, 0.01))
    world.build(students=[1])
    with open_site(database_url, world.conn) as site:
        cookie = session(site)
        for path in (*OPEN, *SIGNED):
            status, headers, text = asyncio.run(ask(site, "POST", path, Sender(b"a=b"), cookie))
            assert (path, status, headers["connection"]) == (path, 408, "close")
            assert "What was sent took too long to arrive." in text
        status, headers, text = asyncio.run(ask(site, "POST", RESOLVE, Sender(b"{"), form="application/json"))
        assert (status, json.loads(text)["status"], headers["connection"]) == (408, 408, "close")


def test_an_upload_has_longer(site: Site) -> None:
    """The directory's file has limits of its own."""
    assert directory.UPLOAD.seconds > body_limits.USUAL.seconds

    async def upload() -> None:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        sender, cookie = Sender(head, *[b"x" * 40_000] * 10), session(site)
        form = "multipart/form-data; boundary=x"
        asking = asyncio.create_task(ask(site, "POST", "/directory", sender, cookie, form=form))
        with anyio.fail_after(PATIENCE):
            await sender.waits.wait()
        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(upload())


@pytest.mark.parametrize("path", SIGNED)
def test_a_body_that_does_not_come_holds_nothing(site: Site, path: str) -> None:
    """More of them than there are connections to the database, and everybody else is answered."""

    async def hold() -> None:
        cookie = session(site)
        senders = [Sender() for _ in range(site.app.state.pool.max_size + 2)]
        asking = [asyncio.create_task(ask(site, "POST", path, sender, cookie)) for sender in senders]
        with anyio.fail_after(PATIENCE):
            for sender in senders:
                await sender.waits.wait()
        assert (await ask(site, "GET", "/healthz", Sender(b"")))[0] == 200
        assert not any(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)

    asyncio.run(hold())


def _in_order(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield from _in_order(dependency)
        yield dependency.call


def test_no_route_holds_a_connection_before_the_token_is_read(site: Site) -> None:
    """Who asks comes first among the parameters of every route that needs both."""
    seen = 0
    for context in iter_route_contexts(site.app.routes):
        dependant = getattr(context.original_route, "dependant", None)
        calls = [] if dependant is None else list(_in_order(dependant))
        if current_user.signed_in in calls and database.connection in calls:
            seen += 1
            assert calls.index(current_user.signed_in) < calls.index(database.connection), context.path
    assert seen > 20


def test_a_body_of_a_stranger_is_not_read(site: Site) -> None:
    """Without a session nothing is read for the page's token, and an upload not at all."""
    for path in (SIGNED[0], "/directory"):
        sender = Sender()
        status, headers, _ = asyncio.run(ask(site, "POST", path, sender, tokens.new_token()))
        assert (status, headers["location"], sender.asked) == (303, "/sign-in", 0)
