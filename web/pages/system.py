"""The machinery: how far the workers are, which servers answer, and what the doctor finds. For admins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import confluent_kafka
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from config.settings import Settings, without_secrets
from db import checks
from mail.check import check_mail_server
from monitoring import probe
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.topics import Topics
from schemas.errors import BiddenError
from web.auth.current_user import Admin, Database
from web.lately import Lately
from web.pages.rendering import page, part

router = APIRouter(include_in_schema=False)

#: How long an answer is good enough. The page asks every 5 s.
_FRESH_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What was heard, or in words why nothing was."""

    found: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """One of those that we need: does it answer, and what there is to say about it."""

    name: str
    ok: bool
    details: tuple[str, ...]


class System:
    """What was heard lately, for all who look at the pages of one application."""

    def __init__(self, settings: Settings) -> None:
        self.lag = _lately(lambda: probe.lag(settings))
        self.servers = _lately(lambda: (_kafka(settings), _mail(settings)))
        self.doctor = _lately(lambda: probe.doctor(settings))


def _system(request: Request) -> System:
    return cast("System", request.app.state.system)


@router.get("/system")
def show_system(viewer: Admin) -> HTMLResponse:
    """The frame; its parts come by themselves."""
    return page("system", viewer=viewer)


@router.get("/system/lag")
def show_lag(viewer: Admin, request: Request) -> HTMLResponse:
    """Per partition what waits and who has it; the workers alive."""
    answer = _system(request).lag.answer()
    return part(request, "lag", title="How far the workers are", back="/system", viewer=viewer, answer=answer)


@router.get("/system/servers")
def show_servers(viewer: Admin, request: Request, conn: Database) -> HTMLResponse:
    """PostgreSQL, Kafka, the mail server and the dispatchers."""
    answer = _system(request).servers.answer()
    settings: Settings = request.app.state.settings
    address = without_secrets(settings.require_database())
    database = Server("PostgreSQL", True, (f"version {checks.version(conn)}", f"at {address}"))
    found = None if answer is None else Answer([database, *answer.found])
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
    answer = _system(request).doctor.answer()
    return part(request, "doctor", title="The doctor's findings", back="/system", viewer=viewer, answer=answer)


def _lately(ask: Callable[[], Any]) -> Lately[Answer]:
    def worded_answer() -> Answer:
        try:
            return Answer(ask())
        except BiddenError as error:
            return Answer(problem=error.detail)

    return Lately(worded_answer, _FRESH_SECONDS)


def _kafka(settings: Settings) -> Server:
    client = f"client librdkafka {confluent_kafka.libversion()[0]}"
    try:
        with kafka_errors_translated():
            topics = Topics(settings, PAGE_TIMEOUT_SECONDS)
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
        hasty = settings.model_copy(
            update={"smtp_timeout_seconds": min(PAGE_TIMEOUT_SECONDS, settings.smtp_timeout_seconds)}
        )
        asyncio.run(check_mail_server(hasty))
    except BiddenError as error:
        return Server("Mail server", False, (error.detail,))
    return Server("Mail server", True, (f"at {without_secrets(url)}", f"mails come from {settings.mail_from}"))
