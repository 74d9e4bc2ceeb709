"""Where the mail server is and how to talk to it, read from the setting BIDDEN_SMTP_URL. Pure.

    smtp://[user:password@]host[:port][?starttls=required][&ca_file=PATH][&clear_password=allowed]
    smtps://[user:password@]host[:port][?ca_file=PATH]

User and password are percent-decoded. `starttls=required` goes over to TLS before anything else or does not
send; `starttls=optional` does so where the server offers it. Certificates are always verified, against the
system's authorities or those in `ca_file`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from config.addresses import is_loopback
from schemas.errors import SettingsError

_PORTS: Final = {"smtp": 25, "smtps": 465}
_OPTIONS: Final = ("starttls", "ca_file", "clear_password")
_CONTROLS: Final = re.compile(r"[\x00-\x20\x7f]")


class Tls(Enum):
    """When a connection is encrypted."""

    NEVER = "never"
    OPTIONAL = "starttls where offered"
    STARTTLS = "starttls"
    IMPLICIT = "from the first byte"


_STARTTLS: Final = {
    **dict.fromkeys(("", "1", "true", "yes", "on", "required"), Tls.STARTTLS),
    **dict.fromkeys(("0", "false", "no", "off", "never"), Tls.NEVER),
    **dict.fromkeys(("optional", "auto"), Tls.OPTIONAL),
}


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server. Its repr and `address` hold no secrets."""

    host: str
    port: int
    tls: Tls = Tls.NEVER
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    clear_password: bool = False

    @property
    def address(self) -> str:
        """For people: `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def may_send_password_in_clear(self) -> bool:
        """Only to this very machine, or if the setting says so."""
        return self.clear_password or is_loopback(self.host)


def parse(url: str) -> SmtpServer:
    """Reads the setting. SettingsError names what is wrong and never quotes the URL: it may hold a password."""
    if _CONTROLS.search(url):
        raise _wrong("holds white space or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # The cause is cut off: urllib quotes what it could not read.
        raise _wrong("is not a URL: the host or the port cannot be read") from _without_text(error)
    if parts.scheme not in _PORTS:
        raise _wrong("must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise _wrong("names no host")
    if port == 0:
        raise _wrong("has port 0")
    if parts.path not in ("", "/") or parts.fragment:
        raise _wrong("has a path or a fragment (a password with / or # in it must be percent-encoded)")
    options = _options(parts.query)
    user, password = _decoded(parts.username), _decoded(parts.password)
    if (user is None) != (password is None):
        raise _wrong("must have both a user and a password, or neither")

    tls = Tls.IMPLICIT if parts.scheme == "smtps" else Tls.NEVER
    if "starttls" in options:
        starttls = _STARTTLS.get(options["starttls"].lower())
        if starttls is None:
            raise _wrong("has an unknown value for starttls (required, optional or never)")
        if tls is Tls.IMPLICIT and starttls is not Tls.NEVER:
            raise _wrong("asks for starttls on smtps://, which is encrypted from the first byte")
        tls = tls if tls is Tls.IMPLICIT else starttls
    if options.get("clear_password", "allowed") != "allowed":
        raise _wrong("has an unknown value for clear_password (allowed)")
    server = SmtpServer(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=tls,
        user=user,
        password=password,
        ca_file=options.get("ca_file") or None,
        clear_password="clear_password" in options,
    )
    if password is not None and tls is Tls.NEVER and not server.may_send_password_in_clear:
        raise _wrong(
            "would send the password in the clear: add ?starttls=required, or use smtps:// "
            "(or, if you must, ?clear_password=allowed)"
        )
    return server


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS or name in options:
            raise _wrong(f"has an unknown or repeated option; known are {', '.join(_OPTIONS)}")
        options[name] = value
    return options


def _decoded(text: str | None) -> str | None:
    if not text:
        return None
    decoded = unquote(text)
    if "\0" in decoded:
        raise _wrong("holds a NUL in its user or password")
    return decoded


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"BIDDEN_SMTP_URL {what}", field="BIDDEN_SMTP_URL")


def _without_text(error: ValueError) -> ValueError:
    return type(error)()
