"""A server is away for a minute, twice as long as the watchdog's patience: nobody ends, and all go on by themselves.

Three stacks at once, each without another server, and on each of them both runners: the minute is waited for once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM
from typing import Final

import pytest

from embedded.server import Server
from embedded.stack import Stack
from schemas.vocabulary import Audience
from streams.watchdog import LIMIT_SECONDS
from tests.acceptance.outage_scenes import Scene, handing_over, start_scenes
from tests.acceptance.processes import Process, eventually

pytestmark = pytest.mark.slow

AWAY_SECONDS: Final = 60.0
STUDENTS, COACHES = range(1, 601), range(601, 661)
EVERYONE: Final = len(STUDENTS) + len(COACHES)
SERVERS: Final = ("mail", "kafka", "postgres")
#: What a worker says of a server that is away, and when it is back.
SAID: Final = {
    "mail": ("waiting for the mail server", "the mail server is back"),
    "kafka": ("waiting for Kafka", "Kafka is back"),
    "postgres": ("waiting for PostgreSQL", "PostgreSQL is back"),
}
#: From the server's first answer to the next accepted mail, in seconds. Kafka has its group to gather first.
BACK_WITHIN: Final = {"mail": 15.0, "kafka": 30.0, "postgres": 15.0}
#: The most lines that a worker, and a dispatcher, may log in that minute: what their back-off allows.
WORKER_LINES: Final = {"mail": 16, "kafka": 30, "postgres": 80}
#: With the mail server away a dispatcher works: it says what it publishes, in chunks that the load decides.
DISPATCHER_LINES: Final = {"mail": 40, "kafka": 30, "postgres": 20}


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[dict[str, Stack]]:
    """A stack for each server that goes away."""
    made = {name: Stack(tmp_path / f"without-{name}") for name in SERVERS}
    with ThreadPoolExecutor(len(made)) as pool:
        try:
            list(pool.map(Stack.start, made.values()))
            yield made
        finally:
            list(pool.map(Stack.stop, made.values()))


def server(scene: Scene) -> Server:
    """The one that goes away."""
    return next(server for server in scene.stack.servers if server.name == scene.server)


def under_way(scenes: list[Scene]) -> None:
    """Each scene's workers are in the middle of a batch that will not end by itself for a while."""
    for scene in scenes:
        for worker in scene.workers:
            worker.ready()
    for scene in scenes:
        scene.stack.mail.set_rules([{"do": "delay", "seconds": 1}])
        scene.invite(Audience.STUDENTS)
    for scene in scenes:
        eventually(lambda scene=scene: len(scene.mails()) >= 10, f"{scene}: mails go out")  # type: ignore[misc]
        assert len(scene.mails()) < len(STUDENTS), f"{scene}: the batch has ended already"


def take_away(scenes: list[Scene]) -> None:
    """Every scene's server, each as it goes when it is shut down in good order."""
    for scene in scenes:
        if scene.server == "mail":
            # It lets the dialogues end, takes no mail and no connection any more, and then is gone.
            scene.stack.mail.set_rules(
                [{"do": "refuse_recipient", "reply": "421 4.3.2 Going down"}, {"do": "refuse_connection"}]
            )
    for scene in scenes:
        if scene.server == "mail":
            with scene.books() as books:
                eventually(lambda books=books: handing_over(books.conn) == 0, f"{scene}: nothing in flight")  # type: ignore[misc]
    for scene in scenes:
        server(scene).stop()  # the second scene of a stack finds it stopped
        if scene.server != "mail":
            scene.stack.mail.clear_rules()


def said(process: Process, event: str, since: datetime) -> bool:
    """Whether it has logged this since then."""
    return any(datetime.fromisoformat(entry["timestamp"]) >= since for entry in process.said(event))


