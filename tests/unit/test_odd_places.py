"""Odd places to start a command in: each works, or says what is missing."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.commands.local import up
from cli.output import out, table
from config.settings import Settings
from embedded import jars, os_user
from embedded.home import Addresses
from embedded.kafka import _environment
from embedded.stack import Stack
from schemas.errors import InstallError, RefusedError, SettingsError


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by its cause, and not as a file that cannot be found."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SettingsError, match="working directory does not exist any more"):
        Settings.load()


def test_neither_home_nor_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user of a container without an entry in /etc/passwd: what `up` cannot do is said."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "M2_REPO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(os, "geteuid", lambda: 123_456)
    with pytest.raises(InstallError, match="set HOME, or M2_REPO"):
        jars.repository()
    with pytest.raises(InstallError, match="uid 123456 has no entry"):
        os_user.os_user_for(tmp_path, tmp_path, tmp_path, ())


def test_java_reads_names_of_folders_as_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under LC_ALL=C it would not find a home with other letters."""
    monkeypatch.setenv("LC_ALL", "C")
    assert _environment()["LC_ALL"] == "C.UTF-8"


@pytest.mark.parametrize("flags", [["--workers", "2"], ["--site"]])
def test_up_beside_up_with_more_to_run(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused: the flags would be dropped. Without them the addresses are shown, as ever."""
    monkeypatch.setenv("BIDDEN_HOME", str(tmp_path))
    monkeypatch.setattr(Stack, "running_instance", lambda _: Addresses("postgresql://x", "x:1", "smtp://x", "/home"))
    refused = CliRunner().invoke(up, flags)
    assert isinstance(refused.exception, RefusedError)
    assert "beside it" in refused.exception.detail
    assert CliRunner().invoke(up, ["--json"], catch_exceptions=False).exit_code == 0


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict and the whole cause are on one line, however long it is."""
    cause = "the cause " * 60
    monkeypatch.setattr(out, "width", 100_000)
    table("Doctor", ["check", "ok", "detail"], [["database", "FAILED", cause.strip()]], folds="detail")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "database" in line]
    assert "FAILED" in line
    assert cause.strip() in line
