"""Why no broker can be used, in the words of the broker or of TLS.

librdkafka tries again and again, and its answers say only that there was none; the causes come by a callback.
"""

from __future__ import annotations

import re
from typing import Final

from confluent_kafka import KafkaError

#: What librdkafka appends: how long a connection had been in which of its states.
_STATE: Final = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)$")
#: A broker that refuses a certificate ends the connection with one of TLS's alerts.
_REFUSED_CERTIFICATE: Final = re.compile(
    r"alert (?:bad |unknown |unsupported )?(?:certificate|ca)\b|certificate required"
)
_UNVERIFIED: Final = "certificate verify failed"


class Causes:
    """Keeps the newest cause that says more than that no broker answers. Give `note` to a client as its `error_cb`."""

    def __init__(self) -> None:
        self._newest: KafkaError | None = None

    def note(self, error: KafkaError) -> None:
        """Called by the client's `poll`."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the client's public name for it
            self._newest = error

    @property
    def text(self) -> str | None:
        """The broker's address and what was said there; None where nothing was."""
        return None if self._newest is None else _STATE.sub("", self._newest.str())

    @property
    def advice(self) -> str | None:
        """What to look at, where a broker answers and refuses this client, or is refused by it; else None."""
        text = self.text
        if self._newest is None or text is None:
            return None
        if self._newest.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - likewise
            return "check BIDDEN_KAFKA_SASL_MECHANISM, _USERNAME and _PASSWORD"
        if _UNVERIFIED in text:
            return "check BIDDEN_KAFKA_CA_FILE, and that the broker's certificate has the name by which it is reached"
        if _REFUSED_CERTIFICATE.search(text):
            return "check BIDDEN_KAFKA_CERT_FILE, and that the brokers trust the authority that signed it"
        return None
