"""The check of the mail server at a worker's start and by `doctor`: as patient as the settings say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config.settings import Settings
from mail.check import check_mail_server


@pytest.mark.parametrize("seconds", [3, 45])
def test_it_waits_as_long_as_the_settings_say(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that greets after 20 s is no fault where BIDDEN_SMTP_TIMEOUT_SECONDS allows it."""
    given: dict[str, Any] = {}

    class Sender:
        def __init__(self, url: str, **options: Any) -> None:
            given.update(options)

        async def check(self) -> None:
            """All is well."""

        async def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr("mail.check.SmtpSender", Sender)
    values: dict[str, Any] = {"smtp_url": "smtp://mail.test", "smtp_timeout_seconds": seconds, "smtp_hello": "a.test"}
    settings = Settings(**values)
    asyncio.run(check_mail_server(settings))
    assert given == {"connections": 1, "timeout": seconds, "hello": "a.test"}
