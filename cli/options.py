"""Options and arguments that several commands share, and the settings that their help lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import click

from schemas.errors import UsageError
from schemas.event_fields import EventName, parse_event_name

#: The actor of a command in the audit log.
ACTOR: Final = "command line"

#: The settings that a command reads, for its help.
DATABASE_SETTINGS: Final = ("BIDDEN_DATABASE_URL",)
KAFKA_SETTINGS: Final = (
    "BIDDEN_GROUP", "BIDDEN_KAFKA_BOOTSTRAP", "BIDDEN_KAFKA_SECURITY_PROTOCOL", "BIDDEN_KAFKA_SASL_MECHANISM",
    "BIDDEN_KAFKA_SASL_USERNAME", "BIDDEN_KAFKA_SASL_PASSWORD", "BIDDEN_KAFKA_CA_FILE",
    "BIDDEN_KAFKA_CERT_FILE", "BIDDEN_KAFKA_KEY_FILE", "BIDDEN_KAFKA_KEY_PASSWORD",
    "BIDDEN_TOPIC_PREFIX",
)  # fmt: skip
SOURCE_SETTINGS: Final = (
    "BIDDEN_SOURCE_URL", "BIDDEN_SOURCE_FILE", "BIDDEN_SOURCE_TIME_ZONE", "BIDDEN_SOURCE_MAX_AGE",
    "BIDDEN_SOURCE_WRITER_URL",
    "BIDDEN_ROLE_POLICY",
)  # fmt: skip
#: Of processes that run until they are stopped.
MONITORING_SETTINGS: Final = ("BIDDEN_METRICS_PORT", "BIDDEN_METRICS_HOST")
RATE_SETTINGS: Final = ("BIDDEN_SEND_RATE", "BIDDEN_SEND_RATE_DOMAIN", "BIDDEN_SEND_WARMUP")
WORKER_SETTINGS: Final = (
    "BIDDEN_KAFKA_GROUP_PROTOCOL",
    "BIDDEN_SMTP_URL", "BIDDEN_SMTP_CONNECTIONS", "BIDDEN_SMTP_TIMEOUT_SECONDS", "BIDDEN_SMTP_HELLO",
    "BIDDEN_MAIL_FROM", "BIDDEN_BASE_URL", "BIDDEN_LEASE_SECONDS", "BIDDEN_RETRY_FOR", "BIDDEN_MAX_ATTEMPTS",
    "BIDDEN_RETRY_BASE_SECONDS", "BIDDEN_RETRY_MAX_SECONDS", "BIDDEN_UNKNOWN_POLICY", "BIDDEN_HANDOVER_WINDOW",
    "BIDDEN_MAX_WORKER_ENDS", "BIDDEN_STATE_DIR", *RATE_SETTINGS,
)  # fmt: skip
SITE_SETTINGS: Final = (
    "BIDDEN_BASE_URL", "BIDDEN_SMTP_URL", "BIDDEN_SMTP_TIMEOUT_SECONDS", "BIDDEN_SMTP_HELLO", "BIDDEN_MAIL_FROM",
    "BIDDEN_MAX_ATTEMPTS", "BIDDEN_UNKNOWN_POLICY", "BIDDEN_ROLE_POLICY", "BIDDEN_OIDC_ISSUER",
    "BIDDEN_OIDC_CLIENT_ID", "BIDDEN_OIDC_CLIENT_SECRET", "BIDDEN_OIDC_NAME", "BIDDEN_TRUSTED_PROXIES",
    "BIDDEN_WEBHOOK_ALLOW_PRIVATE", *RATE_SETTINGS,
)  # fmt: skip

_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_POSITION: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")


def environment(*groups: tuple[str, ...]) -> str:
    """The epilog of a command's help: the settings that it reads."""
    names = [name for group in groups for name in group]
    return "Environment: " + ", ".join([*names, "BIDDEN_HOME", "BIDDEN_LOG_FORMAT"])


class Id(click.ParamType):
    """An id as the database has it, in plain digits."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """UsageError names the argument or option."""
        if isinstance(value, str) and _DIGITS.fullmatch(value) and 1 <= int(value) < 2**63:
            return int(value)
        name = (param.name if param is not None else None) or "the id"
        raise UsageError(f"{name} must be a positive 64-bit number", field=name)


class Event(click.ParamType):
    """An event by its id or its reference: `db.events.resolve` finds it."""

    name = "id or ref"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> EventName:
        """UsageError if it is neither."""
        try:
            return parse_event_name(str(value))
        except ValueError as error:
            raise UsageError(f"event is neither an id nor a ref: it {error}", field="event") from None


#: A click argument that names an event.
event_argument: Final = click.argument("event", type=Event())


def id_argument(name: str) -> Callable[[Any], Any]:
    """A click argument that holds an id."""
    return click.argument(name, type=Id())


def parse_position(text: str, field: str) -> tuple[int, int]:
    """Partition and offset from a text such as `0:17`; UsageError names the field."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a partition and an offset, such as 0:17", field=field)
    return int(match[1]), int(match[2])


#: For processes that run until they are stopped: their output is their logs.
json_logs_option = click.option("--json", "as_json", is_flag=True, help="Write the logs as JSON Lines.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
