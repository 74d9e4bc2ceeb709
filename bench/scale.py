"""How the work of each part grows with the size of the database: two sizes, one ten times the other, and the ratio.

`python -m bench scale` builds the databases of `bench.scale_data` (in two minutes; `--keep FOLDER` keeps them for later
runs), measures every case of `bench.scale_cases` on a copy of each, and prints the median and the rows that were read
or written. A case is flat when its ratio stays near 1; 10 is linear.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.table import Table

from bench import pages, scale_data
from bench.measure import calibrate
from bench.scale_cases import CASES
from bench.scale_database import Case, Database
from db.migrate import upgrade

SIZES: Final = (20_000, 200_000)
QUICK_SIZES: Final = (2_000, 20_000)
_ROUNDS: Final = 11
#: What changes the database so that a repeat would be something else.
_ONCE: Final = frozenset({"input", "trigger", "decide"})
#: So long a case is repeated at most, in seconds.
_SECONDS: Final = 3.0
#: A session reports what it has read at the end of a transaction, a second after the last time.
_REPORTED_SECONDS: Final = 1.1

# Rows read from tables and index entries read, and rows written.
_TOUCHED: Final = """
SELECT coalesce((
    SELECT sum(coalesce(seq_tup_read, 0) + n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables
), 0) + coalesce((SELECT sum(idx_tup_read) FROM pg_stat_user_indexes), 0) AS n
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One case at one size: the median in milliseconds, and rows touched, where they can be counted."""

    milliseconds: float
    rows: int | None


def measure(
    server: str, sizes: tuple[int, int], only: str, report: Callable[[str], None]
) -> Iterator[tuple[Case, list[Figure]]]:
    """The figures of each case, of the smaller size first."""
    for members in sizes:
        started = time.perf_counter()
        scale_data.build(server, members)
        report(f"database of {members:,} members: {time.perf_counter() - started:.0f} s")
    found: dict[str, tuple[Case, list[Figure]]] = {}
    for members in sizes:
        for case, figure in _measure_size(server, members, only):
            found.setdefault(f"{case.source} {case.part} {case.name}", (case, []))[1].append(figure)
            report(f"{members:,}: {case.name}: {figure.milliseconds:.1f} ms, {figure.rows} rows")
    yield from found.values()


def _measure_size(server: str, members: int, only: str) -> Iterator[tuple[Case, Figure]]:
    source, database = None, None
    try:
        for case in CASES:
            if only not in f"{case.source}: {case.part}: {case.name}":
                continue
            if case.source != source:
                if database is not None:
                    database.close()
                source = case.source
                database = _open(server, members, source)
            assert database is not None
            yield case, _measure(case, database)
    finally:
        if database is not None:
            database.close()


def _open(server: str, members: int, source: str) -> Database:
    """A copy of the database, migrated to this code's revision, so that no run changes what the next one measures."""
    name = f"scale_{members}" + ("" if source == "history" else "_planned")
    url = scale_data.copy(server, name, "scale_run")
    upgrade(url)
    if source == "published":
        scale_data.publish_all(url, members)
    return Database(url, members)


def _measure(case: Case, database: Database) -> Figure:
    most = 1 if case.part in _ONCE else _ROUNDS
    with case.prepare(database) as work:
        times: list[float] = []
        rows: int | None = None
        began = time.perf_counter()
        while len(times) < most and (not times or time.perf_counter() - began < _SECONDS):
            before = None if rows is not None else _touched(database)
            if before is not None:
                time.sleep(_REPORTED_SECONDS)
            started = time.perf_counter()
            own = work()
            times.append(own if isinstance(own, float) else (time.perf_counter() - started) * 1000)
            if before is not None:
                rows = _touched(database) - before
        # The first run warms caches, if there were others.
        return Figure(statistics.median(times[1:] or times), rows)


def _touched(database: Database) -> int:
    """Of all sessions that have reported: this one does at once, others do when asked."""
    database.flush()
    row = database.conn.execute(_TOUCHED.encode()).fetchone()
    assert row is not None
    return int(row["n"])


def run(folder: Path, sizes: tuple[int, int], only: str, console: Console) -> None:
    """Measure and print the table."""
    with pages.database(folder) as server:
        table = Table(title=f"Work by size, {sizes[0]:,} and {sizes[1]:,} members, calibration {calibrate():.3f} s")
        table.add_column("part")
        table.add_column("case")
        for members in sizes:
            table.add_column(f"ms at {members:,}", justify="right")
        table.add_column("ratio", justify="right")
        for members in sizes:
            table.add_column(f"rows at {members:,}", justify="right")
        for case, figures in measure(server, sizes, only, lambda text: console.print(f"[dim]{text}[/dim]")):
            ratio = figures[-1].milliseconds / figures[0].milliseconds if len(figures) == len(sizes) else float("nan")
            table.add_row(
                case.part,
                case.name,
                *(f"{figure.milliseconds:,.1f}" for figure in figures),
                f"{ratio:.1f}",
                *("-" if figure.rows is None else f"{figure.rows:,}" for figure in figures),
            )
        console.print(table)
        console.print(f"calibration afterwards {calibrate():.3f} s")
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS scale_run WITH (FORCE)")
