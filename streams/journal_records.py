"""The lines of a journal: how they are written, and what a whole journal says. Pure.

| line    | written                                                  | says                                        |
|---------|----------------------------------------------------------|---------------------------------------------|
| header  | first                                                    | version, boot of the machine, database, worker |
| claimed | before the transaction that asks for the claims          | the cycle; of each delivery key and batch   |
| begun   | before the first byte that could complete the mail       | key and fence                               |
| outcome | when it is known; at the latest with the connection's next mail | key, fence, outcome                  |

Each is an array in JSON, and its first item says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import orjson

from db.ledger_transaction import columns_of, outcome_of
from schemas.delivery import Delivery
from schemas.journal import NotedClaim
from schemas.keys import DeliveryKey

_VERSION: Final = 2


class Header(NamedTuple):
    """Of which start of the machine the journal is, of which database, and of which worker."""

    boot: str
    database: str
    worker: str


def header_line(header: Header) -> bytes:
    """The first line."""
    return _line("bidden journal", _VERSION, *header)


def claimed_line(owner: str, deliveries: Iterable[Delivery]) -> bytes:
    """What one transaction is about to ask for."""
    noted = [(str(d.key), d.batch_id, d.role, d.partition, d.offset) for d in deliveries]
    return _line("claimed", owner, noted)


def begun_line(delivery: Delivery) -> bytes:
    """Its mail is about to be completed. As `_line` would write it: this is written for every mail."""
    return f'["begun","{delivery.key}",{delivery.fence}]\n'.encode()


def outcome_line(delivery: Delivery) -> bytes:
    """Its outcome, without addresses."""
    return _line("outcome", str(delivery.key), delivery.fence, columns_of(delivery))


def _line(*items: object) -> bytes:
    return orjson.dumps(items, option=orjson.OPT_APPEND_NEWLINE)


def parse(text: bytes, boot: str, database: str) -> list[NotedClaim] | None:
    """The newest claim of each key. None where the journal says nothing: of another machine's start or database, torn.

    A journal of before the machine's last start lacks what was not on its disk yet.
    """
    lines = text.split(b"\n")
    try:
        kind, version, *rest = orjson.loads(lines[0])
        header = Header(*rest)
        if lines[-1] or kind != "bidden journal" or version != _VERSION:
            return None
        if header.boot != boot or header.database != database:
            return None
        return _claims(lines[1:-1])
    # Whatever it is that does not fit: it is not what a worker of ours wrote.
    except (ValueError, TypeError, KeyError):
        return None


def is_of(text: bytes, boot: str) -> bool:
    """Whether a journal is of this start of the machine."""
    return boot.encode() in text.partition(b"\n")[0]


def _claims(lines: Iterable[bytes]) -> list[NotedClaim]:
    """ValueError, KeyError or TypeError for a line that no journal has."""
    newest: dict[DeliveryKey, NotedClaim] = {}
    for line in lines:
        match orjson.loads(line):
            case ["claimed", str(owner), [*noted]]:
                for text, batch_id, role, partition, offset in noted:
                    key = DeliveryKey.parse(text)
                    newest[key] = NotedClaim(owner, key, None, batch_id, role, partition, offset)
            case ["begun", str(text), int(fence)]:
                key = DeliveryKey.parse(text)
                newest[key] = _of(newest[key], fence).begin(fence)
            case ["outcome", str(text), int(fence), dict(row)]:
                key = DeliveryKey.parse(text)
                newest[key] = _of(newest[key], fence).end(fence, outcome_of(row))
            case other:
                raise ValueError(f"not a line of a journal: {other!r}")
    return list(newest.values())


def _of(claim: NotedClaim, fence: int) -> NotedClaim:
    if claim.fence not in (None, fence):
        raise ValueError("one mail under two fences")
    return claim
