"""The home of the embedded servers: its owner, what it publishes, and its ports."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from config.settings import HOME_SETTINGS_FILE
from embedded import ports
from embedded.home import INSTANCE, NEEDED_BYTES, Addresses, Home
from embedded.process import ProcessId
from schemas.errors import InstallError, RefusedError

ADDRESSES = Addresses("postgresql://bidden:secret@127.0.0.1:1/bidden", "127.0.0.1:2", "smtp://127.0.0.1:3", "/home")


def test_only_the_owner_reads_the_settings(tmp_path: Path) -> None:
    """settings.env has the three addresses and only its owner reads it; others may only traverse the folder."""
    home = Home(tmp_path / "home")
    home.acquire()
    home.announce(ADDRESSES)
    written = home.path / HOME_SETTINGS_FILE
    assert written.stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o066 == 0
    assert dict(line.split("=", 1) for line in written.read_text().splitlines() if not line.startswith("#")) == {
        "BIDDEN_DATABASE_URL": ADDRESSES.database_url,
        "BIDDEN_KAFKA_BOOTSTRAP": ADDRESSES.kafka_bootstrap,
        "BIDDEN_SMTP_URL": ADDRESSES.smtp_url,
    }
    home.release()


def test_a_second_process_finds_the_first(tmp_path: Path) -> None:
    """While the home is locked, its addresses are found and a second owner is refused; afterwards neither."""
    first, second = Home(tmp_path), Home(tmp_path)
    assert second.running() is None
    first.acquire()
    first.announce(ADDRESSES)
    assert second.running() == ADDRESSES
    with pytest.raises(RefusedError, match=str(os.getpid())):
        second.acquire()
    first.release()
    assert second.running() is None
    second.acquire()
    second.release()


def test_a_killed_owner_is_no_owner(tmp_path: Path) -> None:
    """The addresses of a killed process are ignored, even when its process id is in use again."""
    home = Home(tmp_path)
    home.acquire()
    home.announce(ADDRESSES)
    announced = json.loads((tmp_path / INSTANCE).read_text())
    announced["owner"]["started"] -= 1000  # our own process id, given to another process before
    (tmp_path / INSTANCE).write_text(json.dumps(announced))
    assert home.running() is None
    (tmp_path / INSTANCE).write_text("{half")
    assert home.running() is None
    home.release()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """A path that cannot be a folder is refused; the error names the variable to set."""
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=r"file/home cannot be used.*BIDDEN_HOME"):
        Home(tmp_path / "file" / "home").acquire()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    """A folder without write permission is refused; the error names the variable to set."""
    tmp_path.chmod(0o500)
    with pytest.raises(InstallError, match="BIDDEN_HOME"):
        Home(tmp_path).acquire()


def test_another_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user is refused."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InstallError, match="another user"):
        Home(tmp_path).acquire()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little disk space is an error before anything is downloaded or created."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=NEEDED_BYTES - 1))
    with pytest.raises(InstallError, match="disk space"):
        Home(tmp_path).acquire()


def test_ports_are_kept() -> None:
    """Stored ports are chosen again, and no two names get the same one."""
    first = ports.choose({"a": None, "b": None}, {})
    assert len(set(first.values())) == 2
    assert ports.choose({"a": None, "b": None}, first) == first
    same = ports.choose({"a": None, "b": None}, {"a": first["a"], "b": first["a"]})
    assert same["a"] == first["a"] != same["b"]


def test_a_port_that_is_taken() -> None:
    """A stored port that is taken is replaced; a requested one is refused, with its number."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert ports.choose({"a": None}, {"a": taken})["a"] != taken
        with pytest.raises(InstallError, match=rf"Port {taken} .* smtp .* taken by process {os.getpid()}"):
            ports.choose({"smtp": taken}, {})


def test_a_broken_file_of_ports_is_ignored(tmp_path: Path) -> None:
    """A missing or broken file means no stored ports."""
    path = tmp_path / "ports.json"
    assert ports.load(path) == {}
    path.write_text("[1]")
    assert ports.load(path) == {}
    ports.store(path, {"a": 1})
    assert ports.load(path) == {"a": 1}


def test_process_identity() -> None:
    """A process is not the one that had its number before."""
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert not ProcessId(me.pid, me.started - 1).alive()
    assert ProcessId.of(2**22 + 1) is None
