"""A case for each crash point and each kind of process that reaches it, and its row of the crash matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from config.crash_points import CrashPoint as P

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "crash-matrix.md"
#: The window of the killed workers: the most deliveries that one kill makes unknown.
WINDOW: Final = 10
RUNNERS: Final = ("confluent", "faust")


@dataclass(frozen=True)
class Case:
    """One kill. `passes`: at which pass of the point; `journal`: whether the next worker finds that of the killed one.

    `in_doubt`: how many deliveries may be `unknown` after it, with the journal and without.
    """

    point: P
    who: str
    then: str
    passes: int = 1
    in_doubt: tuple[int, int] = (0, 0)
    journal: bool = True

    @property
    def most_unknown(self) -> int:
        """How many deliveries may be `unknown` after it."""
        return self.in_doubt[0 if self.journal else 1]

    def __str__(self) -> str:
        return f"{self.point}-{self.who}{'' if self.journal else '-without-journal'}"


@dataclass(frozen=True)
class Row:
    """The result of a case, in deliveries. `arrived`: how many of the unknown had reached the mail server."""

    case: Case
    mailed_before: int
    lost: int
    twice: int
    unknown: int
    arrived: int
    messages: int

    @property
    def doubt(self) -> str:
        """How many are in doubt, and how many of them had arrived."""
        return f"{self.unknown} ({self.arrived} had arrived)" if self.unknown else "0"

    def cells(self, without: Row | None) -> list[str]:
        """A line of the published matrix. `without` is the same kill without the journal, where that differs."""
        counts = (self.mailed_before, self.lost, self.twice)
        doubt = (self.doubt, (without or self).doubt)
        return [f"`{self.case.point}`", self.case.who, *map(str, counts), *doubt, str(self.messages), self.case.then]


_AGAIN: Final = "the key of the trigger finds the batch, and a dispatcher publishes what is due"
_CLAIM: Final = "the publish claim ends, and the items are due again; those published twice cost a look-up"
_FETCHED: Final = "no offset was committed: the messages are redelivered to another worker"
_NOT_BEGUN: Final = "the next worker finds in the journal that no mail was begun, and sends them"
_BEGUN: Final = "by the journal, what was begun and not answered is unknown, and the rest is sent"
_ALL: Final = (WINDOW, WINDOW)
_NONE_BEGUN: Final = (0, WINDOW)
_SETTLED: Final = "no offset was committed: the messages are redelivered and found settled"


def _for_workers() -> list[Case]:
    cases = []
    for who in RUNNERS:
        cases += [
            Case(P.POLL_FETCHED, who, _FETCHED),
            Case(P.POLL_LOOKED_UP, who, _FETCHED),
            Case(P.CLAIM_READY, who, f"nothing was claimed; {_FETCHED}"),
            Case(P.CLAIM_COMMITTED, who, _NOT_BEGUN, in_doubt=_NONE_BEGUN),
            Case(P.CLAIM_PUBLISHED, who, _NOT_BEGUN, in_doubt=_NONE_BEGUN),
            Case(P.SMTP_ENVELOPE, who, _NOT_BEGUN, in_doubt=_NONE_BEGUN),
            # Not the first, so that earlier mails have reached the server and wait for its reply.
            Case(P.SMTP_DATA, who, _BEGUN, passes=5, in_doubt=(5, WINDOW)),
            Case(P.SMTP_ACCEPTED, who, _BEGUN, in_doubt=_ALL),
            Case(P.OUTCOME_BEGUN, who, _BEGUN, in_doubt=_ALL),
            Case(P.OUTCOME_COMMITTED, who, f"what is recorded stays recorded; {_BEGUN}", passes=2, in_doubt=_ALL),
            Case(P.DEAD_LETTER_FOUND, who, f"{_SETTLED}; then the invalid message becomes a dead letter"),
            Case(P.DEAD_LETTER_DELIVERED, who, f"{_SETTLED}; the invalid message becomes a second dead letter"),
            Case(P.POLL_DONE, who, _SETTLED),
            Case(P.OFFSET_STORED, who, _SETTLED),
        ]
    return [*cases, *(replace(case, journal=False) for case in cases if case.in_doubt != (0, 0))]


CASES: Final[tuple[Case, ...]] = (
    Case(P.IMPORT_READY, "import", "nothing was written; the import is run again"),
    Case(P.SNAPSHOT_READ, "import --complete", "nothing was written; the snapshot is taken again"),
    Case(P.SNAPSHOT_READY, "import --complete", "nothing was written; the snapshot is taken again"),
    Case(P.DEPARTURES_WRITTEN, "sync", "the departures are written into the source again, which changes nothing"),
    Case(P.INVITATIONS_PLACED, "sync", "the source is asked again, and has them already; then the mails go out"),
    Case(P.OUTCOMES_REPORTED, "sync", "what became of batches is given to the source again, which changes nothing"),
    Case(P.PLAN_READY, "invite", "nothing was written; the trigger is repeated"),
    Case(P.PLAN_COMMITTED, "invite", _AGAIN),
    Case(P.PUBLISH_PRODUCING, "invite", _AGAIN, passes=20),
    Case(P.PUBLISH_DELIVERED, "invite", _AGAIN),
    Case(P.PUBLISH_RECORDED, "invite", _AGAIN),
    Case(P.PUBLISH_CLAIMED, "dispatch", _CLAIM),
    Case(P.PUBLISH_PRODUCING, "dispatch", _CLAIM, passes=20),
    Case(P.PUBLISH_DELIVERED, "dispatch", _CLAIM),
    Case(P.PUBLISH_RECORDED, "dispatch", "all is published; workers deliver it"),
    Case(P.LOST_FOUND, "dispatch", "the lost items are due already: a dispatcher publishes them"),
    Case(P.OUTCOMES_PRODUCED, "dispatch", "the transaction is aborted; another dispatcher publishes the outcomes"),
    Case(P.OUTCOMES_COMMITTED, "dispatch", "another dispatcher publishes the same outcomes again"),
    *_for_workers(),
    Case(P.REDRIVE_DELIVERED, "dlq redrive", "redriven again, the message is on the topic twice and costs a look-up"),
)

HEAD: Final = (
    "crash point", "killed", "mailed before", "lost", "twice", "unknown", "unknown without journal", "messages",
    "what happens next",
)  # fmt: skip


def table(rows: list[Row]) -> str:
    """The matrix in Markdown."""
    without = {(row.case.point, row.case.who): row for row in rows if not row.case.journal}
    measured = [row.cells(without.get((row.case.point, row.case.who))) for row in rows if row.case.journal]
    lines = [HEAD, tuple("---" for _ in HEAD), *measured]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_table(text: str, rows: list[Row]) -> str:
    """The document with the matrix that was measured."""
    pattern = re.compile(r"(<!-- matrix: generated -->\n).*?(\n<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + table(rows) + match[2], text)


def published(text: str) -> list[tuple[str, str, str, str]]:
    """Of each line of the published matrix: point, who, lost, twice."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == len(HEAD) and cells[0].startswith("`"):
            found.append((cells[0].strip("`"), cells[1], cells[3], cells[4]))
    return found
