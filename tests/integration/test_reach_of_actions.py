"""How far an action reaches: as far as its actor's view, or it is refused with who can do it. Action x role x scope.

On pages and by the API alike. The table is whole: an action that is not in it fails a test.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from schemas.outcomes import Failed, Unknown
from tests.integration.api_routes import ROUTES
from tests.integration.calling import Program, program
from tests.integration.importing import CHAPTER, EVENT, STUDENTS, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from tests.integration.test_site_access import TABLE

#: The members of chapter 1, of chapter 2, and who left every list after the batch: theirs who hold all of the event.
FIRST, SECOND, GONE = {1, 2}, {3}, {4}
ALL: Final = FIRST | SECOND | GONE
NOT_ALLOWED, NOT_THERE = 403, 404

#: Who acts: their role and chapters.
ACTORS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "admin": ("admin", ()),
    "of all chapters": ("organiser", (1, 2)),
    "of one chapter": ("organiser", (2,)),
    "of another chapter": ("organiser", (3,)),
    "of no chapter": ("organiser", ()),
}
#: Whom an action reaches that is divided among members, on an event of chapters 1 and 2 and on one of chapter 2 alone.
DIVIDED: Final[dict[str, tuple[set[int] | int, set[int] | int]]] = {
    "admin": (ALL, ALL),
    "of all chapters": (ALL, ALL),
    "of one chapter": (SECOND, SECOND | GONE),
    "of another chapter": (NOT_THERE, NOT_THERE),
    "of no chapter": (NOT_THERE, NOT_THERE),
}
#: The same for an action that concerns the whole event or batch.
WHOLE: Final[dict[str, tuple[set[int] | int, set[int] | int]]] = {
    **DIVIDED,
    "of one chapter": (NOT_ALLOWED, ALL),
}
#: Each action: its route on the site and of the API, what is sent there, how far it reaches, and how that is seen.
Action = tuple[tuple[str, str], dict[str, Any], tuple[str, str], dict[str, Any], dict[str, Any], str]
ACTIONS: Final[dict[str, Action]] = {
    **{
        f"resolve as {verdict}": (
            ("POST", "/events/{event}/resolve"), {"verdict": verdict},
            ("POST", "/events/{event}/resolve"), {"json": {"verdict": verdict}},
            DIVIDED, "not unknown",
        )
        for verdict in ("resend", "sent", "failed")
    },
    "retry": (
        ("POST", "/batches/{batch}/retry"), {}, ("POST", "/batches/{batch}/retry"), {}, DIVIDED, "not failed"
    ),
    **{
        decision: (
            ("POST", f"/batches/{{batch}}/{decision}"), {}, ("POST", f"/batches/{{batch}}/{decision}"), {},
            WHOLE, "state changed",
        )
        for decision in ("pause", "resume", "cancel")
    },
    "invite": (
        ("POST", "/events/{event}/invite"), {"audience": "students"},
        ("POST", "/events/{event}/batches"),
        {"json": {"audience": "students"}},
        WHOLE, "invited",
    ),
    "export": (("GET", "/batches/{batch}/log.csv"), {}, ("GET", "/batches/{batch}/entries"), {}, DIVIDED, "told"),
}  # fmt: skip
#: Actions for admins only (`test_site_access`, `test_api_scopes`), on themselves, or of members by their own link.
OTHERS: Final = (
    "/letters", "/accounts", "/account", "/password", "/clients", "/directory", "/system", "/sign-", "/invitation",
    "/unsubscribe", "/members/{member}/opt-outs",
    # A test mail goes to the actor.
    "/events/{event}/mail", "/dead-letters",
)  # fmt: skip


def test_the_table_is_whole() -> None:
    """Every route that changes something is an action of the table, or one that reaches nobody's members."""
    site = {row[0][1].replace("pause", "{decision}") for row in ACTIONS.values()}
    api = {row[2][1] for row in ACTIONS.values()}
    for routes, known in ((TABLE, site), (ROUTES, api)):
        for method, path in routes:
            assert method == "GET" or path in known or path.startswith(OTHERS), (method, path)


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Chapters 1 (students 1 and 2), 2 (students 3 and 4) and 3. Member 4 is to leave every list: `start`."""
    scenario.build(students=[1, 2]).load(
        CHAPTER | {"id": 2, "name": "Berlin"},
        CHAPTER | {"id": 3, "name": "Paris"},
        STUDENTS | {"id": 3, "chapter_id": 2},
        *(member(number, accepted_toc_at=TERMS_ACCEPTED) for number in (3, 4)),
        *(subscription(number, 3) for number in (3, 4)),
    )
    with open_site(database_url, scenario.conn) as site:
        yield site


def start(scenario: Scenario, action: str, event: int, chapters: list[int]) -> int:
    """A batch of a new event for all four members, in the state that the action needs; of none for `invite`."""
    scenario.load(EVENT | {"id": event, "name": f"Event {event}", "chapter_ids": [1, 2]}, subscription(4, 3))
    agent = scenario.agent()
    batch = 0
    if action != "invite":
        batch = scenario.plan("students", event=event)
        outcome = Failed("550 no") if action == "retry" else Unknown("?")
        if action.startswith(("resolve", "retry", "export")):
            for number in sorted(ALL):
                agent.deliver(scenario.request(batch, number, event=event), outcome)
        if action == "resume":
            scenario.set_state(batch, "paused")
        scenario.load({"type": "subscription", "member_id": 4, "group_id": 3, "deleted": True})
    scenario.load(EVENT | {"id": event, "name": f"Event {event}", "chapter_ids": chapters})
    return batch


def reached(scenario: Scenario, how: str, event: int, batch: int, told: str, before: str) -> set[int]:
    """The members whom an action reached."""
    if how == "told":
        return {int(row["member_id"]) for row in csv.DictReader(io.StringIO(told.removeprefix("\ufeff")))}
    if how == "state changed":
        (row,) = scenario.execute("SELECT state FROM batches WHERE id = %s", batch)
        return set(ALL) if row["state"] != before else set()
    if how == "invited":
        query = "SELECT i.member_id FROM batch_items i JOIN batches b ON b.id = i.batch_id WHERE b.event_id = %s"
        return {row["member_id"] for row in scenario.execute(query, event)}
    state = how.removeprefix("not ")
    query = "SELECT member_id FROM deliveries WHERE event_id = %s AND state <> %s"
    return {row["member_id"] for row in scenario.execute(query, event, state)}


def ask_page(browser: Browser, action: str, places: dict[str, int]) -> tuple[int, str]:
    """The status and text of the page's answer."""
    (method, route), form, *_ = ACTIONS[action]
    path = route.format(**places)
    if action == "invite":
        form = {**form, "key": f"{places['event']:036}"}
    answer = browser.get(path) if method == "GET" else browser.post(path, form)
    return answer.status_code, answer.text


