"""The health check of a container: whether its worker or dispatcher is connected to its server.

    python health.py worker | dispatcher

Compose starts a dead process again, and a process that makes no progress ends itself: neither needs a check. The
check finds a process that runs but is cut off. It asks the servers: the brokers, whether a member of the consumer
group has this container's address; PostgreSQL, whether a dispatcher is connected from this address.
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
from db.statements import sql
from schemas.errors import BiddenError

_TIMEOUT_SECONDS: Final = 5.0


def own_address() -> str:
    """The address of this container in its network."""
    return socket.gethostbyname(socket.gethostname())


def worker_is_member(settings: Settings, address: str) -> bool:
    """Whether the brokers have a member of the workers' group with this address."""
    admin = AdminClient({**client_config(settings, "bidden-health"), "log_level": 0})
    description = admin.describe_consumer_groups([settings.group], request_timeout=_TIMEOUT_SECONDS)[settings.group]
    try:
        members = description.result(timeout=_TIMEOUT_SECONDS).members
    except (KafkaException, TimeoutError):
        return False
    return any(member.host.lstrip("/") == address for member in members)


def dispatcher_is_connected(settings: Settings, address: str) -> bool:
    """Whether PostgreSQL has a connection of a dispatcher from this address."""
    with connect(settings.require_database(), application="bidden-health", autocommit=True) as conn:
        return conn.execute(sql("dispatcher_from"), {"address": address}).fetchone() is not None


_CHECKS: Final = {"worker": worker_is_member, "dispatcher": dispatcher_is_connected}


def main(arguments: list[str]) -> int:
    """Returns 0 if healthy, else 1. `docker inspect` shows the output."""
    if len(arguments) != 1 or arguments[0] not in _CHECKS:
        sys.stderr.write(f"usage: health.py {' | '.join(_CHECKS)}\n")
        return 1
    try:
        healthy = _CHECKS[arguments[0]](Settings.load(), own_address())
    except (BiddenError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments[0]}: {'connected' if healthy else 'not connected to its server'}\n")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
