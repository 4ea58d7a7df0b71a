"""Where the fuzzers begin: real inputs of each parser."""

from __future__ import annotations

import json
from pathlib import Path

from hub.channels.ingest import Delivery
from hub.channels.spool import frame

_PAYLOADS = Path(__file__).resolve().parents[2] / "payloads" / "whatsapp_cloud"


def webhooks() -> list[bytes]:
    """Every delivery of tests/payloads."""
    documents = [json.loads(path.read_bytes()) for path in sorted(_PAYLOADS.rglob("*.json"))]
    return [json.dumps(d["webhook"]).encode() for d in documents if "webhook" in d]


def seeds(target: str) -> list[bytes]:
    match target:
        case "webhook":
            return webhooks()
        case "grammar":
            return [
                b"select=id,name:first_name,custom_fields->>city&order=created_at.desc.nullslast&limit=5&offset=2",
                b'or=(first_name.eq.a,not.and(id.is.null,tags.cs.{a}))&id=in.(1,"b,c")&first_name=like(any).{a*}',
                b"columns=id,first_name&on_conflict=id&custom_fields->a->>0=not.is.true&select=id::text",
            ]
        case "frames":
            return [
                b'{"type":"hello","token":"t","cursor":{"epoch":"e","seq":1},"client":"c"}',
                b'{"type":"command","id":"1","name":"send","args":{"conversation_id":'
                b'"01900000-0000-7000-8000-000000000000","content":"x","client_ref":'
                b'"01900000-0000-7000-8000-000000000000"}}',
                b'{"type":"command","id":"2","name":"tag","args":{"conversation_id":'
                b'"01900000-0000-7000-8000-000000000000","add":["a"],"remove":[]}}',
            ]
        case "spool":
            one = frame(
                Delivery(
                    channel="WHATSAPP_CLOUD", body=b"{}", headers={"a": "b"}, account=None, received_at=1.0
                )
            )
            return [one, one + one, one[:-3], one[12:]]
        case "phones":
            return [
                b"+20 (0)100 138-3533",
                "٠٠٢٠١٠٠١٣٨٣٥٣٣".encode(),
                b"201001383533:5@s.whatsapp.net",
            ]
        case "tokens":
            return [
                b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImVzIn0.eyJyb2xlIjoiYXV0aGVudGljYXRlZCJ9." + b"A" * 86,
                b"eyJhbGciOiJIUzI1NiIsImtpZCI6ImhzIn0.eyJyb2xlIjoiYW5vbiIsImV4cCI6OTk5OTk5OTk5OX0."
                + b"A" * 43,
                b"v1:0a1b2c3d:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAA",
                b"sha256=" + b"0" * 64,
                b"t=1,v1=" + b"0" * 64,
                b"t=1,s=00",
            ]
        case "bodies":
            return [
                b'{"phone":"+201001383533","content":"x","direction":"incoming","status":"received",'
                b'"metadata":{"a":[1e5]}}',
                b'{"to":"+201001383533","message":"x","variables":{"a":"b"},"access_token":"s"}',
                b"[" * 70,
                b'{"a":"\\ud83d\\ude00"}',
            ]
        case _:
            return [
                b"HUB_PORT=8080\nHUB_TRUSTED_PROXIES=10.0.0.0/8,::1\nPUBLIC_BASE_URL=https://a.b\nHUB_DEMO=on"
            ]
