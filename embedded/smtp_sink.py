"""An SMTP server that keeps what it accepts: one connection's conversation, as an asyncio protocol.

Written here and not taken from a library, because the sink must cost far less than the sender that is measured
against it: 20,000 mails a second on one core. It knows ESMTP with PIPELINING, SIZE, 8BITMIME and SMTPUTF8, and if
wanted STARTTLS and AUTH; it is strict where a sender's mistake would pass unseen elsewhere: bare CR or LF in a mail,
an address beyond ASCII without SMTPUTF8 and a mail beyond ASCII without 8BITMIME are refused. How mails are stored
and how the sink misbehaves on purpose is others' business (`mailbox`, `mailrules`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, cast

from embedded.mail_rules import Rules
from embedded.mail_store import MailStore
from embedded.smtp_auth import Authentication
from embedded.smtp_envelope import Envelope

MAX_LINE: Final = 4096
END: Final = b"\r\n.\r\n"


@dataclass
class Sink:
    """What all connections of a sink share."""

    store: MailStore
    rules: Rules = field(default_factory=Rules)
    max_size: int = 50_000_000
    tls: ssl.SSLContext | None = None
    credentials: tuple[str, str] | None = None
    accepted: int = 0


class Session(asyncio.Protocol):
    """One connection. Commands and mails are taken from a buffer, however the client cuts and combines them."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._next: Callable[[], bool] = self._command
        self._held = False  # nothing is taken from the buffer: a delayed reply, a handshake, the end
        self._secure = False
        self._extended = False
        self._authentication = Authentication(sink.credentials)
        self._forget()

    def _forget(self) -> None:
        """No mail is under way."""
        self._envelope = Envelope()
        self._scanned = 0
        self._too_big = False

    # asyncio's side.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._sink.rules.refresh()
        rule = self._sink.rules.take("refuse_connection")
        if rule is None:
            self._transport.write(b"220 bidden.localhost ESMTP mail sink\r\n")
        else:
            self._transport.write(rule.reply + b"\r\n")
            self._end()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def _work(self) -> None:
        while not self._held and self._buffer and self._next():
            pass
        if not self._held:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _say(self, reply: bytes) -> None:
        self._out.append(reply + b"\r\n")
        if reply.startswith(b"421"):
            self._end()

    def _end(self) -> None:
        """Closes when everything is said."""
        self._flush()
        self._held = True
        self._transport.close()

    def _drop(self) -> None:
        """Closes as a crash would."""
        self._held = True
        self._transport.abort()

    # Commands.
    def _command(self) -> bool:
        """Takes one line from the buffer; False when there is none yet."""
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                self._say(b"421 4.5.2 Line too long")
            return False
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        if self._authentication.waiting:
            self._say(self._authentication.answer(line))
        elif (act := self._COMMANDS.get(line.partition(b" ")[0].upper())) is None:
            self._say(b"500 5.5.2 Unknown command")
        else:
            act(self, line)
        return True

    def _ehlo(self, line: bytes) -> None:
        self._forget()
        self._extended = True
        offers = [b"bidden.localhost", b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES"]
        if self._sink.tls is not None and not self._secure:
            offers.append(b"STARTTLS")
        if self._sink.credentials is not None:
            offers.append(b"AUTH PLAIN LOGIN")
        self._out.extend(b"250-%b\r\n" % offer for offer in offers)
        self._say(b"250 SIZE %d" % self._sink.max_size)

    def _helo(self, line: bytes) -> None:
        self._forget()
        self._extended = False
        self._say(b"250 bidden.localhost")

    def _mail(self, line: bytes) -> None:
        self._sink.rules.refresh()
        if self._authentication.done:
            self._say(self._envelope.mail(line, self._sink.max_size))
        else:
            self._say(b"530 5.7.0 Authentication required")

    def _rcpt(self, line: bytes) -> None:
        self._say(self._envelope.recipient(line, self._sink.rules))

    def _data(self, line: bytes) -> None:
        rules, recipients = self._sink.rules, self._envelope.recipients
        if self._envelope.sender is None:
            self._say(b"503 5.5.1 MAIL first")
        elif not recipients:
            self._say(b"554 5.5.1 No valid recipients")
        elif rules.take("drop_before_data", recipients):
            self._drop()
        elif (rule := rules.take("refuse_data", recipients)) is not None:
            self._say(rule.reply)
        else:
            self._say(b"354 Go on")
            self._next = self._dropped_body if rules.take("drop_in_data", recipients) else self._body

    def _rset(self, line: bytes) -> None:
        self._forget()
        self._say(b"250 2.0.0 Ok")

    def _noop(self, line: bytes) -> None:
        self._say(b"250 2.0.0 Ok")

    def _vrfy(self, line: bytes) -> None:
        self._say(b"252 2.1.5 Send and see")

    def _quit(self, line: bytes) -> None:
        self._say(b"221 2.0.0 Bye")
        self._end()

    def _auth(self, line: bytes) -> None:
        self._say(self._authentication.begin(line))

    def _starttls(self, line: bytes) -> None:
        if self._sink.tls is None or self._secure:
            self._say(b"502 5.5.1 Not offered")
            return
        self._say(b"220 2.0.0 Go on")
        self._flush()
        self._buffer.clear()  # what came before the handshake could be anybody's
        self._held = True
        self._upgrade = asyncio.get_running_loop().create_task(self._secured(self._sink.tls))

    async def _secured(self, context: ssl.SSLContext) -> None:
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=10
            )
        except OSError:
            self._transport.abort()
            return
        assert upgraded is not None
        self._transport, self._secure, self._held = upgraded, True, False
        self._forget()
        self._work()

    _COMMANDS: ClassVar[dict[bytes, Callable[[Session, bytes], None]]] = {
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
    def _dropped_body(self) -> bool:
        self._drop()
        return False

    def _body(self) -> bool:
        """Takes one mail from the buffer; False when its end has not come yet."""
        buffer = self._buffer
        if not self._scanned and buffer.startswith(b".\r\n"):
            size, taken = 0, 3
        elif (found := buffer.find(END, max(0, self._scanned - len(END)))) >= 0:
            size, taken = found + 2, found + len(END)
        else:
            if len(buffer) > self._sink.max_size:
                self._too_big = True
                del buffer[: -len(END)]
            self._scanned = len(buffer)
            return False
        data = bytes(memoryview(buffer)[:size])
        del buffer[:taken]
        self._next = self._command
        self._finish(data)
        self._forget()
        return True

    def _finish(self, data: bytes) -> None:
        """Judges a whole mail, keeps it, and replies or does what a rule says."""
        sink, recipients = self._sink, self._envelope.recipients
        if reply := self._objection(data):
            return self._say(reply)
        if data.startswith(b"."):
            data = data[1:]
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n")
        assert self._envelope.sender is not None
        try:
            sink.store.append(self._envelope.sender, recipients, data)
        except OSError:
            return self._say(b"452 4.3.1 No room to keep the mail")
        sink.accepted += 1
        delay = sink.rules.take("delay", recipients)
        if sink.rules.take("drop_after_store", recipients):
            return self._drop()
        self._say(b"250 2.0.0 Kept as %d" % sink.accepted)
        if delay is not None:
            self._held = True
            asyncio.get_running_loop().call_later(delay.seconds, self._let_go)
        return None

    def _objection(self, data: bytes) -> bytes:
        sink = self._sink
        lines = data.count(b"\r\n")
        if self._too_big or len(data) > sink.max_size:
            return b"552 5.3.4 Too big"
        if data.count(b"\n") != lines or data.count(b"\r") != lines:
            return b"550 5.5.2 Bare CR or LF"
        if self._extended and not self._envelope.eight_bit and not data.isascii():
            return b"554 5.6.1 A mail beyond ASCII needs BODY=8BITMIME"
        rule = sink.rules.take("refuse_mail", self._envelope.recipients)
        return rule.reply if rule else b""

    def _let_go(self) -> None:
        if not self._transport.is_closing():
            self._held = False
            self._flush()
            self._work()
