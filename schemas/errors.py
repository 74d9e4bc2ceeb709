"""The errors a person can meet, each with the exit code that the command line gives it.

An error is raised where the cause is known and is worded for the person who can act on it: what is wrong,
where, and what to do. Drivers' exceptions stay in `__cause__`. Secrets never enter a message.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_NEEDS_A_PERSON = 1
EXIT_REFUSED = 2
EXIT_UNREACHABLE = 3
EXIT_NO_PROGRESS = 70
EXIT_SHUTDOWN_TOO_LONG = 71


def printable(text: str) -> str:
    """The text with all but printable characters and line feeds escaped: it may quote what anybody typed or sent."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def first_line(error: BaseException) -> str:
    """What a library says, without the details that follow; its kind, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class BiddenError(Exception):
    """Base of all errors worded for a person.

    `error` is a stable, machine-readable name; `detail` the sentence; `line` and `field` point into an input
    file where there is one (lines are counted from 1, as an editor does). What they quote is made printable.
    """

    error: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_REFUSED

    def __init__(self, detail: str, *, line: int | None = None, field: str | None = None) -> None:
        self.detail = printable(detail)
        super().__init__(self.detail)
        self.line = line
        self.field = None if field is None else printable(field)

    def as_dict(self) -> dict[str, str | int | None]:
        """The object that `--json` prints on stderr."""
        return {"error": self.error, "detail": self.detail, "line": self.line, "field": self.field}


class UsageError(BiddenError):
    """The command's words cannot be understood."""

    error = "usage"


class SettingsError(BiddenError):
    """A setting is missing or makes no sense; `field` is its environment variable."""

    error = "settings"


class InputError(BiddenError):
    """A line of an input file is wrong; nothing was written."""

    error = "bad_input"


class NotFoundError(BiddenError):
    """An id names nothing that is known here."""

    error = "not_found"


class RefusedError(BiddenError):
    """The action is understood and must not be done; nothing was written."""

    error = "refused"


class UnreachableError(BiddenError):
    """A server cannot be reached at start; the message names it and its address, without secrets."""

    error = "unreachable"
    exit_code = EXIT_UNREACHABLE


class MachineError(BiddenError):
    """What was asked for may be done, but a file or the output could not be written or read: a full disk, say."""

    error = "machine"
    exit_code = EXIT_NEEDS_A_PERSON


class InstallError(BiddenError):
    """Something an embedded server needs could not be had: a download, a port, disk space."""

    error = "install"
    exit_code = EXIT_UNREACHABLE
