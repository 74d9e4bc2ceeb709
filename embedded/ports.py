"""Ports on 127.0.0.1: chosen, stored for the next start, and checked."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from embedded.process import write_atomically
from embedded.server import PortTakenError

HOST = "127.0.0.1"
# Below the system's ephemeral ports, so that no outgoing connection takes a stored port before the next start.
LOWEST, HIGHEST = 20_000, 29_999


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(wanted: Mapping[str, int | None], stored: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the wanted one, or PortTakenError; else the stored one if it is free; else any free one."""
    chosen: dict[str, int] = {}
    for name, fixed in wanted.items():
        if fixed is not None:
            if not is_free(fixed) or fixed in chosen.values():
                raise PortTakenError(
                    f"Port {fixed} on {HOST}, requested as the {name} port, is taken{_by_process(fixed)}. End that "
                    "process or choose another port."
                )
            chosen[name] = fixed
        elif (previous := stored.get(name)) and previous not in chosen.values() and is_free(previous):
            chosen[name] = previous
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
    write_atomically(path, json.dumps(ports))


def _any_free(excluded: set[int]) -> int:
    for _ in range(1000):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - not a secret
        if port not in excluded and is_free(port):
            return port
    raise PortTakenError(f"There is no free port on {HOST} between {LOWEST} and {HIGHEST}.")


def _by_process(port: int) -> str:
    """The process that listens there, if the system shows it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
