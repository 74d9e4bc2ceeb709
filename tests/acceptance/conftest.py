"""Fixtures of the acceptance tests: the command line on servers of the test's own, and the books to compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connect import Connection
from embedded.mailserver import MailServer
from schemas.settings import Settings
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden


@pytest.fixture
def bidden(settings: Settings, tmp_path: Path) -> Iterator[Bidden]:
    """The command line on a migrated, empty database. At the end, no password in anything it said."""
    with Bidden(settings, tmp_path) as command_line:
        yield command_line


@pytest.fixture
def books(conn: Connection, mail_sink: MailServer) -> Books:
    """Mails, ledger and logs of the test."""
    return Books(conn, mail_sink)
