"""Follow an organization live, through cuts and restarts: python live.py ws://127.0.0.1:8080/ws
ACCESS_TOKEN"""

import asyncio
import json
import random
import sys

import aiohttp


async def follow(url: str, token: str) -> None:
    cursor, attempt = None, 0
    while True:
        attempt, pause = attempt + 1, random.uniform(0.5, min(15.0, 0.5 * 2**attempt))
        try:
            async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as ws:
                await ws.send_json({"type": "hello", "token": token, "cursor": cursor, "client": "docs-py/1"})
                async for message in ws:
                    frame = json.loads(message.data)
                    if frame["type"] == "resync" or (frame["type"] == "welcome" and not frame["resumed"]):
                        cursor = {"epoch": frame["epoch"], "seq": frame["seq"]}
                        print("snapshot", frame["reason"], flush=True)  # read what you show over /rest/v1 now
                    elif frame["type"] in ("event", "pos") and frame["seq"] > cursor["seq"]:
                        cursor["seq"] = frame["seq"]  # before the event is handed on
                        if frame["type"] == "event":
                            print(
                                frame["seq"], frame["event"]["type"], frame["event"]["entity_id"], flush=True
                            )
                    elif frame["type"] == "bye":
                        pause = frame["retry_in"]
                    attempt = 0
            if ws.close_code in (4401, 4403):
                sys.exit(f"The hub refused this token ({ws.close_code})")
        except (aiohttp.ClientError, OSError) as error:
            print("away", type(error).__name__, file=sys.stderr)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(follow(*sys.argv[1:]))
