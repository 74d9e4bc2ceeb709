# ruff: noqa: RUF001 # the letters are the point
"""Search, filters and pages of the web application: each fast statement returns what the plain one returns."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any, LiteralString

import pytest

from db import audit_queries, batch_actions, planning, reports, retention, site_queries
from db.batch_actions import Chunk
from db.site_queries import VisibleMembers
from producers.plan import dry_runs, plan, trigger_of
from schemas.directory import MAX_ID
from schemas.errors import NotFoundError
from schemas.outcomes import Failed, Retry, Sent, Unknown
from schemas.vocabulary import Audience, Reason, UnknownPolicy
from tests.integration.calling import organisers
from tests.integration.importing import CHAPTER, COACHES, EVENT, STUDENTS, invitation, member, subscription
from tests.integration.scenario import LEAVE, TERMS_ACCEPTED, Scenario
from tests.integration.site import open_site
from tests.integration.test_planning import ban

EVERYBODY = VisibleMembers()
STATUSES = (None, "sent", "failed", "unknown", "skipped", "pending")
PARIS = (
    CHAPTER | {"id": 2, "name": "Paris"},
    STUDENTS | {"id": 3, "chapter_id": 2},
    COACHES | {"id": 4, "chapter_id": 2},
)
NAMES = ("Ada", "ÖZLEM Öz", "o'Neil", 'Quo"te', "100%", "under_score", "back\\slash", "Ada_", "7")
SEARCHED = (
    "",
    "ada",
    "ADA",
    "ö",
    "ÖZ",
    "%",
    "_",
    "\\",
    "\\_",
    "'",
    '"',
    "7",
    "07",
    "0",
    "m1",
    "example",
    "@",
    "nobody",
    "ONEIL",
    "o’neil",
    "ozlem",
    "example oz",
    "oz nobody",
)


def populate(scenario: Scenario, seed: int, policy: str) -> list[int]:
    """A joint event of two chapters, and batches with every outcome; returns their ids."""
    chance = random.Random(seed)
    people = range(1, 25)
    scenario.load(CHAPTER, STUDENTS, COACHES, *PARIS, EVENT | {"chapter_ids": [1, 2], "role_policy": policy})
    scenario._one = policy == "one"
    scenario.load(
        *(
            member(n, name=chance.choice(NAMES), accepted_toc_at=TERMS_ACCEPTED if chance.random() < 0.9 else None)
            for n in people
        ),
        *(subscription(n, group) for n in people for group in chance.sample((1, 2, 3, 4), chance.choice((1, 1, 2, 3)))),
        *(ban(n, n, permanent=True) for n in people if chance.random() < 0.1),
        *(
            invitation(n, role=role, attending=chance.random() < 0.5)
            for n in people
            for role in ("Student", "Coach")
            if chance.random() < 0.08
        ),
    )
    agent, batches = scenario.agent(), []
    for audience in ("students", "everyone"):
        batch = scenario.plan(audience, resend=chance.random() < 0.5)
        batches.append(batch)
        for row in list(reports.log(scenario.conn, batch)):
            outcome = chance.choice(
                (None, Sent("250 ok"), Sent("250"), Failed("550"), Unknown("?"), Retry("451", delay=60, uses=1), "ban")
            )
            wanted = scenario.request(batch, row["member_id"], row["role"])
            if outcome == "ban":
                scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id = %s", row["member_id"])
            if outcome is not None and (claim := agent.try_claim(wanted)) is not None and not isinstance(outcome, str):
                agent.record(wanted, claim, outcome)
    if seed % 3 == 0:
        scenario.set_state(batches[0], "paused")
    if seed % 3 == 1:
        scenario.set_state(batches[1], "cancelled")
        batch_actions.cancel_items(scenario.conn, Chunk(batches[1], 0, MAX_ID))
    scenario.execute("ANALYZE")
    assert len(scenario.execute("SELECT DISTINCT status FROM log_entries")) >= 4, "too few outcomes"
    return batches


@pytest.fixture(params=[(seed, policy) for seed in range(3) for policy in ("each", "one")], ids=str)
def batches(request: pytest.FixtureRequest, scenario: Scenario) -> list[int]:
    """Some batches of event 1."""
    return populate(scenario, *request.param)


def walk(
    scenario: Scenario, batch: int, names: VisibleMembers = EVERYBODY, *, size: int = 2, **wish: Any
) -> list[dict[str, Any]]:
    """The rows of all pages of this size."""
    found: list[dict[str, Any]] = []
    after = (0, "")
    while True:
        page = site_queries.entries(scenario.conn, batch, names, after=after, limit=size, **wish)
        assert len(page.rows) == size or not page.has_more
        found += page.rows
        if not page.has_more:
            return found
        after = (page.rows[-1]["member_id"], page.rows[-1]["item_role"] or "")


def plain(text: str) -> str:
    """Without accents, apostrophes and hyphens, in lower case."""
    return "".join(
        c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c) and c not in "'’-"
    ).lower()


def holds(scenario: Scenario, member_id: int, words: str) -> bool:
    """Whether a search for the text should find the member, by another expression."""
    (row,) = scenario.execute(
        "SELECT concat_ws(' ', name, surname, email) AS text FROM members WHERE id = %s", member_id
    )
    wanted = plain(words).split()
    return words in ("", str(member_id)) or (bool(wanted) and all(word in plain(row["text"]) for word in wanted))


def test_pages_hold_every_entry_once(scenario: Scenario, batches: list[int]) -> None:
    """For every filter: all pages together are what the log says, in order of member and role, no row twice."""
    for batch in batches:
        log = sorted(reports.log(scenario.conn, batch), key=lambda row: (row["member_id"], row["role"]))
        left_out = [row["member_id"] for row in reports.excluded(scenario.conn, batch)]
        for words in SEARCHED:
            known = {n: holds(scenario, n, words) for n in {*left_out, *(row["member_id"] for row in log)}}
            for status in STATUSES:
                wanted = [row for row in log if status in (None, row["status"]) and known[row["member_id"]]]
                found = walk(scenario, batch, status=status, search=words)
                same = ("member_id", "role", "status", "reason", "attempts", "at", "sent_by_batch", "reply")
                assert [{name: row[name] for name in same} for row in found] == [
                    {name: row[name] for name in same} for row in wanted
                ], (batch, status, words)
            found = walk(scenario, batch, status="left_out", search=words)
            assert [row["member_id"] for row in found] == [n for n in left_out if known[n]], (batch, words)


@pytest.mark.parametrize(("first", "pace"), [(0, 40.0), (4, 10.0), (30, 4.0)])
def test_the_pace_counts_from_the_first_mail(scenario: Scenario, first: int, pace: float) -> None:
    """What began a moment ago has not gone on for ten seconds: its estimate would be five times too long."""
    scenario.build(students=range(1, 101))
    batch, agent = scenario.plan(), scenario.agent()
    for number in range(1, 41):
        agent.deliver(scenario.request(batch, number))
    scenario.execute("UPDATE log_entries SET at = now() - %s * interval '1 second' WHERE member_id = 1", first)
    found = site_queries.batch_numbers(scenario.conn, batch)
    assert found.per_second == pytest.approx(pace, rel=0.35)


def test_the_numbers_of_a_batch_are_those_of_the_reports(scenario: Scenario, batches: list[int]) -> None:
    """One statement gives what three reports give; also for a batch whose rows were removed."""
    for _ in range(2):
        for batch in batches:
            # In one transaction: its time is the same for both.
            with scenario.conn.transaction():
                found = site_queries.batch_numbers(scenario.conn, batch)
                (lately,) = scenario.execute(
                    "SELECT (count(*) FILTER (WHERE status IN ('sent', 'failed')"
                    " AND at > now() - interval '10 seconds')"
                    " / least(10, greatest(1, extract(epoch FROM now() - min(at)))))::float8 AS pace"
                    " FROM log_entries WHERE batch_id = %s",
                    batch,
                )
            assert found.status == reports.status(scenario.conn, batch)
            assert list(found.status) == list(reports.status(scenario.conn, batch))
            assert found.excluded == reports.exclusions(scenario.conn, batch)
            running = found.status["state"] == "running"
            assert found.per_second == (pytest.approx(lately["pace"] or 0.0) if running else 0.0)
        scenario.execute("UPDATE batches SET started_at = now() - interval '9 days'")
        scenario.execute("UPDATE batch_items SET settled_at = now() - interval '9 days' WHERE settled_at IS NOT NULL")
        scenario.execute("UPDATE log_entries SET at = now() - interval '9 days'")
        retention.run_all(scenario.conn, 60)
    with pytest.raises(NotFoundError, match="no batch 99"):
        site_queries.batch_numbers(scenario.conn, 99)


@pytest.fixture
def leavers(scenario: Scenario, batches: list[int]) -> None:
    """Some members were deleted after the batches, and some left a list."""
    assert batches
    scenario.execute("UPDATE members SET deleted_at = now() WHERE id %% 7 = 3")
    scenario.execute(f"{LEAVE} WHERE (s.member_id + s.group_id) %% 5 = 2 ON CONFLICT DO NOTHING")


@pytest.mark.usefixtures("leavers")
def test_one_dry_run_decides_for_every_audience(scenario: Scenario) -> None:
    """A dry run of three audiences gives the numbers of three, under either policy for unknown deliveries."""
    event = site_queries.event(scenario.conn, 1, None)
    assert event is not None
    for policy in UnknownPolicy:
        found = dry_runs(scenario.conn, event.facts, list(Audience), policy=policy)
        for audience, planned in zip(Audience, found, strict=True):
            assert planned == plan(scenario.conn, event_id=1, audience=audience, policy=policy, dry_run=True)


@pytest.mark.usefixtures("leavers")
@pytest.mark.parametrize("batches", [(0, "each"), (1, "one")], indirect=True)
@pytest.mark.parametrize("scanned", [1, 500])
def test_names_are_those_of_the_numbers(scenario: Scenario, scanned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each number of a dry run there are as many candidates, page by page, in order, none of them twice."""
    monkeypatch.setattr(site_queries, "_SCANNED", scanned)
    event = site_queries.event(scenario.conn, 1, None)
    assert event is not None
    in_paris = members_of(scenario, 2)
    # The policy decides about unknown deliveries, whatever the audience.
    cases = [*((audience, UnknownPolicy.HOLD) for audience in Audience), (Audience.EVERYONE, UnknownPolicy.RESEND)]
    for audience, policy in cases:
        trigger = trigger_of(event.facts, audience, policy=policy)
        (counts,) = planning.dry_run(scenario.conn, [trigger])
        for reason in (None, *Reason):
            found = candidates(scenario, trigger, reason, VisibleMembers())
            ids = [row["member_id"] for row in found]
            assert ids == sorted(set(ids))
            number = counts.planned if reason is None else counts.excluded.get(reason, 0)
            assert len(ids) == number, (audience, reason)
            if reason is None:
                assert sum(len(row["roles"]) for row in found) == counts.deliveries
            paris = [row["member_id"] for row in candidates(scenario, trigger, reason, VisibleMembers([2]))]
            assert paris == [n for n in ids if n in in_paris]


