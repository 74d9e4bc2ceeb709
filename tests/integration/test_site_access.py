"""Who may do what on the site: every route there is, for everybody there is. A route without a row fails: default deny.

The API below /api has a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import pytest
from fastapi.routing import iter_route_contexts
from httpx2 import Response
from psycopg.sql import SQL, Identifier

from db.connect import Connection
from producers import batch_control
from schemas.outcomes import Failed, Sent, Unknown
from tests.integration.importing import CHAPTER, COACHES, EVENT, STUDENTS, invitation, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from web.auth.api_clients import create_client

#: Redirected to the sign-in page; forbidden; not found, because it is out of scope.
SIGN_IN, NO, HIDDEN = "sign in", 403, 404
#: Allowed, whatever the result: other tests check that.
IN = "let in"

#: The fields of a route's form, or of its query, besides the CSRF token.
FORMS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/events/{event}/invite"): {"audience": "everyone", "key": "k" * 36},
    ("GET", "/events/{event}/resolve"): {"verdict": "failed"},
    ("POST", "/events/{event}/resolve"): {"verdict": "failed"},
    ("POST", "/accounts"): {"email": "new@bidden.example", "name": "New", "role": "organiser", "how": "none"},
    ("POST", "/accounts/{account}"): {"name": "Zoë", "role": "organiser"},
    ("POST", "/clients"): {"name": "Calendar", "account": "1", "scope": "read"},
    ("POST", "/invitation/{token}"): {"answer": "yes"},
    ("POST", "/letters/confirm"): {"letter": "0:0", "do": "discard"},
    ("POST", "/letters/redrive"): {"letter": "0:0"},
    ("POST", "/letters/discard"): {"letter": "0:0"},
}
#: The values of path parameters. Event 1 and its batches belong to chapter 1.
PLACES: Final[dict[str, Any]] = {
    "event": 1, "batch": 1, "member": 7_351_001, "account": 1, "client": 1, "token": "token-of-1", "decision": "pause",
    "role": "Student", "partition": 0, "offset": 0, "named": "workshop/1",
}  # fmt: skip
#: Routes that need a batch that has ended, so that its stream ends, too.
OTHER_PLACES: Final[dict[str, dict[str, Any]]] = {"/batches/{batch}/live": {"batch": 2}}

#: For each route the result when not signed in, for an organiser of another chapter, of the chapter, and an admin.
TABLE: Final[dict[tuple[str, str], tuple[int | str, int | str, int | str, int | str]]] = {
    # Public.
    ("GET", "/healthz"): (200, 200, 200, 200),
    ("GET", "/sign-in"): (200, 200, 200, 200),
    ("POST", "/sign-in"): (NO, NO, NO, NO),  # with no password, that is
    ("GET", "/sign-in/provider"): (503, 503, 503, 503),  # the provider is away
    ("GET", "/sign-in/callback"): (NO, NO, NO, NO),  # from nowhere
    ("GET", "/password"): (200, 200, 200, 200),
    ("POST", "/password"): (200, 200, 200, 200),  # whoever asks, and whether or not there is an account
    # By the link in a mail, which none of them has.
    ("GET", "/password/{token}"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    ("POST", "/password/{token}"): (HIDDEN, HIDDEN, HIDDEN, HIDDEN),
    # For members, by the link in a mail.
    ("GET", "/invitation/{token}"): (200, 200, 200, 200),
    ("POST", "/invitation/{token}"): (303, 303, 303, 303),
    ("GET", "/unsubscribe/{token}"): (200, 200, 200, 200),
    ("POST", "/unsubscribe/{token}"): (303, 303, 303, 303),
    # For every user, within their scope.
    ("GET", "/"): (SIGN_IN, 303, 303, 303),
    ("GET", "/events"): (SIGN_IN, 200, 200, 200),
    ("GET", "/batches"): (SIGN_IN, 200, 200, 200),
    ("GET", "/members"): (SIGN_IN, 200, 200, 200),
    ("GET", "/account"): (SIGN_IN, 200, 200, 200),
    ("POST", "/account/password"): (SIGN_IN, NO, NO, NO),  # they have none
    ("POST", "/sign-out"): (SIGN_IN, SIGN_IN, SIGN_IN, SIGN_IN),  # one way or the other
    # For the organisers of the chapter.
    ("GET", "/events/{event}"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/numbers"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/people"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/invite"): (SIGN_IN, HIDDEN, 200, 200),
    ("POST", "/events/{event}/invite"): (SIGN_IN, HIDDEN, 303, 303),
    ("GET", "/events/{event}/people.csv"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/audit/people"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/audit.csv"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/audit"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/audit/answer"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/resolve"): (SIGN_IN, HIDDEN, 200, 200),
    ("POST", "/events/{event}/resolve"): (SIGN_IN, HIDDEN, 303, 303),
    ("POST", "/members/{member}/opt-outs"): (SIGN_IN, NO, NO, 303),
    ("GET", "/events/{named:path}"): (SIGN_IN, HIDDEN, 303, 303),
    ("GET", "/events/{event}/mail/{role}"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/events/{event}/mail/{role}/html"): (SIGN_IN, HIDDEN, 200, 200),
    ("POST", "/events/{event}/mail/{role}/test"): (SIGN_IN, HIDDEN, IN, IN),
    ("GET", "/batches/{batch}"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/batches/{batch}/entries"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/batches/{batch}/live"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/batches/{batch}/log.csv"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/batches/{batch}/cancel"): (SIGN_IN, HIDDEN, 200, 200),
    ("GET", "/batches/{batch}/retry"): (SIGN_IN, HIDDEN, 200, 200),
    ("POST", "/batches/{batch}/retry"): (SIGN_IN, HIDDEN, 303, 303),
    ("POST", "/batches/{batch}/{decision}"): (SIGN_IN, HIDDEN, 303, 303),
    ("GET", "/members/{member}"): (SIGN_IN, HIDDEN, 200, 200),
    # For admins.
    ("GET", "/accounts"): (SIGN_IN, NO, NO, 200),
    ("POST", "/accounts"): (SIGN_IN, NO, NO, 303),
    ("GET", "/accounts/{account}"): (SIGN_IN, NO, NO, 200),
    ("POST", "/accounts/{account}"): (SIGN_IN, NO, NO, 303),
    ("POST", "/accounts/{account}/password"): (SIGN_IN, NO, NO, 200),
    ("POST", "/accounts/{account}/disable"): (SIGN_IN, NO, NO, 303),
    ("POST", "/accounts/{account}/enable"): (SIGN_IN, NO, NO, 303),
    ("GET", "/clients"): (SIGN_IN, NO, NO, 200),
    ("POST", "/clients"): (SIGN_IN, NO, NO, 200),
    ("POST", "/clients/{client}/revoke"): (SIGN_IN, NO, NO, 303),
    ("GET", "/trail"): (SIGN_IN, NO, NO, 200),
    ("GET", "/directory"): (SIGN_IN, NO, NO, IN),
    ("POST", "/directory"): (SIGN_IN, NO, NO, IN),
    ("GET", "/letters"): (SIGN_IN, NO, NO, IN),
    ("GET", "/letters/waiting"): (SIGN_IN, NO, NO, IN),
    ("GET", "/letters/{partition}/{offset}"): (SIGN_IN, NO, NO, IN),
    ("GET", "/letters/{partition}/{offset}/value"): (SIGN_IN, NO, NO, IN),
    ("POST", "/letters/confirm"): (SIGN_IN, NO, NO, 200),
    ("POST", "/letters/redrive"): (SIGN_IN, NO, NO, IN),
    ("POST", "/letters/discard"): (SIGN_IN, NO, NO, IN),
    ("GET", "/system"): (SIGN_IN, NO, NO, IN),
    ("GET", "/system/lag"): (SIGN_IN, NO, NO, IN),
    ("GET", "/system/servers"): (SIGN_IN, NO, NO, IN),
    ("GET", "/system/doctor"): (SIGN_IN, NO, NO, IN),
    ("GET", "/system/rate"): (SIGN_IN, NO, NO, 200),
    ("GET", "/system/rate/now"): (SIGN_IN, NO, NO, 200),
    ("POST", "/system/rate"): (SIGN_IN, NO, NO, 303),
    ("POST", "/system/rate/unset"): (SIGN_IN, NO, NO, 303),
}

#: Members whom an organiser of chapter 2 must not see, and one whom they may. Their ids are used for nothing else.
FOREIGN: Final = ("Foreign", "foreign")
FIRST_ID: Final = 7_351_000
OWN: Final = "Fritz"


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Chapter 1 with event 1 and six members; chapter 2 with member 21; event 2 is of both, event 3 of chapter 2.

    Event 4 was chapter 1's, and is chapter 2's now. Batches: 1 runs, 2 was cancelled.
    """
    scenario.load(
        CHAPTER,
        STUDENTS,
        COACHES,
        CHAPTER | {"id": 2, "name": "Berlin", "email": "berlin@example.org"},
        STUDENTS | {"id": 3, "chapter_id": 2},
        *(person(n) for n in (1, 2, 3, 4, 6)),
        person(5, accepted_toc_at=None),
        member(21, name=OWN, email="fritz@example.org", accepted_toc_at=TERMS_ACCEPTED),
        *(subscription(FIRST_ID + n, 1) for n in (1, 2, 3, 5, 6)),
        subscription(FIRST_ID + 4, 2),
        subscription(21, 3),
        EVENT | {"ref": "workshop/1"},
        EVENT | {"id": 2, "name": "Joint", "chapter_ids": [1, 2]},
        EVENT | {"id": 3, "name": "Berlin only", "chapter_ids": [2]},
        EVENT | {"id": 4, "name": "Moved", "chapter_ids": [1]},
        invitation(FIRST_ID + 1, token="token-of-1"),
    )
    scenario.plan("students")
    batch_control.cancel(scenario.conn, scenario.plan("coaches"))
    return scenario


