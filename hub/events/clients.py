"""Clients of Redis, all of them impatient: a hint that does not get through is left to the log."""

from __future__ import annotations

from typing import Any

import redis.asyncio
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

Redis = redis.asyncio.Redis


class _SaysThatItIsLost:
    """uvloop raises RuntimeError for a write on a connection that was reset a moment ago, which no caller
    of redis-py (8.1) expects."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError("The connection is closed") from error


class _Tcp(_SaysThatItIsLost, Connection):
    pass


class _Tls(_SaysThatItIsLost, SSLConnection):
    pass


class _Unix(_SaysThatItIsLost, UnixDomainSocketConnection):
    pass


_OURS: dict[type, type] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def make_redis(
    url: str, *, connect_s: float, command_s: float | None, connections: int = 32, **options: Any
) -> Redis:
    """A client that never repeats a command by itself. Nothing connects before the first use. `command_s`
    None: for subscribers alone, whose waits have deadlines of their own."""
    client: Redis = Redis.from_url(
        url,
        socket_connect_timeout=connect_s,
        socket_timeout=command_s,
        retry=Retry(NoBackoff(), 0),  # a repeated PUBLISH is a duplicate at best
        max_connections=connections,
        **options,
    )
    pool = client.connection_pool
    pool.connection_class = _OURS[pool.connection_class]
    return client
