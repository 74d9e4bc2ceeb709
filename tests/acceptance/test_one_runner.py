"""A group has workers of one runner: Kafka admits no others, and says so only in their library's log."""

from __future__ import annotations

import pytest

from cli.runners import other_runner
from config.settings import Settings
from tests.acceptance.processes import Bidden

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("first", "second"), [("confluent", "faust"), ("faust", "confluent")])
def test_a_worker_of_the_other_runner_is_refused(bidden: Bidden, settings: Settings, first: str, second: str) -> None:
    """It once ended after 30 s without progress and with its stack, and its supervisor began again.

    Once the first is gone the other may start: one that was killed counts until its session ends.
    """
    working = bidden.worker(first).ready()
    refused = bidden.worker(second).result()
    assert refused.code == 2
    for part in ("--runner", settings.group, f"the runner {first}"):
        assert part in refused.err
    working.kill()
    bidden.worker(second).ready().stop()


@pytest.mark.parametrize(
    ("assignor", "runner", "theirs"),
    [
        (None, "faust", None),
        ("cooperative-sticky", "confluent", None),
        ("uniform", "confluent", None),
        ("uniform", "faust", "confluent"),
        ("cooperative-sticky", "faust", "confluent"),
        ("faust", "confluent", "faust"),
        ("faust", "faust", None),
    ],
)
def test_whose_group_it_is(assignor: str | None, runner: str, theirs: str | None) -> None:
    """By how its members divide the partitions."""
    assert other_runner(assignor, runner) == theirs
