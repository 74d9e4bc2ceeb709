"""A case for each crash point and each kind of process that reaches it, and its row of the crash matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.crash_points import CrashPoint as P

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "reference" / "crash-matrix.md"
#: The window of the killed workers: the most deliveries that one kill makes unknown.
WINDOW: Final = 10
RUNNERS: Final = ("confluent", "faust")


@dataclass(frozen=True)
class Case:
    """One kill. `passes`: at which pass of the point; `in_doubt`: whether deliveries may be `unknown` after it."""

    point: P
    who: str
    then: str
    passes: int = 1
    in_doubt: bool = False

    def __str__(self) -> str:
        return f"{self.point}-{self.who}"


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

    def cells(self) -> list[str]:
        """A line of the published matrix."""
        doubt = f"{self.unknown} ({self.arrived} had arrived)" if self.unknown else "0"
        counts = (self.mailed_before, self.lost, self.twice)
        return [f"`{self.case.point}`", self.case.who, *map(str, counts), doubt, str(self.messages), self.case.then]


_AGAIN: Final = "the key of the trigger finds the batch, and a dispatcher publishes what is due"
_CLAIM: Final = "the publish claim ends, and the items are due again; those published twice cost a look-up"
_FETCHED: Final = "no offset was committed: the messages are redelivered to another worker"
_DOUBT: Final = "the leases end, and the next worker makes the claimed ones unknown; the rest is mailed"
_SETTLED: Final = "no offset was committed: the messages are redelivered and found settled"


def _for_workers() -> list[Case]:
    cases = []
    for who in RUNNERS:
        cases += [
            Case(P.POLL_FETCHED, who, _FETCHED),
            Case(P.POLL_LOOKED_UP, who, _FETCHED),
            Case(P.CLAIM_READY, who, f"the claims are rolled back; {_FETCHED}"),
            Case(P.CLAIM_COMMITTED, who, _DOUBT, in_doubt=True),
            Case(P.SMTP_ENVELOPE, who, _DOUBT, in_doubt=True),
            # Not the first, so that earlier mails have reached the server and wait for its reply.
            Case(P.SMTP_DATA, who, _DOUBT, passes=5, in_doubt=True),
            Case(P.SMTP_ACCEPTED, who, _DOUBT, in_doubt=True),
            Case(P.OUTCOME_BEGUN, who, _DOUBT, in_doubt=True),
            Case(P.OUTCOME_READY, who, f"the outcomes are rolled back; {_DOUBT}", in_doubt=True),
            Case(P.OUTCOME_COMMITTED, who, f"what is recorded stays recorded; {_DOUBT}", passes=2, in_doubt=True),
            Case(P.DEAD_LETTER_FOUND, who, f"{_SETTLED}; then the invalid message becomes a dead letter"),
            Case(P.DEAD_LETTER_DELIVERED, who, f"{_SETTLED}; the invalid message becomes a second dead letter"),
            Case(P.POLL_DONE, who, _SETTLED),
            Case(P.OFFSET_STORED, who, _SETTLED),
        ]
    return cases


CASES: Final[tuple[Case, ...]] = (
    Case(P.IMPORT_READY, "import", "nothing was written; the import is run again"),
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
    *_for_workers(),
    Case(P.REDRIVE_DELIVERED, "dlq redrive", "redriven again, the message is on the topic twice and costs a look-up"),
)

HEAD: Final = ("crash point", "killed", "mailed before", "lost", "twice", "unknown", "messages", "what happens next")


def table(rows: list[Row]) -> str:
    """The matrix in Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row.cells() for row in rows)]
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
