"""The same list and insert on FastAPI: rows → pydantic models → JSON."""

import json
import sys
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

options = json.loads(sys.argv[1])
TYPES: dict[str, Any] = {
    "uuid": UUID, "text": str, "jsonb": dict[str, Any], "integer": int, "bigint": int, "boolean": bool,
    "timestamp with time zone": datetime, "date": date, "ARRAY": list[str], "numeric": float,
}  # fmt: skip
Contact = create_model(
    "Contact", **{name: (TYPES[kind] | None, None) for name, kind in options["columns"].items()}
)
names = ", ".join(options["columns"])
LISTING = f"select {names} from contacts where organization_id = $1 order by created_at desc limit $2"
INSERT = (
    "insert into contacts (organization_id, first_name, last_name, phones, emails, custom_fields)"
    f" values ($1, $2, $3, $4, $5, $6) returning {names}"
)
pools: list[Any] = []


class NewContact(BaseModel):
    first_name: str
    last_name: str
    phones: list[str]
    emails: list[str]
    custom_fields: dict[str, Any]


async def codecs(conn: Any) -> None:
    await conn.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    pools.append(await asyncpg.create_pool(options["dsn"], min_size=16, max_size=16, init=codecs))
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/contacts")
async def listing(limit: int = 100) -> list[Contact]:
    rows = await pools[0].fetch(LISTING, options["organization"], limit)
    return [Contact(**row) for row in rows]


@app.post("/contacts", status_code=201)
async def insert(given: NewContact) -> list[Contact]:
    row = await pools[0].fetchrow(
        INSERT, options["organization"], given.first_name, given.last_name, given.phones, given.emails,
        given.custom_fields,
    )  # fmt: skip
    return [Contact(**row)]


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=options["port"], loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
