"""`bidden client`: programs that use the HTTP API."""

from __future__ import annotations

import click

from cli.options import COMMAND_LINE, DATABASE, environment, identity, json_option
from cli.output import err, out, table, write_json, write_lines
from config.startup import load
from db import accounts
from db.connect import connect
from schemas.errors import NotFoundError
from schemas.text import is_storable

_FIELDS = ("id", "name", "email", "scopes", "webhook_url", "created_at", "used_at", "revoked_at")


@click.group()
def client() -> None:
    """Programs that use the HTTP API: each has a token, acts for an account, and may do what its scopes name.

    Example: bidden client list
    """


@client.command(epilog=environment(DATABASE))
@click.argument("name")
@click.option("--account", "email", required=True, metavar="EMAIL", help="The account that it acts for.")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    metavar="read|invite|operate|dead-letters",
    help="What it may do; once for each.",
)
@click.option("--webhook", metavar="URL", help="Where it is told how its batches ended.")
@json_option
def add(name: str, email: str, scopes: tuple[str, ...], webhook: str | None, as_json: bool) -> None:
    """Make a client. Its token, and its webhook's secret, are shown this once.

    Example: bidden client add planner --account olga@example.org --scope read --scope invite
    """
    from web.auth.api_clients import create_client

    settings = load()
    with connect(settings.require_database(), application="bidden-client") as conn:
        credentials = accounts.find_credentials(conn, email.strip().lower()) if is_storable(email) else None
        if credentials is None:
            raise NotFoundError(f"{email[:200]} has no account, or one that is disabled", field="account")
        made = create_client(
            conn, COMMAND_LINE, name=name, account_id=credentials.account.id, scopes=scopes, webhook_url=webhook
        )
    if as_json:
        write_json({"id": made.id, "token": made.token, "webhook_secret": made.webhook_secret})
        return
    out.print(f"client {made.id}, for {credentials.account}", markup=False)
    out.print(f"token: {made.token}", markup=False)
    if made.webhook_secret is not None:
        out.print(f"webhook secret: {made.webhook_secret}", markup=False)
    err.print("They are not shown again.")


@client.command("list", epilog=environment(DATABASE))
@json_option
def list_clients(as_json: bool) -> None:
    """All clients, the revoked ones too.

    Example: bidden client list --json
    """
    with connect(load().require_database(), application="bidden-client", autocommit=True) as conn:
        rows = accounts.list_clients(conn)
    if as_json:
        write_lines({name: row[name] for name in _FIELDS} for row in rows)
        return
    table(
        "Clients",
        ["@client", "name", "account", "scopes", "webhook", "made", "used", "revoked"],
        ([" ".join(row[name]) if name == "scopes" else row[name] for name in _FIELDS] for row in rows),
    )


@client.command(epilog=environment(DATABASE))
@identity("client_id")
@json_option
def revoke(client_id: int, as_json: bool) -> None:
    """End a client's token for good. What it began goes on, but it is told of nothing any more.

    Example: bidden client revoke 3
    """
    from web.auth.api_clients import revoke_client

    with connect(load().require_database(), application="bidden-client") as conn:
        revoke_client(conn, COMMAND_LINE, client_id)
    if as_json:
        write_json({"revoked": client_id})
    else:
        out.print(f"client {client_id} is revoked")


COMMANDS: list[click.Command] = [client]
