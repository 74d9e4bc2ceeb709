"""Fuzzes the API from its OpenAPI document, with requests that match it and requests that do not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

import hypothesis.strategies as st
import pytest
import schemathesis
from confluent_kafka import Producer
from hypothesis import given
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

from config.kafka import client_config
from producers.topics import Topics
from schemas.outcomes import Failed, Sent, Unknown
from tests.conftest import quick_settings
from tests.fuzzing import fuzz
from tests.integration.api_routes import ROUTES
from tests.integration.calling import PATH
from tests.integration.scenario import Scenario
from tests.integration.site import open_site
from tests.servers import Servers
from web.auth.api_clients import ApiScope, create_client

EXAMPLES: Final = 25
#: Opening a Kafka client takes time.
KAFKA_EXAMPLES: Final = 5
#: Ids that exist, so that not all examples get 404.
KNOWN: Final[dict[str, Any]] = {"event": 1, "batch": 1, "member": 3, "partition": 0, "offset": 0}


class _Running:
    """The application of a running site, which schemathesis must not start or stop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})


@pytest.fixture
def kafka(real_servers: Servers) -> dict[str, Any]:
    """Topics with two dead letters."""
    values = {"kafka_bootstrap": real_servers.kafka, "topic_prefix": f"api-{uuid.uuid4().hex[:8]}"}
    settings = quick_settings("api", **values)
    Topics(settings).create()
    producer = Producer(client_config(settings, "test"), logger=None)
    for value in (b"\xff\x00", None):
        producer.produce(
            settings.dead_letter_topic, value, b"\xff", headers=[("bidden-reason", b"\xff[/]"), ("x", None)]
        )
    assert producer.flush(30) == 0
    return values


@pytest.fixture
def api(scenario: Scenario, database_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    """The API with a batch that has every outcome, and an admin's token with every scope."""
    kafka = request.getfixturevalue("kafka") if "dead-letters" in request.node.name else {}
    scenario.build(students=[1, 2, 3], coaches=[4], both=[5])
    agent = scenario.agent()
    batch = scenario.plan("everyone")
    for member_id, outcome in ((1, Sent("250 ok")), (2, Failed("550 no")), (3, Unknown("lost"))):
        agent.deliver(scenario.request(batch, member_id), outcome)
    with open_site(database_url, scenario.conn, **kafka) as site:
        account = site.account("ada@bidden.example", "admin")
        made = create_client(
            scenario.conn,
            "Ada",
            name="fuzz",
            account_id=account,
            scopes=[scope.value for scope in ApiScope],
            webhook_url="https://localhost:1/",
            allow_private=True,
        )
        yield schemathesis.openapi.from_asgi(f"{PATH}/openapi.json", _Running(site.app)), made.token


# The connection pool uses `random` in another thread, which hypothesis would take for a strategy's.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize(("method", "path"), sorted(ROUTES), ids=lambda word: word.strip("/"))
def test_a_route(api: tuple[Any, str], method: str, path: str) -> None:
    """FM-32: no 500; responses and errors as documented; exactly the documented requests are accepted."""
    schema, token = api
    operation = schema[path][method]
    known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in path}
    cases = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if known:
        cases.append(operation.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters=known))
    if known or method == "POST" or path in ("/events", "/batches"):
        cases.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @fuzz(KAFKA_EXAMPLES if "dead-letters" in path else EXAMPLES)
    @given(case=st.one_of(cases))
    def check(case: Case[Any]) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        response = case.call(headers=headers)
        # The document cannot express that a key was used before.
        is_reused = response.status_code == 422 and "another event or audience" in response.text
        case.validate_response(
            response, excluded_checks=[positive_data_acceptance] if is_reused else [], headers=headers
        )

    check()
