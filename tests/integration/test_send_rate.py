"""The sending rates in a real database: concurrent workers, shared throttling, restarts, what an admin sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from db import send_limits
from db.connect import Connection
from db.hot_connection import HotConnection
from db.send_limits import Locked, PutBack, SendLimits
from schemas.redaction import without_addresses
from schemas.send_rates import SERVER, SendRates, parse
from schemas.send_results import Accepted, Refused, Throttled
from streams.send_rate import SendRate
from tests.integration.scenario import Scenario
from tests.unit.test_send_rates import most_in

REPLY = "454 4.7.0 Throttling failure: Maximum sending rate exceeded"


def limits(url: str) -> SendLimits:
    """One worker's connection."""
    return SendLimits(HotConnection(url, application="test-rates", on_wait=lambda: None))


def rate(url: str, rates: SendRates | None = None, clock: Callable[[], float] = time.monotonic) -> SendRate:
    """One worker's rate."""
    return SendRate(limits(url), rates or SendRates(), clock=clock, jitter=lambda: 0.5)


async def clock_of(worker: SendRate) -> float:
    """The database's clock, as the locked rows see it."""
    return (await worker._limits.in_force()).now


class Asker:
    """Reserves again and again, and keeps when the database granted what."""

    def __init__(self, url: str, rates: SendRates) -> None:
        self.rate = rate(url, rates)
        self.granted: list[float] = []
        decide = self.rate._decide

        def kept(locked: Locked, *rest: Any) -> Any:
            change = decide(locked, *rest)
            self.granted += [locked.now] * change.result[0].counts.get(SERVER, 0)
            return change

        self.rate._decide = kept  # type: ignore[assignment,method-assign]

    async def ask(self, until: float) -> None:
        """As a window with a backlog does."""
        while time.monotonic() < until:
            grants = await self.rate.reserve(["a.example"] * 100)
            await asyncio.sleep(max(grants.wait, 0.01))
        await self.rate.close()


@pytest.mark.parametrize("text", ["14/s", "200/s", "30/min"])
def test_eight_workers_together_keep_the_rate(database_url: str, text: str) -> None:
    """FM-37: whatever eight connections ask for at once, no window ever holds more than the rate allows."""
    rates = parse(text, None, None)

    async def run() -> list[float]:
        askers = [Asker(database_url, rates) for _ in range(8)]
        until = time.monotonic() + 6
        await asyncio.gather(*(asker.ask(until) for asker in askers))
        return sorted(at for asker in askers for at in asker.granted)

    granted = asyncio.run(run())
    (only,) = rates.server
    assert most_in(granted, only.seconds) <= only.count
    assert len(granted) >= min(0.7 * only.per_second * 6, only.count) - 1


def test_a_restart_forgets_nothing(database_url: str, conn: Connection) -> None:
    """FM-37: the rate of an hour holds for workers that start later; usage that no window counts is removed."""
    rates = parse("5/h", None, None)

    async def one() -> int:
        worker = rate(database_url, rates)
        grants = await worker.reserve(["a.example"] * 3)
        await worker.close()
        return grants.counts.get(SERVER, 0)

    assert [asyncio.run(one()) for _ in range(3)] == [3, 2, 0]
    conn.execute("UPDATE send_usage SET bucket = bucket - interval '90 minutes'")
    assert asyncio.run(one()) == 3
    rows = conn.execute("SELECT mails FROM send_usage").fetchall()
    assert [row["mails"] for row in rows] == [3]


def test_what_was_not_claimed_is_given_back(database_url: str) -> None:
    """Grants of mails that were settled meanwhile, or whose batch was paused, do not use up the day."""

    async def run() -> list[int]:
        worker = rate(database_url, parse("5/h", "a.example=4/h", None))
        counts = []
        for given_back in (2, 0, 0):
            grants = await worker.reserve(["a.example"] * 3)
            counts.append(grants.counts.get(SERVER, 0))
            worker.unused(["a.example"] * given_back)
        await worker.close()
        return counts

    assert asyncio.run(run()) == [3, 3, 0]


def test_without_limits_nothing_is_asked(database_url: str, conn: Connection) -> None:
    """Where nothing is set or learned there is one read a second, and no row."""

    async def run() -> None:
        worker = rate(database_url)
        changes = 0

        async def change(*_: object) -> None:
            nonlocal changes
            changes += 1

        worker._limits.change = change  # type: ignore[assignment,method-assign]
        for _ in range(100):
            assert (await worker.reserve(["a.example", "b.example"])).verdicts == [0.0, 0.0]
        assert not changes
        await worker.close()

    asyncio.run(run())
    assert conn.execute("SELECT count(*) AS n FROM send_limits").fetchone() == {"n": 0}


