"""What our sessions in PostgreSQL are set to, and what we refuse to work with. Pure.

Settings are set after the connection is open, by a statement. So what the address, `PGOPTIONS` or a service file say
stays as libpq understands it, above all a search_path: two installations may have two schemas of one database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: `-c name=value`, `-cname=value` and `--name=value`, as PostgreSQL reads them.
_OPTION: Final = re.compile(r"(?:^|\s)(?:-c\s*|--)([A-Za-z_][\w.-]*)\s*=((?:\\.|[^\s\\])*)")
_ENCODING: Final = "UTF8"
#: The first that knows `transaction_timeout`.
_POSTGRESQL_17: Final = 170_000


@dataclass(frozen=True, slots=True)
class Session:
    """A kind of session: what our statements need, and limits that an address may set otherwise."""

    needed: Mapping[str, str]
    limits: Mapping[str, str] = field(default_factory=dict)

    def settings(self, options: str, server_version: int) -> dict[str, str]:
        """What to set in a session on a server of that version, which was opened with these `options`."""
        given = given_options(options)
        wanted = {name: value for name, value in self.limits.items() if name not in given} | dict(self.needed)
        if server_version < _POSTGRESQL_17:
            wanted.pop("transaction_timeout", None)
        return wanted


_NEEDED: Final = {"timezone": "UTC", "jit": "off"}
# Who is stopped in mid-transaction (SIGSTOP, a frozen machine) does not keep its locks from the others for ever.
PLAIN: Final = Session(_NEEDED, {"idle_in_transaction_session_timeout": "60s"})
#: Migrations wait for locks as long as it takes.
MIGRATION: Final = Session({"timezone": "UTC"})
#: `transaction_timeout` also ends one that waits for the rest of a pipeline, which does not count as idle. It is longer
#: than `lock_timeout`, so that who waits for a lock learns that it was one, and does not take it for an outage.
HOT: Final = Session(
    {
        **_NEEDED,
        "idle_in_transaction_session_timeout": "5s",
        "lock_timeout": "8s",
        "transaction_timeout": "20s",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "plan_cache_mode": "force_generic_plan",
        "random_page_cost": "1.1",
    }
)
LOCK_WATCH: Final = Session({"statement_timeout": "2s"})


def given_options(options: str) -> dict[str, str]:
    """The settings in startup `options`, by their names as PostgreSQL writes them."""
    return {name.lower().replace("-", "_"): re.sub(r"\\(.)", r"\1", value) for name, value in _OPTION.findall(options)}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a new session is."""

    pid: int
    #: With the pid it names a session for good. As the server writes it.
    started: str
    database: str
    encoding: str
    search_path: str
    schema: str | None
    schema_of_tables: str | None


def unfit(session: Facts, *, migrates: bool) -> str | None:
    """Why we cannot work in it, and what to do; None when we can. `migrates`: tables are made, and not used."""
    if session.encoding != _ENCODING:
        return (
            f"the database {session.database} has the encoding {session.encoding}, which cannot hold every name: "
            "create one with ENCODING 'UTF8' TEMPLATE template0, and use that"
        )
    if session.schema is None:
        return (
            f"no schema of the search_path ({session.search_path}) exists in the database {session.database}, or its "
            "user may not use it: create it, or grant USAGE on it, or correct the search_path"
        )
    if not migrates and session.schema_of_tables not in {None, session.schema}:
        return (
            f"the search_path ({session.search_path}) begins with the schema {session.schema}, and the tables that it "
            f"finds are in {session.schema_of_tables}, those of another installation perhaps: run `bidden migrate` for "
            "a new one, or begin the search_path with the schema of yours"
        )
    return None
