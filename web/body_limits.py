"""What a request may bring along, and how long that may take. Before anybody is known: a body is read first of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Limit:
    """Of a body: so large at most, and here within so many seconds."""

    size: int
    seconds: float


#: Far more than any form here needs, or any request of the API: a hundred places of letters are 4 kB.
USUAL: Final = Limit(65_536, 15.0)


class LimitedBodies:
    """Ends a request whose body is too large or too slow, however it is sent. `others`: by path, what is not usual.

    The errors are raised where the body is read: the application around that answers them as it answers others.
    """

    def __init__(self, app: ASGIApp, *, usual: Limit, others: Mapping[str, Limit]) -> None:
        self._app = app
        self._usual = usual
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._others.get(scope["path"], self._usual)
        received = 0
        deadline: float | None = None
        # Of the request when all of it is there, or of whoever reads it once it is answered.
        is_over = False

        async def receive_some() -> Message:
            nonlocal received, deadline, is_over
            if is_over:
                return await receive()
            deadline = anyio.current_time() + limit.seconds if deadline is None else deadline
            message: Message | None = None
            with anyio.move_on_after(deadline - anyio.current_time()):
                message = await receive()
            if message is None:
                if is_over:
                    return {"type": "http.disconnect"}
                # Whoever takes so long is not waited for on the same connection, either.
                raise HTTPException(408, "What was sent took too long to arrive", headers={"Connection": "close"})
            received += len(message.get("body", b""))
            if received > limit.size:
                raise HTTPException(413, f"What was sent is too large: {limit.size:,} bytes are taken here at most")
            if not message.get("more_body", False):
                is_over = True
            return message

        async def send_some(message: Message) -> None:
            nonlocal is_over
            is_over = True
            await send(message)

        await self._app(scope, receive_some, send_some)
