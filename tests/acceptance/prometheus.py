"""A real Prometheus with the alerts of `deploy/prometheus/rules.yml`, in a hurry: its minutes are seconds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
import pytest
import yaml

from embedded import ports
from embedded.process import end_with_owner
from tests.acceptance.monitors import Monitor
from tests.acceptance.processes import ROOT, eventually

_RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
#: The rules' windows and thresholds of time, shorter.
_HURRY = ((r"for: \w+", "for: 0s"), (r"\[10m\]", "[6s]"), (r"offset 10m", "offset 6s"), (r"> 900\b", "> 3"))


class Prometheus:
    """Scrapes monitors every second. A context."""

    def __init__(self, folder: Path, monitors: Sequence[Monitor]) -> None:
        """Skips the test where Prometheus is not installed; the gate installs it."""
        program = os.environ.get("BIDDEN_TEST_PROMETHEUS") or shutil.which("prometheus")
        if program is None:
            pytest.skip("no prometheus: install the package `prometheus`, or set BIDDEN_TEST_PROMETHEUS")
        self._program = program
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        self._port = ports.choose({"prometheus": None}, {})["prometheus"]
        rules = _RULES.read_text()
        for pattern, hurried in _HURRY:
            rules, count = re.subn(pattern, hurried, rules)
            assert count, f"the rules have no {pattern} any more"
        (self._folder / "rules.yml").write_text(rules)
        targets = [f"127.0.0.1:{monitor.port}" for monitor in monitors]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "bidden", "static_configs": [{"targets": targets}]}],
        }
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *end_with_owner(signal.SIGKILL),
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        eventually(lambda: self._get("/-/ready") is not None, "Prometheus is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)

    def _get(self, path: str) -> httpx.Response | None:
        try:
            # Without the authorities of TLS, which take longer to load than the answer takes.
            answer = httpx.get(f"http://127.0.0.1:{self._port}{path}", timeout=5, verify=False)
        except httpx.HTTPError:
            return None
        return answer if answer.status_code == 200 else None

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answer = self._get("/api/v1/alerts")
            answers.extend([answer] if answer else [])
            return bool(answers)

        # Scrapes of a second and a busy machine: it may miss one question.
        eventually(answered, "Prometheus answers")
        alerts = answers[0].json()["data"]["alerts"]
        return {found["labels"]["alertname"] for found in alerts if found["state"] == "firing"}

    def wait_firing(self, name: str) -> None:
        """Returns once the alert fires."""
        eventually(lambda: name in self.firing(), f"{name} fires")

    def wait_clear(self, name: str) -> None:
        """Returns once it has ended."""
        eventually(lambda: name not in self.firing(), f"{name} is over")
