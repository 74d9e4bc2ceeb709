"""Limits on attempts to be let in: by name and address, by address, and by name alone."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from db import accounts
from db.connect import Connection

_WINDOW_SECONDS: Final = 15 * 60.0
#: Attempts within the window: enough for a user who has forgotten which password it was, too few to guess one.
_PER_EMAIL_AND_ADDRESS: Final = 5
#: Beyond so many attempts at one e-mail address from everywhere, each IP address has fewer. None of them locks it:
#: strangers who guess from many addresses slow each other down, and the owner signs in from theirs.
_PER_EMAIL: Final = 30
_PER_EMAIL_AND_ADDRESS_UNDER_ATTACK: Final = 2
_PER_ADDRESS: Final = 60


@dataclass(frozen=True, slots=True)
class Attempt:
    """At one e-mail address, which need not exist, from an IP address. Each `purpose` counts for itself."""

    email: str
    address: str
    purpose: str = ""

    @property
    def _both(self) -> str:
        return f"{self.purpose}both {self.email} {self.address}"

    @property
    def _email_only(self) -> str:
        return f"{self.purpose}name {self.email}"

    def seconds_to_wait(self, conn: Connection) -> float:
        """Counts it. The seconds until the next may follow, 0 if it is within the limits."""
        # The address first: once throttled it adds no rows, whatever e-mail addresses it tries. The e-mail address
        # alone counts only what those two let through.
        wait = _seconds_to_wait(conn, f"{self.purpose}address {self.address}", _PER_ADDRESS)
        if wait:
            return wait
        attempts, seconds_left = accounts.count_attempt(conn, self._both, _WINDOW_SECONDS)
        if attempts > _PER_EMAIL_AND_ADDRESS:
            return max(seconds_left, 1.0)
        if attempts > _PER_EMAIL_AND_ADDRESS_UNDER_ATTACK:
            return _seconds_to_wait(conn, self._email_only, _PER_EMAIL)
        accounts.count_attempt(conn, self._email_only, _WINDOW_SECONDS)
        return 0.0

    def succeeded(self, conn: Connection) -> None:
        """Who got in has made no attempts, whatever came before."""
        accounts.reset_attempts(conn, [self._both, self._email_only])


def _seconds_to_wait(conn: Connection, key: str, limit: int) -> float:
    """Counts an attempt under the key; the seconds until the next may follow, 0 if it is within the limit."""
    attempts, seconds_left = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    return max(seconds_left, 1.0) if attempts > limit else 0.0


def client_address(request: Request) -> str:
    """The IP address to throttle by; of IPv6 the /64 network, in which a client may choose its address."""
    host = request.client.host if request.client else "?"
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6:
            mapped = address.ipv4_mapped
            return str(mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return host
