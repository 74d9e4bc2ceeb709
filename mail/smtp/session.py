"""Opens a session with the mail server: connect, greeting, EHLO, STARTTLS, log-in. One coroutine per connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from typing import Final, NoReturn

from config.metrics import CERTIFICATE, MAIL
from config.setting_forms import is_host_name
from mail.smtp.connection import Connection, SessionError
from mail.smtp.dialogue import CLOSING, Extensions
from mail.smtp.replies import Reply
from mail.smtp.submission import ConnectionOwner
from mail.smtp.url import SmtpServer, Tls

#: Seconds of silence after which the kernel asks whether the other side is there, between its questions, and how many
#: of these may go unanswered: a slow server is waited for, a machine that is gone is not.
_KEEP_ALIVE: Final = (30, 10, 3)
#: For so long what a certificate said is still shown, without another connection.
_CERTIFICATE_SECONDS: Final = 7 * 86_400.0


async def open_session(
    server: SmtpServer,
    owner: ConnectionOwner,
    *,
    reply_timeout: float,
    final_timeout: float,
    hello: str | None,
    context: ssl.SSLContext | None,
) -> Connection:
    """A connection that takes mails. SessionError, without secrets, when none can be opened.

    `reply_timeout` in seconds is for each step, `final_timeout` for the reply to a mail's data; `hello` is the name in
    EHLO, by default this machine's.
    """
    loop = asyncio.get_running_loop()
    connection = Connection(owner, server.address, reply_timeout, final_timeout)
    try:
        try:
            async with asyncio.timeout(reply_timeout):
                await loop.create_connection(
                    lambda: connection,
                    server.host,
                    server.port,
                    ssl=context if server.tls is Tls.IMPLICIT else None,
                    server_hostname=server.host if server.tls is Tls.IMPLICIT else None,
                )
            _keep_alive(connection)
            extensions = await _greet(connection, server, reply_timeout, hello, context)
            _note_certificate(connection)
        except TimeoutError as error:
            raise SessionError(f"mail server {server.address} gave no answer within {reply_timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise SessionError(f"cannot reach mail server {server.address}: {_cause(error)}") from error
        connection.begin_mails(_offered(extensions))
    except BaseException:
        connection.give_up("no session")
        raise
    return connection


async def _greet(
    connection: Connection,
    server: SmtpServer,
    reply_timeout: float,
    hello: str | None,
    context: ssl.SSLContext | None,
) -> dict[str, str]:
    """From the greeting to the log-in; what the server offers at the end of it."""
    greeting = await connection.ask(None)
    if greeting.code != 220:
        _refused(server, "the connection", greeting)
    name = hello or _own_name(connection)
    encrypted = server.tls is Tls.IMPLICIT
    extensions = await _hello(connection, server, name)
    if server.tls in (Tls.STARTTLS, Tls.OPTIONAL):
        if "STARTTLS" in extensions:
            async with asyncio.timeout(reply_timeout):
                encrypted = await _start_tls(connection, server, context)
            if encrypted:
                extensions = await _hello(connection, server, name)
        elif server.tls is Tls.STARTTLS:
            raise SessionError(f"mail server {server.address} does not offer STARTTLS, which is required")
    if server.user is not None and server.password is not None:
        if not encrypted and not server.may_send_password_in_clear:
            raise SessionError(f"mail server {server.address} offers no TLS: the password was not sent")
        await _log_in(connection, server, server.user, server.password, extensions)
    return extensions


async def _hello(connection: Connection, server: SmtpServer, name: str) -> dict[str, str]:
    reply = await connection.ask(f"EHLO {name}\r\n".encode("ascii", "replace"))
    if 500 <= reply.code < 600:
        # A server from before ESMTP has no extensions.
        reply = await connection.ask(f"HELO {name}\r\n".encode("ascii", "replace"))
    if reply.code != 250:
        _refused(server, f"our greeting as {name} (BIDDEN_SMTP_HELLO)", reply)
    extensions: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        # Some old servers write AUTH=LOGIN, and many offer AUTH twice, once in each form.
        word, _, parameters = line.replace("=", " ", 1).strip().upper().partition(" ")
        extensions[word] = f"{extensions.get(word, '')} {parameters}".strip()
    return extensions


async def _start_tls(connection: Connection, server: SmtpServer, context: ssl.SSLContext | None) -> bool:
    """Whether the connection is now encrypted: a server may refuse at the moment, if the setting leaves it to it."""
    assert context is not None
    reply = await connection.ask(b"STARTTLS\r\n")
    if reply.code != 220 and reply.code != CLOSING and server.tls is Tls.OPTIONAL:
        return False
    if reply.code != 220:
        _refused(server, "STARTTLS", reply)
    # Bytes in the clear behind this reply would pass for encrypted replies after it.
    connection.expect_silence()
    assert connection.transport is not None
    transport = await asyncio.get_running_loop().start_tls(
        connection.transport, connection, context, server_hostname=server.host
    )
    if transport is None:
        raise SessionError(f"mail server {server.address} closed the connection during the TLS handshake")
    connection.encrypted(transport)
    return True


async def _log_in(
    connection: Connection, server: SmtpServer, user: str, password: str, extensions: dict[str, str]
) -> None:
    offered = extensions.get("AUTH", "").split()
    mechanisms = [say for name, say in (("PLAIN", _plain), ("LOGIN", _login)) if name in offered]
    if not mechanisms:
        raise SessionError(f"mail server {server.address} offers neither AUTH PLAIN nor AUTH LOGIN")
    for say in mechanisms:
        reply = await say(connection, user, password)
        if reply.code == 235:
            return
        if not 500 <= reply.code < 600:
            break
        # Some servers offer a mechanism that refuses everybody, and take the next.
    # The code alone: the text might repeat the credentials, and some providers' user names are secret, too.
    raise SessionError(f"mail server {server.address} refused the authentication with {reply.code}")


async def _plain(connection: Connection, user: str, password: str) -> Reply:
    secret = b64encode(f"\0{user}\0{password}".encode()) + b"\r\n"
    reply = await connection.ask(b"AUTH PLAIN " + secret)
    # A server that overlooks the initial response asks for it again.
    return await connection.ask(secret) if reply.code == 334 else reply


async def _login(connection: Connection, user: str, password: str) -> Reply:
    reply = await connection.ask(b"AUTH LOGIN\r\n")
    for secret in (user, password):
        if reply.code != 334:
            break
        reply = await connection.ask(b64encode(secret.encode()) + b"\r\n")
    return reply


def _offered(extensions: dict[str, str]) -> Extensions:
    return Extensions(
        pipelining="PIPELINING" in extensions,
        smtputf8="SMTPUTF8" in extensions,
        eight_bit_mime="8BITMIME" in extensions,
    )


def _keep_alive(connection: Connection) -> None:
    assert connection.transport is not None
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), _KEEP_ALIVE, strict=True):
        # Not every system has each of them.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _note_certificate(connection: Connection) -> None:
    """When the certificate of an encrypted connection ends."""
    assert connection.transport is not None
    certificate = connection.transport.get_extra_info("peercert")
    if certificate and "notAfter" in certificate:
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        CERTIFICATE.set({MAIL: ends}, keep_seconds=_CERTIFICATE_SECONDS)


def _own_name(connection: Connection) -> str:
    """This machine's full name, or else its address as a literal (RFC 5321, 4.1.3)."""
    name = socket.gethostname()
    if is_host_name(name):
        return name
    assert connection.transport is not None
    own = str((connection.transport.get_extra_info("sockname") or ("127.0.0.1",))[0])
    return f"[IPv6:{own.partition('%')[0]}]" if ":" in own else f"[{own}]"


def _refused(server: SmtpServer, what: str, reply: Reply) -> NoReturn:
    raise SessionError(f"mail server {server.address} refused {what}: {reply}")


def _cause(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, UnicodeError):
        return "its name is no host name"
    return error.strerror or str(error) or type(error).__name__
