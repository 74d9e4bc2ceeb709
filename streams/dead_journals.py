"""Settles the journals of workers that have died: what each claim came to is recorded under its fence.

| the journal says of a claim   | recorded as                                            |
|-------------------------------|--------------------------------------------------------|
| its outcome                   | that                                                   |
| its mail was begun            | unknown, at once                                       |
| neither                       | not sent: due again at once, and no attempt is used    |

Whether a worker lives is asked of the lock on its journal, never of a process id: containers share a folder, not ids.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from db.ledger import Ledger
from schemas.delivery import Cycle, Delivery
from schemas.errors import first_line
from schemas.journal import NotedClaim
from schemas.outcomes import Outcome, Retry, Unknown
from streams.journal import NEW_SUFFIX, SUFFIX, FileJournal, Journal, NoJournal, boot_id
from streams.journal_records import Header, is_of, parse

log = structlog.get_logger()

_STOPPED: Final = "its worker stopped while sending"
_NOT_BEGUN: Final = "its worker stopped before the mail was sent"
#: Claims recorded in one transaction.
_CHUNK: Final = 1000


def outcome_of(claim: NotedClaim) -> Outcome:
    """What its journal says that a claim came to."""
    if claim.outcome is not None:
        return claim.outcome
    return Unknown(_STOPPED) if claim.begun else Retry(_NOT_BEGUN, delay=0.0, uses=0)


async def settle(ledger: Ledger, owner: str, claims: Sequence[NotedClaim]) -> list[Outcome]:
    """Record what a journal says of the claims whose outcome the ledger does not know; what was recorded.

    `owner` names the transactions. May be repeated, and by others at the same time.
    """
    recorded: list[Outcome] = []
    for start in range(0, len(claims), _CHUNK):
        left = await ledger.claims_left(claims[start : start + _CHUNK])
        deliveries = [_delivery(claim) for claim in left]
        if deliveries:
            await ledger.run_cycle(Cycle(owner, record=deliveries))
        recorded += [outcome_of(claim) for claim in left]
    return recorded


def _delivery(claim: NotedClaim) -> Delivery:
    assert claim.fence is not None, "the ledger says it"
    return replace(
        Delivery(claim.batch_id, claim.key, claim.role, claim.partition, claim.offset),
        fence=claim.fence,
        outcome=outcome_of(claim),
    )


class Journals:
    """The journals in a folder. `database` is `db.connect.fingerprint`: others may keep theirs in the same folder."""

    def __init__(self, folder: Path, database: str, boot: Callable[[], str] = boot_id) -> None:
        self._folder = folder
        self._database = database
        self._boot = boot

    def open(self, worker: str) -> Journal:
        """The journal of a worker that starts; without a folder that can be written, none. In the event loop."""
        loop = asyncio.get_running_loop()
        try:
            header = Header(self._boot(), self._database, worker)
            return FileJournal(self._folder, header, monotonic=loop.time, soon=loop.call_soon)
        except OSError as error:
            log.warning(
                "no journal can be written (BIDDEN_STATE_DIR): after a kill, what is in flight is unknown"
                " when its lease ends",
                folder=str(self._folder),
                cause=first_line(error),
            )
            return NoJournal()

    async def settle_dead(self, ledger: Ledger) -> None:
        """Settle and remove every journal whose worker has died. Waits while the database is away."""
        try:
            boot = self._boot()
        except OSError:
            return
        for path in sorted(self._folder.glob(f"*{NEW_SUFFIX}")):
            with _take(path) as text:
                if text is not None:
                    _remove(path)
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with _take(path) as text:
                if text is not None:
                    await self._settle(ledger, path, text, boot)

    async def _settle(self, ledger: Ledger, path: Path, text: bytes, boot: str) -> None:
        claims = parse(text, boot, self._database)
        if claims is None:
            if is_of(text, boot):
                # It may be of another database, whose workers will settle it.
                log.warning("a journal is torn, or of another database; its claims wait for leases", file=path.name)
            else:
                _remove(path)
            return
        outcomes = await settle(ledger, f"{path.stem}#journal", claims)
        _remove(path)
        log.info(
            "settled the journal of a worker that had died",
            journal=path.stem,
            claims=len(outcomes),
            unknown=sum(isinstance(outcome, Unknown) for outcome in outcomes),
        )


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@contextmanager
def _take(path: Path) -> Iterator[bytes | None]:
    """What a dead worker's journal holds, locked meanwhile; None if its worker lives, or it cannot be read."""
    descriptor = -1
    text: bytes | None = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A living worker that has rewritten its journal let go of the old file only when the new one was in its place.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            text = path.read_bytes()
    except BlockingIOError:
        pass
    except OSError as error:
        if path.exists():
            log.warning("a journal cannot be read", journal=path.stem, cause=first_line(error))
    try:
        yield text
    finally:
        if descriptor >= 0:
            os.close(descriptor)
