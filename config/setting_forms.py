"""The forms of settings that are more than a number or a word: durations, and the name for EHLO. Pure.

Each raises ValueError with what is wanted, never with what was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

_DURATION: Final = re.compile(r"([1-9][0-9]{0,7})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 30 * 86_400
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


def duration(value: str) -> str:
    """`90s`, `30m`, `24h` or `5d`."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError("must look like 90s, 30m, 24h or 5d")
    if seconds(value) > _LONGEST:
        raise ValueError("must not be more than 30d")
    return value


def seconds(value: str) -> float:
    """How many a duration has that `duration` admits."""
    return float(int(value[:-1]) * _UNITS[value[-1]])


def hello_name(value: str) -> str:
    """What EHLO may say (RFC 5321, 4.1.3)."""
    if not is_host_name(value) and not _is_literal(value):
        raise ValueError("must be a full host name (mail.example.org) or an address literal ([192.0.2.1])")
    return value


def proxy_networks(value: str) -> list[str]:
    """`10.0.0.1,172.16.0.0/12` as networks; `none`: there are none."""
    if value.strip() == "none":
        return []
    try:
        networks = [ip_network(part.strip()) for part in value.split(",")]
    except ValueError:
        raise ValueError(
            "must be addresses or networks separated by commas, such as 10.0.0.1,172.16.0.0/12, or none"
        ) from None
    if not all(network.prefixlen for network in networks):
        raise ValueError("must not be everybody: any client could then claim any address")
    return [str(network) for network in networks]


def is_host_name(name: str) -> bool:
    """Whether it is a full one: at least two labels, the last with a letter in it."""
    last = name.rpartition(".")[2]
    return len(name) <= 253 and _HOST_NAME.fullmatch(name) is not None and not last.isdigit()


def _is_literal(name: str) -> bool:
    if not (name.startswith("[") and name.endswith("]")):
        return False
    version, address = (6, name[6:-1]) if name[1:6].upper() == "IPV6:" else (4, name[1:-1])
    try:
        return "%" not in address and ip_address(address).version == version
    except ValueError:
        return False


def parsed_by(parse: Callable[[str], object]) -> Callable[[str | None], str | None]:
    """For a setting that stays the text that it is: what its parser refuses is refused."""

    def check(value: str | None) -> str | None:
        if value:
            parse(value)
        return value

    return check
