"""The organisers of a run: they trigger batches so that work is always pending, and pause, cancel and retry some.

Everything they do is a `bidden` command. Every trigger has a key, and is repeated with that key until it succeeds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from db.connect import Connection
from tests.chaos.plan import Campaign, campaigns
from tests.chaos.supervision import CommandQueue, QueuedCommand
from tests.integration.importing import CHAPTER, EVENT, member, subscription

#: For each chapter, the share of all members that is on its lists.
_CHAPTERS: Final = (0.4, 0.7, 1.0)
_RETRY_SECONDS: Final = 4.0
#: How often the failed deliveries of one batch are retried.
_RETRIES: Final = 2


def directory(members: int, events: int) -> Iterator[dict[str, Any]]:
    """Chapters of several sizes with overlapping members, two thirds students, half coaches; every fourth event has
    the role policy `one`.

    Addresses are m1@example.org, m2@…, so that a rule of the mail server can name a tenth of them.
    """
    for number, share in enumerate(_CHAPTERS, 1):
        size = int(members * share)
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
class _Decision:
    """A command about the batch of a trigger key, due at a time; dropped after so many attempts to find the batch."""

    key: str
    command: str
    at: float
    attempts: int = 20


class Organisers:
    """Call `tick` often. While `quiet`, no new event is begun, and no batch stays paused."""

    def __init__(self, seed: int, events: int, commands: CommandQueue, low_water: int) -> None:
        self.triggered = 0
        self.cancelled: set[int] = set()
        self.quiet = False
        self._plan = campaigns(seed)
        self._rng = random.Random(f"{seed} organisers")
        self._events = events
        self._commands = commands
        self._low_water = low_water
        self._steps: list[tuple[Campaign, str]] = []
        self._decisions: list[_Decision] = []
        self._retried: dict[int, int] = {}
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def tick(self, pending: int, conn: Connection | None) -> None:
        """Trigger the next batch when little is pending; run decisions that are due. `conn`: None during an outage."""
        idle = pending < self._low_water and not self._commands.waiting_for("invite")
        # All audiences of an event that was begun are triggered, so that the audit of everyone must balance.
        if self._steps if self.quiet else idle:
            self.trigger()
        if conn is not None:
            self._run_decisions(conn)
            if not self.quiet and time.monotonic() > self._retry_at:
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                self._retry_failed(conn)
                if not any(decision.command == "resume" for decision in self._decisions):
                    # The command that should have resumed it met an outage.
                    self.resume_all(conn)

    @property
    def all_triggered(self) -> bool:
        """Whether no event is half-way through its audiences."""
        return not self._steps

    def trigger(self) -> QueuedCommand | None:
        """The next batch, or the next two at once; None when there are no more events."""
        if not self._steps:
            campaign = next(self._plan)
            if campaign.event > self._events:
                return None
            self._steps = [(campaign, audience) for audience in campaign.audiences]
            if campaign.decision is not None:
                key = _key(campaign, campaign.audiences[0])
                self._decisions.append(_Decision(key, campaign.decision, time.monotonic() + self._rng.uniform(0.8, 3)))
        campaign, audience = self._steps.pop(0)
        command = self._invite(campaign, audience)
        if campaign.at_once and self._steps:
            self._invite(*self._steps.pop(0))
        return command

    def _invite(self, campaign: Campaign, audience: str) -> QueuedCommand:
        self.triggered += 1
        arguments = ("invite", str(campaign.event), "--audience", audience, "--key", _key(campaign, audience), "--json")
        return self._commands.add(*arguments)

    def _run_decisions(self, conn: Connection) -> None:
        now = time.monotonic()
        for decision in [d for d in self._decisions if now >= d.at]:
            self._decisions.remove(decision)
            row = conn.execute("SELECT id, event_id FROM batches WHERE trigger_key = %s", [decision.key]).fetchone()
            if row is None:
                if decision.attempts and not self.quiet:
                    self._decisions.append(_Decision(decision.key, decision.command, now + 0.5, decision.attempts - 1))
                continue
            if decision.command == "cancel" and not self.quiet:
                self.cancelled.add(row["event_id"])
            if decision.command == "resume" or not self.quiet:
                self._commands.add(decision.command, str(row["id"]), "--json", may_be_refused=True)
            if decision.command == "pause" and not self.quiet:
                self._decisions.append(_Decision(decision.key, "resume", now + self._rng.uniform(1, 3)))

    def resume_all(self, conn: Connection) -> None:
        """Resume every paused batch."""
        for row in conn.execute("SELECT id FROM batches WHERE state = 'paused' ORDER BY id").fetchall():
            self._commands.add("resume", str(row["id"]), "--json", may_be_refused=True)

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
                self._commands.add("retry", str(row["id"]), "--json", may_be_refused=True)
                return


def _key(campaign: Campaign, audience: str) -> str:
    return f"{campaign.event}-{audience}"
