"""`bidden replay`: processes messages again, by publishing a batch again or by moving the group's offsets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.options import DATABASE_SETTINGS, KAFKA_SETTINGS, Id, environment, json_option, parse_position
from cli.output import out, table, write_json
from config import tracing
from config.clock import now
from config.startup import load
from db.connect import connect
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, RefusedError, UsageError

if TYPE_CHECKING:
    from config.settings import Settings
    from producers.replay import MovedOffset


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time in ISO 8601, such as 2026-04-09T18:30:00Z", field="since") from None
    if time.tzinfo is None:
        raise UsageError(f"{text!r} has no time zone: write it like 2026-04-09T18:30:00Z", field="since")
    if not datetime(1970, 1, 1, tzinfo=UTC) <= time <= now():
        raise RefusedError(f"{text} must be in the past, and not before 1970", field="since")
    return time


def _parse_offsets(positions: tuple[str, ...]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    for partition, offset in (parse_position(text, "to-offset") for text in positions):
        if offsets.setdefault(partition, offset) != offset:
            raise UsageError(f"partition {partition} has two offsets", field="to-offset")
    return offsets


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS))
@click.option("--batch", type=Id(), help="Publish all items of this batch again; workers may run.")
@click.option("--since", metavar="TIME", help="Move the group to the first message at or after this time.")
@click.option(
    "--to-offset", "positions", multiple=True, metavar="P:O", help="Move the group to offset O in partition P."
)
@click.option("--from-beginning", is_flag=True, help="Move the group to the first message that the topic retains.")
@json_option
def replay(
    batch: int | None, since: str | None, positions: tuple[str, ...], from_beginning: bool, as_json: bool
) -> int:
    """Process messages again. Members who were mailed are not mailed again.

    The offsets of the group can be moved only while it has no workers; `--batch` works at any time.

    Example: bidden replay --since 2026-04-09T18:30:00Z
    """
    if sum((batch is not None, since is not None, bool(positions), from_beginning)) != 1:
        raise UsageError("give one of --batch, --since, --to-offset and --from-beginning")
    time, offsets = None if since is None else _parse_time(since), _parse_offsets(positions)
    settings = load()
    if batch is not None:
        tracing.start("bidden-replay")
        return _publish_again(settings, batch, as_json=as_json)
    _show_moved(_move_group(settings, time, offsets), as_json=as_json)
    return EXIT_DONE


def _publish_again(settings: Settings, batch: int, *, as_json: bool) -> int:
    from producers.replay import replay_batch

    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        done = replay_batch(conn, settings, now, batch)
    if as_json:
        write_json({"published": done.published})
    else:
        out.print(f"published {done.published:,} of {done.items:,} items of batch {batch} again")
    return EXIT_DONE if done.published == done.items else EXIT_NEEDS_A_PERSON


def _move_group(settings: Settings, time: datetime | None, offsets: dict[int, int]) -> dict[int, MovedOffset]:
    """To the time, or to the offsets, or to the beginning."""
    from producers.replay import GroupOffsets

    group = GroupOffsets(settings)
    if time is not None:
        return group.since(time)
    return group.to(offsets) if offsets else group.from_beginning()


def _show_moved(moved: dict[int, MovedOffset], *, as_json: bool) -> None:
    if as_json:
        write_json({"partitions": {str(p): {"from": m.before, "to": m.after} for p, m in moved.items()}})
    else:
        table(
            "Offsets of the group", ["@partition", "@from", "@to"], ([p, m.before, m.after] for p, m in moved.items())
        )


COMMANDS: list[click.Command] = [replay]
