"""Serves the application until SIGTERM, Ctrl-C or a closed terminal."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from config.settings import Settings
from config.stop_signals import stop_signals
from schemas.errors import EXIT_DONE, UsageError
from web.app import build
from web.http_protocol import HttpProtocol

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like uvicorn's, but without raising the signal again afterwards: the exit code is 0."""
        for number in stop_signals():
            signal.signal(number, self.handle_exit)
        yield


def serve(settings: Settings, host: str, port: int, *, with_links: bool) -> int:
    """Blocks; returns the exit code. UsageError if it cannot listen on this address."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", field="port") from error
    if os.environ.get("FORWARDED_ALLOW_IPS"):
        log.warning("FORWARDED_ALLOW_IPS is not read: name trusted proxies in BIDDEN_TRUSTED_PROXIES")
    app = build(settings, with_links=with_links)
    config = uvicorn.Config(
        app,
        # Logging is configured already. No access log: addresses contain tokens.
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        http=HttpProtocol,
        # `web.client_addresses` knows which proxies to trust.
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    name = f"[{host}]" if ":" in host else host
    log.info("the web application is up", address=f"http://{name}:{listener.getsockname()[1]}")
    server = _Server(config)
    app.state.should_stop = lambda: server.should_exit
    server.run(sockets=[listener])
    return EXIT_DONE
