"""What a task of each queue does, for queues that run tasks in threads or processes."""

from __future__ import annotations

import os
import smtplib
import threading
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg

from bench.stages import sample_mail, sample_template
from schemas.envelope import Envelope

DATABASE = os.environ.get("BENCH_DATABASE_URL", "")
SMTP = os.environ.get("BENCH_SMTP_URL", "")
REDIS = os.environ.get("BENCH_REDIS_URL", "")

_local = threading.local()


class Mailer:
    """A connection to the mail server and one to PostgreSQL, both kept; one for each thread that runs tasks."""

    def __init__(self) -> None:
        address = urlsplit(SMTP)
        self._template = sample_template()
        self._smtp = smtplib.SMTP(address.hostname or "127.0.0.1", address.port or 25)
        self._smtp.ehlo()
        self._conn = psycopg.connect(DATABASE, autocommit=True)

    def invite(self, member: int) -> None:
        """Sends the member's mail and stores the result, as such tasks do: a commit for each."""
        mail = sample_mail(self._template, member, datetime.now(UTC))
        self._send(mail)
        self._conn.execute("INSERT INTO queue_log (id, status) VALUES (%s, 'sent')", (member,))

    def _send(self, mail: Envelope) -> None:
        """With PIPELINING, which smtplib does not use by itself."""
        smtp = self._smtp
        smtp.send(f"MAIL FROM:<{mail.sender}>\r\nRCPT TO:<{mail.recipient}>\r\nDATA\r\n")
        for expected in (250, 250, 354):
            code, text = smtp.getreply()
            if code != expected:
                raise smtplib.SMTPResponseException(code, text)
        smtp.send(mail.data + b".\r\n")
        code, text = smtp.getreply()
        if code != 250:
            raise smtplib.SMTPResponseException(code, text)


def invite(member: int) -> None:
    """As `Mailer.invite`, with this thread's connections."""
    if not hasattr(_local, "mailer"):
        _local.mailer = Mailer()
    _local.mailer.invite(member)
