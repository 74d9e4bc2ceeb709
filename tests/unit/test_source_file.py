"""The source file: which queries it has, where `:zone` stands for the zone, and which columns fit."""

from __future__ import annotations

from itertools import pairwise

import pytest

from schemas.directory import LINE_MODELS, LINE_TYPES
from schemas.errors import InputError
from schemas.source_file import Query, check_columns, parse, with_values
from tests.tables import ROOT

#: The fewest columns that fit, with a type each.
LEAST = {
    "chapter": {"id": "integer", "name": "text", "email": "text", "time_zone": "text"},
    "group": {"id": "bigint", "chapter_id": "bigint", "name": "text"},
    "member": {"id": "bigint", "name": "text", "email": "citext"},
    "subscription": {"member_id": "bigint", "group_id": "smallint"},
    "ban": {"id": "bigint", "member_id": "bigint"},
    "event": {
        "id": "bigint",
        "kind": "text",
        "name": "character varying",
        "chapter_ids": "bigint[]",
        "starts_at": "timestamp without time zone",
        "ends_at": "timestamp with time zone",
        "invitable": "boolean",
    },
    "invitation": {"event_id": "bigint", "member_id": "bigint", "role": "text"},
}


def file(**queries: str | None) -> str:
    """A source file; with another query of a type, or without one of it."""
    texts = {name: f"SELECT {number}" for number, name in enumerate(LINE_TYPES)} | queries
    return "".join(f"-- name: {name}\n{text}\n\n" for name, text in texts.items() if text is not None)


def query(name: str, text: str = "SELECT 1") -> Query:
    """A query in the third line."""
    return Query(name, text, 3)


def test_queries_are_named() -> None:
    """Each has its text and its line, in the order of the types, whatever that of the file; a semicolon may end it."""
    text = "-- How we are read.\n" + file(member="SELECT 1 -- x\nFROM people;\n ;\n")
    found = parse(text)
    assert tuple(found) == LINE_TYPES
    assert found["member"] == Query("member", "\nSELECT 1 -- x\nFROM people", 2 + 3 * LINE_TYPES.index("member"))
    turned = "".join(f"-- name: {name}\n{found[name].text}\n" for name in reversed(LINE_TYPES))
    assert tuple(parse(turned)) == LINE_TYPES


@pytest.mark.parametrize("heading", ["--name:member", "--  name:   member  ", "--\tname:\tmember"])
def test_spaces_in_a_heading(heading: str) -> None:
    """They do not matter."""
    assert parse(file(member=None) + f"{heading}\nSELECT 7")["member"].text.strip() == "SELECT 7"


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("", "the query chapter is missing", None),
        (file(ban=None), "the query ban is missing: a line `-- name: ban`, and the query below it", None),
        ("\n" + file(people="SELECT 1"), "'people' is no query of a source; these are: chapter, group, member", 23),
        (file() + "-- name: ban\nSELECT 1", "the query ban is there twice", 22),
        ("-- name:\nSELECT 1\n" + file(), "'' is no query of a source", 1),
        (file(chapter=""), "the query chapter is empty", 1),
        (file(chapter=" ;\n;"), "the query chapter is empty", 1),
        (file(chapter="-- nothing yet\n/* SELECT\n1 */"), "the query chapter is empty", 1),
    ],
)
def test_wrong_files(text: str, problem: str, line: int | None) -> None:
    """What is wrong is named, with the line where there is one."""
    with pytest.raises(InputError) as caught:
        parse(text)
    assert problem in caught.value.detail
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        "SELECT :zone",
        "SELECT x AT TIME ZONE :zone",
        "SELECT (:zone)",
        "SELECT 'it''s', :zone",
        'SELECT "a"":", :zone',
        "SELECT 1 -- it's\n, :zone",
        "SELECT /* ' */ :zone",
        "SELECT $$'$$, :zone",
        "SELECT $x$ $$ ' $x$, :zone",
    ],
)
def test_the_zone_is_a_text(text: str) -> None:
    """It stands quoted in the place of `:zone`."""
    assert with_values(text, {"zone": "Europe/Oslo"}) == text.replace(":zone", "'Europe/Oslo'")
    assert with_values(text, {"zone": "x'y"}) == text.replace(":zone", "'x''y'")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ':zone'",
        "SELECT 'it''s :zone'",
        'SELECT ":zone"',
        "SELECT 1 -- :zone",
        "SELECT 1 /* :zone\n:zone */",
        "SELECT $$:zone$$, $a$ $$:zone $a$",
        "SELECT x::zone",
        "SELECT :zones, :zone_of_mine",
    ],
)
def test_what_is_no_parameter(text: str) -> None:
    """A text, a name, a comment, a cast and a longer word stay as they are."""
    assert with_values(text, {"zone": "Europe/Oslo"}) == text