def test_each_server_is_away_for_a_minute(stacks: dict[str, Stack], tmp_path: Path) -> None:
    """FM-30, FM-10, FM-12: mail server, Kafka and PostgreSQL away for a minute: said, waited for, nobody's attempt.

    Workers and dispatchers live through it and say what they wait for, no oftener than their back-off allows.
    Within seconds of the server's return mails go out again; every delivery is sent, at its first attempt, and
    none is in doubt: whoever waits for PostgreSQL with mails in flight records them when it is back.
    """
    assert AWAY_SECONDS > 1.5 * LIMIT_SECONDS, "the watchdog would not have had the time to bark"
    with ExitStack() as ends:
        scenes = [s for name, stack in stacks.items() for s in start_scenes(stack, name, tmp_path, STUDENTS, COACHES)]
        for scene in scenes:
            ends.enter_context(scene.bidden)
        under_way(scenes)
        for scene in scenes:
            scene.count_lines()
        take_away(scenes)
        gone = datetime.now(UTC)
        for scene in scenes:
            if scene.server != "postgres":
                scene.invite(Audience.COACHES)
        time.sleep(max(0.0, AWAY_SECONDS - (datetime.now(UTC) - gone).total_seconds()))
        for scene in scenes:
            look_at_the_wait(scene, gone)
        back = bring_back(stacks)
        for scene in scenes:
            look_at_the_return(scene, *back[scene.server])
        for scene in scenes:
            for process in scene.processes:
                assert process.running, process.story()
                process.signal(SIGTERM)
        for scene in scenes:
            assert [process.end() for process in scene.processes] == [0, 0, 0], scene


def look_at_the_wait(scene: Scene, gone: datetime) -> None:
    """At the end of the minute: all run, say what they wait for, and do not say it too often."""
    lines = scene.count_lines()
    for process in scene.processes:
        assert process.running, process.story()
    for worker in scene.workers:
        assert said(worker, SAID[scene.server][0], scene_began(scene, gone)), worker.story()
        assert not said(worker, SAID[scene.server][1], gone), worker.story()
        assert lines[worker] <= WORKER_LINES[scene.server], (str(scene), lines[worker], worker.story())
    waits = said(scene.dispatcher, "waiting for a server", gone)
    assert waits == (scene.server != "mail"), scene.dispatcher.story()
    assert lines[scene.dispatcher] <= DISPATCHER_LINES[scene.server], (str(scene), scene.dispatcher.story())
    print(f"{scene}: lines {[lines[p] for p in scene.processes]}")
    assert len(scene.mails()) < EVERYONE, f"{scene}: nothing was left to do"


def scene_began(scene: Scene, gone: datetime) -> datetime:
    """The mail server refuses before it is gone."""
    return datetime.min.replace(tzinfo=UTC) if scene.server == "mail" else gone


def bring_back(stacks: dict[str, Stack]) -> dict[str, tuple[datetime, datetime]]:
    """All three at once; when each was started, and when it answered."""

    def start(name: str) -> tuple[datetime, datetime]:
        stack, began = stacks[name], datetime.now(UTC)
        if name == "mail":
            stack.mail.clear_rules()
        next(server for server in stack.servers if server.name == name).start()
        return began, datetime.now(UTC)

    with ThreadPoolExecutor(len(stacks)) as pool:
        return dict(zip(stacks, pool.map(start, stacks), strict=True))


def look_at_the_return(scene: Scene, began: datetime, back: datetime) -> None:
    """Mails go out within the bound, the books agree, and nobody has used a second attempt."""

    def after() -> list[datetime]:
        return [at for at in scene.mails() if at > began]

    eventually(lambda: bool(after()), f"{scene}: mails go out again")
    # A worker may find the server before we do.
    seconds = (min(after()) - back).total_seconds()
    print(f"{scene}: the next mail {seconds:.1f} s after the server answered")
    assert seconds <= BACK_WITHIN[scene.server], scene
    for worker in scene.workers:
        eventually(is_back(worker, scene), f"{scene}: {worker} says that it goes on")
    if scene.server == "postgres":
        scene.invite(Audience.COACHES)
    scene.wait_completed()
    with scene.books() as books:
        books.check(scene.event)
        assert set(books.attempts(scene.event).values()) == {1}, scene
    assert len(scene.mails()) == EVERYONE, scene


def is_back(worker: Process, scene: Scene) -> Callable[[], bool]:
    """Whether the worker says that the server is back."""
    return lambda: bool(worker.said(SAID[scene.server][1]))
