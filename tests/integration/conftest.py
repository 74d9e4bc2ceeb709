"""Fixtures for tests of the parts on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.scenario import Scenario, open_scenario
from tests.organisations import databases


@pytest.fixture
def scenario(database_url: str) -> Iterator[Scenario]:
    """An empty scenario; what must always hold is checked when the test has passed."""
    yield from open_scenario(database_url)


@pytest.fixture
def own_database(database_url: str) -> Iterator[str]:
    """The address of an empty database of the organisation's own."""
    with databases.own_database(database_url) as url:
        yield url
