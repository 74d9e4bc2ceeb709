"""The loader of named statements."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from db import statements


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(statements, "_FOLDER", tmp_path)
    statements._load.cache_clear()
    monkeypatch.setattr(statements, "_load", statements._load.__wrapped__)
    return tmp_path


def test_statements_and_fragments(folder: Path) -> None:
    """Blocks by name; comments are left out; fragments may include fragments, of any file."""
    (folder / "a.sql").write_text(
        "-- About the file.\n\n-- name: one\n-- Explained.\nSELECT {{outer}}\n\n-- name: two\nSELECT 2\n"
    )
    (folder / "b.sql").write_text("-- fragment: outer\n({{inner}})\n-- fragment: inner\n1 + 1\n")
    assert statements.sql("one") == "SELECT (1 + 1)"
    assert statements.sql("two") == "SELECT 2"
    assert statements.names() == ["one", "two"]


def test_functions(folder: Path) -> None:
    """A function includes statements, its name tells its text, and statements call it by that name."""
    (folder / "a.sql").write_text("-- name: one\nSELECT %(x)s\n-- name: calls\nSELECT {{f}}(%(x)s)\n")
    (folder / "b.sql").write_text("-- function: f\n(p_x int) AS $$ {{one}} $$\n")
    name, text = statements.definition("f")
    assert text == f"CREATE OR REPLACE FUNCTION {name}(p_x int) AS $$ SELECT p_x $$"
    assert statements.sql("calls") == f"SELECT {name}(%(x)s)"
    (folder / "a.sql").write_text("-- name: one\nSELECT 1 + %(x)s\n")
    assert statements.functions()["f"] != name


def test_an_include_with_another_fragment(folder: Path) -> None:
    """`{{NAME a=b}}` takes b for a, however deep, and only there."""
    (folder / "a.sql").write_text(
        "-- fragment: a\n1\n-- fragment: b\n2\n-- fragment: deep\n{{a}} + {{a}}\n-- fragment: x\n3\n"
        "-- name: one\n{{deep}}, {{deep a=b}}, {{deep a=b b=x}}, {{a}}\n"
    )
    assert statements.sql("one") == "1 + 1, 2 + 2, 2 + 2, 1"


def test_the_newest_migration_installs_each_function_as_it_stands() -> None:
    """Who changes a function's text, or a statement in it, writes a migration that installs it."""
    installed: dict[str, str] = {}
    for path in sorted((statements._FOLDER.parent / "migrations" / "versions").glob("*.py")):
        module = import_module(f"db.migrations.versions.{path.stem}")
        installed |= getattr(module, "FUNCTIONS", {})
    assert installed == statements.functions(), "a new migration: FUNCTIONS as here, and what 0021 does with them"


def test_a_name_twice_is_refused(folder: Path) -> None:
    """Two statements of one name are a mistake that shows at once, with the file."""
    (folder / "a.sql").write_text("-- name: one\nSELECT 1\n")
    (folder / "b.sql").write_text("-- fragment: one\n1\n")
    with pytest.raises(ValueError, match=r"b\.sql: one is defined twice"):
        statements.names()


def test_unknown_names_are_errors(folder: Path) -> None:
    """A name that is not there is a KeyError, in a statement's text too."""
    (folder / "a.sql").write_text("-- name: one\nSELECT 1\n")
    with pytest.raises(KeyError):
        statements.sql("nothing")
    (folder / "a.sql").write_text("-- name: one\nSELECT {{nothing}}\n")
    with pytest.raises(KeyError):
        statements.sql("one")


def test_nothing_is_left_to_include() -> None:
    """Every include of the real files is resolved, and no statement is empty."""
    for name in statements.names():
        text = statements.sql(name)
        assert "{{" not in text
        assert "-- " not in text
        assert text
