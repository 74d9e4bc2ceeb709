"""Looks at a batch that all who watch it share: one at a time, its failure told to all, and few threads for all."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from fastapi.responses import StreamingResponse

from schemas.errors import NotFoundError
from web.pages import batches as batch_pages
from web.pages.batches import Looks, Progress
from web.single_flight import SharedLooks


def test_watchers_share_a_look() -> None:
    """However many ask within a second, there is one look; an error of it is told, and not kept."""
    looked: list[int] = []
    now = 1.0

    def look(key: int) -> int:
        looked.append(key)
        if key == 2:
            raise NotFoundError("gone", field="batch")
        return len(looked)

    looks = SharedLooks(look, 1.0, lambda: now)
    threads = [threading.Thread(target=looks.at, args=(1,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked == [1]
    now = 1.99
    assert looks.at(1) == 1
    assert looks.at(1, since=1.5) == 2, "looked at before"
    assert looks.at(1, since=1.5) == 2
    now = 2.99
    assert looks.at(1) == 3
    for _ in range(2):
        with pytest.raises(NotFoundError):
            looks.at(2)
    assert looked == [1, 1, 1, 2, 2]
    now = 100.0
    assert looks.at(3) == 6
    assert list(looks._kept) == [3]


def test_who_waits_for_a_look_that_fails_is_told() -> None:
    """In an outage every look takes long: twenty who wait get the failure of one, and not one after the other."""
    asked = looked = failed = 0
    counting, all_wait = threading.Lock(), threading.Event()

    def clock() -> float:
        nonlocal asked
        with counting:
            asked += 1
            # The look asks, too.
            if asked == 21:
                all_wait.set()
        return 1.0

    def look(_: int) -> int:
        nonlocal looked
        looked += 1
        assert all_wait.wait(30)
        with looks._lock:
            raise psycopg.OperationalError("away")

    def watch() -> None:
        nonlocal failed
        with pytest.raises(psycopg.OperationalError):
            looks.at(1)
        with counting:
            failed += 1

    looks = SharedLooks(look, 1.0, clock)
    threads = [threading.Thread(target=watch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (looked, failed) == (1, 20)
    with pytest.raises(psycopg.OperationalError):
        looks.at(1)
    assert looked == 2, "nothing is kept of it"


def test_watchers_leave_threads_to_others() -> None:
    """However many batches are watched while the database is away: other requests find a thread."""
    there_again = threading.Event()

    def look(_: int) -> Progress:
        assert there_again.wait(30)
        raise psycopg.OperationalError("away")

    looks = Looks(look)
    state = SimpleNamespace(looks=looks, should_stop=lambda: False)
    request: Any = SimpleNamespace(app=SimpleNamespace(state=state))

    async def watch_all() -> None:
        async with anyio.create_task_group() as group:
            for number in range(60):
                batch: Any = SimpleNamespace(id=number, event=None)
                response = batch_pages.watch(None, batch, request)  # type: ignore[arg-type] # fails before it is shown
                assert isinstance(response, StreamingResponse)
                group.start_soon(anext, aiter(response.body_iterator), None)
            while looks.threads.statistics().tasks_waiting < 56:
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(30):
                assert await anyio.to_thread.run_sync(lambda: "answered") == "answered"
            there_again.set()

    anyio.run(watch_all)
