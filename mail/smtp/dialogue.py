"""The SMTP dialogue for one mail after another on an open session, as a state machine. Pure: no socket, no clock.

    begin ──▶ MAIL ─▶ RCPT ─▶ DATA ─▶ BODY ─▶ accepted
                └───────┴──────┴───────┴─▶ (LONE_DOT) ─▶ RESET ─▶ result

With PIPELINING (RFC 2920) MAIL, RCPT and DATA go out in one write. The body goes out only after 354 and only if
sender and recipient were both accepted; never together with the next mail, which may make the server lose its answer
to this one (ADR 46). Every transaction that did not end in 2xx is reset before the session takes another mail, so that
no server answers the next MAIL with what it kept of the last. What each point of failure means:

| it happens                                     | result                                                         |
|------------------------------------------------|-----------------------------------------------------------------|
| 4xx or 5xx to MAIL, RCPT, DATA, body           | `mail.smtp.verdicts` decides: Refused, Undecided or Throttled   |
| loss, time-out, protocol error before RCPT was written | NotSent: the server is away                             |
| the same between it and the body               | Undecided: it may be this recipient who ends each dialogue      |
| the same once the body was written             | Ambiguous: accepted or not, it cannot be known                  |

421 closes the session at any point, the body included, and accepts nothing (RFC 5321).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from mail.smtp import verdicts
from mail.smtp.replies import Reply
from mail.smtp.verdicts import Step
from schemas.envelope import Envelope
from schemas.send_results import Accepted, Ambiguous, NotSent, Refused, SendResult, Undecided

CLOSING: Final = 421
_START_DATA: Final = 354
#: After these the session itself is unfit for another mail.
_SESSION_IS_UNFIT: Final = frozenset({CLOSING, 503, 530, 534, 535, 538})
# Whatever could end a command or its argument early. Composing lets none of it through: this is the second lock.
_UNSAFE: Final = re.compile(r"[\x00-\x20<>\x7f\ud800-\udfff]")
# An expression finds it in a third of the time that `in` takes.
_LEADING_DOT: Final = re.compile(rb"\n\.")


class Stage(Enum):
    """Which command's reply is awaited."""

    IDLE = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    BODY = auto()
    LONE_DOT = auto()
    RESET = auto()


_STEPS: Final = {Stage.MAIL: Step.MAIL, Stage.RCPT: Step.RCPT, Stage.DATA: Step.DATA, Stage.BODY: Step.BODY}


class Extensions(NamedTuple):
    """The server's extensions that matter here."""

    pipelining: bool = False
    smtputf8: bool = False
    eight_bit_mime: bool = False


class DialogueEnd(NamedTuple):
    """The dialogue about one mail has ended; `usable` says whether the session can take another."""

    result: SendResult
    usable: bool


