"""A message on the dead-letter topic: why it is there, where it came from, and what its original was. Pure.

Its headers are ours (`bidden-…`) and after them those of the original, unchanged and in their order, so that a redrive
restores them. Anyone may write to the topic: what a header says may be absent, of any length, or no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from schemas.redaction import without_addresses

REASON: Final = "bidden-reason"
TOPIC: Final = "bidden-topic"
PARTITION: Final = "bidden-partition"
OFFSET: Final = "bidden-offset"
TIME: Final = "bidden-time"
#: The original's timestamp, in milliseconds since 1970.
TIMESTAMP: Final = "bidden-timestamp"
#: Before the name of an original header that begins like ours: it must not be taken for one of ours.
_ESCAPE: Final = "bidden-header-"
_OURS: Final = "bidden-"

_NAMES: Final = frozenset({REASON, TOPIC, PARTITION, OFFSET, TIME, TIMESTAMP})
#: What fits 64 bits, whatever its digits.
_NUMBER: Final = re.compile(r"[0-9]{1,18}")

#: Header names and values; names may repeat.
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class DeadLetterLine(BaseModel):
    """A dead letter in short: a line of `bidden dlq list`, and what the site and the API show.

    What the headers do not say is None; what they say may be anything. `redriven_at` and `discarded_at` are the
    database's: a letter that has neither waits for a person.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    partition: int
    offset: int
    reason: str | None
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    at: str | None
    key: str | None
    redriven_at: datetime | None = None
    discarded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """What our headers say; None for what is absent or no number.

    `time` is ISO 8601 where we wrote it; `timestamp` is the original's, in milliseconds since 1970.
    """

    reason: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    time: str | None
    timestamp: int | None = None


def encode_headers(
    reason: str,
    topic: str,
    partition: int,
    offset: int,
    time: str,
    *,
    timestamp: int | None = None,
    original: Headers = (),
) -> list[tuple[str, str | bytes | None]]:
    """The headers of a dead letter: the reason, the place of the original message, and when it was put there.

    The reason quotes no address; the original's key, bytes and headers stay as they came, until retention removes them.
    `original` are the headers of the original message, `timestamp` is its timestamp.
    """
    return [
        (REASON, without_addresses(reason).encode("utf-8", "replace")),
        (TOPIC, topic.encode()),
        (PARTITION, str(partition).encode()),
        (OFFSET, str(offset).encode()),
        (TIME, time.encode()),
        *([] if timestamp is None else [(TIMESTAMP, str(timestamp).encode())]),
        *((f"{_ESCAPE}{name}" if name.startswith(_OURS) else name, value) for name, value in original),
    ]


def decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> DeadLetterInfo:
    """What our headers say; of several with one name the first that is not null counts."""
    texts: dict[str, str] = {}
    for name, value in headers:
        if name in _NAMES and value is not None and name not in texts:
            texts[name] = value.decode("utf-8", "replace")
    return DeadLetterInfo(
        texts.get(REASON),
        texts.get(TOPIC),
        _number(texts.get(PARTITION)),
        _number(texts.get(OFFSET)),
        texts.get(TIME),
        _number(texts.get(TIMESTAMP)),
    )


def original_headers(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, str | bytes | None]]:
    """The headers of the original message, as it had them."""
    return [
        (name.removeprefix(_ESCAPE), value)
        for name, value in headers
        if not name.startswith(_OURS) or name.startswith(_ESCAPE)
    ]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
