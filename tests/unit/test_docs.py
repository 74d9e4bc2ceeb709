"""The documents match the code: commands, settings, failure modes, moves, files, terms; their links lead somewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest

from cli.main import cli
from config import metrics
from config.settings import PREFIX, Settings
from schemas.states import TRANSITIONS
from tests.protocol.rules import RULES
from tests.protocol.scopes import SCOPES
from tests.tables import (
    FAILURE_MODE_TESTS,
    FAILURE_MODES,
    METRICS,
    PROTOCOL,
    ROOT,
    STATES,
    numbered_tests,
    with_metrics,
    with_moves,
    with_protocol,
    with_tests,
)

DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*.md")])
GLOSSARY = DOCS / "glossary.md"
#: Decisions are history: they name files as these were.
CURRENT = [path for path in DOCUMENTS if DOCS / "adr" not in path.parents]
#: Where a file can be that a document names, or code that uses a term.
FOLDERS = (
    "bench", "cli", "config", "db", "demo", "deploy", "docs", "embedded", "examples", "mail", "monitoring", "producers",
    "schemas", "streams", "tests", "web",
)  # fmt: skip
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`")
_DOCUMENT = re.compile(r"\bdocs/[\w./-]+\.md\b")
_TERM = re.compile(r"^\| ([a-z][\w -]*) \|", re.MULTILINE)


def _terms() -> list[str]:
    """What the glossary defines, in its order."""
    header, *terms = _TERM.findall(GLOSSARY.read_text(encoding="utf-8"))
    assert header == "term"
    return terms


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


def test_every_document_is_in_the_index() -> None:
    """docs/README.md links every document but the decisions, whose folder it links."""
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text(encoding="utf-8"))}
    assert {path for path in CURRENT if DOCS in path.parents} - linked == {index}
    assert DOCS / "adr" in linked


@pytest.mark.parametrize("path", CURRENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_documents_exist(path: Path) -> None:
    """A path in backticks is a file or a folder of the repository: the tour, and what to change to add something."""
    named = _PATH.findall(_FENCED.sub("", path.read_text(encoding="utf-8")))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_way_to_add_something_is_a_list_of_files() -> None:
    """The tour names a file for each step, and each \"how to add\" the files that it changes."""
    text = (DOCS / "development.md").read_text(encoding="utf-8")
    tour = re.search(r"^## The ten-minute tour$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert tour is not None
    steps = re.findall(r"^\|(.*)\|$", tour[1], re.MULTILINE)[2:]
    assert len(steps) > 10
    assert [step for step in steps if not _PATH.search(step)] == []
    ways = dict(re.findall(r"^### (an? [^\n]+)$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    assert {"a command", "a column of the log"} < set(ways)
    assert any(name.startswith("a reason") for name in ways)
    assert any(name.startswith("a sender") for name in ways)
    assert any(name.startswith("a page") for name in ways)
    assert [name for name, steps in ways.items() if name != "a statement" and not _PATH.search(steps)] == []


def test_documents_named_in_code_exist() -> None:
    """A document that code, a test or a configuration file names is there."""
    broken = [
        (str(path.relative_to(ROOT)), name)
        for path in [*_sources(), ROOT / "Makefile", ROOT / "docker-compose.yml", ROOT / "pyproject.toml"]
        for name in _DOCUMENT.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert broken == []


def test_every_command_is_described() -> None:
    """commands.md has a heading for each command and names each of its options; it describes no others."""
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
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
    """settings.md has a row for each setting, with its default."""
    text = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = {m[1]: m[2].strip() for m in re.finditer(rf"^\| `({PREFIX}\w+)` \|([^|]*)\|", text, re.MULTILINE)}
    assert set(rows) == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            assert rows[f"{PREFIX}{name.upper()}"] == f"`{field.default}`"


def test_every_failure_mode_has_its_row() -> None:
    """The numbers, each once and in order, with its invariant and its mechanism."""
    rows = re.findall(
        r"^\| (FM-\d\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", FAILURE_MODES.read_text("utf-8"), re.MULTILINE
    )
    numbers = [row[0] for row in rows]
    assert numbers == sorted(set(numbers))
    assert {f"FM-{number:02}" for number in range(1, 35)} <= set(numbers)


def test_every_failure_mode_names_its_tests() -> None:
    """failure-mode-tests.md is what the docstrings say: each test that carries a number, and a dash for none."""
    text = FAILURE_MODE_TESTS.read_text(encoding="utf-8")
    assert with_tests(text) == text, "run `make docs`"
    sections = dict(re.findall(r"^## (FM-\d\d)\n(.*?)(?=\n\n|\n<!--)", text, re.MULTILINE | re.DOTALL))
    rows = re.findall(r"^\| (FM-\d\d) \|", FAILURE_MODES.read_text("utf-8"), re.MULTILINE)
    assert list(sections) == rows
    found = numbered_tests()
    for number, section in sections.items():
        named = set(re.findall(r"`([\w/.]+::test_\w+)`", section))
        assert named == set(found[number]), f"{number}: run `make docs`"
    assert set(found) <= set(sections), "a test carries a number that has no row"


def test_every_move_is_drawn() -> None:
    """states.md is what schemas/states.py says."""
    text = STATES.read_text(encoding="utf-8")
    assert with_moves(text) == text, "run `make docs`"
    for move in TRANSITIONS:
        assert f"| `{move.source}` | `{move.target}` | `{move.by}` | {move.when} |" in text


def test_every_metric_is_described() -> None:
    """metrics.md is what config/metrics.py says."""
    text = METRICS.read_text(encoding="utf-8")
    assert with_metrics(text) == text, "run `make docs`"
    for name in metrics.TABLE.definitions:
        assert f"\n| `{name}` |" in text


def test_every_rule_and_scope_is_described() -> None:
    """protocol.md is what tests/protocol says."""
    text = PROTOCOL.read_text(encoding="utf-8")
    assert with_protocol(text) == text, "run `make docs`"
    for name in (*(rule.name for rule in RULES), *(scope.name for scope in SCOPES)):
        assert f"\n| {name} |" in text


def test_texts_that_the_docs_quote_are_there() -> None:
    """A log line that operators search for is logged; a button that organisers are sent to is on a page."""
    logs = re.search(
        r"\*\*Log lines that matter:\*\*(.*)", (DOCS / "how-to/monitor-a-campaign.md").read_text(), re.DOTALL
    )
    assert logs is not None
    lines = re.findall(r"`([^`]+)`", logs[1])
    assert len(lines) > 1
    python = "\n".join(path.read_text(encoding="utf-8") for path in _sources() if path.suffix == ".py")
    assert [line for line in lines if f'"{line}"' not in python] == []
    labels = re.findall(
        r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", (DOCS / "how-to/use-the-site.md").read_text(encoding="utf-8")
    )
    assert len(labels) > 2
    pages = "\n".join(path.read_text(encoding="utf-8") for path in _sources() if path.suffix == ".j2")
    assert [label for label in labels if label not in pages] == []


def test_the_glossary_is_sorted() -> None:
    """Each term once, in the order of the alphabet."""
    terms = _terms()
    assert terms == sorted(set(terms))


@pytest.mark.parametrize("term", _terms())
def test_a_defined_term_is_used(term: str) -> None:
    """Code, SQL, a page or another document uses it: as words, or joined as a name is."""
    words = [re.escape(word) for word in re.split(r"[ -]", term)]
    assert re.search(rf"(?<![a-z]){'[ _-]?'.join(words)}", _all_text()), f"nothing uses the term {term!r}"


def test_documents_stand_alone() -> None:
    """No path of somebody's machine, no sentence that points to what a reader does not have, no half-done merge."""
    for path in DOCUMENTS:
        assert not re.search(r"^(<<<<<<<|>>>>>>>) ", path.read_text(encoding="utf-8"), re.MULTILINE), path
        assert not re.search(r"/(work|root|home)/|\bshared/", path.read_text(encoding="utf-8")), path


def _sources() -> list[Path]:
    """Code and SQL of the repository, but not this file."""
    return [
        path
        for folder in FOLDERS
        for pattern in ("*.py", "*.sql", "*.j2")
        for path in sorted((ROOT / folder).rglob(pattern))
        if path != Path(__file__)
    ]


@cache
def _all_text() -> str:
    """Everything that may use a term, in lower case, camel case taken apart."""
    texts = [path.read_text(encoding="utf-8") for path in [*_sources(), *CURRENT] if path != GLOSSARY]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", "\n".join(texts)).lower()
