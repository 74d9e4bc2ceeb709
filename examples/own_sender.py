"""A worker with a sender of its own: mails go to a provider by HTTP instead of SMTP.

    PROVIDER_URL=https://mail.example.org/v1 PROVIDER_TOKEN=... python examples/own_sender.py

The provider of this example takes `POST /messages` with JSON: `from`, `to`, and the whole message (RFC 5322) in base64.
For another provider change `_post`, `_probe` and `result_of`. What must stay is the contract of `mail.sender.Sender`:

- Accepted only when the provider has taken responsibility for the mail.
- NotSent only when it certainly has not, and the reason is not the mail: the worker waits in `ready` and sends again.
- Refused when it declined this very mail: for good (the delivery has failed) or for now (it is retried with back-off).
- Ambiguous when the data went out and no clear answer came: the delivery is `unknown`, and a person decides.
- Lapsed when `permitted` says no, before the provider hears of the mail, or `completing`, before its last bytes leave:
  not sent.

tests/conformance/test_sender.py runs against this sender as it does against the one for SMTP. Add yours to its list.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx
import structlog

from cli.wiring import build_worker
from config.settings import Settings
from config.startup import load
from schemas.envelope import Envelope
from schemas.errors import UnreachableError
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult
from streams.runners.confluent import ConfluentRunner

log = structlog.get_logger()

_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 5.0
#: Answers about this mail. Those in _LATER can be different another time.
_NEVER: Final = frozenset({400, 413, 422})
_LATER: Final = frozenset({409, 423, 425})
#: Answers about us or the provider, each of which says that the mail was not accepted.
_NOT_NOW: Final = frozenset({401, 403, 404, 405, 429, 503})


def result_of(response: httpx.Response) -> SendResult:
    """What the provider's answer to a mail means. What is not known to be a refusal is Ambiguous, never NotSent."""
    reply = f"{response.status_code} {response.text[:500]}"
    if response.is_success:
        return Accepted(reply)
    if response.status_code in _NEVER | _LATER:
        return Refused(reply, permanent=response.status_code in _NEVER)
    if response.status_code in _NOT_NOW:
        return NotSent(reply)
    return Ambiguous(reply)


class _LapsedError(Exception):
    """A mail's claim has ended."""


class _Mail:
    """One mail on its way. `done` is called once, by the first call of `finish`."""

    def __init__(
        self,
        envelope: Envelope,
        done: Callable[[SendResult], None],
        permitted: Callable[[], bool],
        completing: Callable[[], bool],
    ) -> None:
        self.envelope = envelope
        self.permitted = permitted
        self.completing = completing
        self.has_slot = False
        self.data_went_out = False
        self._done: Callable[[SendResult], None] | None = done

    def finish(self, result: SendResult) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        try:
            done(result)
        except Exception:
            log.exception("the handler of a send result failed")

    def give_up(self, reason: str) -> None:
        self.finish(Ambiguous(reason) if self.data_went_out else NotSent(reason))

    def require_permission(self) -> None:
        """_LapsedError if its claim has ended."""
        if not self.permitted():
            raise _LapsedError

    def complete(self) -> None:
        """_LapsedError if its claim has ended; else it may be accepted from now on."""
        if not self.completing():
            raise _LapsedError
        self.data_went_out = True

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body; its last byte, without which no provider can accept it, only while the claim holds."""
        encoded = base64.b64encode(self.envelope.data).decode()
        fields = {"from": self.envelope.sender, "to": self.envelope.recipient, "message": encoded}
        content = json.dumps(fields).encode()
        yield content[:-1]
        self.complete()
        yield content[-1:]


class ProviderSender:
    """Implements `mail.sender.Sender`. `timeout` is for each step of a request, `drain` for `close`; in seconds."""

    def __init__(self, url: str, token: str, connections: int = 10, timeout: float = 30.0, drain: float = 10.0) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections),
        )
        self._address = f"{self._http.base_url.host}:{self._http.base_url.port}"
        self._connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._drain = drain
        self._tasks: dict[_Mail, asyncio.Task[None]] = {}
        self._closed = False

    async def check(self) -> None:
        """See `Sender.check`."""
        reason = await self._probe()
        if reason is not None:
            raise UnreachableError(f"the mail provider {self._address} cannot be used: {reason}")

    async def ready(self) -> None:
        """See `Sender.ready`."""
        wait, attempts = _FIRST_WAIT_SECONDS, 0
        while not self._closed:
            reason = await self._probe()
            if reason is None:
                if attempts:
                    log.info("the mail provider is back", attempts=attempts)
                return
            attempts += 1
            if attempts == 1:
                log.warning("waiting for the mail provider", reason=reason)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        raise RuntimeError("the sender is closed")

    def submit(
        self,
        envelope: Envelope,
        done: Callable[[SendResult], None],
        permitted: Callable[[], bool],
        completing: Callable[[], bool] | None = None,
    ) -> None:
        """See `Sender.submit`."""
        mail = _Mail(envelope, done, permitted, completing or permitted)
        loop = asyncio.get_running_loop()
        if self._closed:
            loop.call_soon(mail.give_up, "the sender is closed")
            return
        self._tasks[mail] = loop.create_task(self._send(mail))
        self._tasks[mail].add_done_callback(lambda _: self._tasks.pop(mail))

    def capacity(self) -> int:
        """See `Sender.capacity`. One mail waits for each connection."""
        return max(0, 2 * self._connections - len(self._tasks))

    async def close(self) -> None:
        """See `Sender.close`."""
        self._closed = True
        for mail in [mail for mail in self._tasks if not mail.has_slot]:
            self._abandon(mail, "the sender is closing")
        tasks = list(self._tasks.values())
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._drain)
        finally:
            for mail in list(self._tasks):
                self._abandon(mail, "the sender was closed before the mail provider answered")
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def _abandon(self, mail: _Mail, reason: str) -> None:
        mail.give_up(reason)
        self._tasks[mail].cancel()

    async def _send(self, mail: _Mail) -> None:
        async with self._slots:
            mail.has_slot = True
            try:
                mail.require_permission()
                mail.finish(result_of(await self._post(mail)))
            except _LapsedError:
                mail.finish(Lapsed("its claim ended before the mail could be sent"))
            except httpx.HTTPError as error:
                verb = "got no answer from" if mail.data_went_out else "cannot reach"
                mail.give_up(f"{verb} the mail provider {self._address}: {error!r}")

    async def _post(self, mail: _Mail) -> httpx.Response:
        return await self._http.post("messages", content=mail.body(), headers={"Content-Type": "application/json"})

    async def _probe(self) -> str | None:
        """Why no mail can be sent now; None when it can."""
        try:
            response = await self._http.get("messages")
        except httpx.HTTPError as error:
            return repr(error)
        return None if response.is_success else f"it answers {response.status_code}"


def provider_sender(settings: Settings) -> ProviderSender:
    """The sender, with the limits that the settings give."""
    return ProviderSender(
        os.environ["PROVIDER_URL"],
        os.environ["PROVIDER_TOKEN"],
        connections=settings.smtp_connections,
        timeout=settings.smtp_timeout_seconds,
    )


def main() -> int:
    """`bidden worker` with this sender, until SIGTERM or Ctrl-C."""
    settings = load()
    runner = ConfluentRunner(settings, lambda heartbeat: build_worker(settings, heartbeat, provider_sender))
    return runner.run()


if __name__ == "__main__":
    sys.exit(main())
