"""One connection to the mail sink, as an asyncio protocol.

It is not a library because the sink must cost far less than the sender that is measured against it: 20,000 mails a
second on one core (ADR 0012). It speaks ESMTP with PIPELINING, SIZE, 8BITMIME and SMTPUTF8, and optionally STARTTLS
and AUTH. It is strict where another server would hide a sender's mistake: it refuses bare CR or LF in a mail, a
non-ASCII address without SMTPUTF8, and a non-ASCII mail without 8BITMIME. `mail_store` stores the mails, `mail_rules`
make the sink misbehave on purpose.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, cast

from embedded.mail_rules import Rules
from embedded.mail_store import MailStore
from embedded.smtp_auth import Authentication
from embedded.smtp_transaction import SmtpTransaction

MAX_LINE: Final = 4096
END: Final = b"\r\n.\r\n"
# An expression finds it in half of the time that `in` takes.
_LEADING_DOT: Final = re.compile(rb"\n\.")

#: Between two looks whether a reply is still held.
_HOLD_SECONDS: Final = 0.05


@dataclass
class Sink:
    """The state that all connections share."""

    store: MailStore
    rules: Rules = field(default_factory=Rules)
    max_size: int = 50_000_000
    tls: ssl.SSLContext | None = None
    credentials: tuple[str, str] | None = None
    accepted: int = 0


class SmtpServerSession(asyncio.Protocol):
    """One connection. Commands and mails may arrive split and combined in any way."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._parse: Callable[[], bool] = self._parse_command
        self._suspended = False  # the buffer waits: a delayed reply, a handshake, the end
        self._secure = False
        self._extended = False
        self._authentication = Authentication(sink.credentials)
        self._reset()

    def _reset(self) -> None:
        """Begins a new transaction."""
        self._transaction = SmtpTransaction()
        self._scanned = 0
        self._too_big = False

    # Called by asyncio.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._sink.rules.refresh()
        rule = self._sink.rules.consume("refuse_connection")
        if rule is None:
            self._transport.write(b"220 bidden.localhost ESMTP mail sink\r\n")
        else:
            self._transport.write(rule.reply + b"\r\n")
            self._close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._process()

    def _process(self) -> None:
        while not self._suspended and self._buffer and self._parse():
            pass
        if not self._suspended:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _reply(self, reply: bytes) -> None:
        self._out.append(reply + b"\r\n")
        if reply.startswith(b"421"):
            self._close()

    def _close(self) -> None:
        """Closes once all replies are written."""
        self._flush()
        self._suspended = True
        self._transport.close()

    def _drop(self) -> None:
        """Closes as in a crash, without writing replies."""
        self._suspended = True
        self._transport.abort()

    # Commands.
    def _parse_command(self) -> bool:
        """Handles one line of the buffer; False if none is complete."""
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                self._reply(b"421 4.5.2 Line too long")
            return False
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        if self._authentication.waiting:
            self._reply(self._authentication.answer(line))
        elif (command := self._COMMANDS.get(line.partition(b" ")[0].upper())) is None:
            self._reply(b"500 5.5.2 Unknown command")
        else:
            command(self, line)
        return True

    def _ehlo(self, line: bytes) -> None:
        self._reset()
        self._extended = True
        offers = [b"bidden.localhost", b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES"]
        if self._sink.tls is not None and not self._secure:
            offers.append(b"STARTTLS")
        if self._sink.credentials is not None:
            offers.append(b"AUTH PLAIN LOGIN")
        self._out.extend(b"250-%b\r\n" % offer for offer in offers)
        self._reply(b"250 SIZE %d" % self._sink.max_size)

    def _helo(self, line: bytes) -> None:
        self._reset()
        self._extended = False
        self._reply(b"250 bidden.localhost")

    def _mail(self, line: bytes) -> None:
        self._sink.rules.refresh()
        if self._authentication.done:
            self._reply(self._transaction.mail(line, self._sink.max_size, self._sink.rules))
        else:
            self._reply(b"530 5.7.0 Authentication required")

    def _rcpt(self, line: bytes) -> None:
        self._reply(self._transaction.recipient(line, self._sink.rules))

    def _data(self, line: bytes) -> None:
        rules, recipients = self._sink.rules, self._transaction.recipients
        if self._transaction.sender is None:
            self._reply(b"503 5.5.1 MAIL first")
        elif not recipients:
            self._reply(b"554 5.5.1 No valid recipients")
        elif rules.consume("drop_before_data", recipients):
            self._drop()
        elif (rule := rules.consume("refuse_data", recipients)) is not None:
            self._reply(rule.reply)
        else:
            self._reply(b"354 Start mail input")
            self._parse = self._drop_body if rules.consume("drop_in_data", recipients) else self._parse_body

    def _rset(self, line: bytes) -> None:
        self._reset()
        self._reply(b"250 2.0.0 Ok")

    def _noop(self, line: bytes) -> None:
        self._reply(b"250 2.0.0 Ok")

    def _vrfy(self, line: bytes) -> None:
        self._reply(b"252 2.1.5 Send and see")

    def _quit(self, line: bytes) -> None:
        self._reply(b"221 2.0.0 Bye")
        self._close()

    def _auth(self, line: bytes) -> None:
        self._reply(self._authentication.begin(line))

    def _starttls(self, line: bytes) -> None:
        if self._sink.tls is None or self._secure:
            self._reply(b"502 5.5.1 Not offered")
            return
        self._reply(b"220 2.0.0 Ready to start TLS")
        self._flush()
        self._buffer.clear()  # commands before the handshake are not authenticated
        self._suspended = True
        self._upgrade = asyncio.get_running_loop().create_task(self._upgrade_to_tls(self._sink.tls))

    async def _upgrade_to_tls(self, context: ssl.SSLContext) -> None:
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=10
            )
        except OSError:
            self._transport.abort()
            return
        assert upgraded is not None
        self._transport, self._secure, self._suspended = upgraded, True, False
        self._reset()
        self._process()

    _COMMANDS: ClassVar[dict[bytes, Callable[[SmtpServerSession, bytes], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"VRFY": _vrfy,
        b"QUIT": _quit,
        b"AUTH": _auth,
        b"STARTTLS": _starttls,
    }

    # The mail itself.
    def _drop_body(self) -> bool:
        self._drop()
        return False

    def _parse_body(self) -> bool:
        """Handles one mail of the buffer; False if its end has not arrived."""
        buffer = self._buffer
        if not self._scanned and buffer.startswith(b".\r\n"):
            size, consumed = 0, 3
        elif (found := buffer.find(END, max(0, self._scanned - len(END)))) >= 0:
            size, consumed = found + 2, found + len(END)
        else:
            if len(buffer) > self._sink.max_size:
                self._too_big = True
                del buffer[: -len(END)]
            self._scanned = len(buffer)
            return False
        data = bytes(memoryview(buffer)[:size])
        del buffer[:consumed]
        self._parse = self._parse_command
        self._finish(data)
        self._reset()
        return True

    def _finish(self, data: bytes) -> None:
        """Checks and stores a complete mail, then replies or does what a rule says."""
        sink, recipients = self._sink, self._transaction.recipients
        if reply := self._refusal(data):
            return self._reply(reply)
        if data.startswith(b"."):
            data = data[1:]
        if _LEADING_DOT.search(data):
            data = data.replace(b"\r\n.", b"\r\n")
        assert self._transaction.sender is not None
        try:
            sink.store.append(self._transaction.sender, recipients, data)
        except OSError:
            return self._reply(b"452 4.3.1 Insufficient storage")
        sink.accepted += 1
        delay, hold = sink.rules.consume("delay", recipients), sink.rules.consume("hold", recipients)
        if sink.rules.consume("drop_after_store", recipients):
            return self._drop()
        self._reply(b"250 2.0.0 Kept as %d" % sink.accepted)
        if delay is not None:
            self._suspended = True
            asyncio.get_running_loop().call_later(delay.seconds, self._resume)
        elif hold is not None:
            self._suspended = True
            self._hold(list(recipients))
        return None

    def _hold(self, recipients: list[str]) -> None:
        """Until the rule is gone."""
        self._sink.rules.refresh()
        if self._sink.rules.consume("hold", recipients) is None:
            self._resume()
        else:
            asyncio.get_running_loop().call_later(_HOLD_SECONDS, self._hold, recipients)

    def _refusal(self, data: bytes) -> bytes:
        sink = self._sink
        lines = data.count(b"\r\n")
        if self._too_big or len(data) > sink.max_size:
            return b"552 5.3.4 Too big"
        if data.count(b"\n") != lines or data.count(b"\r") != lines:
            return b"550 5.5.2 Bare CR or LF"
        if self._extended and not self._transaction.eight_bit and not data.isascii():
            return b"554 5.6.1 A non-ASCII mail needs BODY=8BITMIME"
        rule = sink.rules.consume("refuse_mail", self._transaction.recipients)
        return rule.reply if rule else b""

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._suspended = False
            self._flush()
            self._process()
