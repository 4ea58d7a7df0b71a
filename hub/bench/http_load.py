"""A closed-loop HTTP load client: N keep-alive connections, each sends the next ready-made request when the
last one is answered.

Requests are built before the clock starts, so the client costs little beside the server. Run as a process of
its own: ``python -m hub.bench.http_load`` reads one JSON job from standard input and prints one JSON result.
A job names the "port", "connections", "seconds" and either what to write to a WhatsApp webhook (see
``whatsapp_requests``) or, as "ready", complete requests that are sent in turn, over and over.
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
from itertools import cycle
from typing import Any

import uvloop

from hub.bench.figures import quantile


class _Connection(asyncio.Protocol):
    """One connection: writes a request, counts the answer, writes the next."""

    def __init__(self, requests: Iterator[bytes], result: dict[str, Any], done: asyncio.Event) -> None:
        self.requests, self.result, self.done = requests, result, done
        self.buffer = bytearray()
        self.due = 0  # bytes of the whole answer; 0 until its head is there, -1 for chunks
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def next(self) -> None:
        request = next(self.requests, None) if time.perf_counter() <= self.result["until"] else None
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.due == 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower() + b"\r\n"
            at = head.find(b"content-length:")
            if at >= 0:
                self.due = end + 4 + int(head[at + 15 : head.index(b"\r\n", at)])
            else:
                self.due = -1 if b"transfer-encoding: chunked" in head else end + 4
        if len(self.buffer) < self.due or (self.due < 0 and not self.buffer.endswith(b"\r\n0\r\n\r\n")):
            return
        result = self.result
        result["times"].append(time.perf_counter() - self.began)
        result["bytes"] += len(self.buffer)
        status = self.buffer[9:12].decode()
        result["statuses"][status] = result["statuses"].get(status, 0) + 1
        if status[0] != "2" and not result["refusal"]:
            result["refusal"] = self.buffer[:600].decode(errors="replace")
        self.buffer.clear()
        self.due = 0
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.result["open"] -= 1
        if self.result["open"] == 0:
            self.done.set()


def whatsapp_requests(job: dict[str, Any]) -> list[bytes]:
    """Signed webhooks, each with its own message id, every one ``job["repeat"]`` times in a row.

    ``senders``: that many customers take turns, each writing to the same account always (the same customers
    for the same ``crowd``); 0 for a new customer each time. ``again``: begin anew when all were sent.
    """
    numbers, senders, secret = job["numbers"], job["senders"], job["secret"].encode()
    crowd = job.get("crowd", job["prefix"])
    out = []
    for n in range(job["count"]):
        who = n % senders if senders else n
        sender = sender_number(crowd, who)
        message = {
            "from": sender, "id": f"wamid.{job['prefix']}.{n}",
            "timestamp": str(int(time.time())), "type": "text",
            "text": {"body": f"Message number {n} of the benchmark, about as long as people write."},
        }  # fmt: skip
        value = {
            "messaging_product": "whatsapp",
            "metadata": {
                "display_phone_number": "15550001111",
                "phone_number_id": numbers[who % len(numbers)],
            },
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
        request = (
            f"POST {job['path']} HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Hub-Signature-256: sha256={signature}\r\n\r\n".encode()
            + body
        )
        out += [request] * job.get("repeat", 1)
    return out


def sender_number(crowd: int, who: int) -> str:
    return f"20{crowd:03d}{who:07d}"


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """{"rate", "p50_ms", "p99_ms", "statuses", "cpu_share", "requests", "bytes", "refusal"} for one job.
    "refusal" is the beginning of the first answer that was no success."""
    ready = [text.encode() for text in job.get("ready", ())]
    made = ready or whatsapp_requests(job)
    requests = cycle(made) if ready or job.get("again") else iter(made)
    result: dict[str, Any] = {
        "times": [],
        "statuses": {},
        "bytes": 0,
        "refusal": "",
        "open": job["connections"],
        "until": 0.0,
    }
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(job["connections"]):
        _, connection = await loop.create_connection(
            lambda: _Connection(requests, result, done), "127.0.0.1", job["port"]
        )
        connections.append(connection)
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    result["until"] = began + job["seconds"]
    for connection in connections:
        connection.next()
    await done.wait()
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    times = sorted(result["times"])
    return {
        "requests": len(times),
        "rate": len(times) / took,
        "p50_ms": quantile(times, 0.5) * 1000,
        "p99_ms": quantile(times, 0.99) * 1000,
        "statuses": result["statuses"],
        "bytes": result["bytes"],
        "refusal": result["refusal"],
        "cpu_share": (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) / took,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
