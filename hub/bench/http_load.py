"""A closed-loop HTTP load client: N keep-alive connections, each sends the next ready-made request when the
last one is answered.

Requests are built before the clock starts, so the client costs little beside the server. Run as a process of
its own: ``python -m hub.bench.http_load`` reads one JSON job from standard input and prints one JSON result.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop


class _Connection(asyncio.Protocol):
    """One connection: writes a request, counts the answer, writes the next."""

    def __init__(self, requests: Iterator[bytes], result: dict[str, Any], done: asyncio.Event) -> None:
        self.requests, self.result, self.done = requests, result, done
        self.buffer = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.next()

    def next(self) -> None:
        request = next(self.requests, None)
        if request is None or time.perf_counter() > self.result["until"]:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = (
            int(lower[at + 15 : lower.find(b"\r\n", at) if lower.find(b"\r\n", at) > 0 else None])
            if at >= 0
            else 0
        )
        if len(body) < length:
            return
        self.buffer = b""
        self.result["times"].append(time.perf_counter() - self.began)
        status = head[9:12].decode()
        self.result["statuses"][status] = self.result["statuses"].get(status, 0) + 1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.result["open"] -= 1
        if self.result["open"] == 0:
            self.done.set()


def whatsapp_requests(job: dict[str, Any]) -> list[bytes]:
    """Signed webhooks of ``job["senders"]`` known customers per account, each with its own message id."""
    numbers, senders, secret = job["numbers"], job["senders"], job["secret"].encode()
    out = []
    for n in range(job["count"]):
        sender = f"20{job['prefix']:03d}{n % senders:07d}"
        message = {
            "from": sender, "id": f"wamid.{job['prefix']}.{n}",
            "timestamp": str(int(time.time())), "type": "text",
            "text": {"body": f"Message number {n} of the benchmark, about as long as people write."},
        }  # fmt: skip
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550001111", "phone_number_id": numbers[n % len(numbers)]},
            "contacts": [{"profile": {"name": "Mona Hassan"}, "wa_id": sender}],
            "messages": [message],
        }
        body = json.dumps(
            {
                "object": "whatsapp_business_account",
                "entry": [{"id": "2", "changes": [{"field": "messages", "value": value}]}],
            }
        ).encode()
        signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
        out.append(
            f"POST {job['path']} HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Hub-Signature-256: sha256={signature}\r\n\r\n".encode()
            + body
        )
    return out


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """{"rate", "p50_ms", "p99_ms", "statuses", "cpu_share", "requests"} for one job."""
    requests = iter(whatsapp_requests(job))
    result: dict[str, Any] = {
        "times": [],
        "statuses": {},
        "open": job["connections"],
        "until": time.perf_counter() + job["seconds"],
    }
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    for _ in range(job["connections"]):
        await loop.create_connection(lambda: _Connection(requests, result, done), "127.0.0.1", job["port"])
    await done.wait()
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    times = sorted(result["times"])
    return {
        "requests": len(times),
        "rate": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1000 if times else 0,
        "p99_ms": times[int(len(times) * 0.99)] * 1000 if times else 0,
        "statuses": result["statuses"],
        "cpu_share": (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) / took,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
