"""Security headers of every response: nothing is loaded from other sites, nothing framed, no address leaked."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Addresses contain tokens: neither caches nor search engines may keep these pages.
    "X-Robots-Tag": "noindex, nofollow",
}
#: The status of Starlette's redirect to a path with or without a slash at its end. It is built from the Host that the
#: client sent; the site itself redirects by 303, to paths.
_BY_THE_ROUTER: Final = 307
_ONE_YEAR: Final = 31_536_000


def _local(url: str) -> str:
    """The path and query of a URL of this site."""
    return urlsplit(url)._replace(scheme="", netloc="").geturl().replace("//", "/", 1) or "/"


def set_headers(headers: MutableHeaders, *, https: bool) -> None:
    """Sets the headers that the response does not have yet."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")
    if https:
        headers.setdefault("Strict-Transport-Security", f"max-age={_ONE_YEAR}")


class SecurityHeaders:
    """Middleware. `https`: whether to send Strict-Transport-Security."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == _BY_THE_ROUTER and "location" in headers:
                    headers["location"] = _local(headers["location"])
                set_headers(headers, https=self._https)
            await send(message)

        await self._app(scope, receive, send_with_headers)
