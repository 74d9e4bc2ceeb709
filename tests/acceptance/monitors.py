"""A monitor: asks processes for their metrics and their health, as Prometheus and Kubernetes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from embedded import ports
from tests.acceptance.processes import eventually

#: Far above what an answer takes; a process that is stopped gives none.
_SECONDS = 3.0


def _key(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if labels else name


@dataclass
class Monitor:
    """Of one process; `env` is what it is started with."""

    port: int = field(default_factory=lambda: ports.choose({"monitors": None}, {})["monitors"])

    @property
    def env(self) -> dict[str, str]:
        """The settings of the process."""
        return {"BIDDEN_METRICS_PORT": str(self.port)}

    def ask(self, path: str) -> httpx.Response:
        """An answer; httpx.HTTPError where there is none in time."""
        # Without the authorities of TLS, which take longer to load than the answer takes.
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=_SECONDS, verify=False)

    def metrics(self) -> dict[str, float]:
        """The values by `name{label="value"}`, as they are written."""
        families = text_string_to_metric_families(self.ask("/metrics").text)
        return {_key(sample.name, sample.labels): sample.value for family in families for sample in family.samples}

    def value(self, name: str, **labels: str) -> float | None:
        """One value; None where it is absent."""
        return self.metrics().get(_key(name, labels))

    def code(self, path: str) -> int | None:
        """The status code; None where there is no answer in time."""
        try:
            return self.ask(path).status_code
        except httpx.HTTPError:
            return None

    def reasons(self, path: str) -> dict[str, Any]:
        """Why it is not so; nothing where it is."""
        found: dict[str, Any] = self.ask(path).json().get("reasons", {})
        return found

    def wait(self, path: str, code: int | None, seconds: float = 60.0) -> None:
        """Returns once it answers so."""
        eventually(lambda: self.code(path) == code, f"{path} answers {code}", seconds)

    def wait_value(self, name: str, expected: float | None, **labels: str) -> None:
        """Returns once the metric has this value."""

        def has() -> bool:
            try:
                return self.value(name, **labels) == expected
            except httpx.HTTPError:
                return False

        eventually(has, f"{name} {labels} is {expected}")
