"""`bidden client`: clients of the HTTP API."""

from __future__ import annotations

import click

from cli.options import ACTOR, DATABASE_SETTINGS, environment, id_argument, json_option
from cli.output import err, out, table, write_json, write_lines
from config.startup import load
from db import accounts
from db.connect import connect
from schemas.errors import NotFoundError
from schemas.mail_address import ascii_lower
from schemas.text import is_storable

_FIELDS = ("id", "name", "email", "scopes", "webhook_url", "created_at", "used_at", "revoked_at", "expires_at")


@click.group()
def client() -> None:
    """Manage the clients of the HTTP API.

    A client is a program with a token. It acts for an account, within its scopes.

    Example: bidden client list
    """


@client.command(epilog=environment(DATABASE_SETTINGS))
@click.argument("name")
@click.option("--account", "email", required=True, metavar="EMAIL", help="The account that the client acts for.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    metavar="read|invite|operate|dead-letters",
    help="A scope; repeat for each.",
)
@click.option("--webhook", metavar="URL", help="Receives a request when a batch of the client has ended.")
@click.option("--expires", metavar="DATE", help="The last day of its token, UTC: 2027-01-31. Default: none.")
@json_option
def add(
    name: str, email: str, scopes: tuple[str, ...], webhook: str | None, expires: str | None, as_json: bool
) -> None:
    """Add a client, and print its token and its webhook's secret.

    They are not shown again.

    Example: bidden client add planner --account olga@example.org --scope read --scope invite
    """
    from web.auth.api_clients import create_client

    settings = load()
    with connect(settings.require_database(), application="bidden-client") as conn:
        credentials = accounts.find_credentials(conn, ascii_lower(email.strip())) if is_storable(email) else None
        if credentials is None:
            raise NotFoundError(f"{email[:200]} has no account, or a disabled one", field="account")
        added = create_client(
            conn,
            ACTOR,
            name=name,
            account_id=credentials.account.id,
            scopes=scopes,
            webhook_url=webhook,
            expires=expires,
            allow_private=settings.webhook_allow_private,
        )
    if as_json:
        write_json({"id": added.id, "token": added.token, "webhook_secret": added.webhook_secret})
        return
    out.print(f"client {added.id}, acts for {credentials.account}", markup=False)
    out.print(f"token: {added.token}", markup=False)
    if added.webhook_secret is not None:
        out.print(f"webhook secret: {added.webhook_secret}", markup=False)
    err.print("They are not shown again.")


@client.command("list", epilog=environment(DATABASE_SETTINGS))
@json_option
def list_clients(as_json: bool) -> None:
    """List all clients, including revoked ones.

    Example: bidden client list --json
    """
    with connect(load().require_database(), application="bidden-client", autocommit=True) as conn:
        rows = accounts.list_clients(conn)
    if as_json:
        write_lines({name: row[name] for name in _FIELDS} for row in rows)
        return
    table(
        "Clients",
        ["@client", "name", "account", "scopes", "webhook", "created", "last used", "revoked", "expires"],
        ([" ".join(row[name]) if name == "scopes" else row[name] for name in _FIELDS] for row in rows),
    )


@client.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("client_id")
@json_option
def revoke(client_id: int, as_json: bool) -> None:
    """Revoke a client's token permanently.

    Batches that the client triggered continue, but their webhooks are not called.

    Example: bidden client revoke 3
    """
    from web.auth.api_clients import revoke_client

    with connect(load().require_database(), application="bidden-client") as conn:
        revoke_client(conn, ACTOR, client_id)
    if as_json:
        write_json({"revoked": client_id})
    else:
        out.print(f"client {client_id} is revoked")


COMMANDS: list[click.Command] = [client]
