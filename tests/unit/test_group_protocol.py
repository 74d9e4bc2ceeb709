"""What a broker's configuration means for workers under the group protocol `consumer`."""

from __future__ import annotations

import pytest

from monitoring.group_protocol import judge
from streams.watchdog import LIMIT_SECONDS

_SESSION = "group.consumer.session.timeout.ms"
_PROTOCOLS = "group.coordinator.rebalance.protocols"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({_SESSION: "10000", _PROTOCOLS: "classic,consumer"}, None),
        ({_SESSION: "45000", _PROTOCOLS: "classic,consumer,streams"}, "for 45 s nobody has the partitions"),
        ({_SESSION: f"{LIMIT_SECONDS * 1000:.0f}", _PROTOCOLS: "consumer"}, "group.consumer.min.session.timeout.ms"),
        ({_SESSION: "10000", _PROTOCOLS: "classic"}, "do not support it"),
        ({"log.dirs": "data"}, "do not support it"),
    ],
)
def test_a_brokers_configuration(config: dict[str, str], problem: str | None) -> None:
    """A session that is longer than the watchdog waits, and brokers that are too old, are found."""
    found = judge(config)
    assert found is None if problem is None else problem in str(found)
