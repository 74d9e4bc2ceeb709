"""`python -m tests.chaos`: a run, its log of faults, its table."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.acceptance.processes import heed_hang_ups
from tests.chaos.environment import Options
from tests.chaos.run import run


def main() -> int:
    """Parses the arguments, runs, prints; 0 when there are no findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same faults (default: 7)")
    parser.add_argument("--faults", type=int, help="how many (default: 100, or as many as --minutes allow)")
    parser.add_argument("--minutes", type=float, help="for how long; whichever ends first")
    parser.add_argument("--runner", choices=["confluent", "faust"], default="confluent")
    parser.add_argument("--members", type=int, default=400, help="of the largest chapter (default: 400)")
    parser.add_argument("--expire-claims", action="store_true", help="do not wait for the claims of killed publishers")
    parser.add_argument("--log", type=Path, help="write a line for each fault to this file (default: the run's folder)")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder, which is kept anyway if it fails")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    heed_hang_ups()
    faults = arguments.faults if arguments.faults is not None or arguments.minutes is not None else 100
    options = Options(
        arguments.seed, arguments.runner, faults, arguments.minutes, arguments.members, arguments.expire_claims
    )
    home = Path(tempfile.mkdtemp(prefix="bidden-chaos-"))
    home.chmod(0o711)  # PostgreSQL may run as another account
    console = Console(stderr=arguments.json, width=120)
    with (arguments.log or home / "faults.log").open("w", buffering=1) as log:

        def write(line: str) -> None:
            log.write(line + "\n")
            sys.stderr.write(line + "\n")

        report = run(options, home, write)
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_dict(), default=str) + "\n")
    report.show(console)
    if report.findings or arguments.keep:
        console.print(f"kept: {home}", highlight=False)
    else:
        shutil.rmtree(home)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
