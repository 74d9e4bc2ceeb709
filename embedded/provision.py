"""What the product needs on fresh servers before any of its commands: the database schema and the topics."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from config.settings import Settings
from config.startup import load
from db.migrate import upgrade
from embedded.home import Addresses
from producers.topics import Topics


def provision(addresses: Addresses) -> Settings:
    """Migrates the database to head and creates the topics; returns the settings that name these servers."""
    settings = load().model_copy(
        update={
            "database_url": SecretStr(addresses.database_url),
            "kafka_bootstrap": addresses.kafka_bootstrap,
            "kafka_security_protocol": "PLAINTEXT",
            "smtp_url": SecretStr(addresses.smtp_url),
            "home": Path(addresses.home),
        }
    )
    upgrade(addresses.database_url)
    Topics(settings).create()
    return settings
