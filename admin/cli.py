"""The command `bidden`: its options, its errors and its exit codes. What the commands do stands in `commands`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from admin import outages
from admin.commands import campaign, doctor, local, operator, recovery, reports, setup
from admin.output import write_error
from schemas import crash
from schemas.errors import EXIT_DONE, EXIT_REFUSED, BiddenError, UsageError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Settings are environment variables (BIDDEN_…), or stand in .env, or in what `bidden up` wrote. "
    "Exit codes: 0 done; 1 done, but something needs a person; 2 refused; 3 a server cannot be reached.",
)
@click.version_option(package_name="bidden", prog_name="bidden")
def cli() -> None:
    """Invite every member of a community once, and be able to prove it."""


for module in (local, setup, campaign, reports, operator, recovery, doctor):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The console command's entry. Ends the process with an exit code of the contract."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    sys.exit(_run(words, as_json=as_json))


def _run(words: list[str], *, as_json: bool) -> int:
    try:
        crash.arm(os.environ)
        result: Any = cli.main(words, prog_name="bidden", standalone_mode=False)
    except BiddenError as error:
        write_error(error, as_json=as_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_REFUSED
    except click.UsageError as error:
        context = "" if error.ctx is None else f" (see `{error.ctx.command_path} --help`)"
        write_error(UsageError(error.format_message() + context), as_json=as_json)
        return EXIT_REFUSED
    except click.ClickException as error:
        write_error(UsageError(error.format_message()), as_json=as_json)
        return EXIT_REFUSED
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: `bidden log 1 | head`.
        sys.stderr.close()
        return EXIT_DONE
    except Exception as error:
        known = outages.worded(error)
        if known is None:
            raise
        write_error(known, as_json=as_json)
        return known.exit_code
    return result if isinstance(result, int) else EXIT_DONE


if __name__ == "__main__":
    main()
