"""The dead-letter topic as the pages and the API show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from config.settings import Settings
from db.connect import Connection
from db.dead_letters import Handled, handled
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.dead_letters import DeadLetter, DeadLetterReader
from schemas.dead_letter import DeadLetterLine

PAGE_SIZE: Final = 50
#: A place is a partition and an offset, as in `0:17`.
PLACE_PATTERN: Final = r"^[0-9]{1,9}:[0-9]{1,18}$"
MAX_PARTITION: Final = 2**31 - 1
#: Anybody may have written a header, as long as a message may be.
MAX_HEADER_LENGTH: Final = 2000


class DeadLetterSummary(DeadLetterLine):
    """A dead letter without its bytes; texts of any length are cut."""

    #: Bytes of the value; None for a message without one.
    size: int | None

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
    """Dead letters, newest first within a partition. `waiting`: how many of all were neither redriven nor discarded."""

    letters: list[DeadLetterSummary]
    waiting: int
    #: The place to pass as `before` for the next page.
    next: str | None


def newest(conn: Connection, settings: Settings, before: str | None) -> DeadLetterListing:
    """One page of them; `before` is the last place of the page before it. UnreachableError, SettingsError."""
    with kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        found = reader.newest(PAGE_SIZE, parse_place(before) if before else None, summarize)
    known = handled(conn, reader.topic_id)
    letters = [_with_handled(letter, known) for letter in found.items]
    return DeadLetterListing(letters, found.waiting(known), letters[-1].place if found.has_more and letters else None)


def find(conn: Connection, settings: Settings, partition: int, offset: int) -> tuple[DeadLetter, DeadLetterSummary]:
    """A dead letter, whole and in short. NotFoundError, UnreachableError, SettingsError."""
    with kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        letter = reader.read(partition, offset)
    return letter, _with_handled(summarize(letter), handled(conn, reader.topic_id))


def summarize(letter: DeadLetter) -> DeadLetterSummary:
    """The summary; what operators did with it is not known here. Pure."""
    fields = letter.line().model_dump()
    texts = {name: value[:MAX_HEADER_LENGTH] for name, value in fields.items() if isinstance(value, str)}
    return DeadLetterSummary(**fields | texts, size=None if letter.value is None else len(letter.value))


def parse_place(place: str) -> tuple[int, int]:
    """Partition and offset of a text that matches PLACE_PATTERN."""
    partition, _, offset = place.partition(":")
    return int(partition), int(offset)


def _with_handled(summary: DeadLetterSummary, known: Mapping[tuple[int, int], Handled]) -> DeadLetterSummary:
    found = known.get((summary.partition, summary.offset), Handled())
    return summary.model_copy(update=found._asdict())
