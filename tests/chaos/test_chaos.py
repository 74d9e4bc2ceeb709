"""A short chaos run with each runner. `python -m tests.chaos` runs longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.environment import Options
from tests.chaos.run import run

pytestmark = pytest.mark.slow

FAULTS = 25


# On a slow machine each fault may wait its whole 30 s for mails in flight.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("runner", ["confluent", "faust"])
def test_no_delivery_is_lost_or_sent_twice_under_faults(runner: str, tmp_path: Path) -> None:
    """FM-03, FM-08, FM-12, FM-19, FM-24, FM-27, FM-29, FM-30: fault after fault, and the audits balance.

    No delivery is lost or sent twice, and each unknown one is named.

    Workers, dispatchers, triggers, Kafka, PostgreSQL and the mail server are killed, stopped and restarted under
    overlapping batches, the mail server misbehaves, the topic is deleted: `unknown` is no more than was in flight.
    """
    lines: list[str] = []
    report = run(
        Options(seed=7, runner=runner, faults=FAULTS, members=300, expire_claims=True, flow_seconds=30.0),
        tmp_path,
        lines.append,
    )
    story = "\n".join([*lines, *report.findings])
    assert not report.findings, story
    assert (report.twice, report.lost) == (0, 0), story
    assert report.deliveries["unknown"] <= report.bound, story
    assert report.count == FAULTS
    # Each fault, but those that are to hit a recovery, waited up to 30 s for mails in flight, also on a slow machine.
    assert report.share_in_flight >= 0.6, f"after most faults no mail went out for 30 s\n{story}"
