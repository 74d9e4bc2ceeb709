"""`bidden dlq`: the dead-letter topic, listed and shown; its letters redriven or discarded."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from cli.options import ACTOR, DATABASE_SETTINGS, KAFKA_SETTINGS, environment, json_option, parse_position
from cli.output import err, out, table, write_json, write_lines
from config.startup import load
from db.audit_log import AuditEntry, audited
from db.connect import Connection, connect
from db.dead_letters import handled
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON, UsageError, printable
from schemas.text import as_text

if TYPE_CHECKING:
    from config.settings import Settings
    from producers.dead_letters import DeadLetter

_NAMED_PLACES: Final = 20


@click.group()
def dlq() -> None:
    """List, show, redrive and discard dead letters.

    A dead letter is a message that can never be processed.

    Example: bidden dlq list
    """


def _connect(settings: Settings) -> Connection:
    return connect(settings.require_database(), application="bidden-operator", autocommit=True)


def _named(places: list[tuple[int, int]]) -> str:
    """For the audit log: the first places, and how many more."""
    named = ", ".join(f"{partition}:{offset}" for partition, offset in places[:_NAMED_PLACES])
    return named + (f" and {len(places) - _NAMED_PLACES} more" if len(places) > _NAMED_PLACES else "")


def _text(content: bytes | None) -> str | None:
    """Bytes that are usually text; the others are escaped."""
    return None if content is None else as_text(content)


@dlq.command("list", epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS))
@json_option
def list_dead_letters(as_json: bool) -> None:
    """List all dead letters, with reason and source.

    Example: bidden dlq list --json
    """
    from producers.dead_letters import DeadLetterReader

    settings = load()
    reader = DeadLetterReader(settings)
    with _connect(settings) as conn:
        known = handled(conn, reader.topic_id)
    rows = (letter.line(known.get(letter.place)).model_dump() for letter in reader.read_all())
    if as_json:
        write_lines(rows)
        return
    table(
        "Dead letters",
        ["position", "reason", "source", "at", "@key", "redriven", "discarded"],
        (
            [
                f"{row['partition']}:{row['offset']}",
                row["reason"],
                f"{row['source_topic']} {row['source_partition']}:{row['source_offset']}",
                row["at"],
                row["key"],
                row["redriven_at"],
                row["discarded_at"],
            ]
            for row in rows
        ),
    )


@dlq.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS))
@click.argument("position", metavar="P:O")
@json_option
def show(position: str, as_json: bool) -> None:
    """Show one dead letter, with its headers and its value.

    P:O is its position: partition and offset.

    Example: bidden dlq show 0:17 --json
    """
    from producers.dead_letters import DeadLetterReader

    partition, offset = parse_position(position, "letter")
    settings = load()
    reader = DeadLetterReader(settings)
    found = reader.read(partition, offset)
    with _connect(settings) as conn:
        fields = found.line(handled(conn, reader.topic_id).get(found.place)).model_dump()
    headers = {name: _text(content) for name, content in found.headers}
    if as_json:
        value = None if found.value is None else base64.b64encode(found.value).decode()
        write_json({**fields, "value": value, "headers": headers})
        return
    for name, content in {**fields, **headers}.items():
        out.print(f"{printable(name)}: {'-' if content is None else printable(str(content))}", markup=False)
    out.print(f"value: {'-' if found.value is None else printable(_text(found.value) or '')}", markup=False)


@dlq.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS))
@click.argument("positions", metavar="[P:O]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters from the topic of these settings.")
@click.option("--again", is_flag=True, help="Also those redriven before, and those discarded that are named.")
@json_option
def redrive(positions: tuple[str, ...], everything: bool, again: bool, as_json: bool) -> int:
    """Publish dead letters to their source topic again.

    They keep their key, bytes, headers and timestamp. Do this once the cause is fixed.

    Example: bidden dlq redrive 0:17 0:18
    """
    from producers.dead_letters import DeadLetterReader
    from producers.redrive import Redriver

    if bool(positions) == everything:
        raise UsageError("give the positions of dead letters, such as 0:17, or --all")
    wanted = list(dict.fromkeys(parse_position(text, "letter") for text in positions))
    settings = load()
    reader = DeadLetterReader(settings)
    redriver = Redriver(settings, reader)

    def ours() -> Iterator[DeadLetter]:
        for dead_letter in reader.read_all():
            if redriver.is_from_source(dead_letter):
                yield dead_letter
            else:
                source = dead_letter.info.topic
                err.print(f"excluded: {dead_letter.partition}:{dead_letter.offset} came from {source!r}", markup=False)

    chosen = reader.read_at(wanted)
    for dead_letter in chosen:
        redriver.require_from_source(dead_letter)
    named = "all" if everything else _named(wanted)
    entry = AuditEntry(ACTOR, "redrive", detail=named + (", again" if again else ""))
    with _connect(settings) as conn, audited(conn, entry):
        if not again:
            redriver.refuse_discarded(conn, chosen)
        done = redriver.redrive(conn, ours() if everything else chosen, again=again, discarded=again and not everything)
        entry.did_nothing = not (done.redriven or done.failed)
        entry.note(f"{len(done.redriven)} dead letters redriven, {len(done.failed)} failed")
    if as_json:
        write_lines(line.model_dump() for line in done.redriven)
    else:
        out.print(f"redrove {len(done.redriven):,} dead letters")
    for failure in done.failed:
        err.print(f"not redriven: {failure}", markup=False)
    return EXIT_NEEDS_A_PERSON if done.failed else EXIT_DONE


@dlq.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS))
@click.argument("positions", metavar="P:O...", nargs=-1, required=True)
@json_option
def discard(positions: tuple[str, ...], as_json: bool) -> None:
    """Set dead letters aside for good.

    They stay on their topic and are listed as discarded; they no longer wait for anybody.

    Example: bidden dlq discard 0:17
    """
    from producers.dead_letters import DeadLetterReader
    from producers.redrive import discard as discard_letters

    wanted = list(dict.fromkeys(parse_position(text, "letter") for text in positions))
    settings = load()
    reader = DeadLetterReader(settings)
    chosen = reader.read_at(wanted)
    entry = AuditEntry(ACTOR, "discard", detail=_named(wanted))
    with _connect(settings) as conn, audited(conn, entry):
        lines = discard_letters(conn, reader, chosen)
        entry.did_nothing = not lines
    if as_json:
        write_lines(line.model_dump() for line in lines)
    else:
        out.print(f"discarded {len(lines):,} dead letters")


COMMANDS: list[click.Command] = [dlq]
