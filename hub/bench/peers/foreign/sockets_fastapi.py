"""Redis → websockets on FastAPI and uvicorn: one redis-py subscription, a loop over the sockets."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

options = json.loads(sys.argv[1])
rooms: dict[str, set[WebSocket]] = {}


async def relay() -> None:
    async with redis.from_url(options["redis"]) as client:
        subscription = client.pubsub()
        await subscription.psubscribe(options["prefix"] + "*")
        async for message in subscription.listen():
            if message["type"] == "pmessage":
                org = message["channel"].decode().removeprefix(options["prefix"])
                text = message["data"].decode()
                for socket in tuple(rooms.get(org, ())):
                    await socket.send_text(text)


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    task = asyncio.create_task(relay())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.websocket("/ws")
async def join(socket: WebSocket, org: str) -> None:
    await socket.accept()
    room = rooms.setdefault(org, set())
    room.add(socket)
    await socket.send_text('{"type":"welcome"}')
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        room.discard(socket)


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=options["port"], loop="uvloop", http="httptools", access_log=False,
        log_level="warning", ws_per_message_deflate=False, ws="websockets-sansio",
    )  # fmt: skip
