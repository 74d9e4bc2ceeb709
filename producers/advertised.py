"""Whether the addresses that brokers advertise can be reached from here.

A client asks a broker of BIDDEN_KAFKA_BOOTSTRAP where the brokers are, and talks to them there from then on. A listener
that is advertised by a name of another network is the usual mistake: the first answer comes, and nothing else.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.kafka_causes import Causes
from producers.admin_client import await_controller
from schemas.errors import UnreachableError

_SECONDS: Final = 3.0
_REFUSED_SECONDS: Final = 2.0


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


def look(admin: AdminClient, bootstrap: str, timeout: float, causes: Causes) -> Reach:
    """Ask the brokers where they are, and try that. UnreachableError when none answers, or all refuse the client.

    `causes` are those of `admin`.
    """
    known = _list_brokers(admin, bootstrap, timeout, causes)
    unreachable = out_of_reach(known)
    if not unreachable:
        return Reach(len(known))
    return Reach(len(known), _explained(bootstrap, unreachable), is_cut_off=len(unreachable) == len(known))


def _list_brokers(admin: AdminClient, bootstrap: str, timeout: float, causes: Causes) -> set[tuple[str, int]]:
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return set(await_controller(admin, max(0.1, min(left, _REFUSED_SECONDS))).values())
        except KafkaException as error:
            # Serves the callback.
            admin.poll(0)
            # Who is refused by every broker for so long need not wait for more.
            if causes.advice is not None or left <= _REFUSED_SECONDS:
                raise UnreachableError(_unreached(bootstrap, causes, error.args[0].str())) from error
        except UnreachableError:
            if left <= _REFUSED_SECONDS:
                raise


def _unreached(bootstrap: str, causes: Causes, answer: str) -> str:
    if causes.advice is not None:
        return f"Kafka at {bootstrap} cannot be used: {causes.text}: {causes.advice}"
    return f"Kafka cannot be reached at {bootstrap}: {causes.text or answer}"


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
