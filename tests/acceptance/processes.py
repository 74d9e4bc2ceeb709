"""`bidden` as real processes: commands that run to completion, and workers and dispatchers that tests stop or kill.

All output is kept, and `Bidden.close` searches it for passwords.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from config.settings import PREFIX, Settings
from embedded.process import end_with_owner
from schemas.vocabulary import Audience
from tests.acceptance import in_process

ROOT = Path(__file__).resolve().parents[2]
#: How long a condition may take to come true: far above what is expected, so that only real errors time out.
TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.02
#: The most of the time that looking at a condition takes: what is waited for needs the processors itself.
_POLL_SHARE = 0.2
_POLL_MOST_SECONDS = 0.5


def heed_hang_ups() -> None:
    """Processes that are started from now on heed SIGHUP, although `nohup` may have started this one."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def eventually(condition: Callable[[], bool], what: str, seconds: float = TIMEOUT_SECONDS) -> None:
    """Returns once the condition holds; fails with `what` when it does not in time."""
    end = time.monotonic() + seconds
    began = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now > end:
            pytest.fail(f"after {seconds:.0f} s still not: {what}")
        time.sleep(min(max((now - began) * (1 / _POLL_SHARE - 1), _POLL_SECONDS), _POLL_MOST_SECONDS))
        began = time.monotonic()


