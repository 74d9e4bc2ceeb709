"""HEAD is answered as GET, without the body: link checkers and monitors ask so. No GET of ours changes anything."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def receive_until_answered() -> Message:
            # What streams without end must not.
            return {"type": "http.disconnect"} if ended else await receive()

        async def send_without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                ended = True

        # A copy: the server must go on to know that it was HEAD.
        await self._app({**scope, "method": "GET"}, receive_until_answered, send_without_body)
