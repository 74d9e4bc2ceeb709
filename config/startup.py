"""The first step of every process: load the settings and set up logging."""

from __future__ import annotations

from config import kafka_tls
from config.logs import set_up_logs
from config.settings import Settings


def load(*, logs_as_json: bool = False) -> Settings:
    """The settings, with logging set up for them. SettingsError for a setting that makes no sense."""
    settings = Settings.load()
    if logs_as_json:
        settings = settings.model_copy(update={"log_format": "json"})
    set_up_logs(settings)
    kafka_tls.check(settings)
    return settings
