"""What a process says of itself: servers that are away count once, however many wait for them."""

from __future__ import annotations

import pytest

from config.health import Health
from config.metrics import AWAY, MAIL, OUTAGES
from monitoring.sampler import Sampler


def outages() -> float:
    """How many outages of the mail server were counted."""
    return OUTAGES.labels(MAIL)._value.get()  # type: ignore[no-any-return]


def test_an_outage_counts_once() -> None:
    """Two parts lose the server, and find it again one after the other: one outage, over when both are done."""
    health, before = Health(), outages()
    health.needs(MAIL)
    assert health.not_ready() == {}
    health.away(MAIL, "window")
    health.away(MAIL, "probe")
    health.away(MAIL, "window")
    assert (outages() - before, AWAY.labels(MAIL)._value.get()) == (1, 1)
    assert health.not_ready() == {MAIL: "the mail server is away"}
    assert health.not_alive() == {}
    health.back(MAIL, "probe")
    assert health.not_ready()
    health.back(MAIL, "window")
    health.back(MAIL, "window")
    assert (health.not_ready(), AWAY.labels(MAIL)._value.get()) == ({}, 0)
    health.away(MAIL, "window")
    assert outages() - before == 2
    health.back(MAIL, "window")


def test_a_sampler_shows_its_server() -> None:
    """Not ready before the first answer and after any error, ready after the next answer."""
    health = Health()
    found: list[float] = []
    errors: list[Exception] = []

    def ask(keep: float) -> None:
        if errors:
            raise errors[0]
        found.append(keep)

    sampler = Sampler("mail server", MAIL, 5.0, ask, health)
    assert set(health.not_ready()) == {"mail server sample"}
    sampler.ask_once(0.0)
    assert health.not_ready() == {}
    errors.append(ValueError("anything"))
    sampler.ask_once(5.0)
    assert set(health.not_ready()) == {MAIL}
    errors.clear()
    sampler.ask_once(100.0)
    assert health.not_ready() == {}
    # Three of its pauses, at least.
    assert found == [15.0, 300.0]


@pytest.mark.parametrize(
    ("took", "fails", "shows", "rest"),
    [
        (0.01, False, False, 5.0),
        (1.0, False, False, 20.0),
        (60.0, False, False, 1200.0),
        (60.0, False, True, 30.0),
        (60.0, True, False, 5.0),
    ],
)
def test_a_sampler_costs_its_server_little(took: float, fails: bool, shows: bool, rest: float) -> None:
    """It rests for twenty times what an answer took; not after a failure, nor for long where it shows the server."""
    now = [0.0]

    def ask(_: float) -> None:
        now[0] += took
        if fails:
            raise TimeoutError

    sampler = Sampler("ledger", MAIL, 5.0, ask, Health(), shows=shows, monotonic=lambda: now[0])
    assert sampler.ask_once(0.0) == pytest.approx(rest)


@pytest.mark.parametrize("shows", [True, False])
def test_a_sample_that_is_no_sign_of_the_server(shows: bool) -> None:
    """A statement that takes too long does not make the server away, where another sampler asks for that."""
    health = Health()

    def ask(_: float) -> None:
        raise TimeoutError

    Sampler("audit", MAIL, 5.0, ask, health, shows=shows).ask_once(0.0)
    assert health.is_away(MAIL) == shows
