"""The health check of a container: whether this very container's worker or dispatcher is at work.

    python health.py worker | dispatcher

A process that has died is started again by its restart policy, and one that makes no progress ends itself, so neither
needs a check. What is left is a process that is up and cut off. So others are asked about it: the brokers, whether this
machine is a member of the consumer group; PostgreSQL, whether it holds a dispatcher's connection from this machine.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.kafka import client_config
from config.settings import Settings
from db.connect import connect
from schemas.errors import BiddenError

_SECONDS: Final = 5.0


def own_address() -> str:
    """The address that others see this container at."""
    return socket.gethostbyname(socket.gethostname())


def worker_is_member(settings: Settings, address: str) -> bool:
    """Whether a member of the workers' group comes from this address, by the brokers' account."""
    admin = AdminClient({**client_config(settings, "bidden-health"), "log_level": 0})
    answer = admin.describe_consumer_groups([settings.group], request_timeout=_SECONDS)[settings.group]
    try:
        members = answer.result(timeout=_SECONDS).members
    except (KafkaException, TimeoutError):
        return False
    return any(member.host.lstrip("/") == address for member in members)


def dispatcher_is_connected(settings: Settings, address: str) -> bool:
    """Whether PostgreSQL serves a dispatcher at this address."""
    with connect(settings.require_database(), application="bidden-health", autocommit=True) as conn:
        found = conn.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = 'bidden-dispatcher' AND client_addr = %s::inet",
            [address],
        )
        return found.fetchone() is not None


_CHECKS: Final = {"worker": worker_is_member, "dispatcher": dispatcher_is_connected}


def main(words: list[str]) -> int:
    """0 when healthy, 1 when not; Docker keeps what is printed."""
    if len(words) != 1 or words[0] not in _CHECKS:
        sys.stderr.write(f"usage: health.py {' | '.join(_CHECKS)}\n")
        return 1
    try:
        healthy = _CHECKS[words[0]](Settings.load(), own_address())
    except (BiddenError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{words[0]}: {'at work' if healthy else 'not seen by its servers'}\n")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
