"""The units of systemd agree with the code and with each other. `make deploy-check` has systemd itself verify them."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest

from cli.main import cli
from config.settings import PREFIX, Settings
from schemas.errors import EXIT_REFUSED
from streams.watchdog import SHUTDOWN_SECONDS
from tests.tables import ROOT

UNITS: Final = ROOT / "deploy" / "systemd"
SERVICES: Final = sorted(path.name for path in UNITS.glob("*.service"))
COMMON: Final = UNITS / "bidden-.service.d" / "common.conf"
_FIELDS: Final = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def _read(path: Path) -> ConfigParser:
    """The unit; of an option that is there twice, the last."""
    parser = ConfigParser(interpolation=None, strict=False, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # as the documentation of ConfigParser says
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("name", SERVICES)
def test_each_unit_runs_a_command(name: str) -> None:
    """It belongs to the target, and systemd reads the common part for it, by the beginning of its name."""
    unit = _read(UNITS / name)
    program, command, *_ = unit["Service"]["ExecStart"].split()
    assert program == "/opt/bidden/.venv/bin/bidden"
    assert command in cli.commands
    assert unit["Install"]["WantedBy"] == "bidden.target"
    assert name.startswith(COMMON.parent.name.removesuffix(".service.d"))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"bidden-migrate.service"}))
def test_what_stays_is_started_again(name: str) -> None:
    """FM-08: always, but after exit code 2; and it has longer to stop than it takes."""
    service = _read(UNITS / name)["Service"]
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) >= SHUTDOWN_SECONDS + 5 + 5
    common = _read(COMMON)
    assert common["Service"]["RestartPreventExitStatus"] == str(EXIT_REFUSED)
    assert common["Unit"]["StartLimitIntervalSec"] == "0"


def test_settings_exist_and_ports_differ() -> None:
    """Each variable of a unit, and of the file that is copied, is a setting; each process has a port of its own."""
    ports = []
    for name in SERVICES:
        text = (UNITS / name).read_text(encoding="utf-8")
        given = dict(re.findall(r"^Environment=(\w+)=(\S+)$", text, re.MULTILINE))
        assert set(given) <= _FIELDS, name
        ports.append(given.get(f"{PREFIX}METRICS_PORT"))
    # No monitor asks `migrate` and `sync`.
    assert ports.count(None) == 2
    assert len(set(ports)) == len(SERVICES) - 1
    example = (UNITS / "bidden.env").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) <= _FIELDS


def test_journals_are_in_the_state_directory() -> None:
    """systemd makes the folder for the user, and it is the only one that can be written."""
    (folder,) = re.findall(
        rf"^Environment={PREFIX}STATE_DIR=(\S+)$", (UNITS / "bidden-worker@.service").read_text("utf-8"), re.MULTILINE
    )
    service = _read(COMMON)["Service"]
    assert folder == f"/var/lib/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] not in {"", "root"}
    # A journal names the start of the machine, which is read from /proc/sys.
    assert "ProcSubset" not in service
