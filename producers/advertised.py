"""Whether the addresses that brokers advertise can be reached from here.

A client asks a broker of BIDDEN_KAFKA_BOOTSTRAP where the brokers are, and talks to them there from then on. A listener
that is advertised by a name of another network is the usual mistake: the first answer comes, and nothing else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import UnreachableError

_SECONDS: Final = 3.0


def out_of_reach(brokers: Iterable[tuple[str, int]], seconds: float = _SECONDS) -> list[str]:
    """Of these hosts and ports those that take no connection, each with the cause."""
    known = sorted(set(brokers))
    if not known:
        return []
    with ThreadPoolExecutor(min(8, len(known))) as threads:
        causes = list(threads.map(lambda broker: _cause(broker[0], broker[1], seconds), known))
    return [f"{host}:{port} ({cause})" for (host, port), cause in zip(known, causes, strict=True) if cause]


@dataclass(frozen=True, slots=True)
class Reach:
    """How many brokers there are, what is wrong with where they say they are, and whether none is reached there."""

    brokers: int
    problem: str | None = None
    is_cut_off: bool = False


def look(admin: AdminClient, bootstrap: str, timeout: float) -> Reach:
    """Ask the brokers where they are, and try that. UnreachableError when none answers."""
    try:
        brokers = admin.list_topics(timeout=timeout).brokers.values()
    except KafkaException as error:
        raise UnreachableError(f"Kafka cannot be reached at {bootstrap}: {error.args[0].str()}") from error
    known = {(str(broker.host), int(broker.port)) for broker in brokers}
    unreachable = out_of_reach(known)
    if not unreachable:
        return Reach(len(known))
    return Reach(len(known), _explained(bootstrap, unreachable), is_cut_off=len(unreachable) == len(known))


def _explained(bootstrap: str, unreachable: list[str]) -> str:
    return (
        f"Kafka answers at {bootstrap}, but advertises {', '.join(unreachable)}, where it cannot be reached from here: "
        "set advertised.listeners of the brokers to an address that this machine reaches"
    )


def _cause(host: str, port: int, seconds: float) -> str | None:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
