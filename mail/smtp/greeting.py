"""Whether a mail server is there, asked with as little as can be: a connection, and its greeting where it is not TLS.

For monitors of an idle worker. No log-in, no mail: a server that counts sessions or log-ins is asked for neither.
"""

from __future__ import annotations

import socket

from mail.smtp.url import Tls, parse


def is_greeted(url: str, seconds: float) -> bool:
    """Whether the server of BIDDEN_SMTP_URL takes a connection, in so many seconds for each step. Blocks."""
    server = parse(url)
    try:
        with socket.create_connection((server.host, server.port), timeout=seconds) as connection:
            if server.tls is Tls.IMPLICIT:
                return True
            greeting = connection.recv(512)
            if greeting[:3] != b"220":
                return False
            connection.sendall(b"QUIT\r\n")
            # Its goodbye: else it would note a connection that was lost.
            connection.recv(512)
            return True
    except (OSError, UnicodeError):
        return False
