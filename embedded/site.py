"""The web application beside the embedded servers, at an address that stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from embedded import ports
from embedded.commands import Commands

_PORTS_FILE: Final = "site.json"


def choose_address(home: Path) -> str:
    """The address for the site of this home: the one of the last start, if its port is still free."""
    file = home / _PORTS_FILE
    chosen = ports.choose({"site": None}, ports.load(file))
    ports.store(file, chosen)
    return f"http://{ports.HOST}:{chosen['site']}"


def start(commands: Commands, address: str) -> None:
    """Starts `bidden serve` at an address that `choose_address` returned."""
    commands.start("site", "serve", "--port", address.rpartition(":")[2])
