"""Whether mail can be sent at all: asked at the start of a worker, by `bidden doctor` and by the site."""

from __future__ import annotations

from config.settings import Settings
from mail.compose import check_settings
from mail.smtp.sender import SmtpSender


async def check_mail_server(settings: Settings) -> None:
    """SettingsError when no mail could be composed, UnreachableError when the mail server refuses the session."""
    check_settings(settings.mail_from, settings.base_url)
    sender = SmtpSender(settings.require_smtp(), connections=1, timeout=min(10.0, settings.smtp_timeout_seconds))
    try:
        await sender.check()
    finally:
        await sender.close()
