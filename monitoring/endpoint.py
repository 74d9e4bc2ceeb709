"""The HTTP endpoint for monitors: GET /metrics, /livez and /readyz, in a daemon thread with an event loop of its own.

It answers from what the process knows, asks no server, and bounds what a monitor can cost: connections, the time of
each, answers in a second, and how often the metrics are written out.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from config.health import Health
from schemas.errors import SettingsError

log = structlog.get_logger()

#: From the connection to the end of its answer, in seconds.
REQUEST_SECONDS: Final = 5.0
#: At once; a further one is closed.
CONNECTIONS: Final = 32
#: Between two answers, in seconds.
_PACE_SECONDS: Final = 0.01
#: The metrics are written out at most so often, in seconds.
_KEPT_SECONDS: Final = 0.5
_LARGEST_REQUEST: Final = 16_384
_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_JSON: Final = "application/json"
#: How the system refuses an address that is not its own.
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Endpoint:
    """Listens from the moment it is made. SettingsError, by the setting's name, where that cannot be."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Health,
        *,
        request_seconds: float = REQUEST_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._health = health
        self._seconds = request_seconds
        self._monotonic = monotonic
        self._socket = listen(host, port)
        self._open = 0
        self._next = 0.0
        #: By the encoder's name: until when it holds, and its text.
        self._written: dict[str, tuple[float, bytes]] = {}
        self.port: int = self._socket.getsockname()[1]

    def start(self) -> None:
        """Answer, until the process ends."""
        threading.Thread(target=self._run, name="monitoring endpoint", daemon=True).start()

    def _run(self) -> None:
        # Not the worker's event loop: a stalled worker must be able to say so.
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_LARGEST_REQUEST)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(self._seconds):
                request = await reader.readuntil(b"\r\n\r\n")
                now = self._monotonic()
                self._next = max(self._next + _PACE_SECONDS, now)
                await asyncio.sleep(self._next - now)
                writer.write(self._answer(request))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Slow, gone, or no HTTP: the monitor's own fault.
            writer.transport.abort()
        finally:
            self._open -= 1

    def _answer(self, request: bytes) -> bytes:
        method, target, headers = parse(request)
        try:
            status, kind, body = self._respond(method, target, headers)
        except Exception:  # a bug in a check must not look like a healthy process, nor end the endpoint
            log.exception("the answer to a monitor failed")
            status, kind, body = 503, _JSON, b'{"status": "failed"}\n'
        head = (
            f"HTTP/1.1 {status} {_STATUS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n" + ("Allow: GET, HEAD\r\n" if status == 405 else "")
        )
        return f"{head}\r\n".encode("ascii") + (b"" if method == "HEAD" else body)

    def _respond(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        match method, target.partition("?")[0]:
            case "", _:
                return 400, _JSON, _status("not HTTP")
            case (("GET" | "HEAD"), "/metrics"):
                return 200, *self._metrics(headers.get("accept", ""))
            case (("GET" | "HEAD"), "/livez"):
                return _health("alive", self._health.not_alive())
            case (("GET" | "HEAD"), "/readyz"):
                return _health("ready", self._health.not_ready())
            case _, ("/metrics" | "/livez" | "/readyz"):
                return 405, _JSON, _status("GET and HEAD only")
            case _:
                return 404, _JSON, _status("there are /metrics, /livez and /readyz")

    def _metrics(self, accept: str) -> tuple[str, bytes]:
        encoder, kind = choose_encoder(accept)
        until, text = self._written.get(kind, (0.0, b""))
        now = self._monotonic()
        if now >= until:
            text = encoder(self._registry)
            self._written = {kind: (now + _KEPT_SECONDS, text)}
        return kind, text


def _health(word: str, problems: Mapping[str, str]) -> tuple[int, str, bytes]:
    if problems:
        return 503, _JSON, _status(f"not {word}", reasons=dict(problems))
    return 200, _JSON, _status(word)


def _status(status: str, **more: object) -> bytes:
    return json.dumps({"status": status, **more}).encode() + b"\n"


def parse(request: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target, and headers by their names in lower case; an empty method where it is no HTTP. Pure."""
    first, *lines = request.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[2].startswith("HTTP/1."):
        return "", "", {}
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return parts[0], parts[1], headers


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. SettingsError names the setting that is wrong."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except (OSError, UnicodeError):
        raise _wrong_host(host) from None
    try:
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if error.errno in _NOT_HERE:
            raise _wrong_host(host) from error
        raise SettingsError(
            f"BIDDEN_METRICS_PORT: cannot listen on {where}: {error.strerror}; end what listens there, or choose "
            "another port",
            field="BIDDEN_METRICS_PORT",
        ) from error


def _wrong_host(host: str) -> SettingsError:
    return SettingsError(
        f"BIDDEN_METRICS_HOST: {host} is no address of this machine; 127.0.0.1 is for monitors on it, 0.0.0.0 for any",
        field="BIDDEN_METRICS_HOST",
    )
