"""An embedded server that is a shell script, for tests of what all servers have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

from embedded.process import ProcessSpec, Report
from embedded.server import Server


@dataclass
class Shell(Server):
    """Ready when its script has written the file `up`."""

    name: ClassVar[str] = "shell"
    title: ClassVar[str] = "The shell"
    stop_seconds: ClassVar[float] = 0.3
    ready_seconds: ClassVar[float] = 5.0

    script: str = "echo > up; exec sleep 100"
    prepared: int = field(default=0)

    def prepare(self, report: Report) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "up").unlink(missing_ok=True)
        self.prepared += 1

    def spec(self) -> ProcessSpec:
        return ProcessSpec(["/bin/sh", "-c", self.script], cwd=self.folder)

    def ready(self) -> bool:
        return (self.folder / "up").exists()

    def recognises(self, process: psutil.Process) -> bool:
        return process.name() == "sleep"


@contextmanager
def shell_server(home: Path) -> Iterator[Shell]:
    """A server in a new home, killed at the end."""
    for name in ("logs", "run"):
        (home / name).mkdir()
    server = Shell(home)
    yield server
    server.kill()
