"""Our own processes beside the embedded servers: dispatchers and workers, started again when they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from pydantic import SecretStr

from config.settings import Settings
from config.startup import load
from db.migrate import upgrade
from embedded.home import Addresses
from embedded.process import end_with_owner, spawn
from producers.topics import Topics

_BACK_OFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
#: Who ran that long is not in a loop of crashes.
_STEADY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.25
#: A worker bounds its own shutdown at 20 s.
_STOP_SECONDS: Final = 25.0


@dataclass
class _Child:
    name: str
    words: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    log: IO[bytes] | None = field(default=None, repr=False)


class Processes:
    """Starts `bidden` commands on the servers of a home, logs to its `logs` folder, and keeps them going."""

    def __init__(self, addresses: Addresses, extra: dict[str, str] | None = None) -> None:
        root = Path(__file__).resolve().parents[1]
        self._folder = Path(addresses.home)
        self._env = {
            **os.environ,
            # Ours and nobody else's, whatever the environment says: these processes belong to these servers.
            "BIDDEN_DATABASE_URL": addresses.database_url,
            "BIDDEN_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
            "BIDDEN_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "BIDDEN_SMTP_URL": addresses.smtp_url,
            "BIDDEN_HOME": addresses.home,
            "PYTHONPATH": os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH")) if p),
            **(extra or {}),
        }
        self._children: list[_Child] = []

    def add(self, name: str, *words: str) -> None:
        """Start `bidden WORDS`, and keep it started."""
        child = _Child(name, words)
        self._children.append(child)
        self._start(child)

    def supervise(self, until: threading.Event, report: Callable[[str], None]) -> None:
        """Start again what ends, with growing pauses while that fails, until the event is set."""
        while not until.wait(_LOOK_SECONDS):
            self.look(report)

    def look(self, report: Callable[[str], None]) -> None:
        """Start again what has ended, unless its pause is not over."""
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and (code := child.process.poll()) is not None:
                child.failures = 0 if now - child.started_at > _STEADY_SECONDS else child.failures + 1
                pause = _BACK_OFF_SECONDS[min(child.failures, len(_BACK_OFF_SECONDS) - 1)]
                report(f"{child.name} ended ({_ending(code)}); starting it again in {pause:g} s")
                child.process, child.not_before = None, now + pause
            if child.process is None and now >= child.not_before:
                self._start(child)

    def stop(self) -> None:
        """SIGTERM to all, and SIGKILL to who does not end within 25 s."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            if child.log is not None:
                child.log.close()
        self._children.clear()

    def _start(self, child: _Child) -> None:
        if child.log is None:
            logs = self._folder / "logs"
            logs.mkdir(exist_ok=True)
            child.log = (logs / f"{child.name}.log").open("ab")
        child.started_at = time.monotonic()
        # -P: the working directory's folders are not ours, whatever their names are.
        child.process = spawn(
            [*end_with_owner(signal.SIGTERM), sys.executable, "-P", "-m", "cli.main", *child.words],
            output=child.log,
            # Where `.env` was read here, it is read there.
            cwd=Path.cwd(),
            env=self._env,
        )


def prepare(addresses: Addresses) -> Settings:
    """Database to head and topics created, on the servers of a home; returns the settings that name them."""
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


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
