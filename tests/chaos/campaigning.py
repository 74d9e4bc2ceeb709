"""The organisers of a run: they trigger campaigns so that there is always work in hand, and change their minds.

Everything they do is a `bidden` command. Every trigger has a key, and is repeated with it until it came through.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from db.connect import Connection
from tests.chaos.plan import Campaign, campaigns
from tests.chaos.processes import Errand, Errands
from tests.integration.importing import CHAPTER, EVENT, member, subscription

#: Chapters by the part of all members that is on their lists.
_CHAPTERS: Final = (0.4, 0.7, 1.0)
_RETRY_SECONDS: Final = 4.0
#: How often the failed of one batch are tried again.
_RETRIES: Final = 2


def directory(members: int, events: int) -> Iterator[dict[str, Any]]:
    """Chapters of several sizes with the same people, two thirds students, half coaches; every fourth event mails once.

    Addresses are m1@example.org, m2@…, so that a rule of the mail server can name a tenth of them.
    """
    for number, part in enumerate(_CHAPTERS, 1):
        size = int(members * part)
        yield CHAPTER | {"id": number, "name": f"Chapter {number}"}
        yield {"type": "group", "id": 2 * number - 1, "chapter_id": number, "name": "Students"}
        yield {"type": "group", "id": 2 * number, "chapter_id": number, "name": "Coaches"}
        yield from (subscription(n, 2 * number - 1) for n in range(1, size * 2 // 3 + 1))
        yield from (subscription(n, 2 * number) for n in range(size // 2, size + 1))
    yield from (member(n, accepted_toc_at="2020-01-01T00:00:00Z") for n in range(1, members + 1))
    for number in range(1, events + 1):
        chapter = (number - 1) % len(_CHAPTERS) + 1
        policy = "one" if number % 4 == 0 else "each"
        yield EVENT | {"id": number, "chapter_ids": [chapter], "role_policy": policy}


@dataclass
class _Thought:
    """A second thought about a batch, when its time has come."""

    key: str
    what: str
    at: float
    patience: int = 20


class Campaigning:
    """Call `look` often. `quiet`: nothing new is begun, and no batch stays paused."""

    def __init__(self, seed: int, events: int, errands: Errands, low_water: int) -> None:
        self.triggered = 0
        self.cancelled: set[int] = set()
        self.quiet = False
        self._plan = campaigns(seed)
        self._rng = random.Random(f"{seed} organisers")
        self._events = events
        self._errands = errands
        self._low_water = low_water
        self._steps: list[tuple[Campaign, str]] = []
        self._thoughts: list[_Thought] = []
        self._retried: dict[int, int] = {}
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def look(self, pending: int, conn: Connection | None) -> None:
        """Trigger what is next when little is pending; act on second thoughts. `conn`: None while it is away."""
        idle = pending < self._low_water and not self._errands.waiting_for("invite")
        # An event that was begun is brought to its end, so that an audit of everyone can be asked for.
        if self._steps if self.quiet else idle:
            self.trigger()
        if conn is not None:
            self._think_again(conn)
            if not self.quiet and time.monotonic() > self._retry_at:
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                self._retry_failed(conn)
                if not any(thought.what == "resume" for thought in self._thoughts):
                    # A server was away when somebody would have resumed it.
                    self.resume_all(conn)

    @property
    def all_triggered(self) -> bool:
        """Whether no event is half-way through its audiences."""
        return not self._steps

    def trigger(self) -> Errand | None:
        """The next batch, or the next two at once; None when there are no more events."""
        if not self._steps:
            campaign = next(self._plan)
            if campaign.event > self._events:
                return None
            self._steps = [(campaign, audience) for audience in campaign.audiences]
            if campaign.thought is not None:
                key = _key(campaign, campaign.audiences[0])
                self._thoughts.append(_Thought(key, campaign.thought, time.monotonic() + self._rng.uniform(0.8, 3)))
        campaign, audience = self._steps.pop(0)
        errand = self._invite(campaign, audience)
        if campaign.together and self._steps:
            self._invite(*self._steps.pop(0))
        return errand

    def _invite(self, campaign: Campaign, audience: str) -> Errand:
        self.triggered += 1
        words = ("invite", str(campaign.event), "--audience", audience, "--key", _key(campaign, audience), "--json")
        return self._errands.add(*words)

    def _think_again(self, conn: Connection) -> None:
        now = time.monotonic()
        for thought in [t for t in self._thoughts if now >= t.at]:
            self._thoughts.remove(thought)
            row = conn.execute("SELECT id, event_id FROM batches WHERE trigger_key = %s", [thought.key]).fetchone()
            if row is None:
                if thought.patience and not self.quiet:
                    self._thoughts.append(_Thought(thought.key, thought.what, now + 0.5, thought.patience - 1))
                continue
            if thought.what == "cancel" and not self.quiet:
                self.cancelled.add(row["event_id"])
            if thought.what == "resume" or not self.quiet:
                self._errands.add(thought.what, str(row["id"]), "--json", may_be_refused=True)
            if thought.what == "pause" and not self.quiet:
                self._thoughts.append(_Thought(thought.key, "resume", now + self._rng.uniform(1, 3)))

    def resume_all(self, conn: Connection) -> None:
        """Nobody stays paused."""
        for row in conn.execute("SELECT id FROM batches WHERE state = 'paused' ORDER BY id").fetchall():
            self._errands.add("resume", str(row["id"]), "--json", may_be_refused=True)

    def _retry_failed(self, conn: Connection) -> None:
        rows = conn.execute(
            "SELECT b.id FROM batches b WHERE b.state = 'running'"
            " AND EXISTS (SELECT FROM log_entries l WHERE l.batch_id = b.id AND l.status = 'failed')"
            " AND NOT EXISTS (SELECT FROM batch_items i WHERE i.batch_id = b.id AND i.settled_at IS NULL)"
            " ORDER BY b.id DESC LIMIT 20"
        ).fetchall()
        for row in rows:
            if self._retried.get(row["id"], 0) < _RETRIES:
                self._retried[row["id"]] = self._retried.get(row["id"], 0) + 1
                self._errands.add("retry", str(row["id"]), "--json", may_be_refused=True)
                return


def _key(campaign: Campaign, audience: str) -> str:
    return f"{campaign.event}-{audience}"
