"""Requests to addresses that somebody else chose must not reach our own network (guarantees 17).

The check sits in the connector's socket factory, on the very address that is about to be connected: what was
resolved and what is connected cannot differ, and no spelling of a host gets past it.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import aiohttp
from aiohttp.connector import AddrInfoType

PORTS: Final = frozenset((80, 443, 8080, 8443))
#: RFC 6890 and what has been added since; Python 3.11's `is_global` says yes to several of them.
_CLOSED: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
#: Only global unicast is open, and of it not what carries another address inside.
_OPEN_V6: Final = ip_network("2000::/3")
_CLOSED_V6: Final = tuple(
    ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)


class Inside(OSError):
    """The address is not open to requests of this kind."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "This address is not allowed")


def is_open(address: str) -> bool:
    """Whether a numeric address (a zone is ignored) belongs to the public internet."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        else:
            return ip in _OPEN_V6 and not any(ip in net for net in _CLOSED_V6)
    return not any(ip in net for net in _CLOSED)


def open_socket(info: AddrInfoType) -> socket.socket:
    """A socket for a public address and one of PORTS. Raises Inside."""
    family, kind, protocol, _, address = info
    host, port = str(address[0]), int(address[1])
    if family not in (socket.AF_INET, socket.AF_INET6) or port not in PORTS or not is_open(host):
        raise Inside
    return socket.socket(family, kind, protocol)


def guarded_connector(**options: Any) -> aiohttp.TCPConnector:
    """For a client whose addresses others chose. No connection is kept for the next one."""
    return aiohttp.TCPConnector(socket_factory=open_socket, force_close=True, **options)
