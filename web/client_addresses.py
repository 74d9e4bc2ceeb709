"""Whose request it is: the client's address, which a trusted proxy forwards, and what the site saw of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from config.clock import elapsed
from config.log_throttle import LogThrottle

log = structlog.get_logger()

_SEEN: Final = "bidden.client"


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a request came from: the peer of the connection, the client, and whether a header was not believed."""

    peer: str
    client: str
    is_ignored: bool


class TrustedProxies:
    """Middleware: the client of a request is what a trusted proxy says in X-Forwarded-For, else who connected."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        # uvicorn's own would read FORWARDED_ALLOW_IPS, and trust any text.
        proxied: Any = ProxyHeadersMiddleware(self._checked, list(trusted))  # type: ignore[arg-type] # the same ASGI
        self._proxied: ASGIApp = proxied
        self._throttle = LogThrottle(elapsed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host, port = scope.get("client") or ("?", 0)
        host = _unmapped(host)
        is_forwarded = any(name == b"x-forwarded-for" for name, _ in scope["headers"])
        is_ignored = is_forwarded and not self._trusts(host)
        if is_ignored and self._throttle.admits():
            log.warning("X-Forwarded-For is ignored: its sender is not in BIDDEN_TRUSTED_PROXIES", address=host)
        scope = {**scope, "client": (host, port), _SEEN: Seen(host, host, is_ignored)}
        await self._proxied(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What was forwarded, if it is an address."""
        seen: Seen = scope[_SEEN]
        host, port = scope["client"]
        if host != seen.peer:
            host = _unmapped(host)
            with suppress(ValueError):
                ipaddress.ip_address(host)
                seen = Seen(seen.peer, host, seen.is_ignored)
        await self._app({**scope, "client": (seen.client, port), _SEEN: seen}, receive, send)

    def _trusts(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def seen_of(scope: Scope) -> Seen:
    """What the middleware saw of this request."""
    seen: Seen = scope[_SEEN]
    return seen


def _unmapped(host: str) -> str:
    """An IPv4 address as such, where a socket of IPv6 took its connection."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6 and address.ipv4_mapped:
            return str(address.ipv4_mapped)
    return host
