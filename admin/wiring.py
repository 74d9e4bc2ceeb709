"""Puts the parts together: settings, clocks, logs, the worker with its sender and its dead letters."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from admin.logs import set_up_logs
from schemas.errors import UsageError
from schemas.settings import Settings

if TYPE_CHECKING:
    from streams.records import Pulse
    from streams.worker import Worker

#: Who has done what a command does, in the trail.
COMMAND_LINE = "command line"

#: What each command reads from the environment, for its help.
DATABASE = ("BIDDEN_DATABASE_URL",)
KAFKA = ("BIDDEN_GROUP", "BIDDEN_KAFKA_BOOTSTRAP", "BIDDEN_KAFKA_SECURITY_PROTOCOL", "BIDDEN_KAFKA_SASL_MECHANISM",
         "BIDDEN_KAFKA_SASL_USERNAME", "BIDDEN_KAFKA_SASL_PASSWORD", "BIDDEN_KAFKA_CA_FILE",
         "BIDDEN_TOPIC_PREFIX")  # fmt: skip
WORKER = ("BIDDEN_SMTP_URL", "BIDDEN_SMTP_CONNECTIONS", "BIDDEN_SMTP_TIMEOUT_SECONDS",
          "BIDDEN_MAIL_FROM", "BIDDEN_BASE_URL", "BIDDEN_LEASE_SECONDS", "BIDDEN_MAX_ATTEMPTS",
          "BIDDEN_RETRY_BASE_SECONDS", "BIDDEN_RETRY_MAX_SECONDS", "BIDDEN_UNKNOWN_POLICY",
          "BIDDEN_HANDOVER_WINDOW")  # fmt: skip
SITE = ("BIDDEN_BASE_URL", "BIDDEN_SMTP_URL", "BIDDEN_SMTP_TIMEOUT_SECONDS", "BIDDEN_MAIL_FROM", "BIDDEN_MAX_ATTEMPTS",
        "BIDDEN_UNKNOWN_POLICY", "BIDDEN_OIDC_ISSUER", "BIDDEN_OIDC_CLIENT_ID", "BIDDEN_OIDC_CLIENT_SECRET",
        "BIDDEN_OIDC_NAME")  # fmt: skip


_DIGITS: Final = re.compile(r"[0-9]{1,19}")


def now() -> datetime:
    """The clock that is injected everywhere below."""
    return datetime.now(UTC)


def environment(*groups: tuple[str, ...]) -> str:
    """The epilog of a command's help."""
    names = [name for group in groups for name in group]
    return "Environment: " + ", ".join([*names, "BIDDEN_HOME", "BIDDEN_LOG_FORMAT"])


def load(*, logs_as_json: bool = False) -> Settings:
    """The settings, and logs set up as they say."""
    settings = Settings.load()
    if logs_as_json:
        settings = settings.model_copy(update={"log_format": "json"})
    set_up_logs(settings)
    return settings


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and Ctrl-C set the event, for processes without an event loop."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


async def build_worker(settings: Settings, pulse: Pulse) -> Worker:
    """A worker with its real adapters. Called in the event loop that will run it."""
    from mail.smtp import SmtpSender
    from streams.dead_letters import KafkaDeadLetters
    from streams.take import SkeletonComposer
    from streams.worker import Worker

    sender = SmtpSender(
        settings.require_smtp(), connections=settings.smtp_connections, timeout=settings.smtp_timeout_seconds
    )
    return Worker(
        settings,
        sender,
        SkeletonComposer(settings.mail_from, settings.base_url, now),
        KafkaDeadLetters(settings, now, pulse),
        pulse,
    )


async def check_mail_server(settings: Settings) -> None:
    """SettingsError when no mail could be made, UnreachableError when the mail server does not let us in."""
    from mail.compose import check_settings
    from mail.smtp import SmtpSender

    check_settings(settings.mail_from, settings.base_url)
    sender = SmtpSender(settings.require_smtp(), connections=1, timeout=min(10.0, settings.smtp_timeout_seconds))
    try:
        await sender.check()
    finally:
        await sender.close()


class Id(click.ParamType):
    """An id as the database holds it, in plain digits."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """UsageError names the argument or option."""
        if isinstance(value, str) and _DIGITS.fullmatch(value) and 1 <= int(value) < 2**63:
            return int(value)
        name = (param.name if param is not None else None) or "the id"
        raise UsageError(f"{name} must be a 64-bit id, counted from 1", field=name)


def identity(name: str) -> Callable[[Any], Any]:
    """A click argument that holds an id."""
    return click.argument(name, type=Id())


#: For processes that run until stopped: what they have to say are their logs.
json_logs_option = click.option("--json", "as_json", is_flag=True, help="Write the logs as JSON lines.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
