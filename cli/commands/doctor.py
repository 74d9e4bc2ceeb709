"""`bidden doctor`: runs the health checks of `monitoring.checks`."""

from __future__ import annotations

from dataclasses import asdict

import click

from cli.options import DATABASE_SETTINGS, KAFKA_SETTINGS, WORKER_SETTINGS, environment, json_option
from cli.output import table, write_lines
from config.startup import load
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, WORKER_SETTINGS))
@json_option
def doctor(as_json: bool) -> int:
    """Check the servers, the schema, the data and the lag.

    It changes nothing. Exit 1 if a check fails.

    Example: bidden doctor
    """
    from monitoring.checks import run_checks

    results = list(run_checks(load()))
    if as_json:
        write_lines(asdict(result) for result in results)
    else:
        table(
            "Doctor",
            ["check", "ok", "detail"],
            ([result.check, "ok" if result.ok else "FAILED", result.detail] for result in results),
            folds="detail",
        )
    return EXIT_DONE if all(result.ok for result in results) else EXIT_NEEDS_A_PERSON


COMMANDS: list[click.Command] = [doctor]