def candidates(
    scenario: Scenario, trigger: planning.Trigger, reason: str | None, names: VisibleMembers
) -> list[dict[str, Any]]:
    """All pages of two."""
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["member_id"] if found else 0
        page = site_queries.candidates(scenario.conn, trigger, reason, names, after=after, limit=2)
        found += page.rows
        if not page.has_more:
            return found


def members_of(scenario: Scenario, chapter: int) -> set[int]:
    """Who is on a list of the chapter."""
    rows = scenario.execute(
        "SELECT member_id FROM subscriptions JOIN groups ON id = group_id WHERE chapter_id = %s", chapter
    )
    return {row["member_id"] for row in rows}


def test_an_organiser_sees_only_members_of_their_chapters(scenario: Scenario, batches: list[int]) -> None:
    """Of an event held with another chapter, entries name only members of the organiser's chapter."""
    event = site_queries.event(scenario.conn, 1, [2])
    assert event is not None
    names = event.visible_members([2])
    assert names == VisibleMembers([2], unlisted=False)
    assert event.visible_members([1, 2]) == VisibleMembers([1, 2], unlisted=True), (
        "not everybody: other chapters may have held it before"
    )
    assert event.visible_members(None) == VisibleMembers(None)
    ours = members_of(scenario, 2)
    for batch in batches:
        for status in (*STATUSES, "left_out"):
            everybody = [(row["member_id"], row["role"]) for row in walk(scenario, batch, status=status)]
            shown = [(row["member_id"], row["role"]) for row in walk(scenario, batch, names, status=status)]
            assert shown == [key for key in everybody if key[0] in ours], (batch, status)


