"""WhatsApp webhooks on FastAPI and uvicorn: the HTTP work alone, or with one function call a request."""

import hashlib
import hmac
import json
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Request

options = json.loads(sys.argv[1])
secret = options["secret"].encode()
accounts = {number: (org, account) for number, org, account in options["accounts"]}
pools: list[Any] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    if options["mode"] == "function":
        pools.append(await asyncpg.create_pool(options["dsn"], min_size=16, max_size=16))
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/{path:path}")
async def webhook(request: Request) -> dict[str, str]:
    body = await request.body()
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(f"sha256={signature}", request.headers.get("x-hub-signature-256", "")):
        raise HTTPException(401)
    document = json.loads(body)
    if pools:
        for entry in document["entry"]:
            for change in entry["changes"]:
                await store(change["value"])
    return {"status": "ok"}


async def store(value: dict[str, Any]) -> None:
    org, account = accounts[value["metadata"]["phone_number_id"]]
    for message in value["messages"]:
        item = {
            "n": 0, "organization_id": org, "channel_account_id": account, "dedupe_key": message["id"],
            "schemes": ["wa_id"], "ids": [message["from"]], "name": value["contacts"][0]["profile"]["name"],
            "direction": "INBOUND", "content": message["text"]["body"], "message_type": "text",
            "metadata": {}, "occurred_at": datetime.fromtimestamp(int(message["timestamp"]), UTC).isoformat(),
            "reply_to": None, "source": "customer",
        }  # fmt: skip
        async with pools[0].acquire() as conn:
            await conn.fetch("select * from app.ingest_many($1)", json.dumps([item]))


if __name__ == "__main__":
    config = uvicorn.Config(
        app, host="127.0.0.1", port=options["port"], loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
    uvicorn.Server(config).run()
