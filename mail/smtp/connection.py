"""One connection to the mail server: bytes in and out, and a deadline. The dialogue itself is `mail.smtp.dialogue`.

While a session is being opened replies are awaited (`ask`); from then on every reply is handled where it
arrives, without a task or a timer per mail: that is what makes thousands of mails a second possible.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

from config import crash_points
from config.crash_points import CrashPoint
from mail.smtp.dialogue import Dialogue, DialogueEnd, Extensions, Stage
from mail.smtp.replies import NotSmtpError, Reply, ReplyParser
from mail.smtp.submission import ConnectionOwner, Submission
from schemas.send_results import Accepted, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided

LAPSED: Final = Lapsed("its claim ended before the mail could be sent")
#: Bodies up to this size, in bytes, go out in one write with the dot that ends them: the kernel takes them at once.
_AT_ONCE: Final = 8192
_END: Final = b".\r\n"
_FIRST_LOOK: Final = 0.001
_LONGEST_LOOK: Final = 0.05


class SessionError(Exception):
    """No session could be opened; the message is for people and holds no secrets."""


class Connection(asyncio.Protocol):
    """Used by `mail.smtp.session` until `begin_mails`, by the pool afterwards."""

    def __init__(self, owner: ConnectionOwner, address: str, timeout: float, final_timeout: float) -> None:
        self._owner = owner
        self._address = address
        self._timeout = timeout
        self._final_timeout = final_timeout
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._replies: list[Reply] = []
        self._waiter: asyncio.Future[Reply] | None = None
        self._dialogue: Dialogue | None = None
        self._submission: Submission | None = None
        self._gone = False
        #: A large body is on its way out, and the dot that ends it is kept until it has left.
        self._holds_end = False
        self.transport: asyncio.Transport | None = None
        #: What carries the encrypted bytes, if TLS was begun by STARTTLS.
        self._carrier: asyncio.Transport | None = None
        #: When the reply that is awaited becomes too late, in the loop's time.
        self.deadline = 0.0
        #: When its mail was begun, by the monotonic clock.
        self.begun = 0.0
        #: Whether the server may have dropped it since its last reply.
        self.kept = False

    @property
    def usable(self) -> bool:
        """Whether it can take a mail now."""
        return self._dialogue is not None and self._submission is None and not self._gone

    @property
    def busy(self) -> bool:
        """Whether a mail is in mid-dialogue."""
        return self._submission is not None

    # -- opening a session ------------------------------------------------------------------------------

    async def ask(self, command: bytes | None) -> Reply:
        """Writes a command (none for the greeting) and waits for its reply. SessionError on loss or silence."""
        if command is not None:
            self.expect_silence()
            self._write(command)
        if not self._replies:
            if self._gone:
                raise SessionError(f"mail server {self._address} closed the connection")
            self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._waiter
            except TimeoutError as error:
                raise SessionError(f"mail server {self._address} gave no answer within {self._timeout:g} s") from error
            finally:
                self._waiter = None
        return self._replies.pop(0)

    def expect_silence(self) -> None:
        """SessionError unless every reply has been read and the connection is open."""
        if self._replies or self._parser.in_mid_reply:
            raise SessionError(f"mail server {self._address} sent a reply out of turn")
        if self._gone:
            raise SessionError(f"mail server {self._address} closed the connection")

    def encrypted(self, transport: asyncio.Transport) -> None:
        """TLS was begun on the connection's transport; from now on this one is written to."""
        self._carrier, self.transport = self.transport, transport

    def begin_mails(self, extensions: Extensions) -> None:
        """The session is open: from here on it takes mails."""
        self.expect_silence()
        self._dialogue = Dialogue(extensions)

    # -- mails ------------------------------------------------------------------------------------------

    def start(self, submission: Submission) -> Refused | Lapsed | None:
        """Begins the dialogue about a mail; or says why it may not be sent, or not to this server, and does nothing."""
        assert self._dialogue is not None
        if not submission.permitted():
            return LAPSED
        step = self._dialogue.begin(submission.envelope)
        if isinstance(step, Refused):
            return step
        self._submission = submission
        self.begun = time.monotonic()
        self._write(step)
        crash_points.reach(CrashPoint.SMTP_ENVELOPE)
        return None

    def give_up(self, reason: str, *, by_us: bool = False) -> None:
        """Ends the connection now; the mail in mid-dialogue gets the result that its stage implies.

        `by_us`: not because of the server, so the recipient cannot be the cause.
        """
        self._end(reason, may_be_stale=False, by_us=by_us)

    def quit(self) -> None:
        """Sends QUIT and closes, without waiting for the reply."""
        if not self._gone and self.transport is not None:
            self.transport.write(b"QUIT\r\n")
            self.transport.close()

    # -- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast("asyncio.Transport", transport)
        # uvloop would else keep what is written until the end of the loop's turn: after the permission was asked.
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._gone:
            return
        broken: str | None = None
        try:
            replies = self._parser.feed(data)
        except NotSmtpError as error:
            replies, broken = error.before, f"mail server {self._address} broke the protocol: {error}"
        if self._dialogue is None:
            self._opening(replies)
        else:
            self._take_all(replies, incomplete=broken is not None or self._parser.in_mid_reply)
        if broken is not None:
            self._end(broken, may_be_stale=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        why = f"{type(exc).__name__}" if exc is not None else "closed by the server"
        self._end(f"connection to mail server {self._address} lost: {why}", may_be_stale=True)

    # -- inside -----------------------------------------------------------------------------------------

    def _opening(self, replies: list[Reply]) -> None:
        self._replies += replies
        if self._replies and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._replies.pop(0))

    def _take_all(self, replies: list[Reply], incomplete: bool) -> None:
        """The replies of one read, in order. `incomplete`: something that is no whole reply follows them."""
        left = len(replies)
        for reply in replies:
            left -= 1
            if self._submission is None:
                # No reply was due: the server closes, or breaks the protocol.
                self._end(f"mail server {self._address} closes: {reply}", may_be_stale=False)
                return
            if not self._take(reply, more=left > 0 or incomplete):
                return

    def _take(self, reply: Reply, more: bool) -> bool:
        """One reply in the dialogue about the mail; whether to go on with the next."""
        assert self._dialogue is not None
        assert self._submission is not None
        assert self.transport is not None
        stage = self._dialogue.stage
        unsent = stage is Stage.BODY and (self._holds_end or self._unsent() > 0)
        step = self._dialogue.receive(reply, more=more, unsent=unsent)
        if not isinstance(step, DialogueEnd):
            if step and self._dialogue.stage is Stage.BODY:
                return self._write_body(step)
            if step:
                self._write(step)
            return True
        self._holds_end = False
        if isinstance(step.result, Accepted):
            crash_points.reach(CrashPoint.SMTP_ACCEPTED)
        submission, self._submission = self._submission, None
        # Closed or unfit before it took a mail: a limit of mails to a session, or what it kept of an earlier one.
        unheard = stage is Stage.MAIL and not step.usable and isinstance(step.result, NotSent | Throttled)
        stale = unheard and self.kept
        self.kept = True
        if not step.usable:
            self._end(str(reply), may_be_stale=False)
        if stale:
            self._owner.stale(self, submission)
        else:
            self._owner.finished(self, submission, step.result)
        return step.usable and not more

    def _write_body(self, body: bytes) -> bool:
        """With its end, if that leaves at once; else the end waits until the rest has left. Whether to go on."""
        assert self._submission is not None
        if len(body) <= _AT_ONCE:
            if not self._submission.completing():
                self._lapse()
                return False
            self._write(body)
            crash_points.reach(CrashPoint.SMTP_DATA)
        else:
            self._holds_end = True
            self._write(body[: -len(_END)])
            self._write_end(self._unsent(), _FIRST_LOOK)
        return not self._gone

    def _write_end(self, unsent: int, wait: float) -> None:
        """The dot after which the server may accept, once nothing is before it in our buffer and the claim still holds.

        A server that has no end of the data must discard it (RFC 5321, 4.1.1.4).
        """
        if self._gone or not self._holds_end or self._submission is None:
            return
        if self.transport is None or self.transport.is_closing():
            # Lost, and not reported yet: its empty buffer is no sign that the body has left.
            return
        left = self._unsent()
        if left:
            if left < unsent:
                self.deadline = self._loop.time() + self._timeout
            self._loop.call_later(wait, self._write_end, left, min(2 * wait, _LONGEST_LOOK))
            return
        self._holds_end = False
        if self._submission.completing():
            self._write(_END)
            crash_points.reach(CrashPoint.SMTP_DATA)
        else:
            self._lapse()

    def _unsent(self) -> int:
        """Bytes that were written and have not left; of implicit TLS, those that are not encrypted yet."""
        carried = self._carrier.get_write_buffer_size() if self._carrier is not None else 0
        return carried + (self.transport.get_write_buffer_size() if self.transport is not None else 0)

    def _lapse(self) -> None:
        """The mail in mid-dialogue may not be sent any more, and only the connection's end ends its data."""
        submission, self._submission = self._submission, None
        assert submission is not None
        self._end(LAPSED.reason, may_be_stale=False)
        self._owner.finished(self, submission, LAPSED)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)
        self.deadline = self._loop.time() + self._limit

    @property
    def _limit(self) -> float:
        """How long the server may take for its next reply. The one after the final dot is when it does its work."""
        is_final = self._dialogue is not None and self._dialogue.stage is Stage.BODY and not self._holds_end
        return self._final_timeout if is_final else self._timeout

    def give_up_if_silent(self, now: float) -> None:
        """Ends the connection if the reply that is awaited is too late."""
        if self._submission is not None and self.deadline <= now:
            self.give_up(f"mail server {self._address} gave no answer within {self._limit:g} s")

    def _end(self, reason: str, may_be_stale: bool, by_us: bool = False) -> None:
        """Closes for good, once; reports the mail in mid-dialogue."""
        if self._gone:
            return
        self._gone = True
        if self.transport is not None:
            self.transport.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(SessionError(reason))
        self._owner.gone(self)
        submission, self._submission = self._submission, None
        if submission is not None and self._dialogue is not None:
            if may_be_stale and self.kept and self._dialogue.stage is Stage.MAIL:
                self._owner.stale(self, submission)
            else:
                self._owner.finished(self, submission, self._lost(reason, by_us))

    def _lost(self, reason: str, by_us: bool) -> SendResult:
        assert self._dialogue is not None
        if not self._holds_end:
            return self._dialogue.lost(reason, by_us=by_us)
        # Without its end no server may accept it.
        return NotSent(reason) if by_us else Undecided(reason)
