"""Addresses in settings: what is admitted, and how one is shown. Pure.

They contain passwords: a check raises ValueError with what is wanted, never with what was given.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from schemas.mail_address import parse_sender

_BROKER: Final = re.compile(r"([A-Za-z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:(?P<port>[0-9]+))?")


def without_secrets(url: str) -> str:
    """The address without its user name, password and query, for messages and logs."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be read)"
    if "@" in parts.path:
        # A slash in a password begins the path, which then contains the rest of the password.
        return "(an address that cannot be read)"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"


def split(url: str) -> SplitResult:
    """urlsplit, whose errors do not quote the address."""
    try:
        return urlsplit(url)
    except ValueError:
        # Without the cause: urllib quotes the address, password included.
        raise ValueError("is no address: its host cannot be read") from None


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, judged by its name alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_database_url(value: SecretStr) -> SecretStr:
    """A URL that libpq understands."""
    # Slow to import, and `--help` needs no settings.
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    url = value.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    try:
        known = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):
        # Without the cause: libpq quotes the address, password included.
        raise ValueError("cannot be read: an option is unknown, or the host or a percent-encoding is wrong") from None
    ports = [port for port in str(known.get("port", "")).split(",") if port]
    if "@" in f"{known.get('host', '')}{known.get('dbname', '')}" or not all(map(is_port, ports)):
        raise ValueError("has no such port, or a password whose / or @ is not percent-encoded")
    return value


def check_smtp_url(value: SecretStr) -> SecretStr:
    """An smtp or smtps URL."""
    parts = split(value.get_secret_value())
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must look like smtp://host:port or smtps://user:password@host:port")
    return value


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65_535


def check_bootstrap(value: str) -> str:
    """Brokers, separated by commas."""
    brokers = [_BROKER.fullmatch(broker.strip()) for broker in value.split(",")]
    if not all(broker and (broker["port"] is None or is_port(broker["port"])) for broker in brokers):
        raise ValueError("must look like host:port, or host:port,host:port")
    return value


def check_mail_from(value: str) -> str:
    """A sender, with a name or without."""
    parse_sender(value)
    return value