def person(number: int, **fields: Any) -> dict[str, Any]:
    """A member of chapter 1, whose name and address are recognisable."""
    about = {"name": f"Foreign{number}", "email": f"foreign{number}@example.org", "accepted_toc_at": TERMS_ACCEPTED}
    return member(FIRST_ID + number, **{**about, **fields})


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """A site with all routes: links, and a sign-in provider, which is unreachable."""
    provider = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "x", "oidc_client_secret": "x"}
    with open_site(database_url, scenario.conn, smtp_url="smtp://127.0.0.1:9", **provider) as site:
        # Streams end at once.
        site.app.state.should_stop = lambda: True
        yield site


def routes(site: Site) -> set[tuple[str, str]]:
    """All routes but the static files and the API, which is an application of its own."""
    return {
        (method, context.path or "")
        for context in iter_route_contexts(site.app.routes)
        for method in (context.methods or ())
        if method not in ("HEAD", "OPTIONS")
    }


def ask(browser: Browser, method: str, route: str) -> Response:
    """The response of a route to a request as its page would send it."""
    path = route.replace(":path", "").format(**{**PLACES, **OTHER_PLACES.get(route, {})})
    values = FORMS.get((method, route))
    return browser.get(path, params=values) if method == "GET" else browser.post(path, values)


