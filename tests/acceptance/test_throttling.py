"""A mail server that takes fewer mails than we could send: all are sent, nobody failed, few dialogues are wasted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bench.throttling_server import Mode, ThrottlingServer
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import Bidden, eventually
from tests.unit.test_send_rates import most_in

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", [Mode.MAIL_454, Mode.MAIL_421, Mode.BODY_454])
def test_a_server_that_throttles(bidden: Bidden, books: Books, mode: Mode) -> None:
    """FM-37: at 40 a second a campaign of 1,000 loses nobody, uses no attempts, and wastes few dialogues."""
    bidden.import_lines(*directory(range(1, 1001)))
    with ThrottlingServer(40, mode) as server:
        workers = [bidden.worker(BIDDEN_SMTP_URL=server.url) for _ in range(2)]
        bidden.dispatcher()
        batch = bidden.invite("students")["batch_id"]
        eventually(lambda: bidden.status(batch)["state"] == "completed", "all are sent", seconds=200)
        status = bidden.status(batch)
        assert (status["sent"], status["failed"], status["unknown"]) == (1000, 0, 0)
        assert set(books.attempts().values()) == {1}
        assert set(server.accepted.values()) == {1}
        # What is in mid-dialogue when the first reply comes, on every connection of both workers, and once more while
        # the rate is still a guess; then hardly any.
        assert server.throttled <= 2 * 20 + 0.05 * 1000
        assert server.connections <= 150
        said = [entry for worker in workers for entry in worker.log if "asks for fewer mails" in entry.get("event", "")]
        assert said
        assert "4.7.0" in said[0]["reply"]


def test_a_full_disk_at_the_server(bidden: Bidden, books: Books) -> None:
    """FM-37: 452 to every MAIL for a while: nobody failed, one mail tries after each pause, then all go on."""
    bidden.import_lines(*directory(range(1, 301)))
    full = True
    with ThrottlingServer(1000, Mode.MAIL_452, lambda _: full) as server:
        bidden.worker(BIDDEN_SMTP_URL=server.url)
        bidden.dispatcher()
        batch = bidden.invite("students")["batch_id"]
        eventually(lambda: server.throttled > 0, "the server refuses")
        eventually(lambda: paused(books) >= 4, "the pause grows")
        assert server.throttled <= 10 + 10 + 4
        full = False
        eventually(lambda: bidden.status(batch)["state"] == "completed", "all are sent")
        assert bidden.status(batch)["sent"] == 300
        assert set(books.attempts().values()) == {1}


def paused(books: Books) -> float:
    """The last pause in seconds."""
    row = books.conn.execute("SELECT pause_seconds FROM send_limits WHERE scope = ''").fetchone()
    return 0.0 if row is None else float(row["pause_seconds"])


def test_a_rate_that_is_set(bidden: Bidden, books: Books) -> None:
    """FM-37: 30/s holds for two workers together; a domain's own rate holds up nobody else."""
    bidden.import_lines(*directory(range(1, 201)))
    books.conn.execute("UPDATE members SET email = 'm' || id || '@slow.example' WHERE id % 10 = 0")
    rates = {"BIDDEN_SEND_RATE": "30/s", "BIDDEN_SEND_RATE_DOMAIN": "slow.example=1/s"}
    for _ in range(2):
        bidden.worker(**rates)
    bidden.dispatcher()
    batch = bidden.invite("students")["batch_id"]
    eventually(lambda: bidden.status(batch)["state"] == "completed", "all are sent")
    assert set(books.attempts().values()) == {1}
    sent = {member: entry["at"] for (member, _), entry in books.log(batch).items()}
    slow = sorted(at for member, at in sent.items() if member % 10 == 0)
    others = sorted(at for member, at in sent.items() if member % 10)
    assert (slow[-1] - slow[0]).total_seconds() >= 18
    # 180 of them take 6 s at 30/s; they do not wait for the domain.
    assert others[-1] < slow[-1] - timedelta(seconds=3)
    # Outcomes are recorded a little after the mails went out, several at once.
    assert most_in([at.timestamp() for at in others], 1.0) <= 45
