"""Replays what a source does in the model: it gets invitations, is read, and has a rival. The ledger's part is real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from db import placing
from db.statements import sql
from tests.integration.scenario import Scenario
from tests.protocol.state import OURS, THEIRS

_STEPS = {
    "the rival invites",
    "the source gets the invitation",
    "the source does not take the invitation",
    "its placement is recorded",
    "the source is read",
    "what is placed is opened",
}


def verb_of_source(verb: str) -> bool:
    """Whether the step is one of these."""
    return verb in _STEPS


class ReplayedSource:
    """The source's row for the one member of the event. `batches` are those of the walk."""

    def __init__(self, scenario: Scenario, event: int, batches: Sequence[int]) -> None:
        self._scenario = scenario
        self._event = event
        self._batches = batches
        self._row: dict[str, Any] | None = None

    def begin(self) -> None:
        """The directory comes from a source that gets invitations."""
        self._scenario.execute(
            "INSERT INTO directory_source (id, began_at, applied_at, places, result) "
            "VALUES (1, now(), now(), true, '{}')"
        )

    def step(self, verb: str) -> None:
        """Do what the move says."""
        match verb:
            case "the rival invites":
                self._row = self._invitation() | {"token": f"rival-{self._event}", "by": THEIRS}
            case "the source gets the invitation":
                self._row = self._invitation() | {"by": OURS}
            case "the source does not take the invitation":
                self._keep([])
            case "its placement is recorded":
                assert self._row is not None
                answer = {name: self._row[name] for name in ("event_id", "member_id", "role", "token")}
                self._keep([answer | {"ours": self._row["by"] == OURS}])
            case "the source is read":
                self._read()
            case _:
                assert self._scenario.conn.execute(sql("open_placed_batches")).fetchall()

    def _invitation(self) -> dict[str, Any]:
        (row,) = self._scenario.execute(
            "SELECT event_id, member_id, role, token FROM invitations WHERE event_id = %s AND role = 'Student'",
            self._event,
        )
        return row

    def _keep(self, answers: list[dict[str, Any]]) -> None:
        placing.keep(self._scenario.conn, self._batches[0], [self._invitation()], answers)

    def _read(self) -> None:
        """A line whose token is not the ledger's is set aside."""
        if self._row is not None and self._row["token"] == self._invitation()["token"]:
            line = {name: self._row[name] for name in ("event_id", "member_id", "role", "token")}
            self._scenario.load({"type": "invitation", "sent_at": "2026-01-01T00:00:00Z", **line})
        self._scenario.execute("UPDATE directory_source SET began_at = clock_timestamp()")
