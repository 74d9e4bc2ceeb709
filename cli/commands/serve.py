"""`bidden admin`: the web application."""

from __future__ import annotations

import click

from cli.options import DATABASE, KAFKA, SITE, environment, json_logs_option
from config.startup import load


@click.command(epilog=environment(DATABASE, KAFKA, SITE))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65_535), help="0: any free one.")
@click.option(
    "--links/--no-links", "links", default=True, help="Whether the links in mails lead here.", show_default=True
)
@json_logs_option
def admin(host: str, port: int, links: bool, as_json: bool) -> int:
    """Serve the web application, until stopped: the site, the HTTP API, and the pages behind the links in mails.

    Set BIDDEN_BASE_URL to where people reach it. Put a proxy with TLS before it.

    Example: bidden admin --port 8000
    """
    from db.connect import connect
    from web.server import serve

    settings = load(logs_as_json=as_json)
    connect(settings.require_database()).close()
    return serve(settings, host, port, with_links=links)


COMMANDS: list[click.Command] = [admin]
