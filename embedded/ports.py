"""Ports on 127.0.0.1: which are free, which were used before, and who has one that is taken."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from embedded.process import write_whole
from embedded.server import PortTakenError

HOST = "127.0.0.1"
# Below the range from which the system takes the local ends of outgoing connections, so that a stored port is still
# free at the next start.
LOWEST, HIGHEST = 20_000, 29_999


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier one that are still closing are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(wanted: Mapping[str, int | None], stored: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the wanted one, or an error; else the stored one if it is free; else any free one."""
    chosen: dict[str, int] = {}
    for name, fixed in wanted.items():
        if fixed is not None:
            if not is_free(fixed) or fixed in chosen.values():
                raise PortTakenError(
                    f"Port {fixed} on {HOST}, asked for as the {name} port, is taken{_by_whom(fixed)}. End that "
                    "process or choose another port."
                )
            chosen[name] = fixed
        elif (before := stored.get(name)) and before not in chosen.values() and is_free(before):
            chosen[name] = before
        else:
            chosen[name] = _any_free(set(chosen.values()) | {p for p in wanted.values() if p})
    return chosen


def load(path: Path) -> dict[str, int]:
    """The ports of the last start; none if there was none."""
    try:
        data = json.loads(path.read_text())
        return {str(name): int(port) for name, port in data.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def store(path: Path, ports: Mapping[str, int]) -> None:
    """Keeps the ports for the next start."""
    write_whole(path, json.dumps(ports))


def _any_free(not_these: set[int]) -> int:
    for _ in range(1000):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - not a secret
        if port not in not_these and is_free(port):
            return port
    raise PortTakenError(f"No free port on {HOST} between {LOWEST} and {HIGHEST} could be found.")


def _by_whom(port: int) -> str:
    """Names the process that listens there, where the system tells."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
