"""`bidden account`: who may sign in to the web application. The first admin is made here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from cli.options import COMMAND_LINE, DATABASE, Id, environment, json_option
from cli.output import out, table, write_json, write_lines
from config.startup import load
from db import accounts as stored
from db.accounts import Account, AccountRole
from db.connect import Connection, connect
from schemas.errors import InputError, UsageError

_LONGEST: Final = 4096

_ROLES: Final = click.Choice([role.value for role in AccountRole])
_password_stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input, one line."
)


@contextmanager
def _database() -> Iterator[Connection]:
    with connect(load().require_database(), application="bidden-account", autocommit=True) as conn:
        yield conn


@contextmanager
def _changing() -> Iterator[Connection]:
    """In one transaction with the trail: what is refused leaves nothing."""
    with _database() as conn, conn.transaction():
        yield conn


def _password(*, from_stdin: bool) -> tuple[str, bool]:
    """The password, and whether it was made here and must be shown."""
    if from_stdin:
        return _line(), False
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed, False
    from web.auth import tokens

    return tokens.new_password(), True


def _line() -> str:
    content = sys.stdin.buffer.read(_LONGEST)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise InputError("the password on standard input is not UTF-8 text", field="password") from None
    if len(lines) != 1 or not lines[0]:
        raise InputError("standard input must hold one line, the password", field="password")
    return lines[0]


def _as_dict(row: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "email", "name", "role", "chapters", "has_password", "created_at", "seen_at", "disabled_at")
    return {name: row[name] for name in names}


def _tell(conn: Connection, account_id: int, sentence: str, *, as_json: bool, made: str | None = None) -> None:
    row = stored.get_details(conn, account_id)
    if as_json:
        write_json({**_as_dict(row), **({} if made is None else {"password": made})})
        return
    out.print(sentence, markup=False)
    if made is not None:
        out.print(f"The password, shown this once: {made}", markup=False)


def _known(conn: Connection, email: str) -> Account:
    from web.auth.account_actions import normalize_email

    return stored.get_by_email(conn, normalize_email(email))


@click.group()
def account() -> None:
    """Who may sign in to the web application, as an admin or as an organiser of chapters.

    Example: bidden account list
    """


@account.command(epilog=environment(DATABASE))
@click.argument("email")
@click.option("--name", required=True, help="As it stands in the trail and on batches.")
@click.option("--role", required=True, type=_ROLES, help="An organiser sees the events of the chapters, an admin all.")
@click.option("--chapter", "chapters", multiple=True, type=Id(), help="A chapter of an organiser; any number of them.")
@_password_stdin_option
@click.option("--no-password", is_flag=True, help="It signs in by OpenID Connect only.")
@json_option
def add(
    email: str,
    name: str,
    role: str,
    chapters: tuple[int, ...],
    from_stdin: bool,
    no_password: bool,
    as_json: bool,
) -> None:
    """Add an account. Asks for its password at a terminal; elsewhere makes one, and prints it.

    Example: bidden account add ada@example.org --name Ada --role admin
    """
    from web.auth import account_actions

    if from_stdin and no_password:
        raise UsageError("--password-stdin and --no-password exclude each other", field="no-password")
    email = account_actions.normalize_email(email)
    password, is_made = (None, False) if no_password else _password(from_stdin=from_stdin)
    with _changing() as conn:
        added = account_actions.add(
            conn, COMMAND_LINE, email=email, name=name, role=AccountRole(role), chapters=chapters, password=password
        )
    with _database() as conn:
        _tell(conn, added.id, f"{added} may sign in", as_json=as_json, made=password if is_made else None)


@account.command("list", epilog=environment(DATABASE))
@json_option
def list_accounts(as_json: bool) -> None:
    """All accounts, by address.

    Example: bidden account list
    """
    with _database() as conn:
        rows = [_as_dict(row) for row in stored.list_all(conn)]
    if as_json:
        write_lines(rows)
        return
    columns = ["email", "name", "role", "chapters", "seen_at", "disabled_at"]
    shown = [{**row, "chapters": " ".join(map(str, row["chapters"])) or None} for row in rows]
    table("Accounts", columns, ([row[column] for column in columns] for row in shown))


@account.command(epilog=environment(DATABASE))
@click.argument("email")
@_password_stdin_option
@json_option
def password(email: str, from_stdin: bool, as_json: bool) -> None:
    """Give an account a new password, and sign it out everywhere. Asks for it, or makes one, as `add` does.

    Example: bidden account password ada@example.org
    """
    from web.auth import account_actions

    with _database() as conn:
        found = _known(conn, email)
    new, is_made = _password(from_stdin=from_stdin)
    with _changing() as conn:
        account_actions.set_password(conn, COMMAND_LINE, found, new)
    with _database() as conn:
        _tell(conn, found.id, f"{found} has a new password", as_json=as_json, made=new if is_made else None)


@account.command(epilog=environment(DATABASE))
@click.argument("email")
@click.option("--name", help="A new name.")
@click.option("--role", type=_ROLES, help="A new role.")
@click.option("--chapter", "chapters", multiple=True, type=Id(), help="All its chapters, instead of those it has.")
@click.option("--no-chapters", is_flag=True, help="It has no chapters from now on.")
@json_option
def change(
    email: str, name: str | None, role: str | None, chapters: tuple[int, ...], no_chapters: bool, as_json: bool
) -> None:
    """Change an account's name, role or chapters. What is not given stays.

    Example: bidden account change olga@example.org --role organiser --chapter 3 --chapter 5
    """
    from web.auth import account_actions

    if chapters and no_chapters:
        raise UsageError("--chapter and --no-chapters exclude each other", field="no-chapters")
    if name is None and role is None and not chapters and not no_chapters:
        raise UsageError("nothing is to be changed: give --name, --role, --chapter or --no-chapters")
    with _changing() as conn:
        found = _known(conn, email)
        account_actions.change(
            conn,
            COMMAND_LINE,
            found,
            name=found.name if name is None else name,
            role=found.role if role is None else AccountRole(role),
            chapters=() if no_chapters else chapters or found.chapters,
        )
    with _database() as conn:
        _tell(conn, found.id, f"{found.email} was changed", as_json=as_json)


@account.command(epilog=environment(DATABASE))
@click.argument("email")
@json_option
def disable(email: str, as_json: bool) -> None:
    """Let nobody sign in with an account any more, nor any program act for it. What it did stays on record.

    Example: bidden account disable olga@example.org
    """
    from web.auth import account_actions

    with _changing() as conn:
        found = _known(conn, email)
        account_actions.disable(conn, COMMAND_LINE, found)
    with _database() as conn:
        _tell(conn, found.id, f"{found} may not sign in any more", as_json=as_json)


@account.command(epilog=environment(DATABASE))
@click.argument("email")
@json_option
def enable(email: str, as_json: bool) -> None:
    """Let an account that was disabled sign in again.

    Example: bidden account enable olga@example.org
    """
    from web.auth import account_actions

    with _changing() as conn:
        found = _known(conn, email)
        account_actions.enable(conn, COMMAND_LINE, found)
    with _database() as conn:
        _tell(conn, found.id, f"{found} may sign in again", as_json=as_json)


COMMANDS: list[click.Command] = [account]
