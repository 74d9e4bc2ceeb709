"""The system, for admins: consumer lag, servers and health checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import confluent_kafka
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from config.addresses import without_secrets
from config.settings import Settings
from db import checks
from mail.check import check_mail_server
from monitoring import probe
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.topics import Topics
from schemas.errors import BiddenError
from web.auth.current_user import AdminUser
from web.client_addresses import seen_of
from web.dependencies import Config, Database
from web.pages.rendering import fragment, page, plural
from web.single_flight import SingleFlightCache

router = APIRouter(include_in_schema=False)

#: The page asks every 5 s.
_TTL_SECONDS: Final = 4.0
#: The most of the time that a probe runs while somebody looks: the checks read whole tables.
_SHARE: Final = 0.2


class Probe(StrEnum):
    """A question about the system that takes seconds to answer."""

    LAG = "lag"
    SERVERS = "servers"
    DOCTOR = "doctor"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found, or why it found nothing. An outage is worth caching, too."""

    found: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server that bidden needs, and whether it answers."""

    name: str
    ok: bool
    details: tuple[str, ...]


class SystemProbes(SingleFlightCache[Probe, ProbeResult]):
    """The results that all admins of one application share. Nobody waits for a probe that somebody else started."""

    def __init__(self, settings: Settings) -> None:
        run: dict[Probe, Callable[[], Any]] = {
            Probe.LAG: lambda: probe.lag(settings),
            Probe.SERVERS: lambda: (_kafka(settings), _mail(settings)),
            Probe.DOCTOR: lambda: probe.doctor(settings),
        }

        def load(wanted: Probe) -> ProbeResult:
            try:
                return ProbeResult(run[wanted]())
            except BiddenError as error:
                return ProbeResult(problem=error.detail)

        super().__init__(load, _TTL_SECONDS, share=_SHARE)


def _result(request: Request, wanted: Probe) -> ProbeResult | None:
    """None while the first result is awaited."""
    probes: SystemProbes = request.app.state.system_probes
    return probes.get_without_waiting(wanted)


@router.get("/system")
def show_system(user: AdminUser) -> HTMLResponse:
    """The page, which loads the fragments below."""
    return page("system", user=user)


@router.get("/system/lag")
def show_lag(user: AdminUser, request: Request) -> HTMLResponse:
    """Fragment: the lag and the worker of each partition."""
    result = _result(request, Probe.LAG)
    return fragment(request, "lag", title="Consumer lag", back="/system", user=user, result=result)


@router.get("/system/servers")
def show_servers(user: AdminUser, request: Request, conn: Database, config: Config) -> HTMLResponse:
    """Fragment: PostgreSQL, Kafka, the mail server and the dispatchers."""
    result = _result(request, Probe.SERVERS)
    address = without_secrets(config.require_database())
    database = ServerStatus("PostgreSQL", True, (f"version {checks.version(conn)}", f"at {address}"))
    clients = _clients(request, config)
    found = None if result is None else ProbeResult([database, *result.found, clients])
    return fragment(
        request,
        "servers",
        title="Servers",
        back="/system",
        user=user,
        result=found,
        dispatchers=checks.dispatchers(conn),
    )


@router.get("/system/doctor")
def show_checks(user: AdminUser, request: Request) -> HTMLResponse:
    """Fragment: the checks of `bidden doctor`."""
    result = _result(request, Probe.DOCTOR)
    return fragment(request, "checks", title="Health checks", back="/system", user=user, result=result)


def _clients(request: Request, settings: Settings) -> ServerStatus:
    """Whether the site sees clients, or only a proxy: attempts at sign-in are counted by what it sees."""
    seen = seen_of(request.scope)
    details = [f"this request came from {seen.client}" + (f" by {seen.peer}" if seen.peer != seen.client else "")]
    if seen.is_ignored:
        details = [f"a proxy at {seen.peer} names other clients, and is not trusted: set BIDDEN_TRUSTED_PROXIES"]
    details.append(f"proxies at {settings.trusted_proxies} are trusted")
    return ServerStatus("Client addresses", not seen.is_ignored, tuple(details))


def _kafka(settings: Settings) -> ServerStatus:
    client = f"client librdkafka {confluent_kafka.libversion()[0]}"
    try:
        with kafka_errors_translated():
            topics = Topics(settings, PAGE_TIMEOUT_SECONDS)
            brokers = topics.check_reachable()
            names = (settings.invitations_topic, settings.dead_letter_topic)
            ids = {name: topics.topic_id(name) for name in names}
    except BiddenError as error:
        return ServerStatus("Kafka", False, (error.detail, client))
    details = [f"{plural(brokers, 'broker')} at {settings.require_kafka()}"]
    for name, topic_id in ids.items():
        details.append(f"topic {name}, id {topic_id}" if topic_id else f"no topic {name}: run `bidden migrate`")
    return ServerStatus("Kafka", None not in ids.values(), (*details, client))


def _mail(settings: Settings) -> ServerStatus:
    try:
        url = settings.require_smtp()
        impatient = settings.model_copy(
            update={"smtp_timeout_seconds": min(PAGE_TIMEOUT_SECONDS, settings.smtp_timeout_seconds)}
        )
        asyncio.run(check_mail_server(impatient))
    except BiddenError as error:
        return ServerStatus("Mail server", False, (error.detail,))
    return ServerStatus("Mail server", True, (f"at {without_secrets(url)}", f"sends mails as {settings.mail_from}"))