def test_an_event_that_was_moved(scenario: Scenario, batches: list[int]) -> None:
    """An event that is now of one chapter alone shows that chapter's members, and those who are on no list any more."""
    scenario.load(EVENT | {"chapter_ids": [2], "role_policy": "one" if scenario._one else "each"})
    ours = members_of(scenario, 2)
    gone = max(n for n in {row["member_id"] for row in walk(scenario, batches[1])} if n not in ours)
    left = min(ours)
    scenario.execute("DELETE FROM subscriptions WHERE member_id = %s", gone)
    scenario.execute(f"{LEAVE} WHERE s.member_id = %s", left)
    event = site_queries.event(scenario.conn, 1, [2])
    assert event is not None
    names = event.visible_members([2])
    some_hidden = False
    for batch in batches:
        for status in (*STATUSES, "left_out"):
            everybody = [(row["member_id"], row["role"]) for row in walk(scenario, batch, status=status)]
            shown = [(row["member_id"], row["role"]) for row in walk(scenario, batch, names, status=status)]
            assert shown == [key for key in everybody if key[0] in {*ours, gone}], (batch, status)
        some_hidden = some_hidden or len(walk(scenario, batch, names)) < len(walk(scenario, batch))
        assert not site_queries.hides_members(scenario.conn, batch, VisibleMembers())
        assert site_queries.hides_members(scenario.conn, batch, VisibleMembers([2])), "may be"
        assert site_queries.hides_members(scenario.conn, batch, names)
        assert not site_queries.hides_members(scenario.conn, batch, VisibleMembers([1, 2], unlisted=True))
    assert some_hidden
    found = scenario.audit()["missing"]
    listed = audit_queries.missing(scenario.conn, found, names)
    assert [row["member_id"] for row in listed.rows] == [row["member_id"] for row in found]


