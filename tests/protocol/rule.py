"""What a rule of the protocol is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Rule:
    """One guard. `missed_in` names a scope that does not hold without it, and `without` what goes wrong there.

    `by` is a statement or function of db/sql, or the dotted name of one of ours; `phrases` stand in its text and are
    the guard.
    """

    name: str
    says: str
    by: str
    missed_in: str
    without: str
    phrases: tuple[str, ...] = ()
