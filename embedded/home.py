"""The folder of the embedded servers: its owner, and what other processes read from it.

One process at a time owns it, by a lock that ends with the process, however it ends. `instance.json` holds the
addresses of the running servers for other processes; the product's settings read `settings.env`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from config.settings import HOME_SETTINGS_FILE
from embedded.process import ProcessId, write_atomically
from schemas.errors import InstallError, RefusedError

NEEDED_BYTES = 500_000_000
INSTANCE = "instance.json"


@dataclass(frozen=True)
class Addresses:
    """Where the servers are. The database's address holds its password."""

    database_url: str
    kafka_bootstrap: str
    smtp_url: str
    home: str

    def settings(self) -> str:
        """The text of `settings.env`."""
        return (
            "# Written by `bidden up`; the servers in this folder.\n"
            f"BIDDEN_DATABASE_URL={self.database_url}\n"
            f"BIDDEN_KAFKA_BOOTSTRAP={self.kafka_bootstrap}\n"
            f"BIDDEN_SMTP_URL={self.smtp_url}\n"
        )


class Home:
    """The folder and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    def acquire(self) -> None:
        """Creates and locks the folder. RefusedError: another process owns it; InstallError: it cannot be used."""
        self._make()
        # Python's descriptors are not inherited: no child keeps the lock.
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            owner = self._owner()
            by = f" by process {owner.pid}" if owner else ""
            raise RefusedError(
                f"The servers in {self.path} are already run{by}. Use them as they are, stop that process, or set "
                "BIDDEN_HOME to another folder."
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Unlocks the folder and removes the addresses from it."""
        if self._lock is not None:
            (self.path / INSTANCE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def announce(self, addresses: Addresses) -> None:
        """Publishes the addresses to other processes until the folder is released."""
        me = ProcessId.of(os.getpid())
        assert me is not None
        write_atomically(self.path / HOME_SETTINGS_FILE, addresses.settings())
        write_atomically(self.path / INSTANCE, json.dumps({"owner": asdict(me), "addresses": asdict(addresses)}))

    def running(self) -> Addresses | None:
        """The addresses of the servers that a living process runs here; None when there is none."""
        owner = self._owner()
        if owner is None or not owner.alive():
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Addresses(**json.loads((self.path / INSTANCE).read_text())["addresses"])
        return None

    def _owner(self) -> ProcessId | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return ProcessId(**json.loads((self.path / INSTANCE).read_text())["owner"])
        return None

    def _make(self) -> None:
        try:
            # The database's user may traverse it, and read nothing.
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
            if os.geteuid() not in {0, owner}:
                raise InstallError(
                    f"The folder {self.path} belongs to another user (uid {owner}). Set BIDDEN_HOME to your own."
                )
            for name in ("logs", "run"):
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise InstallError(
                f"The folder {self.path} cannot be used for the embedded servers: {error.strerror or error}. "
                "Set BIDDEN_HOME to a writable folder."
            ) from error
        free = shutil.disk_usage(self.path).free
        if free < NEEDED_BYTES:
            raise InstallError(
                f"Only {free // 1_000_000} MB of disk space are left at {self.path}; the embedded servers need "
                f"{NEEDED_BYTES // 1_000_000} MB. Free some, or set BIDDEN_HOME to a folder elsewhere."
            )
