"""Who is at the other end."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from hub.edge import client_address, network_of
from hub.settings import Settings, load_settings


def settings(proxies: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": "postgresql://db/hub",
            "REDIS_URL": "redis://c",
            "HUB_SECRET_KEY": "k" * 32,
            "HUB_TRUSTED_PROXIES": proxies,
        }
    )


@pytest.mark.parametrize(
    ("proxies", "remote", "forwarded", "expected"),
    [
        ("", "203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("10.0.0.0/8", "203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", "spoofed, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4, 10.0.0.7", "1.2.3.4"), ("10.0.0.1", "10.0.0.1", "", "10.0.0.1"),
        ("nonsense", "10.0.0.1", "1.2.3.4", "10.0.0.1"),
    ],
)  # fmt: skip
def test_client_address(proxies: str, remote: str, forwarded: str, expected: str) -> None:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request: Any = make_mocked_request("GET", "/", headers=headers)
    assert client_address(request.clone(remote=remote), settings(proxies)) == expected


@pytest.mark.parametrize(
    ("address", "network"),
    [("203.0.113.9", "203.0.113.0/24"), ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"), ("unknown", "unknown")],
)
def test_network_of(address: str, network: str) -> None:
    assert network_of(address) == network
