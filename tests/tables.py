"""Fills the parts of docs/ that are derived from code: states.md, protocol.md, and the tests in failure-modes.md.

`python -m tests.tables` (or `make docs`). tests/unit/test_docs.py says when they are out of date.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from schemas.states import TRANSITIONS
from tests.protocol.rules import RULES
from tests.protocol.scopes import SCOPES

ROOT: Final = Path(__file__).resolve().parent.parent
STATES: Final = ROOT / "docs" / "states.md"
FAILURE_MODES: Final = ROOT / "docs" / "failure-modes.md"
PROTOCOL: Final = ROOT / "docs" / "protocol.md"

_NUMBER: Final = re.compile(r"FM-\d\d")
_ROW: Final = re.compile(r"^(\| (FM-\d\d) \|.*\|) [^|]* \|$", re.MULTILINE)


def numbered_tests() -> dict[str, list[str]]:
    """The tests whose docstring carries a failure mode's number, by that number."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in sorted(set(_NUMBER.findall(ast.get_docstring(node) or ""))):
                    found[number].append(node.name)
    return found


def with_tests(text: str) -> str:
    """The table of failure modes with its last column as the tests say."""
    found = numbered_tests()

    def row(match: re.Match[str]) -> str:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(found[match[2]])) or "—"
        return f"{match[1]} {names} |"

    return _ROW.sub(row, text)


def diagram() -> str:
    """Every move as a line of a mermaid state diagram."""
    moves: dict[tuple[str, str], list[str]] = defaultdict(list)
    for move in TRANSITIONS:
        statements = moves[move.source, move.target]
        if move.by not in statements:
            statements.append(move.by)
    lines = [f"    {source} --> {target}: {', '.join(by)}" for (source, target), by in moves.items()]
    start = ["stateDiagram-v2", "    [*] --> planned: plan_deliveries", "    [*] --> sent: import_sent"]
    return "\n".join(["```mermaid", *start, *lines, "```"])


def moves() -> str:
    """Every move as a row of a table."""
    rows = [f"| `{m.source}` | `{m.target}` | `{m.by}` | {m.when} |" for m in TRANSITIONS]
    return "\n".join(["| from | to | statement | when |", "|---|---|---|---|", *rows])


def with_moves(text: str) -> str:
    """states.md with its diagram and its table as `schemas.states` says."""
    return _filled(text, {"diagram": diagram(), "moves": moves()})


def scopes() -> str:
    """Every scope of the protocol's model as a row of a table."""
    rows = [f"| {scope.name} | {scope.says} | {scope.states:,} |" for scope in SCOPES]
    total = f"| | together | {sum(scope.states for scope in SCOPES):,} |"
    return "\n".join(["| scope | what happens in it | states |", "|---|---|---:|", *rows, total])


def rules() -> str:
    """Every rule of the protocol as a row of a table."""
    rows = [f"| {rule.name} | {rule.says} | `{rule.by}` | {rule.missed_in}: {rule.without} |" for rule in RULES]
    return "\n".join(["| rule | what it says | kept by | without it, in the scope |", "|---|---|---|---|", *rows])


def with_protocol(text: str) -> str:
    """protocol.md with its tables as `tests.protocol` says."""
    return _filled(text, {"scopes": scopes(), "rules": rules()})


def _filled(text: str, parts: dict[str, str]) -> str:
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part}{match[2]}", text)  # type: ignore[misc]
    return text


def main() -> None:
    """Write the files."""
    for path, fill in ((STATES, with_moves), (PROTOCOL, with_protocol), (FAILURE_MODES, with_tests)):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
