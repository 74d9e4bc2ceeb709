"""The dead-letter topic as the pages and the API show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from config.settings import Settings
from db import batch_actions
from db.connect import Connection
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.dead_letters import DeadLetter, DeadLetterReader
from schemas.text import as_text

PAGE_SIZE: Final = 50
#: A place is a partition and an offset, as in `0:17`.
PLACE_PATTERN: Final = r"^[0-9]{1,9}:[0-9]{1,18}$"
MAX_PARTITION: Final = 2**31 - 1
#: Anybody may have written a header, as long as a message may be.
MAX_HEADER_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """A dead letter without its bytes. What its headers do not say is None; what they say may be anything."""

    partition: int
    offset: int
    reason: str | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    at: str | None
    key: str | None
    #: Bytes of the value; None for a message without one.
    size: int | None
    redriven_at: datetime | None = None

    @property
    def place(self) -> str:
        """As the command line names it: `0:17`."""
        return f"{self.partition}:{self.offset}"

    @property
    def failed_at(self) -> datetime | None:
        """`at`, if it is a timestamp."""
        try:
            time = datetime.fromisoformat(self.at or "")
        except ValueError:
            return None
        return time if time.tzinfo is not None else None


@dataclass(frozen=True, slots=True)
class DeadLetterListing:
    """Dead letters, newest first within a partition. `waiting`: how many of all were never redriven."""

    letters: list[DeadLetterSummary]
    waiting: int
    #: The place to pass as `before` for the next page.
    next: str | None


def newest(conn: Connection, settings: Settings, before: str | None) -> DeadLetterListing:
    """One page of them; `before` is the last place of the page before it. UnreachableError, SettingsError."""
    with kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        found = reader.newest(PAGE_SIZE, parse_place(before) if before else None, summarize)
    redriven = batch_actions.redriven_dead_letters(conn, reader.topic_id)
    letters = [_with_redrive(letter, redriven) for letter in found.items]
    waiting = found.total - sum(found.contains(place) for place in redriven)
    return DeadLetterListing(letters, waiting, letters[-1].place if found.has_more and letters else None)


def find(conn: Connection, settings: Settings, partition: int, offset: int) -> tuple[DeadLetter, DeadLetterSummary]:
    """A dead letter, whole and in short. NotFoundError, UnreachableError, SettingsError."""
    with kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        letter = reader.read(partition, offset)
    redriven = batch_actions.redriven_dead_letters(conn, reader.topic_id)
    return letter, _with_redrive(summarize(letter), redriven)


def summarize(letter: DeadLetter) -> DeadLetterSummary:
    """The summary; whether it was redriven is not known here. Pure."""
    return DeadLetterSummary(
        partition=letter.partition,
        offset=letter.offset,
        reason=_cut(letter.info.reason),
        source_topic=_cut(letter.info.topic),
        source_partition=letter.info.partition,
        source_offset=letter.info.offset,
        at=_cut(letter.info.time),
        key=None if letter.key is None else as_text(letter.key)[:MAX_HEADER_LENGTH],
        size=None if letter.value is None else len(letter.value),
    )


def parse_place(place: str) -> tuple[int, int]:
    """Partition and offset of a text that matches PLACE_PATTERN."""
    partition, _, offset = place.partition(":")
    return int(partition), int(offset)


def _cut(text: str | None) -> str | None:
    return text and text[:MAX_HEADER_LENGTH]


def _with_redrive(summary: DeadLetterSummary, redriven: Mapping[tuple[int, int], datetime]) -> DeadLetterSummary:
    return replace(summary, redriven_at=redriven.get((summary.partition, summary.offset)))
