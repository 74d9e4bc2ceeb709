"""What Kafka's admin client must know before it asks: a controller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from producers.admin_client import await_controller
from schemas.errors import UnreachableError

BROKER = SimpleNamespace(id=1, host="kafka.example", port=9092)


class FrozenAdmin:
    """As a client of the only broker, which is fenced for the first so many answers after a freeze."""

    def __init__(self, fenced: int) -> None:
        self.fenced = fenced
        self.asked = 0

    def list_topics(self, timeout: float) -> Any:
        """Neither a controller nor a broker while it is fenced."""
        self.asked += 1
        if self.asked <= self.fenced:
            return SimpleNamespace(controller_id=-1, brokers={})
        return SimpleNamespace(controller_id=1, brokers={1: BROKER})


def test_a_client_asks_until_there_is_a_controller() -> None:
    """FM-30: librdkafka does not ask again: `create_topics` timed out for good after one such answer."""
    admin: Any = FrozenAdmin(fenced=2)
    assert await_controller(admin, 10.0) == {1: ("kafka.example", 9092)}
    assert admin.asked == 3


def test_no_broker_is_alive() -> None:
    """Refused in time, and the cause named."""
    with pytest.raises(UnreachableError, match="no broker that is alive"):
        await_controller(FrozenAdmin(fenced=10**9), 0.3)  # type: ignore[arg-type]
