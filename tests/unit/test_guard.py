"""Requests to addresses that others chose stay outside (guarantees 17)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from workers.guard import Inside, guarded_connector, is_open, open_socket

CLOSED = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.0.170", "192.0.2.1",
    "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::a00:1",
    "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:7f00:1::", "2001:db8::1", "2001:10::1", "fc00::1",
    "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "5f00::1", "3fff::1",
    "localhost", "2130706433", "0x7f.1",
]  # fmt: skip
OPEN = ["1.1.1.1", "8.8.8.8", "157.240.22.35", "::ffff:8.8.8.8", "2a03:2880:f10c:83:face:b00c:0:25de"]


@pytest.mark.parametrize("address", CLOSED)
def test_X11_special_addresses_are_closed(address: str) -> None:
    assert not is_open(address)


@pytest.mark.parametrize("address", OPEN)
def test_X11_the_public_internet_is_open(address: str) -> None:
    assert is_open(address)


def test_X11_only_web_ports_are_open() -> None:
    for port in (22, 25, 5432, 6379, 8000):
        with pytest.raises(Inside):
            open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", port)))
    open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))).close()


class _Liar(AbstractResolver):
    """A name server that says what it was told."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=self.address, port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "url",
    [
        "http://lookaside.fbsbx.com:8080/x",  # a public name that leads home
        "http://127.0.0.1:8080/",
        "http://localhost:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://[::1]:8080/",
        "http://①②⑦.0.0.1:8080/",
        "http://0x7f000001:8080/",
        "http://2130706433:8080/",
    ],
)
async def test_X11_no_spelling_and_no_name_reaches_a_listener_of_ours(url: str) -> None:
    """The socket is refused as it is opened, so nothing is ever connected."""
    opened: list[Any] = []

    def note(info: Any) -> socket.socket:
        opened.append(info[4])
        return open_socket(info)

    connector = guarded_connector(resolver=_Liar("127.0.0.1"))
    connector._socket_factory = note
    async with aiohttp.ClientSession(connector=connector) as client:
        with pytest.raises((aiohttp.ClientConnectorError, aiohttp.InvalidURL)) as refused:
            async with asyncio.timeout(5):
                await client.get(url)
    if isinstance(refused.value, aiohttp.ClientConnectorError):
        assert isinstance(refused.value.os_error, Inside)
        assert opened
