"""`python -m tests.chaos`: a run, its log of blows, its table."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.run import run
from tests.chaos.world import Options


def main() -> int:
    """Reads the words, runs, prints; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="the same seed deals the same blows (default: 7)")
    parser.add_argument("--blows", type=int, help="how many (default: 100, or as many as --minutes allow)")
    parser.add_argument("--minutes", type=float, help="for how long; whichever ends first")
    parser.add_argument("--runner", choices=["confluent", "faust"], default="confluent")
    parser.add_argument("--members", type=int, default=400, help="of the largest chapter (default: 400)")
    parser.add_argument("--hurry", action="store_true", help="end the claims of killed publishers by hand at the end")
    parser.add_argument("--log", type=Path, help="write a line for each blow to this file (default: the run's folder)")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder, which is kept anyway if it fails")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    words = parser.parse_args()
    blows = words.blows if words.blows is not None or words.minutes is not None else 100
    options = Options(words.seed, words.runner, blows, words.minutes, words.members, words.hurry)
    home = Path(tempfile.mkdtemp(prefix="bidden-chaos-"))
    home.chmod(0o711)  # PostgreSQL may run as another account
    console = Console(stderr=words.json, width=120)
    with (words.log or home / "blows.log").open("w", buffering=1) as log:

        def say(line: str) -> None:
            log.write(line + "\n")
            sys.stderr.write(line + "\n")

        report = run(options, home, say)
    if words.json:
        sys.stdout.write(json.dumps(report.as_dict(), default=str) + "\n")
    report.show(console)
    if report.findings or words.keep:
        console.print(f"kept: {home}", highlight=False)
    else:
        shutil.rmtree(home)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
