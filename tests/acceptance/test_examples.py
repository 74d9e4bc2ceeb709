"""Each program of examples/ does what it says, on real servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from embedded import ports
from tests.acceptance.books import Books, directory
from tests.acceptance.processes import ROOT, TIMEOUT_SECONDS, Bidden, environment, eventually
from tests.conformance.http_provider import TOKEN, HttpProvider

pytestmark = pytest.mark.slow

MEMBERS = 30


def command(name: str, *arguments: str) -> list[str]:
    """An example, as its docstring says to start it."""
    return [sys.executable, str(ROOT / "examples" / name), *arguments]


def run(name: str, *arguments: str, folder: Path, env: dict[str, str], code: int = 0) -> tuple[list[Any], str]:
    """An example until it has ended: the JSON lines that it printed, and its stderr."""
    done = subprocess.run(
        command(name, *arguments),
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == code, done
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_trigger_by_http(bidden: Bidden, books: Books, tmp_path: Path) -> None:
    """FM-31: started by HTTP, complete, in numbers; the same key again is the same batch; an error says why."""
    port = str(ports.choose({"web": None}, {})["web"])
    site = bidden.start("admin", "--port", port, "--json")
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    bidden.run("account", "add", "ada@example.org", "--name", "Ada", "--role", "admin", "--no-password")
    scopes = ("--scope", "read", "--scope", "invite")
    token = bidden.run("client", "add", "planner", "--account", "ada@example.org", *scopes, "--json").json["token"]
    bidden.dispatcher()
    bidden.worker()
    eventually(lambda: bool(site.logged("the web application is up")), "the application is up")

    env = environment(None, BIDDEN_TOKEN=token)
    arguments = ("--api", f"http://127.0.0.1:{port}/api/v1", "--key", "plan-981")
    first, _ = run("trigger_by_http.py", "1", "students", *arguments, folder=tmp_path, env=env)
    again, _ = run("trigger_by_http.py", "1", "students", *arguments, folder=tmp_path, env=env)
    assert first == again
    assert [(batch["state"], batch["sent"], batch["deliveries"]) for batch in first] == [("completed", 30, 30)]
    books.check()
    _, error = run("trigger_by_http.py", "1", "coaches", *arguments, folder=tmp_path, env=env, code=1)
    assert error.startswith("422: ")
    env = environment(None, BIDDEN_TOKEN="wrong")
    _, error = run("trigger_by_http.py", "1", "students", *arguments, folder=tmp_path, env=env, code=1)
    assert error.startswith("401: ")


def test_consume_the_topic(bidden: Bidden, books: Books, settings: Settings, tmp_path: Path) -> None:
    """Another group gets each message with its CloudEvents attributes, goes on where it was, and takes nothing away."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1), events=2))
    bidden.worker()
    bidden.dispatcher()
    batches = [bidden.invite("students", "--wait", event=event)["batch_id"] for event in (1, 2)]
    arguments = ["--bootstrap", settings.require_kafka(), "--prefix", settings.topic_prefix]
    arguments += ["--group", f"{settings.group}-statistics"]
    found = []
    for count in (MEMBERS, MEMBERS):
        lines, _ = run(
            "consume_the_topic.py", *arguments, "--count", str(count), folder=tmp_path, env=environment(None)
        )
        found += lines
    assert Counter((line["value"]["batch_id"], line["value"]["member_id"]) for line in found) == dict.fromkeys(
        ((batch, member) for batch in batches for member in range(1, MEMBERS + 1)), 1
    )
    for line in found:
        assert line["key"] == line["event"]["subject"] == str(line["value"]["member_id"])
        assert line["event"]["type"] == "org.bidden.invitation.due.v1"
        assert line["traceparent"].startswith("00-")
    arguments += ["--topic", "outcomes.v1", "--count", str(2 * MEMBERS)]
    outcomes, _ = run("consume_the_topic.py", *arguments, folder=tmp_path, env=environment(None))
    sent = {f"{event}/invite/{member}/Student" for event in (1, 2) for member in range(1, MEMBERS + 1)}
    assert {line["key"] for line in outcomes if line["value"]["state"] == "sent"} == sent
    assert {line["event"]["type"] for line in outcomes} == {"org.bidden.delivery.outcome.v1"}
    for event in (1, 2):
        books.check(event)


@contextmanager
def serving(provider: HttpProvider) -> Iterator[HttpProvider]:
    """The provider, in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(provider.start(), loop).result(TIMEOUT_SECONDS)
        yield provider
        asyncio.run_coroutine_threadsafe(provider.stop(), loop).result(TIMEOUT_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_own_sender(bidden: Bidden, books: Books, settings: Settings, tmp_path: Path) -> None:
    """A worker with the example's sender: each mail is at the provider once, none at the SMTP server, all logged."""
    bidden.import_lines(*directory(range(1, MEMBERS + 1)))
    with serving(HttpProvider()) as provider:
        env = environment(settings, PROVIDER_URL=provider.url, PROVIDER_TOKEN=TOKEN)
        with (tmp_path / "own_sender.log").open("w+") as log:
            worker = subprocess.Popen(command("own_sender.py"), cwd=tmp_path, env=env, stdout=log, stderr=log)
            try:
                planned = bidden.invite("students", "--wait")
                worker.terminate()
                assert worker.wait(TIMEOUT_SECONDS) == 0
            finally:
                worker.kill()
                worker.wait()
        assert planned["state"] == "completed"
        marks = [line for mail in provider.mails for line in mail.data.splitlines() if b"X-Bidden-Delivery" in line]
    assert Counter(marks) == {f"X-Bidden-Delivery: 1/invite/{n}/Student".encode(): 1 for n in range(1, MEMBERS + 1)}
    assert books.sink.count() == 0
    assert {row["reply"][:12] for row in books.log(planned["batch_id"]).values()} == {"202 kept as "}
    assert bidden.run("audit", "1", "--audience", "students", "--json").json["sent"] == MEMBERS
