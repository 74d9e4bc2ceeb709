"""One connection to the mail server and the mails that it takes. The dialogue itself is `mail.smtp.dialogue`.

While a session is being opened replies are awaited (`mail.smtp.channel`); from then on every reply is handled where it
arrives, without a task or a timer per mail: that is what makes thousands of mails a second possible.
"""

from __future__ import annotations

import time
from typing import Final

from config import crash_points
from config.crash_points import CrashPoint
from mail.smtp.channel import Channel
from mail.smtp.dialogue import Dialogue, DialogueEnd, Extensions, Stage
from mail.smtp.replies import NotSmtpError, Reply
from mail.smtp.submission import ConnectionOwner, Submission
from schemas.send_results import Accepted, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided

LAPSED: Final = Lapsed("its claim ended before the mail could be sent")
#: Bodies up to this size, in bytes, go out in one write with the dot that ends them: the kernel takes them at once.
_AT_ONCE: Final = 8192
_END: Final = b".\r\n"
_FIRST_LOOK: Final = 0.001
_LONGEST_LOOK: Final = 0.05


class Connection(Channel):
    """Used by `mail.smtp.session` until `begin_mails`, by the pool afterwards."""

    def __init__(self, owner: ConnectionOwner, address: str, timeout: float, final_timeout: float) -> None:
        super().__init__(address, timeout)
        self._owner = owner
        self._final_timeout = final_timeout
        self._dialogue: Dialogue | None = None
        self._submission: Submission | None = None
        #: The mail whose envelope goes out with the body of that one, and its commands until they are written.
        self._following: Submission | None = None
        self._commands = b""
        #: Whether the mail in dialogue has followed another.
        self._followed = False
        #: A large body is on its way out, and the dot that ends it is kept until it has left.
        self._holds_end = False
        #: Whether its last mail was accepted: only then does the next one follow another.
        self._accepts = False
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

    def seconds_busy(self, now: float) -> float:
        """How long it has been in dialogue about its mail; 0 without one. `now` is of the monotonic clock."""
        return 0.0 if self._submission is None else now - self._submission.begun

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
        self._submission, self._followed = submission, False
        submission.begun = time.monotonic()
        self._write(step)
        crash_points.reach(CrashPoint.SMTP_ENVELOPE)
        return None

    def follow(self, submission: Submission) -> Refused | Lapsed | None:
        """As `start`, when the owner is offered a place behind a body: the dialogue begins once that was accepted."""
        assert self._dialogue is not None
        if not submission.permitted():
            return LAPSED
        step = self._dialogue.follow(submission.envelope)
        if isinstance(step, Refused):
            return step
        self._following, self._commands = submission, step
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
        self._accepts = isinstance(step.result, Accepted)
        if self._accepts:
            crash_points.reach(CrashPoint.SMTP_ACCEPTED)
        submission, self._submission = self._submission, None
        # Closed or unfit before it took a mail: a limit of mails to a session, or what it kept of an earlier one.
        unheard = stage is Stage.MAIL and not step.usable and isinstance(step.result, NotSent | Throttled)
        stale = unheard and self.kept
        self.kept = True
        following, self._following = self._following, None
        if not step.usable:
            self._end(str(reply), may_be_stale=False)
        elif following is not None:
            self._submission, self._followed = following, True
            following.begun = time.monotonic()
            self._expect_reply()
        if stale:
            self._owner.stale(self, submission)
        else:
            self._owner.finished(self, submission, step.result)
        if following is not None and not step.usable:
            # Last: whether it may still be tried is known only once a throttling reply was handled.
            self._owner.unfollowed(self, following)
        return step.usable and (following is not None or not more)

    def _write_body(self, body: bytes) -> bool:
        """With its end, if that leaves at once; else the end waits until the rest has left. Whether to go on."""
        if len(body) <= _AT_ONCE:
            self._complete(body)
        else:
            self._holds_end = True
            self._write(body[: -len(_END)])
            self._write_end(self._unsent(), _FIRST_LOOK)
        return not self._gone

    def _complete(self, data: bytes) -> None:
        """Writes the last bytes of the body, if the claim still holds, and behind them what may follow."""
        assert self._dialogue is not None
        assert self._submission is not None
        if self._accepts and self._dialogue.may_follow:
            self._owner.offer(self)
        if not self._submission.completing():
            self._lapse()
            return
        commands, self._commands = self._commands, b""
        self._write(data + commands)
        crash_points.reach(CrashPoint.SMTP_DATA)
        if commands:
            crash_points.reach(CrashPoint.SMTP_ENVELOPE)

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
        self._complete(_END)

    def _lapse(self) -> None:
        """The mail in mid-dialogue may not be sent any more, and only the connection's end ends its data."""
        submission, self._submission = self._submission, None
        assert submission is not None
        self._end(LAPSED.reason, may_be_stale=False)
        self._owner.finished(self, submission, LAPSED)

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
        self._fail_opening(reason)
        self._owner.gone(self)
        submission, self._submission = self._submission, None
        if submission is not None and self._dialogue is not None:
            unheard = self._dialogue.stage is Stage.MAIL
            if unheard and self._followed:
                # Some throw away what comes with a body.
                self._owner.unfollowed(self, submission)
            elif unheard and may_be_stale and self.kept:
                self._owner.stale(self, submission)
            else:
                self._owner.finished(self, submission, self._lost(reason, by_us))
        following, self._following = self._following, None
        if following is not None:
            self._owner.unfollowed(self, following)

    def _lost(self, reason: str, by_us: bool) -> SendResult:
        assert self._dialogue is not None
        if not self._holds_end:
            return self._dialogue.lost(reason, by_us=by_us)
        # Without its end no server may accept it.
        return NotSent(reason) if by_us else Undecided(reason)
