"""Compares the end-to-end throughput of two checkouts in one run, which alternates between them: A B A B.

    python -m bench.compare /path/to/old/checkout --members 20000 --rounds 5

Both checkouts run with this Python and its packages. Ratios are new to old: mails/s above 1 is faster, CPU below 1 is
cheaper. The medians of the rounds are compared, so that load which comes and goes hits both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.end_to_end import COLUMNS

ROOT: Final = Path(__file__).resolve().parents[1]
#: The columns of that table which are compared; both checkouts must print them in the same places. CPU seconds are per
#: 1,000 mails: of all processes, and of each; the trigger's are the dispatcher's, too.
COMPARED: Final = ("mails/s", "CPU-s/1000", "worker", "postgres", "kafka", "sink", "trigger", "calibration s")

#: One campaign of one checkout, by column.
Figures = dict[str, float]


def measure(checkout: Path, runner: str, members: int) -> Figures:
    """One campaign, on servers of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    skip = ["--skip", "stages", "peers", "replay", "latency"]
    command = [sys.executable, "-m", "bench", "--members", str(members), "--runners", runner, *skip]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the bench of {checkout} failed:\n{done.stderr[-2000:]}")
    rows = [line for line in done.stdout.splitlines() if line.startswith(f"│ {runner} ")]
    if len(rows) != 1:
        raise RuntimeError(f"the bench of {checkout} has printed no table:\n{done.stdout[-2000:]}")
    return parse(rows[0])


def parse(row: str) -> Figures:
    """The figures in a row of the table."""
    cells = [cell.strip().replace(",", "") for cell in row.strip("│").split("│")]
    return {name: float(cells[COLUMNS.index(name)]) for name in COMPARED}


def main() -> None:
    """Parses the arguments, measures, prints each round and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("old", type=Path, help="another checkout of this repository")
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runners", nargs="+", default=["confluent", "faust"], choices=["confluent", "faust"])
    arguments = parser.parse_args()
    console = Console(width=120)
    for runner in arguments.runners:
        found: dict[str, list[Figures]] = defaultdict(list)
        for number in range(1, arguments.rounds + 1):
            for name, checkout in (("old", arguments.old.resolve()), ("new", ROOT)):
                measured = measure(checkout, runner, arguments.members)
                found[name].append(measured)
                console.print(f"{runner}, round {number}, {name}: {measured}", highlight=False)
        console.print(summary(runner, arguments.members, found["old"], found["new"]))


def summary(runner: str, members: int, old: list[Figures], new: list[Figures]) -> Table:
    """Medians and their ratios."""
    table = Table(title=f"{runner}, {members:,} members, {len(old)} rounds, medians")
    for column in ("figure", "old", "new", "new / old"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name in COMPARED:
        before, after = (statistics.median(figures[name] for figures in rounds) for rounds in (old, new))
        table.add_row(name, f"{before:,.3f}", f"{after:,.3f}", f"{after / before:.3f}" if before else "-")
    return table


if __name__ == "__main__":
    main()
