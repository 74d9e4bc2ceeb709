"""Limits the size of request bodies and the time they may take, and asks for rights before one is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes of a body, and the seconds within which it must arrive."""

    size: int
    seconds: float


#: Far more than any form or API request needs: a hundred places of dead letters are 4 kB.
DEFAULT: Final = Limit(65_536, 15.0)


_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimits:
    """Middleware: 413 for a body that is too large, 408 for one that is too slow, chunked or not.

    `before` is called with the scope, in which the route is known by then, when somebody is about to read. The errors
    are raised where the application reads the body, so that its handlers respond to them.
    """

    def __init__(
        self, app: ASGIApp, *, default: Limit, by_path: Mapping[str, Limit], before: Callable[[Scope], Awaitable[None]]
    ) -> None:
        self._app = app
        self._default = default
        self._by_path = by_path
        self._before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._by_path.get(scope["path"], self._default)
        received = 0
        deadline: float | None = None
        # The body has arrived, or the response has begun.
        is_over = False

        async def limited_receive() -> Message:
            nonlocal received, deadline, is_over
            if is_over:
                return await receive()
            if deadline is None:
                if scope["method"] not in _WITHOUT_BODY:
                    await self._before(scope)
                deadline = anyio.current_time() + limit.seconds
            message: Message | None = None
            with anyio.move_on_after(deadline - anyio.current_time()):
                message = await receive()
            if message is None:
                if is_over:
                    return {"type": "http.disconnect"}
                # The rest of the body must not be waited for on this connection, either.
                raise HTTPException(408, "The request took too long to arrive", headers={"Connection": "close"})
            received += len(message.get("body", b""))
            if received > limit.size:
                raise HTTPException(413, f"The request is too large: at most {limit.size:,} bytes are accepted here")
            if not message.get("more_body", False):
                is_over = True
            return message

        async def observed_send(message: Message) -> None:
            nonlocal is_over
            is_over = True
            await send(message)

        await self._app(scope, limited_receive, observed_send)
