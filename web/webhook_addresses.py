"""Where a webhook may lead: addresses of the internet, and others only where a setting allows them.

A name is resolved once, every address that it has is checked, and the connection goes to one of those: a second
look-up could give another answer.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

#: IPv6 networks that hold an IPv4 address in their last 32 bits, which a gateway would connect to.
_TRANSLATED: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"), ip_network("::/96"))


class ForbiddenAddressError(Exception):
    """The webhook's host is in a network that is not the internet."""


def is_public(address: str) -> bool:
    """Whether it is one of the internet: neither private nor loopback, link-local, multicast, unspecified, reserved."""
    ip = ip_address(address.partition("%")[0])
    hidden = _hidden_in(ip)
    if hidden is not None:
        return is_public(str(hidden))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


def leads_to_private(host: str) -> bool:
    """Whether the host is one of our own networks by its text alone: such an address, or this machine's name."""
    try:
        return not is_public(host)
    except ValueError:
        return host.lower().rstrip(".").rpartition(".")[2] == "localhost"


def _hidden_in(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address in an IPv6 address of a transition mechanism."""
    if isinstance(ip, IPv4Address):
        return None
    if any(ip in network for network in _TRANSLATED):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The host's addresses, in the order to try. ForbiddenAddressError if one of them is forbidden; OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and (forbidden := [address for address in addresses if not is_public(address)]):
        raise ForbiddenAddressError(
            f"{forbidden[0]} is not an address of the internet: BIDDEN_WEBHOOK_ALLOW_PRIVATE allows such"
        )
    return addresses