def came_to(answer: Response) -> int | str:
    """As a value of the table."""
    is_away = answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")
    return SIGN_IN if is_away else answer.status_code


def test_every_route_has_a_row(site: Site) -> None:
    """A new route must be added to the table, and a removed one deleted."""
    assert routes(site) == set(TABLE)


#: Who took names and addresses as a file is in the audit log.
EXPORTS: Final = {"/batches/{batch}/log.csv", "/events/{event}/people.csv", "/events/{event}/audit.csv"}


@pytest.mark.parametrize("row", list(TABLE), ids=" ".join)
def test_who_may(site: Site, row: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """The result is that of the table; a refused request changes nothing."""
    first = site.account("zoe@bidden.example")
    assert first == PLACES["account"]
    create_client(site.conn, "Ada", name="Calendar", account_id=first, scopes=["read"])
    viewers = {
        "nobody": site.browser(),
        "of another": site.browser(site.account("other@bidden.example", chapters=[2])),
        "organiser": site.browser(site.account("own@bidden.example", chapters=[1])),
        "admin": site.browser(site.account("ada@bidden.example", "admin")),
    }
    for (viewer, browser), expected in zip(viewers.items(), TABLE[row], strict=True):
        before = everything(site.conn)
        found = came_to(ask(browser, *row))
        if expected == IN:
            assert found not in (SIGN_IN, 401, 403, 404), viewer
        else:
            assert found == expected, viewer
        if row[1] in EXPORTS and found == 200:
            (entry,) = site.conn.execute("DELETE FROM audit_log WHERE action = 'export' RETURNING *").fetchall()
            batch = PLACES["batch"] if "{batch}" in row[1] else None
            assert (entry["event_id"], entry["batch_id"], entry["outcome"]) == (PLACES["event"], batch, "done")
        # A failed sign-in is in the audit log, and changes nothing else.
        if row not in (("POST", "/sign-out"), ("POST", "/sign-in")) and (
            row[0] == "GET" or found in (SIGN_IN, NO, HIDDEN)
        ):
            assert everything(site.conn) == before, viewer


#: All tables that a request could change, but for attempts and the audit log.
CHANGEABLE: Final = (
    "accounts", "account_chapters", "api_clients", "audit_log", "batches", "batch_items", "batch_webhooks",
    "deliveries", "discarded_dead_letters", "events", "event_chapters", "invitations", "log_entries", "members",
    "redriven_dead_letters", "subscriptions",
)  # fmt: skip


def everything(conn: Connection) -> list[Any]:
    """A digest of these tables, and the number of sessions."""
    digest = SQL("(SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t)")
    digests = SQL(", ").join(digest.format(Identifier(table)) for table in CHANGEABLE)
    row = conn.execute(SQL("SELECT ARRAY[{}] AS digests, (SELECT count(*) FROM sessions)").format(digests)).fetchone()
    assert row is not None
    return list(row.values())


def test_no_scope_is_no_event(site: Site) -> None:
    """An organiser without chapters sees no event."""
    browser = site.organiser()
    assert "Joint" not in page_text(browser.get("/events"))
    assert browser.get("/events/1").status_code == 404
    assert browser.get("/batches/1").status_code == 404


#: More requests to a route: every parameter that lists members.
QUERIES: Final[dict[str, list[str]]] = {
    "/events": ["?q=oreign", "?q=joint"],
    "/events/{event}/people": [
        *("?audience=" + audience for audience in ("students", "coaches", "everyone")),
        *("?reason=" + reason for reason in ("terms_not_accepted", "already_sent", "unknown", "declined")),
    ],
    "/events/{event}/people.csv": ["?audience=students", "?reason=terms_not_accepted", "?reason=already_sent"],
    "/events/{event}/audit/people": ["?status=failed", "?status=missing"],
    "/events/{event}/audit.csv": ["?status=failed"],
    "/events/{event}/audit/answer": ["?audience=students"],
    "/batches/{batch}/entries": [
        *("?status=" + status for status in ("sent", "failed", "unknown", "skipped", "pending", "left_out")),
        "?q=oreign",
        "?q=735",
        f"?q={FIRST_ID + 1}",
    ],
    "/events/{event}/resolve": ["?verdict=resend", f"?verdict=sent&member={FIRST_ID + 3}", "?verdict=failed&member=21"],
    "/batches/{batch}/log.csv": ["?status=failed", "?status=left_out", "?status=pending"],
    "/members": ["?q=oreign", f"?q={FIRST_ID + 1}", "?q=example"],
    "/trail": ["?event=2"],
}


def every_end(scenario: Scenario, event: int) -> int:
    """A batch with a delivery of every status; the failed one's reason names the member."""
    batch = scenario.plan("everyone", event=event)
    agent = scenario.agent()
    refusal = Failed("550 5.1.1 <foreign2@example.org>: no such user Foreign2")
    for number, outcome in ((1, Sent("250 ok foreign1@example.org")), (2, refusal), (3, Unknown("lost"))):
        agent.deliver(scenario.request(batch, FIRST_ID + number, event=event), outcome)
    return batch


def joint_batch(scenario: Scenario) -> int:
    """A batch of event 2, with a sent delivery to a member of chapter 2."""
    batch = every_end(scenario, 2)
    scenario.agent().deliver(scenario.request(batch, 21, event=2), Sent("250 ok"))
    return batch


def moved_batch(scenario: Scenario) -> int:
    """A batch of event 4, which was moved to the other chapter afterwards."""
    batch = every_end(scenario, 4)
    scenario.load(EVENT | {"id": 4, "name": "Moved", "chapter_ids": [2]})
    return batch


def names_found(answer: Response, path: str) -> list[str]:
    """The members of chapter 1 that a response names; an id that was requested may be repeated."""
    ids = [str(FIRST_ID + n) for n in range(1, 7)]
    return [name for name in (*FOREIGN, *(n for n in ids if n not in path)) if name in answer.text]


def test_no_page_names_a_member_of_another_chapter(site: Site, scenario: Scenario) -> None:
    """No request about joint or moved events shows an organiser of chapter 2 a name or id of chapter 1."""
    joint, moved = joint_batch(scenario), moved_batch(scenario)
    scenario.load(subscription(FIRST_ID + 6, 2))
    berlin = site.browser(site.account("other@bidden.example", chapters=[2]))
    admin = site.admin()
    told, seen_by_admin = [], ""
    for method, route in sorted(routes(site)):
        if method != "GET" or route.startswith(("/invitation", "/unsubscribe", "/sign-in")):
            continue
        for event, query in product((1, 2, 3, 4), ["", *QUERIES.get(route, [])]):
            for number in (FIRST_ID + 1, FIRST_ID + 5, 21):
                places = {**PLACES, "event": event, "batch": (1, joint, 2, moved)[event - 1], "member": number}
                if "{member}" not in route and number != 21:
                    continue
                if route == "/batches/{batch}/live" and event != 3:
                    continue
                path = route.replace(":path}", "}").format(**places) + query
                answer = berlin.get(path)
                told += [f"{path}: {name}: {answer.text}" for name in names_found(answer, path)]
                seen_by_admin += admin.get(path).text
    assert told == []
    assert all(f"foreign{n}@example.org" in seen_by_admin for n in (1, 2, 3, 5))
    assert all(f"/members/{FIRST_ID + n}" in seen_by_admin for n in (1, 2, 3, 4, 5, 6))
    assert OWN in page_text(berlin.get(f"/batches/{joint}"))
    assert "only members of your chapters are listed" in page_text(berlin.get(f"/batches/{joint}"))
    assert "only members of your chapters are listed" in page_text(berlin.get(f"/batches/{moved}"))


def test_no_stream_names_a_member_of_another_chapter(site: Site, scenario: Scenario) -> None:
    """Nor does the live stream of a batch."""
    moved = moved_batch(scenario)
    site.app.state.should_stop = lambda: False
    batch_control.cancel(scenario.conn, moved)
    berlin = site.browser(site.account("other@bidden.example", chapters=[2]))
    told = berlin.get(f"/batches/{moved}/live")
    assert "First error: about a member of another chapter" in page_text(told)
    assert names_found(told, "") == []
    # Replies are recorded without addresses; what else they say is shown to who may see the member.
    assert "no such user" in site.admin().get(f"/batches/{moved}/live").text
    assert "no such user" not in told.text


def test_no_action_names_a_member_of_another_chapter(site: Site, scenario: Scenario) -> None:
    """Neither the response to a form about joint and moved events nor the page after it names one."""
    batches = {2: joint_batch(scenario), 4: moved_batch(scenario)}
    berlin = site.browser(site.account("other@bidden.example", chapters=[2]))
    told, done = [], 0
    for method, route in sorted(routes(site)):
        if method != "POST" or route.startswith(("/invitation", "/unsubscribe", "/sign-")):
            continue
        for event, decision in product(batches, ("pause", "resume", "cancel") if "{decision}" in route else ("",)):
            path = route.format(**{**PLACES, "event": event, "batch": batches[event], "decision": decision})
            answers = [berlin.post(path, FORMS.get((method, route)))]
            if answers[0].status_code == 303:
                done += 1
                answers.append(berlin.get(answers[0].headers["location"]))
            told += [f"{path}: {name}: {a.text}" for a in answers for name in names_found(a, path)]
    assert told == []
    assert done >= 8


@pytest.mark.parametrize("event", [2, 4])
def test_no_action_on_a_member_of_another_chapter(site: Site, scenario: Scenario, event: int) -> None:
    """Deliveries to a member of the other chapter cannot be resolved one by one."""
    batch = joint_batch(scenario) if event == 2 else moved_batch(scenario)
    berlin = site.browser(site.account("other@bidden.example", chapters=[2]))
    answer = berlin.post(f"/events/{event}/resolve", {"verdict": "failed", "member": str(FIRST_ID + 3)})
    assert (answer.status_code, "Foreign" in answer.text) == (404, False)
    assert scenario.log(batch)[FIRST_ID + 3, "Student"][0] == "unknown"


HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex, nofollow",
    "cache-control": "no-store",
    "strict-transport-security": "max-age=31536000",
}


