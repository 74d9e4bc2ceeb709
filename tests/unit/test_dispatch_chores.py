"""The chores of a dispatcher: background work in chunks."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import Settings
from producers import dispatch
from producers.dispatch import Dispatcher, next_lost_check


class Conn:
    """Stands for a connection that is only passed on."""


def test_each_chore_does_a_chunk_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one has more to do, all get a chunk in each round; then once a second. None waits for another to end."""
    monkeypatch.setattr(dispatch, "Publisher", lambda *_: None)
    left, done, now = [2, 0], [0, 0], [10.0]

    def chore(number: int) -> Any:
        def work(_: Any) -> bool:
            done[number] += 1
            left[number] -= 1
            return left[number] > 0

        return work

    dispatcher = Dispatcher(
        Settings.model_construct(), lambda: datetime.now(UTC), lambda: now[0], threading.Event(),
        chores=[chore(0), chore(1)],
    )  # fmt: skip
    conn: Any = Conn()
    assert dispatcher._run_chores(conn)
    assert not dispatcher._run_chores(conn)
    assert done == [2, 2]
    assert not dispatcher._run_chores(conn)
    assert done == [2, 2], "nothing to do: not before a second has passed"
    now[0] += 1.1
    dispatcher._run_chores(conn)
    assert done == [3, 3]


@pytest.mark.parametrize(
    ("seconds", "rest"), [(0.0, 5.0), (0.03, 5.0), (0.25, 5.0), (0.63, 12.6), (2.0, 40.0), (30.0, 60.0)]
)
def test_the_search_for_lost_items_rests_in_proportion(seconds: float, rest: float) -> None:
    """Five seconds, and more where it takes long: a twentieth of the time, but at least once a minute."""
    assert next_lost_check(100.0, 100.0 + seconds) == pytest.approx(100.0 + seconds + rest)
