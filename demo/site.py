"""The web application beside the embedded servers, for `demo` and `up`: on a free port, and who can sign in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from db import accounts
from db.accounts import AccountRole
from db.connect import Connection
from embedded import ports
from embedded.supervisor import Processes
from web.auth import tokens

_ADMIN: Final = "ada@bidden.example"
_ORGANISER: Final = "olga@bidden.example"
_PORTS_FILE: Final = "site.json"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What somebody signs in with."""

    email: str
    password: str


def choose_address(home: Path) -> str:
    """Where the site of this home will be; the same as last time, if that is still free."""
    file = home / _PORTS_FILE
    chosen = ports.choose({"site": None}, ports.load(file))
    ports.store(file, chosen)
    return f"http://{ports.HOST}:{chosen['site']}"


def start(processes: Processes, address: str) -> None:
    """`bidden admin` at this address, started again whenever it ends."""
    processes.add("site", "admin", "--port", address.rpartition(":")[2])


def people_of_a_demonstration(conn: Connection, chapters: Sequence[int]) -> list[SignIn]:
    """An admin, and an organiser of these chapters, each with a password made for this once."""
    made = []
    for email, name, role, own in (
        (_ADMIN, "Ada", AccountRole.ADMIN, ()),
        (_ORGANISER, "Olga", AccountRole.ORGANISER, chapters),
    ):
        password = tokens.new_token()[:16]
        accounts.add(
            conn, email=email, name=name, role=role, chapters=own, password_hash=tokens.hash_password(password)
        )
        made.append(SignIn(email, password))
    return made
