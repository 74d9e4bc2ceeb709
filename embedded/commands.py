"""`bidden` commands as child processes on the servers of a home: dispatchers, workers, the web application."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from embedded.home import Addresses
from embedded.process import ProcessSpec, end_with_owner, module_command, module_environment, spawn, stop_child

#: A worker limits its own shutdown to 20 s.
_STOP_SECONDS: Final = 25.0
#: The title of `bidden sync`, which no monitor asks.
SYNC: Final = "sync"


class CommandProcess:
    """`bidden ARGUMENTS`, which appends its output to a log file."""

    def __init__(self, title: str, arguments: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.title = title
        self.wanted = False
        self._arguments = arguments
        self._log = log
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        # A supervisor may be about to start it again while its owner stops it.
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last process."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Does not wait until it is ready."""
        with self._lock:
            self.wanted = True
            self._start()

    def _start(self) -> None:
        argv = [*end_with_owner(signal.SIGTERM), *module_command("cli.main"), *self._arguments]
        with self._log.open("ab") as output:
            # In the same folder it reads the same `.env`.
            self._process = spawn(ProcessSpec([*argv], cwd=Path.cwd(), env=self._env), output)

    def revive(self, _: object) -> None:
        """Starts it if it is still wanted."""
        with self._lock:
            if self.wanted:
                self._start()

    def ask_to_stop(self) -> None:
        """SIGTERM; `stop` waits."""
        with self._lock:
            self.wanted = False
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL if it has not ended after so many seconds."""
        with self._lock:
            self.wanted = False
        if self._process is not None:
            stop_child(self._process, signal.SIGTERM, seconds)


def port_offset(title: str) -> int:
    """What is added to BIDDEN_METRICS_PORT: for the dispatcher 0, the site 1, the first worker 2, and so on."""
    if title.startswith("worker-"):
        return 1 + int(title.removeprefix("worker-"))
    return {"dispatcher": 0, "site": 1}[title]


class Commands:
    """All commands of a home. Their logs are in its `logs` folder."""

    def __init__(self, addresses: Addresses, *, base_url: str | None = None, metrics_port: int | None = None) -> None:
        """`metrics_port`: the first of the ports for monitors, of which each process gets one (`port_offset`)."""
        self._metrics_port = metrics_port
        self.all: list[CommandProcess] = []
        self._logs = Path(addresses.home) / "logs"
        # Whatever the environment says: these processes belong to these servers.
        self._env = module_environment() | {
            "BIDDEN_DATABASE_URL": addresses.database_url,
            "BIDDEN_KAFKA_BOOTSTRAP": addresses.kafka_bootstrap,
            "BIDDEN_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "BIDDEN_SMTP_URL": addresses.smtp_url,
            "BIDDEN_HOME": addresses.home,
        }
        if base_url is not None:
            self._env["BIDDEN_BASE_URL"] = base_url

    def start(self, title: str, *arguments: str) -> None:
        """Starts `bidden ARGUMENTS`, which logs to `TITLE.log`."""
        self._logs.mkdir(exist_ok=True)
        env = self._env
        if self._metrics_port is not None and title != SYNC:
            env = env | {"BIDDEN_METRICS_PORT": str(self._metrics_port + port_offset(title))}
        command = CommandProcess(title, arguments, self._logs / f"{title}.log", env)
        self.all.append(command)
        command.start()

    def stop(self) -> None:
        """Stops all of them at the same time, within 25 s; kills what has not ended by then."""
        for command in self.all:
            command.ask_to_stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for command in self.all:
            command.stop(max(0.1, deadline - time.monotonic()))
        self.all.clear()
