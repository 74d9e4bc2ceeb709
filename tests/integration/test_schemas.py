"""Installations in schemas of one database: each keeps to its own, whatever names it, and none meets another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql as psql

from cli.main import main
from db import checks
from db.connect import connect, connect_hot
from db.lock_watch import LockWatch
from db.migrate import current, drift, head, upgrade
from db.retention import Retention
from db.statements import sql
from schemas.errors import SettingsError
from tests.databases import Databases, with_options
from tests.integration.importing import BASE
from tests.integration.site import open_site

NORTH, SOUTH, EMPTY = "north", "South Side", "empty"
#: As in `options`, where a space is escaped, and in SQL, where a capital is quoted.
_PATHS: Final = {NORTH: "north", SOUTH: r'"South\ Side"', EMPTY: "empty,public"}


@pytest.fixture(scope="module")
def urls(databases: Databases) -> Iterator[Mapping[str, str]]:
    """Of one database with an installation in `public`, one in each of two schemas, and an empty schema."""
    with databases.fresh() as url:
        with psycopg.connect(url, autocommit=True) as conn:
            for schema in (NORTH, SOUTH, EMPTY):
                conn.execute(psql.SQL("CREATE SCHEMA {}").format(psql.Identifier(schema)))
        made = {schema: with_options(url, f"-csearch_path={path}") for schema, path in _PATHS.items()}
        for schema in (NORTH, SOUTH):
            assert current(made[schema]) is None
            assert upgrade(made[schema]) == head()
        yield {"public": url, **made}
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("DROP TABLE members CASCADE")


def members(url: str) -> list[int]:
    """How many the tables of the three installations hold."""
    counts = []
    with psycopg.connect(url) as conn:
        for schema in ("public", NORTH, SOUTH):
            row = conn.execute(psql.SQL("SELECT count(*) FROM {}.members").format(psql.Identifier(schema))).fetchone()
            assert row is not None
            counts.append(row[0])
    return counts


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, str, str]:
    """A command; its exit code and output."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A directory of two members."""
    path = tmp_path / "directory.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in BASE))
    return str(path)


@pytest.mark.parametrize("way", ["options", "PGOPTIONS", "PGSERVICEFILE"])
def test_each_keeps_to_its_own(
    urls: Mapping[str, str],
    way: str,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The address, PGOPTIONS or a service file name the schema: migrate, import, site, workers and checks obey."""
    url, options = urls["public"], f"-c search_path={_PATHS[NORTH]}"
    if way == "options":
        url = urls[NORTH]
    elif way == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    else:
        (tmp_path / "services").write_text(f"[club]\noptions={options}\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        url += "?service=club"
    monkeypatch.setenv("BIDDEN_DATABASE_URL", url)
    assert (current(url), drift(url)) == (head(), [])
    code, out, err = run(capsys, "import", file)
    assert (code, json.loads(out or "{}").get("member")) == (0, 2), err
    with connect(url, autocommit=True) as conn:
        assert [found for found in checks.violations(conn) if found.count] == []
        with open_site(url, conn) as site:
            assert "M2" in site.admin().get("/members/2").text
        conn.execute("DELETE FROM accounts")

    async def members_of_a_worker() -> Any:
        async with await connect_hot(url, application="bidden-worker") as hot:
            return await (await hot.execute("SELECT count(*) FROM members")).fetchone()

    assert asyncio.run(members_of_a_worker()) == (2,)
    monkeypatch.delenv("PGOPTIONS", raising=False)
    assert members(urls["public"]) == [0, 2, 0]
    assert drift(urls["public"]) == []


def test_what_the_address_says_is_kept(urls: Mapping[str, str]) -> None:
    """Options beside ours: kept, on each kind of connection."""
    url = with_options(urls["public"], "-c statement_timeout=17s -c geqo_threshold=9")
    wanted = "SELECT current_setting('statement_timeout') AS s, current_setting('geqo_threshold') AS g"
    with connect(url, autocommit=True) as conn:
        assert conn.execute(wanted).fetchone() == {"s": "17s", "g": "9"}
        with open_site(url, conn) as site, site.app.state.pool.connection() as pooled:
            assert pooled.execute(wanted).fetchone() == {"s": "17s", "g": "9"}

    async def of_a_worker() -> Any:
        async with await connect_hot(url, application="bidden-worker") as hot:
            return await (await hot.execute(wanted)).fetchone()

    assert asyncio.run(of_a_worker()) == ("17s", "9")


def test_locks_and_names_are_told_apart(urls: Mapping[str, str]) -> None:
    """An import, a clean-up, a migration, a planning of one club keeps no other waiting; its dispatcher is its own."""
    with (
        connect(urls[NORTH], application="bidden-dispatcher") as north,
        connect(urls[SOUTH], application="bidden-dispatcher", autocommit=True) as south,
        connect(urls["public"], autocommit=True) as other,
    ):
        assert [checks.dispatchers(conn) for conn in (north, south, other)] == [1, 1, 0]
        for name in ("lock_imports", "wait_for_retention", "lock_migrations"):
            north.execute(sql(name))
        assert north.execute(sql("claim_planning"), {"batch_id": 1}).fetchone() == {"is_claimed": True}
        south.execute("SET statement_timeout = '2s'")
        for name in ("lock_imports", "wait_for_retention", "lock_migrations"):
            south.execute(sql(name))
        assert south.execute(sql("claim_planning"), {"batch_id": 1}).fetchone() == {"is_claimed": True}
        Retention(86_400.0, lambda: 0.0).run_chunk(south)


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere", "no schema of the search_path (nowhere) exists"), ("empty,public", "that it finds are in public")],
)
def test_tables_of_another_are_never_used(
    urls: Mapping[str, str],
    path: str,
    words: str,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A schema that is not there, or not migrated while the search_path goes on to another's: refused by its cause."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", with_options(urls["public"], f"-c search_path={path}"))
    code, _, err = run(capsys, "import", file)
    assert code == 2
    assert words in json.loads(err)["detail"]
    assert json.loads(err)["field"] == "BIDDEN_DATABASE_URL"


def test_migrate_makes_tables_in_the_first_schema(urls: Mapping[str, str]) -> None:
    """Though a later one has tables of that name, at the newest revision."""
    url = urls[EMPTY]
    assert current(url) is None
    with pytest.raises(SettingsError):
        connect(url)
    assert upgrade(url) == current(url) == head()
    assert drift(url) == []
    connect(url).close()


def test_a_watch_of_locks_asks_in_the_same_place(urls: Mapping[str, str]) -> None:
    """The connection that asks who holds a lock is opened like all others."""

    async def ask() -> None:
        await LockWatch(urls[SOUTH], "bidden-worker", lambda: None)._say_who_holds(0)

    asyncio.run(ask())
