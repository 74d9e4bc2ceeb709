"""The wrong lines of one file: who sends it corrects all of them, not one at each try.

Memory does not grow with how many there are: the first twenty are kept, the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from itertools import chain
from typing import Final

from schemas.errors import InputError

#: How many are named.
MOST_NAMED: Final = 20


def _line(error: InputError) -> int:
    return error.line or 0


class WrongLines:
    """What the checks of a file found. Each wrong line is added once."""

    def __init__(self) -> None:
        self._first: InputError | None = None
        self._others: list[InputError] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, found: Iterable[InputError]) -> None:
        """All that one check found, in any order. The earliest line of the first check that finds one leads."""
        self._others = nsmallest(MOST_NAMED, chain(self._others, self._counted(found)), key=_line)
        if self._first is None and self._others:
            self._first = self._others.pop(0)
        del self._others[MOST_NAMED - 1 :]

    def error(self) -> InputError:
        """One error for all of them; there must be one."""
        assert self._first is not None
        first = self._first
        more = self._count - 1 - len(self._others)
        error = InputError(first.detail, line=first.line, field=first.field, others=self._others, more=more)
        error.__cause__ = first.__cause__
        return error

    def _counted(self, found: Iterable[InputError]) -> Iterable[InputError]:
        for error in found:
            self._count += 1
            yield error
