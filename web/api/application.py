"""The API application: its routes, error handlers and OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.datastructures import State

from web.api import batches, dead_letters, events
from web.api.errors import Problem, add_handlers

#: FastAPI records requests by itself where its environment asks for it, with their addresses, and these hold tokens.
#: What we record of traces is in `config.tracing`.
NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
PATH: Final = "/api/v1"
ROUTERS: Final = (events.router, batches.router, dead_letters.router)
_DESCRIPTION: Final = """
Invite the members of a community to an event, and follow what happens.

A client acts for an account of the site: it sees the events of the account's chapters, and may do what its scopes name.
Fields may be added in this version; none is removed.
"""


def build(state: State, prefix: str = "") -> FastAPI:
    """The application to mount at PATH. `state` is that of the application around it: pool, settings, should_stop.

    `prefix` is the path below which the site is reached.
    """
    api = FastAPI(
        title="bidden",
        version="1",
        description=_DESCRIPTION.strip(),
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": prefix + PATH}],
        root_path_in_servers=False,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=NO_TELEMETRY,
    )
    api.state = state
    for router in ROUTERS:
        api.include_router(router)
    add_handlers(api)
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" in schemas:
            return document
        template = "#/components/schemas/{model}"
        problem = Problem.model_json_schema(ref_template=template)
        schemas.update({**problem.pop("$defs"), "Problem": problem})
        return document

    api.openapi = openapi  # type: ignore[method-assign] # as FastAPI documents it
    return api
