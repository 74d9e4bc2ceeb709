"""The pace of a pool of connections as monitors see it, too: dialogues, replies, open connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from config.metrics import SMTP_CONNECTIONS, SMTP_DIALOGUE
from mail.smtp.pace import Pace
from schemas.send_results import REPLY_CLASSES, SendResult, reply_class

_OBSERVE: Final = {reply: SMTP_DIALOGUE.labels(reply).observe for reply in REPLY_CLASSES}


class MeteredPace(Pace):
    """`connections` says how many are open; it is asked at a scrape."""

    def __init__(self, connections: Callable[[], int]) -> None:
        super().__init__()
        SMTP_CONNECTIONS.set_function(connections)

    def note_result(self, begun: float, result: SendResult) -> None:
        """A mail that was begun then, by the monotonic clock, has this result now."""
        seconds = time.monotonic() - begun
        self.note(seconds)
        _OBSERVE[reply_class(result)](seconds)
