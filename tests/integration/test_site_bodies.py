"""Request bodies that are too large or too slow: they get an error page, and block no other request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from tests.integration.calling import EVERYTHING, organisers
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site
from web import body_limits, database
from web.api import current_client
from web.auth import current_user, tokens
from web.body_limits import Limit
from web.pages import directory

FORM = "application/x-www-form-urlencoded"
#: Only a failing test waits that long.
TIMEOUT_SECONDS = 20.0
#: Public routes with a form.
OPEN = ["/sign-in", "/unsubscribe/x", "/invitation/x"]
#: Forms that are read for the CSRF token.
WITH_CSRF = [
    "/sign-out",
    "/account/password",
    "/events/1/invite",
    "/batches/1/retry",
    "/directory",
    "/clients/1/revoke",
]
RESOLVE = "/api/v1/events/1/resolve"


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """A site with event 1 and batch 1."""
    scenario.build(students=[1]).plan()
    with open_site(database_url, scenario.conn) as site:
        yield site


class Sender:
    """Sends `chunks` of a body, and never the rest."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.asked = 0
        self.waits = asyncio.Event()

    async def __call__(self) -> dict[str, Any]:
        """The ASGI `receive`."""
        self.asked += 1
        if self.chunks:
            return {"type": "http.request", "body": self.chunks.pop(0), "more_body": True}
        self.waits.set()
        await asyncio.Event().wait()
        raise AssertionError("never set")


async def ask(
    site: Site,
    method: str,
    path: str,
    receive: Callable[[], Awaitable[Any]],
    cookie: str = "",
    form: str = FORM,
    **more: str,
) -> tuple[int, dict[str, str], str]:
    """The response of the application: status, headers and text."""
    answer: dict[str, Any] = {"body": b""}

    async def send(message: Any) -> None:
        answer.update({**message, "body": answer["body"] + message.get("body", b"")})

    headers = {"host": "testserver", "content-type": form, "content-length": "1000000", "cookie": f"bidden={cookie}"}
    headers |= more
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
    """The session cookie of an admin."""
    token = site.admin().token
    assert token is not None
    return token


@pytest.mark.parametrize("path", [*OPEN, "/sign-out"])
def test_too_large(site: Site, path: str) -> None:
    """413, before the rest is read."""
    sender, cookie = Sender(*[b"x" * 40_000] * 1500), session(site)
    status, _, text = asyncio.run(ask(site, "POST", path, sender, cookie))
    assert (status, "The request is too large: at most 65,536 bytes are accepted here." in text) == (413, True)
    assert sender.asked == 2


def test_a_body_of_the_largest_size(site: Site) -> None:
    """A form of the default limit is read."""
    answer = site.browser().client.post("/sign-in", content=b"password=".ljust(body_limits.DEFAULT.size, b"x"))
    assert answer.status_code == 403
    answer = site.browser().client.post("/unsubscribe/x", content=b"again=".ljust(body_limits.DEFAULT.size, b"x"))
    assert answer.status_code == 404


