"""A ledger whose directory is an organisation's database, for the tests of what is placed there before mails go out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from config.settings import Settings
from db import placing
from schemas.outcomes import Sent
from tests.integration.scenario import Scenario
from tests.organisations.organisation import OwnDatabase, Planner

FIVE: Final = (1, 2, 3, 4, 5)


class Work:
    """A ledger whose directory is an organisation's database: five members, a snapshot, and a worker."""

    def __init__(self, scenario: Scenario, settings: Settings, own: OwnDatabase) -> None:
        self.scenario, self.settings, self.own = scenario, settings, own
        self.agent = scenario.agent()
        own.add(*FIVE)
        own.sync()
        scenario._one = isinstance(own, Planner)

    def plan(self, audience: str = "students") -> int:
        """A new batch."""
        return self.scenario.plan(audience, self.own.event_id)

    def place(self) -> int:
        """What `sync` does between two snapshots; how many batches it opened."""
        return placing.place(self.settings, self.own.source())

    def deliver(self, batch: int, *members: int, role: str = "Student") -> dict[int, str | None]:
        """Claim and mail these members; returns the token in the mail of each who was claimed."""
        found: dict[int, str | None] = {}
        for member in members:
            request = self.scenario.request(batch, member, role, self.own.event_id)
            claimed = self.agent.try_claim(request)
            if claimed is not None:
                assert claimed.recipient is not None
                found[member] = claimed.recipient.token
                self.agent.record(request, claimed, Sent("250 ok"))
        return found

    def tokens(self) -> dict[int, str]:
        """The ledger's, of each member."""
        return {row["member_id"]: row["token"] for row in self.scenario.execute("SELECT * FROM invitations")}

    def placements(self) -> dict[tuple[int, str], str | None]:
        """Of each member and role."""
        rows = self.scenario.execute("SELECT member_id, role, placement FROM invitations")
        return {(row["member_id"], row["role"]): row["placement"] for row in rows}


@contextmanager
def at_work(kind: type[OwnDatabase], scenario: Scenario, database_url: str, own_database: str) -> Iterator[Work]:
    """With a database of this kind."""
    settings = Settings(database_url=database_url, _env_file=None)  # type: ignore[call-arg, arg-type] # pydantic-settings
    with closing(kind(settings, own_database)) as own:
        yield Work(scenario, settings, own)