def environment(settings: Settings | None, **extra: str) -> dict[str, str]:
    """The environment of a process: of the BIDDEN_ variables only these settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    env |= {"PYTHONPATH": str(ROOT), f"{PREFIX}LOG_FORMAT": "json"}
    if settings is not None:
        for name in settings.model_fields_set:
            value = getattr(settings, name)
            if value is not None:
                env[PREFIX + name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return env | extra


@dataclass(frozen=True)
class Result:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """JSON Lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error object on stderr: its last line."""
        error: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        assert error.keys() == {"error", "detail", "line", "field"}, error
        return error


class Process:
    """A process of ours that runs until it is stopped. `log_reader`: what copies its log from a pipe, if it has one."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], folder: Path, name: str, stderr: int | None = None
    ) -> None:
        """`stderr` is a descriptor for its log in place of the file."""
        self.arguments = arguments
        self.out = folder / f"{name}.out"
        self.err = folder / f"{name}.err"
        self.log_reader: subprocess.Popen[bytes] | None = None
        with self.out.open("wb") as out, self.err.open("wb") as err:
            # No process outlives the tests, however they end.
            self.popen = subprocess.Popen(
                [*end_with_owner(signal.SIGKILL), sys.executable, "-P", "-m", "cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err if stderr is None else stderr,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
            )

    def __str__(self) -> str:
        return f"`bidden {' '.join(self.arguments)}`"

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log entries so far; lines that are not JSON are skipped."""
        found = []
        for line in self.err.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [entry for entry in found if isinstance(entry, dict)]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log entries with this event."""
        return [entry for entry in self.log if entry.get("event") == event]

    def close_log(self) -> None:
        """Wait until the log of a process that has ended is written."""
        if self.log_reader is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.log_reader.wait(5)

    def ready(self, seconds: float = TIMEOUT_SECONDS) -> Self:
        """Returns once it is a member of the group and has partitions."""

        def assigned() -> bool:
            assert self.running, self.log_tail()
            return any(entry["partitions"] for entry in self.logged("partitions assigned"))

        eventually(assigned, f"{self} has partitions", seconds)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; not an error if the process has ended."""
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, like a crash of the machine."""
        self.popen.kill()
        self.popen.wait(10)

    def end(self, seconds: float = 40.0) -> int:
        """Wait for the process to end; returns its exit code."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self} has not ended after {seconds:.0f} s\n{self.log_tail()}")

    def stop(self) -> None:
        """SIGTERM; it must exit 0."""
        self.signal(signal.SIGTERM)
        assert self.end() == 0, self.log_tail()

    def result(self, seconds: float = TIMEOUT_SECONDS) -> Result:
        """Wait for the process to end; returns its exit code and output."""
        code = self.end(seconds)
        return Result(code, self.out.read_text(), self.err.read_text())

    def log_tail(self) -> str:
        """The end of its log, for a failed assertion."""
        return f"{self}, code {self.popen.returncode}:\n{self.err.read_text(errors='replace')[-3000:]}"


class Bidden:
    """The command line on one set of settings, with a folder of its own."""

    def __init__(self, settings: Settings | None, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.processes: list[Process] = []
        self.secrets: set[str] = set()
        self._output: list[tuple[str, str]] = []
        if settings is not None and settings.database_url is not None:
            password = urlsplit(settings.database_url.get_secret_value()).password
            if password:
                self.secrets.add(password)

    @property
    def journals(self) -> Path:
        """Where its workers keep their journals, unless BIDDEN_STATE_DIR says otherwise."""
        return self.folder / ".bidden" / "state"

    def run(self, *arguments: str, code: int = 0, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
        """Run a command, which must end with this exit code. `env` holds further variables."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            input=stdin,
            capture_output=True,
            timeout=2 * TIMEOUT_SECONDS,
            cwd=self.folder,
            env=self._env(env or {}),
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        self._output.append((f"`bidden {' '.join(arguments)}`", result.out + result.err))
        assert result.code == code, f"{arguments}: {result.code}\n{result.out}\n{result.err}"
        return result

    def start(self, *arguments: str, **env: str) -> Process:
        """Start a process; keywords are environment variables.

        Call it from the main thread: the process ends with the thread that started it.
        """
        return self._start(arguments, env)

    def start_with_stderr(self, stderr: int, *arguments: str, **env: str) -> Process:
        """The same, with a descriptor for its log in place of a file."""
        return self._start(arguments, env, stderr)

    def start_piped(self, *arguments: str, **env: str) -> Process:
        """The same; its log goes through a pipe to the file, and the pipe's reader may be killed."""
        with (self.folder / f"{len(self.processes)}-{arguments[0]}.err").open("wb") as log:
            reader = subprocess.Popen(
                [*end_with_owner(signal.SIGKILL), "cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True
            )
        assert reader.stdin is not None
        with reader.stdin:
            process = self._start(arguments, env, reader.stdin.fileno())
        process.log_reader = reader
        return process

    def _start(self, arguments: Sequence[str], env: Mapping[str, str], stderr: int | None = None) -> Process:
        process = Process(arguments, self._env(env), self.folder, f"{len(self.processes)}-{arguments[0]}", stderr)
        self.processes.append(process)
        return process

    def worker(self, runner: str = "confluent", **env: str) -> Process:
        """A worker."""
        return self.start("worker", "--runner", runner, **env)

    def dispatcher(self) -> Process:
        """A dispatcher."""
        return self.start("dispatch")

    def import_lines(self, *lines: Mapping[str, Any], env: Mapping[str, str] | None = None) -> dict[str, int]:
        """As `bidden import` of these lines, in a process of its own only with `env`; returns the counts."""
        if env is None and self.settings is not None:
            return in_process.import_lines(self.settings, lines)
        text = b"\n".join(json.dumps(line).encode() for line in lines)
        counts: dict[str, int] = self.run("import", "-", "--json", stdin=text, env=env).json
        return counts

    def invite(self, audience: str = "students", *arguments: str, event: int = 1, code: int = 0) -> dict[str, Any]:
        """As `bidden invite`, in a process of its own only with arguments or another exit code; returns its JSON."""
        if not arguments and code == 0 and self.settings is not None:
            return in_process.invite(self.settings, Audience(audience), event)
        planned: dict[str, Any] = self.run(
            "invite", str(event), "--audience", audience, "--json", *arguments, code=code
        ).json
        return planned

    def status(self, batch: int) -> dict[str, Any]:
        """`bidden status`; returns its JSON."""
        found: dict[str, Any] = self.run("status", str(batch), "--json").json
        return found

    def close(self) -> None:
        """Kill what still runs; fail if any output holds a password."""
        for process in self.processes:
            if process.running:
                process.kill()
            self._output.append((str(process), process.out.read_text() + process.err.read_text(errors="replace")))
        for name, text in self._output:
            for secret in self.secrets:
                assert secret not in text, f"{name} shows a password"

    def _env(self, extra: Mapping[str, str]) -> dict[str, str]:
        return environment(self.settings, **extra)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
