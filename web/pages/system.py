"""The machinery: how far the workers are, which servers answer, and what the doctor finds. For admins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import confluent_kafka
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from config.settings import Settings, without_secrets
from db import checks
from mail.check import check_mail_server
from monitoring import probe
from monitoring.kafka import PATIENCE, worded
from producers.topics import Topics
from schemas.errors import BiddenError
from web.auth.current_user import Admin, Database
from web.pages.rendering import page, part
from web.single_flight import SingleFlightCache

router = APIRouter(include_in_schema=False)

#: The page asks every 5 s.
_TTL_SECONDS: Final = 4.0


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
class Server:
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

        super().__init__(load, _TTL_SECONDS)


def _result(request: Request, wanted: Probe) -> ProbeResult | None:
    """None while the first result is awaited."""
    probes: SystemProbes = request.app.state.system_probes
    return probes.get_stale(wanted)


@router.get("/system")
def show_system(viewer: Admin) -> HTMLResponse:
    """The frame; its parts come by themselves."""
    return page("system", viewer=viewer)


@router.get("/system/lag")
def show_lag(viewer: Admin, request: Request) -> HTMLResponse:
    """Per partition what waits and who has it; the workers alive."""
    answer = _result(request, Probe.LAG)
    return part(request, "lag", title="How far the workers are", back="/system", viewer=viewer, answer=answer)


@router.get("/system/servers")
def show_servers(viewer: Admin, request: Request, conn: Database) -> HTMLResponse:
    """PostgreSQL, Kafka, the mail server and the dispatchers."""
    answer = _result(request, Probe.SERVERS)
    settings: Settings = request.app.state.settings
    address = without_secrets(settings.require_database())
    database = Server("PostgreSQL", True, (f"version {checks.version(conn)}", f"at {address}"))
    found = None if answer is None else ProbeResult([database, *answer.found])
    return part(
        request,
        "servers",
        title="Servers",
        back="/system",
        viewer=viewer,
        answer=found,
        dispatchers=checks.dispatchers(conn),
    )


@router.get("/system/doctor")
def show_findings(viewer: Admin, request: Request) -> HTMLResponse:
    """All checks. Takes some seconds; changes nothing."""
    answer = _result(request, Probe.DOCTOR)
    return part(request, "doctor", title="The doctor's findings", back="/system", viewer=viewer, answer=answer)


def _kafka(settings: Settings) -> Server:
    client = f"client librdkafka {confluent_kafka.libversion()[0]}"
    try:
        with worded():
            topics = Topics(settings, PATIENCE)
            brokers = topics.check_reachable()
            names = (settings.invitations_topic, settings.dead_letter_topic)
            ids = {name: topics.topic_id(name) for name in names}
    except BiddenError as error:
        return Server("Kafka", False, (error.detail, client))
    told = [f"topic {name}, id {ids[name]}" if ids[name] else f"no topic {name}: run `bidden migrate`" for name in ids]
    brokers_told = f"{brokers} {'broker' if brokers == 1 else 'brokers'} at {settings.require_kafka()}"
    return Server("Kafka", None not in ids.values(), (brokers_told, *told, client))


def _mail(settings: Settings) -> Server:
    try:
        url = settings.require_smtp()
        hasty = settings.model_copy(update={"smtp_timeout_seconds": min(PATIENCE, settings.smtp_timeout_seconds)})
        asyncio.run(check_mail_server(hasty))
    except BiddenError as error:
        return Server("Mail server", False, (error.detail,))
    return Server("Mail server", True, (f"at {without_secrets(url)}", f"mails come from {settings.mail_from}"))