def ask_api(client: Program, action: str, places: dict[str, int]) -> tuple[int, str]:
    """The status and text of the API's answer; a list as the page's CSV."""
    _, _, (method, route), options, *_ = ACTIONS[action]
    headers = {"Idempotency-Key": str(places["event"])}
    answer = client.call(method, route.format(**places), headers=headers, **options)
    if action == "export" and answer.status_code == 200:
        return 200, "member_id\n" + "\n".join(str(row["member_id"]) for row in answer.json()["items"])
    return answer.status_code, answer.text


@pytest.mark.parametrize("surface", ["page", "API"])
@pytest.mark.parametrize("actor", list(ACTORS))
def test_reach(site: Site, scenario: Scenario, actor: str, surface: str) -> None:
    """Every action decides about the members whom its actor may see, or is refused with who can do it."""
    role, chapters = ACTORS[actor]
    account = site.account("zoe@bidden.example", role, chapters)
    act: Callable[[str, dict[str, int]], tuple[int, str]]
    if surface == "page":
        browser = site.browser(account)
        act = lambda action, places: ask_page(browser, action, places)  # noqa: E731
    else:
        client = program(site, account)
        act = lambda action, places: ask_api(client, action, places)  # noqa: E731
    event = 100
    for action, row in ACTIONS.items():
        for held_by, expected in zip(([1, 2], [2]), row[4][actor], strict=True):
            event += 1
            batch = start(scenario, action, event, held_by)
            before = "paused" if action == "resume" else "running"
            status, text = act(action, {"event": event, "batch": batch or 1})
            found = reached(scenario, row[5], event, batch, text if status == 200 else "", before)
            case = (action, held_by, status, text[:300])
            if isinstance(expected, int):
                assert status == expected, case
                assert found == set(), case
                if expected == NOT_ALLOWED:
                    assert "An admin, or an organiser of all its chapters (London, Berlin), can" in text, case
            elif action == "invite":
                # Whoever is on a list of the event now.
                assert found == (ALL if held_by == [1, 2] else SECOND | GONE), case
            else:
                assert status in (200, 201, 303), case
                assert found == expected, case


