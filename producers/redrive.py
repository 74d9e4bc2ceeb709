"""Dead letters that an operator decided about: put on their source topic again, or set aside for good.

A redriven or discarded dead letter stays on its topic. The database records it, so that redriving it again needs
`again`. A message that comes twice costs one ledger query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config import crash_points
from config.crash_points import CrashPoint
from config.kafka import ANY_SIZE, producer_config
from config.kafka_producer import BatchProducer, OutgoingMessage, Receipt
from config.metrics import REDRIVEN
from config.settings import Settings
from db import dead_letters as handled_letters
from db.chunks import chunked
from db.connect import Connection
from db.dead_letters import Handled
from producers.dead_letters import DeadLetter, DeadLetterReader
from schemas.dead_letter import DeadLetterLine, original_headers
from schemas.errors import RefusedError

_FLUSH_SECONDS: Final = 25.0
_CHUNK: Final = 500
_CHUNK_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The dead letters that are on their source topic again, and the causes for those that failed.

    `discarded`: how many were left out because they had been discarded.
    """

    redriven: tuple[DeadLetterLine, ...]
    failed: tuple[str, ...] = ()
    discarded: int = 0


class Redriver:
    """Produces dead letters to the topic that they came from, with the original key, bytes, headers and timestamp.

    `timeout` is how many seconds the brokers have to acknowledge one chunk. `redriven` counts what they acknowledged,
    also when a later chunk fails.
    """

    def __init__(self, settings: Settings, reader: DeadLetterReader, timeout: float = _FLUSH_SECONDS) -> None:
        self._source = settings.invitations_topic
        self._topic_id = reader.topic_id
        self._timeout = timeout
        self.redriven = 0
        config = {**producer_config(settings, "bidden-redrive"), **ANY_SIZE}
        # A message that was reported as failed must not arrive later.
        config["message.timeout.ms"] = int(min(config["message.timeout.ms"], timeout * 800))
        self._producer = BatchProducer(config)

    def is_from_source(self, dead_letter: DeadLetter) -> bool:
        """Whether its headers, which anyone may have written, name the topic of these settings."""
        return dead_letter.info.topic == self._source

    def refuse_discarded(self, conn: Connection, dead_letters: Sequence[DeadLetter]) -> None:
        """RefusedError for a dead letter that was discarded."""
        before = handled_letters.handled(conn, self._topic_id)
        for letter in dead_letters:
            found = before.get(letter.place)
            if found is not None and found.discarded_at is not None:
                raise RefusedError(
                    f"dead letter {letter.partition}:{letter.offset} was discarded at "
                    f"{found.discarded_at:%Y-%m-%d %H:%M} UTC; to redrive it nevertheless, set `again`",
                    field="letter",
                )

    def require_from_source(self, dead_letter: DeadLetter) -> None:
        """RefusedError for a dead letter of another topic."""
        if not self.is_from_source(dead_letter):
            raise RefusedError(
                f"dead letter {dead_letter.partition}:{dead_letter.offset} came from {dead_letter.info.topic!r}, "
                f"and not from {self._source}",
                field="letter",
            )

    def redrive(
        self,
        conn: Connection,
        dead_letters: Iterable[DeadLetter],
        *,
        again: bool = False,
        discarded: bool = False,
    ) -> RedriveResult:
        """Redrive these; those redriven before only with `again`, discarded ones only with `discarded`.

        `conn` must be in autocommit mode.

        Each chunk is recorded once the brokers have it: a crash in between can only redrive it twice.
        """
        before = handled_letters.handled(conn, self._topic_id)

        left_out = 0

        def is_wanted(letter: DeadLetter) -> bool:
            nonlocal left_out
            found = before.get(letter.place, Handled())
            if found.discarded_at is not None and not discarded:
                left_out += 1
                return False
            return again or found.redriven_at is None

        todo = filter(is_wanted, dead_letters)
        done, failed = list[DeadLetterLine](), list[str]()
        for chunk in chunked(todo, _CHUNK, lambda dead_letter: len(dead_letter.value or b""), _CHUNK_BYTES):
            acknowledged = self._produce(chunk, failed)
            self.redriven += len(acknowledged)
            REDRIVEN.inc(len(acknowledged))
            if acknowledged:
                crash_points.reach(CrashPoint.REDRIVE_DELIVERED)
                handled_letters.record_redriven(conn, self._topic_id, [letter.place for letter in acknowledged])
            # The bytes of a chunk are not kept.
            done += [letter.line() for letter in acknowledged]
        after = handled_letters.handled(conn, self._topic_id) if done else {}
        return RedriveResult(tuple(_with(line, after) for line in done), tuple(failed), left_out)

    def _produce(self, dead_letters: list[DeadLetter], failed: list[str]) -> list[DeadLetter]:
        """Those that the brokers acknowledged; appends the causes of the others to `failed`."""
        messages = (
            OutgoingMessage(
                dead_letter.key,
                dead_letter.value,
                original_headers(dead_letter.headers),
                dead_letter.info.timestamp,
            )
            for dead_letter in dead_letters
        )
        results = self._producer.produce_all(self._source, messages, self._timeout)
        acknowledged = []
        for dead_letter, result in zip(dead_letters, results, strict=True):
            if isinstance(result, Receipt):
                acknowledged.append(dead_letter)
            else:
                failed.append(f"{dead_letter.partition}:{dead_letter.offset}: {result}")
        return acknowledged


def discard(conn: Connection, reader: DeadLetterReader, dead_letters: Sequence[DeadLetter]) -> list[DeadLetterLine]:
    """Set these aside for good: they stay on the topic, and no longer wait for anybody. Safe to repeat."""
    handled_letters.record_discarded(conn, reader.topic_id, [letter.place for letter in dead_letters])
    handled = handled_letters.handled(conn, reader.topic_id)
    return [letter.line(handled.get(letter.place)) for letter in dead_letters]


def _with(line: DeadLetterLine, handled: Mapping[tuple[int, int], Handled]) -> DeadLetterLine:
    found = handled.get((line.partition, line.offset), Handled())
    return line.model_copy(update=found._asdict())
