"""The site below a path: BIDDEN_BASE_URL=https://example.org/club.

Within the application addresses have no prefix. It is taken off what comes in, unless the proxy has done so, and put
before what goes out: addresses in templates, redirects, the path of cookies. A page need not know of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from jinja2 import Environment
from jinja2.ext import Extension
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Set for each request, and for what is rendered in it.
_current: Final[ContextVar[str]] = ContextVar("base_path", default="")
_ATTRIBUTES: Final = r"(?<=\s)(href|action|src|formaction|hx-[\w:-]+|sse-connect|data-[\w-]+)="
_LITERAL: Final = re.compile(rf'{_ATTRIBUTES}"(?=/(?!/))')
_COMPUTED: Final = re.compile(rf'{_ATTRIBUTES}"\{{\{{\s*(.+?)\s*\}}\}}')
_ADDRESSES: Final = ("location", "content-location", "hx-redirect", "hx-location", "hx-push-url", "hx-replace-url")


def of_url(base_url: str) -> str:
    """The path of a base URL: `/club`, or nothing."""
    return urlsplit(base_url).path.rstrip("/")


def without(path: str, prefix: str) -> str | None:
    """The path of a page as the application knows it, from the one that a browser shows; None if it is elsewhere."""
    if not path.startswith(f"{prefix}/"):
        return "/" if path == prefix else None
    return path[len(prefix) :]


def current() -> str:
    """The prefix of addresses in the page that is rendered."""
    return _current.get()


def at_base(value: Any) -> Any:
    """An address of the site as a browser must ask for it; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        return value
    return type(value)(current()) + value


def template_with_prefix(source: str) -> str:
    """A template whose addresses of the site get the prefix when it is rendered. Pure."""
    source = _COMPUTED.sub(r'\1="{{ (\2) | at_base }}', source)
    return _LITERAL.sub(r'\1="{{ base_path() }}', source)


class Prefix(Extension):
    """Does so with every template of an environment."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters["at_base"] = at_base
        environment.globals["base_path"] = current

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Before it is compiled."""
        del name, filename
        return template_with_prefix(source)


def outgoing(address: str, prefix: str, host: str | None) -> str:
    """An address in a header as a browser must have it. One of this `host` becomes a path: the proxy knows the host."""
    parts = urlsplit(address)
    if parts.netloc and parts.netloc == host and parts.scheme in {"http", "https"}:
        address = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    elif parts.scheme or parts.netloc:
        return address
    return prefix + address if address.startswith("/") and not address.startswith("//") else address


class BasePath:
    """Middleware. `routes` are those of the application; `prefix` is the path of the base URL, maybe nothing."""

    def __init__(self, app: ASGIApp, *, prefix: str, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._prefix = prefix
        self._below = unquote(prefix) + "/"
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _current.set(self._prefix)
        if self._prefix:
            scope = self._incoming(scope)
        host = Headers(scope=scope).get("host")

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in _ADDRESSES:
                    if name in headers:
                        headers[name] = outgoing(headers[name], self._prefix, host)
            await send(message)

        await self._app(scope, receive, send_with_prefix)

    def _incoming(self, scope: Scope) -> Scope:
        """Without the prefix, where a proxy left it: what remains must be an address of ours.

        Else a page of the site could begin like the prefix, and its proxy take it off.
        """
        path = scope["path"]
        if path == self._below[:-1]:
            path += "/"
        if not path.startswith(self._below):
            return scope
        inner = {**scope, "path": path[len(self._below) - 1 :], "raw_path": None}
        if path != scope["path"] and self._is_known(scope):
            return scope
        return inner if self._is_known(inner) else scope

    def _is_known(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._routes)
