"""The command `doctor`. What it looks at stands in `monitoring.checks`."""

from __future__ import annotations

from dataclasses import asdict

import click

from cli.options import DATABASE, KAFKA, WORKER, environment, json_option
from cli.output import table, write_lines
from config.startup import load
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON


@click.command(epilog=environment(DATABASE, KAFKA, WORKER))
@json_option
def doctor(as_json: bool) -> int:
    """Look at everything that a campaign needs. Exit 1 if anything is wrong; nothing is changed.

    Example: bidden doctor
    """
    from monitoring.checks import run_checks

    findings = list(run_checks(load()))
    if as_json:
        write_lines(asdict(finding) for finding in findings)
    else:
        table(
            "Doctor",
            ["check", "ok", "detail"],
            ([finding.check, "ok" if finding.ok else "WRONG", finding.detail] for finding in findings),
        )
    return EXIT_DONE if all(finding.ok for finding in findings) else EXIT_NEEDS_A_PERSON


COMMANDS: list[click.Command] = [doctor]
