"""Groups of Django Channels on uvicorn, over the pub/sub layer of channels-redis.

With a further argument "publish" it is the other end: a writer that sends each line "<group> <frame>" of its
standard input to that group.
"""

import asyncio
import json
import sys
from typing import Any

import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import channel_layers
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings

options = json.loads(sys.argv[-1])
settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [options["redis"]], "prefix": options["prefix"].strip(":")},
        }
    }
)


class Inbox(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.group = self.scope["query_string"].decode().rpartition("org=")[2]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        await self.send('{"type":"welcome"}')

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def event(self, message: dict[str, Any]) -> None:
        await self.send(message["text"])


async def publish() -> None:
    layer = channel_layers["default"]
    assert isinstance(layer, RedisPubSubChannelLayer)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        group, _, text = line.rstrip(b"\n").partition(b" ")
        await layer.group_send(group.decode(), {"type": "event", "text": text.decode()})


def serve() -> None:
    consumer = Inbox.as_asgi()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await consumer(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

    uvicorn.run(
        app, host="127.0.0.1", port=options["port"], loop="uvloop", http="httptools", access_log=False,
        log_level="warning", ws_per_message_deflate=False, lifespan="off",
    )  # fmt: skip


asyncio.run(publish()) if sys.argv[1] == "publish" else serve()
