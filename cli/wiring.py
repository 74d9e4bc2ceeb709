"""Wires a worker together: the pipeline with its sender, its composer and its dead-letter producer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from config import collector
from config.clock import now
from config.settings import Settings

if TYPE_CHECKING:
    from mail.sender import Sender
    from streams.records import Heartbeat
    from streams.worker import Worker

#: Makes a worker's sender, inside the event loop that will run it.
SenderFactory: TypeAlias = "Callable[[Settings], Sender]"


def smtp_sender(settings: Settings) -> Sender:
    """The sender for BIDDEN_SMTP_URL."""
    from mail.smtp.sender import SmtpSender

    return SmtpSender(
        settings.require_smtp(),
        connections=settings.smtp_connections,
        timeout=settings.smtp_timeout_seconds,
        hello=settings.smtp_hello,
    )


async def build_worker(settings: Settings, heartbeat: Heartbeat, make_sender: SenderFactory = smtp_sender) -> Worker:
    """A worker with its real adapters. Called in the event loop that will run it.

    Another `make_sender` replaces SMTP by a sender of one's own: see examples/own_sender.py.
    """
    from streams.claim_log import KafkaClaimLog
    from streams.composer import TemplateComposer
    from streams.dead_letters import DeadLetterProducer
    from streams.restore_check import RestoreCheck
    from streams.worker import Worker

    worker = Worker(
        settings,
        make_sender(settings),
        TemplateComposer(settings.mail_from, settings.base_url, now),
        DeadLetterProducer(settings, now, heartbeat),
        heartbeat,
        KafkaClaimLog(settings),
        RestoreCheck(settings),
    )
    collector.settle()
    return worker
