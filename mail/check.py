"""Whether mail can be sent at all: asked at the start of a worker, by `bidden doctor` and by the site."""

from __future__ import annotations

from config.settings import Settings
from mail.smtp.sender import SmtpSender


async def check_mail_server(settings: Settings) -> None:
    """UnreachableError when the mail server refuses the session; SettingsError for a senseless BIDDEN_SMTP_URL."""
    sender = SmtpSender(
        settings.require_smtp(),
        connections=1,
        timeout=settings.smtp_timeout_seconds,
        hello=settings.smtp_hello,
    )
    try:
        await sender.check()
    finally:
        await sender.close()
