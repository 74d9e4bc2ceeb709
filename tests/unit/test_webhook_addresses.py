"""Which addresses a webhook may lead to."""

from __future__ import annotations

import pytest

from web.webhook_addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "192.0.2.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "64:ff9b:1::1", "2002:7f00:1::", "fc00::1", "fe80::1", "fe80::1%eth0", "ff02::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_inside(address: str) -> None:
    """Private, shared, loopback, link-local, multicast, unspecified, reserved; also as IPv4 inside an IPv6 address."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_of_the_internet(address: str) -> None:
    """Everything else."""
    assert is_public(address)
