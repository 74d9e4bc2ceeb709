"""Mails of the site itself, to its users: one at a time by the site's mail server, a few of them at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from config.settings import Settings
from mail.sender import send
from mail.smtp.sender import SmtpSender
from schemas.envelope import Envelope
from schemas.errors import RefusedError, UnreachableError
from schemas.send_results import Accepted, Refused, Throttled, Undecided

#: For each reply of the mail server, and for the whole mail.
_REPLY_SECONDS: Final = 5.0
_MAIL_SECONDS: Final = 15.0
#: Each holds a database connection while it waits for the mail server: this many of the pool at most.
_sending: Final = threading.BoundedSemaphore(3)


def can_mail_links(settings: Settings) -> bool:
    """Whether the site has a mail server, and knows its public address: a link must lead to it."""
    return settings.smtp_url is not None and "base_url" in settings.model_fields_set


@contextmanager
def turn(seconds: float = 0.0) -> Iterator[None]:
    """Waits for so long to be one of the few who send. UnreachableError if others still do."""
    if not _sending.acquire(timeout=seconds):
        raise UnreachableError("other mails are waiting for the mail server: try again in a moment")
    try:
        yield
    finally:
        _sending.release()


def deliver(settings: Settings, envelope: Envelope) -> str:
    """The mail server's reply. RefusedError or UnreachableError, with its reply where there is one. In a `turn`."""
    return asyncio.run(_send(settings, envelope))


async def _send(settings: Settings, envelope: Envelope) -> str:
    sender = SmtpSender(
        settings.require_smtp(),
        connections=1,
        timeout=min(_REPLY_SECONDS, settings.smtp_timeout_seconds),
        drain=0.1,
        hello=settings.smtp_hello,
    )
    try:
        async with asyncio.timeout(_MAIL_SECONDS):
            await sender.check()
            outcome = await send(sender, envelope)
    except TimeoutError as error:
        raise UnreachableError("the mail server did not answer in time") from error
    finally:
        await sender.close()
    if isinstance(outcome, Accepted):
        return outcome.reply
    if isinstance(outcome, Refused | Throttled | Undecided):
        raise RefusedError(f"the mail server refused it: {outcome.reply}")
    raise UnreachableError(outcome.reason)