class Dialogue:
    """The state of one session. `begin`, then `receive` each reply until it is DialogueEnd; `lost` at any time."""

    __slots__ = ("_envelope", "_extensions", "_failure", "stage")

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions
        self._envelope: Envelope | None = None
        self._failure: SendResult | None = None
        self.stage = Stage.IDLE

    def begin(self, envelope: Envelope) -> bytes | Refused:
        """What to write first for this mail; or Refused, with nothing to write, if this server cannot take it."""
        if envelope.needs_utf8 and not self._extensions.smtputf8:
            envelope = envelope.in_ascii() or envelope
        sender, recipient = envelope.sender, envelope.recipient
        if not recipient or _UNSAFE.search(sender) or _UNSAFE.search(recipient):
            return Refused("no address, or one with white space, brackets or controls", permanent=True)
        parameters = ""
        if envelope.needs_utf8 or not (sender.isascii() and recipient.isascii()):
            if not self._extensions.smtputf8:
                return Refused(
                    "the address is beyond ASCII and the mail server does not offer SMTPUTF8", permanent=True
                )
            parameters = " BODY=8BITMIME SMTPUTF8" if self._extensions.eight_bit_mime else " SMTPUTF8"
        self._envelope = envelope
        self._failure = None
        self.stage = Stage.MAIL
        mail = f"MAIL FROM:<{sender}>{parameters}\r\n"
        if self._extensions.pipelining:
            mail = f"{mail}RCPT TO:<{recipient}>\r\nDATA\r\n"
        return mail.encode()

    def receive(self, reply: Reply, *, more: bool = False, unsent: bool = False) -> bytes | DialogueEnd:
        """Takes the next reply: what to write now (nothing, if more replies are due), or the end.

        `more`: the server has already sent something beyond this reply. Where it is our turn, that means that it does
        not answer what we write, and nothing more is written to it. `unsent`: some of what was written has not left
        yet, so a positive reply cannot be about the data.
        """
        if unsent and self.stage is Stage.BODY and reply.code < 400:
            return self._finish(Ambiguous(f"answered before the mail had left: {reply}"), usable=False)
        if reply.code == CLOSING:
            return self._finish(self._failure or self._judge(reply), usable=False)
        stage = self.stage
        step = self._step(reply)
        if isinstance(step, DialogueEnd):
            return step._replace(usable=step.usable and not (more or unsent))
        if step and (more or unsent):
            # Nothing of this step was written: the body, if it was the body, is still here.
            out_of_turn = self._lost_at(stage, "the server sent a reply out of turn")
            return self._finish(self._failure or out_of_turn, usable=False)
        return step

    def lost(self, reason: str, *, by_us: bool = False) -> SendResult:
        """The result if the connection ends here, or the server breaks the protocol. `by_us`: we closed it."""
        return self._lost_at(self.stage, reason, by_us=by_us)

    def _lost_at(self, stage: Stage, reason: str, *, by_us: bool = False) -> SendResult:
        if stage is Stage.BODY:
            return Ambiguous(reason)
        # With PIPELINING the server has read RCPT before it answers MAIL, and some close before they have answered.
        named = stage in (Stage.RCPT, Stage.DATA) or (stage is Stage.MAIL and self._extensions.pipelining)
        if self._failure is None and named and not by_us:
            return Undecided(reason)
        return self._failure or NotSent(reason)

    def _step(self, reply: Reply) -> bytes | DialogueEnd:
        pipelining = self._extensions.pipelining
        good = 200 <= reply.code < 300
        stage = self.stage
        if stage is Stage.BODY:
            if good:
                return self._finish(Accepted(str(reply)))
            if reply.code < 400:
                return self._finish(Ambiguous(f"no verdict on the data: {reply}"), usable=False)
            return self._fail(reply)
        if stage is Stage.MAIL:
            if not good:
                if not pipelining or reply.code in _SESSION_IS_UNFIT:
                    return self._fail(reply)
                self._failure = self._judge(reply)
            self.stage = Stage.RCPT
            return b"" if pipelining else f"RCPT TO:<{self._mail.recipient}>\r\n".encode()
        if stage is Stage.RCPT:
            if not good:
                self._failure = self._failure or self._judge(reply)
                if not pipelining:
                    return self._fail(reply)
            self.stage = Stage.DATA
            return b"" if pipelining else b"DATA\r\n"
        if stage is Stage.DATA:
            return self._after_data(reply)
        assert self._failure is not None
        if stage is Stage.LONE_DOT and not good:
            return self._fail(reply)
        # The result is known, and the session is clean if the server agrees.
        return self._finish(self._failure, usable=good)

    def _after_data(self, reply: Reply) -> bytes | DialogueEnd:
        if reply.code != _START_DATA:
            return self._fail(reply)
        if self._failure is not None:
            # RFC 2920, 3.1: pipelined DATA may be let through though no recipient was. An end without a body
            # gives the server nothing to deliver to nobody.
            self.stage = Stage.LONE_DOT
            return b".\r\n"
        self.stage = Stage.BODY
        return stuffed(self._mail.data)

    def _judge(self, reply: Reply) -> SendResult:
        return verdicts.judge(_STEPS[self.stage], reply, self._mail.recipient)

    def _fail(self, reply: Reply) -> bytes | DialogueEnd:
        """The transaction ends without acceptance: it is reset, or the session with it is given up."""
        session_is_unfit = self._failure is None and reply.code in _SESSION_IS_UNFIT
        self._failure = self._failure or self._judge(reply)
        if session_is_unfit or reply.code < 400:
            return self._finish(self._failure, usable=False)
        self.stage = Stage.RESET
        return b"RSET\r\n"

    @property
    def _mail(self) -> Envelope:
        assert self._envelope is not None, "a reply without a mail"
        return self._envelope

    def _finish(self, result: SendResult, usable: bool = True) -> DialogueEnd:
        self._envelope = None
        self.stage = Stage.IDLE
        return DialogueEnd(result, usable)


def stuffed(data: bytes) -> bytes:
    """The message as it is written after 354: leading dots doubled, and the end that a lone dot makes."""
    if _LEADING_DOT.search(data):
        data = data.replace(b"\n.", b"\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data + b".\r\n" if data.endswith(b"\r\n") else data + b"\r\n.\r\n"
