"""The checks of an import: they collect the wrong lines, and leave out what these say, so that the rest can be checked.

A line that fails only because it names a record that was left out is left out with it, and not called wrong: it will be
right once the other is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from db.connect import Connection
from db.import_staging import StagedLines
from db.statements import sql as statement
from schemas.errors import InputError
from schemas.wrong_lines import WrongLines

#: The type of record that a field names, where such a record can be wrong itself.
_TYPE_OF_FIELD: Final = {
    "group_id": "group",
    "member_id": "member",
    "event_id": "event",
    "email": "member",
    "ref": "event",
}


class ImportChecks:
    """For one import, in its transaction. What was found goes to `wrong`."""

    def __init__(self, conn: Connection, staged: StagedLines, wrong: WrongLines) -> None:
        self._conn = conn
        self._staged = staged
        self._wrong = wrong
        #: Type and (first) id of what was left out.
        self._left_out: set[tuple[str, int]] = set()

    def refuse_repeats(self, kind: str) -> None:
        """Records of this type whose value in a unique column is that of an earlier line."""
        lines: list[int] = []
        self._wrong.add(self._noted(self._staged.repeats(kind), lines))
        self._leave_out(lines)

    def run(self, check: str, kind: str, *, deleted: bool | None) -> None:
        """One check of `db/sql/directory.sql` on the records of a type; `deleted` selects, None: all."""
        lines: list[int] = []
        self._wrong.add(
            error
            for chunk in self._staged.chunks(kind, deleted=deleted)
            for error in self._found(self._conn.execute(statement(check), {"rows": chunk}), lines)
        )
        self._leave_out(lines)

    def _found(self, rows: Iterable[dict[str, Any]], lines: list[int]) -> Iterator[InputError]:
        named = set[int]()
        for row in rows:
            lines.append(row["line"])
            follows = (_TYPE_OF_FIELD.get(row["field"]), row["names"]) in self._left_out
            if not follows and row["line"] not in named:
                named.add(row["line"])
                yield InputError(row["problem"], line=row["line"], field=row["field"])

    def _noted(self, found: Iterable[InputError], lines: list[int]) -> Iterator[InputError]:
        for error in found:
            assert error.line is not None
            lines.append(error.line)
            yield error

    def _leave_out(self, lines: list[int]) -> None:
        if lines:
            self._left_out |= self._staged.remove(lines)
