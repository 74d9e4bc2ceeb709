"""The site below a path of its host (https://example.org/club), behind a proxy that strips it or not; HEAD."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from schemas.outcomes import Failed, Sent
from tests.integration.scenario import Scenario
from tests.integration.site import PASSWORD, Site, open_site
from web.base_path import at_base, outgoing, template_with_prefix
from web.pages.rendering import FOLDER

_ADDRESS: Final = re.compile(r'\s(?:href|action|src|formaction|hx-get|hx-post|sse-connect|data-[\w-]+)="(/[^"]*)"')
_FOLLOWED: Final = re.compile(r'\s(?:href|src|hx-get)="(/[^"]*)"')


class Proxy:
    """Forwards what is below the path, with the path or without it; keeps cookies as a browser does."""

    def __init__(self, client: TestClient, path: str, *, strips: bool) -> None:
        self._client = client
        self._path = path
        self._strips = strips
        self.cookies: dict[str, str] = {}

    def request(self, method: str, path: str, **options: Any) -> Response:
        assert path == self._path or path.startswith(f"{self._path}/"), f"not below the path: {path}"
        inner = path[len(self._path) :] or "/" if self._strips else path
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self._client.request(method, inner, headers={"Cookie": cookies} if cookies else {}, **options)
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, rest = cookie.partition("=")
            assert f"path={self._path};" in f"{rest.lower()};", cookie
            self.cookies[name] = rest.partition(";")[0]
        self._client.cookies.clear()
        if "location" in answer.headers:
            assert answer.headers["location"].startswith(f"{self._path}/"), answer.headers["location"]
        for address in _ADDRESS.findall(answer.text if "html" in answer.headers.get("content-type", "") else ""):
            assert address.startswith(f"{self._path}/"), (path, address)
        return answer


@pytest.fixture(params=["/club/a", "/events"])
def path(request: pytest.FixtureRequest) -> str:
    """Of the base URL; one begins like a page of the site."""
    return str(request.param)


@pytest.fixture
def site(scenario: Scenario, database_url: str, path: str) -> Iterator[Site]:
    """With an event, and a batch that has ended."""
    scenario.build(students=[1, 2])
    batch, agent = scenario.plan(), scenario.agent()
    agent.deliver(scenario.request(batch, 1), Sent("250"))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    with open_site(database_url, scenario.conn, base_url=f"http://testserver{path}") as site:
        yield site


@pytest.mark.parametrize("strips", [True, False])
def test_a_walk_through_the_site(site: Site, path: str, strips: bool) -> None:
    """Sign-in, every page that is linked, static files, fragments, redirects: all below the path."""
    site.account("ada@bidden.example", "admin", password=PASSWORD)
    proxy = Proxy(site.browser().client, path, strips=strips)
    answer = proxy.request("GET", f"{path}/batches?q=1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}/sign-in?next=%2Fbatches%3Fq%3D1")
    assert proxy.request("GET", answer.headers["location"]).status_code == 200
    form = {"email": "ada@bidden.example", "password": PASSWORD, "next": "/batches?q=1"}
    answer = proxy.request("POST", f"{path}/sign-in", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}/batches?q=1")
    seen, ahead = set[str](), [f"{path}/", f"{path}/events", f"{path}/members/1"]
    while ahead:
        address = unescape(ahead.pop())
        kind = re.sub(r"\d+|[?].*", "", address)
        # Of pages alike one is enough; those that ask Kafka have tests of their own.
        if kind in seen or re.search(r"/(system|letters)", address):
            continue
        seen.add(kind)
        answer = proxy.request("GET", address)
        assert answer.status_code in (200, 303), (address, answer.status_code)
        ahead += _FOLLOWED.findall(answer.text)
        ahead += [answer.headers["location"]] if answer.status_code == 303 else []
    assert {f"{path}/static/site.css", f"{path}/static/site.js", f"{path}/events/", f"{path}/batches/"} <= seen
    assert len(seen) > 20


def test_a_session_that_ended_leads_back(site: Site, path: str) -> None:
    """From a form and a fragment to the page that they are on, which the browser names with the path; also after it."""
    site.account("ada@bidden.example", "admin", password=PASSWORD)
    client = site.browser().client
    page = f"http://testserver{path}/batches/1?status=failed"
    sign_in = f"{path}/sign-in?next=%2Fbatches%2F1%3Fstatus%3Dfailed"
    answer = client.post(f"{path}/batches/1/retry", headers={"referer": page})
    assert answer.headers["location"] == sign_in
    answer = client.get(f"{path}/letters/waiting", headers={"hx-request": "true", "hx-current-url": page})
    assert answer.headers["hx-redirect"] == sign_in
    for elsewhere in ("http://testserver/batches/1", "http://other.example/club/a/x", ""):
        answer = client.post(f"{path}/batches/1/retry", headers={"referer": elsewhere})
        assert answer.headers["location"] == f"{path}/sign-in"
    form = {"email": "ada@bidden.example", "password": PASSWORD, "next": "/batches/1?status=failed"}
    answer = client.post(f"{path}/sign-in", data=form)
    assert answer.headers["location"] == f"{path}/batches/1?status=failed"
    shown = client.get(f"{path}/batches/1").text
    for address in ("/letters/waiting", "/batches/1/entries", "/batches/1"):
        assert re.search(rf'(hx-get|data-address)="{path}{address}', shown), address


@pytest.mark.parametrize("strips", [True, False])
def test_links_in_mails(site: Site, scenario: Scenario, path: str, strips: bool) -> None:
    """An answer, and leaving a list: stored, and the page after it is found."""
    proxy = Proxy(site.browser().client, path, strips=strips)
    token = scenario.execute("SELECT token FROM invitations ORDER BY member_id LIMIT 1")[0]["token"]
    for page, form in (("invitation", {"answer": "yes"}), ("unsubscribe", {})):
        answer = proxy.request("POST", f"{path}/{page}/{token}", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{path}/{page}/{token}")
        assert proxy.request("GET", answer.headers["location"]).status_code == 200
    assert proxy.request("GET", f"{path}/healthz").text == "ok\n"
    assert proxy.request("GET", f"{path}/api/v1/openapi.json").json()["servers"] == [{"url": f"{path}/api/v1"}]
    # Below /events anything may be the ref of an event, which a visitor is asked to sign in for.
    status = 303 if path == "/events" and not strips else 404
    assert proxy.request("GET", f"{path}/nothing/here").status_code == status


def test_a_slash_too_many(site: Site, path: str) -> None:
    """The redirect to the page without it names neither this host nor another."""
    proxy = Proxy(site.browser().client, path, strips=True)
    answer = proxy.request("GET", f"{path}/batches/")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{path}/batches")


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("/events?x=1", "/club/events?x=1"),
        ("https://provider.example/authorize?x=/events", "https://provider.example/authorize?x=/events"),
        ("http://here/events?x=1", "/club/events?x=1"),
        ("//evil.example/x", "//evil.example/x"),
        ("http://here", "/club/"),
    ],
)
def test_addresses_in_headers(address: str, sent: str) -> None:
    """Those of the site get the prefix, others stay."""
    assert outgoing(address, "/club", "here") == sent


def test_addresses_in_templates() -> None:
    """Literal and computed ones get the prefix, in each attribute that holds an address; nothing else changes."""
    source = '<a class="x" href="/a/{{ b }}">/c</a><form action="{{ address }}?x"><img src="//cdn"><a href="#x">'
    assert template_with_prefix(source) == (
        '<a class="x" href="{{ base_path() }}/a/{{ b }}">/c</a><form action="{{ (address) | at_base }}?x">'
        '<img src="//cdn"><a href="#x">'
    )
    assert [at_base(value) for value in (None, "#x", "//x", 3)] == [None, "#x", "//x", 3]


def test_scripts_know_no_addresses() -> None:
    """They take them from the page."""
    assert not re.search(r"""["'`]/[a-z]""", (FOLDER / "static/site.js").read_text(encoding="utf-8"))


def test_head_is_answered_as_get(scenario: Scenario, database_url: str) -> None:
    """By pages, links in mails, static files, streams, the API and errors: the same status and headers, no body."""
    scenario.build(students=[1])
    scenario.plan()
    token = scenario.execute("SELECT token FROM invitations")[0]["token"]
    with open_site(database_url, scenario.conn) as site:
        _compare(site.browser().client, token)
        olga = site.browser(site.account("olga@bidden.example", "admin"))
        # A stream that would go on for as long as the batch.
        assert olga.client.head("/batches/1/live").content == b""


def _compare(client: TestClient, token: str) -> None:
    for address in (
        "/healthz", "/sign-in", f"/invitation/{token}", "/static/site.css", "/events", "/api/v1/events",
        "/api/v1/openapi.json", "/nothing",
    ):  # fmt: skip
        head, get = client.head(address), client.get(address)
        assert (head.status_code, head.content, head.headers) == (get.status_code, b"", get.headers), address
