"""The command `bidden`: its options, its errors and its exit codes. What the commands do stands in `commands`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final

import click

from cli.commands import accounts, api_clients, batch_control, doctor, invite, local, replay, reports, serve, setup
from cli.output import write_error
from config import crash_points, driver_errors
from schemas.errors import EXIT_DONE, EXIT_REFUSED, BiddenError, UsageError

_LONGEST: Final = 400


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Settings are environment variables (BIDDEN_…), or stand in .env, or in what `bidden up` wrote. "
    "Exit codes: 0 done; 1 done, but something needs a person; 2 refused; 3 a server cannot be reached.",
)
@click.version_option(package_name="bidden", prog_name="bidden")
def cli() -> None:
    """Invite every member of a community once, and be able to prove it."""


for module in (local, setup, invite, reports, batch_control, replay, doctor, serve, accounts, api_clients):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The console command's entry. Ends the process with an exit code of the contract."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Where a terminal is not UTF-8, what it cannot show is escaped. JSON is UTF-8 wherever it goes.
            stream.reconfigure(encoding="utf-8" if as_json else None, errors="backslashreplace")
    sys.exit(_run(words, as_json=as_json))


def _run(words: list[str], *, as_json: bool) -> int:
    try:
        crash_points.arm(os.environ)
        result: Any = cli.main(words, prog_name="bidden", standalone_mode=False)
    except BiddenError as error:
        write_error(error, as_json=as_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_REFUSED
    except click.UsageError as error:
        context = "" if error.ctx is None else f" (see `{error.ctx.command_path} --help`)"
        write_error(UsageError(_sentence(error) + context), as_json=as_json)
        return EXIT_REFUSED
    except click.ClickException as error:
        write_error(UsageError(_sentence(error)), as_json=as_json)
        return EXIT_REFUSED
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: `bidden log 1 | head`.
        sys.stderr.close()
        return EXIT_DONE
    except Exception as error:
        known = driver_errors.translate_error(error)
        if known is None:
            raise
        write_error(known, as_json=as_json)
        _drop_output(error)
        return known.exit_code
    return result if isinstance(result, int) else EXIT_DONE


def _drop_output(error: Exception) -> None:
    """What standard output has not taken it will not take when the interpreter ends, either, which would say so."""
    with suppress(OSError):
        if isinstance(error, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: click.ClickException) -> str:
    """In one line, and without all of a word that is a page long."""
    text = " ".join(error.format_message().split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"


if __name__ == "__main__":
    main()
