"""Waits for a batch, with a progress bar for a person."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.output import err
from db import reports
from db.connect import Connection

_POLL_SECONDS: Final = 0.25
ENDED: Final = frozenset({"completed", "cancelled"})


def watch(
    conn: Connection, batch_id: int, *, quiet: bool = False, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Returns the status of a batch once it has ended. `conn` must be in autocommit mode; `check` may raise."""
    with Progress(
        TextColumn("batch {task.fields[batch]} {task.fields[state]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[parts]}"),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
        transient=False,
    ) as progress:
        task = progress.add_task("", batch=batch_id, state="", parts="", total=None)
        while True:
            check()
            status = reports.status(conn, batch_id)
            parts = ", ".join(
                f"{status[name]:,} {name}" for name in ("sent", "failed", "unknown", "skipped") if status[name]
            )
            progress.update(
                task,
                total=status["deliveries"],
                completed=status["deliveries"] - status["pending"],
                state=status["state"],
                parts=parts,
            )
            if status["state"] in ENDED:
                return status
            time.sleep(_POLL_SECONDS)
