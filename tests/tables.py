"""Writes what docs/ derives from code: the moves of states, the protocol's rules, failure modes' tests, the metrics.

`python -m tests.tables` (or `make docs`). tests/unit/test_docs.py fails when they are out of date.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from config import metrics
from schemas.states import TRANSITIONS
from tests.protocol.rules import RULES
from tests.protocol.scopes import SCOPES

ROOT: Final = Path(__file__).resolve().parent.parent
STATES: Final = ROOT / "docs" / "reference" / "states.md"
FAILURE_MODES: Final = ROOT / "docs" / "explanation" / "failure-modes.md"
FAILURE_MODE_TESTS: Final = ROOT / "docs" / "reference" / "failure-mode-tests.md"
PROTOCOL: Final = ROOT / "docs" / "explanation" / "protocol.md"
METRICS: Final = ROOT / "docs" / "reference" / "metrics.md"

_NUMBER: Final = re.compile(r"FM-\d\d")
_ROW: Final = re.compile(r"^\| (FM-\d\d) \|", re.MULTILINE)


def numbered_tests() -> dict[str, list[str]]:
    """The tests whose docstring names a failure mode, by its number, as `folder/file.py::test`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in sorted(set(_NUMBER.findall(ast.get_docstring(node) or ""))):
                    found[number].append(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
    return found


def failure_modes() -> list[str]:
    """The numbers in the table of failure modes, in its order."""
    return _ROW.findall(FAILURE_MODES.read_text(encoding="utf-8"))


def tests_by_mode() -> str:
    """A section for each failure mode with its tests, one a line; a dash where there is none."""
    found = numbered_tests()
    sections = []
    for number in failure_modes():
        tests = "\n".join(f"- `{name}`" for name in dict.fromkeys(found[number])) or "—"
        sections.append(f"## {number}\n{tests}")
    return "\n\n".join(sections)


def with_tests(text: str) -> str:
    """failure-mode-tests.md as the tests' docstrings have it."""
    return _filled(text, {"tests": tests_by_mode()})


def diagram() -> str:
    """Every pair of states with a move between them, as a line of a mermaid state diagram."""
    pairs = dict.fromkeys((move.source, move.target) for move in TRANSITIONS)
    lines = [f"    {source} --> {target}" for source, target in pairs]
    start = ["stateDiagram-v2", "    [*] --> planned", "    [*] --> sent"]
    return "\n".join(["```mermaid", *start, *lines, "```"])


def moves() -> str:
    """Every move as a row of a table."""
    rows = [f"| `{m.source}` | `{m.target}` | `{m.by}` | {m.when} |" for m in TRANSITIONS]
    return "\n".join(["| from | to | statement | when |", "|---|---|---|---|", *rows])


def with_moves(text: str) -> str:
    """states.md with its diagram and its table as `schemas.states` has them."""
    return _filled(text, {"diagram": diagram(), "moves": moves()})


def scopes() -> str:
    """Every scope of the protocol's model as a row of a table."""
    rows = [f"| {scope.name} | {scope.says} | {scope.states:,} |" for scope in SCOPES]
    total = f"| | together | {sum(scope.states for scope in SCOPES):,} |"
    return "\n".join(["| scope | what happens in it | states |", "|---|---|---:|", *rows, total])


def rules() -> str:
    """Every rule of the protocol as a row of a table."""
    rows = [f"| {rule.name} | {rule.says} | `{rule.by}` | {rule.missed_in}: {rule.without} |" for rule in RULES]
    return "\n".join(["| rule | what it requires | kept by | without it, in the scope |", "|---|---|---|---|", *rows])


def with_protocol(text: str) -> str:
    """protocol.md with its tables as `tests.protocol` has them."""
    return _filled(text, {"scopes": scopes(), "rules": rules()})


def metrics_table() -> str:
    """Every metric as a row of a table. `*`: sampled."""
    rows = []
    for found in metrics.TABLE.definitions.values():
        kind = f"{found.kind}{' *' if found.sampled else ''}"
        labels = ", ".join(f"`{label}`" for label in found.labels)
        rows.append(
            f"| `{found.name}` | {kind} | {found.unit} | {labels} | {', '.join(found.processes)} | {found.meaning} |"
        )
    return "\n".join(["| name | kind | unit | labels | of | meaning |", "|---|---|---|---|---|---|", *rows])


def labels_table() -> str:
    """Every label with its values, as a row of a table."""
    values: dict[tuple[str, str], None] = {}
    for found in metrics.TABLE.definitions.values():
        for label, closed in found.labels.items():
            said = metrics.RULES[label][1] if closed is None else ", ".join(f"`{value}`" for value in closed)
            values[label, said] = None
    rows = [f"| `{label}` | {said} |" for label, said in values]
    return "\n".join(["| label | values |", "|---|---|", *rows])


def with_metrics(text: str) -> str:
    """metrics.md with its tables as `config.metrics` has them."""
    return _filled(text, {"metrics": metrics_table(), "labels": labels_table()})


def _filled(text: str, parts: dict[str, str]) -> str:
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part}{match[2]}", text)  # type: ignore[misc]
    return text


#: Each document with generated parts, and what fills them.
GENERATED: Final[dict[Path, Callable[[str], str]]] = {
    STATES: with_moves,
    PROTOCOL: with_protocol,
    FAILURE_MODE_TESTS: with_tests,
    METRICS: with_metrics,
}


def main() -> None:
    """Write the files."""
    for path, fill in GENERATED.items():
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
