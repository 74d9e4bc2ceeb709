"""The endpoint for monitors, wired for one process: BIDDEN_METRICS_PORT. Without it nothing listens or asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from config.settings import Settings
from schemas.errors import SettingsError

_HIGHEST: Final = 65_535


def open_endpoint(process: Literal["worker", "dispatcher", "web"], settings: Settings) -> None:
    """Listen for monitors, until the process ends. SettingsError where that cannot be; called before anything else."""
    if settings.metrics_port is None:
        return
    import structlog

    from config import metrics
    from config.health import HEALTH
    from monitoring import sampling
    from monitoring.endpoint import Endpoint

    # Before anything is open: they need settings that may be missing.
    samplers = sampling.samplers(process, settings, HEALTH)
    endpoint = Endpoint(settings.metrics_host, settings.metrics_port, metrics.TABLE.registry(process), HEALTH)
    HEALTH.starting()
    metrics.show_version()
    if process == metrics.WORKER:
        sampling.show_disk(settings.state_folder)
    for sampler in samplers:
        sampler.start()
    endpoint.start()
    structlog.get_logger().info("monitors can connect", host=settings.metrics_host, port=settings.metrics_port)


def check_ports(settings: Settings, titles: Sequence[str]) -> list[str]:
    """Where the processes of `bidden up` with these titles can be monitored: `dispatcher http://127.0.0.1:9000`.

    SettingsError where one of their ports is taken; none without BIDDEN_METRICS_PORT.
    """
    if settings.metrics_port is None:
        return []
    from embedded.commands import port_offset
    from monitoring.endpoint import listen

    found = []
    for title in titles:
        port = settings.metrics_port + port_offset(title)
        if port > _HIGHEST:
            raise SettingsError(
                f"BIDDEN_METRICS_PORT: {title} would get port {port}, and there is none above {_HIGHEST}",
                field="BIDDEN_METRICS_PORT",
            )
        listen(settings.metrics_host, port).close()
        host = f"[{settings.metrics_host}]" if ":" in settings.metrics_host else settings.metrics_host
        found.append(f"{title} http://{host}:{port}")
    return found
