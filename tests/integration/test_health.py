"""The health checks of the containers, with and without the processes that they check."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer

from config.settings import Settings
from db.connect import Connection, connect
from deploy.health import dispatcher_is_connected, main, worker_is_member
from streams.runners.consumer import consumer_config

#: A reserved address (RFC 5737).
ELSEWHERE = "192.0.2.1"


@pytest.fixture
def here(conn: Connection) -> str:
    """The address at which the servers see this machine."""
    row = conn.execute("SELECT host(inet_client_addr()) AS address").fetchone()
    assert row is not None
    return str(row["address"])


@pytest.fixture
def member(settings: Settings) -> Iterator[Consumer]:
    """A member of the workers' group."""
    consumer = Consumer(consumer_config(settings), logger=None)
    assigned: list[bool] = []
    consumer.subscribe([settings.invitations_topic], on_assign=lambda *_: assigned.append(True))
    while not assigned:
        consumer.poll(0.1)
    yield consumer
    consumer.close()


def test_a_worker_is_healthy_while_it_is_a_member(settings: Settings, member: Consumer, here: str) -> None:
    """The brokers are asked, by address: the worker of another container does not count."""
    assert worker_is_member(settings, here)
    assert not worker_is_member(settings, ELSEWHERE)


def test_a_worker_is_unhealthy_without_a_member(settings: Settings, here: str) -> None:
    """The group is empty."""
    assert not worker_is_member(settings, here)


def test_a_dispatcher_is_healthy_while_it_is_connected(settings: Settings, here: str) -> None:
    """PostgreSQL is asked, by address."""
    assert not dispatcher_is_connected(settings, here)
    with connect(settings.require_database(), application="bidden-dispatcher", autocommit=True):
        assert dispatcher_is_connected(settings, here)
        assert not dispatcher_is_connected(settings, ELSEWHERE)


def test_an_unreachable_server_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not healthy, with the cause for `docker inspect`, and no traceback."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", "postgresql://user:sesame@127.0.0.1:1/nothing")
    assert main(["dispatcher"]) == 1
    output = capsys.readouterr().out
    assert "PostgreSQL cannot be reached at postgresql://127.0.0.1:1/nothing" in output
    assert "sesame" not in output
