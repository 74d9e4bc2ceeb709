"""`bidden sync --every`: one snapshot after the other, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from cli.commands import source as command
from config.settings import Settings
from config.stop_signals import StopRequest
from db.snapshots import Changes, Snapshot
from db.source import Source
from schemas.errors import InputError, RefusedError, UnreachableError


def snapshot(added: int) -> Snapshot:
    """One that changed something, or nothing."""
    return Snapshot(datetime.now(UTC), {"member": 3}, {"member": Changes(added, 0, 0, 3)}, 0)


class Turns(StopRequest):
    """Stops after so many turns, and notes how long was waited before each."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._turns = turns

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return len(self.waits) > self._turns


@pytest.fixture
def repeat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Any], Turns]]:
    """Runs the loop with these results or errors, one for each turn; returns what was logged."""

    def run(*results: Snapshot | Exception) -> tuple[list[Any], Turns]:
        left = iter(results)

        def sync_once(*_: object, **__: object) -> Snapshot:
            result = next(left)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr("db.sync.sync_once", sync_once)
        stop = Turns(len(results))
        with capture_logs() as logs:
            command._repeat(Settings.model_construct(), Source("", "UTC", {}), 60.0, stop)
        return logs, stop

    return run


def test_changes_are_logged(repeat: Callable[..., tuple[list[Any], Turns]]) -> None:
    """The first snapshot at once, then those that change something, each a pause after the one before began."""
    logs, stop = repeat(snapshot(0), snapshot(0), snapshot(2))
    assert [line["event"] for line in logs] == ["a snapshot was taken"] * 2
    assert "2 added" in logs[1]["changes"]
    assert stop.waits[0] == 0
    assert all(50 < wait <= 60 for wait in stop.waits[1:])


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("the source cannot be read"),
        RefusedError("the snapshot differs too much"),
        psycopg.OperationalError("server closed the connection"),
    ],
)
def test_what_goes_wrong_is_tried_again(repeat: Callable[..., tuple[list[Any], Turns]], error: Exception) -> None:
    """Also a lost connection to our own database; said once, not at each turn."""
    logs, _ = repeat(snapshot(0), error, error, snapshot(1))
    assert [line["event"] for line in logs] == [
        "a snapshot was taken",
        "the source was not synced",
        "a snapshot was taken",
    ]


def test_a_refused_first_one(repeat: Callable[..., tuple[list[Any], Turns]]) -> None:
    """Somebody takes it with --accept, and need not start this again."""
    logs, _ = repeat(RefusedError("the snapshot differs too much"), snapshot(1))
    assert [line["event"] for line in logs] == ["the source was not synced", "a snapshot was taken"]


@pytest.mark.parametrize(
    ("results", "error"),
    [
        ([UnreachableError("the source cannot be read")], UnreachableError),
        ([InputError("the query member fails", line=3)], InputError),
        ([snapshot(0), InputError("the query member fails", line=3)], InputError),
    ],
)
def test_what_ends_it(
    repeat: Callable[..., tuple[list[Any], Turns]], results: list[Snapshot | Exception], error: type[Exception]
) -> None:
    """A source that is away at the start, and queries that do not fit, at the start or later."""
    with pytest.raises(error):
        repeat(*results)


def test_invitations_are_placed_between_snapshots(
    repeat: Callable[..., tuple[list[Any], Turns]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second, where the source gets any; a source that is away is asked again."""
    placed: list[object] = []

    def place(*_: object) -> int:
        placed.append(None)
        if len(placed) == 2:
            raise UnreachableError("the source is away")
        return 0

    monkeypatch.setattr("db.placing.places", lambda _: True)
    monkeypatch.setattr("db.placing.place", place)
    logs, stop = repeat(snapshot(0), *[RuntimeError("no snapshot is due")] * 3)
    assert stop.waits[1:] == [1.0, 1.0, 1.0, 1.0]
    assert len(placed) == 4
    assert [line["event"] for line in logs] == ["a snapshot was taken", "the source was not synced"]


def test_a_bug_ends_it(repeat: Callable[..., tuple[list[Any], Turns]]) -> None:
    """With its traceback."""
    with pytest.raises(ZeroDivisionError):
        repeat(ZeroDivisionError())
