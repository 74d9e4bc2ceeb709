"""Wires a worker together: the pipeline with its sender, its composer and its dead-letter producer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from config.clock import now
from config.settings import Settings

if TYPE_CHECKING:
    from streams.records import Heartbeat
    from streams.worker import Worker


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and Ctrl-C set the event. For processes without an event loop."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


async def build_worker(settings: Settings, heartbeat: Heartbeat) -> Worker:
    """A worker with its real adapters. Called in the event loop that will run it."""
    from mail.smtp.sender import SmtpSender
    from streams.dead_letters import DeadLetterProducer
    from streams.pipeline import TemplateComposer
    from streams.worker import Worker

    sender = SmtpSender(
        settings.require_smtp(), connections=settings.smtp_connections, timeout=settings.smtp_timeout_seconds
    )
    return Worker(
        settings,
        sender,
        TemplateComposer(settings.mail_from, settings.base_url, now),
        DeadLetterProducer(settings, now, heartbeat),
        heartbeat,
    )