def is_mail(answer: Response) -> bool:
    """Whether it is the HTML of a mail."""
    return answer.status_code == 200 and answer.url.path.endswith("/html")


def assert_headers(answer: Response) -> None:
    """The headers of every response."""
    for name, value in HEADERS.items():
        assert answer.headers[name] == value, (answer.url, name)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    if is_mail(answer):
        # Only our own pages may frame it; inline styles, and no scripts.
        assert "sandbox;" in policy
        assert "frame-ancestors 'self'" in policy
        assert "script-src" not in policy
    else:
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        for word in (" style=", "<style", " onclick=", "<script>", "javascript:"):
            assert word not in answer.text
    assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")
    assert "server" not in answer.headers


def test_headers(scenario: Scenario, database_url: str) -> None:
    """Every response has security headers: pages, fragments, redirects, files and errors."""
    values = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": "x", "oidc_client_secret": "x"}
    with open_site(database_url, scenario.conn, base_url="https://testserver", **values) as site:
        site.app.state.should_stop = lambda: True
        ada, nobody = site.admin(), site.browser()
        ada.client.cookies.set("__Host-bidden", ada.token or "")
        answers = [ask(browser, *route) for browser in (nobody, ada) for route in sorted(routes(site))]
        for path in ("/nowhere", "/static/site.css", "/static/nowhere", "/events/x", "/static/../app.py", "/%00"):
            answers += [ada.get(path), nobody.client.post(path), nobody.client.options(path)]
        answers.append(ada.client.post("/events/1/invite"))
        answers.append(ada.client.get("/events", headers={"hx-request": "true"}))
    assert {200, 303, 403, 404, 405} <= {answer.status_code for answer in answers}
    for answer in answers:
        assert_headers(answer)


def test_headers_after_an_unexpected_error(
    scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unexpected error the page has the headers, and does not disclose the error."""
    from fastapi.testclient import TestClient

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("db.site_queries.events", broken)
    with open_site(database_url, scenario.conn, base_url="https://testserver") as site:
        token = site.admin().token or ""
        client = TestClient(site.app, base_url="https://testserver", raise_server_exceptions=False)
        client.cookies.set("__Host-bidden", token)
        answer = client.get("/events")
    assert (answer.status_code, "This is an error of the server" in answer.text, "secret" in answer.text) == (
        500,
        True,
        False,
    )
    assert_headers(answer)
