"""Fixtures of the acceptance tests: the command line on servers of the test's own, and its mails, ledger and logs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from db.connect import Connection
from embedded.mail_server import MailServer
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Records for the fixtures whether the test has failed."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def bidden(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Bidden]:
    """The command line on a migrated, empty database. At the end, no output may hold a password."""
    with Bidden(settings, tmp_path) as command_line:
        yield command_line
        if request.node.stash.get(_FAILED, False):
            for process in command_line.processes:
                print(process.log_tail())


@pytest.fixture
def books(conn: Connection, mail_sink: MailServer) -> Books:
    """Mails, ledger and logs of the test."""
    return Books(conn, mail_sink)
