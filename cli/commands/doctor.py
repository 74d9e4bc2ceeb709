"""`bidden doctor`: runs the health checks of `monitoring.checks`."""

from __future__ import annotations

from dataclasses import asdict

import click

from cli.options import DATABASE_SETTINGS, KAFKA_SETTINGS, SOURCE_SETTINGS, WORKER_SETTINGS, environment, json_option
from cli.output import table, write_lines
from config.rights import RUNNING, Process
from config.startup import load
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, WORKER_SETTINGS, SOURCE_SETTINGS))
@click.option(
    "--for",
    "processes",
    type=click.Choice([process.value for process in Process]),
    multiple=True,
    help="Whose rights the users of the settings should have; default: one user for all but `migrate`. Repeatable.",
)
@json_option
def doctor(processes: tuple[str, ...], as_json: bool) -> int:
    """Check servers, rights, schema, data and lag.

    It changes nothing. Exit 1 if a check fails.

    Example: bidden doctor --for worker
    """
    from monitoring.checks import run_checks

    results = list(run_checks(load(), processes=[Process(name) for name in processes] or RUNNING))
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
