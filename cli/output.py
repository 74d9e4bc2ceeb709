"""What commands print: tables for people, JSON for programs. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from schemas.errors import BiddenError, InputError, printable

#: Outside a terminal (a pipe, a log, a cron mail) tables are as wide as what they hold.
_WIDTH = None if getattr(sys.stdout, "isatty", bool)() else 100_000  # it is None where it was closed at start

out = Console(highlight=False, emoji=False, soft_wrap=True, width=_WIDTH)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

#: The style of each status: the colour only repeats the word.
STYLES = {
    "sent": "green",
    "failed": "red",
    "unknown": "magenta",
    "skipped": "dim",
    "pending": "yellow",
    "completed": "green",
    "running": "yellow",
    "cancelled": "dim",
}


def write_json(value: Any) -> None:
    """One object on one line of stdout."""
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
    sys.stdout.flush()


def write_lines(values: Iterable[Any]) -> None:
    """JSON Lines on stdout."""
    for value in values:
        sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
    sys.stdout.flush()


def write_error(error: BiddenError, *, as_json: bool) -> None:
    """An error on stderr, for a person or a program."""
    if as_json:
        sys.stderr.write(orjson.dumps(error.as_dict()).decode() + "\n")
        return
    err.print(f"[bold red]{error.error.replace('_', ' ')}[/]: {escape(_with_place(error))}")
    if isinstance(error, InputError):
        for text in error.further():
            err.print(f"  {text}", markup=False)


def _with_place(error: BiddenError) -> str:
    """Its detail, after the line and the field unless it names them."""
    where = "".join(
        f"{name} {value}: "
        for name, value in (("line", error.line), ("field", error.field))
        if value is not None and str(value) not in error.detail
    )
    return where + error.detail


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, folds: str | None = None) -> None:
    """A table for people. A column whose name begins with `#` holds numbers, with `@` ids; one may fold long texts."""
    shown = Table(title=escape(title), title_justify="left", title_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column[0] in "#@" else "left"
        shown.add_column(column.lstrip("#@"), justify=justify, no_wrap=column != folds, overflow="fold")
    for row in rows:
        shown.add_row(
            *(
                cell(str(value)) if column.startswith("@") and value is not None else cell(value)
                for column, value in zip(columns, row, strict=True)
            )
        )
    out.print(shown, soft_wrap=folds is None)


def cell(value: Any) -> str:
    """One value for people. Times are in UTC and show their zone."""
    if value is None:
        return "[dim]-[/]"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    text = escape(printable(str(value)))
    style = STYLES.get(text)
    return f"[{style}]{text}[/]" if style else text


def reasons(excluded: Mapping[str, int]) -> str:
    """`3 banned, 1 declined`, or `none`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(excluded.items())) or "none"
