"""Errors for people, each with its exit code on the command line.

An error is raised where the cause is known and tells the person who can act on it what is wrong, where, and what to
do. Drivers' exceptions stay in `__cause__`. Secrets never enter a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

EXIT_DONE = 0
EXIT_NEEDS_A_PERSON = 1
EXIT_REFUSED = 2
EXIT_UNREACHABLE = 3
EXIT_NO_PROGRESS = 70
EXIT_SHUTDOWN_TOO_LONG = 71


def printable(text: str) -> str:
    """The text with all but printable characters and line feeds escaped: it may quote input of any origin."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def first_line(error: BaseException) -> str:
    """The first line of a library's message; its type where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class StoppingError(Exception):
    """The worker stops: what was begun is not finished and must not be acknowledged. No member's failure (FM-13)."""


class BiddenError(Exception):
    """Base of all errors for people.

    `error` is a stable, machine-readable name; `detail` the sentence; `line` and `field` point into the input where
    there is one (lines count from 1). Quoted input is made printable.
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
    """The command's arguments cannot be understood."""

    error = "usage"


class SettingsError(BiddenError):
    """A setting is missing or makes no sense; `field` is its environment variable."""

    error = "settings"


class InputError(BiddenError):
    """A line of an input file is wrong; nothing was written.

    `others` are further lines that are wrong, in their order, and `more` is how many there are beside those.
    """

    error = "bad_input"

    def __init__(
        self,
        detail: str,
        *,
        line: int | None = None,
        field: str | None = None,
        others: Sequence[InputError] = (),
        more: int = 0,
    ) -> None:
        super().__init__(detail, line=line, field=field)
        self.others = tuple(others)
        self.more = more

    def further(self) -> list[str]:
        """A text for each other wrong line that is named, and one for how many are not."""
        texts = [f"line {e.line}: {e.detail}" for e in self.others]
        if self.more:
            texts.append(f"and {self.more:,} more wrong line{'s' if self.more > 1 else ''}")
        return texts

    def as_dict(self) -> dict[str, str | int | None]:
        """That of the first wrong line; each further one has a line of its own in the detail."""
        return super().as_dict() | {"detail": "\n".join([self.detail, *self.further()])}


class NotFoundError(BiddenError):
    """No such id."""

    error = "not_found"


class RefusedError(BiddenError):
    """The action is valid but must not be done; nothing was written."""

    error = "refused"


class UnreachableError(BiddenError):
    """A server cannot be reached at start; the message names it and its address, without secrets."""

    error = "unreachable"
    exit_code = EXIT_UNREACHABLE


class RestoredError(BiddenError):
    """The database is older than the topics of claims and outcomes: who was mailed since must be learned first."""

    error = "restored"


class NoProgressError(BiddenError):
    """A worker ends itself: what it waits for does not come, and a person should know. Nothing was acknowledged."""

    error = "no_progress"
    exit_code = EXIT_NO_PROGRESS


class MachineError(BiddenError):
    """A file or the output could not be read or written, on a full disk for one; the action may be done."""

    error = "machine"
    exit_code = EXIT_NEEDS_A_PERSON


class InstallError(BiddenError):
    """An embedded server lacks something: a download, a port, disk space."""

    error = "install"
    exit_code = EXIT_UNREACHABLE
