"""The port of every sender: a mail goes in, one `SendResult` comes out.

`mail.smtp.sender` is the adapter for SMTP. Another provider implements this protocol, passes the conformance suite
(`tests/conformance/test_sender.py`) and is wired in `cli/wiring.py`; `examples/own_sender.py` is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from schemas.envelope import Envelope
from schemas.send_results import SendResult


class Sender(Protocol):
    """Sends mails through a provider. All methods are called in one event loop, from its thread.

    A sender never decides what a result means, and never sends a mail again whose data went out once.
    """

    async def check(self) -> None:
        """One attempt to reach the provider and log in. UnreachableError, without secrets, if it fails."""
        ...

    async def ready(self) -> None:
        """Returns once the provider has accepted a session; until then retries with back-off, and logs it.

        May be cancelled. Call it before submitting after a start and after `NotSent`: an outage then uses no attempts
        and no CPU.
        """
        ...

    def submit(
        self,
        envelope: Envelope,
        done: Callable[[SendResult], None],
        permitted: Callable[[], bool],
        completing: Callable[[], bool] | None = None,
    ) -> None:
        """Takes a mail; `done` is called once with its result, in the event loop, never inside this call.

        `permitted` says whether the mail's claim still holds, and is asked right before the provider first hears of the
        mail. `completing` says the same, and notes in the journal that from now on the mail may be accepted: it is
        asked right before the first byte that may make the provider accept it. None: as `permitted`. When either says
        no the mail is not sent, and its result is Lapsed: another worker may have sent it since. Both are quick, and
        never raise.

        Never raises and never blocks. After `close` the result is NotSent. What `done` raises is logged and goes no
        further.
        """
        ...

    def capacity(self) -> int:
        """How many more mails it can take now, so that each is begun within moments; 0 when it has enough.

        A claim is a right with a deadline: what waits inside a sender wastes it. Grows only when a mail's `done` is
        called, or with time.
        """
        ...

    async def close(self) -> None:
        """Closes the sender: mails in mid-dialogue may finish for a bounded time, mails that wait are NotSent.

        A mail still in mid-dialogue then is NotSent before its data and Ambiguous after. When this returns or is
        cancelled, every `done` has been called. May be called again.
        """
        ...


def always() -> bool:
    """The permission to send a mail that nobody has claimed."""
    return True


async def send(sender: Sender, envelope: Envelope, permitted: Callable[[], bool] = always) -> SendResult:
    """Submits one mail and waits for its result. Cancelling the wait does not recall the mail."""
    result: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()

    def done(sent: SendResult) -> None:
        if not result.done():
            result.set_result(sent)

    sender.submit(envelope, done, permitted)
    return await result
