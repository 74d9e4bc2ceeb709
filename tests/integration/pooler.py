"""A stand-in for PgBouncer: clients take turns on one session of PostgreSQL, or each has one of its own."""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

_NO_ENCRYPTION: Final = {80877103, 80877104}
_PARAMETERS: Final = ("server_version", "server_encoding", "client_encoding", "standard_conforming_strings")


class _Wire:
    """One side of a connection, by messages of the protocol."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self._file = wire.makefile("rb")

    def close(self) -> None:
        """The file first, which holds the descriptor."""
        self._file.close()
        self.wire.close()

    def read(self) -> tuple[bytes, bytes]:
        """The kind and the whole message; EOFError at the end."""
        head = self._file.read(5)
        if len(head) < 5:
            raise EOFError
        return head[:1], head + self._file.read(struct.unpack("!i", head[1:])[0] - 4)

    def read_startup(self) -> None:
        """Also declines to encrypt."""
        while True:
            head = self._file.read(8)
            if len(head) < 8:
                raise EOFError
            length, code = struct.unpack("!ii", head)
            self._file.read(length - 8)
            if code not in _NO_ENCRYPTION:
                return
            self.wire.sendall(b"N")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


class _Session:
    """A session of PostgreSQL, used by one transaction at a time."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(
            url, autocommit=True, sslmode="disable", gssencmode="disable", client_encoding="utf8"
        )
        status = self._conn.info.parameter_status
        pairs = ((name, status(name) or "") for name in _PARAMETERS)
        self.greeting = _message(b"R", struct.pack("!i", 0)) + b"".join(
            _message(b"S", f"{name}\0{value}\0".encode()) for name, value in pairs
        )
        self.lock = threading.Lock()
        self.wire = _Wire(socket.socket(fileno=os.dup(self._conn.fileno())))
        self.wire.wire.setblocking(True)

    def close(self) -> None:
        self.wire.close()
        self._conn.close()


@contextmanager
def pooler(url: str, *, shares: bool) -> Iterator[str]:
    """A running pooler for the database; its address. `shares`: in transaction mode, with one session for all."""
    sessions: list[_Session] = []

    class Client(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            client = _Wire(self.request)
            with closing(client), suppress(EOFError, OSError):
                client.read_startup()
                if not (shares and sessions):
                    sessions.append(_Session(url))
                session = sessions[-1]
                # PgBouncer's own key, with which a client may ask it to cancel.
                own = _message(b"K", struct.pack("!ii", 1_000_000 + len(sessions), 7))
                client.wire.sendall(session.greeting + own + _message(b"Z", b"I"))
                while True:
                    self._transaction(client, session)

        @staticmethod
        def _transaction(client: _Wire, session: _Session) -> None:
            asked = client.read()
            with session.lock:
                while True:
                    if asked[0] == b"X":
                        raise EOFError
                    session.wire.wire.sendall(asked[1])
                    if asked[0] in b"QS":
                        answer = b""
                        while answer != b"Z":
                            answer, text = session.wire.read()
                            client.wire.sendall(text)
                        if text[-1:] == b"I":
                            return
                    asked = client.read()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            known = conninfo_to_dict(url)
            yield f"postgresql://{known['user']}:x@127.0.0.1:{server.server_address[1]}/{known['dbname']}"
        finally:
            server.shutdown()
            thread.join()
            for session in sessions:
                session.close()
