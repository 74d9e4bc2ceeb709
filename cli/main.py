"""The command `bidden`: its groups of commands, its errors and its exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final

import click

from cli.commands import (
    accounts,
    api_clients,
    batch_control,
    dead_letters,
    doctor,
    invite,
    local,
    recovery,
    replay,
    reports,
    services,
    setup,
    source,
)
from cli.output import write_error
from config import crash_points, driver_errors, standard_streams, tracing
from schemas.errors import EXIT_DONE, EXIT_REFUSED, BiddenError, UsageError

#: The longest error text; longer ones are cut in the middle.
_MAX_ERROR: Final = 400
#: Title and modules of each section of the help.
_SECTIONS: Final = {
    "Try it on this machine": (local,),
    "Set up": (setup, source, doctor),
    "Run": (services,),
    "Invite": (invite,),
    "Report": (reports,),
    "Operate": (batch_control, replay, dead_letters, recovery),
    "Give access": (accounts, api_clients),
}


class _Bidden(click.Group):
    """Lists its commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        limit = formatter.width - width - 6
        for title, modules in _SECTIONS.items():
            commands = [command for module in modules for command in module.COMMANDS]
            with formatter.section(title):
                formatter.write_dl(
                    [((command.name or "").ljust(width), command.get_short_help_str(limit)) for command in commands]
                )


@click.group(
    cls=_Bidden,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Settings are environment variables (BIDDEN_…), or lines of .env, or of the file that `bidden up` wrote. "
    "Exit codes: 0 done; 1 done, but something needs a person; 2 refused; 3 a server cannot be reached at start.",
)
@click.version_option(package_name="bidden", prog_name="bidden")
def cli() -> None:
    """Invite every member of a community once, and prove it."""


for _modules in _SECTIONS.values():
    for _module in _modules:
        for _command in _module.COMMANDS:
            cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """The entry point of the console command. Ends the process with an exit code of the contract."""
    standard_streams.protect()
    argv = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the terminal's encoding lacks are escaped. JSON is UTF-8 everywhere.
            stream.reconfigure(encoding="utf-8" if as_json else None, errors="backslashreplace")
    sys.exit(_run(argv, as_json=as_json))


def _run(argv: list[str], *, as_json: bool) -> int:
    try:
        crash_points.arm(os.environ)
        result: Any = cli.main(argv, prog_name="bidden", standalone_mode=False)
    except BiddenError as error:
        write_error(error, as_json=as_json)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_REFUSED
    except click.UsageError as error:
        context = "" if error.ctx is None else f" (see `{error.ctx.command_path} --help`)"
        write_error(UsageError(_message(error) + context), as_json=as_json)
        return EXIT_REFUSED
    except click.ClickException as error:
        write_error(UsageError(_message(error)), as_json=as_json)
        return EXIT_REFUSED
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output has gone: `bidden log 1 | head`. Not stderr's, which never raises.
        _discard_output()
        return EXIT_DONE
    except Exception as error:
        known = driver_errors.translate_error(error)
        if known is None:
            raise
        write_error(known, as_json=as_json)
        if isinstance(error, OSError):
            _discard_output()
        return known.exit_code
    finally:
        tracing.current().close()
    return result if isinstance(result, int) else EXIT_DONE


def _discard_output() -> None:
    """Output that could not be written would fail again, with a traceback, when the interpreter ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _message(error: click.ClickException) -> str:
    """In one line, with a long argument cut in the middle."""
    text = " ".join(error.format_message().split())
    return text if len(text) <= _MAX_ERROR else f"{text[: _MAX_ERROR // 2]} … {text[-_MAX_ERROR // 4 :]}"


if __name__ == "__main__":
    main()
