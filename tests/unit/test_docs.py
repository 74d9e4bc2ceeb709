"""The documents say what the code says: commands, settings, failure modes, moves, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from cli.main import cli
from config.settings import PREFIX, Settings
from schemas.states import TRANSITIONS
from tests.protocol.rules import RULES
from tests.protocol.scopes import SCOPES
from tests.tables import FAILURE_MODES, PROTOCOL, ROOT, STATES, numbered_tests, with_moves, with_protocol

DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What a document's headings can be linked as."""
    text = _FENCED.sub("", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(text)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file of the repository, and every anchor a heading in it."""
    broken = []
    for link in _LINK.findall(_FENCED.sub("", path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_command_is_described() -> None:
    """docs/commands.md has a heading for each command and names each of its options; it describes no others."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    described = {name for title in _HEADING.findall(text) for name in re.findall(r"`bidden ([a-z]+)`", title)}
    assert described == set(cli.commands)
    options = {
        option
        for command in cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert {option for option in options if f"{option}" not in text} == set()


def test_every_setting_is_described() -> None:
    """docs/operations.md has a row for each setting, with its default."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    rows = {m[1]: m[2].strip() for m in re.finditer(rf"^\| `({PREFIX}\w+)` \|([^|]*)\|", text, re.MULTILINE)}
    assert set(rows) == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            assert rows[f"{PREFIX}{name.upper()}"] == f"`{field.default}`"


def test_every_failure_mode_has_its_row() -> None:
    """FM-01 to FM-34, each once; the tests named there exist and carry the number, and a dash means there is none."""
    text = FAILURE_MODES.read_text(encoding="utf-8")
    numbered = re.findall(r"^\| (FM-\d\d) \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    rows = dict(numbered)
    assert len(rows) == len(numbered)
    assert list(rows) == [f"FM-{number:02}" for number in range(1, 35)]
    found = numbered_tests()
    for number, cell in rows.items():
        named = set(re.findall(r"`(test_\w+)`", cell))
        assert named <= set(found[number]), f"{number}: run `make docs`"
        assert named or not found[number], f"{number}: run `make docs`"


def test_every_move_is_drawn() -> None:
    """docs/states.md is what schemas/states.py says."""
    text = STATES.read_text(encoding="utf-8")
    assert with_moves(text) == text, "run `make docs`"
    for move in TRANSITIONS:
        assert f"| `{move.source}` | `{move.target}` | `{move.by}` | {move.when} |" in text


def test_every_rule_and_scope_is_described() -> None:
    """docs/protocol.md is what tests/protocol says."""
    text = PROTOCOL.read_text(encoding="utf-8")
    assert with_protocol(text) == text, "run `make docs`"
    for name in (*(rule.name for rule in RULES), *(scope.name for scope in SCOPES)):
        assert f"\n| {name} |" in text


def test_documents_stand_alone() -> None:
    """No path of somebody's machine, no sentence that points to what a reader does not have, no half-done merge."""
    for path in DOCUMENTS:
        assert not re.search(r"^(<<<<<<<|>>>>>>>) ", path.read_text(encoding="utf-8"), re.MULTILINE), path
        assert not re.search(r"/(work|root|home)/|\bshared/", path.read_text(encoding="utf-8")), path
