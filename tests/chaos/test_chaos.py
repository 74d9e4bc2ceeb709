"""A short run of each runner; `python -m tests.chaos` runs for as long as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.world import Options

pytestmark = pytest.mark.slow

BLOWS = 25


@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_whatever_fails_the_books_balance(runner: str, tmp_path: Path) -> None:
    """FM-03, FM-08, FM-12, FM-19, FM-24, FM-27, FM-29, FM-30: blow after blow, and none lost, none twice, each named.

    Workers, dispatchers, triggers, Kafka, PostgreSQL and the mail server are killed, stopped and restarted under
    overlapping batches, the mail server misbehaves, the topic is deleted: `unknown` is no more than was in flight.
    """
    lines: list[str] = []
    report = run(Options(seed=7, runner=runner, blows=BLOWS, members=300, hurry=True), tmp_path, lines.append)
    story = "\n".join([*lines, *report.findings])
    assert not report.findings, story
    assert (report.twice, report.lost) == (0, 0), story
    assert report.deliveries["unknown"] <= report.bound, story
    assert report.count == BLOWS
    assert report.part_in_flight >= 0.6, f"the blows fell on idle workers: the test has shown nothing\n{story}"