@pytest.mark.parametrize("name", LINE_TYPES)
def test_the_least_columns_fit(name: str) -> None:
    """The required ones; without any of them the query is refused by its name, with its line."""
    check_columns(query(name), LEAST[name])
    for column in LEAST[name]:
        with pytest.raises(InputError, match=f"the query {name}: the column {column} is missing") as caught:
            check_columns(query(name), {key: value for key, value in LEAST[name].items() if key != column})
        assert (caught.value.line, caught.value.field) == (3, column)


@pytest.mark.parametrize("name", LINE_TYPES)
def test_every_field_has_a_type(name: str) -> None:
    """Each field of a line may be a column, also as a bare NULL or a quoted text; `deleted` where a line has it."""
    fields = [field for field in LINE_MODELS[name].model_fields if field != "type"]
    check_columns(query(name), LEAST[name] | dict.fromkeys(fields, "unknown"))
    if "deleted" in fields:
        check_columns(query(name), LEAST[name] | {"deleted": "boolean"})
    else:
        with pytest.raises(InputError, match="deleted is no field of this type; these are: "):
            check_columns(query(name), LEAST[name] | {"deleted": "boolean"})


def test_an_unknown_column() -> None:
    """It is named, with those that there are: a field that was misspelt would else be lost."""
    with pytest.raises(InputError, match="surnam is no field of this type; these are: id, name, surname") as caught:
        check_columns(query("member"), LEAST["member"] | {"surnam": "text"})
    assert caught.value.field == "surnam"
    with pytest.raises(InputError, match="type is no field"):
        check_columns(query("member"), LEAST["member"] | {"type": "text"})


@pytest.mark.parametrize(
    ("name", "column", "sql_type"),
    [
        ("member", "id", "uuid"),
        ("member", "id", "text"),
        ("member", "id", "numeric"),
        ("member", "name", "integer"),
        ("member", "email", "bytea"),
        ("member", "email", "text[]"),
        ("member", "accepted_toc_at", "date"),
        ("member", "accepted_toc_at", "boolean"),
        ("member", "deleted", "timestamp without time zone"),
        ("ban", "permanent", "integer"),
        ("event", "chapter_ids", "bigint"),
        ("event", "chapter_ids", "text[]"),
        ("event", "host", "text"),
        ("event", "starts_at", "date"),
        ("event", "starts_at", "time without time zone"),
        ("invitation", "attending", "text"),
    ],
)
def test_types_that_can_never_fit(name: str, column: str, sql_type: str) -> None:
    """They are refused before a row is read, with the types that fit."""
    with pytest.raises(InputError, match=f"{column} has the type .*; it must be ") as caught:
        check_columns(query(name), LEAST[name] | {column: sql_type})
    assert caught.value.field == column


@pytest.mark.parametrize(
    ("name", "column", "sql_type"),
    [
        ("member", "email", "character varying"),
        ("member", "surname", "name"),
        ("event", "kind", "kind_of_event"),
        ("invitation", "role", "club.role"),
        ("invitation", "token", "uuid"),
        ("ban", "expires_at", "date"),
        ("ban", "expires_at", "timestamp without time zone"),
        ("event", "chapter_ids", "integer[]"),
        ("event", "chapter_ids", "jsonb"),
        ("event", "host", "json"),
        ("invitation", "sent_at", "timestamp with time zone"),
    ],
)
def test_types_that_fit(name: str, column: str, sql_type: str) -> None:
    """Also an enum of the organisation's own, for a text."""
    check_columns(query(name), LEAST[name] | {column: sql_type})


def test_the_file_for_planner() -> None:
    """It can be parsed, its queries are in it once each, and it needs no zone: its times have none."""
    text = (ROOT / "sources" / "planner.sql").read_text(encoding="utf-8")
    found = parse(text)
    lines = [each.line for each in found.values()]
    assert all(first < second for first, second in pairwise(sorted(lines)))
    assert all(with_values(each.text, {"zone": "Europe/London"}) == each.text for each in found.values())
