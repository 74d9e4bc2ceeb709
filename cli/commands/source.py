"""The command `sync`: the directory comes from the organisation's own database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click
import structlog

from cli.options import ACTOR, DATABASE_SETTINGS, SOURCE_SETTINGS, environment, json_option
from cli.output import out, table, write_json
from config.driver_errors import translate_error
from config.log_throttle import LogThrottle
from config.setting_forms import duration, seconds
from config.startup import load
from config.stop_signals import StopRequest, stop_on_signals
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, BiddenError, RefusedError, UnreachableError, UsageError

if TYPE_CHECKING:
    from config.settings import Settings
    from db.snapshots import Snapshot
    from db.source import Source

log = structlog.get_logger()

#: Between two looks for invitations that the source is to get.
_PLACE_SECONDS: Final = 1.0


@click.command(epilog=environment(DATABASE_SETTINGS, SOURCE_SETTINGS))
@click.option("--every", metavar="D", help="Take a snapshot every so often, such as 15s, until stopped.")
@click.option("--check", "is_check", is_flag=True, help="Write nothing; show what would change and be set aside.")
@click.option("--accept", is_flag=True, help="Take a snapshot that differs much from the directory.")
@click.option("--end", is_flag=True, help="There is no source any more; the directory stays as it is.")
@json_option
def sync(every: str | None, is_check: bool, accept: bool, end: bool, as_json: bool) -> int:
    """Read the directory from the organisation's own database.

    Takes one snapshot of the source by the queries of BIDDEN_SOURCE_FILE. What it does not name is removed, but for
    events and invitations. A row that cannot be used is set aside and named; then the exit code is 1.

    Example: bidden sync --every 15s
    """
    from db.source import Source
    from db.sync import check, end_source, sync_once

    pause = _pause(every, alone=not (is_check or accept or end))
    if sum((is_check, end)) > 1 or (end and accept):
        raise UsageError("--check, --accept with it, and --end exclude each other", field="end")
    settings = load(logs_as_json=as_json and pause is not None)
    if end:
        had_one = end_source(settings, ACTOR)
        write_json({"ended": had_one}) if as_json else out.print("ended" if had_one else "there was no source")
        return EXIT_DONE
    source = Source.of(settings)
    if is_check:
        checked = check(settings, source, accept=accept)
        if as_json:
            write_json(checked.snapshot.as_dict() | {"lines": checked.lines})
        else:
            show_snapshot(checked.snapshot, hint="")
            columns = ["type", "key", "field", "problem"]
            table("Set aside", columns, [[line[column] or "" for column in columns] for line in checked.lines])
        return exit_code(checked.snapshot)
    if pause is not None:
        _repeat(settings, source, pause, stop_on_signals())
        return EXIT_DONE
    snapshot = sync_once(settings, source, ACTOR, accept=accept)
    _give_back(settings, source)
    write_json(snapshot.as_dict()) if as_json else show_snapshot(snapshot)
    return exit_code(snapshot)


def _pause(every: str | None, *, alone: bool) -> float | None:
    """Seconds between the beginnings of two snapshots."""
    if every is None:
        return None
    if not alone:
        raise UsageError("--every cannot be combined with other options", field="every")
    try:
        return seconds(duration(every))
    except ValueError as error:
        raise UsageError(f"--every {error}", field="every") from error


def _repeat(settings: Settings, source: Source, pause: float, stop: StopRequest) -> None:
    """Until stopped. A snapshot that is refused, or a source that goes away, is tried again; claims wait meanwhile.

    Invitations are placed between two snapshots, too. A source that is away at the start, or whose queries do not fit,
    now or later, ends the process.
    """
    from db.placing import place, places
    from db.sync import sync_once

    throttle = LogThrottle()
    due = time.monotonic()
    is_first = True
    most = _PLACE_SECONDS if places(source) else pause
    while True:
        left = max(due - time.monotonic(), 0.0)
        if stop.wait(min(left, most)):
            return
        try:
            # Snapshots first: without one nothing is claimed, however much is placed.
            if left > most:
                place(settings, source)
                continue
            due = time.monotonic() + pause
            snapshot = sync_once(settings, source, ACTOR, accept=False)
            _give_back(settings, source)
        except Exception as error:
            known = error if isinstance(error, BiddenError) else translate_error(error)
            if not isinstance(known, RefusedError) and (is_first or not isinstance(known, UnreachableError)):
                raise
            if throttle.admits(known.error):
                log.warning("the source was not synced", cause=known.detail)
            continue
        if is_first or snapshot.has_changed:
            log.info("a snapshot was taken", snapshot_at=snapshot.began_at.isoformat(), changes=snapshot.summary())
        is_first = False


def _give_back(settings: Settings, source: Source) -> None:
    """What the source does not have yet; first what mails wait for."""
    from db.placing import place
    from db.reporting import report
    from db.write_back import write_back

    place(settings, source)
    report(settings, source)
    write_back(settings, source)


def show_snapshot(snapshot: Snapshot, hint: str = ": `bidden sync --check` names them") -> None:
    """For a person. `hint` follows the number of lines that were set aside."""
    rows = [
        [kind, snapshot.read[kind], found.added, found.changed, found.removed]
        for kind, found in snapshot.changes.items()
    ]
    table(f"Snapshot of {snapshot.began_at.isoformat()}", ["type", "#read", "#added", "#changed", "#removed"], rows)
    if snapshot.set_aside:
        out.print(f"{snapshot.set_aside:,} lines were set aside{hint}")


def exit_code(snapshot: Snapshot) -> int:
    """1 where a person should look at what was set aside."""
    return EXIT_NEEDS_A_PERSON if snapshot.set_aside else EXIT_DONE


COMMANDS: list[click.Command] = [sync]
