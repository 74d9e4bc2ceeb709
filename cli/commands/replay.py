"""Commands that bring messages back: `replay`, and `dlq` for the dead-letter topic."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from cli.options import DATABASE, KAFKA, Id, environment, json_option
from cli.output import err, out, table, write_json, write_lines
from config.clock import now
from config.startup import load
from db import batch_actions
from db.connect import connect
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, RefusedError, UsageError, printable

if TYPE_CHECKING:
    from producers.dead_letters import DeadLetter
    from producers.replay import MovedOffset

_PLACE: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")


def _place(text: str, field: str) -> tuple[int, int]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no partition and offset: write them like 0:17", field=field)
    return int(match[1]), int(match[2])


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time in ISO 8601, like 2026-04-09T18:30:00Z", field="since") from None
    if time.tzinfo is None:
        raise UsageError(f"{text!r} has no time zone: write it like 2026-04-09T18:30:00Z", field="since")
    if not datetime(1970, 1, 1, tzinfo=UTC) <= time <= now():
        raise RefusedError(f"{text} does not lie in the past, or lies before there were computers", field="since")
    return time


def _offsets(places: tuple[str, ...]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    for partition, offset in (_place(text, "to-offset") for text in places):
        if offsets.setdefault(partition, offset) != offset:
            raise UsageError(f"partition {partition} is given two offsets", field="to-offset")
    return offsets


@click.command(epilog=environment(DATABASE, KAFKA))
@click.option("--batch", type=Id(), help="Publish the batch's items again, workers running or not.")
@click.option("--since", metavar="TIME", help="Move the group to the first message at or after this time.")
@click.option("--to-offset", "places", multiple=True, metavar="P:O", help="Move the group here in this partition.")
@click.option("--from-beginning", is_flag=True, help="Move the group to the first message that is kept.")
@json_option
def replay(batch: int | None, since: str | None, places: tuple[str, ...], from_beginning: bool, as_json: bool) -> int:
    """Let messages come again. Whoever was mailed is not mailed again.

    The group's offsets can be moved only while it has no workers; `--batch` works at any time.

    Example: bidden replay --since 2026-04-09T18:30:00Z
    """
    from producers.replay import GroupOffsets, replay_batch

    if sum((batch is not None, since is not None, bool(places), from_beginning)) != 1:
        raise UsageError("say one of --batch, --since, --to-offset and --from-beginning")
    time, offsets = _time(since) if since is not None else None, _offsets(places)
    settings = load()
    if batch is not None:
        with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
            done = replay_batch(conn, settings, now, batch)
        if as_json:
            write_json({"published": done.published})
        else:
            out.print(f"{done.published:,} of {done.items:,} items of batch {batch} are on the topic again")
        return EXIT_DONE if done.published == done.items else EXIT_NEEDS_A_PERSON
    group = GroupOffsets(settings)
    if time is not None:
        _show_moved(group.since(time), as_json=as_json)
    elif offsets:
        _show_moved(group.to(offsets), as_json=as_json)
    else:
        _show_moved(group.from_beginning(), as_json=as_json)
    return EXIT_DONE


def _show_moved(moved: dict[int, MovedOffset], *, as_json: bool) -> None:
    if as_json:
        write_json({"partitions": {str(p): {"from": m.before, "to": m.after} for p, m in moved.items()}})
    else:
        table(
            "The group goes on at", ["@partition", "@from", "@to"], ([p, m.before, m.after] for p, m in moved.items())
        )


@click.group()
def dlq() -> None:
    """Messages that could never be processed: the dead-letter topic.

    Example: bidden dlq list
    """


def _line(letter: DeadLetter, redriven: dict[tuple[int, int], datetime]) -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.info.reason,
        "source_topic": letter.info.topic,
        "source_partition": letter.info.partition,
        "source_offset": letter.info.offset,
        "at": letter.info.time,
        "key": _text(letter.key),
        "redriven_at": redriven.get(letter.place),
    }


def _text(content: bytes | None) -> str | None:
    """Bytes that are text, mostly; the others are escaped."""
    return None if content is None else content.decode("utf-8", "backslashreplace")


@dlq.command("list", epilog=environment(DATABASE, KAFKA))
@json_option
def list_letters(as_json: bool) -> None:
    """Every letter: why, and where it came from.

    Example: bidden dlq list --json
    """
    from producers.dead_letters import DeadLetterReader

    settings = load()
    box = DeadLetterReader(settings)
    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        redriven = batch_actions.redriven_dead_letters(conn, box.topic_id)
    lines = (_line(letter, redriven) for letter in box.read_all())
    if as_json:
        write_lines(lines)
        return
    table(
        "Dead letters",
        ["letter", "reason", "came from", "at", "@key", "redriven"],
        (
            [
                f"{line['partition']}:{line['offset']}",
                line["reason"],
                f"{line['source_topic']} {line['source_partition']}:{line['source_offset']}",
                line["at"],
                line["key"],
                line["redriven_at"],
            ]
            for line in lines
        ),
    )


@dlq.command(epilog=environment(DATABASE, KAFKA))
@click.argument("letter", metavar="P:O")
@json_option
def show(letter: str, as_json: bool) -> None:
    """One letter whole, its bytes and headers included.

    Example: bidden dlq show 0:17 --json
    """
    from producers.dead_letters import DeadLetterReader

    place = _place(letter, "letter")
    settings = load()
    box = DeadLetterReader(settings)
    found = box.read(*place)
    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        line = _line(found, batch_actions.redriven_dead_letters(conn, box.topic_id))
    headers = {name: _text(content) for name, content in found.headers}
    if as_json:
        value = None if found.value is None else base64.b64encode(found.value).decode()
        write_json({**line, "value": value, "headers": headers})
        return
    for name, content in {**line, **headers}.items():
        out.print(f"{printable(name)}: {'-' if content is None else printable(str(content))}", markup=False)
    out.print(f"value: {'-' if found.value is None else printable(_text(found.value) or '')}", markup=False)


@dlq.command(epilog=environment(DATABASE, KAFKA))
@click.argument("letters", metavar="[P:O]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every letter that came from the topic of these settings.")
@click.option("--again", is_flag=True, help="Those that were redriven before, too.")
@json_option
def redrive(letters: tuple[str, ...], everything: bool, again: bool, as_json: bool) -> int:
    """Put letters on their source topic again, with the original key and bytes: after what ailed them was repaired.

    Example: bidden dlq redrive 0:17 0:18
    """
    from producers.dead_letters import DeadLetterReader, Redriver

    if bool(letters) == everything:
        raise UsageError("say which letters, like 0:17, or --all")
    places = dict.fromkeys(_place(text, "letter") for text in letters)
    settings = load()
    box = DeadLetterReader(settings)
    redriver = Redriver(settings, box)

    def ours() -> Iterator[DeadLetter]:
        for letter in box.read_all():
            if redriver.is_from_source(letter):
                yield letter
            else:
                err.print(
                    f"left out: {letter.partition}:{letter.offset} came from {letter.info.topic!r}",
                    markup=False,
                )

    named = box.read_at(list(places))
    for letter in named:
        redriver.require_from_source(letter)
    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        done = redriver.redrive(conn, ours() if everything else named, again=again)
    if as_json:
        write_json({"redriven": done.redriven})
    else:
        out.print(f"{done.redriven:,} letters are on their topic again")
    for failure in done.failed:
        err.print(f"not redriven: {failure}", markup=False)
    return EXIT_NEEDS_A_PERSON if done.failed else EXIT_DONE


COMMANDS: list[click.Command] = [replay, dlq]