@pytest.mark.parametrize("status", [None, "skipped"])
def test_pages_where_another_batch_mailed(
    scenario: Scenario, database_url: str, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the policy `one` a log may say Coach where the item says Student: each page starts after the last."""
    scenario.build(both=[1, 2, 3], role_policy="one")
    first, second = scenario.plan("coaches"), scenario.plan("students")
    agent = scenario.agent()
    for number in (1, 2, 3):
        agent.deliver(scenario.request(first, number, "Coach"))
        agent.try_claim(scenario.request(second, number))
    found = walk(scenario, second, status=status)
    assert [(row["member_id"], row["role"], row["item_role"]) for row in found] == [
        (number, "Coach", "Student") for number in (1, 2, 3)
    ]
    entries = site_queries.entries
    monkeypatch.setattr(site_queries, "entries", lambda *words, **wish: entries(*words, **{**wish, "limit": 2}))
    with open_site(database_url, scenario.conn) as site:
        browser, query = site.admin(), f"?status={status or ''}"
        csv = browser.get(f"/batches/{second}/log.csv{query}").text.removeprefix("\ufeff").split("\r\n")
        shown, address = [], f"/batches/{second}/entries{query}"
        while address:
            page = browser.get(address)
            shown += re.findall(r'href="/members/(\d+)"', page.text)
            following = re.findall(r'href="(/batches/[^"]+after[^"]+)"', page.text)
            address = following[0].replace("&amp;", "&") if following else ""
        program = organisers(site, 1)
        items, address = [], f"/batches/{second}/entries" + (query if status else "")
        while address:
            answer = program.get(address)
            items += [row["member_id"] for row in answer["items"]]
            address = answer["next"]
    assert [line.partition(",")[0] for line in csv] == ["member_id", "1", "2", "3", ""]
    assert shown == ["1", "2", "3"]
    assert items == [1, 2, 3]


@pytest.mark.usefixtures("batches")
def test_a_search_has_no_wildcards(scenario: Scenario) -> None:
    """Members are found by text in name or address, in any case, or by their id; no character is a wildcard."""
    everybody = [row["id"] for row in scenario.execute("SELECT id FROM members ORDER BY id")]
    for words in (w for w in SEARCHED if w):
        found = [row["member_id"] for row in site_queries.members(scenario.conn, None, words).rows]
        assert found == [n for n in everybody if holds(scenario, n, words)], words
    for words in ("9" * 19, "9" * 30, "²", "٣", "-1", "1 ", "\t"):
        site_queries.members(scenario.conn, None, words)


def many_events(scenario: Scenario, events: int) -> None:
    """So many events of 20 chapters, every tenth upcoming, some at the same time; each past one has a batch."""
    scenario.conn.execute(
        """
        INSERT INTO chapters SELECT n, 'Chapter ' || n, 'c@example.org', 'UTC' FROM generate_series(2, 20) n;
        INSERT INTO events (id, kind, name, starts_at, ends_at, invitable)
        SELECT n, 'event', 'Evening ' || n % 7, t, t, true FROM generate_series(2, {events}) n,
            LATERAL (SELECT now() + (n / 3 - {events} * 3 / 10) * interval '1 day') s(t);
        INSERT INTO event_chapters SELECT n, 1 + n % 20, 0 FROM generate_series(2, {events}) n;
        INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
        SELECT id, 'everyone', 'invite', 'Ada', 1, now() FROM events WHERE starts_at <= now() ORDER BY id;
        """.replace("{events}", str(events)).encode()
    )
    for table in ("chapters", "events", "event_chapters", "batches"):
        scenario.conn.execute(f"ANALYZE {table}".encode())


@pytest.mark.parametrize("chapters", [None, [1], [3, 5, 7], []])
@pytest.mark.parametrize("search", ["", "EVENING 3", "nothing"])
def test_the_list_of_events_page_by_page(scenario: Scenario, chapters: list[int] | None, search: str) -> None:
    """Each event of the scope once: upcoming ones first, the next one on top; then past ones, the latest first."""
    scenario.build(students=[1])
    many_events(scenario, 200)
    rows = scenario.execute("SELECT e.id, name, starts_at, now() AS now, chapter_id FROM events e, event_chapters c"
                            " WHERE c.event_id = e.id")  # fmt: skip
    wanted = [
        row for row in rows
        if (chapters is None or row["chapter_id"] in chapters) and search.lower() in row["name"].lower()
    ]  # fmt: skip
    upcoming = sorted((row for row in wanted if row["starts_at"] > row["now"]), key=lambda e: (e["starts_at"], e["id"]))
    past = sorted((row for row in wanted if row["starts_at"] <= row["now"]), key=lambda e: e["id"])
    past.sort(key=lambda e: e["starts_at"], reverse=True)
    found: list[int] = []
    has_more = True
    while has_more:
        page, has_more = site_queries.events(scenario.conn, chapters, search=search, skip=len(found), limit=7)
        found += [entry.event.id for entry in page]
        assert all(entry.batches == (entry.event.is_past) for entry in page)
        assert has_more == (len(found) < len(wanted))
    assert found == [row["id"] for row in (*upcoming, *past)]


def rows_read(scenario: Scenario, work: Callable[[], object]) -> int:
    """Rows that the work reads from tables, its statements in one transaction."""
    read: LiteralString = (
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint AS n FROM pg_stat_xact_user_tables"
    )
    with scenario.conn.transaction():
        before = scenario.execute(read)[0]["n"]
        work()
        return int(scenario.execute(read)[0]["n"] - before)


def test_lists_read_a_page_whatever_there_is(scenario: Scenario) -> None:
    """FM-40: a page of events or batches reads some rows for each that it shows, not all that there are."""
    scenario.build(students=[1])
    many_events(scenario, 6000)
    for scope in (None, [3]):
        assert rows_read(scenario, partial(site_queries.events, scenario.conn, scope, limit=20)) < 2500
        assert rows_read(scenario, partial(site_queries.batches, scenario.conn, scope, limit=20)) < 2500
    # The scenario's own check audits every event that there is.
    scenario.execute("TRUNCATE batches, event_chapters, events CASCADE")