def test_throttling_is_shared(database_url: str, conn: Connection) -> None:
    """FM-37: a reply to one worker pauses all of them; one mail tries; once it passes, all go on, slower."""
    clock = time.monotonic

    async def run() -> None:
        first, second = rate(database_url), rate(database_url)
        for worker in (first, second):
            assert (await worker.reserve(["a.example"] * 50)).verdicts == [0.0] * 50
        begun = clock()
        for _ in range(30):
            first.observe(Accepted("250"), "a.example", begun)
        first.observe(Throttled(REPLY + " <ada@a.example>", None), "a.example", begun)
        # At once, before anything was written.
        assert not first.permits("a.example", begun)
        assert (await first.reserve(["a.example"] * 50)).verdicts == [None] * 50
        await asyncio.sleep(1.1)
        grants = [await worker.reserve(["a.example"] * 50) for worker in (second, first)]
        assert [each.counts.get(SERVER, 0) for each in grants] == [1, 0]
        assert not second.permits("a.example", begun)
        tried = clock()
        assert second.permits("a.example", tried)
        second.observe(Accepted("250"), "a.example", tried)
        together = 0
        until = clock() + 2
        while clock() < until:
            for worker in (first, second):
                together += (await worker.reserve(["a.example"] * 50)).counts.get(SERVER, 0)
            await asyncio.sleep(0.05)
        assert 40 < together < 90
        for worker in (first, second):
            await worker.close()

    asyncio.run(run())
    (shown,) = send_limits.to_show(conn)
    assert shown.state.learned.reply == f"{REPLY} <(address)>"
    assert shown.state.learned.pause_seconds == 0


def test_one_domain_throttles(database_url: str) -> None:
    """FM-37: a reply about one recipient domain slows that domain down, and no other."""

    async def run() -> None:
        worker = rate(database_url)
        wanted = ["a.example", "b.example"] * 10
        assert (await worker.reserve(wanted)).verdicts == [0.0] * 20
        begun = time.monotonic()
        for name in wanted:
            worker.observe(Accepted("250"), name, begun)
        worker.observe(Throttled(REPLY, "a.example"), "a.example", begun)
        verdicts = (await worker.reserve(wanted)).verdicts
        assert verdicts[1::2] == [0.0] * 10
        assert 0.0 not in verdicts[0::2]
        assert worker.permits("b.example", begun)
        assert not worker.permits("a.example", begun)
        await worker.close()

    asyncio.run(run())


def test_the_probe_that_says_nothing(database_url: str) -> None:
    """A mail that tries and is refused for its recipient lets the next one try at once."""

    async def run() -> None:
        worker = rate(database_url)
        await worker.reserve(["a.example"])
        worker.observe(Throttled(REPLY, None), "a.example", time.monotonic())
        await worker.reserve(["a.example"])
        await asyncio.sleep(1.1)
        assert (await worker.reserve(["a.example"] * 5)).counts == {SERVER: 1}
        assert (await worker.reserve(["a.example"] * 5)).counts == {}
        worker.observe(Refused("550 no such user", permanent=True), "a.example", time.monotonic())
        assert (await worker.reserve(["a.example"] * 5)).counts == {SERVER: 1}
        await worker.close()

    asyncio.run(run())


def test_an_admin_sets_the_rate(database_url: str, conn: Connection) -> None:
    """FM-37: what is set in the database holds instead of the environment within seconds, an empty text included."""

    async def run() -> None:
        now = 0.0
        worker = rate(database_url, parse("2/s", None, None), clock=lambda: now)

        async def granted() -> int:
            nonlocal now
            now += 1.5
            await asyncio.sleep(1.1)
            return (await worker.reserve(["a.example"] * 100)).verdicts.count(0.0)

        assert await granted() == 2
        send_limits.set_rates(conn, rate="20/s", rate_domain=None, warmup=None, by="Ada")
        assert await granted() == 5
        send_limits.set_rates(conn, rate=None, rate_domain=None, warmup=None, by="Ada")
        assert await granted() == 100
        send_limits.unset_rates(conn)
        assert await granted() == 2
        conn.execute("INSERT INTO send_rate_settings (rate, set_by, set_at) VALUES ('fast', 'psql', now())")
        assert await granted() == 2
        await worker.close()

    asyncio.run(run())


def test_items_are_put_back(scenario: Scenario, database_url: str) -> None:
    """An item whose slot is later becomes due then; a settled one stays settled."""
    scenario.build(students=[1, 2, 3])
    batch = scenario.plan("students")
    conn = scenario.conn
    conn.execute("UPDATE batch_items SET publish_at = NULL")
    conn.execute("UPDATE batch_items SET settled_at = now() WHERE member_id = 3")

    async def run() -> None:
        worker = rate(database_url)
        await worker.put_back([PutBack(batch, 2, 60.0), PutBack(batch, 1, 30.0), PutBack(batch, 3, 1.0)])
        await worker.close()

    asyncio.run(run())
    due = "SELECT member_id, round(extract(epoch FROM publish_at - now()))::int AS due FROM batch_items ORDER BY 1"
    found = {row["member_id"]: row["due"] for row in conn.execute(due)}
    assert found[3] is None
    assert 25 <= found[1] <= 30
    assert 55 <= found[2] <= 60
    conn.execute("UPDATE batch_items SET settled_at = NULL WHERE member_id = 3")
    conn.execute("UPDATE batch_items SET publish_at = now()")


def test_addresses_are_not_shown() -> None:
    """A reply that quotes the recipient is logged without the address."""
    reply = "450 4.2.1 <ada.l+x@b.example>: mailbox of grace@b.example busy"
    assert without_addresses(reply) == "450 4.2.1 <(address)>: mailbox of (address) busy"
