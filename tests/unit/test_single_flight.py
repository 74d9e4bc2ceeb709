"""The single-flight cache, and the progress of batches that is read through it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from fastapi.responses import StreamingResponse

from schemas.errors import NotFoundError
from web.pages import batches as batch_pages
from web.progress import Progress, ProgressCache
from web.single_flight import SingleFlightCache


def test_a_value_is_loaded_once() -> None:
    """However many ask within the TTL, there is one load; its error is raised, and not cached."""
    loaded: list[int] = []
    now = 1.0

    def load(key: int) -> int:
        loaded.append(key)
        if key == 2:
            raise NotFoundError("gone", field="batch")
        return len(loaded)

    cache = SingleFlightCache(load, 1.0, lambda: now)
    threads = [threading.Thread(target=cache.get, args=(1,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [1]
    now = 1.99
    assert cache.get(1) == 1
    assert cache.get(1, began_after=1.5) == 2, "loaded before that"
    assert cache.get(1, began_after=1.5) == 2
    now = 2.99
    assert cache.get(1) == 3
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cache.get(2)
    assert loaded == [1, 1, 1, 2, 2]
    now = 100.0
    assert cache.get(3) == 6
    assert list(cache._entries) == [3]


def test_an_error_is_raised_in_all_that_waited() -> None:
    """In an outage each load takes long: twenty threads get the error of one load, and do not load one by one."""
    clock_reads = loaded = failed = 0
    counting, all_wait = threading.Lock(), threading.Event()

    def clock() -> float:
        nonlocal clock_reads
        with counting:
            clock_reads += 1
            # The load reads the clock, too.
            if clock_reads == 21:
                all_wait.set()
        return 1.0

    def load(_: int) -> int:
        nonlocal loaded
        loaded += 1
        assert all_wait.wait(30)
        with cache._lock:
            raise psycopg.OperationalError("away")

    def watch() -> None:
        nonlocal failed
        with pytest.raises(psycopg.OperationalError):
            cache.get(1)
        with counting:
            failed += 1

    cache = SingleFlightCache(load, 1.0, clock)
    threads = [threading.Thread(target=watch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (loaded, failed) == (1, 20)
    with pytest.raises(psycopg.OperationalError):
        cache.get(1)
    assert loaded == 2, "the error is not cached"


def test_watchers_leave_threads_to_other_requests() -> None:
    """However many batches are watched while the database is down, other requests find a thread."""
    is_back = threading.Event()

    def load(_: int) -> Progress:
        assert is_back.wait(30)
        raise psycopg.OperationalError("away")

    cache = ProgressCache(load)
    state = SimpleNamespace(progress_cache=cache, should_stop=lambda: False)
    request: Any = SimpleNamespace(app=SimpleNamespace(state=state))

    async def watch_all() -> None:
        async with anyio.create_task_group() as group:
            for number in range(60):
                batch: Any = SimpleNamespace(id=number, event=None)
                response = batch_pages.watch(None, batch, request)  # type: ignore[arg-type] # fails before it is rendered
                assert isinstance(response, StreamingResponse)
                group.start_soon(anext, aiter(response.body_iterator), None)
            while cache.threads.statistics().tasks_waiting < 56:
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(30):
                assert await anyio.to_thread.run_sync(lambda: "answered") == "answered"
            is_back.set()

    anyio.run(watch_all)


def test_a_stale_value_is_served_during_a_load() -> None:
    """While one thread loads, others get the last value or None; nothing is loaded twice at the same time."""
    entered, go_on = threading.Event(), threading.Event()
    loads: list[int] = []
    now = [0.0]

    def load(_: str) -> int:
        loads.append(len(loads))
        entered.set()
        assert go_on.wait(30)
        return loads[-1]

    cache = SingleFlightCache(load, 4, lambda: now[0])
    for before in (None, 0):
        entered.clear()
        go_on.clear()
        now[0] += 5
        values: list[Any] = []
        thread = threading.Thread(target=lambda values: values.append(cache.get_without_waiting("lag")), args=(values,))
        thread.start()
        assert entered.wait(30)
        assert cache.get_without_waiting("lag") == before
        go_on.set()
        thread.join()
        assert values == [loads[-1]]
        assert cache.get_without_waiting("lag") == loads[-1]
    assert loads == [0, 1]
    began = time.monotonic()
    assert cache.get_without_waiting("lag") == 1
    assert time.monotonic() - began < 1


def test_loads_take_a_share_of_the_time() -> None:
    """FM-40: what takes long to load is loaded less often: polling costs the same for a large batch and a small one."""
    now, loads = 0.0, 0

    def load(seconds: float) -> int:
        nonlocal now, loads
        loads += 1
        now += seconds
        return loads

    cache = SingleFlightCache(load, 1.0, lambda: now, share=0.1)
    for seconds, most in ((0.01, 100), (2.0, 6)):
        loads, started = 0, now
        while now < started + 100:
            cache.get(seconds)
            now += 0.25
        assert 0 < loads <= most
        assert loads * seconds <= 0.1 * (now - started) + seconds
