"""`bidden account`: accounts of the web application. The first admin is created here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from cli.options import ACTOR, DATABASE_SETTINGS, Id, environment, json_option
from cli.output import out, table, write_json, write_lines
from config.startup import load
from db import accounts as stored
from db.accounts import Account, AccountRole
from db.connect import Connection, connect
from schemas.errors import InputError, UsageError

_MAX_INPUT: Final = 4096

_ROLES: Final = click.Choice([role.value for role in AccountRole])
_password_stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read the password from stdin, as one line."
)


@contextmanager
def _database() -> Iterator[Connection]:
    with connect(load().require_database(), application="bidden-account", autocommit=True) as conn:
        yield conn


@contextmanager
def _transaction() -> Iterator[Connection]:
    """One transaction with the audit log: a refused command leaves nothing."""
    with _database() as conn, conn.transaction():
        yield conn


def _password(*, from_stdin: bool) -> tuple[str, bool]:
    """The password, and whether it was generated and must be shown."""
    if from_stdin:
        return _read_line(), False
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed, False
    from web.auth import tokens

    return tokens.new_password(), True


def _read_line() -> str:
    content = sys.stdin.buffer.read(_MAX_INPUT)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise InputError("the password on stdin is not UTF-8 text", field="password") from None
    if len(lines) != 1 or not lines[0]:
        raise InputError("stdin must hold one line, the password", field="password")
    return lines[0]


def _as_dict(row: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "email", "name", "role", "chapters", "has_password", "created_at", "seen_at", "disabled_at")
    return {name: row[name] for name in names}


def _show(conn: Connection, account_id: int, message: str, *, as_json: bool, generated: str | None = None) -> None:
    row = stored.get_details(conn, account_id)
    if as_json:
        write_json({**_as_dict(row), **({} if generated is None else {"password": generated})})
        return
    out.print(message, markup=False)
    if generated is not None:
        out.print(f"password (shown this once): {generated}", markup=False)


def _find(conn: Connection, email: str) -> Account:
    from web.auth.account_actions import normalize_email

    return stored.get_by_email(conn, normalize_email(email))


@click.group()
def account() -> None:
    """Manage the accounts of the web application.

    An account is an admin, or an organiser of chapters.

    Example: bidden account list
    """


@account.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("email")
@click.option("--name", required=True, help="The name that the audit log and batches show.")
@click.option(
    "--role", required=True, type=_ROLES, help="An organiser manages the events of their chapters, an admin everything."
)
@click.option("--chapter", "chapters", multiple=True, type=Id(), help="A chapter of an organiser; repeat for each.")
@_password_stdin_option
@click.option("--no-password", is_flag=True, help="Allow sign-in by OpenID Connect only.")
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
    """Add an account.

    Asks for its password at a terminal; otherwise generates a password and prints it.

    Example: bidden account add ada@example.org --name Ada --role admin
    """
    from web.auth import account_actions

    if from_stdin and no_password:
        raise UsageError("--password-stdin and --no-password exclude each other", field="no-password")
    email = account_actions.normalize_email(email)
    password, is_generated = (None, False) if no_password else _password(from_stdin=from_stdin)
    with _transaction() as conn:
        added = account_actions.add(
            conn, ACTOR, email=email, name=name, role=AccountRole(role), chapters=chapters, password=password
        )
    with _database() as conn:
        _show(conn, added.id, f"{added} can sign in", as_json=as_json, generated=password if is_generated else None)


@account.command("list", epilog=environment(DATABASE_SETTINGS))
@json_option
def list_accounts(as_json: bool) -> None:
    """List all accounts.

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


@account.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("email")
@_password_stdin_option
@json_option
def password(email: str, from_stdin: bool, as_json: bool) -> None:
    """Set a new password for an account, and end its sessions.

    Asks for the password or generates one, as `add` does.

    Example: bidden account password ada@example.org
    """
    from web.auth import account_actions

    with _database() as conn:
        found = _find(conn, email)
    new, is_generated = _password(from_stdin=from_stdin)
    with _transaction() as conn:
        account_actions.set_password(conn, ACTOR, found, new)
    with _database() as conn:
        _show(conn, found.id, f"{found} has a new password", as_json=as_json, generated=new if is_generated else None)


@account.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("email")
@click.option("--name", help="A new name.")
@click.option("--role", type=_ROLES, help="A new role.")
@click.option(
    "--chapter",
    "chapters",
    multiple=True,
    type=Id(),
    help="A chapter; repeat for each. Replaces all chapters of the account.",
)
@click.option("--no-chapters", is_flag=True, help="Remove all chapters of the account.")
@json_option
def change(
    email: str, name: str | None, role: str | None, chapters: tuple[int, ...], no_chapters: bool, as_json: bool
) -> None:
    """Change an account's name, role or chapters.

    What you do not give stays as it is.

    Example: bidden account change olga@example.org --role organiser --chapter 3 --chapter 5
    """
    from web.auth import account_actions

    if chapters and no_chapters:
        raise UsageError("--chapter and --no-chapters exclude each other", field="no-chapters")
    if name is None and role is None and not chapters and not no_chapters:
        raise UsageError("there is nothing to change: give --name, --role, --chapter or --no-chapters")
    with _transaction() as conn:
        found = _find(conn, email)
        account_actions.change(
            conn,
            ACTOR,
            found,
            name=found.name if name is None else name,
            role=found.role if role is None else AccountRole(role),
            chapters=() if no_chapters else chapters or found.chapters,
        )
    with _database() as conn:
        _show(conn, found.id, f"{found.email} was changed", as_json=as_json)


@account.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("email")
@json_option
def disable(email: str, as_json: bool) -> None:
    """Disable an account: no sign-in, and no API client acts for it.

    The audit log keeps its actions.

    Example: bidden account disable olga@example.org
    """
    from web.auth import account_actions

    with _transaction() as conn:
        found = _find(conn, email)
        account_actions.disable(conn, ACTOR, found)
    with _database() as conn:
        _show(conn, found.id, f"{found} can no longer sign in", as_json=as_json)


@account.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("email")
@json_option
def enable(email: str, as_json: bool) -> None:
    """Enable a disabled account again.

    Example: bidden account enable olga@example.org
    """
    from web.auth import account_actions

    with _transaction() as conn:
        found = _find(conn, email)
        account_actions.enable(conn, ACTOR, found)
    with _database() as conn:
        _show(conn, found.id, f"{found} can sign in again", as_json=as_json)


COMMANDS: list[click.Command] = [account]
