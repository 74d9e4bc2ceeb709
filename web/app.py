"""The web application: routes, error handlers and middleware, over one pool of database connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from config.setting_forms import proxy_networks
from config.settings import Settings
from web import base_path, body_limits, health
from web.api import application
from web.auth import oidc, password_reset, sign_in
from web.auth.rights import require_rights
from web.client_addresses import TrustedProxies
from web.database import make_pool
from web.head_requests import HeadAsGet
from web.pages import (
    accounts,
    api_clients,
    audit_log,
    audits,
    batches,
    dead_letters,
    directory,
    errors,
    event_refs,
    events,
    invitation_links,
    mail,
    members,
    send_rate,
    system,
)
from web.pages.rendering import FOLDER
from web.progress import progress_cache
from web.security_headers import SecurityHeaders
from web.webhooks import run_dispatcher

#: The pages. Each route's dependencies say who may use it.
ROUTERS: Final = (
    sign_in.router,
    password_reset.router,
    events.router,
    audits.router,
    batches.router,
    mail.router,
    members.router,
    dead_letters.router,
    system.router,
    send_rate.router,
    directory.router,
    accounts.router,
    api_clients.router,
    audit_log.router,
    event_refs.router,
)


def build(settings: Settings, *, with_links: bool = True) -> FastAPI:
    """The application for these settings. `with_links`: whether it serves the links in mails."""
    pool = make_pool(settings.require_database())
    prefix = base_path.of_url(settings.base_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.open()
        try:
            async with (
                run_dispatcher(pool, allow_private=settings.webhook_allow_private),
                health.show_turns(lambda: app.state.should_stop()),
            ):
                yield
        finally:
            pool.close()

    app = FastAPI(
        title="bidden",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=application.NO_TELEMETRY,
    )
    app.state.pool = pool
    app.state.settings = settings
    app.state.progress_cache = progress_cache(pool, settings.send_rates)
    app.state.system_probes = system.SystemProbes(settings)
    app.state.waiting_letters = dead_letters.WaitingLetters(pool, settings)
    app.state.https = urlsplit(settings.base_url).scheme == "https"
    #: Polled by streams. The server replaces it.
    app.state.should_stop = lambda: False
    app.add_middleware(
        body_limits.BodyLimits,
        default=body_limits.DEFAULT,
        by_path={directory.PATH: directory.UPLOAD_LIMIT},
        before=require_rights,
    )
    app.add_middleware(SecurityHeaders, https=app.state.https)
    app.add_middleware(base_path.BasePath, prefix=prefix, routes=app.router.routes)
    app.add_middleware(HeadAsGet)
    # Added last, so the first to see a request.
    app.add_middleware(TrustedProxies, trusted=proxy_networks(settings.trusted_proxies))
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.router.routes.append(_api(application.build(app.state, prefix)))
    oidc_routers = [oidc.routes(settings)] if settings.oidc_issuer else []
    for router in (*ROUTERS, *oidc_routers, *([invitation_links.router] if with_links else [])):
        app.include_router(router)

    app.get("/healthz", include_in_schema=False)(health.check(pool))

    errors.add_handlers(app)
    return app


def _api(api: FastAPI) -> Mount:
    """Every address below the API's, also one with a line break, so that the API responds to it and no page."""
    mount = Mount(application.PATH, api, name="api")
    mount.path_regex = re.compile(mount.path_regex.pattern, re.DOTALL)
    return mount
