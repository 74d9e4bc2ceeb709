"""The usual form of such a job, measured in the same run: per mail one EmailMessage, one connection, one commit."""

from __future__ import annotations

import smtplib
import time
from email.message import EmailMessage
from email.utils import make_msgid
from urllib.parse import urlsplit

from bench.environment import Environment
from db.connect import connect


def naive_loop(environment: Environment, mails: int, *, keep_connection: bool) -> float:
    """Mails per second of a loop that builds an EmailMessage, sends it with smtplib and commits a log row."""
    address = urlsplit(environment.settings.require_smtp())
    host, port = address.hostname or "127.0.0.1", address.port or 25
    with connect(environment.database_url) as conn:
        conn.execute("CREATE TABLE naive_log (id bigint PRIMARY KEY, status text)")
        conn.commit()
        server = smtplib.SMTP(host, port) if keep_connection else None
        start = time.perf_counter()
        for n in range(mails):
            message = EmailMessage()
            message["From"], message["To"] = "invitations@bidden.example", f"ada{n}@bidden.example"
            message["Subject"], message["Message-ID"] = "Workshop Invitation", make_msgid(domain="bidden.example")
            message.set_content("Hello Ada\n" * 40)
            message.add_alternative("<p>Hello Ada</p>\n" * 40, subtype="html")
            if server is not None:
                server.send_message(message)
            else:
                with smtplib.SMTP(host, port) as once:
                    once.send_message(message)
            conn.execute("INSERT INTO naive_log VALUES (%s, 'sent')", (n,))
            conn.commit()
        seconds = time.perf_counter() - start
        if server is not None:
            server.quit()
        conn.execute("DROP TABLE naive_log")
    return mails / seconds
