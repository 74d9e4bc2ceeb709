"""Fixtures for tests of the parts on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """An empty world; what must always hold is checked when the test has passed."""
    yield from open_world(database_url)
