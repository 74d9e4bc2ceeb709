"""The headers of a message on the dead-letter topic: why it is there and where it came from. Pure.

Anyone may write to the topic, so what a header says may be absent, of any length, or no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

REASON: Final = "bidden-reason"
TOPIC: Final = "bidden-topic"
PARTITION: Final = "bidden-partition"
OFFSET: Final = "bidden-offset"
TIME: Final = "bidden-time"

_NAMES: Final = frozenset({REASON, TOPIC, PARTITION, OFFSET, TIME})
#: What fits 64 bits, whatever its digits.
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """What the headers say; None for what is absent or no number. `time` is ISO 8601 where we wrote it."""

    reason: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    time: str | None


def encode_headers(
    reason: str, topic: str, partition: int, offset: int, time: str
) -> list[tuple[str, str | bytes | None]]:
    """The headers of a dead letter: the reason, the place of the original message, and when it was put there."""
    return [
        (REASON, reason.encode("utf-8", "replace")),
        (TOPIC, topic.encode()),
        (PARTITION, str(partition).encode()),
        (OFFSET, str(offset).encode()),
        (TIME, time.encode()),
    ]


def decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> DeadLetterInfo:
    """What the headers say; of several with one name the first that is not null counts."""
    texts: dict[str, str] = {}
    for name, value in headers:
        if name in _NAMES and value is not None and name not in texts:
            texts[name] = value.decode("utf-8", "replace")
    return DeadLetterInfo(
        texts.get(REASON), texts.get(TOPIC), _number(texts.get(PARTITION)), _number(texts.get(OFFSET)), texts.get(TIME)
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None
