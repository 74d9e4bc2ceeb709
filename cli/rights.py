"""Whether a process may do what it has to: asked at its start, where a person sees the answer."""

from __future__ import annotations

from config.rights import Process
from config.settings import Settings
from schemas.errors import RefusedError


def require_rights(settings: Settings, process: Process, *, kafka: bool = True) -> None:
    """RefusedError names each right that the users of database and Kafka lack. The servers must be reachable."""
    from db import rights as of_database
    from db.connect import connect
    from producers import rights as of_kafka

    with connect(settings.require_database(), autocommit=True) as conn:
        lacks = of_database.missing(conn, [process], advised=False)
    if lacks:
        said = f"BIDDEN_DATABASE_URL: its user lacks {'; '.join(lacks)}: see deploy/grants.sql"
        raise RefusedError(said, field="BIDDEN_DATABASE_URL")
    if kafka and (lacks := of_kafka.missing(settings, [process])):
        said = f"BIDDEN_KAFKA_BOOTSTRAP: this user lacks {'; '.join(lacks)}: see deploy/acls"
        raise RefusedError(said, field="BIDDEN_KAFKA_BOOTSTRAP")