def test_what_cannot_be_taken_back_is_asked_about(site: Site, scenario: Scenario) -> None:
    """The buttons lead to a question that states how many mails it is about: those that the user may see."""
    batch = start(scenario, "resolve as resend", 101, [1, 2])
    failed = start(scenario, "retry", 102, [1, 2])
    berlin, admin = site.organiser(2), site.admin()
    for browser, number in ((berlin, "1 mail"), (admin, "4 mails")):
        page = browser.get(f"/batches/{batch}")
        assert 'action="/events/101/resolve"' not in page.text.partition('id="entries"')[0]
        assert f'href="/events/101/resolve?verdict=resend&amp;back=%2Fbatches%2F{batch}"' in page.text
        question = browser.get(f"/events/101/resolve?verdict=resend&back=/batches/{batch}")
        assert f"Send {number} again, even if twice?" in page_text(question)
        assert "cannot be recalled" in page_text(question)
    assert "(London, Berlin), can decide about those of the others" in page_text(
        berlin.get("/events/101/resolve?verdict=sent")
    )
    running = berlin.get(f"/batches/{start(scenario, 'pause', 103, [1, 2])}")
    assert "can pause, resume or cancel this batch" in page_text(running)
    assert "/pause" not in running.text
    for browser, number in ((berlin, "1 failed mail"), (admin, "4 failed mails")):
        assert f'href="/batches/{failed}/retry"' in browser.get(f"/batches/{failed}").text
        assert f"Try {number} again?" in page_text(browser.get(f"/batches/{failed}/retry"))
    # More than the question stated: it is asked again, and nothing is sent.
    again = admin.post("/events/101/resolve", {"verdict": "resend", "number": "3"})
    assert again.headers["location"] == "/events/101/resolve?verdict=resend&grown=true"
    assert "There are more by now" in page_text(admin.get(again.headers["location"]))
    assert admin.post(f"/batches/{failed}/retry", {"number": "0"}).headers["location"].endswith("/retry?grown=true")
    assert scenario.status(batch)["unknown"] == 4
    assert scenario.status(failed)["failed"] == 4
    assert "We will send 4 mails again." in page_text(
        admin.get(admin.post("/events/101/resolve", {"verdict": "resend", "number": "4"}).headers["location"])
    )
    assert admin.post(f"/batches/{failed}/retry", {"number": "4"}).status_code == 303
    assert "Nothing to decide about" in page_text(admin.get("/events/101/resolve?verdict=resend"))
    assert "Nothing to try again" in page_text(admin.get(f"/batches/{failed}/retry"))


def test_a_discard_and_a_redrive_are_asked_about(site: Site) -> None:
    """The question names the dead letters, and has what was selected in its form."""
    admin = site.admin()
    chosen = {"letter": ["0:1", "0:2", "0:1"], "again": "true"}
    discard = admin.post("/letters/confirm", {**chosen, "do": "discard"})
    assert "Discard 2 dead letters?" in page_text(discard)
    assert "0:1, 0:2" in page_text(discard)
    assert discard.text.count('name="letter"') == 2
    assert 'action="/letters/discard"' in discard.text
    redrive = admin.post("/letters/confirm", {**chosen, "do": "redrive"})
    assert "Redrive 2 dead letters?" in page_text(redrive)
    assert 'name="again" value="true"' in redrive.text
    assert 'action="/letters/redrive"' in redrive.text
