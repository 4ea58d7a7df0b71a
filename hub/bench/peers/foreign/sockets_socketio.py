"""Rooms of python-socketio on uvicorn, fed through its AsyncRedisManager.

With a further argument "publish" it is the other end: a writer that emits each line "<room> <frame>" of its
standard input.
"""

import json
import sys
from typing import Any

import socketio
import uvicorn

options = json.loads(sys.argv[-1])


def publish() -> None:
    manager = socketio.RedisManager(options["redis"], channel=options["prefix"], write_only=True)
    for line in sys.stdin.buffer:
        room, _, text = line.rstrip(b"\n").partition(b" ")
        manager.emit("event", json.loads(text), room=room.decode())


def serve() -> None:
    sio = socketio.AsyncServer(
        async_mode="asgi",
        client_manager=socketio.AsyncRedisManager(options["redis"], channel=options["prefix"]),
    )

    @sio.event
    async def join(sid: str, org: str) -> None:
        await sio.enter_room(sid, org)
        await sio.emit("welcome", to=sid, ignore_queue=True)

    async def ready(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

    uvicorn.run(
        socketio.ASGIApp(sio, ready), host="127.0.0.1", port=options["port"], loop="uvloop", http="httptools",
        access_log=False, log_level="warning", ws_per_message_deflate=False, lifespan="off",
    )  # fmt: skip


publish() if sys.argv[1] == "publish" else serve()