def test_too_slow(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops in the middle gets 408 on pages and from the API, and the connection is closed."""
    monkeypatch.setattr(body_limits, "DEFAULT", Limit(65_536, 0.01))
    monkeypatch.setattr(directory, "UPLOAD_LIMIT", Limit(directory.MAX_BYTES, 0.01))
    scenario.build(students=[1]).plan()
    with open_site(database_url, scenario.conn) as site:
        cookie = session(site)
        for path in (*OPEN, *WITH_CSRF):
            status, headers, text = asyncio.run(ask(site, "POST", path, Sender(b"a=b"), cookie))
            assert (path, status, headers["connection"]) == (path, 408, "close")
            assert "The request took too long to arrive." in text
        token = {"authorization": f"Bearer {organisers(site, 1).token}"}
        status, headers, text = asyncio.run(ask(site, "POST", RESOLVE, Sender(b"{"), form="application/json", **token))
        assert (status, json.loads(text)["status"], headers["connection"]) == (408, 408, "close")


def test_an_upload_has_longer(site: Site) -> None:
    """The directory upload has limits of its own."""
    assert directory.UPLOAD_LIMIT.seconds > body_limits.DEFAULT.seconds

    async def upload() -> None:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        sender, cookie = Sender(head, *[b"x" * 40_000] * 10), session(site)
        form = "multipart/form-data; boundary=x"
        asking = asyncio.create_task(ask(site, "POST", "/directory", sender, cookie, form=form))
        with anyio.fail_after(TIMEOUT_SECONDS):
            await sender.waits.wait()
        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(upload())


@pytest.mark.parametrize("path", WITH_CSRF)
def test_a_stalled_body_holds_no_connection(site: Site, path: str) -> None:
    """With more stalled bodies than database connections, other requests are still served."""

    async def hold() -> None:
        cookie = session(site)
        senders = [Sender() for _ in range(site.app.state.pool.max_size + 2)]
        asking = [asyncio.create_task(ask(site, "POST", path, sender, cookie)) for sender in senders]
        with anyio.fail_after(TIMEOUT_SECONDS):
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
    """The user's dependency precedes the connection's in every route that has both."""
    seen = 0
    for context in iter_route_contexts(site.app.routes):
        dependant = getattr(context.original_route, "dependant", None)
        calls = [] if dependant is None else list(_in_order(dependant))
        if current_user.signed_in in calls and database.connection in calls:
            seen += 1
            assert calls.index(current_user.signed_in) < calls.index(database.connection), context.path
    assert seen > 20


def routes_with_rights(site: Any) -> list[tuple[str, str]]:
    """Method and path of every route of pages and API that changes something and asks for rights."""
    prefix, found = "/api/v1", []
    (api,) = [route.app for route in site.app.routes if getattr(route, "path", "") == prefix]
    for app, start in ((site.app, ""), (api, prefix)):
        context: Any
        for context in iter_route_contexts(app.routes):
            dependant = getattr(context.original_route, "dependant", None)
            calls = set() if dependant is None else set(_in_order(dependant))
            if {current_user.session_account, current_client.current_client} & calls:
                methods = context.original_route.methods - {"GET", "HEAD"}
                found += [(method, start + re.sub(r"{\w+(:path)?}", "1", context.path)) for method in methods]
    return found


def test_rights_are_asked_for_before_a_body_is_read(site: Site) -> None:
    """Of every route: not a byte of who has no session or token; of an organiser's, none of what is for admins."""
    organiser = site.organiser(1).token
    routes = routes_with_rights(site)
    assert {"/directory", "/batches/1/retry", "/clients", RESOLVE} <= {path for _, path in routes}
    for method, path in routes:
        sender = Sender(b"a=b")
        status, _, _ = asyncio.run(ask(site, method, path, sender, tokens.new_token()))
        assert (status, sender.asked) == (401 if path.startswith("/api/") else 303, 0), path
    for path in ("/directory", "/clients", "/clients/1/revoke", "/accounts", "/accounts/1/password"):
        sender = Sender(b"a=b")
        status, _, _ = asyncio.run(ask(site, "POST", path, sender, organiser or ""))
        assert (status, sender.asked) == (403, 0), path
    sender = Sender(b"a=b")
    assert asyncio.run(ask(site, "POST", "/events/999/invite", sender, organiser or ""))[0] == 404
    assert sender.asked == 0


def test_the_scope_of_a_token_is_asked_for_before_a_body_is_read(site: Site) -> None:
    """A client that may only read, and one that may not see the event."""
    for scopes, path, status in ((["read"], RESOLVE, 403), (EVERYTHING, RESOLVE.replace("/1/", "/999/"), 404)):
        program = organisers(site, 1, scopes=scopes)
        sender = Sender(b"{")
        headers = {"authorization": f"Bearer {program.token}"}
        assert asyncio.run(ask(site, "POST", path, sender, form="application/json", **headers))[0] == status
        assert sender.asked == 0
        site.conn.execute("DELETE FROM accounts")


def test_no_body_is_read_without_a_session(site: Site) -> None:
    """Neither a form, for its CSRF token, nor an upload."""
    for path in (WITH_CSRF[0], "/directory"):
        sender = Sender()
        status, headers, _ = asyncio.run(ask(site, "POST", path, sender, tokens.new_token()))
        assert (status, headers["location"], sender.asked) == (303, "/sign-in", 0)
