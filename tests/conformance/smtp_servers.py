"""Mail servers for the senders' conformance suite: an independent real one, and one that misbehaves on demand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from mail.sender import Sender
from mail.smtp.sender import SmtpSender


@dataclass(frozen=True, slots=True)
class Mail:
    """What a server accepted."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes


class Server(Protocol):
    """A mail server that can go away and come back on the same port.

    All refuse recipients that begin with `refused` (for good) or `later` (for now).
    """

    mails: list[Mail]
    #: Its words when it has accepted a mail (which is given its number), refused one for good, and for now.
    accepted: str
    refused: str
    put_off: str

    @property
    def url(self) -> str: ...
    def sender(self, connections: int = 10) -> Sender:
        """A sender for this server, as a worker has one."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class _Listening:
    """A listening socket that keeps its port over restarts, and knows its connections."""

    accepted = "250 2.0.0 kept as {}"
    refused = "550 5.1.1 no such mailbox"
    put_off = "451 4.7.1 try later"

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def sender(self, connections: int = 10) -> SmtpSender:
        return SmtpSender(self.url, connections, timeout=5.0, hello="tests.test")

    async def _listen(self, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(factory, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _deaf(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class AiosmtpdServer(_Listening):
    """aiosmtpd: a third party's server. It offers no PIPELINING."""

    def __init__(self, tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None, **options: Any) -> None:
        super().__init__()
        self._login = login
        self._tls = tls
        self._options = options
        self._protocols: list[SMTP] = []

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("later"):
            return "451 4.7.1 try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(Mail(envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
        return f"250 2.0.0 kept as {len(self.mails)}"

    def _authenticate(self, server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert self._login is not None
        assert isinstance(data, LoginPassword)
        good = (data.login.decode(), data.password.decode()) == self._login
        return AuthResult(success=good, handled=False)

    def _protocol(self) -> SMTP:
        options = dict(self._options)
        if self._login is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True}
        protocol = SMTP(
            self,
            hostname="mail.test",
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            **options,
        )
        self._protocols.append(protocol)
        return protocol

    async def start(self) -> None:
        await self._listen(self._protocol, None)

    async def stop(self) -> None:
        await self._deaf()
        for protocol in self._protocols:
            handler = protocol._handler_coroutine
            if protocol.transport is not None:
                protocol.transport.abort()
            if handler is not None:
                handler.cancel()
                await asyncio.gather(handler, return_exceptions=True)
        self._protocols.clear()


@dataclass(frozen=True, slots=True)
class Act:
    """What a scripted server does at a point instead of its usual answer.

    It says something (or nothing), then goes on, hangs up, or falls silent for ever. A mail that it `keeps` is
    taken whatever is said.
    """

    say: bytes = b""
    then: str = "go on"
    keeps: bool = False


DROP = Act(then="drop")
HANG = Act(then="hang")
TAKE_AND_DROP = Act(then="drop", keeps=True)
TAKE_AND_HANG = Act(then="hang", keeps=True)

#: The points at which a script may step in, besides the name of any command.
GREETING, BODY_BEGINS, BODY = "greeting", "body begins", "body"
Script = Callable[[str, int, int], "Act | bytes | None"]


@dataclass
class Connection:
    """What one connection said."""

    number: int
    commands: list[str] = field(default_factory=list)
    mails: int = 0


class ScriptedServer(_Listening):
    """Speaks SMTP by hand. `script(point, connection, mail)` may replace any answer, or end the connection.

    Connections and mails are counted from 1, mails within their connection.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        offers: Sequence[str] = ("PIPELINING", "8BITMIME", "SMTPUTF8"),
        byte_by_byte: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self.script = script or (lambda point, connection, mail: None)
        self.offers = offers
        self.byte_by_byte = byte_by_byte
        self.connections: list[Connection] = []
        #: How many connections fell silent.
        self.hung = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def factory() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), self._accept, loop=loop)

        await self._listen(factory, self._tls)

    async def stop(self) -> None:
        await self._deaf()
        await self.drop_all()

    async def drop_all(self) -> None:
        """Drops every connection, as a restarting server does."""
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        self._writers.add(writer)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(len(self.connections) + 1)
        self.connections.append(connection)
        try:
            await self._talk(connection, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, EOFError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _talk(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def choose(point: str, usual: bytes) -> Act:
            act = self.script(point, connection.number, connection.mails)
            return Act(usual) if act is None else Act(act) if isinstance(act, bytes) else act

        async def perform(act: Act) -> bytes:
            step = 1 if self.byte_by_byte else max(len(act.say), 1)
            for start in range(0, len(act.say), step):
                writer.write(act.say[start : start + step])
                await writer.drain()
                await asyncio.sleep(0)
            if act.then == "drop":
                # What was said must arrive before the end does.
                writer.close()
                await writer.wait_closed()
                raise EOFError
            if act.then == "hang":
                self.hung += 1
                await reader.read()
                raise EOFError
            return act.say

        async def answer(point: str, usual: bytes) -> bytes:
            """Does what the script says, or else the usual; returns the reply."""
            return await perform(choose(point, usual))

        await answer(GREETING, b"220 mail.test ESMTP\r\n")
        sender, recipients = "", list[str]()
        while line := await reader.readline():
            command = line.decode().rstrip("\r\n")
            connection.commands.append(command)
            verb = command.partition(" ")[0].upper()
            if verb == "EHLO":
                lines = ["mail.test at your service", *self.offers]
                last = len(lines) - 1
                text = "".join(f"250{' ' if i == last else '-'}{each}\r\n" for i, each in enumerate(lines))
                await answer(verb, text.encode())
            elif verb == "MAIL":
                connection.mails += 1
                recipients = []
                sender = (
                    command.partition("<")[2].partition(">")[0]
                    if (await answer(verb, b"250 2.1.0 ok\r\n")).startswith(b"2")
                    else ""
                )
            elif verb == "RCPT":
                address = command.partition("<")[2].partition(">")[0]
                usual = b"250 2.1.5 ok\r\n"
                if address.startswith("refused"):
                    usual = b"550 5.1.1 no such mailbox\r\n"
                elif address.startswith("later"):
                    usual = b"451 4.7.1 try later\r\n"
                elif not sender:
                    usual = b"503 5.5.1 MAIL first\r\n"
                if (await answer(verb, usual)).startswith(b"2"):
                    recipients.append(address)
            elif verb == "DATA":
                said = await answer(verb, b"354 go on\r\n" if recipients else b"503 5.5.1 no recipients\r\n")
                if said.startswith(b"354"):
                    data = await self._body(reader, answer)
                    verdict = f"250 2.0.0 kept as {len(self.mails) + 1}" if recipients else "554 5.5.1 nobody"
                    act = choose(BODY, f"{verdict}\r\n".encode())
                    if act.keeps or act.say.startswith(b"250"):
                        self.mails.append(Mail(sender, tuple(recipients), data))
                    await perform(act)
                sender, recipients = "", []
            elif verb == "RSET":
                sender, recipients = "", []
                await answer(verb, b"250 2.0.0 ok\r\n")
            elif verb == "QUIT":
                await answer(verb, b"221 2.0.0 bye\r\n")
                return
            else:
                await answer(verb, b"502 5.5.2 what?\r\n")

    async def _body(self, reader: asyncio.StreamReader, answer: Callable[[str, bytes], Any]) -> bytes:
        lines: list[bytes] = []
        while True:
            line = await reader.readline()
            if not line:
                raise EOFError
            if not lines:
                await answer(BODY_BEGINS, b"")
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line.removeprefix(b"."))
