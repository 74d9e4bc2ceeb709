"""The crash matrix: a real process is killed at every crash point, another goes on; mails, ledger and log must agree.

`make crash-matrix` runs it and writes what it measured into docs/reference/crash-matrix.md.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from config.crash_points import CrashPoint
from tests.acceptance.concurrently import run_concurrently
from tests.acceptance.crash_cases import CASES, DOCUMENT, Case, Row, published, with_table
from tests.acceptance.crash_scenarios import run_case
from tests.databases import Databases
from tests.servers import Servers

# The fixture of all cases: sixty processes die, and others go on.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_AT_ONCE = 8


@pytest.fixture(scope="module")
def rows(
    request: pytest.FixtureRequest,
    real_servers: Servers,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Case, Row | Exception]:
    """The results of this session's cases, run concurrently: they mostly wait for leases to end."""
    selected = {_parameters(item).get("case") for item in request.session.items}
    folder: Path = tmp_path_factory.mktemp("crashes")
    scenarios = {
        case: partial(run_case, case, real_servers, databases, folder / str(n))
        for n, case in enumerate(CASES)
        if case in selected
    }
    found = run_concurrently(scenarios, _AT_ONCE)
    complete = [row for case in CASES if isinstance(row := found.get(case), Row)]
    if os.environ.get("BIDDEN_TEST_WRITE_DOCS") and len(complete) == len(CASES):
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), complete), encoding="utf-8")
    return found


def _parameters(item: pytest.Item) -> dict[str, object]:
    found: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed_at(rows: dict[Case, Row | Exception], case: Case) -> None:
    """FM-08, FM-09, FM-12, FM-17, FM-21, FM-27: killed here: none is lost or sent twice, unknowns are named."""
    row = rows[case]
    if isinstance(row, Exception):
        raise row
    assert (row.lost, row.twice) == (0, 0), row
    assert row.unknown <= case.most_unknown, row


def test_every_point_is_in_the_published_matrix() -> None:
    """FM-08: each crash point has its rows in the published matrix, and none there is lost or mailed twice."""
    assert {case.point for case in CASES} == set(CrashPoint)
    documented = published(DOCUMENT.read_text(encoding="utf-8"))
    assert documented == [(str(case.point), case.who, "0", "0") for case in CASES if case.journal]
