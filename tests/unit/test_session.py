"""Sessions in PostgreSQL: what is set in them, what is refused, and that nobody else opens connections."""

from __future__ import annotations

import ast

import pytest

from db.session import HOT, PLAIN, Facts, given_options, unfit
from tests.unit.test_layout import PACKAGES, ROOT

FIT = Facts(7, "1", "bidden", "UTF8", "club, public", "club", "club")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("", {}),
        ("-csearch_path=club", {"search_path": "club"}),
        ("-c search_path=club --Statement-Timeout=5s", {"search_path": "club", "statement_timeout": "5s"}),
        (r"-c search_path=my\ club,public", {"search_path": "my club,public"}),
        ("-c geqo=off -c my.own=x", {"geqo": "off", "my.own": "x"}),
    ],
)
def test_options_are_read_as_by_postgresql(options: str, given: dict[str, str]) -> None:
    """`-c name=value`, without a space, with two dashes, with escaped spaces."""
    assert given_options(options) == given


def test_an_address_may_set_limits_but_not_what_statements_need() -> None:
    """A given time-out is kept; the time zone and the plans of workers are ours."""
    given = "-c idle_in_transaction_session_timeout=5s -c timezone=Asia/Tokyo -c enable_seqscan=on"
    assert PLAIN.settings(given, 180_000) == {"timezone": "UTC", "jit": "off"}
    assert PLAIN.settings("", 180_000) == {
        "timezone": "UTC", "jit": "off", "idle_in_transaction_session_timeout": "60s"
    }  # fmt: skip
    assert HOT.settings(given, 180_000)["enable_seqscan"] == "off"
    assert "transaction_timeout" not in HOT.settings("", 160_000)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(7, "1", "club", "SQL_ASCII", "public", "public", None), ("club", "SQL_ASCII", "ENCODING 'UTF8'")),
        (Facts(7, "1", "club", "LATIN1", "public", "public", "public"), ("LATIN1",)),
        (Facts(7, "1", "club", "UTF8", "nort", None, None), ("search_path (nort)", "create it")),
        (Facts(7, "1", "club", "UTF8", "north, public", "north", "public"), ("are in public", "bidden migrate")),
    ],
)
def test_an_unfit_database_is_refused_by_its_cause(facts: Facts, words: tuple[str, ...]) -> None:
    """Its encoding, a schema that is not there, or tables of another schema."""
    reason = unfit(facts, migrates=False)
    assert reason is not None
    assert all(word in reason for word in words), reason


def test_a_fit_one_is_not_refused() -> None:
    """Tables in the first schema, or none yet; `migrate` makes its own beside those of another schema."""
    assert unfit(FIT, migrates=False) is None
    assert unfit(Facts(7, "1", "club", "UTF8", "public", "public", None), migrates=False) is None
    assert unfit(Facts(7, "1", "club", "UTF8", "north, public", "north", "public"), migrates=True) is None


#: It makes the database itself, as the superuser of an embedded server.
EXEMPT = ("db/connect.py", "embedded/postgres.py")


def test_one_module_opens_connections() -> None:
    """No other module has the driver connect: what an address says of a session would be lost there."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "connect" and _is_driver(node.value):
                    found.add(str(path.relative_to(ROOT)))
    assert found == set(EXEMPT)


def _is_driver(node: ast.expr) -> bool:
    return ast.unparse(node) in {"psycopg", "psycopg.Connection", "psycopg.AsyncConnection", "HotSession"}


def test_sql_that_takes_an_advisory_lock_names_the_schema() -> None:
    """Two installations in two schemas of one database do not wait for each other."""
    from db.statements import names, sql

    locks = [sql(name) for name in names() if "advisory" in sql(name)]
    assert len(locks) > 5
    assert all("current_schema()" in text for text in locks)
